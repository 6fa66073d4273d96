"""Convolution of stacks of images with stacks of kernels, and its two transposes.

Convolution is linear in the image and linear in the kernel, so all its derivatives, of any
order, are among three functions:

    convolve            images, kernels -> outputs
    convolve_transpose  outputs, kernels -> images    (transpose of the first, by the images)
    kernel_gradient           images, outputs -> kernels    (transpose of the first, by the kernels)

Shapes: images `(M, H, W, C)`; kernels `(K, kh, kw, C/groups, Q)`; outputs `(K, M, rows, columns,
Q)`: each of K kernels meets each of M images.  So k tangents of an image are k·M images, and k
tangents of a kernel are k kernels that share one unfolding.

Each is a matrix product over unfolded windows, which hold kh·kw times as many numbers as the
images.  A few images at a time are unfolded, at least one, so that the product finds them in the
cache and memory holds no more of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dualnet.backends.overridable import bytes_at_a_time, matrix_product
from dualnet.core.arrays import stack_arrays
from dualnet.core.dual import primitive
from dualnet.images.windows import Geometry, Pair, fold, pad, window_view

_BLOCK_BYTES = 4 << 20
"""Bytes of unfolded windows at a time.  Measured with 3x3 windows and 64 channels: 2 to 4 MiB take
the same time, 10 MiB a tenth more, all of a batch a third more."""


@primitive
def convolve(x: Any, w: Any, geometry: Geometry) -> Any:
    """Every image with every kernel: `(M, H, W, C)`, `(K, kh, kw, C/g, Q)` to `(K, M, ·, ·, Q)`."""
    groups, kernels, q = geometry.groups, len(w), w.shape[-1]
    m, places = len(x), geometry.output_size(x.shape[1:3])
    matrices = _kernel_matrices(w, groups)
    out = np.empty_like(x, shape=(kernels, m * math.prod(places), groups, q // groups))
    for here, rows in _unfolded(x, geometry):
        matrix_product(rows, matrices, np.swapaxes(out[:, here], 1, 2))
    return np.reshape(out, (kernels, m, *places, q))


@primitive
def convolve_transpose(y: Any, w: Any, geometry: Geometry, image: Pair) -> Any:
    """The images that `convolve` would send back: sums over kernels, `(M, *image, C)`.

    Args:
        y: outputs or cotangents of outputs `(K, M, rows, columns, Q)`.
        w: `(K, kh, kw, C/g, Q)`.
        image: H and W.
    """
    groups, (kh, kw), channels = geometry.groups, geometry.window, w.shape[3]
    if geometry.stride == (1, 1) and all(
        max(sides) < n for sides, n in zip(geometry.padding, (kh, kw), strict=True)
    ):
        return _by_turned_kernel(y, w, geometry)
    m, *places = y.shape[1:4]
    matrices = np.swapaxes(_kernel_matrices(w, groups), 2, 3)
    out = np.empty_like(y, shape=(m, *image, groups * channels))
    each = math.prod(places)
    step = _images_at_a_time(y, kh * kw * channels * groups * each * y.itemsize)
    outputs = _output_rows(y, groups)
    for a in range(0, m, step):
        b = min(m, a + step)
        sums = np.sum(matrix_product(outputs[:, :, a * each : b * each], matrices), axis=0)
        windows = np.reshape(sums, (groups, b - a, *places, kh * kw, channels))
        windows = np.transpose(windows, (1, 2, 3, 4, 0, 5))
        windows = np.reshape(windows, (b - a, *places, kh * kw, groups * channels))
        out[a:b] = fold(windows, geometry, image)
    return out


@primitive
def kernel_gradient(x: Any, y: Any, geometry: Geometry) -> Any:
    """The kernels that `convolve` would send back: sums over images, `(K, kh, kw, C/g, Q)`.

    Args:
        x: `(M, H, W, C)`.
        y: outputs or cotangents of outputs `(K, M, rows, columns, Q)`.
    """
    groups, kernels, q = geometry.groups, len(y), y.shape[-1]
    channels = x.shape[-1] // groups
    outputs = _output_rows(y, groups)
    each = math.prod(geometry.window) * channels
    total: Any = np.zeros_like(y, shape=(kernels, groups, each, q // groups))
    for here, rows in _unfolded(x, geometry):
        total += matrix_product(np.swapaxes(rows, 1, 2), outputs[:, :, here])
    total = np.swapaxes(total, 1, 2)
    return np.reshape(total, (kernels, *geometry.window, channels, q))


@primitive
def convolve_rank_one(x: Any, left: Any, right: Any, geometry: Geometry) -> Any:
    """`convolve` with k kernels that are outer products at every pixel of the window.

    Each image's product with `left` is one number a pixel of the window, and `right` spreads it
    over the outputs: C + Q multiplications where a dense kernel takes C·Q.

    Args:
        x: `(M, H, W, C)`.
        left: `(k, kh, kw, C/g)`.
        right: `(k, kh, kw, Q)`.

    Returns:
        `(k, M, rows, columns, Q)`.
    """
    k, kh, kw, channels = left.shape
    groups, q = geometry.groups, right.shape[-1]
    m, (rows, columns) = len(x), geometry.output_size(x.shape[1:3])
    (down, across), each = geometry.stride, rows * columns
    out = np.empty_like(x, shape=(k, m * each, groups, q // groups))
    factors = np.reshape(left, (k * kh * kw, channels))
    spread = np.reshape(right, (k, kh * kw, groups, q // groups))
    spread = np.swapaxes(spread, 1, 2)  # (k, groups, kh·kw, q / groups)
    step = _images_at_a_time(x, k * kh * kw * groups * math.prod(x.shape[1:3]) * x.itemsize)
    for a in range(0, m, step):
        padded = pad(x[a : a + step], geometry)
        b, height, width, _ = padded.shape
        pixels = np.reshape(padded, (b * height * width, groups, channels))
        dots = matrix_product(factors, np.transpose(pixels, (1, 2, 0)))
        # (groups, k·kh·kw, b·height·width)
        dots = np.reshape(dots, (groups, k, kh, kw, b, height, width))
        picked = np.empty_like(x, shape=(k, groups, kh, kw, b, rows, columns))
        for i in range(kh):
            for j in range(kw):
                shifted = dots[:, :, i, j, :, i::down, j::across][..., :rows, :columns]
                picked[:, :, i, j] = np.swapaxes(shifted, 0, 1)
        numbers = np.reshape(picked, (k, groups, kh * kw, b * each))
        here = np.swapaxes(out[:, a * each : (a + b) * each], 1, 2)
        matrix_product(np.swapaxes(numbers, 2, 3), spread, here)
    return np.reshape(out, (k, m, rows, columns, q))


def convolve_own_rank_one(x: Any, left: Any, right: Any, geometry: Geometry) -> Any:
    """`convolve_rank_one` with k kernels of every image's own.

    Args:
        x: `(M, H, W, C)`.
        left: `(k, M, kh, kw, C/g)`.
        right: `(k, M, kh, kw, Q)`.

    Returns:
        `(k, M, rows, columns, Q)`.
    """
    k, m, kh, kw, channels = left.shape
    groups, q = geometry.groups, right.shape[-1]
    rows, columns = geometry.output_size(x.shape[1:3])
    down, across = geometry.stride
    x = np.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    height, width = x.shape[1:3]
    pixels = np.reshape(x, (m, height * width, groups, channels))
    factors = np.reshape(np.moveaxis(left, 1, 0), (m, 1, k * kh * kw, channels))
    dots = matrix_product(factors, np.transpose(pixels, (0, 2, 3, 1)))
    # (M, groups, k·kh·kw, height·width)
    dots = np.reshape(dots, (m, groups, k, kh, kw, height, width))
    picked = [
        dots[:, :, :, i, j, i::down, j::across][..., :rows, :columns]
        for i in range(kh)
        for j in range(kw)
    ]
    numbers = np.reshape(stack_arrays(picked, axis=-1), (m, groups, k, rows * columns, kh * kw))
    spread = np.reshape(right, (k, m, kh * kw, groups, q // groups))
    spread = np.transpose(spread, (1, 3, 0, 2, 4))  # (M, groups, k, kh·kw, q / groups)
    y = np.transpose(matrix_product(numbers, spread), (2, 0, 3, 1, 4))
    return np.reshape(y, (k, m, rows, columns, q))


# --- parts ---------------------------------------------------------------------------------------


def _kernel_matrices(w: Any, groups: int) -> Any:
    """Kernels as matrices, `(K, groups, kh·kw·C/g, Q/g)`."""
    kernels, kh, kw, channels, q = w.shape
    parts = np.reshape(w, (kernels, kh * kw * channels, groups, q // groups))
    return np.swapaxes(parts, 1, 2)


def _output_rows(y: Any, groups: int) -> Any:
    """Outputs as matrices, one row a place, `(K, groups, M·rows·columns, Q/g)`."""
    kernels, m, rows, columns, q = y.shape
    return np.swapaxes(np.reshape(y, (kernels, m * rows * columns, groups, q // groups)), 1, 2)


def _images_at_a_time(like: Any, bytes_each: int) -> int:
    return max(1, bytes_at_a_time(like, _BLOCK_BYTES) // max(1, bytes_each))


def _unfolded(x: Any, geometry: Geometry) -> Iterator[tuple[slice, Any]]:
    """Yield the windows of a few images at a time, one row a window.

    Yields:
        Where among all windows they are, and `(groups, their number, kh·kw·C/g)`, which is
        overwritten by the next.
    """
    groups, (m, h, w, c) = geometry.groups, x.shape
    if geometry.is_pointwise:  # every pixel is a window: there is nothing to copy
        yield (
            slice(0, m * h * w),
            np.swapaxes(np.reshape(x, (m * h * w, groups, c // groups)), 0, 1),
        )
        return
    window, places = geometry.window, geometry.output_size((h, w))
    each = math.prod(places)
    step = min(max(1, m), _images_at_a_time(x, math.prod(window) * c * each * x.itemsize))
    rows = np.empty_like(x, shape=(groups, step, *places, *window, c // groups))
    for a in range(0, m, step):
        b = min(m, a + step)
        padded = pad(x[a:b], geometry)
        in_groups = np.reshape(padded, (*padded.shape[:3], groups, c // groups))
        windows = window_view(in_groups, geometry)  # (b - a, *places, groups, c / groups, kh, kw)
        rows[:, : b - a] = np.transpose(windows, (3, 0, 1, 2, 5, 6, 4))
        yield (
            slice(a * each, b * each),
            np.reshape(rows[:, : b - a], (groups, (b - a) * each, math.prod(window) * c // groups)),
        )


def _by_turned_kernel(y: Any, w: Any, geometry: Geometry) -> Any:
    """`convolve_transpose` at stride 1: a convolution with the kernel turned by 180 degrees.

    Copying windows is several times faster than adding them up, which `fold` would do.
    """
    groups, (kernels, kh, kw, channels, q) = geometry.groups, w.shape
    around: Any = tuple(
        (n - 1 - before, n - 1 - after)
        for n, (before, after) in zip(geometry.window, geometry.padding, strict=True)
    )
    turned = np.reshape(w[:, ::-1, ::-1], (kernels, kh, kw, channels, groups, q // groups))
    turned = np.reshape(
        np.transpose(turned, (1, 2, 0, 5, 4, 3)),
        (1, kh, kw, kernels * q // groups, groups * channels),
    )
    images = np.reshape(y, (*y.shape[:4], groups, q // groups))
    images = np.reshape(np.transpose(images, (1, 2, 3, 4, 0, 5)), (*y.shape[1:4], kernels * q))
    backward = Geometry(geometry.window, (1, 1), around, groups)
    return convolve(images, turned, backward)[0]
