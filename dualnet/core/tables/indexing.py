"""Indexing, diagonals and triangles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like, as_array, asarray_like, pad_zeros, scatter_add_zeros
from dualnet.core.dual import getitem, primal_of, put_at
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.tables import linear_maps
from dualnet.core.tables.shaping import positions_of
from dualnet.types import Array, Tangent


def is_basic(key: tuple) -> bool:
    """Tell whether a key holds integers, slices, None and Ellipsis alone, which gives a view."""
    return all(
        item is None
        or item is Ellipsis
        or isinstance(item, (slice, np.integer))
        or (isinstance(item, int) and not isinstance(item, bool))
        for item in key
    )


@linearizer(getitem)
def _getitem(x: Array, key: Any) -> Any:
    """Index x by every kind of key that NumPy knows."""
    out = getitem(x, key)
    as_tuple = key if isinstance(key, tuple) else (key,)
    if is_basic(as_tuple):
        return out, lambda t: linear_maps.index(t, as_tuple)
    # Where index arrays stand apart from one another, NumPy moves their axes to the front, which
    # would be in front of k.  Going by positions spares the tangents that special case.
    positions = as_array(positions_of(x)[key])
    return out, lambda t: linear_maps.gather(t, positions)


def _zeros_plus(t: Tangent, out: Array, x: Array, positions: Any, shape: tuple) -> Tangent:
    # x is itself a stack, so entry i of it goes into part i of out.
    starts = arange_like(x.shape[0], x) * math.prod(shape)
    starts = np.reshape(starts, (-1, *(1,) * positions.ndim))
    return linear_maps.scatter_add(t, starts + asarray_like(positions, x), out.shape)


# The transposes of `index` and `gather` are made of these, so nested derivatives need their rules.
rule(pad_zeros, lambda t, out, x, key, shape: linear_maps.place(t, key, out.shape))
rule(scatter_add_zeros, _zeros_plus)


@linearizer(put_at)
def _put_at(x: Array, key: Any, value: Array) -> Any:
    """Entries that are written to move as the value does, all others as x does."""
    out = put_at(x, key, value)
    written = put_at(np.zeros_like(primal_of(x), bool), key, True)
    # Writing the value's positions finds which of its entries stands where in the end, also where
    # a key names an entry of x more than once.
    number = np.reshape(arange_like(np.size(value), primal_of(x)), np.shape(value))
    numbers = put_at(np.zeros_like(primal_of(x), int), key, number)

    def of_value(t: Tangent) -> Tangent:
        if not np.size(value):
            return linear_maps.scatter_add(t, number, out.shape)
        return linear_maps.select(linear_maps.gather(t, numbers), written)

    return out, (lambda t: linear_maps.select(t, np.logical_not(written)), None, of_value)


@linearizer(np.diag)
def _diag(x: Array, k: int = 0) -> Any:
    out = np.diag(x, k)
    if x.ndim == 2:
        positions = np.diag(positions_of(x), k)
        return out, lambda t: linear_maps.gather(t, positions)
    positions = np.diag(positions_of(out), k)
    return out, lambda t: linear_maps.scatter_add(t, positions, out.shape)


composed(np.diagflat)(lambda x, k=0: np.diag(np.ravel(x), k))


def _trace(
    t: Tangent, out: Array, x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Tangent:
    positions = np.diagonal(positions_of(x), offset, axis1, axis2)
    return linear.sum(linear_maps.gather(t, positions), (-1,))


rule(np.trace, _trace)
rule(np.linalg.trace, lambda t, out, x, *, offset=0: _trace(t, out, x, offset, -2, -1))


def _triangle(fn: Callable, x: Array, k: int) -> Array:
    return fn(np.ones_like(primal_of(x), bool, shape=x.shape[-2:]), k)


rule(np.tril, lambda t, out, x, k=0: linear_maps.select(t, _triangle(np.tril, x, k)))
rule(np.triu, lambda t, out, x, k=0: linear_maps.select(t, _triangle(np.triu, x, k)))
