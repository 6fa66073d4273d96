"""Matrix products by cuBLAS, which gets every operand as it lies in memory.

CuPy's own product of arrays of more than two axes copies what is transposed, never rounds its
factors to TF32, and makes lists of pointers where an operand is repeated.  Nearly every product
here has a batch axis, for the k directions, and an operand that is transposed or the same for all
of the batch.  To BLAS a transposed matrix is a flag, and the step from one matrix to the next may
be 0.

BLAS counts by columns: to it, a matrix whose rows are contiguous is the transposed one.  So it is
asked for the transposed product, outᵀ = yᵀ xᵀ.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from dualnet.backends import cublas
from dualnet.backends.launching import Module

_ROUNDING = Module("rounding")

_MOST_CALLS = 16
"""Where a product would take more calls than that, operands are copied so that it takes fewer, if
copies are no larger than the result.  Not measured: a call is some microseconds, and so is a copy
of a few MB."""
_LARGEST_EXTENT = 2**31 - 1
"""What cuBLAS counts with an int; more is left to CuPy."""

# by the letters of dtypes, as their names are slow to find out
_FULL = {"f": cublas.COMPUTE_32F, "d": cublas.COMPUTE_64F}
_DATA = {
    "f": cublas.R_32F,
    "d": cublas.R_64F,
    "H": cublas.R_16BF,  # bfloat16 is kept here in uint16
}
_HOST = {char: (np.ones((), char), np.zeros((), char)) for char in _FULL}  # kept, as pointed to
_ONE_AND_ZERO = {char: tuple(c.ctypes.data for c in both) for char, both in _HOST.items()}


def product_kernels(matmul_precision: str) -> dict[str, Callable]:
    """What CuPy arrays get in the place of `overridable.matrix_product` and `exact_product`.

    Args:
        matmul_precision: how float32 factors are rounded, a name in
            `backends.MATMUL_PRECISIONS`; float64 ones never are.
    """
    return {
        "matrix_product": functools.partial(_matrix_product, matmul_precision),
        "exact_product": _exact_product,
    }


def _exact_product(x: Any, y: Any) -> Any:
    if isinstance(x, cupy.ndarray) and isinstance(y, cupy.ndarray):
        dtype = np.result_type(x.dtype, y.dtype)
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    return _matrix_product("full", x, y)


def _matrix_product(matmul_precision: str, x: Any, y: Any, out: Any = None) -> Any:
    shapes = _result_shapes(x, y, out)
    if shapes is None:
        return NotImplemented
    shape, of_matrices = shapes
    is_new = out is None
    out = cupy.empty(shape, x.dtype) if is_new else out
    if not out.size:
        return out
    if not x.size:  # sums of nothing
        out[...] = 0
        return out
    x_is_vector, y_is_vector = x.ndim == 1, y.ndim == 1
    rows, columns = (None if is_vector else slice(None) for is_vector in (x_is_vector, y_is_vector))
    target = out[..., rows, columns] if x_is_vector or y_is_vector else out
    # of a vector every entry is used once: a product with one is over before rounding would be
    rounded = matmul_precision if min(of_matrices[-2:]) > 1 and out.dtype.char == "f" else "full"
    x = _as_factor(x[None] if x_is_vector else x, rounded)
    y = _as_factor(y[:, None] if y_is_vector else y, rounded)
    writable = is_new or _can_be_written(target, x, y)
    result = target if writable else cupy.empty(of_matrices, out.dtype)
    axes = _axes(of_matrices[:-2], x, y, result)
    if _calls(axes) > _MOST_CALLS:
        x, y = (a if _is_one_row(a) else cupy.ascontiguousarray(a) for a in (x, y))
        result = result if _is_one_row(result) else cupy.empty(of_matrices, out.dtype)
        axes = _axes(of_matrices[:-2], x, y, result)
    if _calls(axes) > _MOST_CALLS:  # an operand is repeated, but not for the whole batch
        x, y = _written_out(x, y, of_matrices[:-2], result.nbytes)
        axes = _axes(of_matrices[:-2], x, y, result)
    compute = _FULL[out.dtype.char] if rounded != "tf32" else cublas.COMPUTE_32F_FAST_TF32
    _multiply(x, y, result, axes, compute)
    if result is not target:
        target[...] = result
    return out


def _result_shapes(x: Any, y: Any, out: Any) -> tuple[tuple, tuple] | None:
    """Of the result, and of it as matrices `(..., m, p)`, whose axis for a vector has length 1.

    None for what is left to CuPy, errors included.
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


# --- operands ------------------------------------------------------------------------------------


def _as_factor(a: Any, rounded: str) -> Any:
    """Matrices `(..., m, n)` as BLAS can read them: a itself, where nothing hinders; in bfloat16,
    if that is asked for."""
    steps = zip(a.shape[:-2], a.strides[:-2], strict=True)
    if any(step == 0 and n > 1 for n, step in steps):  # once is enough
        a = a[tuple(slice(0, 1) if step == 0 else slice(None) for step in a.strides[:-2])]
    if _leading(a) is None:
        a = cupy.ascontiguousarray(a)
    return _to_bfloat16(a) if rounded == "bf16" else a


def _to_bfloat16(a: Any) -> Any:
    """float32 numbers as bfloat16, in a uint16 array whose axes lie in memory in the same order."""
    order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    lying = cupy.ascontiguousarray(a.transpose(order))
    rounded = cupy.empty(lying.shape, np.uint16)
    numbers = lying.view(np.uint32), rounded, np.int64(a.size)
    _ROUNDING.over(a.size, "to_bfloat16", np.float32, *numbers)
    return rounded.transpose([order.index(axis) for axis in range(a.ndim)])


def _leading(a: Any) -> tuple[int, bool] | None:
    """The leading dimension of matrices, and whether their columns are contiguous, not their rows;
    None where neither are, or entries do not lie as BLAS counts them."""
    steps = zip(a.shape, a.strides, strict=True)
    if any(n > 1 and (step < 0 or step % a.itemsize) for n, step in steps):
        return None
    rows, columns = a.shape[-2:]
    down, across = (step // a.itemsize for step in a.strides[-2:])
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return (columns if rows == 1 else down), False
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return (rows if columns == 1 else across), True
    return None


def _can_be_written(target: Any, x: Any, y: Any) -> bool:
    """Whether BLAS can put its results there: apart from one another and from what it reads."""
    steps = zip(target.shape, target.strides, strict=True)
    repeated = any(n > 1 and step == 0 for n, step in steps)
    read = any(cupy.may_share_memory(target, a) for a in (x, y))
    return not repeated and not read and _leading(target) is not None


# --- batches -------------------------------------------------------------------------------------

_Axis = tuple[int, ...]
"""How many matrices, and of each array the entries from one to the next."""


def _axes(batch: tuple[int, ...], *arrays: Any) -> list[_Axis]:
    """The axes of a batch, as few as will do: those that follow from one another are one."""
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


def _written_out(x: Any, y: Any, batch: tuple[int, ...], most: int) -> tuple[Any, Any]:
    """Both operands with a matrix of its own for each place of the batch, if none of the copies
    takes more bytes than that; else as they are."""
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


def _is_one_row(a: Any) -> bool:
    """Whether each matrix follows the one before by the same step."""
    return len(_axes(a.shape[:-2], a)) < 2


def _calls(axes: list[_Axis]) -> int:
    """How many a batch takes; the longest axis is cuBLAS's own."""
    counts = [n for n, *_ in axes]
    return math.prod(counts) // max(counts, default=1)


def _multiply(x: Any, y: Any, out: Any, axes: list[_Axis], compute: int) -> None:
    """out `(..., m, p)` = x `(..., m, n)` y `(..., n, p)`, none of which `_leading` refuses."""
    operands = (x, y, out)
    leading, turned = zip(*map(_leading, operands), strict=True)
    (m, n), p = x.shape[-2:], y.shape[-1]
    # a result whose columns are contiguous is, to BLAS, not transposed
    first, second, sizes = (0, 1, (m, p, n)) if turned[2] else (1, 0, (p, m, n))
    transpose = [int(turned[i] != turned[2]) for i in (first, second)]
    one, zero = _ONE_AND_ZERO[out.dtype.char]
    (count, *steps), *others = sorted(axes, reverse=True) or [(1, 0, 0, 0)]
    for position in itertools.product(*(range(axis[0]) for axis in others)):
        told = []
        for i, a in enumerate(operands):
            start = sum(j * axis[1 + i] for j, axis in zip(position, others, strict=True))
            where = a.data.ptr + start * a.itemsize
            told.append((where, _DATA[a.dtype.char], leading[i], *((steps[i],) if axes else ())))
        factors = (*transpose, *sizes, one, *told[first], *told[second])
        if axes:
            cublas.gemm_strided_batched(*factors, zero, *told[2], count, compute)
        else:
            cublas.gemm(*factors, zero, *told[2], compute)
