"""`where=`, `dtype=` and `initial=` of reductions.

Everything here is written with functions that have rules of their own:

    sum(x, where=mask)       sum(where(mask, x, 0))
    sum(x, dtype=d)          sum(x.astype(d))
    sum(x, initial=c)        sum(x) + c
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear, refusals
from dualnet.core.arrays import asarray_like, operand, scatter_add_zeros
from dualnet.core.dual import RULES, Rule, astype, primal_of
from dualnet.core.engine import composed, elementwise, moves_alike, rule, zero_derivative
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.reductions import Axis, axes_from_end, ddof_of
from dualnet.types import Array

# --- keywords of reductions ----------------------------------------------------------------------


def extended(fn: Callable, function: Callable) -> None:
    """Let the rule of `fn` take the arguments of `function`, which calls fn without them."""
    plain = RULES.pop(fn)
    composed(fn)(function)
    extended = RULES[fn]

    def evaluate(level: Any, args: tuple, kwargs: dict) -> Any:
        if kwargs and not _duals_of(kwargs) <= {"initial", "mean"}:
            raise refusals.out_of_place(fn)
        known = plain.keywords is None or kwargs.keys() <= plain.keywords
        rule = plain if known and len(args) <= plain.positional else extended
        return rule.evaluate(level, args, kwargs)

    keywords = extended.keywords and extended.keywords | (plain.keywords or frozenset())
    RULES[fn] = Rule(evaluate, extended.positional, keywords, True, plain.composed)


def _duals_of(kwargs: dict) -> set[str]:
    return {name for name, value in kwargs.items() if hasattr(value, "tangent")}


def _masked(x: Array, where: Any, filler: float) -> Array:
    return x if where is True else np.where(where, x, filler)


def _of_dtype(x: Array, dtype: Any) -> Array:
    return x if dtype is None else astype(x, dtype)


def as_numpy(result: Any, fn: Callable, x: Array, *args: Any, **how: Any) -> Any:
    """Give a composed reduction the value of NumPy's own, which sums up in another order."""
    plain = primal_of(x)
    if not isinstance(plain, (np.ndarray, np.generic)):
        return result
    given = {name: primal_of(value) for name, value in how.items() if value is not ...}
    return valued(result, fn(plain, *args, **given))


REDUCTIONS: dict[Any, tuple[Callable, float | None]] = {
    np.add: (np.sum, 0.0),
    np.multiply: (np.prod, 1.0),
    np.maximum: (np.max, None),
    np.minimum: (np.min, None),
}
"""A ufunc → the reduction by it, and what changes no result of it; None where only an initial value
is that."""


def reduction_by(ufunc: np.ufunc, first: Axis = None) -> Callable:
    """Make the reduction by a ufunc, in `REDUCTIONS`, with NumPy's arguments in NumPy's order.

    Args:
        ufunc: which also takes in the initial value.
        first: the axis where none is said.
    """
    fn, neutral = REDUCTIONS[ufunc]

    def reduction(
        x: Array,
        axis: Axis = first,
        dtype: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = ...,
        where: Any = True,
    ) -> Any:
        refusals.require_no_out(fn, out)
        x = operand(x)
        how = {"axis": axis, "keepdims": keepdims, "initial": initial, "where": where}
        initial = None if initial is ... else initial
        converted = _of_dtype(x, dtype)
        if neutral is None:  # extrema have no dtype
            x = converted
        else:
            how["dtype"] = dtype
        if neutral is None and initial is None and where is not True:
            raise ValueError(
                f"{refusals.name_of(fn)}: where= needs initial=, the result where nothing is left"
            )
        infinite = -np.inf if ufunc is np.maximum else np.inf  # it ties with no entry
        filler = infinite if neutral is None else neutral
        kept = _masked(converted, where, filler)
        if neutral is None and initial is not None and 0 in kept.shape:
            return np.sum(kept, axis, keepdims=keepdims) + initial  # no entries are left
        result = fn(kept, axis=axis, keepdims=keepdims)
        result = result if initial is None else ufunc(result, initial)
        return as_numpy(result, fn, x, **how)

    return reduction


sum_with, prod_with = reduction_by(np.add), reduction_by(np.multiply)
max_with, min_with = reduction_by(np.maximum), reduction_by(np.minimum)


def without_dtype(reduction: Callable) -> Callable:
    """Make the same reduction without `dtype`, which extrema have not."""

    def of(
        x: Array,
        axis: Axis = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = ...,
        where: Any = True,
    ) -> Any:
        return reduction(x, axis, None, out, keepdims, initial, where)

    return of


extended(np.sum, sum_with)
extended(np.prod, prod_with)
for _fn, _extremum in ((np.max, max_with), (np.min, min_with)):
    extended(_fn, without_dtype(_extremum))
for _fn, _extremum in ((np.amax, max_with), (np.amin, min_with)):
    if _fn in RULES and _fn not in (np.max, np.min):
        extended(_fn, without_dtype(_extremum))


def mean_with(
    x: Array,
    axis: Axis = None,
    dtype: Any = None,
    out: None = None,
    keepdims: bool = False,
    *,
    where: Any = True,
) -> Any:
    """Evaluate np.mean with NumPy's arguments."""
    refusals.require_no_out(np.mean, out)
    given, x = x, _of_dtype(x, dtype)
    if where is True:
        result = np.mean(x, axis=axis, keepdims=keepdims)
    else:
        total = np.sum(_masked(x, where, 0.0), axis=axis, keepdims=keepdims)
        result = total / _count(x, where, axis, keepdims)
    how = {"axis": axis, "dtype": dtype, "keepdims": keepdims, "where": where}
    return as_numpy(result, np.mean, given, **how)


def _count(x: Array, where: Any, axis: Axis, keepdims: bool) -> Any:
    """Count the entries that `where` keeps, in the dtype of x."""
    mask = np.broadcast_to(asarray_like(where, x), np.shape(x))
    return np.sum(mask, axis=axis, keepdims=keepdims, dtype=np.result_type(x))


def norm_of(x: Array, axis: Axis, keepdims: bool) -> Any:
    """Return the Euclidean norm along any number of axes, with the slope 0 where x is 0."""
    axes = axes_from_end(axis, x.ndim)
    moved = np.moveaxis(x, axes, tuple(range(-len(axes), 0)))
    rest = moved.shape[: x.ndim - len(axes)]
    norms = np.linalg.norm(np.reshape(moved, (*rest, math.prod(moved.shape[len(rest) :]))), axis=-1)
    return np.expand_dims(norms, axes) if keepdims else norms


def spread_with(fn: Callable) -> Callable:
    """Make np.var or np.std with NumPy's arguments, in NumPy's order."""

    def spread(
        x: Array,
        axis: Axis = None,
        dtype: Any = None,
        out: None = None,
        ddof: float = 0,
        keepdims: bool = False,
        *,
        where: Any = True,
        correction: Any = ...,
        mean: Any = None,
    ) -> Any:
        refusals.require_no_out(fn, out)
        given, ddof = x, ddof_of(ddof, correction)
        x = _of_dtype(x, dtype)
        how = {"axis": axis, "dtype": dtype, "keepdims": keepdims, "ddof": ddof, "where": where}
        if where is True and mean is None:
            return as_numpy(fn(x, axis=axis, ddof=ddof, keepdims=keepdims), fn, given, **how)
        center = mean_with(x, axis, keepdims=True, where=where) if mean is None else mean
        deviation = _masked(x - center, where, 0.0)
        left = _count(x, where, axis, keepdims) - ddof
        if fn is np.var:
            result = np.sum(np.square(deviation), axis=axis, keepdims=keepdims) / left
        else:
            result = norm_of(deviation, axis, keepdims) / np.sqrt(left)
        return as_numpy(result, fn, given, mean=mean, **how)

    return spread


extended(np.mean, mean_with)
extended(np.var, spread_with(np.var))
extended(np.std, spread_with(np.std))


def running_with(fn: Callable) -> Callable:
    """Make a running sum or product with NumPy's arguments, in NumPy's order."""

    def running(x: Array, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
        refusals.require_no_out(fn, out)
        result = fn(_of_dtype(x, dtype), axis=axis)
        return as_numpy(result, fn, x, axis=axis, dtype=dtype)

    return running


def _trace(
    x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: None = None
) -> Any:
    refusals.require_no_out(np.trace, out)
    result = np.trace(_of_dtype(x, dtype), offset, axis1, axis2)
    return as_numpy(result, np.trace, x, offset, axis1, axis2, dtype)


extended(np.trace, _trace)
extended(np.linalg.trace, lambda x, *, offset=0, dtype=None: _trace(x, offset, -2, -1, dtype))
extended(np.cumsum, running_with(np.cumsum))
extended(np.cumprod, running_with(np.cumprod))


@composed(np.bincount, anywhere=True)
def _bincount(x: Array, weights: Array, minlength: int = 0) -> Any:
    weights = operand(weights)
    if not hasattr(x, "dtype"):  # an empty list would be one of floats
        x = asarray_like(np.asarray(x, None if len(x) else np.int64), weights)
    places = primal_of(x)
    size = np.bincount(places, primal_of(weights), minlength).size
    added = np.expand_dims(astype(weights, np.float64), 0)
    return scatter_add_zeros(added, places.astype(np.int64), (size,))[0]


# --- ufuncs that take numbers apart --------------------------------------------------------------

elementwise(np.conjugate, moves_alike)  # duals are real
composed(np.real)(lambda x: x)  # no copy, as of a real array
zero_derivative(np.imag, np.angle, np.iscomplex, np.spacing)
elementwise(np.nextafter, moves_alike, lambda t, out, x, y: moves_alike(t, out) * 0.0)
composed(np.divmod)(lambda x, y: (np.floor_divide(x, y), np.remainder(x, y)))
# NumPy gives an infinity the fractional part 0.
composed(np.modf)(
    lambda x: (np.where(np.isinf(x), np.copysign(0.0, x), np.fmod(x, 1.0)), np.trunc(x))
)
rule(
    np.ldexp,
    lambda t, out, x, n: linear.align(t, out.ndim) * np.ldexp(np.ones_like(primal_of(x)), n),
    None,
)


@composed(np.frexp)
def _frexp(x: Array) -> tuple:
    _, exponent = np.frexp(primal_of(x))
    return np.ldexp(x, -exponent), exponent
