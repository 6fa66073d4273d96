"""Matrix products by cuBLAS, which reads every operand as it lies in memory.

CuPy's own product of arrays of more than two axes copies transposed operands, never rounds its
factors to TF32, and makes lists of pointers where an operand is repeated.  But nearly every product
here has a batch axis, for the k directions, and an operand that is transposed or that is the same
for the whole batch.  To BLAS a transposed matrix is a flag, and the step from one matrix of a batch
to the next may be 0.

BLAS stores matrices column by column, so it takes a matrix whose rows are contiguous for its
transpose.  Therefore it is asked for the transposed product, outᵀ = yᵀ xᵀ.

Products with few columns have a kernel of their own (`cuda/products.cu`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import cupy
import numpy as np

from dualnet.backends import cublas
from dualnet.backends.launching import Module
from dualnet.types import Array, Shape

_ROUNDING = Module("rounding")
_ROUNDED_AT_ONCE = 4
"""How many numbers a thread rounds; the same as in cuda/rounding.cu."""

_MOST_CALLS = 16
"""Where a product would take more calls than this, operands are copied so that it takes fewer,
unless a copy is larger than the result.  This number is not measured: a call takes some
microseconds, and so does a copy of a few MB."""
_LARGEST_EXTENT = 2**31 - 1
"""The largest number that cuBLAS counts with; larger arrays are left to CuPy."""

_FEW_COLUMNS = Module("products")
_WARP = 32
_MOST_COLUMNS = 16
"""How many columns cuda/products.cu serves."""
_SUMMED = range(256, 2049)
"""How many products a sum has in cuda/products.cu; shorter ones cuBLAS does as well, and it divides
longer ones among blocks."""
_FOUR_ROWS_FROM = 8192
"""From so many rows on, a warp sums four at once: there is work for all multiprocessors then."""

# The keys are the letters of dtypes, because finding out their names is slow.
_FULL = {"f": cublas.COMPUTE_32F, "d": cublas.COMPUTE_64F}
_DATA = {
    "f": cublas.R_32F,
    "d": cublas.R_64F,
    "H": cublas.R_16BF,  # uint16 stands for bfloat16 here
}
# The arrays are kept, because cuBLAS gets pointers to the numbers 1 and 0 in them.
_HOST = {char: (np.ones((), char), np.zeros((), char)) for char in _FULL}
_ONE_AND_ZERO = {char: tuple(c.ctypes.data for c in both) for char, both in _HOST.items()}


def product_kernels(matmul_precision: str) -> dict[str, Callable]:
    """Return the kernels for `overridable.matmul`, `exact_matmul` and `multiply_onto`, by name.

    Args:
        matmul_precision: how float32 factors are rounded, a name in
            `backends.MATMUL_PRECISIONS`.  Factors in float64 are never rounded.
    """
    return {
        "matmul": functools.partial(_matrix_product, matmul_precision),
        "exact_matmul": _exact_product,
        "multiply_onto": functools.partial(multiply_onto, matmul_precision),
    }


def multiply_onto(matmul_precision: str, x: Array, y: Array, out: Array) -> Array:
    """Add x @ y to `out`, and return it; NotImplemented for what is left to CuPy.

    cuBLAS reads `out` where it would write the product, so the product takes no memory of its own
    and is not read again.  Every entry's sum is rounded to the dtype, and its sum with the entry of
    `out` too, as a product and an addition would do.  The result is the same bit for bit only if
    cuBLAS chooses the same kernel for both, which it does not promise.  Plain and recorded steps
    both come here, so that they agree.

    Args:
        matmul_precision: how float32 factors are rounded, a name in
            `backends.MATMUL_PRECISIONS`.
        x, y: the factors, of one dtype.
        out: an array of the shape and dtype of x @ y.  Where it overlaps a factor, or lies so that
            BLAS cannot write it, the product is made first and then added.

    Raises:
        ValueError: entries of `out` have the same place in memory.
    """
    if isinstance(out, cupy.ndarray) and _repeats_entries(out):
        raise ValueError(
            "multiply_onto adds to an array whose entries have places of their own, got shape "
            f"{out.shape} with strides {out.strides}; write out.copy()"
        )
    return _matrix_product(matmul_precision, x, y, out, adds=True)


def _exact_product(x: Array, y: Array) -> Array:
    """Multiply without rounding factors; mixed dtypes are promoted first."""
    if isinstance(x, cupy.ndarray) and isinstance(y, cupy.ndarray):
        dtype = np.result_type(x.dtype, y.dtype)
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    return _matrix_product("full", x, y)


def _matrix_product(
    matmul_precision: str, x: Array, y: Array, out: Array = None, adds: bool = False
) -> Array:
    """Multiply as `np.matmul` does; NotImplemented for what is left to CuPy.

    If `adds` is true, the product is added to what is in `out`.
    """
    shapes = _result_shapes(x, y, out)
    if shapes is None:
        return NotImplemented
    shape, matrices = shapes
    is_new = out is None
    out = cupy.empty(shape, x.dtype) if is_new else out
    if not out.size:
        return out
    if not x.size:  # all sums are empty
        if not adds:
            out[...] = 0
        return out
    if _has_few_columns(x, y, out):
        _multiply_few_columns(x, y, out, adds)
        return out
    x_is_vector, y_is_vector = x.ndim == 1, y.ndim == 1
    rows, columns = (None if is_vector else slice(None) for is_vector in (x_is_vector, y_is_vector))
    target = out[..., rows, columns] if x_is_vector or y_is_vector else out
    # A product with a vector uses every entry once, so it is done sooner than rounding would be.
    rounded = matmul_precision if min(matrices[-2:]) > 1 and out.dtype.char == "f" else "full"
    x = _as_factor(x[None] if x_is_vector else x, rounded)
    y = _as_factor(y[:, None] if y_is_vector else y, rounded)
    writable = is_new or _can_be_written(target, x, y)
    result = target if writable else cupy.empty(matrices, out.dtype)
    axes = _batch_axes(matrices[:-2], x, y, result)
    if _count_calls(axes) > _MOST_CALLS:
        x, y = (a if _is_evenly_spaced(a) else cupy.ascontiguousarray(a) for a in (x, y))
        result = result if _is_evenly_spaced(result) else cupy.empty(matrices, out.dtype)
        axes = _batch_axes(matrices[:-2], x, y, result)
    if _count_calls(axes) > _MOST_CALLS:  # an operand is repeated for a part of the batch
        x, y = _copy_repeated(x, y, matrices[:-2], result.nbytes)
        axes = _batch_axes(matrices[:-2], x, y, result)
    compute = _FULL[out.dtype.char] if rounded != "tf32" else cublas.COMPUTE_32F_FAST_TF32
    _multiply(x, y, result, axes, compute, adds and result is target)
    if result is not target and adds:
        target += result
    elif result is not target:
        target[...] = result
    return out


def _result_shapes(x: Array, y: Array, out: Array | None) -> tuple[Shape, Shape] | None:
    """Return the shape of the result, and its shape as matrices `(..., m, p)`.

    In the second shape, the axis that a vector lacks has length 1.

    Returns:
        Both shapes; None for what is left to CuPy, which also raises the errors.
    """
    arrays = (x, y) if out is None else (x, y, out)
    if not all(isinstance(a, cupy.ndarray) and a.dtype == x.dtype for a in arrays):
        return None
    if x.dtype.char not in _FULL or not (x.ndim and y.ndim):
        return None
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        return None
    batch, other = x.shape[:-2], y.shape[:-2]
    if batch != other:
        try:
            batch = np.broadcast_shapes(batch, other)
        except ValueError:
            return None
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
    shape = (*batch, *rows, *columns)
    if out is not None and out.shape != shape:
        return None
    if max((*x.shape, *y.shape), default=0) > _LARGEST_EXTENT or math.prod(batch) > _LARGEST_EXTENT:
        return None
    return shape, (*batch, *(rows or (1,)), *(columns or (1,)))


# --- few columns ---------------------------------------------------------------------------------


def _has_few_columns(x: Array, y: Array, out: Array) -> bool:
    """Whether the kernel of cuda/products.cu serves x @ y, and is quicker than cuBLAS.

    It is for the last layer of a network.  It reads x four numbers at a time.  It never rounds
    factors, because the product is done before rounded copies would be made.
    """
    if out.dtype.char != "f" or min(x.ndim, y.ndim) < 2:
        return False
    if not 1 < y.shape[-1] <= _MOST_COLUMNS or x.shape[-1] not in _SUMMED or x.shape[-1] % 4:
        return False
    wide = 4 * x.itemsize
    aligned = x.data.ptr % wide == 0 and all(step % wide == 0 for step in x.strides[:-1])
    if x.strides[-1] != x.itemsize or not aligned or out.size > _LARGEST_EXTENT:
        return False
    if _repeats_entries(out) or any(cupy.may_share_memory(out, a) for a in (x, y)):
        return False
    return len(_batch_axes(out.shape[:-2], x, y, out)) < 2


def _multiply_few_columns(x: Array, y: Array, out: Array, adds: bool) -> None:
    """Write x `(..., m, n)` times y `(..., n, p)` to out `(..., m, p)`, or add it to what is there.

    Args:
        x, y, out: arrays that `_has_few_columns`.
        adds: whether the product is added.
    """
    axes = _batch_axes(out.shape[:-2], x, y, out)
    count, *steps = axes[0] if axes else (1, 0, 0, 0)
    (rows, inner), columns = x.shape[-2:], y.shape[-1]
    four_rows = count * rows >= _FOUR_ROWS_FROM
    blocks = -(-rows // (_FEW_COLUMNS.threads // _WARP * (4 if four_rows else 1)))
    strides = x.strides[-2:-1] + y.strides[-2:] + out.strides[-2:]
    layout = [np.int64(step // x.itemsize) for step in strides] + [np.int64(step) for step in steps]
    sizes = np.int32(blocks), np.int64(rows), np.int32(inner), np.int32(columns)
    flags = np.int32(four_rows), np.int32(adds)
    places = (np.uint64(a.data.ptr) for a in (x, y, out))  # they need not be contiguous
    arguments = (*places, *sizes, *layout, *flags)
    _FEW_COLUMNS.launch("few_columns", np.float32, count * blocks, *arguments)


# --- operands ------------------------------------------------------------------------------------


def _as_factor(a: Array, rounded: str) -> Array:
    """Return matrices `(..., m, n)` in a layout that BLAS can read, in bfloat16 if asked for.

    Where an operand is repeated along an axis of the batch, this axis gets length 1.  An operand
    that BLAS can read is not copied.

    Args:
        a: the matrices.
        rounded: a name in `backends.MATMUL_PRECISIONS`.
    """
    steps = zip(a.shape[:-2], a.strides[:-2], strict=True)
    if any(step == 0 and n > 1 for n, step in steps):  # repeated matrices: one is enough
        a = a[tuple(slice(0, 1) if step == 0 else slice(None) for step in a.strides[:-2])]
    if _leading_dimension(a) is None:
        a = cupy.ascontiguousarray(a)
    return _to_bfloat16(a) if rounded == "bf16" else a


def _to_bfloat16(a: Array) -> Array:
    """Round float32 numbers to bfloat16, in a uint16 array of the same memory layout."""
    order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    contiguous = cupy.ascontiguousarray(a.transpose(order))
    rounded = cupy.empty(contiguous.shape, np.uint16)
    numbers = contiguous.view(np.uint32), rounded, np.int64(a.size)
    _ROUNDING.over(-(-a.size // _ROUNDED_AT_ONCE), "to_bfloat16", np.float32, *numbers)
    return rounded.transpose([order.index(axis) for axis in range(a.ndim)])


def _leading_dimension(a: Array) -> tuple[int, bool] | None:
    """Return the leading dimension of matrices `(..., m, n)`, as BLAS calls it.

    Returns:
        How many entries one row, or one column, lies behind the one before it; and whether the
        columns are contiguous, and not the rows.  None where neither rows nor columns are
        contiguous, or where BLAS cannot count the steps: negative ones, or parts of an entry.
    """
    return _leading_dimension_of(a.shape, a.strides, a.itemsize)


@functools.lru_cache(maxsize=4096)  # a step has the same layouts as the one before
def _leading_dimension_of(shape: Shape, strides: Shape, itemsize: int) -> tuple[int, bool] | None:
    steps = zip(shape, strides, strict=True)
    if any(n > 1 and (step < 0 or step % itemsize) for n, step in steps):
        return None
    rows, columns = shape[-2:]
    down, across = (step // itemsize for step in strides[-2:])
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return (columns if rows == 1 else down), False
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return (rows if columns == 1 else across), True
    return None


def _can_be_written(target: Array, x: Array, y: Array) -> bool:
    """Whether BLAS can write to `target`: its entries must not overlap each other, x or y."""
    read = any(cupy.may_share_memory(target, a) for a in (x, y))
    return not _repeats_entries(target) and not read and _leading_dimension(target) is not None


def _repeats_entries(a: Array) -> bool:
    """Whether an axis of `a` repeats one place in memory."""
    steps = zip(a.shape, a.strides, strict=True)
    return bool(a.size) and any(n > 1 and step == 0 for n, step in steps)


# --- batches -------------------------------------------------------------------------------------

_Axis = tuple[int, ...]
"""The length of an axis of a batch, and for each array the step along it, in entries."""


def _batch_axes(batch: Shape, *arrays: Array) -> list[_Axis]:
    """Return the axes of a batch for several arrays `(*batch, m, n)`, merged where they can be.

    Two neighboring axes are merged where, in every array, one continues the steps of the other.
    Axes of length 1 are left out.
    """
    steps = []
    for a in arrays:
        own = zip(a.shape[:-2], a.strides[:-2], strict=True)
        repeated = (0,) * (len(batch) + 2 - a.ndim)
        steps.append((*repeated, *(0 if n == 1 else step // a.itemsize for n, step in own)))
    axes: list[_Axis] = []
    for n, *step in zip(batch, *steps, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1:] == tuple(n * inner for inner in step):
            n *= axes.pop()[0]
        axes.append((n, *step))
    return axes


def _copy_repeated(x: Array, y: Array, batch: Shape, most: int) -> tuple[Array, Array]:
    """Copy operands that are repeated, so that each entry of the batch has its own matrix.

    Args:
        x, y: the operands.
        batch: the shape of the batch.
        most: how many bytes a copy may take; if one would take more, both stay as they are.
    """
    shapes = [(*batch, *a.shape[-2:]) for a in (x, y)]
    repeated = [a.shape != shape for a, shape in zip((x, y), shapes, strict=True)]
    sizes = [math.prod(shape) * x.itemsize for shape in shapes]
    if any(many and size > most for many, size in zip(repeated, sizes, strict=True)):
        return x, y
    first, second = (
        cupy.ascontiguousarray(cupy.broadcast_to(a, shape)) if many else a
        for a, shape, many in zip((x, y), shapes, repeated, strict=True)
    )
    return first, second


def _is_evenly_spaced(a: Array) -> bool:
    """Whether each matrix of the batch lies the same step behind the one before it."""
    return len(_batch_axes(a.shape[:-2], a)) < 2


def _count_calls(axes: list[_Axis]) -> int:
    """Return how many calls a batch takes; one call serves the longest axis."""
    counts = [n for n, *_ in axes]
    return math.prod(counts) // max(counts, default=1)


def _multiply(x: Array, y: Array, out: Array, axes: list[_Axis], compute: int, adds: bool) -> None:
    """Write x `(..., m, n)` times y `(..., n, p)` to out `(..., m, p)`, or add it to what is there.

    Args:
        x, y, out: arrays of which `_leading_dimension` is not None.
        axes: the axes of their batch.
        compute: cuBLAS's number for the type in which it sums.
        adds: whether the product is added.
    """
    operands = (x, y, out)
    leading, turned = zip(*map(_leading_dimension, operands), strict=True)
    (m, n), p = x.shape[-2:], y.shape[-1]
    # To BLAS, a result with contiguous columns is not transposed: then out = x y is asked for.
    first, second, sizes = (0, 1, (m, p, n)) if turned[2] else (1, 0, (p, m, n))
    transpose = [int(turned[i] != turned[2]) for i in (first, second)]
    one, zero = _ONE_AND_ZERO[out.dtype.char]
    kept = one if adds else zero  # the share of what is in `out` that stays
    (count, *steps), *others = sorted(axes, reverse=True) or [(1, 0, 0, 0)]
    for position in itertools.product(*(range(axis[0]) for axis in others)):
        matrices = []
        for i, a in enumerate(operands):
            start = sum(j * axis[1 + i] for j, axis in zip(position, others, strict=True))
            address, step = a.data.ptr + start * a.itemsize, (steps[i],) if axes else ()
            matrices.append((address, _DATA[a.dtype.char], leading[i], *step))
        factors = (*transpose, *sizes, one, *matrices[first], *matrices[second])
        if axes:
            cublas.gemm_strided_batched(*factors, kept, *matrices[2], count, compute)
        else:
            cublas.gemm(*factors, kept, *matrices[2], compute)
