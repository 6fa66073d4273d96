"""Sliding windows and convolution: the linear operations they add, and their rules.

A bilinear function's derivatives are the function itself with a tangent in one place, so the
six linear maps here close among themselves: each one's transpose is another.
"""

from __future__ import annotations

import math
from typing import Any

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
from dualnet.types import Shape, Tangent

# --- windows ---


@LinearMap
def unfold_tangent(t: Tangent, geometry: Geometry) -> Tangent:
    """`unfold`, for t `(k, M, H, W, C)`."""
    out = unfold(_merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@unfold_tangent.transposed
def _(ct: Tangent, shape: Shape, geometry: Geometry) -> Tangent:
    return fold_tangent(ct, geometry, shape[1:3])


@LinearMap
def fold_tangent(t: Tangent, geometry: Geometry, image: Pair) -> Tangent:
    """`fold`, for t `(k, M, rows, columns, kh·kw, C)`."""
    out = fold(_merge(t, 0), geometry, image)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@fold_tangent.transposed
def _(ct: Tangent, _shape: Shape, geometry: Geometry, _image: Pair) -> Tangent:
    return unfold_tangent(ct, geometry)


rule(unfold, lambda t, out, x, geometry: unfold_tangent(t, geometry))
rule(fold, lambda t, out, y, geometry, image: fold_tangent(t, geometry, image))

# --- weighted sums of windows; the weights say which entry is largest, and have no tangents ---


@LinearMap
def weighted_sum_of_tangent(t: Tangent, weights: Any, geometry: Geometry) -> Tangent:
    """`weighted_window_sum`, for t `(k, ..., M, H, W, C)`."""
    lead = t.shape[:-4]
    out = weighted_window_sum(np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry)
    return np.reshape(out, (*lead, *out.shape[1:]))


@weighted_sum_of_tangent.transposed
def _(ct: Tangent, shape: Shape, weights: Any, geometry: Geometry) -> Tangent:
    return weighted_sum_transpose_of_tangent(ct, weights, geometry, shape[-3:-1])


@LinearMap
def weighted_sum_transpose_of_tangent(
    t: Tangent, weights: Any, geometry: Geometry, image: Pair
) -> Tangent:
    """`weighted_window_sum_transpose`, for t `(k, ..., M, rows, columns, C)`."""
    lead = t.shape[:-4]
    out = weighted_window_sum_transpose(
        np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry, image
    )
    return np.reshape(out, (*lead, *out.shape[1:]))


@weighted_sum_transpose_of_tangent.transposed
def _(ct: Tangent, _shape: Shape, weights: Any, geometry: Geometry, _image: Pair) -> Tangent:
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

# --- convolve, by the image and by the kernel ---


@LinearMap
def conv_of_image_tangent(t: Tangent, w: Any, geometry: Geometry) -> Tangent:
    """`convolve(t, w)` for images t `(k, M, H, W, C)`."""
    k, m = t.shape[:2]
    return _split(convolve(_merge(t, 0), w, geometry), 1, k, m)


@conv_of_image_tangent.transposed
def _(ct: Tangent, shape: Shape, w: Any, geometry: Geometry) -> Tangent:
    return conv_transpose_of_output_tangent(ct, w, geometry, shape[1:3])


@LinearMap
def conv_of_kernel_tangent(t: Tangent, x: Any, geometry: Geometry) -> Tangent:
    """`convolve(x, t)` for kernels t `(k, K, kh, kw, C/g, Q)`: one unfolding for all of them."""
    out = convolve(x, _merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@shortcut(conv_of_kernel_tangent)
def _(t: RankOne, x: Any, geometry: Geometry) -> Tangent | None:
    if t.shape[0] != 1:
        return None
    return np.expand_dims(convolve_rank_one(x, t.left[:, 0], t.right[:, 0], geometry), 1)


@conv_of_kernel_tangent.transposed
def _(ct: Tangent, _shape: Shape, x: Any, geometry: Geometry) -> Tangent:
    return kernel_gradient_of_output_tangent(ct, x, geometry)


rule(
    convolve,
    lambda t, out, x, w, geometry: conv_of_image_tangent(t, w, geometry),
    lambda t, out, x, w, geometry: conv_of_kernel_tangent(t, x, geometry),
)


def _outer(t: Tangent, other: Any, of_left: bool) -> Tangent:
    """Kernels from tangents of one factor and the other factor."""
    shape = linear.shape_of(t)
    t = linear.reshape(t, (*shape, 1) if of_left else (*shape[:-1], 1, shape[-1]))
    return linear.scale(t, np.expand_dims(other, -2 if of_left else -1))


rule(
    convolve_rank_one,
    lambda t, out, x, left, right, geometry: conv_of_image_tangent(
        t, np.expand_dims(left, -1) * np.expand_dims(right, -2), geometry
    ),
    lambda t, out, x, left, right, geometry: conv_of_kernel_tangent(
        _outer(t, right, True), x, geometry
    ),
    lambda t, out, x, left, right, geometry: conv_of_kernel_tangent(
        _outer(t, left, False), x, geometry
    ),
)

# --- convolve_transpose, by the output and by the kernel ---


@LinearMap
def conv_transpose_of_output_tangent(
    t: Tangent, w: Any, geometry: Geometry, image: Pair
) -> Tangent:
    """`convolve_transpose(t, w)` for outputs t `(k, K, M, rows, columns, Q)`."""
    k, _, m = t.shape[:3]
    out = convolve_transpose(_merge(np.moveaxis(t, 0, 1), 1), w, geometry, image)
    return np.reshape(out, (k, m, *out.shape[1:]))


@conv_transpose_of_output_tangent.transposed
def _(ct: Tangent, _shape: Shape, w: Any, geometry: Geometry, _image: Pair) -> Tangent:
    return conv_of_image_tangent(ct, w, geometry)


@LinearMap
def conv_transpose_of_kernel_tangent(
    t: Tangent, y: Any, geometry: Geometry, image: Pair
) -> Tangent:
    """`convolve_transpose(y, t)` for kernels t `(k, K, kh, kw, C/g, Q)`.

    The directions stand side by side as channels of one kernel.
    """
    k, channels = t.shape[0], t.shape[4]
    out = convolve_transpose(y, _merge(np.moveaxis(t, 0, 3), 3), geometry, image)
    out = np.reshape(out, (*out.shape[:3], geometry.groups, k, channels))
    out = np.moveaxis(out, -2, 0)
    return np.reshape(out, (*out.shape[:4], geometry.groups * channels))


@conv_transpose_of_kernel_tangent.transposed
def _(ct: Tangent, _shape: Shape, y: Any, geometry: Geometry, _image: Pair) -> Tangent:
    return kernel_gradient_of_image_tangent(ct, y, geometry)


rule(
    convolve_transpose,
    lambda t, out, y, w, geometry, image: conv_transpose_of_output_tangent(t, w, geometry, image),
    lambda t, out, y, w, geometry, image: conv_transpose_of_kernel_tangent(t, y, geometry, image),
)

# --- kernel_gradient, by the image and by the output ---


@LinearMap
def kernel_gradient_of_image_tangent(t: Tangent, y: Any, geometry: Geometry) -> Tangent:
    """`kernel_gradient(t, y)` for images t `(k, M, H, W, C)`; directions are side by side channels."""
    groups, k = geometry.groups, t.shape[0]
    channels = t.shape[-1] // groups
    images = np.reshape(t, (*t.shape[:-1], groups, channels))
    images = np.moveaxis(images, 0, -2)
    images = np.reshape(images, (*images.shape[:3], groups * k * channels))
    out = kernel_gradient(images, y, geometry)
    out = np.reshape(out, (*out.shape[:3], k, channels, out.shape[-1]))
    return np.moveaxis(out, 3, 0)


@kernel_gradient_of_image_tangent.transposed
def _(ct: Tangent, shape: Shape, y: Any, geometry: Geometry) -> Tangent:
    return conv_transpose_of_kernel_tangent(ct, y, geometry, shape[1:3])


@LinearMap
def kernel_gradient_of_output_tangent(t: Tangent, x: Any, geometry: Geometry) -> Tangent:
    """`kernel_gradient(x, t)` for outputs t `(k, K, M, rows, columns, Q)`, with one unfolding."""
    return _split(kernel_gradient(x, _merge(t, 0), geometry), 0, *t.shape[:2])


@kernel_gradient_of_output_tangent.transposed
def _(ct: Tangent, _shape: Shape, x: Any, geometry: Geometry) -> Tangent:
    return conv_of_kernel_tangent(ct, x, geometry)


rule(
    kernel_gradient,
    lambda t, out, x, y, geometry: kernel_gradient_of_image_tangent(t, y, geometry),
    lambda t, out, x, y, geometry: kernel_gradient_of_output_tangent(t, x, geometry),
)

# --- where k goes ---


def _merge(t: Any, axis: int) -> Any:
    """Two neighboring axes as one."""
    shape = t.shape
    return np.reshape(t, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


def _split(y: Any, axis: int, first: int, second: int) -> Any:
    """One axis as two; the first of them moves to the front."""
    out = np.reshape(y, (*y.shape[:axis], first, second, *y.shape[axis + 1 :]))
    return np.moveaxis(out, axis, 0)
