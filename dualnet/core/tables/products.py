"""Products and linear systems that are written with `matmul`, `solve` and `inv`.

None of these has a rule of its own: each is composed of functions that have one, so that all orders
of derivatives follow.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from dualnet.core.arrays import operand, operand_like
from dualnet.core.dual import primal_of
from dualnet.core.engine import composed
from dualnet.types import Array

# --- products of vectors and matrices ---


def _vecdot(x: Array, y: Array, axis: int = -1) -> Any:
    x, y = map(operand, (x, y))
    x, y = (np.moveaxis(a, normalize_axis_index(axis, a.ndim), -1) for a in (x, y))
    return np.matmul(x[..., None, :], y[..., None])[..., 0, 0]


composed(np.vecdot)(_vecdot)


@composed(np.linalg.vecdot)
def _linalg_vecdot(x1: Array, x2: Array, *, axis: int = -1) -> Any:
    return _vecdot(x1, x2, axis)


if hasattr(np, "matvec"):  # since NumPy 2.2

    @composed(np.matvec)
    def _matvec(x: Array, y: Array) -> Any:
        return np.matmul(operand(x)[..., :, :], operand(y)[..., :, None])[..., 0]

    @composed(np.vecmat)
    def _vecmat(x: Array, y: Array) -> Any:
        return np.matmul(operand(x)[..., None, :], operand(y)[..., :, :])[..., 0, :]


@composed(np.linalg.matmul)
def _linalg_matmul(x1: Array, x2: Array) -> Any:
    return np.matmul(x1, x2)


@composed(np.linalg.tensordot)
def _linalg_tensordot(x1: Array, x2: Array, *, axes: Any = 2) -> Any:
    return np.tensordot(x1, x2, axes)


@composed(np.cross)
def _cross(
    a: Array, b: Array, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Any:
    """Multiply vectors of 3 components; one of 2, which NumPy deprecates, has 0 as its third."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = operand(a), operand(b)
    a = np.moveaxis(a, normalize_axis_index(axisa, a.ndim), -1)
    b = np.moveaxis(b, normalize_axis_index(axisb, b.ndim), -1)
    if not {a.shape[-1], b.shape[-1]} <= {2, 3}:
        raise ValueError(
            "np.cross: expected vectors of 2 or 3 components along the axis, got "
            f"{a.shape[-1]} and {b.shape[-1]}"
        )
    a0, a1, *a2 = (a[..., i] for i in range(a.shape[-1]))
    b0, b1, *b2 = (b[..., i] for i in range(b.shape[-1]))
    last = a0 * b1 - a1 * b0
    if not a2 and not b2:
        return last
    if not a2:
        first, second = a1 * b2[0], -(a0 * b2[0])
    elif not b2:
        first, second = -(a2[0] * b1), a2[0] * b0
    else:
        first, second = a1 * b2[0] - a2[0] * b1, a2[0] * b0 - a0 * b2[0]
    first, second, last = np.broadcast_arrays(first, second, last)
    return np.moveaxis(np.stack([first, second, last], -1), -1, axisc)


@composed(np.linalg.cross)
def _linalg_cross(x1: Array, x2: Array, *, axis: int = -1) -> Any:
    x1, x2 = operand(x1), operand(x2)
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ValueError(
            "np.linalg.cross: expected vectors of 3 components, got "
            f"{x1.shape[axis]} and {x2.shape[axis]}"
        )
    return np.cross(x1, x2, axis=axis)


@composed(np.linalg.multi_dot, sequences=(0,))
def _multi_dot(arrays: Sequence) -> Any:
    """Multiply in the order that takes the fewest multiplications, as NumPy does."""
    arrays = list(map(operand, arrays))
    n = len(arrays)
    if n < 2:
        raise ValueError("np.linalg.multi_dot: expected at least two arrays")
    if n == 2:
        return np.dot(*arrays)
    row, column = np.ndim(arrays[0]) == 1, np.ndim(arrays[-1]) == 1
    if row:
        arrays[0] = arrays[0][None]
    if column:
        arrays[-1] = arrays[-1][:, None]
    sizes = [*(a.shape[0] for a in arrays), arrays[-1].shape[1]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(n)}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            best[i, j] = min(
                (best[i, m][0] + best[m + 1, j][0] + sizes[i] * sizes[m + 1] * sizes[j + 1], m)
                for m in range(i, j)
            )

    def product(i: int, j: int) -> Any:
        m = best[i, j][1]
        return arrays[i] if i == j else np.matmul(product(i, m), product(m + 1, j))

    out = product(0, n - 1)
    kept = out.shape[1 if row else 0 : 1 if column else 2]
    return np.reshape(out, kept)


@composed(np.linalg.matrix_power)
def _matrix_power(a: Array, n: int) -> Any:
    """Multiply by repeated squaring, in the order of NumPy; a⁰ is constant."""
    n = operator.index(n)
    if a.ndim < 2 or a.shape[-2] != a.shape[-1]:
        raise np.linalg.LinAlgError("np.linalg.matrix_power: the matrix must be square")
    if n == 0:
        return np.linalg.matrix_power(primal_of(a), 0)
    if n < 0:
        a, n = np.linalg.inv(a), -n
    if n == 3:  # as NumPy does it
        return np.matmul(np.matmul(a, a), a)
    result = None
    while True:
        n, odd = divmod(n, 2)
        if odd:
            result = a if result is None else np.matmul(result, a)
        if not n:
            return result
        a = np.matmul(a, a)


# --- linear systems of more axes ---


@composed(np.linalg.tensorsolve)
def _tensorsolve(a: Array, b: Array, axes: Sequence[int] | None = None) -> Any:
    a, b = operand_like(a, b), operand_like(b, a)
    if axes is not None:
        a = np.moveaxis(a, tuple(axes), tuple(range(a.ndim - len(axes), a.ndim)))
    shape = a.shape[b.ndim :]
    if math.prod(shape) != b.size:
        raise np.linalg.LinAlgError(
            "np.linalg.tensorsolve: the axes of a must make a square matrix, got "
            f"{a.shape} for b of shape {b.shape}"
        )
    return np.reshape(np.linalg.solve(np.reshape(a, (b.size, b.size)), np.ravel(b)), shape)


@composed(np.linalg.tensorinv)
def _tensorinv(a: Array, ind: int = 2) -> Any:
    if ind <= 0:
        raise ValueError(f"np.linalg.tensorinv: ind must be positive, got {ind}")
    rows, columns = a.shape[:ind], a.shape[ind:]
    inverse = np.linalg.inv(np.reshape(a, (math.prod(rows), math.prod(columns))))
    return np.reshape(inverse, (*columns, *rows))
