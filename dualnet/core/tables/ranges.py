"""Arrays of evenly spaced numbers between bounds.

NumPy asks a Dual about these because a bound is an array like any other.  Where the bounds are
arrays themselves, the points lie along a new axis of the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import astype, primitive
from dualnet.core.engine import composed, linearizer
from dualnet.types import Array, Tangent


@composed(np.linspace)
def _linspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    points = _of_dtype(_even_points(start, stop, num, endpoint, axis), dtype)
    steps = num - 1 if endpoint else num
    step = (stop - start) / steps if steps > 0 else math.nan  # as NumPy says of a single point
    return (points, step) if retstep else points


@composed(np.logspace)
def _logspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    if np.ndim(base):  # an array of bases counts among the bounds where an axis is put into them
        ndim = max(map(np.ndim, (start, stop, base)))
        start, stop = _raised(start, ndim), _raised(stop, ndim)
        base = np.expand_dims(_raised(base, ndim), axis)
    points = np.power(base, np.linspace(start, stop, num, endpoint, axis=axis))
    return points if dtype is None else astype(points, dtype)


@composed(np.geomspace)
def _geomspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    points = _geometric_points(start, stop, num, endpoint, axis)
    return points if dtype is None else astype(points, dtype)


# --- parts ---------------------------------------------------------------------------------------


@primitive
def _even_points(start: Array, stop: Array, num: int, endpoint: bool, axis: int) -> Array:
    return np.linspace(start, stop, num, endpoint, axis=axis)


@linearizer(_even_points)
def _(start: Array, stop: Array, num: int, endpoint: bool, axis: int) -> Any:
    """The points are start · (1 - w) + stop · w, with the shares w from 0 to 1."""
    out = _even_points(start, stop, num, endpoint, axis)
    w = _shares(out, num, endpoint, axis)
    return out, (
        lambda t: linear.scale(_in_points(t, out, axis), 1.0 - w),
        lambda t: linear.scale(_in_points(t, out, axis), w),
    )


@primitive
def _geometric_points(start: Array, stop: Array, num: int, endpoint: bool, axis: int) -> Array:
    return np.geomspace(start, stop, num, endpoint, axis=axis)


@linearizer(_geometric_points)
def _(start: Array, stop: Array, num: int, endpoint: bool, axis: int) -> Any:
    """The points are start^(1 - w) · stop^w."""
    out = _geometric_points(start, stop, num, endpoint, axis)
    w = _shares(out, num, endpoint, axis)

    def of_bound(x: Array, share: Array) -> Any:
        bound = np.expand_dims(_raised(x, out.ndim - 1), axis)
        return lambda t: linear.scale(_in_points(t, out, axis), share * (out / bound))

    return out, (of_bound(start, 1.0 - w), of_bound(stop, w))


def _raised(x: Any, ndim: int) -> Array:
    """Put unit axes in front of x until it has `ndim` axes."""
    return np.reshape(x, (1,) * (ndim - np.ndim(x)) + np.shape(x))


def _of_dtype(points: Array, dtype: Any) -> Any:
    if dtype is None:
        return points
    # NumPy rounds down where the points become integers, and not towards 0.
    return astype(np.floor(points) if np.issubdtype(dtype, np.integer) else points, dtype)


def _shares(out: Array, num: int, endpoint: bool, axis: int) -> Array:
    """Return how far each point is from start to stop, along the axis of the points."""
    along = [1] * out.ndim
    along[axis] = num
    steps = max(num - 1 if endpoint else num, 1)
    return np.reshape((arange_like(num, out) / steps).astype(out.dtype), along)


def _in_points(t: Tangent, out: Array, axis: int) -> Tangent:
    """Stretch a bound's tangent to the shape of both bounds, with a unit axis for the points."""
    shape = list(out.shape)
    del shape[axis]
    t = linear.stretch(t, tuple(shape))
    shape.insert(axis % out.ndim, 1)
    return linear.reshape(t, tuple(shape))
