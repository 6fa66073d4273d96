"""The functions that launch CUDA kernels in the place of overridable functions.

Each takes the arguments of the function whose name it is registered for, and returns the same
result.  The sources in the folder `cuda` say what the kernels compute.  For arguments that a kernel
does not serve, NotImplemented is returned, and the function written in NumPy's calls is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cupy
import numpy as np

from dualnet.backends.launching import Module, flat, kernel_for, serves
from dualnet.backends.symmetric import solution_by_eigenvectors
from dualnet.types import Array, Shape

WINDOWS = Module("windows")
MOST_THREADS = 2**32 - 1
"""Kernels that copy and add up windows number their threads with 32 bits, so that their many
divisions are fast."""

_COMBINATIONS = Module("combinations")
_SYMMETRIC = Module("symmetric")


_DEVICE_BYTES = 1 << 28
"""How many bytes a device works on at once.  Pieces are large, because each takes a launch, but so
small that the temporaries of a piece fit into memory with everything else."""
_FEW_ARRAYS = 8
"""Up to so many arrays are left to CuPy when they are concatenated."""


@kernel_for("bytes_at_a_time")
def _bytes_at_a_time(like: Array, in_cache: int) -> int:
    """Return `_DEVICE_BYTES`, whatever fits into the cache of a host."""
    return _DEVICE_BYTES


@kernel_for("concatenate")
def _concatenate(arrays: Sequence[Array], axis: int | None = 0, **how: Any) -> Array:
    """Copy many arrays one by one.

    CuPy copies few arrays one by one too, but for many it sends their addresses from the host to
    the device, which a recording does not allow.
    """
    few = len(arrays) <= _FEW_ARRAYS
    if few or axis is None or how or not all(isinstance(a, cupy.ndarray) for a in arrays):
        return NotImplemented
    ends = np.cumsum([0, *(a.shape[axis] for a in arrays)]).tolist()
    axis %= arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = ends[-1]
    out = cupy.empty(tuple(shape), np.result_type(*(a.dtype for a in arrays)))
    for a, start, end in zip(arrays, ends[:-1], ends[1:], strict=True):
        out[(slice(None),) * axis + (slice(start, end),)] = a
    return out


@kernel_for("stack")
def _stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Concatenate along a new axis."""
    return _concatenate([np.expand_dims(a, axis) for a in arrays], axis)


# --- windows -------------------------------------------------------------------------------------


def geometry_numbers(
    geometry: Any, image: Shape, channels: int, output_size: Shape
) -> list[np.int32]:
    """Return the numbers that GEOMETRY stands for in the sources, in the same order.

    Args:
        geometry: a `Geometry` of `dualnet.images.windows`, which is above this layer.
        image: H and W.
        channels: C.
        output_size: how many windows an image has, (rows, columns).
    """
    (top, _), (left, _) = geometry.padding
    numbers = (*image, channels, *output_size, *geometry.window, *geometry.stride, top, left)
    return [np.int32(n) for n in numbers]


def launch_windows(
    kernel: str, x: Array, out: Array, images: Shape, size: Shape, geometry: Any
) -> None:
    """Launch `unfold` or `fold` of cuda/windows.cu.

    Each thread serves four channels where they divide by four and lie where 128-bit loads may read.

    Args:
        kernel: its name; it serves windows in `geometry.groups` groups of channels.
        x, out: the arrays that it reads and writes; out is contiguous.
        images: the shape of the images, `(M, H, W, C)`.
        size: how many windows an image has, (rows, columns).
        geometry: where the windows lie.
    """
    (x,) = flat(x)
    m, *image, channels = images
    aligned = all(a.data.ptr % 16 == 0 for a in (x, out))
    width = 4 if aligned and channels // geometry.groups % 4 == 0 else 1
    threads = m * math.prod(size if kernel == "unfold" else image) * channels // width
    numbers = geometry_numbers(geometry, tuple(image), channels // width, size)
    name = kernel if width == 1 else f"{kernel}_fours"
    arguments = np.int64(threads), np.int32(geometry.groups), *numbers
    WINDOWS.over(threads, name, x.dtype, x, out, *arguments)


@kernel_for("window_view")
def _window_view(padded: Array, geometry: Any) -> Array:
    """Return the windows as a view `(M, rows, columns, ..., kh, kw)`.

    CuPy's sliding_window_view copies the window's size to the device and waits for it.
    """
    m, h, w, *rest = padded.shape
    m_step, h_step, w_step, *rest_steps = padded.strides
    (kh, kw), (down, across) = geometry.window, geometry.stride
    shape = (m, (h - kh) // down + 1, (w - kw) // across + 1, *rest, kh, kw)
    strides = (m_step, h_step * down, w_step * across, *rest_steps, h_step, w_step)
    return cupy.lib.stride_tricks.as_strided(padded, shape, strides)


@kernel_for("unfold")
def _unfold(x: Array, geometry: Any) -> Array:
    """Copy windows: x `(M, H, W, C)` to `(M, rows, columns, kh·kw, C)`."""
    m, h, w, c = x.shape
    size = geometry.output_size((h, w))
    if not serves(x) or m * math.prod(size) * c > MOST_THREADS:
        return NotImplemented
    out = cupy.empty((m, *size, math.prod(geometry.window), c), x.dtype)
    launch_windows("unfold", x, out, x.shape, size, replace(geometry, groups=1))
    return out


@kernel_for("fold")
def _fold(y: Array, geometry: Any, image: Shape) -> Array:
    """Add windows y `(M, rows, columns, kh·kw, C)` to the pixels of images `(M, *image, C)`."""
    out_shape = (y.shape[0], *image, y.shape[-1])
    if not serves(y) or math.prod(out_shape) > MOST_THREADS:
        return NotImplemented
    out = cupy.empty(out_shape, y.dtype)
    launch_windows("fold", y, out, out_shape, y.shape[1:3], replace(geometry, groups=1))
    return out


@kernel_for("weighted_window_sum")
def _weighted_window_sum(x: Array, weights: Array, geometry: Any) -> Array:
    """Sum the weighted pixels of each window: x `(k, M, H, W, C)` to `(k, M, rows, columns, C)`."""
    k, m, *image, c = x.shape
    out_shape = (k, m, *weights.shape[2:4], c)
    if not serves(x, weights) or math.prod(out_shape) > MOST_THREADS:
        return NotImplemented
    out = cupy.empty(out_shape, x.dtype)
    sizes = np.int64(out.size), np.int64(m)
    windows = geometry_numbers(geometry, tuple(image), c, weights.shape[2:4])
    arguments = (*flat(x, weights), out, *sizes, *windows)
    WINDOWS.over(out.size, "weighted_window_sum", x.dtype, *arguments)
    return out


@kernel_for("weighted_window_sum_transpose")
def _weighted_window_sum_transpose(y: Array, weights: Array, geometry: Any, image: Shape) -> Array:
    """Map y `(k, M, rows, columns, C)` back to images `(k, M, *image, C)`."""
    k, m, *size, c = y.shape
    out_shape = (k, m, *image, c)
    if not serves(y, weights) or math.prod(out_shape) > MOST_THREADS:
        return NotImplemented
    out = cupy.empty(out_shape, y.dtype)
    sizes = np.int64(out.size), np.int64(m)
    windows = geometry_numbers(geometry, image, c, tuple(size))
    arguments = (*flat(y, weights), out, *sizes, *windows)
    WINDOWS.over(out.size, "weighted_window_sum_transpose", y.dtype, *arguments)
    return out


@kernel_for("scatter_add_zeros")
def _scatter_add_zeros(x: Array, positions: Array, shape: Shape) -> Array:
    """Add x at positions of an array of zeros.

    Where a position occurs several times, the order in which the numbers are added is not fixed,
    so the last bits of the sum may differ from run to run.
    """
    if not serves(x):
        return NotImplemented
    k, n, size = x.shape[0], math.prod(positions.shape), math.prod(shape)
    out = cupy.zeros((k, *shape), x.dtype)
    positions = cupy.asarray(positions, np.int64)
    sizes = (np.int64(number) for number in (k, n, size))
    WINDOWS.over(k * n, "scatter", x.dtype, *flat(x, positions), out, *sizes)
    return out


# --- directions ----------------------------------------------------------------------------------


@kernel_for("summed_by_part")
def _summed_by_part(d: Array, parts: Array, swapped: bool) -> Array:
    """Return the sum over k of the directions `parts` `(k, n, ...)`, weighted by d."""
    if not serves(d, parts):
        return NotImplemented
    k, n, *sizes = parts.shape
    groups, channels, tokens = sizes if swapped else (*sizes[1:], sizes[0])
    out = cupy.empty(parts.shape[1:], parts.dtype)
    numbers = (k, n, tokens, groups, channels, *d.shape[2:], swapped)
    arguments = (*flat(d, parts), out, np.int64(out.size), *map(np.int32, numbers))
    _COMBINATIONS.over(out.size, "weighted_sum", parts.dtype, *arguments)
    return out


# --- linear systems ------------------------------------------------------------------------------


_MOST_DIRECTIONS = 256
"""The largest k of the kernels; the same as MOST in cuda/symmetric.cu.  Larger matrices are left to
cuSOLVER, which a CUDA graph cannot record."""


def _is_served(g: Array) -> bool:
    """Whether the kernels of cuda/symmetric.cu serve matrices `(..., k, k)`."""
    return serves(g) and g.shape[-1] <= _MOST_DIRECTIONS


@kernel_for("eigen")
def _eigen(g: Array) -> Array:
    """Return eigenvalues and eigenvectors of symmetric matrices `(..., k, k)`."""
    if not _is_served(g):
        return NotImplemented
    *batch, k, _ = g.shape
    diagonal, vectors = g.copy(), cupy.empty(g.shape, g.dtype)
    values = cupy.empty((*batch, k), g.dtype)
    rounding = g.dtype.type(np.finfo(g.dtype).eps / 2)
    arguments = (diagonal, vectors, values, np.int32(k), rounding)
    _SYMMETRIC.launch("eigen", g.dtype, math.prod(batch), *arguments)
    return values, vectors


@kernel_for("inverse_factor")
def _inverse_factor(g: Array) -> Array:
    """Return L⁻¹ for g = L Lᵀ `(k, k)`."""
    if not _is_served(g):
        return NotImplemented
    out = cupy.empty(g.shape, g.dtype)
    _SYMMETRIC.launch("inverse_cholesky", g.dtype, 1, g.copy(), out, np.int32(len(g)))
    return out


# NumPy's way waits for the answer whether a matrix is singular; this one need not
kernel_for("least_norm")(solution_by_eigenvectors)
