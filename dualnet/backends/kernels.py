"""CUDA kernels beside the functions that they replace.

A kernel's first lines give the place of each argument; the sources in the folder `cuda` say what
it computes.  Whatever a kernel does not serve, it leaves to the function written in NumPy's calls.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from dualnet.backends.launching import Module, flat, kernel_for, serves
from dualnet.backends.symmetric import solution_by_eigenvectors

_WINDOWS = Module("windows")
_NORMALIZATION = Module("normalization")
_ACTIVATIONS = Module("activations")
_LOSSES = Module("losses", threads=128)
_COMBINATIONS = Module("combinations")
_SYMMETRIC = Module("symmetric")


_DEVICE_BYTES = 1 << 28
_FEW = 8


@kernel_for("bytes_at_a_time")
def _bytes_at_a_time(like: Any, in_cache: int) -> int:
    """Large pieces, as each is a launch; but no more temporaries than fit beside all else."""
    return _DEVICE_BYTES


@kernel_for("_concatenated")
def _concatenated(axis: int, *arrays: Any) -> Any:
    """CuPy's own takes the addresses of many arrays from the host; of few it copies each."""
    if len(arrays) <= _FEW or not all(isinstance(a, cupy.ndarray) for a in arrays):
        return NotImplemented
    ends = np.cumsum([0, *(a.shape[axis] for a in arrays)]).tolist()
    axis %= arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = ends[-1]
    out = cupy.empty(tuple(shape), np.result_type(*(a.dtype for a in arrays)))
    for a, start, end in zip(arrays, ends[:-1], ends[1:], strict=True):
        out[(slice(None),) * axis + (slice(start, end),)] = a
    return out


# --- windows -------------------------------------------------------------------------------------


def _geometry(g: Any, image: tuple, channels: int, places: tuple) -> list[Any]:
    (top, _), (left, _) = g.padding
    numbers = (*image, channels, *places, *g.window, *g.stride, top, left)
    return [np.int32(n) for n in numbers]


@kernel_for("window_view")
def _view(padded: Any, geometry: Any) -> Any:
    """CuPy's own sliding_window_view copies the window's size to the device and waits for it."""
    m, h, w, *rest = padded.shape
    of_m, of_h, of_w, *of_rest = padded.strides
    (kh, kw), (down, across) = geometry.window, geometry.stride
    shape = (m, (h - kh) // down + 1, (w - kw) // across + 1, *rest, kh, kw)
    strides = (of_m, of_h * down, of_w * across, *of_rest, of_h, of_w)
    return cupy.lib.stride_tricks.as_strided(padded, shape, strides)


@kernel_for("unfold")
def _unfold(x: Any, geometry: Any) -> Any:
    if not serves(x):
        return NotImplemented
    m, *image, c = x.shape
    places = geometry.output_size(tuple(image))
    out = cupy.empty((m, *places, math.prod(geometry.window), c), x.dtype)
    sizes = _geometry(geometry, tuple(image), c, places)
    _WINDOWS.over(out.size, "unfold", x.dtype, *flat(x), out, np.int64(out.size), *sizes)
    return out


@kernel_for("fold")
def _fold(y: Any, geometry: Any, image: tuple) -> Any:
    if not serves(y):
        return NotImplemented
    out = cupy.empty((y.shape[0], *image, y.shape[-1]), y.dtype)
    sizes = _geometry(geometry, image, y.shape[-1], y.shape[1:3])
    _WINDOWS.over(out.size, "fold", y.dtype, *flat(y), out, np.int64(out.size), *sizes)
    return out


@kernel_for("weighted_window_sum")
def _weigh(x: Any, weights: Any, geometry: Any) -> Any:
    if not serves(x, weights):
        return NotImplemented
    k, m, *image, c = x.shape
    out = cupy.empty((k, m, *weights.shape[2:4], c), x.dtype)
    sizes = np.int64(out.size), np.int64(m)
    of_windows = _geometry(geometry, tuple(image), c, weights.shape[2:4])
    _WINDOWS.over(
        out.size, "weighted_window_sum", x.dtype, *flat(x, weights), out, *sizes, *of_windows
    )
    return out


@kernel_for("weighted_window_sum_transpose")
def _spread(y: Any, weights: Any, geometry: Any, image: tuple) -> Any:
    if not serves(y, weights):
        return NotImplemented
    k, m, *places, c = y.shape
    out = cupy.empty((k, m, *image, c), y.dtype)
    sizes = np.int64(out.size), np.int64(m)
    of_windows = _geometry(geometry, image, c, tuple(places))
    _WINDOWS.over(
        out.size,
        "weighted_window_sum_transpose",
        y.dtype,
        *flat(y, weights),
        out,
        *sizes,
        *of_windows,
    )
    return out


@kernel_for("scatter_add_zeros")
def _zeros_plus(x: Any, positions: Any, shape: tuple) -> Any:
    """Where several numbers meet at one place, the order in which they are added is not fixed."""
    if not serves(x):
        return NotImplemented
    k, n, size = x.shape[0], math.prod(positions.shape), math.prod(shape)
    out = cupy.zeros((k, *shape), x.dtype)
    positions = cupy.asarray(positions, np.int64)
    sizes = (np.int64(number) for number in (k, n, size))
    _WINDOWS.over(k * n, "scatter", x.dtype, *flat(x, positions), out, *sizes)
    return out


# --- normalization -------------------------------------------------------------------------------

_FEWEST_BLOCKS = 64
"""Below so many blocks most of the device would be idle while a few sum up long runs."""
_LONG_RUN = 1 << 12


def _runs(view: Any, directions: int = 1) -> tuple[int, int, list] | None:
    """Blocks of one direction, lanes, and the sizes M, B, D; None where blocks would be few."""
    lanes = 32 if view.d == 1 and view.b > 1 else 1
    blocks = view.a * -(-view.b // lanes)
    if blocks * directions < _FEWEST_BLOCKS and view.m * view.d > _LONG_RUN:
        return None
    return blocks, lanes, [np.int64(view.m), np.int32(view.b), np.int32(view.d), np.int32(lanes)]


@kernel_for("normalized_in_view")
def _normalized(x: Any, view: Any, epsilon: float) -> Any:
    runs = _runs(view)
    if runs is None or not serves(x):
        return NotImplemented
    y, s = cupy.empty(x.shape, x.dtype), cupy.empty(view.kept, x.dtype)
    blocks, _, sizes = runs
    arguments = (*flat(x), y, s, *sizes, x.dtype.type(epsilon))
    _NORMALIZATION.launch("normalized", x.dtype, blocks, *arguments)
    return y, s


@kernel_for("moments_in_view")
def _moments(x: Any, view: Any) -> Any:
    runs = _runs(view)
    if runs is None or not serves(x):
        return NotImplemented
    mean, variance = cupy.empty(view.kept, x.dtype), cupy.empty(view.kept, x.dtype)
    blocks, _, sizes = runs
    arguments = (*flat(x), mean, variance, *sizes)
    _NORMALIZATION.launch("moments", x.dtype, blocks, *arguments)
    return mean, variance


@kernel_for("tangent_in_view")
def _tangent(t: Any, y: Any, s: Any, view: Any) -> Any:
    k = t.shape[0]
    runs = _runs(view, k)
    if runs is None or t.shape[1:] != y.shape or not serves(t, y, s):
        return NotImplemented
    out = cupy.empty(t.shape, t.dtype)
    blocks, _, sizes = runs
    arguments = (*flat(t, y, s), out, np.int64(y.size), np.int64(blocks), *sizes)
    _NORMALIZATION.launch("tangent", t.dtype, k * blocks, *arguments)
    return out


# --- activations ---------------------------------------------------------------------------------


@kernel_for("_relu_and_slope")
def _relu_and_slope(x: Any) -> Any:
    if not serves(x):
        return NotImplemented
    y, slope = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    _ACTIVATIONS.over(x.size, "relu", x.dtype, *flat(x), y, slope, np.int64(x.size))
    return y, slope


# --- losses --------------------------------------------------------------------------------------


@kernel_for("_losses_and_errors")
def _losses_and_errors(logits: Any, labels: Any) -> Any:
    if not (serves(logits) and isinstance(labels, cupy.ndarray)):
        return NotImplemented
    n, classes = logits.shape
    losses, errors = cupy.empty(n, logits.dtype), cupy.empty(logits.shape, logits.dtype)
    arguments = (*flat(logits, labels.astype(np.int64, copy=False)), losses, errors)
    _LOSSES.launch("cross_entropy", logits.dtype, n, *arguments, np.int32(classes))
    return losses, errors


@kernel_for("_losses")
def _losses(logits: Any, labels: Any) -> Any:
    """By the same kernel, so that a loss is the same with and without its derivative."""
    both = _losses_and_errors(logits, labels)
    return both if both is NotImplemented else both[0]


# --- directions ----------------------------------------------------------------------------------


@kernel_for("summed_by_part")
def _summed_by_part(d: Any, parts: Any, swapped: bool) -> Any:
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
"""As in cuda/symmetric.cu.  Larger matrices need cuSOLVER, which cannot be recorded."""


def _small(g: Any) -> bool:
    return serves(g) and g.shape[-1] <= _MOST_DIRECTIONS


@kernel_for("eigen")
def _eigen(g: Any) -> Any:
    if not _small(g):
        return NotImplemented
    *several, k, _ = g.shape
    diagonal, vectors = g.copy(), cupy.empty(g.shape, g.dtype)
    values = cupy.empty((*several, k), g.dtype)
    rounding = g.dtype.type(np.finfo(g.dtype).eps / 2)
    arguments = (diagonal, vectors, values, np.int32(k), rounding)
    _SYMMETRIC.launch("eigen", g.dtype, math.prod(several), *arguments)
    return values, vectors


@kernel_for("inverse_factor")
def _inverse_factor(g: Any) -> Any:
    if not _small(g):
        return NotImplemented
    out = cupy.empty(g.shape, g.dtype)
    _SYMMETRIC.launch("inverse_cholesky", g.dtype, 1, g.copy(), out, np.int32(len(g)))
    return out


kernel_for("least_norm")(solution_by_eigenvectors)  # NumPy's own way asks which case it is
