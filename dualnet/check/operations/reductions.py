"""Reductions, running sums and norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet.check.table import Row, adder, distinct, far_apart, given, named, uniform
from dualnet.core.tables.reductions import cumprod_of_rows

ROWS: list[Row] = []
row = adder(ROWS, "reductions", jax=True)

_fn: Callable

# --- reductions ----------------------------------------------------------------------------------

_AXES: tuple = (None, 0, 1, -1, (0, 2), (-1, 0), ())
for _fn, _draw, _exact in (
    (np.sum, uniform(0.5, 2, 2, 3, 4), True),
    (np.mean, uniform(0.5, 2, 2, 3, 4), True),
    (np.var, uniform(-2, 2, 2, 3, 4), True),
    (np.std, distinct(2, 3, 4), False),
    (np.prod, uniform(0.7, 1.4, 2, 3, 2), False),
    (np.max, far_apart(2, 3, 4), True),
    (np.min, far_apart(2, 3, 4), True),
    (np.amax, far_apart(2, 3, 4), True),
    (np.amin, far_apart(2, 3, 4), True),
):
    for _axis in _AXES:
        if _axis == () and _fn is np.std:
            continue  # the deviation of a single number is 0, where it has no derivative
        for _keepdims in (False, True):
            row(
                _fn,
                f"axis={_axis}{', keepdims' if _keepdims else ''}",
                lambda xp, x, fn=_fn, axis=_axis, keepdims=_keepdims: getattr(xp, fn.__name__)(
                    x, axis=axis, keepdims=keepdims
                ),
                _draw,
                exact=_exact,
            )
    row(
        _fn,
        "axis by position",
        lambda xp, x, fn=_fn: getattr(xp, fn.__name__)(x, 1),
        _draw,
        exact=_exact,
    )
row(np.sum, "0-d", named(np.sum), (), exact=True)
for _fn in (np.var, np.std):
    for _name in ("ddof", "correction"):
        row(
            _fn,
            _name,
            lambda xp, x, fn=_fn, name=_name: getattr(xp, fn.__name__)(x, axis=0, **{name: 1}),
            distinct(3, 2),
            exact=_fn is np.var,
        )
row(np.prod, "a zero", lambda xp, x: xp.prod(x, axis=1), given([[0, 2, 3], [1, 2, -3]]))
row(
    np.prod, "two zeros", lambda xp, x: xp.prod(x, axis=1), given([[0, 2, 0], [0, 0, 0], [1, 2, 3]])
)

for _fn in (np.cumsum, np.cumprod):
    for _axis in (None, 0, 1, -1):
        row(
            _fn,
            f"axis={_axis}",
            lambda xp, x, fn=_fn, axis=_axis: getattr(xp, fn.__name__)(x, axis=axis),
            uniform(0.5, 1.5, 2, 3, 2),
            exact=_fn is np.cumsum,
        )
for _axis in (None, 0, -1):
    row(
        np.cumprod,
        f"zeros, axis={_axis}",
        lambda xp, x, axis=_axis: xp.cumprod(x, axis=axis),
        given([[1, 0, 3, 2], [0, 2, 0, 3], [1.5, 2, 1, -1]]),
    )
row(cumprod_of_rows, "", lambda xp, x: xp.cumprod(x, axis=-1), uniform(0.5, 1.5, 2, 3))
