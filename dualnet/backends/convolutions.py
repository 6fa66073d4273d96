"""Convolution on a CUDA device, and its transposes.

There are two ways.  Tiled: the kernels of cuda/convolution.cu multiply windows where they lie in
the images, and memory holds no copy of them.  Unfolded: windows are copied to rows of a matrix, and
cuBLAS multiplies.  The first way saves writing and reading kh·kw times as many numbers as the
images have; the second one serves every shape and dtype.

Names of axes and sizes are those of `dualnet.images.convolution`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import cupy
import numpy as np

from dualnet.backends.convolution_matrices import kernel_matrices, output_rows
from dualnet.backends.kernels import (
    MOST_THREADS,
    WINDOWS,
    geometry_numbers,
    launch_windows,
)
from dualnet.backends.launching import Module, flat, serves
from dualnet.backends.overridable import matmul
from dualnet.types import Array, Shape

_TILED = {
    (is_rounded, threads): Module("convolution", threads, TENSOR=int(is_rounded))
    for is_rounded in (False, True)
    for threads in (64, 128)
}
"""Whether factors may be rounded, and the threads of a block → the module.  A block computes a tile
of 128 rows and as many columns as it has threads."""

_TILE_ROWS = 128
"""The same as ROWS in cuda/convolution.cu."""
_DEPTH = {"full": 8, "tf32": 16, "bf16": 16}
"""Precision → by what the number of summed channels must divide, DEPTH in the source.

Products in bfloat16 would need a rounded copy of the images, so they use TF32, which is closer."""
_MOST_ENTRIES = 2**31 - 1
"""Arrays with more entries than this are left to cuBLAS, because kernels index with 32 bits."""
_UNFOLDED_BYTES = 1 << 29
"""How many bytes of unfolded windows there are at once: enough for 128 images of 32x32x64."""


def convolution_kernels(matmul_precision: str) -> dict[str, Callable]:
    """Return the kernels for the functions of `images.convolution`, by their names.

    Args:
        matmul_precision: how float32 factors may be rounded, a name in
            `backends.MATMUL_PRECISIONS`.
    """
    return {
        "convolve": functools.partial(_convolve, matmul_precision),
        "convolve_transpose": functools.partial(_convolve_transpose, matmul_precision),
        "kernel_gradient": functools.partial(_kernel_gradient, matmul_precision),
        "convolve_rank_one": _convolve_rank_one,
        "convolve_own_rank_one": _convolve_own_rank_one,
    }


_UNFOLDED_FROM = {"convolve": 256, "kernel_gradient": 128}
"""From so many outputs on, windows are unfolded for products in full float32.  What it takes to
write and read them is shared by all outputs, and cuBLAS multiplies faster than the tiles do:
measured on an H200, 4x4 images of 512 channels take 226 µs unfolded and 264 µs in tiles; 32x32
images of 64 channels take 309 and 259 µs."""


def _convolve(precision: str, x: Array, w: Array, geometry: Any) -> Array:
    """Convolve x `(M, H, W, C)` with w `(K, kh, kw, C/g, Q)` to `(K, M, rows, columns, Q)`."""
    if not serves(x, w):
        return NotImplemented
    (kernels, *_, channels, q), (m, *image, _) = w.shape, x.shape
    size, groups = geometry.output_size(tuple(image)), geometry.groups
    out = cupy.empty((kernels, m, *size, q), x.dtype)
    fits = channels % _DEPTH[precision] == 0 and q // groups % 4 == 0
    few = precision != "full" or q // groups < _UNFOLDED_FROM["convolve"]
    if fits and few and _is_tiled(geometry, x, w, out[:1]):
        summed = math.prod(geometry.window) * channels
        sizes = m * math.prod(size), q // groups, (summed,), kernels * groups
        numbers = m, kernels, q, groups
        _multiply_tiles("convolve", precision, (x, w), out, sizes, numbers, image, geometry)
        return out
    matrices, outputs = kernel_matrices(w, groups), output_rows(out, groups)
    for here, rows in _unfolded_blocks(x, geometry):
        matmul(rows, matrices, outputs[:, :, here])
    return out


def _convolve_transpose(precision: str, y: Array, w: Array, geometry: Any, image: Shape) -> Array:
    """Map y `(K, M, rows, columns, Q)` back to images `(M, H, W, C)`, summed over K kernels."""
    if not serves(y, w):
        return NotImplemented
    groups = geometry.groups
    if len(y) != 1:  # kernels side by side in one with K·Q outputs
        y, w = (_merged_kernels(a, groups) for a in (y, w))
    (_, kh, kw, channels, q), m, size = w.shape, y.shape[1], y.shape[2:4]
    out = cupy.empty((m, *image, groups * channels), y.dtype)
    fits = q // groups % _DEPTH[precision] == 0 and channels % 4 == 0
    if fits and _is_tiled(geometry, y, w, out):
        lines, places = (-(-n // step) for n, step in zip(image, geometry.stride, strict=True))
        summed = tuple(n * q // groups for n in _pixels_of_classes(geometry))
        sizes = m * lines * places, channels, summed, groups
        numbers = m, 1, q, groups
        _multiply_tiles("convolve_back", precision, (y, w), out, sizes, numbers, image, geometry)
        return out
    matrices, outputs = np.swapaxes(kernel_matrices(w, groups)[0], 1, 2), output_rows(y, groups)[0]
    if geometry.is_pointwise:
        pixels = np.reshape(out, (m * math.prod(image), groups, channels))
        matmul(outputs, matrices, np.swapaxes(pixels, 0, 1))
        return out
    per_image = math.prod(size)
    step = _images_at_a_time(per_image * kh * kw * groups * channels * y.itemsize)
    for a in range(0, m, step):
        here = slice(a * per_image, min(m, a + step) * per_image)
        windows = matmul(outputs[:, here], matrices)
        part = out[a : a + step]
        launch_windows("fold", windows, part, part.shape, y.shape[2:4], geometry)
    return out


def _kernel_gradient(precision: str, x: Array, y: Array, geometry: Any) -> Array:
    """Map x `(M, H, W, C)` and y `(K, M, rows, columns, Q)` to `(K, kh, kw, C/g, Q)`."""
    if not serves(x, y):
        return NotImplemented
    groups, (kernels, m, *size, q) = geometry.groups, y.shape
    channels = x.shape[-1] // groups
    out = cupy.empty((kernels, *geometry.window, channels, q), x.dtype)
    few = precision != "full" or q // groups < _UNFOLDED_FROM["kernel_gradient"]
    if few and channels % 4 == q // groups % 4 == 0 and _is_tiled(geometry, x, y[:1], out):
        windows = m * math.prod(size)
        sizes = math.prod(geometry.window) * channels, q // groups, (windows,), kernels * groups
        numbers = m, kernels, q, groups
        image = x.shape[1:3]
        _multiply_tiles("kernel_gradient", precision, (x, y), out, sizes, numbers, image, geometry)
        return out
    total, outputs = kernel_matrices(out, groups), output_rows(y, groups)
    if not m:
        out[...] = 0
    for here, rows in _unfolded_blocks(x, geometry):
        factors = np.swapaxes(rows, 1, 2), outputs[:, :, here]
        if here.start == 0:
            matmul(*factors, total)
        else:
            total += matmul(*factors)
    return out


def _convolve_rank_one(x: Array, left: Array, right: Array, geometry: Any) -> Array:
    """Convolve x with kernels left ⊗ right at each pixel of the window.

    Args:
        x: images `(M, H, W, C)`.
        left: `(k, kh, kw, C/g)`.
        right: `(k, kh, kw, Q)`.
        geometry: where the windows lie.

    Returns:
        `(k, M, rows, columns, Q)`.
    """
    if not serves(x, left, right):
        return NotImplemented
    (k, kh, kw, channels), (m, *image, _), q = left.shape, x.shape, right.shape[-1]
    groups, size = geometry.groups, geometry.output_size(tuple(image))
    per_image = math.prod(size)
    out = cupy.empty((k, m * per_image, groups, q // groups), x.dtype)
    factors = np.reshape(left, (k * kh * kw, channels))
    rights = np.reshape(right, (k, kh * kw, groups, q // groups))
    rights = np.transpose(rights, (2, 0, 1, 3))
    step = _images_at_a_time(k * kh * kw * groups * math.prod(image) * x.itemsize)
    for a in range(0, m, step):
        b = min(m, a + step)
        pixels = np.reshape(x[a:b], ((b - a) * math.prod(image), groups, channels))
        dots = matmul(factors, np.transpose(pixels, (1, 2, 0)))  # (groups, k·kh·kw, pixels)
        numbers = _shifted(dots, groups * k, b - a, tuple(image), geometry)
        numbers = np.reshape(numbers, (groups, k, kh * kw, (b - a) * per_image))
        here = np.transpose(out[:, a * per_image : b * per_image], (2, 0, 1, 3))
        matmul(np.swapaxes(numbers, 2, 3), rights, here)
    return np.reshape(out, (k, m, *size, q))


def _convolve_own_rank_one(x: Array, left: Array, right: Array, geometry: Any) -> Array:
    """Convolve each image with k rank-one kernels of its own; see `_convolve_rank_one`.

    Args:
        x: images `(M, H, W, C)`.
        left: `(k, M, kh, kw, C/g)`.
        right: `(k, M, kh, kw, Q)`.
        geometry: where the windows lie.

    Returns:
        `(k, M, rows, columns, Q)`.
    """
    (k, m, kh, kw, channels), (_, *image, _), q = left.shape, x.shape, right.shape[-1]
    groups, size = geometry.groups, geometry.output_size(tuple(image))
    numbers_of_all = m * groups * k * kh * kw * math.prod(size)
    if not serves(x, left, right) or numbers_of_all > MOST_THREADS:
        return NotImplemented
    out = cupy.empty((k, m, math.prod(size), groups, q // groups), x.dtype)
    pixels = np.reshape(x, (m, math.prod(image), groups, channels))
    factors = np.reshape(np.swapaxes(left, 0, 1), (m, 1, k * kh * kw, channels))
    dots = matmul(factors, np.transpose(pixels, (0, 2, 3, 1)))  # (M, groups, k·kh·kw, H·W)
    numbers = _shifted(dots, m * groups * k, 1, tuple(image), geometry)
    numbers = np.reshape(numbers, (m, groups, k, kh * kw, math.prod(size)))
    rights = np.reshape(right, (k, m, kh * kw, groups, q // groups))
    rights = np.transpose(rights, (1, 3, 0, 2, 4))
    matmul(np.swapaxes(numbers, 3, 4), rights, np.transpose(out, (1, 3, 0, 2, 4)))
    return np.reshape(out, (k, m, *size, q))


# --- tiles ---------------------------------------------------------------------------------------

_MULTIPROCESSORS = 132
"""Those of an H100.  Sums are divided alike on every device, so that they are the same on all."""
_TILE_RATE, _MEMORY_RATE, _LAUNCH_SECONDS = 4.5e13 / _MULTIPROCESSORS, 2.5e12, 3e-6
"""What is assumed for choosing tiles: operations a second on one multiprocessor, bytes a second,
and the time of a launch."""
_FULL_WARPS = 8
"""With so many warps a multiprocessor has enough to do while some of them wait."""
_MOST_PARTS = 128
_SHORTEST_PART = 256
"""Sums are divided into so many parts at most, each of so many products at least."""


def _is_tiled(geometry: Any, *arrays: Array) -> bool:
    """Whether the kernels of cuda/convolution.cu may serve arrays of this dtype and these sizes.

    Where the windows are the pixels, cuBLAS needs no copy of them.
    """
    counted = all(0 < a.size <= _MOST_ENTRIES for a in arrays)
    return counted and arrays[0].dtype == np.float32 and not geometry.is_pointwise


def _pixels_of_classes(geometry: Any) -> list[int]:
    """Return how many pixels of the window each class of cuda/convolution.cu has, most first."""
    counts = (
        [len(range(first, n, step)) for first in range(step)]
        for n, step in zip(geometry.window, geometry.stride, strict=True)
    )
    return sorted((a * b for a, b in itertools.product(*counts)), reverse=True)


def _multiply_tiles(
    kernel: str,
    precision: str,
    factors: tuple[Array, Array],
    out: Array,
    sizes: tuple[int, int, tuple[int, ...], int],
    numbers: tuple[int, int, int, int],
    image: Shape,
    geometry: Any,
) -> None:
    """Launch a kernel of cuda/convolution.cu, and sum its parts.

    Args:
        kernel: its name without a suffix.
        precision: a name in `backends.MATMUL_PRECISIONS`.
        factors: the arrays it reads.
        out: the array it writes.
        sizes: those of the matrix products; see `_division`.
        numbers: M, K, Q and the number of groups.
        image: H and W.
        geometry: where the windows lie.
    """
    threads, splits = _division(*sizes, out.nbytes)
    rows, breadth, summed, count = sizes
    tiles = -(-rows // _TILE_ROWS) * -(-breadth // threads) * count * len(summed)
    parts = out if splits == 1 else cupy.empty((splits, *out.shape), out.dtype)
    m, kernels, q, groups = numbers
    channels = breadth * groups if kernel == "convolve_back" else factors[0].shape[-1]
    output_size = geometry.output_size(tuple(image))
    places = geometry_numbers(geometry, tuple(image), channels, output_size)
    counts = (np.int32(n) for n in (m, kernels, q, groups, splits))
    module = _TILED[precision != "full", threads]
    arrays = _aligned(factors[0]), _aligned(factors[1]), parts
    module.launch(kernel, np.float32, tiles * splits, *arrays, *counts, *places)
    if splits > 1:
        arguments = parts, out, np.int64(out.size), np.int32(splits)
        module.over(out.size // 4, "sum_parts", np.float32, *arguments)


@functools.cache
def _division(
    rows: int, columns: int, summed: tuple[int, ...], count: int, out_bytes: int
) -> tuple[int, int]:
    """Choose tiles for matrix products, and into how many parts to divide their sums.

    Blocks are dealt to the multiprocessors in their order, and the time is that of the first one,
    which has most to do.  Each part of the sums is written, and read again to be summed.

    Args:
        rows, columns: of the result of one matrix product.
        summed: how many products each entry of the result sums.  Several numbers stand for as many
            products, which follow each other.
        count: how many products there are, each as many times as `summed` has numbers.
        out_bytes: of all results.

    Returns:
        The threads of a block, which are also the columns of a tile; the number of parts.
    """

    def seconds(threads: int, splits: int) -> float:
        each = -(-rows // _TILE_ROWS) * -(-columns // threads) * count * splits
        blocks = range(0, each * len(summed), _MULTIPROCESSORS)
        longest = sum(summed[block // each] for block in blocks)
        operations = 2 * _TILE_ROWS * threads * longest / splits
        # narrow tiles move more numbers, and few warps wait for them
        warps = min(_FULL_WARPS, len(blocks) * threads // 32)
        slower = (1 + 8 / threads) * (_FULL_WARPS / warps) ** 0.3
        summing = 0.0
        if splits > 1:
            summing = _LAUNCH_SECONDS + 2 * splits * out_bytes / _MEMORY_RATE
        return operations * slower / _TILE_RATE + summing

    most = max(1, min(_MOST_PARTS, max(summed) // _SHORTEST_PART))
    choices = [(threads, splits) for threads in (64, 128) for splits in range(1, most + 1)]
    return min(choices, key=lambda choice: seconds(*choice))


def _aligned(a: Array) -> Array:
    """Return the array, or a copy, contiguous and at an address that 128-bit loads allow."""
    (a,) = flat(a)
    return a if a.data.ptr % 16 == 0 else a.copy()


# --- unfolding -----------------------------------------------------------------------------------


def _merged_kernels(a: Array, groups: int) -> Array:
    """Merge the axis K `(K, ..., Q)` into the outputs of one kernel, `(1, ..., K·Q)`."""
    kernels, *rest, q = a.shape
    parts = np.reshape(a, (kernels, *rest, groups, q // groups))
    return np.reshape(np.moveaxis(parts, 0, -2), (1, *rest, kernels * q))


def _images_at_a_time(bytes_each: int) -> int:
    """Return how many images, of so many bytes of windows each, are unfolded at once."""
    return max(1, _UNFOLDED_BYTES // max(1, bytes_each))


def _unfolded_blocks(x: Array, geometry: Any) -> Iterator[tuple[slice, Array]]:
    """Copy the windows of images `(M, H, W, C)` to rows, as many as memory should hold at once.

    Yields:
        The slice of this block among all M·rows·columns windows, and its windows as rows,
        `(groups, windows, kh·kw·C/g)`.
    """
    groups, (m, h, w, c) = geometry.groups, x.shape
    if geometry.is_pointwise:  # every pixel is a window, so the images are their own unfolding
        pixels = np.reshape(x, (m * h * w, groups, c // groups))
        yield slice(0, len(pixels)), np.swapaxes(pixels, 0, 1)
        return
    size = geometry.output_size((h, w))
    per_image, entries = math.prod(size), math.prod(geometry.window) * c
    step = _images_at_a_time(per_image * entries * x.itemsize)
    for a in range(0, m, step):
        b = min(m, a + step)
        rows = cupy.empty((groups, (b - a) * per_image, entries // groups), x.dtype)
        launch_windows("unfold", x[a:b], rows, (b - a, h, w, c), size, geometry)
        yield slice(a * per_image, b * per_image), rows


def _shifted(planes: Array, before: int, m: int, image: Shape, geometry: Any) -> Array:
    """Pick from each window the numbers of its pixels.

    Args:
        planes: one plane for each pixel of the window, `before` times, `(..., kh·kw, M, H, W)`.
        before: how many entries the axes in front of kh·kw have.
        m: M.
        image: H and W.
        geometry: where the windows lie.

    Returns:
        `(before, kh·kw, M, rows, columns)`.
    """
    size = geometry.output_size(image)
    out = cupy.empty((before, math.prod(geometry.window), m, *size), planes.dtype)
    numbers = geometry_numbers(geometry, image, 1, size)
    arguments = np.int64(out.size), np.int32(m), *numbers
    WINDOWS.over(out.size, "shift", planes.dtype, *flat(planes), out, *arguments)
    return out
