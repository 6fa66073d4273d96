"""Signals and grids: interpolation, integration, differences, convolution, polynomials.

Conventions: at a knot, `np.interp` has the slope of the interval to its right, at the last knot
that of the interval to its left, and 0 outside; `np.unwrap` moves as its argument does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from dualnet.core import linear, refusals
from dualnet.core.arrays import operand, operand_like
from dualnet.core.dual import Dual, astype, getitem, primal_of, primitive
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.linear import LinearMap
from dualnet.core.tables import linear_maps
from dualnet.core.tables.shaping import _rearranges
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent


def _sliced(axis: int, ndim: int, *bounds: Any) -> tuple:
    """Make the index of a slice along one axis."""
    return (*(slice(None),) * normalize_axis_index(axis, ndim), slice(*bounds))


# --- interpolation -------------------------------------------------------------------------------


@primitive
def interpolate(x: Array, knots: Array, values: Array) -> Any:
    """Interpolate at x inside the knots, and repeat the first and last value outside."""
    return np.interp(x, knots, values)


@linearizer(interpolate)
def _interpolate(x: Array, knots: Array, values: Array) -> Any:
    out = interpolate(x, knots, values)
    at, n = primal_of(x), len(knots)
    lower = np.searchsorted(primal_of(knots), at, side="right") - 1
    lower = np.clip(lower, 0, max(n - 2, 0))
    upper = np.minimum(lower + 1, n - 1)
    from_knot, to_knot = getitem(knots, lower), getitem(knots, upper)
    width = to_knot - from_knot
    single = np.equal(primal_of(width), 0)  # of a single knot, or of the last one twice
    before, after = np.less(at, primal_of(from_knot)), np.greater(at, primal_of(to_knot))
    inside = np.logical_not(np.logical_or(np.logical_or(before, after), single))
    width = np.where(single, 1, width)
    share = np.where(inside, (x - from_knot) / width, np.where(before, 0, 1))
    slope = np.where(inside, (getitem(values, upper) - getitem(values, lower)) / width, 0)

    def between(t: Tangent) -> Tangent:
        below = linear.scale(linear_maps.gather(t, lower), 1 - share)
        return linear.add(below, linear.scale(linear_maps.gather(t, upper), share))

    return out, (
        lambda t: linear.scale(t, slope),
        lambda t: linear.scale(between(t), -slope),
        between,
    )


@composed(np.interp, anywhere=True)
def _interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None
) -> Any:
    """Interpolate, by x, the knots, their values, and the values outside."""
    x, xp, fp = (_float(operand(a)) for a in (x, xp, fp))
    dtype = np.result_type(x, xp, fp)  # slopes between narrow knots would be narrow too
    x, xp, fp = (a if a.dtype == dtype else astype(a, dtype) for a in (x, xp, fp))
    if np.ndim(left) or np.ndim(right):
        raise TypeError("np.interp: left and right must be numbers")
    if period is not None:
        if not np.shape(xp) == np.shape(fp) == (np.size(xp),):
            raise ValueError("np.interp: xp and fp must be 1-d sequences of the same length")
        period = abs(period)
        if primal_of(period) == 0:
            raise ValueError("period must be a non-zero value")
        left = right = None
        x, xp = x % period, xp % period
        order = np.argsort(primal_of(xp))
        xp, fp = getitem(xp, order), getitem(fp, order)
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    result = interpolate(x, xp, fp)
    plain, knots = primal_of(x), primal_of(xp)
    if right is not None:
        result = np.where(np.greater(plain, knots[-1]), right, result)
    return result if left is None else np.where(np.less(plain, knots[0]), left, result)


def _float(x: Any) -> Any:
    """Turn numbers and integers into floats; what is a float array, or a dual, is returned."""
    if np.iscomplexobj(x):
        raise refusals.no_array(np.interp, np.asarray(primal_of(x)))
    if not hasattr(x, "dtype"):
        return np.float64(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


# --- integrals and differences -------------------------------------------------------------------


@composed(np.trapezoid, anywhere=True)
def _trapezoid(y: Array, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """Integrate along an axis by y, and by x or dx."""
    y, x = operand(y), operand(x)
    behind = y.ndim - 1 - normalize_axis_index(axis, y.ndim)
    if x is None:
        width = dx
    elif np.ndim(x) == 1:
        width = np.reshape(np.diff(x), (-1, *(1,) * behind))
    else:
        width = np.diff(x, axis=axis)
    later, earlier = y[_sliced(axis, y.ndim, 1, None)], y[_sliced(axis, y.ndim, None, -1)]
    return np.sum(width * (later + earlier) / 2.0, axis=axis)


@composed(np.gradient, anywhere=True)
def _gradient(f: Array, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Take central differences, by f and by the spacing (numbers, or coordinates of an axis)."""
    f = _float(operand(f))
    axes = tuple(range(f.ndim)) if axis is None else normalize_axis_tuple(axis, f.ndim)
    if edge_order > 2:
        raise ValueError("'edge_order' greater than 2 not supported")
    steps = spacing or (1.0,)
    if len(steps) == 1 and np.ndim(operand(steps[0])) == 0:
        steps = steps * len(axes)
    if len(steps) != len(axes):
        raise TypeError("invalid number of arguments")
    parts = tuple(
        _difference(f, a, _steps(operand(step), f.shape[a]), edge_order)
        for a, step in zip(axes, steps, strict=True)
    )
    return parts[0] if len(parts) == 1 else parts


def _steps(step: Any, n: int) -> Any:
    """Turn coordinates into steps; equal ones, where no tangent sees it, into a single one."""
    if np.ndim(step) == 0:
        return step
    if np.shape(step) != (n,):
        raise ValueError("np.gradient: coordinates must be 1-d and match the length of their axis")
    steps = np.diff(step if isinstance(step, Dual) else _float(step))
    return steps[0] if not isinstance(steps, Dual) and (steps == steps[0]).all() else steps


def _difference(f: Array, axis: int, h: Any, edge_order: int) -> Array:
    """Difference along one axis, with steps h of one number or one for each pair of entries."""
    n = f.shape[axis]
    if n < (2 if edge_order == 1 else 3):
        raise ValueError(
            "Shape of array too small to calculate a numerical gradient, at least (edge_order + 1) "
            "elements are required."
        )

    def at(*bounds: Any) -> Array:
        return f[_sliced(axis, f.ndim, *bounds)]

    if np.ndim(h) == 0:
        inner = (at(2, None) - at(None, -2)) / (2.0 * h)
        first, second, last, before = h, h, h, h
    else:
        wide = np.reshape(h, (-1, *(1,) * (f.ndim - axis - 1)))
        h1, h2 = wide[:-1], wide[1:]
        a, b = -h2 / (h1 * (h1 + h2)), (h2 - h1) / (h1 * h2)
        c = h1 / (h2 * (h1 + h2))
        inner = a * at(None, -2) + b * at(1, -1) + c * at(2, None)
        first, second, last, before = h[0], h[min(1, n - 2)], h[-1], h[max(-2, 1 - n)]
    if edge_order == 1:
        start, end = (at(1, 2) - at(0, 1)) / first, (at(-1, None) - at(-2, -1)) / last
    else:
        if np.ndim(h) == 0:
            a, b, c = -1.5 / h, 2.0 / h, -0.5 / h
            d, e, g = 0.5 / h, -2.0 / h, 1.5 / h
        else:
            both = first + second
            a, b = -(2.0 * first + second) / (first * both), both / (first * second)
            c = -first / (second * both)
            both = before + last
            d, e = last / (before * both), -both / (before * last)
            g = (2.0 * last + before) / (last * both)
        start = a * at(0, 1) + b * at(1, 2) + c * at(2, 3)
        end = d * at(-3, -2) + e * at(-2, -1) + g * at(-1, None)
    return astype(np.concatenate([start, inner, end], axis), f.dtype)


@composed(np.diff, anywhere=True)
def _diff(x: Array, n: int = 1, axis: int = -1, prepend: Any = ..., append: Any = ...) -> Any:
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    if n == 0:
        return x
    x = operand(x)
    ends = [p if p is ... else _as_end(p, x, axis) for p in (prepend, append)]
    parts = [part for part in (ends[0], x, ends[1]) if part is not ...]
    x = np.concatenate(parts, axis) if len(parts) > 1 else x
    for _ in range(n):
        x = x[_sliced(axis, x.ndim, 1, None)] - x[_sliced(axis, x.ndim, None, -1)]
    return x


def _as_end(end: Any, x: Array, axis: int) -> Array:
    """Stretch a single number to one entry along the axis of x."""
    end = operand_like(end, x)
    if np.ndim(end) > 0:
        return end
    return np.broadcast_to(end, _one_long(x, axis))


def _one_long(x: Array, axis: int) -> Shape:
    """Return the shape of x with the length 1 along the axis."""
    axis = normalize_axis_index(axis, x.ndim)
    return (*x.shape[:axis], 1, *x.shape[axis + 1 :])


@composed(np.ediff1d, anywhere=True)
def _ediff1d(x: Array, to_end: Any = None, to_begin: Any = None) -> Any:
    x = np.ravel(operand(x))
    parts = [part for part in (to_begin, x[1:] - x[:-1], to_end) if part is not None]
    return np.concatenate([astype(np.ravel(operand_like(part, x)), x.dtype) for part in parts])


# The correction is a whole number of periods, which does not move with small changes.
def _unwrap(
    t: Tangent, out: Array, p: Array, discont: Any = None, axis: int = -1, *, period: float = 0
) -> Tangent:
    return t


rule(np.unwrap, _unwrap)

if hasattr(np, "cumulative_sum"):  # since NumPy 2.1

    @composed(np.cumulative_sum)
    def _cumulative_sum(x: Array, *, axis: int | None = None, include_initial: bool = False) -> Any:
        return _cumulative(np.cumsum, np.zeros_like, x, axis, include_initial)

    @composed(np.cumulative_prod)
    def _cumulative_prod(
        x: Array, *, axis: int | None = None, include_initial: bool = False
    ) -> Any:
        return _cumulative(np.cumprod, np.ones_like, x, axis, include_initial)


def _cumulative(fn: Any, initial: Any, x: Array, axis: int | None, include: bool) -> Array:
    if axis is None and x.ndim > 1:
        raise ValueError(
            "For arrays which have more than one dimension ``axis`` argument is required."
        )
    x, axis = np.atleast_1d(x), 0 if axis is None else axis
    running = fn(x, axis=axis)
    if not include:
        return running
    return np.concatenate([initial(primal_of(x), shape=_one_long(x, axis)), running], axis)


# --- convolution of two sequences ----------------------------------------------------------------

_rearranges(np.lib.stride_tricks.sliding_window_view)


@LinearMap
def slide(t: Stack, kernel: Array) -> Stack:
    """Multiply the kernel, of m entries, with each m neighbors along the last axis."""
    return np.matmul(np.lib.stride_tricks.sliding_window_view(t, kernel.shape[0], axis=-1), kernel)


@slide.transposed
def _(ct: Cotangent, shape: Shape, kernel: Array) -> Cotangent:
    return slide(_inside_zeros(ct, kernel.shape[0] - 1), kernel[::-1])


def _inside_zeros(t: Tangent, width: int) -> Tangent:
    """Put zeros on both sides along the last axis."""
    *others, n = linear.shape_of(t)
    return linear_maps.place(t, (..., slice(width, width + n)), (*others, n + 2 * width))


def _convolved(t: Tangent, other: Array) -> Tangent:
    """Convolve the tangent of a sequence with a constant one, in full."""
    (n,), m = linear.shape_of(t), other.shape[0]
    if n >= m:
        return slide(_inside_zeros(t, m - 1), other[::-1])
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(other, n - 1), n)
    product = linear.matmul(linear.reshape(t, (1, n)), np.transpose(windows[:, ::-1]))
    return linear.reshape(product, (n + m - 1,))


def _part(mode: Any, n: int, m: int, turned: bool) -> tuple:
    """Say which part of the full convolution of n with m entries a mode keeps."""
    short, long = min(n, m), max(n, m)
    kind = {0: "v", 1: "s", 2: "f"}.get(mode, str(mode)[:1].lower())
    start, length = {
        "f": (0, n + m - 1),
        # For a shorter first argument np.correlate turns the result around, and so its middle.
        "s": (short // 2 if turned else (short - 1) // 2, long),
        "v": (short - 1, long - short + 1),
    }[kind]
    return (slice(start, start + length),)


@linearizer(np.convolve)
def _convolve(a: Array, v: Array, mode: Any = "full") -> Any:
    a, v = np.atleast_1d(operand(a)), np.atleast_1d(operand(v))
    out = np.convolve(a, v, mode)
    part = _part(mode, a.shape[0], v.shape[0], turned=False)

    def by(mine: Array, other: Array) -> Any:
        return lambda t: linear_maps.index(_convolved(linear.reshape(t, mine.shape), other), part)

    return out, (by(a, v), by(v, a))


@linearizer(np.correlate)
def _correlate(a: Array, v: Array, mode: Any = "valid") -> Any:
    """Convolve with v turned around."""
    a, v = operand(a), operand(v)
    out = np.correlate(a, v, mode)
    part = _part(mode, a.shape[0], v.shape[0], turned=a.shape[0] < v.shape[0])

    def by_a(t: Tangent) -> Tangent:
        return linear_maps.index(_convolved(linear.reshape(t, a.shape), v[::-1]), part)

    def by_v(t: Tangent) -> Tangent:
        turned = linear_maps.index(linear.reshape(t, v.shape), (slice(None, None, -1),))
        return linear_maps.index(_convolved(turned, a), part)

    return out, (by_a, by_v)


for _fn in (np.fft.fftshift, np.fft.ifftshift):
    _rearranges(_fn)

# --- grids and polynomials -----------------------------------------------------------------------


@composed(np.meshgrid)
def _meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple:
    """Spread coordinates over a grid."""
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    like = next(x for x in xi if isinstance(x, Dual))
    order = list(range(len(xi)))
    if indexing == "xy" and len(xi) > 1:
        order[:2] = 1, 0
    along = [
        np.reshape(operand_like(x, like), tuple(-1 if i == to else 1 for i in range(len(xi))))
        for to, x in zip(order, xi, strict=True)
    ]
    grid = along if sparse else np.broadcast_arrays(*along)
    return tuple(np.copy(x) if copy else x for x in grid)


@composed(np.polyval, anywhere=True)
def _polyval(p: Any, x: Any) -> Any:
    """Evaluate a polynomial by Horner's scheme, by its coefficients and by x."""
    if isinstance(x, np.poly1d):
        raise TypeError("np.polyval: x must be an array beside a Dual, got poly1d")
    p, x = (np.asarray(p) if isinstance(p, np.poly1d) else operand(p)), operand(x)
    y = np.zeros_like(primal_of(x))
    for coefficient in p:
        y = y * x + coefficient
    return y


@composed(np.vander)
def _vander(x: Array, N: int | None = None, increasing: bool = False) -> Any:
    """Put the powers of x, N of them from 0 on, side by side."""
    if np.ndim(x) != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    n = x.shape[0] if N is None else N
    x = astype(x, np.promote_types(x.dtype, int))  # as NumPy does
    if n < 1:
        return np.zeros_like(primal_of(x), shape=(*x.shape, n))
    powers = [np.ones_like(primal_of(x)), x][:n]
    while len(powers) < n:
        powers.append(powers[-1] * x)
    return np.stack(powers if increasing else powers[::-1], axis=-1)
