"""Evenly spaced numbers, and updates at an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import MASK, Row, adder, uniform
from dualnet.core.arrays import asarray_like
from dualnet.core.tables.ranges import _even_points, _geometric_points
from dualnet.numpy import add_at, put_at

ROWS: list[Row] = []

# --- evenly spaced numbers -----------------------------------------------------------------------

row = adder(ROWS, "ranges", jax=True)
for _note, _f, _shapes in (
    ("", lambda xp, a, b: xp.linspace(a, b, 4), ((), ())),
    ("endpoint", lambda xp, a, b: xp.linspace(a, b, 4, endpoint=False), ((), ())),
    ("one bound", lambda xp, b: xp.linspace(1.0, b, 3), ((),)),
    ("arrays", lambda xp, a, b: xp.linspace(a, b, 3), ((2, 1), (3,))),
    ("axis", lambda xp, a, b: xp.linspace(a, b, 3, axis=-1), ((2,), ())),
    ("retstep", lambda xp, a, b: xp.linspace(a, b, 3, True, True), ((2,), (2,))),
    ("one point", lambda xp, a, b: xp.linspace(a, b, 1), ((2,), (2,))),
):
    row(np.linspace, _note, _f, *_shapes, exact=True)
row(np.logspace, "", lambda xp, a, b: xp.logspace(a, b, 3), (), ())
row(np.logspace, "axis", lambda xp, a, b: xp.logspace(a, b, 3, axis=-1, base=2.0), (2,), ())
_ends = (uniform(0.5, 2, 2), uniform(2, 4, 2))
row(np.geomspace, "", lambda xp, a, b: xp.geomspace(a, b, 4), uniform(1, 2), uniform(2, 4))
row(np.geomspace, "axis", lambda xp, a, b: xp.geomspace(a, b, 3, axis=-1), *_ends)
row(np.geomspace, "negative", lambda xp, a, b: xp.geomspace(-a, -b, 3, endpoint=False), *_ends)
row(_even_points, "", lambda _xp, a, b: _even_points(a, b, 3, True, 0), (2,), (2,), jax=False)
row(
    _geometric_points,
    "",
    lambda _xp, a, b: _geometric_points(a, b, 3, True, 0),
    *_ends,
    jax=False,
)

# --- updates at an index -------------------------------------------------------------------------

row = adder(ROWS, "indexing", exact=True)
_update: Callable
_key: Any
for _update in (put_at, add_at):
    for _note, _key, _shape in (
        ("an integer", 1, (3,)),
        ("a slice", (slice(None), slice(None, None, -2)), (2, 2)),
        ("stretched", (..., 0), ()),
        ("repeated", ([0, 1, 0, 0], [2, 1, 2, 0]), (4,)),
        ("a mask", MASK, (3,)),
    ):
        row(
            f"dn.numpy.{_update.__name__}",
            _note,
            lambda _xp, x, value, update=_update, key=_key: update(
                x, asarray_like(key, x) if key is MASK else key, value
            ),
            (2, 3),
            _shape,
        )
    row(
        f"dn.numpy.{_update.__name__}",
        "a plain array",
        lambda _xp, value, update=_update: update(np.zeros_like(value, shape=(2, 3)), 0, value),
        (3,),
    )
