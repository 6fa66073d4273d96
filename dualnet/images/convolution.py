"""Convolution of stacks of images with stacks of kernels, and its two transposes.

Convolution is linear in the image and linear in the kernel.  So three functions are enough to write
all its derivatives, of any order:

    convolve            images, kernels  -> outputs
    convolve_transpose  outputs, kernels -> images     (transpose of the first, by the images)
    kernel_gradient     images, outputs  -> kernels    (transpose of the first, by the kernels)

Shapes: images `(M, H, W, C)`; kernels `(K, kh, kw, C/groups, Q)`; outputs `(K, M, rows, columns,
Q)`.  Each of the K kernels is applied to each of the M images.  So k tangents of a batch are k·M
images, and k tangents of a kernel are k kernels, which share one unfolding of the images.

Each of the functions is a matrix product over unfolded windows, which hold kh·kw times as many
numbers as the images.  Therefore only a block of a few images is unfolded at a time: the product
finds the windows of one block in the cache, and memory holds no more of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dualnet.backends.convolution_matrices import kernel_matrices, output_rows
from dualnet.backends.overridable import bytes_at_a_time, matmul, overridable, stack
from dualnet.core.dual import primitive
from dualnet.images import minimal, wide
from dualnet.images.windows import Geometry, Pair, fold, if_finite, pad, window_view
from dualnet.types import Array

_BLOCK_BYTES = 4 << 20
"""Bytes of unfolded windows in one block.  Measured with 3x3 windows and 64 channels: blocks of 2
MiB and of 4 MiB take the same time, 10 MiB take a tenth more, and a whole batch a third more."""


_FEW_CHANNELS = 2
"""Up to so many channels, outer products have hardly more entries than factors, and are multiplied
out.  Measured with 16 kernels: with one channel 2 to 7 times as fast, with 3 no faster."""


@primitive
@overridable
def convolve(x: Array, w: Array, geometry: Geometry) -> Array:
    """Convolve every image with every kernel.

    Args:
        x: images `(M, H, W, C)`.
        w: kernels `(K, kh, kw, C/g, Q)`.
        geometry: where the windows lie.

    Returns:
        `(K, M, rows, columns, Q)`.
    """
    groups, kernels, q = geometry.groups, len(w), w.shape[-1]
    m, size = len(x), geometry.output_size(x.shape[1:3])
    if 0 in (kernels, m, q):  # as where shapes are asked for, with no directions
        return np.empty_like(x, shape=(kernels, m, *size, q))
    y = minimal.convolve_by_tiles(x, w, geometry)
    if y is not None:
        return y
    n = wide.outputs_together(x, size[1], x.shape[-1], q, geometry)
    if n > 1:
        with np.errstate(invalid="ignore"):
            y = convolve(x, wide.widened(w, n), wide.widened_windows(geometry, n))
        if if_finite(y) is not None:
            return np.reshape(y, (kernels, m, *size, q))
    matrices = kernel_matrices(w, groups)
    out = np.empty_like(x, shape=(kernels, m * math.prod(size), groups, q // groups))
    for here, rows in _unfolded_blocks(x, geometry):
        matmul(rows, matrices, np.swapaxes(out[:, here], 1, 2))
    return np.reshape(out, (kernels, m, *size, q))


@primitive
@overridable
def convolve_transpose(y: Array, w: Array, geometry: Geometry, image: Pair) -> Array:
    """Map outputs back to images: the transpose of `convolve` as a function of the images.

    Args:
        y: outputs, or cotangents of outputs, `(K, M, rows, columns, Q)`.
        w: kernels `(K, kh, kw, C/g, Q)`.
        geometry: where the windows lie.
        image: H and W.

    Returns:
        `(M, H, W, C)`, summed over the K kernels.
    """
    groups, (kh, kw), channels = geometry.groups, geometry.window, w.shape[3]
    if _turning_serves(y, w, geometry, image):
        return _transpose_by_turned_kernel(y, w, geometry)
    n = wide.outputs_together(y, y.shape[3], channels, w.shape[4], geometry)
    if n > 1:
        wider = wide.widened_windows(geometry, n)
        with np.errstate(invalid="ignore"):
            x = convolve_transpose(wide.together(y, n), wide.widened(w, n), wider, image)
        if if_finite(x) is not None:
            return x
    m, *size = y.shape[1:4]
    matrices = np.swapaxes(kernel_matrices(w, groups), 2, 3)
    out = np.empty_like(y, shape=(m, *image, groups * channels))
    per_image = math.prod(size)
    step = _images_at_a_time(y, kh * kw * channels * groups * per_image * y.itemsize)
    outputs = output_rows(y, groups)
    for a in range(0, m, step):
        b = min(m, a + step)
        block = outputs[:, :, a * per_image : b * per_image]
        products = matmul(block, matrices)
        sums = products[0] if len(products) == 1 else np.sum(products, axis=0)
        windows = np.reshape(sums, (groups, b - a, *size, kh * kw, channels))
        windows = np.transpose(windows, (1, 2, 3, 4, 0, 5))
        windows = np.reshape(windows, (b - a, *size, kh * kw, groups * channels))
        out[a:b] = fold(windows, geometry, image)
    return out


@primitive
@overridable
def kernel_gradient(x: Array, y: Array, geometry: Geometry) -> Array:
    """Map outputs back to kernels: the transpose of `convolve` as a function of the kernels.

    Args:
        x: images `(M, H, W, C)`.
        y: outputs, or cotangents of outputs, `(K, M, rows, columns, Q)`.
        geometry: where the windows lie.

    Returns:
        `(K, kh, kw, C/g, Q)`, summed over the M images.
    """
    groups, kernels, q = geometry.groups, len(y), y.shape[-1]
    channels = x.shape[-1] // groups
    if kernels == 0:
        return np.empty_like(y, shape=(0, *geometry.window, channels, q))
    w = minimal.kernel_gradient_by_tiles(x, y, geometry)
    if w is not None:
        return w
    n = wide.outputs_together(x, y.shape[3], channels, q, geometry)
    if n > 1:
        with np.errstate(invalid="ignore"):
            g = kernel_gradient(x, wide.together(y, n), wide.widened_windows(geometry, n))
        if if_finite(g) is not None:
            return wide.narrowed(g, n)
    outputs = output_rows(y, groups)
    entries = math.prod(geometry.window) * channels
    total: Array = np.zeros_like(y, shape=(kernels, groups, entries, q // groups))
    for here, rows in _unfolded_blocks(x, geometry):
        total += matmul(np.swapaxes(rows, 1, 2), outputs[:, :, here])
    total = np.swapaxes(total, 1, 2)
    return np.reshape(total, (kernels, *geometry.window, channels, q))


@primitive
@overridable
def convolve_rank_one(x: Array, left: Array, right: Array, geometry: Geometry) -> Array:
    """Convolve images with k kernels that are outer products at every pixel of the window.

    At each pixel of the window, the kernel's matrix is `left ⊗ right`.  The product of the image
    with `left` is one number, and that number times `right` goes to the outputs.  This takes C + Q
    multiplications where a dense kernel takes C·Q.

    Args:
        x: images `(M, H, W, C)`.
        left: factors on the side of the channels, `(k, kh, kw, C/g)`.
        right: factors on the side of the outputs, `(k, kh, kw, Q)`.
        geometry: where the windows lie.

    Returns:
        `(k, M, rows, columns, Q)`.
    """
    k, kh, kw, channels = left.shape
    if channels <= _FEW_CHANNELS:
        return convolve(x, left[..., None] * right[..., None, :], geometry)
    groups, q = geometry.groups, right.shape[-1]
    m, (rows, columns) = len(x), geometry.output_size(x.shape[1:3])
    (down, across), per_image = geometry.stride, rows * columns
    out = np.empty_like(x, shape=(k, m * per_image, groups, q // groups))
    factors = np.reshape(left, (k * kh * kw, channels))
    rights = np.reshape(right, (k, kh * kw, groups, q // groups))
    rights = np.swapaxes(rights, 1, 2)  # (k, groups, kh·kw, q / groups)
    step = _images_at_a_time(x, k * kh * kw * groups * math.prod(x.shape[1:3]) * x.itemsize)
    for a in range(0, m, step):
        padded = pad(x[a : a + step], geometry)
        b, height, width, _ = padded.shape
        pixels = np.reshape(padded, (b * height * width, groups, channels))
        dots = matmul(factors, np.transpose(pixels, (1, 2, 0)))
        # (groups, k·kh·kw, b·height·width)
        dots = np.reshape(dots, (groups, k, kh, kw, b, height, width))
        picked = np.empty_like(x, shape=(k, groups, kh, kw, b, rows, columns))
        for i in range(kh):
            for j in range(kw):
                shifted = dots[:, :, i, j, :, i::down, j::across][..., :rows, :columns]
                picked[:, :, i, j] = np.swapaxes(shifted, 0, 1)
        numbers = np.reshape(picked, (k, groups, kh * kw, b * per_image))
        here = np.swapaxes(out[:, a * per_image : (a + b) * per_image], 1, 2)
        matmul(np.swapaxes(numbers, 2, 3), rights, here)
    return np.reshape(out, (k, m, rows, columns, q))


@overridable
def convolve_own_rank_one(x: Array, left: Array, right: Array, geometry: Geometry) -> Array:
    """Convolve each image with k rank-one kernels that belong to this image alone.

    This is `convolve_rank_one` with other kernels for each image.

    Args:
        x: images `(M, H, W, C)`.
        left: factors on the side of the channels, `(k, M, kh, kw, C/g)`.
        right: factors on the side of the outputs, `(k, M, kh, kw, Q)`.
        geometry: where the windows lie.

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
    dots = matmul(factors, np.transpose(pixels, (0, 2, 3, 1)))
    # (M, groups, k·kh·kw, height·width)
    dots = np.reshape(dots, (m, groups, k, kh, kw, height, width))
    picked = [
        dots[:, :, :, i, j, i::down, j::across][..., :rows, :columns]
        for i in range(kh)
        for j in range(kw)
    ]
    numbers = np.reshape(stack(picked, axis=-1), (m, groups, k, rows * columns, kh * kw))
    rights = np.reshape(right, (k, m, kh * kw, groups, q // groups))
    rights = np.transpose(rights, (1, 3, 0, 2, 4))  # (M, groups, k, kh·kw, q / groups)
    y = np.transpose(matmul(numbers, rights), (2, 0, 3, 1, 4))
    return np.reshape(y, (k, m, rows, columns, q))


# --- parts ---------------------------------------------------------------------------------------


def _images_at_a_time(like: Array, bytes_each: int) -> int:
    """Return how many images, of so many bytes each, make a block: at least one."""
    return max(1, bytes_at_a_time(like, _BLOCK_BYTES) // max(1, bytes_each))


def _unfolded_blocks(x: Array, geometry: Geometry) -> Iterator[tuple[slice, Array]]:
    """Unfold the windows of images `(M, H, W, C)`, a block of a few images at a time.

    Yields:
        The slice of this block among all M·rows·columns windows, and its windows as rows,
        `(groups, windows, kh·kw·C/g)`.  The next block overwrites this array.
    """
    groups, (m, h, w, c) = geometry.groups, x.shape
    if geometry.is_pointwise:  # every pixel is a window, so the images are their own unfolding
        yield (
            slice(0, m * h * w),
            np.swapaxes(np.reshape(x, (m * h * w, groups, c // groups)), 0, 1),
        )
        return
    window, size = geometry.window, geometry.output_size((h, w))
    per_image = math.prod(size)
    step = min(max(1, m), _images_at_a_time(x, math.prod(window) * c * per_image * x.itemsize))
    rows = np.empty_like(x, shape=(groups, step, *size, *window, c // groups))
    for a in range(0, m, step):
        b = min(m, a + step)
        padded = pad(x[a:b], geometry)
        in_groups = np.reshape(padded, (*padded.shape[:3], groups, c // groups))
        windows = window_view(in_groups, geometry)  # (b - a, *size, groups, c / groups, kh, kw)
        rows[:, : b - a] = np.transpose(windows, (3, 0, 1, 2, 5, 6, 4))
        matrices = (groups, (b - a) * per_image, math.prod(window) * c // groups)
        yield slice(a * per_image, b * per_image), np.reshape(rows[:, : b - a], matrices)


def _turning_serves(y: Array, w: Array, geometry: Geometry, image: Pair) -> bool:
    """Tell whether `_transpose_by_turned_kernel` serves, and is faster than adding windows up.

    One way copies a window of outputs for each pixel of the image, the other adds up a window of
    pixels for each output; beside that, both multiply.  Measured in the time of a multiplication,
    copying a number takes 16, and writing and adding one 40.
    """
    if geometry.stride != (1, 1) or any(
        max(sides) >= n for sides, n in zip(geometry.padding, geometry.window, strict=True)
    ):
        return False
    channels, q = w.shape[3:]
    turned = math.prod(image) * q * (channels + 16)
    return turned <= math.prod(y.shape[2:4]) * channels * (q + 40)


def _transpose_by_turned_kernel(y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute `convolve_transpose` at stride 1 as a convolution with kernels turned by 180 degrees.

    The general way adds windows up with `fold`; a convolution copies windows instead.
    """
    groups, (kernels, kh, kw, channels, q) = geometry.groups, w.shape
    around = tuple(
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
    above_below, left_right = around
    backward = Geometry(geometry.window, (1, 1), (above_below, left_right), groups)
    return convolve(images, turned, backward)[0]
