"""The derivative rules of sliding windows and convolution, and the linear maps that they use.

Convolution and its two transposes are bilinear.  The derivative of a bilinear function by one
argument is the function itself, with the tangent in the place of this argument.  So each of the
three functions has two linear maps here, and the transpose of each of these six maps is another one
of the six.
"""

from __future__ import annotations

import math

import numpy as np

from dualnet.core import linear
from dualnet.core.engine import rule
from dualnet.core.linear import LinearMap
from dualnet.core.spaces import RankOne, shortcut
from dualnet.images.convolution import (
    convolve,
    convolve_rank_one,
    convolve_transpose,
    kernel_gradient,
)
from dualnet.images.windows import (
    Geometry,
    Pair,
    fold,
    unfold,
    weighted_window_sum,
    weighted_window_sum_transpose,
)
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent

# --- windows -------------------------------------------------------------------------------------


@LinearMap
def unfold_tangent(t: Stack, geometry: Geometry) -> Stack:
    """Unfold k tangents of a batch of images, t `(k, M, H, W, C)`."""
    out = unfold(_merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@unfold_tangent.transposed
def _(ct: Cotangent, shape: Shape, geometry: Geometry) -> Cotangent:
    return fold_tangent(ct, geometry, shape[1:3])


@LinearMap
def fold_tangent(t: Stack, geometry: Geometry, image: Pair) -> Stack:
    """Fold k tangents of a batch of windows, t `(k, M, rows, columns, kh·kw, C)`."""
    out = fold(_merge(t, 0), geometry, image)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@fold_tangent.transposed
def _(ct: Cotangent, _shape: Shape, geometry: Geometry, _image: Pair) -> Cotangent:
    return unfold_tangent(ct, geometry)


rule(unfold, lambda t, out, x, geometry: unfold_tangent(t, geometry))
rule(fold, lambda t, out, y, geometry, image: fold_tangent(t, geometry, image))

# --- weighted sums of windows --------------------------------------------------------------------
# Pooling's weights say which entry of a window is the largest; they never have tangents.


@LinearMap
def weighted_sum_of_tangent(t: Stack, weights: Array, geometry: Geometry) -> Stack:
    """Sum the windows of k tangents t `(k, ..., M, H, W, C)` by `weighted_window_sum`."""
    lead = t.shape[:-4]
    out = weighted_window_sum(np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry)
    return np.reshape(out, (*lead, *out.shape[1:]))


@weighted_sum_of_tangent.transposed
def _(ct: Cotangent, shape: Shape, weights: Array, geometry: Geometry) -> Cotangent:
    return weighted_sum_transpose_of_tangent(ct, weights, geometry, shape[-3:-1])


@LinearMap
def weighted_sum_transpose_of_tangent(
    t: Stack, weights: Array, geometry: Geometry, image: Pair
) -> Stack:
    """Apply `weighted_window_sum_transpose` to k tangents t `(k, ..., M, rows, columns, C)`."""
    lead = t.shape[:-4]
    out = weighted_window_sum_transpose(
        np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry, image
    )
    return np.reshape(out, (*lead, *out.shape[1:]))


@weighted_sum_transpose_of_tangent.transposed
def _(ct: Cotangent, _shape: Shape, weights: Array, geometry: Geometry, _image: Pair) -> Cotangent:
    return weighted_sum_of_tangent(ct, weights, geometry)


rule(
    weighted_window_sum,
    lambda t, out, x, weights, geometry: weighted_sum_of_tangent(t, weights, geometry),
)
rule(
    weighted_window_sum_transpose,
    lambda t, out, y, weights, geometry, image: weighted_sum_transpose_of_tangent(
        t, weights, geometry, image
    ),
)

# --- convolve ------------------------------------------------------------------------------------


@LinearMap
def conv_of_image_tangent(t: Stack, w: Array, geometry: Geometry) -> Stack:
    """Return `convolve(t, w)` for tangents of the images, t `(k, M, H, W, C)`."""
    k, m = t.shape[:2]
    return _split(convolve(_merge(t, 0), w, geometry), 1, k, m)


@conv_of_image_tangent.transposed
def _(ct: Cotangent, shape: Shape, w: Array, geometry: Geometry) -> Cotangent:
    return conv_transpose_of_output_tangent(ct, w, geometry, shape[1:3])


@LinearMap
def conv_of_kernel_tangent(t: Stack, x: Array, geometry: Geometry) -> Stack:
    """Return `convolve(x, t)` for tangents of the kernels, t `(k, K, kh, kw, C/g, Q)`.

    The images are unfolded once for all directions.
    """
    out = convolve(x, _merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@shortcut(conv_of_kernel_tangent)
def _(t: RankOne, x: Array, geometry: Geometry) -> Tangent | None:
    if t.shape[0] != 1:  # several kernels: the dense map serves them
        return None
    return np.expand_dims(convolve_rank_one(x, t.left[:, 0], t.right[:, 0], geometry), 1)


@conv_of_kernel_tangent.transposed
def _(ct: Cotangent, _shape: Shape, x: Array, geometry: Geometry) -> Cotangent:
    return kernel_gradient_of_output_tangent(ct, x, geometry)


rule(
    convolve,
    lambda t, out, x, w, geometry: conv_of_image_tangent(t, w, geometry),
    lambda t, out, x, w, geometry: conv_of_kernel_tangent(t, x, geometry),
)


def _tangent_times_right(t: Tangent, right: Array) -> Tangent:
    """Return the tangents of the kernels `left ⊗ right` that tangents t of `left` cause."""
    column = linear.reshape(t, (*linear.shape_of(t), 1))
    return linear.scale(column, np.expand_dims(right, -2))


def _left_times_tangent(t: Tangent, left: Array) -> Tangent:
    """Return the tangents of the kernels `left ⊗ right` that tangents t of `right` cause."""
    *window, outputs = linear.shape_of(t)
    row = linear.reshape(t, (*window, 1, outputs))
    return linear.scale(row, np.expand_dims(left, -1))


rule(
    convolve_rank_one,
    lambda t, out, x, left, right, geometry: conv_of_image_tangent(
        t, np.expand_dims(left, -1) * np.expand_dims(right, -2), geometry
    ),
    lambda t, out, x, left, right, geometry: conv_of_kernel_tangent(
        _tangent_times_right(t, right), x, geometry
    ),
    lambda t, out, x, left, right, geometry: conv_of_kernel_tangent(
        _left_times_tangent(t, left), x, geometry
    ),
)

# --- convolve_transpose --------------------------------------------------------------------------


@LinearMap
def conv_transpose_of_output_tangent(t: Stack, w: Array, geometry: Geometry, image: Pair) -> Stack:
    """Return `convolve_transpose(t, w)` for k tangents of outputs `(k, K, M, rows, columns, Q)`."""
    k, _, m = t.shape[:3]
    out = convolve_transpose(_merge(np.moveaxis(t, 0, 1), 1), w, geometry, image)
    return np.reshape(out, (k, m, *out.shape[1:]))


@conv_transpose_of_output_tangent.transposed
def _(ct: Cotangent, _shape: Shape, w: Array, geometry: Geometry, _image: Pair) -> Cotangent:
    return conv_of_image_tangent(ct, w, geometry)


@LinearMap
def conv_transpose_of_kernel_tangent(t: Stack, y: Array, geometry: Geometry, image: Pair) -> Stack:
    """Return `convolve_transpose(y, t)` for tangents of the kernels, t `(k, K, kh, kw, C/g, Q)`.

    The k directions are laid side by side, as channels of one kernel with k·C/g channels.
    """
    k, channels = t.shape[0], t.shape[4]
    out = convolve_transpose(y, _merge(np.moveaxis(t, 0, 3), 3), geometry, image)
    out = np.reshape(out, (*out.shape[:3], geometry.groups, k, channels))
    out = np.moveaxis(out, -2, 0)
    return np.reshape(out, (*out.shape[:4], geometry.groups * channels))


@conv_transpose_of_kernel_tangent.transposed
def _(ct: Cotangent, _shape: Shape, y: Array, geometry: Geometry, _image: Pair) -> Cotangent:
    return kernel_gradient_of_image_tangent(ct, y, geometry)


rule(
    convolve_transpose,
    lambda t, out, y, w, geometry, image: conv_transpose_of_output_tangent(t, w, geometry, image),
    lambda t, out, y, w, geometry, image: conv_transpose_of_kernel_tangent(t, y, geometry, image),
)

# --- kernel_gradient -----------------------------------------------------------------------------


@LinearMap
def kernel_gradient_of_image_tangent(t: Stack, y: Array, geometry: Geometry) -> Stack:
    """Return `kernel_gradient(t, y)` for tangents of the images, t `(k, M, H, W, C)`.

    The k directions are laid side by side, as channels of one batch with k·C channels.
    """
    groups, k = geometry.groups, t.shape[0]
    channels = t.shape[-1] // groups
    images = np.reshape(t, (*t.shape[:-1], groups, channels))
    images = np.moveaxis(images, 0, -2)
    images = np.reshape(images, (*images.shape[:3], groups * k * channels))
    out = kernel_gradient(images, y, geometry)
    out = np.reshape(out, (*out.shape[:3], k, channels, out.shape[-1]))
    return np.moveaxis(out, 3, 0)


@kernel_gradient_of_image_tangent.transposed
def _(ct: Cotangent, shape: Shape, y: Array, geometry: Geometry) -> Cotangent:
    return conv_transpose_of_kernel_tangent(ct, y, geometry, shape[1:3])


@LinearMap
def kernel_gradient_of_output_tangent(t: Stack, x: Array, geometry: Geometry) -> Stack:
    """Return `kernel_gradient(x, t)` for tangents of outputs, t `(k, K, M, rows, columns, Q)`.

    The images are unfolded once for all directions.
    """
    return _split(kernel_gradient(x, _merge(t, 0), geometry), 0, *t.shape[:2])


@kernel_gradient_of_output_tangent.transposed
def _(ct: Cotangent, _shape: Shape, x: Array, geometry: Geometry) -> Cotangent:
    return conv_of_kernel_tangent(ct, x, geometry)


rule(
    kernel_gradient,
    lambda t, out, x, y, geometry: kernel_gradient_of_image_tangent(t, y, geometry),
    lambda t, out, x, y, geometry: kernel_gradient_of_output_tangent(t, x, geometry),
)

# --- the axis k ----------------------------------------------------------------------------------


def _merge(t: Array, axis: int) -> Array:
    """Merge axis `axis` and the one behind it into one."""
    shape = t.shape
    return np.reshape(t, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


def _split(y: Array, axis: int, first: int, second: int) -> Array:
    """Split axis `axis` into two, of lengths `first` and `second`; move the first to the front."""
    out = np.reshape(y, (*y.shape[:axis], first, second, *y.shape[axis + 1 :]))
    return np.moveaxis(out, axis, 0)
