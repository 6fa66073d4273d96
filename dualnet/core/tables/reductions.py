"""Reductions and running sums.

`axis` and `keepdims` mean what they mean in NumPy.  `tables.keywords` adds `where=`, `initial=` and
`dtype=`, where NumPy has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import primitive
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.tables import linear_maps
from dualnet.errors import MissingRuleError
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


def _spread(fn: Any) -> None:
    @linearizer(fn)
    def _(
        x: Array,
        axis: Axis = None,
        *,
        ddof: float = 0,
        correction: float = 0,
        keepdims: bool = False,
    ) -> Any:
        # The variance's slope is 2 (x - mean) / (n - ddof), and the root's 1 / (2 out).
        ddof = correction or ddof
        out = fn(x, axis=axis, ddof=ddof, keepdims=keepdims)
        axes = axes_from_end(axis, x.ndim)
        n = math.prod(x.shape[a] for a in axes)
        factor = (x - np.mean(x, axis=axes, keepdims=True)) * (2.0 / (n - ddof))
        if fn is np.var:
            return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)
        of_root = 0.5 / np.where(np.equal(out, 0), 1, out)  # the slope is taken as 0 at 0
        return out, lambda t: linear.scale(
            linear.sum(linear.scale(t, factor), axes, keepdims), of_root
        )


_spread(np.var)
_spread(np.std)


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
    ones = np.ones_like(x[..., :1])
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


@primitive
def cumprod_of_rows(x: Array) -> Array:
    """Multiply up along the last axis."""
    return np.cumprod(x, axis=-1)


@linearizer(cumprod_of_rows)
def _cumprod_of_rows(x: Array) -> Any:
    """The slope ∂out_i/∂x_j is the product of x_l over l ≤ i, l ≠ j.

    Where no entry is 0, that is out_i / x_j.  Otherwise all n² products of a row are made.
    """
    out = np.cumprod(x, axis=-1)
    if np.all(np.not_equal(x, 0)):
        return out, lambda t: linear.scale(linear_maps.cumsum(linear.divide(t, x), -1), out)
    j = arange_like(x.shape[-1], x)
    skipped = np.where(j[:, None] == j, 1, x[..., None, :])  # (..., j, l)
    products = np.where(j[:, None] <= j, np.cumprod(skipped, axis=-1), 0)
    row = (*x.shape[:-1], 1, x.shape[-1])
    return out, lambda t: linear.reshape(linear.matmul(linear.reshape(t, row), products), x.shape)


@composed(np.cumprod)
def _cumprod(x: Array, axis: int | None = None) -> Any:
    if axis is None:
        return cumprod_of_rows(np.ravel(x))
    return np.moveaxis(cumprod_of_rows(np.moveaxis(x, axis, -1)), -1, axis)


@linearizer(np.linalg.norm)
def _norm(x: Array, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Evaluate vector p-norms (p ≥ 1 or inf) and the Frobenius norm; the slope at 0 counts as 0."""
    out = np.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
    axes = axes_from_end(axis, x.ndim)
    if len(axes) == 2 and ord not in (None, "fro"):
        raise MissingRuleError(
            f"np.linalg.norm: the matrix norm ord={ord!r} has no derivative rule; 'fro' has"
        )
    kept = keep(out, axes, keepdims)
    safe = np.where(np.equal(kept, 0), 1, kept)
    if ord in (None, "fro", 2):
        factor = x / safe
    elif ord in (np.inf, -np.inf):
        hit = np.equal(np.absolute(x), kept)
        count = np.sum(hit, axis=axes, keepdims=True, dtype=x.dtype)
        factor = np.sign(x) * (hit.astype(x.dtype) / count)
    elif isinstance(ord, (int, float)) and ord >= 1:
        factor = np.sign(x) * np.power(np.absolute(x) / safe, float(ord) - 1.0)
    else:
        raise MissingRuleError(
            f"np.linalg.norm: ord={ord!r} has no derivative rule; None, inf, -inf and numbers from "
            "1 on have"
        )
    return out, lambda t: linear.sum(linear.scale(t, factor), axes, keepdims)
