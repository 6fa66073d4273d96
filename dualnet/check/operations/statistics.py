"""Order statistics, averages, covariances, and reductions without NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import Row, adder, distinct, far_apart, uniform
from dualnet.core.arrays import asarray_like

ROWS: list[Row] = []
row = adder(ROWS, "statistics", jax=True)

_fn: Callable
_axis: Any

# --- order statistics ----------------------------------------------------------------------------

for _axis in (None, 0, -1, (0, 2)):
    for _keepdims in (False, True):
        row(
            np.median,
            f"axis={_axis}{', keepdims' if _keepdims else ''}",
            lambda xp, x, axis=_axis, keepdims=_keepdims: xp.median(
                x, axis=axis, keepdims=keepdims
            ),
            far_apart(2, 3, 4),
            exact=True,
        )
        row(
            np.quantile,
            f"axis={_axis}{', keepdims' if _keepdims else ''}",
            lambda xp, x, axis=_axis, keepdims=_keepdims: xp.quantile(
                x, 0.3, axis=axis, keepdims=keepdims
            ),
            far_apart(2, 3, 4),
            exact=True,
        )
row(np.median, "odd count", lambda xp, x: xp.median(x, axis=0), far_apart(3, 2), exact=True)
METHODS = (
    *("linear", "interpolated_inverted_cdf", "hazen", "weibull", "median_unbiased"),
    *("normal_unbiased", "inverted_cdf", "averaged_inverted_cdf", "closest_observation"),
    *("lower", "higher", "midpoint", "nearest"),
)
"""All methods of interpolation that NumPy knows."""
for _method in METHODS:
    row(
        np.quantile,
        f"method={_method}",
        lambda xp, x, method=_method: xp.quantile(
            x, asarray_like(np.array([0.15, 0.62]), x), axis=1, method=method
        ),
        far_apart(2, 5),
        exact=True,
        jax=_method in ("linear", "lower", "higher", "midpoint", "nearest"),
    )
for _method in METHODS[:6]:
    row(
        np.quantile,
        f"by q, method={_method}",
        lambda xp, x, q, method=_method: xp.quantile(x, q, axis=0, method=method),
        distinct(5, 2),
        uniform(0.52, 0.58, 2, 1),
        exact=False,
        jax=False,
    )
row(np.quantile, "by one q", lambda xp, x, q: xp.quantile(x, q), distinct(5), uniform(0.3, 0.4))
row(
    np.quantile,
    "weights",
    lambda xp, x: xp.quantile(
        x, 0.4, axis=1, method="inverted_cdf", weights=asarray_like(np.array([1.0, 3.0, 2.0]), x)
    ),
    far_apart(2, 3),
    exact=True,
    jax=False,
)
row(np.percentile, "", lambda xp, x: xp.percentile(x, 30), far_apart(2, 3), exact=True)
row(
    np.percentile,
    "by q",
    lambda xp, x, q: xp.percentile(x, q, axis=-1),
    distinct(2, 4),
    uniform(40, 60),
)
for _axis in (None, 0, -1):
    row(
        np.partition,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.partition(x, 1, axis=axis),
        far_apart(2, 3),
        exact=True,
        jax=False,
    )
for _axis in (None, 0, (0, 1)):
    row(
        np.ptp,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.ptp(x, axis=axis),
        far_apart(2, 3),
        exact=True,
    )
row(np.ptp, "keepdims", lambda xp, x: xp.ptp(x, 1, keepdims=True), far_apart(2, 3), exact=True)

# --- averages and covariances --------------------------------------------------------------------

for _axis in (None, 1, (0, 1)):
    row(
        np.average,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.average(x, axis=axis),
        (2, 3),
        exact=True,
    )
    row(
        np.average,
        f"weights, axis={_axis}",
        lambda xp, x, w, axis=_axis: xp.average(x, axis=axis, weights=w),
        (2, 3),
        uniform(0.5, 2, 2, 3),
    )
row(
    np.average,
    "weights of one axis",
    lambda xp, x, w: xp.average(x, 0, w),
    (2, 3),
    uniform(0.5, 2, 2),
)
row(
    np.average,
    "returned, keepdims",
    lambda xp, x, w: list(xp.average(x, 1, w, returned=True, keepdims=True)),
    (2, 3),
    uniform(0.5, 2, 2, 3),
)
_FREQUENCIES = np.array([1, 2, 1, 3])
for _note, _f in {
    "": lambda xp, x: xp.cov(x),
    "columns": lambda xp, x: xp.cov(x, rowvar=False),
    "bias": lambda xp, x: xp.cov(x, bias=True),
    "ddof": lambda xp, x: xp.cov(x, ddof=2),
    "fweights": lambda xp, x: xp.cov(x, fweights=asarray_like(_FREQUENCIES, x)),
}.items():
    row(np.cov, _note, _f, (3, 4), exact=True)
row(np.cov, "of a vector", lambda xp, x: xp.cov(x), (4,), exact=True)
row(np.cov, "y", lambda xp, x, y: xp.cov(x, y), (2, 3), (3,), exact=True)
row(np.cov, "aweights", lambda xp, x, w: xp.cov(x, aweights=w), (2, 4), uniform(0.5, 2, 4))
row(np.corrcoef, "", lambda xp, x: xp.corrcoef(x), (3, 4))
row(np.corrcoef, "columns", lambda xp, x: xp.corrcoef(x, rowvar=False), (4, 2))
row(np.corrcoef, "y", lambda xp, x, y: xp.corrcoef(x, y), (4,), (4,))

# --- without NaN ---------------------------------------------------------------------------------

_KNOWN = np.array([[True, True, False], [True, False, True], [True, True, True]])


def _with_nan(xp: Any, x: Any) -> Any:
    return xp.where(asarray_like(_KNOWN, x), x, np.nan)


for _fn, _draw, _exact in (
    (np.nansum, uniform(0.5, 2, 3, 3), True),
    (np.nanmean, uniform(0.5, 2, 3, 3), True),
    (np.nanprod, uniform(0.5, 2, 3, 3), False),
    (np.nanmax, far_apart(3, 3), True),
    (np.nanmin, far_apart(3, 3), True),
    (np.nanmedian, far_apart(3, 3), True),
    (np.nanvar, distinct(3, 3), False),
    (np.nanstd, distinct(3, 3), False),
):
    for _axis in (None, 0, -1, (0, 1)):
        row(
            _fn,
            f"axis={_axis}",
            lambda xp, x, fn=_fn, axis=_axis: getattr(xp, fn.__name__)(_with_nan(xp, x), axis=axis),
            _draw,
            exact=_exact,
        )
    row(
        _fn,
        "keepdims",
        lambda xp, x, fn=_fn: getattr(xp, fn.__name__)(_with_nan(xp, x), axis=0, keepdims=True),
        _draw,
        exact=_exact,
    )
for _fn in (np.nanvar, np.nanstd):
    row(
        _fn,
        "ddof",
        lambda xp, x, fn=_fn: getattr(xp, fn.__name__)(_with_nan(xp, x), axis=0, ddof=1),
        distinct(3, 3),
    )
for _fn in (np.nancumsum, np.nancumprod):
    for _axis in (None, 0):
        row(
            _fn,
            f"axis={_axis}",
            lambda xp, x, fn=_fn, axis=_axis: getattr(xp, fn.__name__)(_with_nan(xp, x), axis=axis),
            uniform(0.5, 1.5, 3, 3),
            exact=_fn is np.nancumsum,
        )
row(
    np.nanquantile,
    "",
    lambda xp, x: xp.nanquantile(_with_nan(xp, x), 0.3, axis=0),
    far_apart(3, 3),
    exact=True,
)
row(
    np.nanquantile,
    "by q",
    lambda xp, x, q: xp.nanquantile(_with_nan(xp, x), q, axis=1),
    distinct(3, 3),
    uniform(0.6, 0.9),
)
row(
    np.nanpercentile,
    "",
    lambda xp, x: xp.nanpercentile(_with_nan(xp, x), 80.0),
    far_apart(3, 3),
    exact=True,
)
