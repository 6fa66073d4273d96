"""Elementwise functions: a table of derivatives.

Each row gives, for every argument, the linear map `(t, out, *primals)`, where t has the rank of the
result.  The conventions at kinks stand where they apply.  The factors are written so that they do
not overflow where the function does not, and do not widen the dtype (Python floats are weak in
NumPy 2).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dualnet.core import aliasing, linear, refusals
from dualnet.core.arrays import operand
from dualnet.core.dual import Dual, astype, primal_of, primitive
from dualnet.core.engine import (
    composed,
    elementwise,
    linearizer,
    moves_alike,
    rule,
    zero_derivative,
)
from dualnet.core.half import in_single
from dualnet.core.tables import linear_maps
from dualnet.core.tables.kinks import apart, bends
from dualnet.types import Array, Tangent

_LN2 = math.log(2.0)
_LN10 = math.log(10.0)

# --- arithmetic ---

elementwise(np.positive, moves_alike)
elementwise(np.negative, lambda t, out, x: -t)
elementwise(np.add, moves_alike, moves_alike)
elementwise(np.subtract, moves_alike, lambda t, out, x, y: -moves_alike(t, out))
elementwise(np.multiply, lambda t, out, x, y: t * y, lambda t, out, x, y: t * x)
elementwise(np.divide, lambda t, out, x, y: t / y, lambda t, out, x, y: t * (-out / y))
elementwise(np.reciprocal, lambda t, out, x: t * out * -out)
elementwise(np.square, lambda t, out, x: t * (2.0 * x))
elementwise(np.sqrt, lambda t, out, x: t * (0.5 / out))
elementwise(np.cbrt, lambda t, out, x: t / (3.0 * np.square(out)))


def _cosine(x: Array, y: Array, length: Array) -> Array:
    """Return x / length for the length of (x, y): 0 at the kink at 0, ±1 where x is infinite."""
    infinite = np.isinf(x)
    plain = np.logical_or(infinite, np.equal(length, 0))
    signed = np.where(infinite, np.copysign(1.0, primal_of(x)), x)  # a boolean has no np.sign
    return signed / np.where(plain, 1, length)


elementwise(
    np.hypot,
    lambda t, out, x, y: t * _cosine(x, y, out),
    lambda t, out, x, y: t * _cosine(y, x, out),
)


@partial(bends, np.hypot)
def _at_origin(out: Array, x: Array, y: Array) -> tuple:
    movement = np.stack(np.broadcast_arrays(x, y), -1)
    return movement, np.equal(out, 0)[..., None], (-1,)


def _power_by_base(t: Tangent, out: Array, x: Array, y: Array) -> Tangent:
    # The slope is y · x^(y-1); it is taken as 0 at x = y = 0, where x^(y-1) is infinite.
    if isinstance(y, (int, float)):  # a Python number is weak: float32 ** 2 stays float32
        return t * (y * np.power(x, y - 1)) if y else t * 0.0
    if np.issubdtype(y.dtype, np.integer):  # in an unsigned exponent 0 - 1 would wrap
        return t * (y * np.power(x, np.where(np.equal(y, 0), 1, y - 1)))
    both_zero = np.logical_and(np.equal(x, 0), np.equal(y, 0))
    return t * (y * np.power(x, np.where(both_zero, 1, y - 1)))


def _power_by_exponent(t: Tangent, out: Array, x: Array, y: Array) -> Tangent:
    # The slope is ln(x) · x^y; where x^y is 0 it is taken as 0, its limit at x = 0 and x = inf.
    if isinstance(x, (int, float)):
        return t * (out * float(np.log(x if 0 < abs(x) < math.inf else 1)))
    vanishes = np.logical_or(np.equal(x, 0), np.logical_and(np.equal(out, 0), np.isinf(x)))
    return t * (out * np.log(np.where(vanishes, 1, x)))


elementwise(np.power, _power_by_base, _power_by_exponent)
elementwise(np.float_power, _power_by_base, _power_by_exponent)
# Arrays compute x ** 2 and some others by other functions than np.power, such as np.square.
elementwise(operator.pow, _power_by_base, _power_by_exponent)

# These are x - floor(x/y)·y and its variant that truncates; their quotients are locally constant.
elementwise(np.remainder, moves_alike, lambda t, out, x, y: t * -np.floor_divide(x, y))
elementwise(np.fmod, moves_alike, lambda t, out, x, y: t * -np.trunc(x / y))

# --- exponentials and logarithms ---

elementwise(np.exp, lambda t, out, x: t * out)
elementwise(np.exp2, lambda t, out, x: t * (out * _LN2))
elementwise(np.expm1, lambda t, out, x: t * np.exp(x))  # out + 1 is lost near -1
elementwise(np.log, lambda t, out, x: t / x)
elementwise(np.log2, lambda t, out, x: t / (x * _LN2))
elementwise(np.log10, lambda t, out, x: t / x * (1.0 / _LN10))
elementwise(np.log1p, lambda t, out, x: t / (x + 1.0))


def _shares(exp: Callable, log_add: Callable) -> tuple:
    def share(x: Array, y: Array) -> Array:
        # The softmax weight of x beside y, by their difference: the result, which x could also be
        # compared with, is rounded.  Two equal infinities share equally.
        alike = np.logical_and(np.equal(x, y), np.isinf(x))
        difference = np.where(alike, 0, y) - np.where(alike, 0, x)
        return exp(-log_add(0.0, difference))

    return lambda t, out, x, y: t * share(x, y), lambda t, out, x, y: t * share(y, x)


elementwise(np.logaddexp, *_shares(np.exp, np.logaddexp))
elementwise(np.logaddexp2, *_shares(np.exp2, np.logaddexp2))

# --- trigonometric and hyperbolic ---

elementwise(np.sin, lambda t, out, x: t * np.cos(x))
elementwise(np.cos, lambda t, out, x: t * -np.sin(x))
elementwise(np.tan, lambda t, out, x: t * (1.0 + np.square(out)))
elementwise(np.arcsin, lambda t, out, x: t / np.sqrt((1.0 - x) * (1.0 + x)))
elementwise(np.arccos, lambda t, out, x: t / -np.sqrt((1.0 - x) * (1.0 + x)))


def _arctan(t: Tangent, out: Array, x: Array) -> Tangent:
    length = np.hypot(x, 1.0)  # its square could overflow
    return t / length / length


def _arctan2_by_y(t: Tangent, out: Array, y: Array, x: Array) -> Tangent:
    length = np.hypot(x, y)
    return t * _cosine(x, y, length) / length


def _arctan2_by_x(t: Tangent, out: Array, y: Array, x: Array) -> Tangent:
    length = np.hypot(x, y)
    return t * -_cosine(y, x, length) / length


elementwise(np.arctan, _arctan)
elementwise(np.arctan2, _arctan2_by_y, _arctan2_by_x)
elementwise(np.sinh, lambda t, out, x: t * np.cosh(x))
elementwise(np.cosh, lambda t, out, x: t * np.sinh(x))
elementwise(np.tanh, lambda t, out, x: t * (1.0 - np.square(out)))  # cosh would overflow
elementwise(np.arcsinh, lambda t, out, x: t / np.hypot(x, 1.0))
elementwise(np.arccosh, lambda t, out, x: t / (np.sqrt(x - 1.0) * np.sqrt(x + 1.0)))
elementwise(np.arctanh, lambda t, out, x: t / ((1.0 - x) * (1.0 + x)))
for _degrees in (np.degrees, np.rad2deg):
    elementwise(_degrees, lambda t, out, x: t * (180.0 / math.pi))
for _radians in (np.radians, np.deg2rad):
    elementwise(_radians, lambda t, out, x: t * (math.pi / 180.0))


@linearizer(np.sinc)
def _sinc(x: Array) -> Any:
    """The slope is (cos(πx) - sinc(x)) / x, or near 0, where that cancels, its Taylor series."""
    result = np.sinc(x)
    x = in_single(x)
    out = np.sinc(x)
    near = np.less(np.absolute(x), 0.03)
    u = np.where(near, math.pi * x, 0)
    u2 = np.square(u)
    series = -math.pi * u * (1 / 3 - u2 * (1 / 30 - u2 * (1 / 840 - u2 / 45360)))
    slope = np.where(near, series, (np.cos(math.pi * x) - out) / np.where(near, 1, x))
    return result, lambda t: t * slope


# --- kinks ---


# The slope of |x| counts as 0 at 0.
elementwise(np.absolute, lambda t, out, x: t * np.sign(x))
elementwise(np.fabs, lambda t, out, x: t * np.sign(x))
elementwise(
    np.copysign,
    lambda t, out, x, y: t * (np.sign(x) * np.copysign(np.ones_like(x), y)),
    lambda t, out, x, y: moves_alike(t, out) * 0.0,
)
for _at_zero in (np.absolute, np.fabs):
    bends(_at_zero, lambda out, x: (x, np.equal(x, 0), ()))


@partial(bends, np.copysign)
def _of_copied_sign(out: Array, x: Array, _sign: Any) -> Any:
    return (apart(x, np.zeros_like(out)), np.equal(out, 0), ()) if isinstance(x, Dual) else None


def _chosen(t: Tangent, mine: Array, out: Array, other: Array) -> Tangent:
    # The argument that was chosen gets the whole tangent; in a tie each gets half.
    tie = np.equal(mine, other)
    return t * (np.where(tie, 0.5, 1.0) * np.equal(mine, out)).astype(out.dtype)


def _at_tie(out: Array, x: Array, y: Array) -> Any:
    """Where one of the two is a constant, as in relu, the second derivative is 0 by convention."""
    if not isinstance(x, Dual) or not isinstance(y, Dual):
        return None
    return apart(x, y), np.equal(x, y), ()


for _choose in (np.maximum, np.minimum, np.fmax, np.fmin):
    elementwise(
        _choose,
        lambda t, out, x, y: _chosen(t, x, out, y),
        lambda t, out, x, y: _chosen(t, y, out, x),
    )
    bends(_choose, _at_tie)


@linearizer(np.clip)
def _clip(x: Array, a_min: Any = ..., a_max: Any = ..., *, min: Any = ..., max: Any = ...) -> Any:
    """Inside the bounds (both included) the tangent of x passes, outside that of the bound hit."""
    if (a_min is ...) != (a_max is ...):
        raise TypeError("np.clip: expected a_min and a_max; write None where there is no bound")
    if a_min is not ... and (min is not ... or max is not ...):
        raise ValueError("np.clip: expected a_min and a_max, or min= and max=, and got both")
    bounds = (min, max) if a_min is ... else (a_min, a_max)
    lower, upper = (None if bound is ... else bound for bound in bounds)
    out = np.clip(x, lower, upper)
    below = False if lower is None else x < lower
    # The lower bound is applied first, so where the bounds cross the upper one is the result.
    above = False if upper is None else (x if lower is None else np.maximum(x, lower)) > upper

    def passes(mask: Any) -> Any:
        return lambda t: linear_maps.select(moves_alike(t, out), mask)

    inside = np.logical_not(np.logical_or(below, above))
    raised = np.logical_and(below, np.logical_not(above))
    return out, (passes(inside), passes(raised), passes(above))


# Only the branch that is taken gets a tangent.  If the other branch is infinite or NaN, its own
# derivative may still be NaN; an inner np.where can give it a harmless argument.
rule(
    np.where,
    None,
    lambda t, out, mask, x, y: linear_maps.select(moves_alike(t, out), operand(mask)),
    lambda t, out, mask, x, y: linear_maps.select(moves_alike(t, out), np.logical_not(mask)),
)


@primitive
def _finite(x: Array, **instead: Any) -> Any:
    return np.nan_to_num(x, **instead)


@linearizer(_finite)
def _(x: Array, **instead: Any) -> Any:
    return _finite(x, **instead), lambda t: linear_maps.select(t, np.isfinite(x))


@composed(np.nan_to_num)
def _nan_to_num(
    x: Array, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    out = _finite(x, nan=nan, posinf=posinf, neginf=neginf)
    return out if copy else aliasing.write(x, out, np.nan_to_num)


@primitive
def _to_float(x: Array, dtype: Any) -> Any:
    return x.astype(dtype)


rule(_to_float, lambda t, out, x, dtype: linear.cast(t, out.dtype))


@composed(astype)
def _astype(x: Array, dtype: Any) -> Any:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return _to_float(x, dtype)
    if kind in "cO":
        raise refusals.no_conversion(np.astype, str(np.dtype(dtype)))
    return primal_of(x).astype(dtype)  # because integers and booleans carry no tangent


@primitive
def valued(x: Array, value: Array) -> Any:
    """Give x, which was composed, the value that NumPy's own function has, to the last bit."""
    return value


rule(valued, lambda t, out, x, value: t, None)

# --- no slope anywhere ---

zero_derivative(
    *(np.sign, np.floor, np.ceil, np.trunc, np.rint, np.round, np.around, np.floor_divide),
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.logical_and, np.logical_or, np.logical_not, np.logical_xor),
    *(np.isfinite, np.isnan, np.isinf, np.signbit),
    *(np.isclose, np.allclose, np.array_equal),
    *(np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.searchsorted),
    *(np.array2string, np.array_repr, np.array_str),
    *(np.any, np.all, np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj),
    *(np.zeros_like, np.ones_like, np.empty_like),
)


@composed(np.heaviside)
def _heaviside(x: Array, y: Array) -> Any:
    """Only y has a slope, at entries where x is 0 and y is the result."""
    value = np.heaviside(primal_of(x), primal_of(y))
    return np.where(np.equal(primal_of(x), 0), y, value) if isinstance(y, Dual) else value
