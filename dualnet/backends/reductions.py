"""Sums, means, extremes and places of the largest entry, over any axes of an array.

The kernels of cuda/reductions.cu see an array as (A, M, B) and reduce it over M.  `reduction_plan`
says how they divide the work, `reduce` runs them on an array of CuPy's, and `NUMPY_REDUCTIONS` has
them in the form of NumPy's functions.

Entries that are to be computed on the way, and never stored, take the same kernels with another
way to read them:

    plan = reduction_plan(kind, dtype, shape, axes, widest)
    code = source_with(prelude, parameters, arguments)
    module = cupy.RawModule(code=code, options=options(plan))
    out = cupy.empty(plan.shape, plan.result_dtype)
    launch(plan, module, operands, out, divisor)

`parameters` is a list of declarations as in C++, `const float* a, const float* b, float c`;
`arguments` is the list of their names, `a, b, c`; `operands` has their values in the same order.
`prelude` is CUDA C++ that defines one function:

    __device__ inline void entries(PARAMETERS, INDEX i, VALUE (&of)[WIDTH])

It sets of[0], ..., of[WIDTH - 1] to the entries i, ..., i + WIDTH - 1 of the array to be reduced,
numbered in C order.  The prelude need not define, but may use:

    PARAMETERS  `parameters`, as a macro
    VALUE       the type of the entries: float, double or i64
    INDEX       the type of a number of an entry: int, or i64 for large arrays
    WIDTH       1, 2 or 4, at most `widest`; i is a multiple of it
    Pack<T, N>  N numbers, its member `of`, of the alignment with which a device reads them at once
    i64         long long
    THREADS     how many threads a block has

The names `entries`, `rows`, `columns` and `join`, and those of the functions that these call, are
taken.  For a sum `entries` is called once for every entry, or again with the same result by a
thread that has nothing else to do.  What it computes it may thus store as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike

from dualnet.backends.launching import flat, source
from dualnet.types import Array, Shape

_VALUES = {"float32": "float", "float64": "double", "int64": "i64"}
"""Name of the dtype of reduced entries → C type."""
_INPUTS = {**_VALUES, "bool": "bool", "int32": "int"}
"""Name of an array's dtype → C type."""
_KINDS = {"sum": "SUM", "max": "MAXIMUM", "min": "MINIMUM", "argmax": "ARGMAX"}
"""Kind of reduction → the word that chooses it in the source."""

_THREADS = 256
_READS_PER_THREAD = 8
"""How many times a thread of a short reduction reads, at most; more threads share it otherwise."""
_ENOUGH_BLOCKS = 528
"""So many blocks keep a large device busy: four on each of the 132 multiprocessors of an H100.
Results must not depend on the device, so this number does not either."""
_LONG = 1 << 13
"""A block that reads fewer numbers than this is not divided: it takes less time than a launch."""
_SHORTEST_PART = 1 << 12
"""How many numbers a block reads at least if there are several for one result."""
_MANY = 1 << 30
"""From so many entries on their numbers have 64 bits: a loop may go a little past the last one."""
_LONGEST_CHAIN = 1 << 9
"""How many times a thread adds one number after another, at most; rounding errors grow with it."""


@dataclass(frozen=True)
class ReductionPlan:
    """How the kernels of cuda/reductions.cu divide a reduction of an array (A, M, B) over M.

    Attributes:
        kind: `sum`, `max`, `min` or `argmax`.
        dtype, result_dtype: of what is reduced, and of the result.
        a, m, b: A, M and B.
        shape: the result's shape.
        kept: the same with an axis of size 1 for every reduced one.
        kernel: `rows` (B is 1) or `columns`.
        width: how many neighboring entries a thread reads at once.
        index: the C type that counts entries.
        threads: the size of a block.
        parts: how many parts M has, each with a partial result of its own.
        blocks: how many blocks the first launch has; 0 if there is no result.
        sizes: its arguments, from `units` on, without the divisor.
        scratch: how many partial results the second launch joins; 0 if there is none.
        join_blocks, join_sizes: the same for the second launch.
    """

    kind: str
    dtype: np.dtype
    result_dtype: np.dtype
    a: int
    m: int
    b: int
    shape: Shape
    kept: Shape
    kernel: str
    width: int
    index: str
    threads: int
    parts: int
    blocks: int
    sizes: tuple[np.generic, ...]
    scratch: int
    join_blocks: int
    join_sizes: tuple[np.generic, ...]


def _power_of_two(n: int) -> int:
    """Return the smallest power of 2 that is at least n, and 1 for 0."""
    return 1 << max(0, n - 1).bit_length()


def runs_of_axes(shape: Shape, axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Divide axes into runs of neighbors, each of which is one M.

    Axes of size 1 do not part neighbors.  The last run comes first: it is the one to reduce first,
    as its entries lie nearest to each other.

    Args:
        shape: the array's shape.
        axes: none negative, in any order.
    """
    runs: list[list[int]] = []
    joined = False
    for axis, size in enumerate(shape):
        if axis in axes:
            runs = [*runs[:-1], [*runs[-1], axis]] if joined else [*runs, [axis]]
            joined = True
        elif size != 1:
            joined = False
    return [tuple(run) for run in reversed(runs)]


@functools.lru_cache(maxsize=1 << 12)
def reduction_plan(
    kind: str,
    dtype: DTypeLike,
    shape: Shape,
    axes: tuple[int, ...],
    widest: int = 4,
    threads: int = _THREADS,
    reads: int = _READS_PER_THREAD,
    enough_blocks: int = _ENOUGH_BLOCKS,
) -> ReductionPlan:
    """Divide the reduction of a contiguous array over one run of axes.

    Args:
        kind: `sum`, `max`, `min` or `argmax`.
        dtype: float32, float64 or int64: what the entries are when they are reduced.
        shape: the array's shape.
        axes: the axes to reduce, a run as `runs_of_axes` gives it, or none.
        widest: how many neighboring entries may be read at once: 1, 2 or 4.
        threads: the size of a block, a power of 2 from 32 to 512.
        reads: see `_READS_PER_THREAD`.
        enough_blocks: how many blocks to make by dividing long sums.

    Raises:
        ValueError: the axes are more than one run.
    """
    if len(runs_of_axes(shape, axes)) > 1:
        raise ValueError(f"the axes {axes} of shape {shape} are no neighbors")
    first = min(axes, default=len(shape))
    m = math.prod(shape[axis] for axis in axes)
    a = math.prod(shape[:first])
    b = math.prod(n for axis, n in enumerate(shape) if axis > first and axis not in axes)
    number = np.int32 if a * m * b < _MANY else np.int64
    along = m if b == 1 else b
    width = next(w for w in (4, 2, 1) if w <= widest and along % w == 0)
    if b == 1:
        across, down, runs = 1, min(_short(m // width, reads, threads, at_least=8), threads), 1
        size, step = down, down * width
    else:
        across = min(_power_of_two(b // width), 32)
        down = min(_short(m, reads, threads, at_least=1), threads // across)
        runs = -(-b // (across * width))
        size, step = across * down, down
    units, read = a * runs, m * (1 if b == 1 else across * width)
    parts = 1
    if kind != "argmax":  # places are not joined
        parts = max(-(-m // (_LONGEST_CHAIN * step)), 1)
        if size == threads and 0 < units < enough_blocks // 2 and read >= _LONG:
            parts = max(parts, min(-(-enough_blocks // units), read // _SHORTEST_PART))
    length = max(-(-m // (parts * step)), 1) * step
    parts = max(-(-m // length), 1)
    units *= parts
    layout = (down,) if b == 1 else (across, down)
    columns = () if b == 1 else (number(b),)
    sizes = number(units), number(m), *columns, number(length), *map(np.int32, (parts, *layout))
    scratch = a * parts * b if parts > 1 else 0
    join_across = min(_power_of_two(b), 8)
    join_down = min(_power_of_two(parts), threads // join_across)
    join_units = a * -(-b // join_across) if scratch else 0
    numbers = map(number, (join_units, parts, b))
    return ReductionPlan(
        kind=kind,
        dtype=np.dtype(dtype),
        result_dtype=np.dtype(np.int64 if kind == "argmax" else dtype),
        **{"a": a, "m": m, "b": b},
        shape=tuple(n for axis, n in enumerate(shape) if axis not in axes),
        kept=tuple(1 if axis in axes else n for axis, n in enumerate(shape)),
        kernel="rows" if b == 1 else "columns",
        width=width,
        index="int" if number is np.int32 else "i64",
        threads=threads,
        parts=parts,
        blocks=-(-units // (threads // size)),
        sizes=sizes,
        scratch=scratch,
        join_blocks=-(-join_units // (threads // (join_across * join_down))),
        join_sizes=(*numbers, np.int32(join_across), np.int32(join_down)),
    )


def _short(vectors: int, reads: int, threads: int, at_least: int) -> int:
    """Return how many threads share `vectors` reads, a power of 2."""
    few = min(_power_of_two(vectors), at_least)
    return min(max(_power_of_two(-(-vectors // reads)), few), threads)


def source_with(prelude: str, parameters: str, arguments: str) -> str:
    """Return the kernels' source with other entries; see the head of this module."""
    before, default, after = source("reductions").partition("\n#ifndef FUSED\n")
    macros = f"\n#define FUSED\n#define PARAMETERS {parameters}\n#define ARGUMENTS {arguments}\n"
    return f"{before}{macros}{prelude}\n{default}{after}"


def options(plan: ReductionPlan, input_dtype: DTypeLike | None = None) -> tuple[str, ...]:
    """Return the compiler's options for the kernels' source.

    Args:
        plan: for this reduction.
        input_dtype: of the array that is read; None for a source with other entries.
    """
    definitions = {
        **{_KINDS[plan.kind]: 1, "VALUE": _VALUES[plan.dtype.name], "INDEX": plan.index},
        **{"WIDTH": plan.width, "THREADS": plan.threads},
        **({} if input_dtype is None else {"INPUT": _INPUTS[np.dtype(input_dtype).name]}),
    }
    return ("--std=c++17", *(f"-D{name}={text}" for name, text in definitions.items()))


def launch(
    plan: ReductionPlan, module: Any, operands: Sequence[Any], out: Array, divisor: int = 1
) -> None:
    """Start the kernels of a reduction.

    Args:
        plan: for this reduction.
        module: the compiled source.
        operands: values of the source's own parameters, `(x,)` for an array as it is.
        out: where to write the result: contiguous, of `plan.result_dtype`, and `plan.shape`
            or `plan.kept`; its memory begins at a multiple of 16 bytes.
        divisor: by what to divide a sum: the number of entries gives their mean.
    """
    if not plan.blocks:
        return
    block = (plan.threads,)
    number = plan.dtype.type
    kernel = module.get_function(plan.kernel)
    if not plan.scratch:
        kernel((plan.blocks,), block, (*operands, out, *plan.sizes, number(divisor)))
        return
    partial = cupy.empty(plan.scratch, plan.dtype)
    kernel((plan.blocks,), block, (*operands, partial, *plan.sizes, number(1)))
    arguments = (partial, out, *plan.join_sizes, number(divisor))
    module.get_function("join")((plan.join_blocks,), block, arguments)


# --- arrays as they are --------------------------------------------------------------------------


@functools.cache
def _module(chosen: tuple[str, ...]) -> Any:
    """Return the compiled source for arrays as they are."""
    return cupy.RawModule(code=source("reductions"), options=chosen)


def reduce(kind: str, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Reduce an array of CuPy's over axes.

    The array is read as it lies in memory: one whose axes are transposed is not copied.

    Args:
        kind: `sum`, `mean`, `max`, `min` or `argmax`.
        x: float32, float64 or int64.  For `sum` and `argmax` also bool or int32, whose sum is
            int64; for `mean` not int64.
        axes: which ones to reduce: none negative, none twice.  For `argmax` all or one.
        keepdims: whether an axis of size 1 stays for each of them.

    Raises:
        ValueError: there is no entry, and so no largest or smallest one.
    """
    count = math.prod(x.shape[axis] for axis in axes)
    if kind not in ("sum", "mean") and not count:
        raise ValueError(f"{kind} of no entries: the shape is {x.shape}, the axes are {axes}")
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    if kind == "argmax" and len(axes) > 1:
        order = sorted(order)  # a place is counted in C order
    moved = order != sorted(order)
    if moved:
        x, axes = x.transpose(order), tuple(order.index(axis) for axis in axes)
    if x.ndim:  # else CuPy would give it an axis
        (x,) = flat(x)
    for run in (runs := runs_of_axes(x.shape, axes) or [()]):
        divisor = count if kind == "mean" and run is runs[-1] else 1
        x = _reduced_run("sum" if kind == "mean" else kind, x, run, divisor)
    if moved:
        x, axes = x.transpose(np.argsort(order).tolist()), tuple(order[axis] for axis in axes)
    return x if keepdims or not axes else x.squeeze(axes)


def _reduced_run(kind: str, x: Array, run: tuple[int, ...], divisor: int) -> Array:
    """Reduce a contiguous array over a run of axes, which stay as axes of size 1."""
    dtype = x.dtype if x.dtype.name in _VALUES else np.dtype(np.int64)
    widest = next(w for w in (4, 2, 1) if x.data.ptr % min(16, w * x.itemsize) == 0)
    plan = reduction_plan(kind, dtype, x.shape, run, widest)
    out = cupy.empty(plan.kept, plan.result_dtype)
    launch(plan, _module(options(plan, x.dtype)), (x,), out, divisor)
    return out


# --- NumPy's functions ---------------------------------------------------------------------------

_SERVED = {
    **{"sum": set(_INPUTS), "mean": {"float32", "float64"}, "argmax": set(_INPUTS)},
    **{"max": set(_VALUES), "min": set(_VALUES)},
}
"""Kind of reduction → names of the dtypes that it serves."""


def _like_numpy(
    kind: str, x: Any, axis: Any, keepdims: Any, dtype: Any = None, out: Any = None, **more: Any
) -> Array:
    """Reduce as a function of NumPy's does; return NotImplemented for what is not served."""
    if out is not None or more or keepdims not in (True, False):
        return NotImplemented
    if not isinstance(x, cupy.ndarray) or x.dtype.name not in _SERVED[kind]:
        return NotImplemented
    of_result = x.dtype if x.dtype.name in _VALUES else np.dtype(np.int64)
    if dtype is not None and np.dtype(dtype) != of_result:
        return NotImplemented
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    if kind not in ("sum", "mean") and 0 in [x.shape[axis] for axis in axes]:
        return NotImplemented  # which raises an error
    if kind == "argmax" and isinstance(axis, tuple):
        return NotImplemented
    return reduce(kind, x, axes, bool(keepdims))


def _sum_kernel(kind: str) -> Callable:
    """Return a kernel that takes the arguments of `np.sum`."""

    def kernel(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        **more: Any,
    ) -> Array:
        return _like_numpy(kind, a, axis, keepdims, dtype, out, **more)

    return kernel


def _extreme_kernel(kind: str) -> Callable:
    """Return a kernel that takes the arguments of `np.max`."""

    def kernel(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **more: Any
    ) -> Array:
        return _like_numpy(kind, a, axis, keepdims, None, out, **more)

    return kernel


NUMPY_REDUCTIONS: dict[Callable, Callable] = {
    **{np.sum: _sum_kernel("sum"), np.mean: _sum_kernel("mean")},
    **{np.max: _extreme_kernel("max"), np.amax: _extreme_kernel("max")},
    **{np.min: _extreme_kernel("min"), np.amin: _extreme_kernel("min")},
    np.argmax: _extreme_kernel("argmax"),
}
"""NumPy's function → the same by these kernels, for arrays of CuPy's.  It takes NumPy's arguments
and returns NotImplemented for what it does not serve."""
