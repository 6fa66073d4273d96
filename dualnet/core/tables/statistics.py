"""Order statistics, averages and covariances.

Conventions: equal entries keep their order, as in `np.sort`, so a quantile that falls on one of
several equal entries takes the tangent of the one that a stable sort puts there; the median of an
even count is half of each middle entry.  Extrema share the tangent equally among entries that tie.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like, asarray_like, operand
from dualnet.core.dual import Dual, astype, getitem, primal_of
from dualnet.core.engine import composed, linearizer, zero_derivative
from dualnet.core.tables import linear_maps
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.reductions import Axis, axes_from_end
from dualnet.core.tables.shaping import positions_of
from dualnet.types import Array, Shape, Tangent

# --- order statistics ----------------------------------------------------------------------------


class _Places(NamedTuple):
    """Where order statistics lie: arrays of the result's shape.

    Attributes:
        lower, upper: positions in x of the entries below and above.
        share: how far the result lies from the lower to the upper one, from 0 to 1.
        count: how many entries there are to choose from.
    """

    lower: Array
    upper: Array
    share: Array
    count: Array


def _lanes(x: Array, axis: Axis) -> Array:
    """Reshape to `(lanes, n)`, where a lane holds the n entries along the axes."""
    axes = axes_from_end(axis, x.ndim)
    moved = np.moveaxis(x, axes, tuple(range(-len(axes), 0)))
    n = math.prod(x.shape[a] for a in axes)
    return np.reshape(moved, (x.size // max(n, 1), n))


def _places(fn: Callable, x: Array, axis: Axis, shape: Shape, *q: Any, **how: Any) -> _Places:
    """Find between which entries the order statistic `fn` of x lies; `shape` is the result's.

    The statistic of the entries' ranks says how far into the order it lies, for every method of
    interpolation, and as NumPy itself computes it.
    """
    x = primal_of(x)
    values = _lanes(x, axis)
    order = np.argsort(values, axis=-1, kind="stable")
    missing = np.isnan(values)
    ranks = np.argsort(order, axis=-1, kind="stable").astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # because the call for the value has warned of NaN already
        depth = fn(np.where(missing, np.nan, ranks), *q, axis=-1, **how)  # (*q, lanes)
    count = np.broadcast_to(np.sum(np.logical_not(missing), axis=-1), np.shape(depth))
    known = np.logical_not(np.isnan(depth))
    lower = np.floor(np.where(known, depth, 0))
    lower = np.clip(lower, 0, np.maximum(count - 2, 0)).astype(np.int64)  # the last one is an upper
    upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
    share = np.where(known, depth - lower, np.nan).astype(x.dtype)
    lane = arange_like(values.shape[0], x)
    in_order = np.take_along_axis(_lanes(positions_of(x), axis), order, -1)
    found = (in_order[lane, lower], in_order[lane, upper], share, count)
    return _Places(*(np.reshape(a, shape) for a in found))


def _between(t: Tangent, at: _Places) -> Tangent:
    """Interpolate the tangents of the entries as the entries were."""
    below = linear.scale(linear_maps.gather(t, at.lower), 1 - at.share)
    return linear.add(below, linear.scale(linear_maps.gather(t, at.upper), at.share))


def _median(fn: Callable) -> None:
    """Register a median; `overwrite_input` is ignored, as it would write into the primal."""

    @linearizer(fn)
    def _(
        x: Array, axis: Axis = None, *, overwrite_input: bool = False, keepdims: bool = False
    ) -> Any:
        out = fn(x, axis=axis, keepdims=keepdims)
        if not x.size:
            return out, lambda t: linear.sum(t, axes_from_end(axis, x.ndim), keepdims)
        at = _places(fn, x, axis, np.shape(out))
        return out, lambda t: _between(t, at)


_fn: Callable
for _fn in (np.median, np.nanmedian):
    _median(_fn)


_CONTINUOUS = {
    "linear": (1.0, 1.0),
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
"""Method → α and β of Hyndman and Fan 1996: the quantile q of n entries lies n q + α - 1 +
q (1 - α - β) entries into the order, and no further than its ends.  The results of all other
methods jump from entry to entry as q grows."""


def _speed(q: Any, count: Array, method: str) -> Array:
    """Return how fast the place in the order moves with q, at the ends inward."""
    if method not in _CONTINUOUS:
        return count * 0.0
    alpha, beta = _CONTINUOUS[method]
    speed = count + (1.0 - alpha - beta)
    depth = q * speed + (alpha - 1.0)
    return np.where(np.logical_and(depth >= 0, depth <= count - 1), speed, 0.0)


def _quantile(fn: Callable, whole: float) -> None:
    """Register a quantile by x and by q, where q runs from 0 to `whole`.

    By q, the slope where q falls on an entry is that of the interval above, and on the last entry
    that of the interval below.  `overwrite_input` is ignored, as it would write into the primal.
    """

    @linearizer(fn)
    def _(
        x: Array,
        q: Any,
        axis: Axis = None,
        *,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: bool = False,
        weights: Any = None,
    ) -> Any:
        q = operand(q)
        how: dict[str, Any] = {"method": method}
        if weights is not None:
            how["weights"] = weights
        out = fn(x, q, axis, keepdims=keepdims, **how)
        if not x.size:
            every = tuple(range(-x.ndim, 0))
            return out, lambda t: linear.broadcast_to(linear.sum(t, every), np.shape(out))
        if weights is not None:
            stretched = np.broadcast_to(_along(operand(weights), x, axis), x.shape)
            how["weights"] = _lanes(stretched, axis)
        at = _places(fn, x, axis, np.shape(out), primal_of(q), **how)
        of_q = (*np.shape(q), *(1,) * (np.ndim(out) - np.ndim(q)))
        plain = asarray_like(np.asarray(q), x) if isinstance(q, (int, float)) else primal_of(q)
        speed = _speed(np.reshape(plain, of_q) / whole, at.count, method) / whole
        entries = np.reshape(x, (x.size,))
        slope = (getitem(entries, at.upper) - getitem(entries, at.lower)) * speed.astype(x.dtype)
        # The share moves with q, which a nested derivative sees: 0 with the tangents of q.
        if isinstance(q, Dual):
            moves = np.reshape(q - plain, of_q) * speed
            at = at._replace(share=at.share + astype(moves, x.dtype))
        return out, (
            lambda t: _between(t, at),
            lambda t: linear.scale(linear.reshape(t, of_q), slope),
        )


for _fn, _whole in (
    (np.quantile, 1.0),
    (np.nanquantile, 1.0),
    (np.percentile, 100.0),
    (np.nanpercentile, 100.0),
):
    _quantile(_fn, _whole)


@linearizer(np.partition)
def _partition(x: Array, kth: Any, axis: int | None = -1, kind: Any = "introselect") -> Any:
    """Order partly.  Equal entries are matched with equal entries in their order."""
    # CuPy's function takes no kind.
    how = () if kind == "introselect" else (kind,)
    out = np.partition(x, kth, axis, *how)
    if axis is None:
        x, axis = np.reshape(x, (x.size,)), -1
    order = np.argsort(primal_of(x), axis=axis, kind="stable")
    place = np.argsort(np.argsort(primal_of(out), axis=axis, kind="stable"), axis=axis)
    in_order = np.take_along_axis(positions_of(x), order, axis)
    positions = np.take_along_axis(in_order, place, axis)
    return out, lambda t: linear_maps.gather(linear.reshape(t, x.shape), positions)


@composed(np.ptp)
def _ptp(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Subtract the smallest entry from the largest; ties share equally."""
    return np.max(x, axis=axis, keepdims=keepdims) - np.min(x, axis=axis, keepdims=keepdims)


# --- averages and covariances --------------------------------------------------------------------


def _along(weights: Array, x: Array, axis: Axis) -> Array:
    """Reshape weights that lie along the axes of x alone, so that they stretch to x."""
    if np.shape(weights) == np.shape(x):
        return weights
    if axis is None:
        raise TypeError("Axis must be specified when shapes of a and weights differ.")
    axes = [a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
    if np.shape(weights) != tuple(x.shape[a] for a in axes):
        raise ValueError(
            "Shape of weights must be consistent with shape of a along specified axis."
        )
    weights = np.transpose(weights, tuple(np.argsort(axes).tolist()))
    return np.reshape(weights, tuple(n if a in axes else 1 for a, n in enumerate(x.shape)))


def _weighted_mean(x: Array, axis: Axis, weights: Array, keepdims: bool) -> tuple[Any, Any]:
    """Return the mean of x and the sum of the weights, which stretch to x."""
    total = np.sum(np.broadcast_to(weights, x.shape), axis=axis, keepdims=keepdims)
    return np.sum(x * weights, axis=axis, keepdims=keepdims) / total, total


@composed(np.average, anywhere=True)
def _average(
    x: Array,
    axis: Axis = None,
    weights: Any = None,
    returned: bool = False,
    *,
    keepdims: bool = False,
) -> Any:
    """Average, by x and by the weights."""
    x, weights = operand(x), operand(weights)
    axis = tuple(axis) if isinstance(axis, list) else axis
    how: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    mean, total = np.average(primal_of(x), weights=primal_of(weights), returned=True, **how)
    if weights is None:
        result = np.mean(x, **how)
    else:
        weights = astype(weights, np.result_type(x, weights))
        sums = _weighted_mean(x, axis, _along(weights, x, axis), keepdims)
        result, total = (
            valued(astype(y, value.dtype), value)
            for y, value in zip(sums, (mean, total), strict=True)
        )
    return (result, total) if returned else result


def _variables(x: Array, rowvar: bool, first: bool) -> Array:
    """Make each row of a matrix a variable.  A vector is one variable."""
    if np.ndim(x) > 2:
        raise ValueError(f"{'m' if first else 'y'} has more than 2 dimensions")
    is_vector = np.ndim(x) < 2
    x = np.atleast_2d(x)
    # NumPy keeps a matrix of one row as it is where it comes as y, and before 2.2 also as m.
    keeps = is_vector or (x.shape[0] == 1 and not (first and _TURNS_ONE_ROW))
    return x if rowvar or keeps else np.transpose(x)


_TURNS_ONE_ROW = np.lib.NumpyVersion(np.__version__) >= "2.2.0"


def _sample_weights(name: str, weights: Any, n: int, kind: Any) -> Any:
    """Check weights of observations, as NumPy does."""
    weights = operand(weights)
    if np.ndim(weights) > 1:
        raise RuntimeError(f"cannot handle multidimensional {name}")
    if np.shape(weights) != (n,):
        raise RuntimeError(f"incompatible numbers of samples and {name}")
    if np.any(np.less(weights, 0)):
        raise ValueError(f"{name} cannot be negative")
    return astype(weights, kind)


@composed(np.cov, anywhere=True)
def _cov(
    m: Array,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
) -> Any:
    """Estimate covariances, by m, y and aweights; fweights are whole numbers and constant."""
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    m, y = operand(m), operand(y)
    given = (m,) if y is None else (m, y)
    kind = np.result_type(*given, np.float64)  # as in NumPy, whatever the arguments' precision
    rows = np.concatenate([_variables(x, rowvar, x is m) for x in given], 0)
    rows = astype(rows, kind)
    n = rows.shape[1]
    if ddof is None:
        ddof = 0 if bias else 1
    weights: Any = None
    if fweights is not None:
        weights = _sample_weights("fweights", fweights, n, kind)
        if np.any(np.not_equal(weights, np.round(weights))):
            raise TypeError("fweights must be integer")
    if aweights is not None:
        aweights = _sample_weights("aweights", aweights, n, kind)
        weights = aweights if weights is None else weights * aweights

    if weights is None:
        mean, count = np.mean(rows, 1), n
    else:
        mean, count = _weighted_mean(rows, 1, weights, False)
        count = count[0]
    if weights is None or aweights is None or ddof == 0:
        norm = count - ddof
    else:
        norm = count - ddof * np.sum(weights * aweights) / count
    if norm <= 0:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=2)
        norm = primal_of(norm) * 0.0
    centered = rows - mean[:, None]
    weighted = centered if weights is None else centered * weights
    products = np.dot(centered, np.transpose(weighted))
    return np.squeeze(products * np.true_divide(1, norm))


@composed(np.corrcoef, anywhere=True)
def _corrcoef(x: Array, y: Any = None, rowvar: bool = True) -> Any:
    """Normalize the covariance matrix; NumPy's clipping to [-1, 1] changes the value alone."""
    c = _cov(x, y, rowvar)
    if np.ndim(c) == 0:
        return c / c
    deviations = np.sqrt(np.diag(c))
    c = c / deviations[:, None] / deviations[None, :]
    return valued(c, np.clip(primal_of(c), -1, 1))


# --- no slope anywhere ---------------------------------------------------------------------------

zero_derivative(np.argpartition, np.nanargmax, np.nanargmin, np.digitize, np.lexsort, np.fix)
zero_derivative(np.einsum_path)
zero_derivative(np.flatnonzero, np.argwhere, np.isreal, np.array_equiv, np.isin)
