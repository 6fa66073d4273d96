"""Functions that change the shape or the order of entries, join or cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import MASK, SINCE_2_1, Row, adder, constant, far_apart, named

ROWS: list[Row] = []
row = adder(ROWS, "shaping", jax=True)

_fn: Callable
_f: Callable
_axis: Any

# --- the same entries in another shape -----------------------------------------------------------

for _note, _f in {
    "": lambda xp, x: xp.reshape(x, (3, 4)),
    "-1": lambda xp, x: xp.reshape(x, (2, -1)),
    "to one axis": lambda xp, x: xp.reshape(x, -1),
    **({"shape=": lambda xp, x: xp.reshape(x, shape=(4, 3))} if SINCE_2_1 else {}),
}.items():
    row(np.reshape, _note, _f, (2, 3, 2), exact=True)
for _axis in (0, -1, 1, (0, 2)):
    row(
        np.expand_dims,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.expand_dims(x, axis),
        (2, 3),
        exact=True,
    )
for _axis in (None, 0, -1, (0, -1)):
    row(
        np.squeeze,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.squeeze(x, axis=axis),
        (1, 3, 2, 1),
        exact=True,
    )
for _fn in (np.ravel, np.copy, np.real):
    row(_fn, "", named(_fn), (2, 3), exact=True)
for _fn in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    for _s in ((), (3,), (2, 3), (2, 3, 2)):
        row(_fn, f"{_s}", named(_fn), _s, exact=True)
    row(
        _fn,
        "of several",
        lambda xp, *xs, fn=_fn: list(getattr(xp, fn.__name__)(*xs)),
        (),
        (3,),
        exact=True,
    )
row(np.broadcast_to, "", lambda xp, x: xp.broadcast_to(x, (2, 3)), (3,), exact=True)
row(np.broadcast_to, "unit axes", lambda xp, x: xp.broadcast_to(x, (3, 2, 3)), (2, 1), exact=True)
row(np.broadcast_to, "rank 0", lambda xp, x: xp.broadcast_to(x, (2, 3)), (), exact=True)
row(
    np.broadcast_arrays,
    "",
    lambda xp, x, y: list(xp.broadcast_arrays(x, y)),
    (2, 1),
    (3,),
    exact=True,
)
row(np.full_like, "", lambda xp, x, v: xp.full_like(x, v), (2, 3), (), exact=True)
row(np.full_like, "stretched", lambda xp, x, v: xp.full_like(x, v), (2, 3), (3,), exact=True)
row(np.full_like, "of one number", lambda xp, x: x + xp.full_like(x, 0.5), (2, 3), exact=True)

# --- axes in another order -----------------------------------------------------------------------

row(np.transpose, "", named(np.transpose), (2, 3, 4), exact=True)
for _axes in ((1, 2, 0), (-1, 0, -2)):
    row(
        np.transpose,
        f"axes={_axes}",
        lambda xp, x, axes=_axes: xp.transpose(x, axes),
        (2, 3, 4),
        exact=True,
    )
row(np.swapaxes, "", lambda xp, x: xp.swapaxes(x, 0, -1), (2, 3, 4), exact=True)
row(np.matrix_transpose, "", named(np.matrix_transpose), (2, 3, 4), exact=True)
row(
    np.linalg.matrix_transpose,
    "",
    lambda xp, x: xp.linalg.matrix_transpose(x),
    (2, 3),
    exact=True,
)
row(np.moveaxis, "", lambda xp, x: xp.moveaxis(x, 0, -1), (2, 3, 4), exact=True)
row(np.moveaxis, "several", lambda xp, x: xp.moveaxis(x, (0, -1), (1, 0)), (2, 3, 4), exact=True)

# --- entries in another order, some repeated or left out -----------------------------------------


def _counts(xp: Any) -> Any:
    """A list, as CuPy takes no array here; but an array for JAX, which takes no list."""
    return [1, 0, 3] if xp is np else np.array([1, 0, 3])


for _fn, _note, _f in (
    (np.flip, "", lambda xp, x: xp.flip(x)),
    (np.flip, "axis", lambda xp, x: xp.flip(x, 0)),
    (np.flip, "axes", lambda xp, x: xp.flip(x, (0, -1))),
    (np.fliplr, "", lambda xp, x: xp.fliplr(x)),
    (np.flipud, "", lambda xp, x: xp.flipud(x)),
    (np.rot90, "", lambda xp, x: xp.rot90(x)),
    (np.rot90, "k=2", lambda xp, x: xp.rot90(x, 2)),
    (np.rot90, "k=-1, axes", lambda xp, x: xp.rot90(x, -1, axes=(1, 0))),
    (np.roll, "", lambda xp, x: xp.roll(x, 2)),
    (np.roll, "axis", lambda xp, x: xp.roll(x, -1, axis=1)),
    (np.roll, "axes", lambda xp, x: xp.roll(x, (1, 2), axis=(0, 1))),
    (np.tile, "", lambda xp, x: xp.tile(x, 2)),
    (np.tile, "axes", lambda xp, x: xp.tile(x, (2, 1))),
    (np.tile, "new axis", lambda xp, x: xp.tile(x, (2, 1, 2))),
    (np.repeat, "", lambda xp, x: xp.repeat(x, 2)),
    (np.repeat, "axis", lambda xp, x: xp.repeat(x, 2, axis=0)),
    (np.repeat, "counts", lambda xp, x: xp.repeat(x, _counts(xp), axis=-1)),
):
    row(_fn, _note, _f, (2, 3), exact=True)
row(np.rot90, "rank 3", lambda xp, x: xp.rot90(x, axes=(1, 2)), (2, 3, 3), exact=True)

row(np.sort, "", lambda xp, x: xp.sort(x), far_apart(2, 3), exact=True)
row(np.sort, "axis=0", lambda xp, x: xp.sort(x, axis=0), far_apart(3, 2), exact=True)
row(np.sort, "axis=None", lambda xp, x: xp.sort(x, axis=None), far_apart(2, 3), exact=True)
row(np.sort, "stable", lambda xp, x: xp.sort(x, stable=True), far_apart(4), exact=True)

for _note, _f in {
    "": lambda xp, x: xp.pad(x, 1),
    "pair": lambda xp, x: xp.pad(x, (1, 2)),
    "pairs": lambda xp, x: xp.pad(x, ((0, 1), (2, 0))),
    "of one number": lambda xp, x: xp.pad(x, 1, constant_values=3.0),
    "edge": lambda xp, x: xp.pad(x, 1, mode="edge"),
    "reflect": lambda xp, x: xp.pad(x, 1, mode="reflect"),
    "symmetric": lambda xp, x: xp.pad(x, ((1, 0), (2, 1)), mode="symmetric"),
    "wrap": lambda xp, x: xp.pad(x, ((0, 2), (1, 1)), mode="wrap"),
}.items():
    row(np.pad, _note, _f, (2, 3), exact=True)

# --- joining and cutting -------------------------------------------------------------------------

for _fn, _note, _f, *_shapes in (
    (np.concatenate, "", lambda xp, x, y: xp.concatenate([x, y]), (2, 3), (1, 3)),
    (np.concatenate, "axis", lambda xp, x, y: xp.concatenate((x, y), axis=-1), (2, 1), (2, 3)),
    (np.concatenate, "flat", lambda xp, x, y: xp.concatenate([x, y], None), (2, 2), (3,)),
    (np.concatenate, "same twice", lambda xp, x: xp.concatenate([x, x], 1), (2, 3)),
    (np.concatenate, "of one array", lambda xp, x: xp.concatenate(x), (2, 3)),
    (
        np.concatenate,
        "constants",
        lambda xp, x: xp.concatenate([constant(MASK * 2.0, x), x], 0),
        (2, 3),
    ),
    (np.stack, "", lambda xp, x, y: xp.stack([x, y]), (2, 3), (2, 3)),
    (np.stack, "axis", lambda xp, x, y: xp.stack([x, y], axis=-1), (2, 3), (2, 3)),
    (np.stack, "numbers", lambda xp, x, y: xp.stack([x, y]), (), ()),
    (np.vstack, "", lambda xp, x, y: xp.vstack([x, y]), (3,), (2, 3)),
    (np.hstack, "", lambda xp, x, y: xp.hstack([x, y]), (2, 1), (2, 3)),
    (np.hstack, "rank 1", lambda xp, x, y: xp.hstack([x, y]), (2,), (3,)),
    (np.dstack, "", lambda xp, x, y: xp.dstack([x, y]), (2, 3), (2, 3)),
    (np.column_stack, "", lambda xp, x, y: xp.column_stack([x, y]), (2,), (2, 3)),
    (np.append, "", lambda xp, x, y: xp.append(x, y), (2, 3), (2,)),
    (np.append, "axis", lambda xp, x, y: xp.append(x, y, axis=0), (2, 3), (1, 3)),
    (np.append, "number", lambda xp, x: xp.append(x, 3.0), (2,)),
    (np.append, "number to a matrix", lambda xp, x: xp.append(x, 3.0), (2, 2)),
    (np.split, "", lambda xp, x: xp.split(x, 2), (4, 3)),
    (np.split, "places", lambda xp, x: xp.split(x, [1, 3], axis=1), (2, 4)),
    (np.split, "axis", lambda xp, x: xp.split(x, 3, axis=-1), (2, 3)),
    (np.array_split, "", lambda xp, x: xp.array_split(x, 2), (3, 2)),
    (np.array_split, "places", lambda xp, x: xp.array_split(x, [1, 1], axis=1), (2, 3)),
    (np.vsplit, "", lambda xp, x: xp.vsplit(x, 2), (2, 3)),
    (np.hsplit, "", lambda xp, x: xp.hsplit(x, [1]), (2, 3)),
    (np.hsplit, "rank 1", lambda xp, x: xp.hsplit(x, 2), (4,)),
    (np.dsplit, "", lambda xp, x: xp.dsplit(x, 2), (2, 3, 2)),
    (np.diff, "", lambda xp, x: xp.diff(x), (2, 4)),
    (np.diff, "n=2", lambda xp, x: xp.diff(x, n=2, axis=0), (4, 2)),
    (np.diff, "n=0", lambda xp, x: xp.diff(x, 0), (3,)),
):
    row(_fn, _note, _f, *_shapes, exact=True)
