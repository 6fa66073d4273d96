"""Norms of vectors and matrices, and condition numbers.

At a kink each norm has a slope by convention: that of the norms of 0 is 0, equal largest entries or
singular values share a tangent equally, and |x| has the slope 0 at 0, so that singular values of 0
do not count in the nuclear norm.  Each of these is the shortest subgradient.  The second derivative
of the Euclidean norm at 0, and of singular values where they are equal or 0, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dualnet.core import linear
from dualnet.core.arrays import operand
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import composed, linearizer
from dualnet.core.half import in_single
from dualnet.core.tables.decompositions import singular_values
from dualnet.core.tables.kinks import bends
from dualnet.core.tables.reductions import Axis, axes_from_end
from dualnet.types import Array


@composed(np.linalg.norm)
def _norm(x: Array, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    def norm(x: Array, ord: Any) -> Any:
        return np.linalg.norm(x, ord, axis, keepdims)

    axes = _in_order(axis, x.ndim)
    if len(axes) not in (1, 2) and not (axis is None and ord is None):
        raise ValueError(f"np.linalg.norm: ord={ord!r} of {len(axes)} axes needs axis=, one or two")
    if len(axes) == 2 and ord is not None:
        return _of_matrices(norm, x, ord, axes, keepdims)
    return _of_vectors(norm, x, ord, axes, keepdims)


@composed(np.linalg.vector_norm)
def _vector_norm(x: Array, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    def norm(x: Array, ord: Any) -> Any:
        return np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)

    return _of_vectors(norm, x, ord, _in_order(axis, x.ndim), keepdims)


@composed(np.linalg.matrix_norm)
def _matrix_norm(x: Array, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    def norm(x: Array, ord: Any) -> Any:
        return np.linalg.matrix_norm(x, keepdims=keepdims, ord=ord)

    return _of_matrices(norm, x, ord, (-2, -1), keepdims)


def _in_order(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes as negative numbers, in the order in which they came; None is all of them."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(a - ndim for a in normalize_axis_tuple(axes, ndim))


def _of_vectors(norm: Callable, x: Array, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Evaluate a norm of vectors; `norm(x, ord)` is NumPy's, for what has no rule by itself."""
    if ord == 0 or not x.size:  # a number of entries does not move with small changes
        return norm(primal_of(x), ord)
    if ord in (np.inf, -np.inf):
        largest = np.max if ord > 0 else np.min
        return largest(np.absolute(x), axis=axes, keepdims=keepdims)
    return _power_norm(x, norm, ord, axes, keepdims)


def _of_matrices(norm: Callable, x: Array, ord: Any, axes: tuple[int, int], keepdims: bool) -> Any:
    """Evaluate a norm of matrices; `norm(x, ord)` is NumPy's, for what has no rule by itself."""
    rows, columns = axes
    if not x.size:
        return norm(primal_of(x), ord)
    if ord in (1, -1, np.inf, -np.inf):
        within, among = (rows, columns) if abs(ord) == 1 else (columns, rows)
        sums = np.sum(np.absolute(x), axis=within, keepdims=True)
        out = (np.max if ord > 0 else np.min)(sums, axis=among, keepdims=True)
    elif ord in (2, -2, "nuc"):
        s = singular_values(np.moveaxis(x, axes, (-2, -1)))
        reduce: Any = {2: np.max, -2: np.min, "nuc": np.sum}[ord]
        reduced = reduce(s, axis=-1)
        out = np.expand_dims(reduced, axes_from_end(axes, x.ndim))
    else:  # what is neither "fro" nor its other name, "f", NumPy refuses
        return _power_norm(x, norm, ord, axes, keepdims)
    return out if keepdims else np.squeeze(out, axis=axes)


@primitive
def _power_norm(x: Array, norm: Callable, ord: Any, *_: Any) -> Any:
    return norm(x, ord)


@linearizer(_power_norm)
def _slope_of_power_norm(
    x: Array, norm: Callable, ord: Any, axes: tuple[int, ...], keepdims: bool
) -> Any:
    """The slope of (Σ |x|^p)^(1/p) is sign(x) (|x| / ‖x‖)^(p-1), and 0 where the norm is 0.

    It does not change with the scale of x, so x is scaled first, and nothing overflows.  Where
    p < 1, the slope by an entry of 0 is infinite, and NaN is returned.
    """
    out = _power_norm(x, norm, ord, axes, keepdims)
    p = float(ord) if isinstance(ord, (int, float)) else 2.0  # "fro" and None
    axes = tuple(sorted(axes))
    if not x.size:
        return out, lambda t: linear.sum(t, axes, keepdims)
    x = in_single(x)
    largest = np.max(np.absolute(primal_of(x)), axis=axes, keepdims=True)
    zero = np.equal(largest, 0)
    y = x / np.where(np.logical_or(zero, np.isinf(largest)), 1, largest)
    if p == 2:
        length = np.sqrt(np.sum(np.square(np.where(zero, 1, y)), axis=axes, keepdims=True))
        factor = y / length
    else:
        size = np.where(zero, 1, np.absolute(y))
        if p < 1:
            size = np.where(np.equal(size, 0), np.nan, size)
        mean = np.sum(np.power(size, p), axis=axes, keepdims=True)
        factor = np.sign(y) * np.power(size, p - 1.0) / np.power(mean, 1.0 - 1.0 / p)
    factor = np.where(zero, 0, factor)
    return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)


@partial(bends, _power_norm)
def _at_zero(
    out: Array, x: Array, norm: Callable, ord: Any, axes: tuple[int, ...], keepdims: bool
) -> Any:
    zero = np.logical_not(np.any(np.not_equal(x, 0), axis=axes, keepdims=True))
    return x, zero, tuple(sorted(axes))


@composed(np.linalg.cond)
def _cond(x: Array, p: Any = None) -> Any:
    x = operand(x)
    if 0 in x.shape[-2:]:
        raise np.linalg.LinAlgError("cond is not defined on empty arrays")
    if p in (None, 2, -2):
        s = singular_values(x)
        largest, smallest = s[..., 0], s[..., -1]
        with np.errstate(all="ignore"):  # as NumPy does: the condition of a singular matrix is inf
            return smallest / largest if p == -2 else largest / smallest
    return np.linalg.norm(x, p, (-2, -1)) * np.linalg.norm(np.linalg.inv(x), p, (-2, -1))
