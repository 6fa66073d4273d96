"""Reductions and running sums.

`axis` and `keepdims` mean what they mean in NumPy.  `tables.keywords` adds `where=`, `initial=` and
`dtype=`, where NumPy has them.
"""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import getitem, primal_of, primitive
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.half import in_single
from dualnet.core.tables import linear_maps
from dualnet.core.tables.kinks import apart, bends
from dualnet.types import Array, Tangent

Axis = int | tuple[int, ...] | None  # the functions of order statistics take lists, too


def axes_from_end(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes as negative numbers in rising order; None stands for all of them.

    NumPy has looked at them already.  Of an array without axes it takes the axes 0 and -1, too.
    """
    if axis is None or not ndim:
        return tuple(range(-ndim, 0))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted(a if a < 0 else a - ndim for a in axes))


def keep(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Put the reduced axes of an array back as unit axes."""
    if keepdims:
        return x
    # x has lost the axes already, so each is inserted where it stood, counted from the end.
    return np.expand_dims(x, axes)


def _sum(t: Tangent, out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False) -> Tangent:
    return linear.sum(in_single(t), axes_from_end(axis, x.ndim), keepdims)


def _mean(
    t: Tangent, out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False
) -> Tangent:
    axes = axes_from_end(axis, x.ndim)
    return linear.divide(
        linear.sum(in_single(t), axes, keepdims), math.prod(x.shape[a] for a in axes)
    )


rule(np.sum, _sum)
rule(np.mean, _mean)


def ddof_of(ddof: float, correction: Any) -> float:
    """Return what a variance subtracts from the count, by either name; `...` was left out."""
    if correction is ...:
        return ddof
    if ddof != 0:
        raise ValueError("ddof and correction can't be provided simultaneously.")
    return correction


def _spread(fn: Any) -> None:
    @linearizer(fn)
    def _(
        x: Array,
        axis: Axis = None,
        *,
        ddof: float = 0,
        correction: Any = ...,
        keepdims: bool = False,
    ) -> Any:
        # The variance's slope is 2 (x - mean) / (n - ddof), and the root's 1 / (2 out).
        ddof = ddof_of(ddof, correction)
        out = fn(x, axis=axis, ddof=ddof, keepdims=keepdims)
        axes = axes_from_end(axis, x.ndim)
        if not x.size:
            return out, lambda t: linear.sum(t, axes, keepdims)
        count = max(math.prod(x.shape[a] for a in axes) - ddof, 0)
        per_entry = 1.0 / count if count else math.nan
        single = in_single(x)
        deviation = single - np.mean(single, axis=axes, keepdims=True)
        if fn is np.var:
            factor = deviation * (2.0 * per_entry)
        else:
            factor = _unit(deviation, _all_equal(x, axes), axes, per_entry) * per_entry
        return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)


def _all_equal(x: Array, axes: tuple[int, ...]) -> Any:
    """Tell where all entries along the axes, which are kept, are equal."""
    plain = primal_of(x)
    first = plain[tuple(slice(0, 1 if a - x.ndim in axes else None) for a in range(x.ndim))]
    return np.all(np.equal(plain, first), axis=axes, keepdims=True)


def _unit(deviation: Array, equal: Array, axes: tuple[int, ...], per_entry: float) -> Any:
    """Divide deviations by the standard one, and 0 where all entries are equal.

    They are scaled first, so that squares do not overflow.
    """
    largest = np.max(np.absolute(primal_of(deviation)), axis=axes, keepdims=True)
    plain = np.logical_or(np.equal(largest, 0), np.isinf(largest))
    y = deviation / np.where(plain, 1, largest)
    square = np.sum(np.square(y), axis=axes, keepdims=True) * per_entry
    return np.where(equal, 0, y / np.sqrt(np.where(equal, 1, square)))


_spread(np.var)
_spread(np.std)


@partial(bends, np.std)
def _at_equal_entries(
    out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False, **_how: Any
) -> Any:
    axes = axes_from_end(axis, x.ndim)
    first = tuple(slice(0, 1 if a - x.ndim in axes else None) for a in range(x.ndim))
    return apart(x, getitem(x, first)), _all_equal(x, axes), axes


def extremum(fn: Any) -> None:
    """Register a function that finds the largest or the smallest entry."""

    @linearizer(fn)
    def _(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
        # Entries that tie share the tangent equally.
        out = fn(x, axis=axis, keepdims=keepdims)
        axes = axes_from_end(axis, x.ndim)
        kept = keep(out, axes, keepdims)
        hit = np.equal(x, kept)
        dtype = in_single(np.empty_like(primal_of(x), shape=0)).dtype
        share = hit.astype(dtype) / np.sum(hit, axis=axes, keepdims=True, dtype=dtype)
        return out, lambda t: linear.sum(linear.scale(t, share), axes, keepdims)

    @partial(bends, fn)
    def _(out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
        axes = axes_from_end(axis, x.ndim)
        hit = np.equal(x, keep(out, axes, keepdims))
        order = np.cumsum(np.reshape(hit.astype(int), -1)).reshape(x.shape)
        first = np.logical_and(
            hit, np.equal(order, np.min(np.where(hit, order, x.size), axes, keepdims=True))
        )
        tied = np.sum(hit, axis=axes, keepdims=True) > 1
        one = np.sum(np.where(first, x, 0), axis=axes, keepdims=True)
        return apart(np.where(hit, x, one), one), tied, axes


for _fn in (np.max, np.min, np.amax, np.amin):
    extremum(_fn)


def _without_each(x: Array) -> Any:
    """Multiply, for each entry, all others along the last axis; this is right at zeros too."""
    ones = np.ones_like(x[..., :1])
    before = np.cumprod(np.concatenate([ones, x[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, x[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return before * after


@linearizer(np.prod)
def _prod(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    out = np.prod(x, axis=axis, keepdims=keepdims)
    axes = axes_from_end(axis, x.ndim)
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(in_single(x), axes, last)
    rest = moved.shape[: x.ndim - len(axes)]
    others = _without_each(np.reshape(moved, (*rest, math.prod(x.shape[a] for a in axes))))
    factor = np.moveaxis(np.reshape(others, moved.shape), last, axes)
    return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)


@linearizer(np.cumsum)
def _cumsum(x: Array, axis: int | None = None) -> Any:
    out = np.cumsum(x, axis=axis)
    if axis is None or not x.ndim:
        return out, lambda t: linear_maps.cumsum(linear.reshape(in_single(t), out.shape), -1)
    return out, lambda t: linear_maps.cumsum(in_single(t), axes_from_end(axis, x.ndim)[0])


@primitive
def cumprod_of_rows(x: Array) -> Array:
    """Multiply up along the last axis."""
    return np.cumprod(x, axis=-1)


@linearizer(cumprod_of_rows)
def _cumprod_of_rows(x: Array) -> Any:
    """The slope ∂out_i/∂x_j is the product of x_l over l ≤ i, l ≠ j.

    Where no product is 0, that is out_i / x_j.  Otherwise all n² products of a row are made.
    """
    out = np.cumprod(x, axis=-1)
    x = in_single(x)
    if np.all(np.not_equal(out, 0)):
        return out, lambda t: linear.scale(linear_maps.cumsum(linear.divide(t, x), -1), out)
    j = arange_like(x.shape[-1], x)
    skipped = np.where(j[:, None] == j, 1, x[..., None, :])  # (..., j, l)
    products = np.where(j[:, None] <= j, np.cumprod(skipped, axis=-1), 0)
    row = (*x.shape[:-1], 1, x.shape[-1])
    return out, lambda t: linear.reshape(linear.matmul(linear.reshape(t, row), products), x.shape)


@composed(np.cumprod)
def _cumprod(x: Array, axis: int | None = None) -> Any:
    if axis is None or not x.ndim:
        x, axis = np.ravel(x), -1 if axis is None else axis
    axis = operator.index(axis)
    return np.moveaxis(cumprod_of_rows(np.moveaxis(x, axis, -1)), -1, axis)
