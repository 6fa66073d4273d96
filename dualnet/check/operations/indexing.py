"""Picking, diagonals, triangles and indexing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet.check.table import MASK, Row, adder
from dualnet.core.arrays import pad_zeros, scatter_add_zeros
from dualnet.core.dual import getitem, put_at

ROWS: list[Row] = []
row = adder(ROWS, "indexing", jax=True)

_fn: Callable

# --- picking, diagonals and triangles ------------------------------------------------------------

for _fn, _note, _f in (
    (np.take, "", lambda xp, x: xp.take(x, np.array([1, 0, 5, 1]))),
    (np.take, "axis", lambda xp, x: xp.take(x, np.array([[1, 0], [1, 1]]), axis=0)),
    (np.take, "negative", lambda xp, x: xp.take(x, np.array([-1, 0]), axis=-1)),
    (np.take, "one", lambda xp, x: xp.take(x, 1, axis=1)),
    (np.take_along_axis, "", lambda xp, x: xp.take_along_axis(x, np.array([[0], [2]]), 1)),
    (np.take_along_axis, "0", lambda xp, x: xp.take_along_axis(x, np.array([[0, 1, 0]]), axis=0)),
    (np.diagonal, "", lambda xp, x: xp.diagonal(x)),
    (np.diagonal, "offset", lambda xp, x: xp.diagonal(x, 1)),
    (np.linalg.diagonal, "", lambda xp, x: xp.linalg.diagonal(x)),
    (np.linalg.diagonal, "offset", lambda xp, x: xp.linalg.diagonal(x, offset=-1)),
    (np.delete, "", lambda xp, x: xp.delete(x, 1)),
    (np.delete, "axis", lambda xp, x: xp.delete(x, np.array([0, 2]), axis=1)),
    (np.diag, "of a matrix", lambda xp, x: xp.diag(x)),
    (np.diag, "of a matrix, k", lambda xp, x: xp.diag(x, k=-1)),
    (np.diagflat, "", lambda xp, x: xp.diagflat(x)),
    (np.diagflat, "k", lambda xp, x: xp.diagflat(x, 1)),
    (np.trace, "", lambda xp, x: xp.trace(x)),
    (np.trace, "offset", lambda xp, x: xp.trace(x, 1)),
    (np.trace, "dtype", lambda xp, x: xp.trace(x, dtype=x.dtype)),
    (np.linalg.trace, "", lambda xp, x: xp.linalg.trace(x)),
    (np.linalg.trace, "offset", lambda xp, x: xp.linalg.trace(x, offset=1)),
    (np.tril, "", lambda xp, x: xp.tril(x)),
    (np.tril, "k", lambda xp, x: xp.tril(x, -1)),
    (np.triu, "", lambda xp, x: xp.triu(x)),
    (np.triu, "k", lambda xp, x: xp.triu(x, k=1)),
):
    row(_fn, _note, _f, (2, 3), exact=True)
for _fn, _note, _f in (
    (np.diagonal, "axes", lambda xp, x: xp.diagonal(x, 0, 2, 0)),
    (np.linalg.diagonal, "rank 3", lambda xp, x: xp.linalg.diagonal(x)),
    (np.trace, "axes", lambda xp, x: xp.trace(x, axis1=-1, axis2=0)),
    (np.linalg.trace, "rank 3", lambda xp, x: xp.linalg.trace(x)),
    (np.tril, "rank 3", lambda xp, x: xp.tril(x)),
    (np.triu, "rank 3", lambda xp, x: xp.triu(x, -1)),
):
    row(_fn, _note, _f, (2, 3, 3), exact=True)
row(np.diag, "of a vector", lambda xp, x: xp.diag(x), (3,), exact=True)
row(np.diag, "of a vector, k", lambda xp, x: xp.diag(x, -1), (3,), exact=True)

# --- indexing ------------------------------------------------------------------------------------

for _note, _key in {
    "an integer": 1,
    "from the end": -1,
    "a NumPy integer": np.int64(1),
    "a slice": slice(1, None),
    "backwards": slice(None, None, -1),
    "every second from the end": (slice(None), slice(None, 0, -2)),
    "integer and slice": (0, slice(0, 2)),
    "integers": (1, 2, 0),
    "ellipsis": (..., 1),
    "ellipsis between": (0, ..., slice(1, None)),
    "new axis": (None, slice(None), None, 1),
    "nothing left": slice(2, 2),
    "a mask": MASK,
    "a mask of one axis": (slice(None), np.array([True, False, True])),
    "a list": [0, 1, 1],
    "an index array": np.array([[0, 1], [1, 1]]),
    "repeated": (slice(None), np.array([2, 2, 2])),
    "negative": np.array([-1, 0]),
    "index arrays": (np.array([0, 1, 1]), np.array([2, 2, 0])),
    "stretched": (np.array([[0], [1]]), np.array([0, 2])),
    "separated": (np.array([0, 1, 1]), slice(None), np.array([0, 1, 1])),
    "separated by an integer": (0, slice(None), np.array([0, 1, 1])),
    "with a new axis": (np.array([0, 1]), None, slice(1, 3)),
    "after an ellipsis": (..., np.array([1, 0, 1])),
}.items():
    row(
        getitem,
        _note,
        lambda xp, x, key=_key: x[np.array(key) if isinstance(key, list) else key],
        (2, 3, 2),
        exact=True,
    )
row(getitem, "a true list", lambda xp, x: x[[0, 1, 1]], (2, 3), exact=True, jax=False)
row(getitem, "True", lambda xp, x: x[True], (3,), exact=True)
row(getitem, "0-d", lambda xp, x: x[()] * x[...], (), exact=True)
for _note, _key, _shape in (
    ("an integer", 1, (3,)),
    ("a slice, stretched", (slice(None), slice(1, None)), (2,)),
    ("a mask", MASK, ()),
    ("a list, repeated", ([0, 1, 0], [2, 2, 2]), (3,)),
):
    row(
        put_at,
        _note,
        lambda xp, x, v, key=_key: put_at(x, key, v),
        (2, 3),
        _shape,
        exact=True,
        jax=False,
    )
row(
    pad_zeros,
    "",
    lambda xp, x: pad_zeros(x, (slice(None), 1), (2, 3)),
    (2,),
    exact=True,
    jax=False,
)
row(
    scatter_add_zeros,
    "",
    lambda xp, x: scatter_add_zeros(x, np.array([[0, 3], [3, 1]]), (2, 3)),
    (2, 2, 2),
    exact=True,
    jax=False,
)
