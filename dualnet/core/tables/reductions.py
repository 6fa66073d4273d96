"""Reductions and running sums.

`axis` and `keepdims` mean what they mean in NumPy.  Everything else that NumPy offers there
(`where=`, `initial=`, `dtype=`) has no rule and raises an error that names the argument.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import getitem
from dualnet.core.engine import linearizer, rule
from dualnet.core.tables import linear_maps
from dualnet.types import Array, Tangent

Axis = int | tuple[int, ...] | None


def axes_from_end(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes as negative numbers in rising order; None stands for all of them."""
    if axis is None:
        return tuple(range(-ndim, 0))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a if a < 0 else a - ndim for a in axes))


def keep(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Put the reduced axes of an array back as unit axes."""
    if keepdims:
        return x
    # x has lost the axes already, so each is inserted where it stood, counted from the end.
    return np.expand_dims(x, axes)


def _sum(t: Tangent, out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False) -> Tangent:
    return linear.sum(t, axes_from_end(axis, x.ndim), keepdims)


def _mean(
    t: Tangent, out: Array, x: Array, axis: Axis = None, *, keepdims: bool = False
) -> Tangent:
    axes = axes_from_end(axis, x.ndim)
    return linear.divide(linear.sum(t, axes, keepdims), math.prod(x.shape[a] for a in axes))


rule(np.sum, _sum)
rule(np.mean, _mean)


def _variance_map(x: Array, axis: Axis, correction: float) -> tuple[Any, tuple[int, ...]]:
    """Return the factor 2 (x - mean) / (n - correction) of the variance's slope, and the axes."""
    axes = axes_from_end(axis, x.ndim)
    n = math.prod(x.shape[a] for a in axes)
    return (x - np.mean(x, axis=axes, keepdims=True)) * (2.0 / (n - correction)), axes


@linearizer(np.var)
def _var(
    x: Array, axis: Axis = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False
) -> Any:
    correction = correction or ddof
    out = np.var(x, axis=axis, ddof=correction, keepdims=keepdims)
    factor, axes = _variance_map(x, axis, correction)
    return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)


@linearizer(np.std)
def _std(
    x: Array, axis: Axis = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False
) -> Any:
    correction = correction or ddof
    out = np.std(x, axis=axis, ddof=correction, keepdims=keepdims)
    factor, axes = _variance_map(x, axis, correction)
    slope = 0.5 / np.where(np.equal(out, 0), 1, out)  # the slope is taken as 0 at 0
    return out, lambda t: linear.scale(linear.sum(linear.scale(t, factor), axes, keepdims), slope)


def _extremum(fn: Any) -> None:
    @linearizer(fn)
    def _(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
        # Entries that tie share the tangent equally.
        out = fn(x, axis=axis, keepdims=keepdims)
        axes = axes_from_end(axis, x.ndim)
        hit = np.equal(x, keep(out, axes, keepdims))
        share = hit.astype(x.dtype) / np.sum(hit, axis=axes, keepdims=True, dtype=x.dtype)
        return out, lambda t: linear.sum(linear.scale(t, share), axes, keepdims)


for _fn in (np.max, np.min, np.amax, np.amin):
    _extremum(_fn)


def _without_each(x: Array) -> Any:
    """Multiply, for each entry, all others along the last axis; this is right at zeros too."""
    ones = np.ones_like(getitem(x, (..., slice(0, 1))))
    before = np.cumprod(np.concatenate([ones, x[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, x[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return before * after


@linearizer(np.prod)
def _prod(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    out = np.prod(x, axis=axis, keepdims=keepdims)
    axes = axes_from_end(axis, x.ndim)
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(x, axes, last)
    rest = moved.shape[: x.ndim - len(axes)]
    others = _without_each(np.reshape(moved, (*rest, math.prod(x.shape[a] for a in axes))))
    factor = np.moveaxis(np.reshape(others, moved.shape), last, axes)
    return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)


@linearizer(np.cumsum)
def _cumsum(x: Array, axis: int | None = None) -> Any:
    out = np.cumsum(x, axis=axis)
    if axis is None:
        return out, lambda t: linear_maps.cumsum(linear.reshape(t, out.shape), -1)
    return out, lambda t: linear_maps.cumsum(t, axes_from_end(axis, x.ndim)[0])


@linearizer(np.cumprod)
def _cumprod(x: Array, axis: int | None = None) -> Any:
    """Multiply up along an axis; ∂out_i/∂x_j is the product of x_l over l ≤ i, l ≠ j.

    Where no entry is 0, that is out_i / x_j.  Otherwise all n² products along the axis are made.
    """
    out = np.cumprod(x, axis=axis)
    if axis is None:
        x = np.reshape(x, (x.size,))
    a = axes_from_end(axis, x.ndim)[0] if axis is not None else -1
    if np.all(np.not_equal(x, 0)):

        def running(t: Tangent) -> Any:
            return linear.scale(linear_maps.cumsum(linear.divide(_flat_if(t), x), a), out)

    else:
        last = np.moveaxis(x, a, -1)
        n = last.shape[-1]
        j = arange_like(n, x)
        skipped = np.where(j[:, None] == j, 1, last[..., None, :])  # (..., j, l)
        products = np.where(j[:, None] <= j, np.cumprod(skipped, axis=-1), 0)
        order = tuple(range(-x.ndim, 0))
        to_last = (*(i for i in order if i != a), a)
        back = tuple(to_last.index(i) - x.ndim for i in order)

        def running(t: Tangent) -> Any:
            row = linear.transpose(_flat_if(t), to_last)
            row = linear.reshape(row, (*last.shape[:-1], 1, n))
            row = linear.reshape(linear.matmul(row, products), last.shape)
            return linear.transpose(row, back)

    def _flat_if(t: Tangent) -> Tangent:
        return t if axis is not None else linear.reshape(t, out.shape)

    return out, running
