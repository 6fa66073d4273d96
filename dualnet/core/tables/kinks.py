"""Slopes at kinks: a number by convention, whose own derivative is NaN.

The slope of |x| at 0 counts as 0, so the first derivative of |x|² at 0 is right.  Its second
derivative is 2, but the rules of |x| and of the square would add up to 0.  No rule for |x| alone
can be right there, and NaN is the honest answer.

With forward mode outside, NaN is given along the directions that leave the kink alone.  Reverse
mode does not see which entries move: a unit that is off stays at 0, and copies of one entry tie
for ever.  NaN there would spoil right derivatives.  So with reverse mode outside, single entries at
a kink and entries that tie keep their slope by convention, as they do in the first derivative;
norms and deviations that are 0, where a whole vector vanishes, still give NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dual import Dual, primitive
from dualnet.core.engine import elementwise, moves_alike
from dualnet.core.linear import LinearMap
from dualnet.types import Array, Axes, Cotangent, Shape, Stack


def slope_at_kink(slope: Array, x: Array, zero: Array) -> Array:
    """Return the slope of single entries, whose own derivative shall be NaN where `zero` is 0.

    Only a nested derivative needs this, so it costs nothing where x is no Dual.
    """
    if not isinstance(x, Dual):
        return slope
    return slope + _undetermined_if_parted(x, np.equal(zero, 0))


def slope_of_norm(slope: Array, x: Array, zero: Array) -> Array:
    """Return the slope of a norm of x, whose own derivative shall be NaN where `zero` holds."""
    return slope + _undetermined_if_moved(x, zero) if isinstance(x, Dual) else slope


def slope_of_root(slope: Array, root: Array) -> Array:
    """Return the slope of a square root, whose own derivative shall be NaN where the root is 0.

    The tangent of a root counts as 0 there, so it does not tell whether the root moves.
    """
    return slope + _undetermined(root) if isinstance(root, Dual) else slope


def share_at_tie(share: Array, x: Array, y: Array, tie: Array) -> Array:
    """Return `share`, whose own derivative shall be NaN where x and y tie and then part.

    Where one of the two is a constant, as in relu, the kink stays and the second derivative is 0 by
    convention; where both move alike, as in a pool of units that are all off, there is no kink.
    """
    if isinstance(x, Dual) and isinstance(y, Dual):
        return share + _undetermined_if_parted(_apart(x, y), tie)
    return share


def shares_of_ties(share: Array, x: Array, extremum: Array, hit: Array, axes: Axes) -> Array:
    """Return the shares of entries that tie, as `share_at_tie` does for two.

    Args:
        share: what each entry of x has of the tangent.
        x, extremum: the entries, and the largest or smallest of them along `axes`, which are kept.
        hit: where x is the extremum.
        axes: negative.
    """
    if not isinstance(x, Dual):
        return share
    ties = np.logical_and(hit, np.sum(hit, axis=axes, keepdims=True) > 1)
    apart = _undetermined_if_parted(_apart(x, extremum), ties)
    return np.where(hit, share + np.sum(apart, axis=axes, keepdims=True), share)


def _nan_where(mask: Array, dtype: Any) -> Array:
    return np.where(mask, np.nan, 0).astype(dtype)


@primitive
def _undetermined(root: Array) -> Array:
    """Make zeros, whose derivative is NaN where the root is 0, along every direction."""
    return np.zeros_like(root)


elementwise(_undetermined, lambda t, out, root: t * _nan_where(np.equal(root, 0), out.dtype))


@primitive
def _undetermined_if_moved(x: Array, kink: Array) -> Array:
    """Make zeros, whose derivative by x is NaN at the kink along the directions that move x."""
    return np.zeros_like(x, shape=np.broadcast_shapes(x.shape, kink.shape))


@LinearMap
def _nan_if_moved(t: Stack, kink: Array) -> Stack:
    """Return NaN where the kink is and t is not 0, and else 0; the transpose is NaN at the kink."""
    return _nan_where(np.logical_and(kink, np.not_equal(t, 0)), t.dtype)


@_nan_if_moved.transposed
def _(ct: Cotangent, shape: Shape, kink: Array) -> Cotangent:
    return linear.unbroadcast(linear.scale(ct, _nan_where(kink, ct.dtype)), shape)


elementwise(_undetermined_if_moved, lambda t, out, x, kink: _nan_if_moved(t, kink))


@primitive
def _apart(x: Array, y: Array) -> Array:
    """Make zeros that move as x - y does; the difference itself is NaN of two infinities."""
    return np.zeros_like(x, shape=np.broadcast_shapes(x.shape, y.shape))


elementwise(_apart, moves_alike, lambda t, out, x, y: -moves_alike(t, out))


@primitive
def _undetermined_if_parted(apart: Array, kink: Array) -> Array:
    """Make zeros, whose derivative is NaN at the kink, along directions that lead away from it."""
    return np.zeros_like(apart, shape=np.broadcast_shapes(apart.shape, kink.shape))


@LinearMap
def _nan_if_parted(t: Stack, kink: Array) -> Stack:
    """Return NaN where the kink is and t is not 0, and else 0; the transpose is 0."""
    return _nan_if_moved.forward(t, kink)


@_nan_if_parted.transposed
def _(ct: Cotangent, shape: Shape, _kink: Array) -> Cotangent:
    return linear.unbroadcast(linear.scale(ct, 0.0), shape)


elementwise(_undetermined_if_parted, lambda t, out, apart, kink: _nan_if_parted(t, kink))
