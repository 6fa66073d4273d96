"""Indexing, diagonals and triangles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like, as_array, asarray_like, pad_zeros, scatter_add_zeros
from dualnet.core.dual import getitem, primal_of
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.tables import linear_maps
from dualnet.core.tables.shaping import positions_of


def _is_basic(key: tuple) -> bool:
    """Integers, slices, None and Ellipsis: NumPy makes a view."""
    return all(
        item is None
        or item is Ellipsis
        or isinstance(item, (slice, np.integer))
        or (isinstance(item, int) and not isinstance(item, bool))
        for item in key
    )


@linearizer(getitem)
def _getitem(x: Any, key: Any) -> Any:
    """x[key] for every kind of index that NumPy knows."""
    out = getitem(x, key)
    as_tuple = key if isinstance(key, tuple) else (key,)
    if _is_basic(as_tuple):
        return out, lambda t: linear_maps.index(t, as_tuple)
    # Index arrays apart from one another send their axes to the front, which would be before
    # k; going by positions spares the tangents that special case.
    positions = as_array(positions_of(x)[key])
    return out, lambda t: linear_maps.gather(t, positions)


def _zeros_with(t: Any, out: Any, x: Any, key: tuple, shape: tuple) -> Any:
    return linear_maps.place(t, key, out.shape)


def _zeros_plus(t: Any, out: Any, x: Any, positions: Any, shape: tuple) -> Any:
    # x is itself a stack: entry i of it goes into part i of out
    starts = arange_like(x.shape[0], x) * math.prod(shape)
    starts = np.reshape(starts, (-1, *(1,) * positions.ndim))
    return linear_maps.scatter_add(t, starts + asarray_like(positions, x), out.shape)


# what the transposes of `index` and `gather` are made of, for derivatives of derivatives
rule(pad_zeros, _zeros_with)
rule(scatter_add_zeros, _zeros_plus)


@linearizer(np.diag)
def _diag(x: Any, k: int = 0) -> Any:
    out = np.diag(x, k)
    if x.ndim == 2:
        positions = np.diag(positions_of(x), k)
        return out, lambda t: linear_maps.gather(t, positions)
    positions = np.diag(positions_of(out), k)
    return out, lambda t: linear_maps.scatter_add(t, positions, out.shape)


@composed(np.diagflat)
def _diagflat(x: Any, k: int = 0) -> Any:
    return np.diag(np.ravel(x), k)


def _trace(t: Any, out: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    positions = np.diagonal(positions_of(x), offset, axis1, axis2)
    return linear.sum(linear_maps.gather(t, positions), (-1,))


rule(np.trace, _trace)
rule(np.linalg.trace, lambda t, out, x, *, offset=0: _trace(t, out, x, offset, -2, -1))


def _all_true(x: Any) -> Any:
    return np.ones_like(primal_of(x), bool, shape=x.shape[-2:])


def _tril(t: Any, out: Any, x: Any, k: int = 0) -> Any:
    return linear_maps.select(t, np.tril(_all_true(x), k))


def _triu(t: Any, out: Any, x: Any, k: int = 0) -> Any:
    return linear_maps.select(t, np.triu(_all_true(x), k))


rule(np.tril, _tril)
rule(np.triu, _triu)
