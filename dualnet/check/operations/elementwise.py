"""Elementwise functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet.check.table import (
    MASK,
    SINCE_2_1,
    Row,
    adder,
    constant,
    distinct,
    far_apart,
    given,
    named,
    uniform,
)
from dualnet.core.dual import astype
from dualnet.core.tables.elementwise import _finite, _to_float

ROWS: list[Row] = []
row = adder(ROWS, "elementwise", jax=True)

_NOT_NUMBERS = np.array([np.nan, np.inf, np.nan])
_NAN_BESIDE = np.array([np.nan, -9.0])

_fn: Callable

# Single numbers are not near 1 where logarithms and sinc are 0, π/2 where the cosine is, or 1.43
# where sinc is flat: the error of a difference does not vanish there.
for _fn, _low, _high in (
    *((fn, -2, 2) for fn in (np.exp, np.exp2, np.expm1, np.sin, np.arctan, np.sinh)),
    *((fn, -2, 2) for fn in (np.cosh, np.tanh, np.arcsinh)),
    *((fn, 0.3, 2) for fn in (np.sqrt, np.cbrt, np.reciprocal)),
    *((fn, 0.3, 0.8) for fn in (np.log, np.log2, np.log10)),
    *((fn, -0.8, 0.8) for fn in (np.arcsin, np.arccos, np.arctanh)),
    *((np.log1p, -0.5, 2), (np.cos, -1.4, 1.4), (np.tan, -1, 1), (np.arccosh, 1.3, 3)),
):
    row(_fn, "", named(_fn), uniform(_low, _high, 2, 3))
    row(_fn, "0-d", named(_fn), uniform(_low, _high))
for _fn in (np.positive, np.negative, np.degrees, np.rad2deg, np.radians, np.deg2rad):
    row(_fn, "", named(_fn), (2, 3), exact=True)
row(np.square, "", named(np.square), (2, 3), exact=True)
row(np.sinc, "", named(np.sinc), uniform(-2, 2, 2, 3))
row(np.sinc, "0-d", named(np.sinc), uniform(0.3, 0.8))
row(np.sinc, "at 0", named(np.sinc), given([0.0, 0.5]))
for _fn in (np.absolute, np.fabs):  # of six entries, the signs of two points often agree
    row(_fn, "", named(_fn), far_apart(4, 6), exact=True)
row(np.nan_to_num, "", named(np.nan_to_num), (2, 3), exact=True)
row(
    np.nan_to_num,
    "NaN and inf inside",
    lambda xp, x: xp.nan_to_num(
        xp.where(constant(MASK, x), x, constant(_NOT_NUMBERS, x)), posinf=2.0, neginf=-2.0
    ),
    (2, 3),
    exact=True,
)
row(np.nan_to_num, "replaced by", lambda xp, x: xp.nan_to_num(x, nan=1.0), (3,), exact=True)

_PAIRS = (
    ("", (2, 3), (2, 3)),
    ("rank 1 and 2", (3,), (2, 3)),
    ("both stretch", (3, 1), (2, 1, 3)),
    ("rank 0", (2, 3), ()),
    ("unit axes", (1, 3), (3, 1)),
)
for _note, _s, _r in _PAIRS:
    for _fn in (np.add, np.subtract, np.multiply):
        row(_fn, _note, named(_fn), _s, _r, exact=True)
    for _fn in (np.logaddexp, np.logaddexp2):
        row(_fn, _note, named(_fn), _s, _r)
    for _fn in (np.divide, np.hypot, np.arctan2):
        row(_fn, _note, named(_fn), distinct(*_s), distinct(*_r))
    for _fn in (np.maximum, np.minimum, np.fmax, np.fmin, np.copysign):
        row(_fn, _note, named(_fn), far_apart(*_s), far_apart(*_r, offset=0.5), exact=True)
    for _fn in (np.power, np.float_power):
        row(_fn, _note, named(_fn), uniform(0.3, 2, *_s), uniform(-2, 2, *_r))
    for _fn in (np.remainder, np.fmod):
        row(_fn, _note, named(_fn), uniform(5, 5.5, *_s), uniform(1.9, 2.1, *_r))
        row(_fn, f"negative {_note}", named(_fn), uniform(-5.5, -5, *_s), uniform(1.9, 2.1, *_r))
row(
    np.fmax,
    "NaN ignored",
    lambda xp, x: xp.fmax(x, constant(_NAN_BESIDE, x)),
    (3, 2),
    jax=False,
)

row(
    np.heaviside,
    "by the value at 0",
    lambda xp, y: xp.heaviside(constant(np.array([-1.0, 0.0, 2.0]), y), y),
    (2, 3),
    exact=True,
)
row(np.heaviside, "without a slope", lambda xp, x: x + xp.heaviside(x, 0.5), far_apart(2, 3))
row(
    np.power,
    "exponent, of small integers",  # their logarithms would be float16
    lambda xp, y: xp.power(constant(np.array([2, 3, 1], np.int8), y), y),
    (2, 3),
)

for _y in (2, 3, 1, 0, -2, 2.0, 0.5, -1.5):
    row(np.power, f"exponent {_y!r}", lambda xp, x, y=_y: xp.power(x, y), uniform(0.3, 2, 2, 3))
row(np.power, "negative base", lambda xp, x: xp.power(x, 3), distinct(2, 3))
row(np.power, "base 0", lambda xp, x: xp.power(x, 2), given([0.0, 1.0, -1.0]))
row(
    np.power,
    "exponents of an integer array",
    lambda xp, x: xp.power(x, constant(np.array([0, 1, 2]), x)),
    distinct(2, 3),
)
row(np.power, "exponent, of 2", lambda xp, y: xp.power(2, y), (2, 3))
row(np.power, "exponent, of 0.5", lambda xp, y: xp.power(0.5, y), (2, 3))
row(
    np.power,
    "exponent, of an array",
    lambda xp, y: xp.power(constant(np.array([[0.5], [2.0]]), y), y),
    (2, 3),
)
row(np.power, "exponents at 0", named(np.power), uniform(0.5, 2, 3), given([0.0, 1.0, 2.0]))
row(np.float_power, "exponent 3", lambda xp, x: xp.float_power(x, 3), distinct(2, 3))

for _note, _f in {
    "": lambda xp, x: xp.clip(x, -125, 75),
    "no lower bound": lambda xp, x: xp.clip(x, None, 75.0),
    "no upper bound": lambda xp, x: xp.clip(x, -125.0, None),
    **(
        {
            "min and max": lambda xp, x: xp.clip(x, min=-125, max=75),
            "max": lambda xp, x: xp.clip(x, max=75.0),
        }
        if SINCE_2_1
        else {}
    ),
}.items():
    row(np.clip, _note, _f, far_apart(2, 3), exact=True)
row(
    np.clip,
    "a_min and a_max",
    lambda xp, x: xp.clip(x, a_min=-125, a_max=75),
    far_apart(2, 3),
    exact=True,
    jax=False,
)
row(
    np.clip,
    "array bounds",
    lambda xp, x, lower, upper: xp.clip(x, lower, upper),
    far_apart(2, 3),
    uniform(-126, -124, 3),
    uniform(124, 126, 2, 1),
    exact=True,
)
row(
    np.clip,
    "bounds of higher rank",
    lambda xp, x, lower: xp.clip(x, lower, 900.0),
    far_apart(3),
    far_apart(2, 1, offset=0.5),
    exact=True,
)

row(np.where, "", lambda xp, x, y: xp.where(constant(MASK, x), x, y), (2, 3), (2, 3), exact=True)
row(
    np.where,
    "stretched",
    lambda xp, x, y: xp.where(constant(MASK, x), x, y),
    (3,),
    (2, 1),
    exact=True,
)
row(
    np.where,
    "mask stretched",
    lambda xp, x, y: xp.where(constant(MASK[0], x), x, y),
    (2, 3),
    (),
    exact=True,
)
row(np.where, "one number", lambda xp, x: xp.where(constant(MASK, x), x, 0.5), (3,), exact=True)
row(
    np.where,
    "by its own value",
    lambda xp, x: xp.where(x > 0, x, 0.1 * x),
    far_apart(2, 3),
    exact=True,
)
row(
    np.where,
    "other branch infinite",
    lambda xp, x: xp.where(constant(MASK, x), xp.log(xp.where(constant(MASK, x), x, 1)), 0.0),
    uniform(0.5, 2, 2, 3),
)
row(astype, "", lambda xp, x: x.astype(np.float64), (2, 3), exact=True)
row(_finite, "", lambda xp, x: _finite(x, nan=0.0), (2, 3), exact=True, jax=False)
row(_to_float, "", lambda xp, x: _to_float(x, np.float64), (2, 3), exact=True, jax=False)
row(np.astype, "", lambda xp, x: xp.astype(x, np.float64), (2, 3), exact=True)
