"""Reductions and running sums that leave NaN out: entries that are NaN get no tangent.

Extrema share the tangent equally among entries that tie; the deviation at equal entries has the
conventions of `np.std`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core.dual import primal_of
from dualnet.core.engine import composed
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.reductions import Axis, axes_from_end, extremum
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


def _without_nan(fn: Callable, of_squares: Callable, factor: Callable) -> None:
    """Register nanvar or nanstd by `of_squares`, the same for arrays without NaN.

    The mean in the place of NaN changes neither the mean nor the sum of squares, but the count;
    `factor` of the ratio of counts sets that right.
    """

    @composed(fn)
    def _(
        x: Array,
        axis: Axis = None,
        *,
        ddof: float = 0,
        correction: float = 0,
        keepdims: bool = False,
    ) -> Any:
        filled = np.where(np.isnan(x), _nanmean(x, axis, keepdims=True), x)
        known = np.logical_not(np.isnan(primal_of(x)))
        left = np.sum(known, axis=axis, keepdims=keepdims, dtype=x.dtype) - (correction or ddof)
        n = math.prod(x.shape[a] for a in axes_from_end(axis, x.ndim))
        ratio = n / np.where(left > 0, left, np.nan)
        result = of_squares(filled, axis=axis, keepdims=keepdims) * factor(ratio)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # because the means above have warned already
            value = fn(primal_of(x), axis=axis, ddof=correction or ddof, keepdims=keepdims)
        return valued(result, value)


_without_nan(np.nanvar, np.var, lambda ratio: ratio)
_without_nan(np.nanstd, np.std, np.sqrt)
