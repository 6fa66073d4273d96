"""Reductions and running sums that leave NaN out: entries that are NaN get no tangent.

Extrema share the tangent equally among entries that tie; the deviation at equal entries has the
conventions of `np.std`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dualnet.core.dual import primal_of
from dualnet.core.engine import composed
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.keywords import (
    as_numpy,
    extended,
    max_with,
    mean_with,
    min_with,
    norm_of,
    prod_with,
    running_with,
    spread_with,
    sum_with,
    without_dtype,
)
from dualnet.core.tables.reductions import Axis, ddof_of, extremum
from dualnet.types import Array


def _instead_of_nan(x: Array, value: Any) -> Array:
    return np.where(np.isnan(x), value, x)


@composed(np.nansum)
def _nansum(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return np.sum(_instead_of_nan(x, 0), axis=axis, keepdims=keepdims)


@composed(np.nanprod)
def _nanprod(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return np.prod(_instead_of_nan(x, 1), axis=axis, keepdims=keepdims)


@composed(np.nancumsum)
def _nancumsum(x: Array, axis: int | None = None) -> Any:
    return np.cumsum(_instead_of_nan(x, 0), axis=axis)


@composed(np.nancumprod)
def _nancumprod(x: Array, axis: int | None = None) -> Any:
    return np.cumprod(_instead_of_nan(x, 1), axis=axis)


@composed(np.nanmean)
def _nanmean(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    count = np.sum(np.logical_not(np.isnan(x)), axis=axis, keepdims=keepdims, dtype=x.dtype)
    return _nansum(x, axis, keepdims=keepdims) / count


_fn: Callable
for _fn in (np.nanmax, np.nanmin):
    extremum(_fn)


def _without_nan(fn: Callable) -> None:
    @composed(fn)
    def _(
        x: Array,
        axis: Axis = None,
        *,
        ddof: float = 0,
        correction: Any = ...,
        keepdims: bool = False,
    ) -> Any:
        ddof = ddof_of(ddof, correction)
        deviation = _instead_of_nan(x - _nanmean(x, axis, keepdims=True), 0)
        known = np.logical_not(np.isnan(primal_of(x)))
        left = np.sum(known, axis=axis, keepdims=keepdims, dtype=x.dtype) - ddof
        left = np.where(left > 0, left, np.nan)
        if fn is np.nanvar:
            result = np.sum(np.square(deviation), axis=axis, keepdims=keepdims) / left
        else:
            result = norm_of(deviation, axis, keepdims) / np.sqrt(left)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # because the means above have warned already
            value = fn(primal_of(x), axis=axis, ddof=ddof, keepdims=keepdims)
        return valued(result, value)


_without_nan(np.nanvar)
_without_nan(np.nanstd)


# --- where=, initial=, dtype= and mean= ----------------------------------------------------------


def _filled(fn: Callable, reduction: Callable, filler: float) -> None:
    """Let `fn` take what a reduction takes, with a filler in the place of NaN."""

    @partial(extended, fn)
    @functools.wraps(reduction)
    def _(x: Array, *args: Any, **how: Any) -> Any:
        result = reduction(_instead_of_nan(x, filler), *args, **how)
        return as_numpy(result, fn, x, *args, **how)


_filled(np.nansum, sum_with, 0.0)
_filled(np.nanprod, prod_with, 1.0)
_filled(np.nanmax, without_dtype(max_with), -np.inf)
_filled(np.nanmin, without_dtype(min_with), np.inf)


def _masked(fn: Callable, reduction: Callable) -> None:
    """Let `fn` take what a reduction takes, which is not to look at entries that are NaN."""

    @partial(extended, fn)
    @functools.wraps(reduction)
    def _(x: Array, *args: Any, where: Any = True, **how: Any) -> Any:
        known = np.logical_and(where, np.logical_not(np.isnan(x)))
        result = reduction(x, *args, where=known, **how)
        return as_numpy(result, fn, x, *args, where=where, **how)


_masked(np.nanmean, mean_with)
_masked(np.nanvar, spread_with(np.var))
_masked(np.nanstd, spread_with(np.std))
extended(np.nancumsum, running_with(np.nancumsum))
extended(np.nancumprod, running_with(np.nancumprod))
