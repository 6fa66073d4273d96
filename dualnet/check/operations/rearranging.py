"""Choosing, inserting, padding, cutting, and einsum with lists of axes or stretched ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import MASK, Row, adder, far_apart
from dualnet.core.arrays import asarray_like
from dualnet.core.tables.rearranging import pad_by_copies

ROWS: list[Row] = []
row = adder(ROWS, "rearranging", jax=True)

_f: Callable
_draw: Any
try:
    np.pad(np.zeros(1), {0: 1})
    PAD_TAKES_A_DICT = True
except TypeError:  # an older NumPy
    PAD_TAKES_A_DICT = False
_WHICH = np.array([[0, 1, 1], [1, 0, 0]])


def _like(constant: np.ndarray, x: Any) -> Any:
    return asarray_like(constant, x)


# --- choosing and picking ------------------------------------------------------------------------

for _fn, _note, _f, *_shapes in (
    (
        np.select,
        "",
        lambda xp, x, y, d: xp.select([_like(MASK, x), _like(MASK[:1], x)], [x, y], d),
        (2, 3),
        (3,),
        (),
    ),
    (
        np.select,
        "no default",
        lambda xp, x: xp.select([_like(MASK, x)], [x]),
        (2, 3),
    ),
    (
        np.choose,
        "",
        lambda xp, x, y: xp.choose(_like(_WHICH, x), [x, y], mode="clip"),
        (2, 3),
        (3,),
    ),
    (
        np.piecewise,
        "",
        lambda xp, x: xp.piecewise(
            x, [_like(MASK, x), _like(~MASK, x)], [lambda z: 2 * z, lambda z: z * z]
        ),
        (2, 3),
    ),
    (
        np.piecewise,
        "otherwise a number",
        lambda xp, x: xp.piecewise(x, [_like(MASK, x)], [lambda z, c: c * z, 3.0], 2.0),
        (2, 3),
    ),
    (np.compress, "", lambda xp, x: xp.compress(_like(MASK[0], x), x, 1), (2, 3)),
    (np.compress, "flat", lambda xp, x: xp.compress(_like(MASK[0], x), x), (2, 3)),
    (np.extract, "", lambda xp, x: xp.extract(_like(MASK, x), x), (2, 3)),
    (np.resize, "", lambda xp, x: xp.resize(x, (2, 4)), (2, 3)),
    (np.insert, "", lambda xp, x, v: xp.insert(x, 2, v), (2, 3), ()),
    (
        np.insert,
        "axis",
        lambda xp, x, v: xp.insert(x, [0, 2], v, axis=1),
        (2, 3),
        (2, 2),
    ),
    (np.rollaxis, "", lambda xp, x: xp.rollaxis(x, 2), (2, 3, 2)),
    (np.rollaxis, "start", lambda xp, x: xp.rollaxis(x, 0, 2), (2, 3, 2)),
    (np.block, "", lambda xp, x, y: xp.block([[x, y], [y, x]]), (2, 2), (2, 2)),
    (np.block, "of vectors", lambda xp, x, y: xp.block([x, y]), (2,), (3,)),
    (np.block, "of two ranks", lambda xp, x, y: xp.block([[x], [y]]), (2, 3), (3,)),
    (
        np.apply_along_axis,
        "",
        lambda xp, x: xp.apply_along_axis(lambda r: r.sum() * r[:2], 1, x),
        (2, 3),
    ),
    (
        np.apply_along_axis,
        "to numbers",
        lambda xp, x: xp.apply_along_axis(lambda r: (r * r).sum(), 0, x),
        (2, 3),
    ),
    (
        np.apply_over_axes,
        "",
        lambda xp, x: xp.apply_over_axes(xp.sum, x, [0, 2]),
        (2, 3, 2),
    ),
):
    row(_fn, _note, _f, *_shapes, exact=True, jax=_fn is not np.insert)
row(
    np.trim_zeros,
    "",
    lambda xp, x: xp.trim_zeros(x * _like(np.array([0.0, 1, 0, 1, 0]), x)),
    far_apart(5),
    exact=True,
)
row(
    np.trim_zeros,
    "front",
    lambda xp, x: xp.trim_zeros(x * _like(np.array([0.0, 1, 0, 1, 0]), x), "f"),
    far_apart(5),
    exact=True,
)
if hasattr(np, "unstack"):
    row(np.unstack, "", lambda xp, x: list(xp.unstack(x)), (2, 3), exact=True)
    row(np.unstack, "axis", lambda xp, x: list(xp.unstack(x, axis=1)), (2, 3), exact=True)

# --- padding -------------------------------------------------------------------------------------

for _note, _draw, _f in (
    ("a dict", (2, 3), lambda xp, x: xp.pad(x, {1: (1, 2)})),
    ("reflect, odd", (2, 3), lambda xp, x: xp.pad(x, 2, "reflect", reflect_type="odd")),
    ("symmetric, odd", (2, 3), lambda xp, x: xp.pad(x, 3, "symmetric", reflect_type="odd")),
    ("linear_ramp", (2, 3), lambda xp, x: xp.pad(x, 2, "linear_ramp", end_values=(1.0, 2.0))),
    ("mean", (2, 3), lambda xp, x: xp.pad(x, ((1, 0), (2, 1)), "mean")),
    ("mean of some", (2, 3), lambda xp, x: xp.pad(x, 1, "mean", stat_length=2)),
    ("maximum", far_apart(2, 3), lambda xp, x: xp.pad(x, 1, "maximum")),
    ("maximum of some", far_apart(2, 3), lambda xp, x: xp.pad(x, 1, "maximum", stat_length=2)),
    ("minimum", far_apart(2, 3), lambda xp, x: xp.pad(x, ((0, 0), (1, 2)), "minimum")),
):
    if _note != "a dict" or PAD_TAKES_A_DICT:
        row(np.pad, _note, _f, _draw, exact=True, jax=_note != "a dict")
row(
    np.pad,
    "median",
    lambda xp, x: xp.pad(x, ((0, 0), (1, 1)), "median"),
    far_apart(2, 3),
    exact=True,
    jax=False,
)
row(
    np.pad,
    "by the constant",
    lambda xp, x, c: xp.pad(x, 1, constant_values=c),
    (2, 3),
    (),
    exact=True,
)
row(
    pad_by_copies,
    "",
    lambda xp, x: pad_by_copies(x, [(1, 0), (2, 2)], "edge"),
    (2, 3),
    exact=True,
    jax=False,
)

# --- einsum --------------------------------------------------------------------------------------

row = adder(ROWS, "linear algebra", jax=True, exact=True)
row(
    np.einsum,
    "lists of axes",
    lambda xp, x, y: xp.einsum(x, [0, 1], y, [1, 2], [2, 0]),
    (2, 3),
    (3, 2),
)
row(np.einsum, "lists of axes, implicit", lambda xp, x: xp.einsum(x, [3, 1]), (2, 3))
for _spec, _left, _right in (
    ("ij,jk->ik", (2, 1), (3, 2)),
    ("ij,ij->ij", (1, 3), (2, 1)),
    ("...i,...i->...", (1, 2, 3), (2, 1, 3)),
):
    row(
        np.einsum,
        f"stretched, {_spec}",
        lambda xp, x, y, spec=_spec: xp.einsum(spec, x, y),
        _left,
        _right,
        jax=False,
    )
