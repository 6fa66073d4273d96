"""Kernels for norms, softmax and cross-entropy: what divides by, or subtracts, a statistic.

Statistics of rows of contiguous entries take one launch that reads each row once (`cuda/rows.cu`).
Those of long columns, and of more entries than a block can keep, take two, and a third puts them to
use (`cuda/columns.cu`).  The sizes here say how the threads of a launch share the work.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from dualnet.backends.launching import Module, flat, kernel_for, serves
from dualnet.types import Array

_VECTOR_BYTES = 16
"""The most that a thread reads at once."""
_BLOCKS = 132 * 4
"""So many blocks of a launch keep a large device busy."""


def _width(n: int, *arrays: Array) -> int:
    """Return how many entries a thread may read at once: a power of 2 that divides n.

    Args:
        n: how many entries lie between the places from which threads read.
        arrays: contiguous arrays of one dtype, each of which must lie where such vectors may.
    """
    size = arrays[0].dtype.itemsize
    width = _VECTOR_BYTES // size
    while width > 1 and (n % width or any(a.data.ptr % (width * size) for a in arrays)):
        width //= 2
    return width


# --- rows ----------------------------------------------------------------------------------------

_ROW_THREADS = 256
_FEWEST_LANES = 8
"""Threads that serve one row, where it has vectors for so many: a warp reads whole sectors then."""
_PREFERRED_ENTRIES = 16
"""Up to so many entries a thread keeps before more threads serve a row."""
_MOST_ENTRIES = 32
"""The most entries that a thread keeps in registers."""
_LONGEST_ROW = _ROW_THREADS * _MOST_ENTRIES
"""Longer rows do not fit into the registers of a block."""


def _row_division(n: int, width: int) -> tuple[int, int]:
    """Return LANES and VECTORS of cuda/rows.cu for rows of n entries, read `width` at a time."""
    vectors = n // width
    lanes = min(_FEWEST_LANES, 1 << (vectors - 1).bit_length())
    while lanes < 32 and vectors > lanes * (_PREFERRED_ENTRIES // width):
        lanes *= 2
    if vectors > lanes * (_MOST_ENTRIES // width):
        lanes = _ROW_THREADS
    each = -(-vectors // lanes)
    return lanes, each if each * width <= _MOST_ENTRIES else 0


@functools.cache
def _row_module(lanes: int, vectors: int, width: int) -> Module:
    return Module("rows", _ROW_THREADS, LANES=lanes, VECTORS=vectors, WIDTH=width)


def _launch_rows(kernel: str, n: int, arrays: list[Array], more: tuple = (), k: int = 0) -> None:
    """Start a kernel of cuda/rows.cu.

    Args:
        kernel: its name.
        n: how many entries a row has.
        arrays: the kernel's arrays; those with rows are contiguous, and the first is one of them.
        more: the kernel's arguments after `rows` and `n`.
        k: how many directions the first array has, for a kernel of tangents, which takes k and
            how many of them a thread serves; else 0.
    """
    size, dtype = arrays[0].size, arrays[0].dtype
    if not size:
        return
    width = _width(n, *(a for a in arrays if a.dtype == dtype and a.size % n == 0))
    lanes, vectors = _row_division(n, width)
    rows = size // n // max(1, k)
    blocks = -(-rows // (_ROW_THREADS // lanes))
    if k:  # where rows are few, several groups of threads share the directions of a row
        each = -(-k // min(k, -(-_BLOCKS // blocks)))
        blocks *= -(-k // each)
        more = (np.int32(k), np.int32(each))
    module = _row_module(lanes, vectors, width)
    module.launch(kernel, dtype, blocks, *arrays, np.int64(rows), np.int32(n), *more)


# --- columns -------------------------------------------------------------------------------------

_COLUMN_THREADS = 256
_BATCH = 4
"""How many rows a thread reads before it uses them."""
_MOST_PARTS = 1 << 12
"""A warp joins up to about so many parts of one statistic."""


@functools.cache
def _column_module(width: int) -> Module:
    return Module("columns", _COLUMN_THREADS, WIDTH=width, BATCH=_BATCH)


@dataclass(frozen=True)
class _Columns:
    """An array seen as `(A, M, C)` with statistics over M and each D neighboring columns of C.

    Attributes:
        a, m, c, d: the four sizes.
        width: how many columns a thread has.
        arrays: how many arrays of this shape there are.
        lanes: how many threads of a block lie side by side.
        chunk_rows: how many rows of M a block has; the last may have fewer.
        chunks: into how many parts M is cut so.
        division: the arguments DIVISION of the kernels.
        blocks: how many blocks all arrays take.
    """

    a: int
    m: int
    c: int
    d: int
    width: int
    arrays: int

    @classmethod
    def of(cls, view: Any, *arrays: Array, k: int = 1) -> _Columns:
        """Divide arrays of a view `(A, M, B, D)`, with k of them in the first of `arrays`."""
        row = _row_length(view)
        if row is None:
            width = _width(view.b * view.d, *arrays)
            return cls(view.a, view.m, view.b * view.d, view.d, width, k)
        # a row of contiguous entries is cut into short ones, so that all threads share it
        width = _width(row, *arrays)
        return cls(view.a * view.b, row // width, width, width, width, k)

    @functools.cached_property
    def lanes(self) -> int:
        return min(32, 1 << (self.c // self.width - 1).bit_length())

    @functools.cached_property
    def _runs(self) -> int:
        return -(-self.c // (self.lanes * self.width))

    @functools.cached_property
    def chunk_rows(self) -> int:
        workers = _COLUMN_THREADS // self.lanes
        wanted = max(1, _BLOCKS // (self.arrays * self.a * self._runs))
        most = min(wanted, max(1, _MOST_PARTS // self.d), -(-self.m // (workers * _BATCH)))
        return -(-self.m // (most * workers)) * workers

    @functools.cached_property
    def chunks(self) -> int:
        return -(-self.m // self.chunk_rows)

    @property
    def division(self) -> tuple:
        sizes = np.int64(self.m), np.int32(self.c), np.int32(self.lanes)
        return (*sizes, np.int32(self.chunk_rows), np.int32(self.chunks))

    @property
    def blocks(self) -> int:
        return self.arrays * self.a * self._runs * self.chunks

    def parts(self, dtype: Any) -> Array:
        """Make room for the pair of numbers that each column of each chunk leaves."""
        return cupy.empty((self.arrays, self.a, self.c, self.chunks, 2), dtype)

    def launch(self, kernel: str, dtype: Any, *arguments: Any) -> None:
        """Start a kernel with one block for each part."""
        arguments = (*arguments, *self.division)
        _column_module(self.width).launch(kernel, dtype, self.blocks, *arguments)

    def join(self, kernel: str, dtype: Any, statistics: int, *arguments: Any) -> None:
        """Start a kernel with one warp for each statistic."""
        blocks = -(-statistics * 32 // _COLUMN_THREADS)
        _column_module(self.width).launch(kernel, dtype, blocks, *arguments)


# --- norms ---------------------------------------------------------------------------------------


def _row_length(view: Any) -> int | None:
    """Return how many contiguous entries a statistic has; None where they do not lie together."""
    if view.m > 1 and view.b > 1:
        return None
    return view.m * view.d


def _is_by_rows(view: Any) -> bool:
    """Whether threads can keep all entries of a statistic."""
    n = _row_length(view)
    return n is not None and n <= _LONGEST_ROW


@kernel_for("normalized_in_view")
def _normalized(x: Array, view: Any, epsilon: float) -> Array:
    """Normalize x `(A, M, B, D)` over M and D; return it and 1 / sqrt(variance + ε)."""
    if not serves(x) or not x.size:
        return NotImplemented
    (x,) = flat(x)
    if not _is_by_rows(view):
        return _normalized_by(x, *_moments(x, view), view, epsilon)
    y, s = cupy.empty(x.shape, x.dtype), cupy.empty(view.kept, x.dtype)
    n = view.m * view.d
    _launch_rows("normalized", n, [x, y, s], (x.dtype.type(epsilon),))
    return y, s


@kernel_for("moments_in_view")
def _moments(x: Array, view: Any) -> Array:
    """Return mean and variance of x `(A, M, B, D)` over M and D."""
    if not serves(x) or not x.size:
        return NotImplemented
    (x,) = flat(x)
    columns = _Columns.of(view, x)
    parts = columns.parts(x.dtype)
    columns.launch("part_moments", x.dtype, x, parts, np.int32(columns.d))
    mean, variance = cupy.empty(view.kept, x.dtype), cupy.empty(view.kept, x.dtype)
    numbers = np.int64(mean.size), np.int32(columns.d), np.int64(columns.m), np.int32(columns.c)
    chunks = np.int32(columns.chunk_rows), np.int32(columns.chunks)
    arguments = (x, parts, mean, variance, *numbers, *chunks)
    columns.join("joined_moments", x.dtype, mean.size, *arguments)
    return mean, variance


@kernel_for("normalized_by_in_view")
def _normalized_by(x: Array, mean: Array, variance: Array, view: Any, epsilon: float) -> Array:
    """Normalize x `(A, M, B, D)` by its mean and variance `(A, 1, B)`, as `_normalized` does."""
    if not serves(x, mean, variance) or not x.size:
        return NotImplemented
    x, mean, variance = flat(x, mean, variance)
    y, s = cupy.empty(x.shape, x.dtype), cupy.empty(view.kept, x.dtype)
    columns = _Columns.of(view, x)
    numbers = x.dtype.type(epsilon), np.int32(columns.d)
    columns.launch("normalized_by", x.dtype, x, mean, variance, y, s, *numbers)
    return y, s


@kernel_for("tangent_in_view")
def _tangent(t: Array, y: Array, s: Array, view: Any) -> Array:
    """Return the tangents of a normalized y that tangents t `(k, A, M, B, D)` cause."""
    if t.shape[1:] != y.shape or not serves(t, y, s):
        return NotImplemented
    k = t.shape[0]
    t, y, s = flat(t, y, s)
    out = cupy.empty(t.shape, t.dtype)
    if not t.size:
        return out
    if _is_by_rows(view):
        _launch_rows("tangent_of_normalized", view.m * view.d, [t, y, s, out], k=k)
        return out
    columns = _Columns.of(view, t, y, k=k)
    parts, means = columns.parts(t.dtype), cupy.empty((k, s.size, 2), t.dtype)
    directions = np.int64(y.size), np.int32(k)
    columns.launch("part_sums", t.dtype, t, y, parts, *directions)
    count, entries = np.int32(columns.d * columns.chunks), np.int64(columns.m * columns.d)
    arguments = (parts, means, np.int64(k * s.size), count, entries)
    columns.join("joined_sums", t.dtype, k * s.size, *arguments)
    columns.launch("tangent_by", t.dtype, t, y, s, means, out, *directions, np.int32(columns.d))
    return out


# --- softmax -------------------------------------------------------------------------------------


def _is_along_rows(x: Array, axis: int) -> bool:
    """Whether the axis is the last one, and has entries."""
    return axis % x.ndim == x.ndim - 1 and x.shape[-1] > 0


@kernel_for("_softmax_along")
def _softmax(x: Array, axis: int) -> Array:
    """Return exp(x) / Σ exp(x) along the last axis."""
    if not serves(x) or not _is_along_rows(x, axis):
        return NotImplemented
    (x,) = flat(x)
    out = cupy.empty(x.shape, x.dtype)
    _launch_rows("softmax", x.shape[-1], [x, out])
    return out


@kernel_for("_tangent_of_softmax_along")
def _tangent_of_softmax(t: Array, p: Array, axis: int) -> Array:
    """Return p (t - Σ p t) for tangents t `(k, ...)`, with sums along the last axis."""
    if not serves(t, p) or not _is_along_rows(t, axis) or t.shape[1:] != p.shape:
        return NotImplemented
    t, p = flat(t, p)
    out = cupy.empty(t.shape, t.dtype)
    _launch_rows("tangent_of_softmax", t.shape[-1], [t, p, out], k=t.shape[0])
    return out


# --- cross-entropy -------------------------------------------------------------------------------


@kernel_for("_losses_and_errors")
def _losses_and_errors(logits: Array, labels: Array) -> Array:
    """Return the cross-entropies `(N,)` and their derivatives by the logits `(N, classes)`."""
    if not (serves(logits) and isinstance(labels, cupy.ndarray) and logits.shape[1]):
        return NotImplemented
    n, classes = logits.shape
    (logits,) = flat(logits)
    labels = cupy.ascontiguousarray(labels.astype(np.int64, copy=False))
    losses, errors = cupy.empty(n, logits.dtype), cupy.empty(logits.shape, logits.dtype)
    _launch_rows("cross_entropy", classes, [logits, labels, losses, errors])
    return losses, errors


@kernel_for("_losses")
def _losses(logits: Array, labels: Array) -> Array:
    """Compute the losses by the kernel above, so that they are the same with and without errors."""
    both = _losses_and_errors(logits, labels)
    return both if both is NotImplemented else both[0]
