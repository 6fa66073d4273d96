"""Keywords of reductions, methods of ufuncs, and ufuncs that take numbers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import MASK, Row, adder, constant, distinct, far_apart, uniform

ROWS: list[Row] = []
row = adder(ROWS, "reductions", jax=True)

_C = np.array([0.5, 2.0, -1.5])
_fn: Any
_f: Callable


def _in(xp: Any, fn: Any) -> Any:
    """Find the function of NumPy's in another namespace."""
    return getattr(xp, fn.__name__)


# --- keywords ------------------------------------------------------------------------------------

for _fn in (np.sum, np.prod, np.mean, np.var, np.std):
    for _note, _how in {
        "where": {"where": MASK[::-1], "axis": 1},
        "where, all axes, keepdims": {"where": MASK, "keepdims": True},
    }.items():
        if (_fn, _note) != (np.std, "where"):  # of one entry it is 0, a kink
            row(_fn, _note, lambda xp, x, f=_fn, how=_how: _in(xp, f)(x, **how), distinct(2, 3))
    row(_fn, "dtype", lambda xp, x, f=_fn: _in(xp, f)(x, 0, dtype=x.dtype), distinct(2, 3))
    row(_fn, "dtype by position", lambda xp, x, f=_fn: _in(xp, f)(x, 1, x.dtype), distinct(2, 3))
for _fn in (np.sum, np.prod, np.max, np.min, np.amax, np.amin):
    row(_fn, "initial", lambda xp, x, f=_fn: _in(xp, f)(x, axis=0, initial=0.25), far_apart(2, 3))
for _fn in (np.max, np.min):
    row(
        _fn,
        "where",
        lambda xp, x, f=_fn: _in(xp, f)(x, axis=1, initial=0.25, where=MASK),
        far_apart(2, 3),
    )
    row(
        _fn,
        "no entries",
        lambda xp, x, f=_fn: _in(xp, f)(x[:0], axis=0, initial=0.25) * x[0],
        (2, 3),
        jax=False,  # its derivative is NaN there
    )
for _fn in (np.cumsum, np.cumprod):
    row(_fn, "dtype", lambda xp, x, f=_fn: _in(xp, f)(x, 1, dtype=x.dtype), uniform(0.5, 1.5, 2, 3))

# --- methods of ufuncs ---------------------------------------------------------------------------

UFUNCS = (
    *(np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.fmax, np.fmin),
    *(np.logaddexp, np.logaddexp2, np.hypot),
)
"""The ufuncs whose methods have rows."""
for _fn in UFUNCS:
    _draw = distinct(3, 3)
    _jax = _fn not in (np.divide, np.fmax, np.fmin, np.hypot)  # these have no methods there
    row(
        _fn.reduce,
        "",
        lambda xp, x, u=_fn: (_in(xp, u).reduce(x), _in(xp, u).reduce(x, 1, keepdims=True)),
        _draw,
        jax=_jax,
    )
    row(_fn.accumulate, "", lambda xp, x, u=_fn: _in(xp, u).accumulate(x, axis=1), _draw, jax=_jax)
    row(_fn.reduceat, "", lambda xp, x, u=_fn: u.reduceat(x, [0, 2, 1], axis=1), _draw, jax=False)
    row(
        _fn.outer,
        "",
        lambda xp, x, u=_fn: _in(xp, u).outer(x, constant(_C, x).astype(x.dtype) / 8),
        _draw,
        jax=_jax,
    )
row(np.add.reduce, "all axes", lambda xp, x: xp.add.reduce(x, axis=None), (2, 3))
row(np.add.reduce, "where", lambda xp, x: xp.add.reduce(x, where=MASK, initial=1.0), (2, 3))
row(np.multiply.outer, "two", lambda xp, x, y: xp.multiply.outer(x, y), (2, 2), (3,))


def _added(ufunc: Any) -> Callable:
    def f(xp: Any, x: Any, v: Any) -> Any:
        y = x * 1.0
        ufunc.at(y, ([0, 1, 0], [2, 2, 2]), v)
        ufunc.at(y, (slice(None), 1), 0.5)
        return y

    return f


for _fn in (np.add, np.subtract):
    row(_fn.at, "", _added(_fn), (2, 3), (3,), jax=False)
row(
    np.bincount,
    "",
    lambda xp, v: np.bincount(constant(np.array([0, 3, 3]), v), v.astype(np.float64)),
    (3,),
    jax=False,
)
row(
    np.bincount,
    "minlength",
    lambda xp, v: np.bincount(constant(np.array([2, 0, 2]), v), v, 5),
    (3,),
    jax=False,
)

# --- ufuncs that take numbers apart --------------------------------------------------------------

row = adder(ROWS, "elementwise", jax=True)
_draw = uniform(0.1, 0.9, 2, 3)
row(np.conjugate, "", lambda xp, x: (xp.conj(x), x.conj(), x.conjugate()), (2, 3))
row(np.divmod, "", lambda xp, x: (xp.divmod(x, 2.0)[1], divmod(3.0, x + 1.6)[1]), _draw)
row(np.modf, "", lambda xp, x: xp.modf(x + 2.0)[0], _draw)
row(np.ldexp, "", lambda xp, x: xp.ldexp(x, constant(np.array([1, -2, 0]), x)), (2, 3))
row(np.frexp, "", lambda xp, x: xp.frexp(x * 0.7 + 4.1)[0], _draw)
row(np.nextafter, "", lambda xp, x: np.nextafter(x, x - 1), (2, 3), jax=False)
