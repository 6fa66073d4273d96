"""Slopes at kinks: a number by convention, whose own derivative is NaN.

The slope of |x| at 0 counts as 0, so the first derivative of |x|² at 0 is right.  Its second
derivative is 2, but the rules of |x| and of the square would add up to 0.  No rule for |x| alone
can be right there, and NaN is the honest answer (`roots` serves squares that are written at once).

So `bends` says where a function has a kink, and by what movement its argument leaves the kink.  The
second derivative is NaN along two directions that both leave it, and what it would be without the
kink along all others.  A unit that is off does not move, and copies of one entry tie for ever, so
neither is spoiled; this holds in all orders of the two modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import join_lists
from dualnet.core.dual import RULES, Dual, primal_of, primitive
from dualnet.core.engine import elementwise, moves_alike, rule
from dualnet.core.linear import LinearMap
from dualnet.types import Array, Axes, Cotangent, Shape, Stack

# --- where functions have kinks ------------------------------------------------------------------


BENT: list[Callable] = []
"""The functions that have kinks."""


def bends(fn: Callable, kink_of: Callable) -> None:
    """Let the second derivatives of `fn` be NaN at its kinks.

    `kink_of` takes the result and the arguments of fn.  It returns None where there is no kink, or
    `(movement, kink, axes)`: an array that stays 0 while the arguments stay at the kink, where the
    kinks are, and the (negative) axes along which entries of the movement leave a kink together.
    They have length 1 in `kink`; without them, it has the size of the result.
    """

    BENT.append(fn)

    def bend(out: Dual, args: tuple, kwargs: dict) -> Any:
        found = kink_of(out, *join_lists(args, ()), **kwargs)
        return out if found is None else _bent(out, *found)

    extend(fn, bend)


def extend(fn: Callable, change: Callable) -> None:
    """Let `change(out, args, kwargs)` make a rule's result in a nested derivative."""
    plain = RULES[fn]

    def evaluate(level: Any, args: tuple, kwargs: dict) -> Any:
        out = plain.evaluate(level, args, kwargs)
        nested = isinstance(out, Dual) and isinstance(out.primal, Dual)
        return change(out, args, kwargs) if nested else out

    RULES[fn] = plain._replace(evaluate=evaluate)


@primitive
def _bent(out: Array, movement: Array, kink: Array, axes: Axes) -> Array:
    """Return `out`, whose second derivative shall be NaN where the movement leaves the kink."""
    return out


@LinearMap
def _flat(t: Stack, movement: Array, kink: Array, axes: Axes) -> Stack:
    """Make the tangent of a kink, 0; its own derivative is NaN where t leaves the kink."""
    return _zeros(movement, np.logical_and(_leaves(t, axes), kink), axes)


@_flat.transposed
def _(ct: Cotangent, shape: Shape, movement: Array, kink: Array, axes: Axes) -> Cotangent:
    return _flat_back(ct, movement, kink, axes, shape)


@LinearMap
def _flat_back(ct: Stack, movement: Array, kink: Array, axes: Axes, shape: Shape) -> Stack:
    # A cotangent that is 0 here, as that of y in y² is, may not stay 0 if it depends on others.
    counts = isinstance(ct, Dual) or np.not_equal(ct, 0)
    return _zeros_of_all(movement, np.logical_and(counts, kink), axes, (ct.shape[0], *shape))


rule(
    _bent,
    lambda t, out, *_: t,
    lambda t, out, result, movement, kink, axes: linear.reshape(
        _flat(t, movement, primal_of(kink), axes), out.shape
    ),
)


def _leaves(t: Stack, axes: Axes) -> Any:
    """Tell where a tangent moves any of the entries along the axes, which are kept."""
    moves = np.not_equal(primal_of(t), 0)
    return np.any(moves, axis=axes, keepdims=True) if axes else moves


@primitive
def _zeros(movement: Array, left: Array, axes: Axes) -> Array:
    """Make a tangent of zeros, whose derivative is NaN where the kink is left once more."""
    return np.zeros_like(movement, shape=left.shape)


@primitive
def _zeros_of_all(movement: Array, left: Array, axes: Axes, shape: Shape) -> Array:
    """Make a cotangent of zeros, for all that leave a kink together, as `_zeros` does."""
    return np.zeros_like(movement, shape=shape)


@LinearMap
def _nan_if_left(t: Stack, left: Array, axes: Axes) -> Stack:
    """Return NaN where the kink was left and t leaves it too, and else 0."""
    total = np.sum(t, axis=axes, keepdims=True) if axes else t
    return _nan_where(np.logical_and(_leaves(t, axes)[:, None], left), total[:, None])


@_nan_if_left.transposed
def _(ct: Cotangent, shape: Shape, left: Array, axes: Axes) -> Cotangent:
    return linear.broadcast_to(nan_back(ct, left), shape)


@LinearMap
def nan_back(ct: Stack, left: Array) -> Stack:
    """Return NaN where the kink was left, whatever the cotangent `(k, k of left, ...)`."""
    return _nan_where(np.any(np.broadcast_to(left, ct.shape), axis=1), np.sum(ct, axis=1))


@LinearMap
def _nan_for_all(t: Stack, left: Array, axes: Axes, shape: Shape) -> Stack:
    return np.broadcast_to(_nan_if_left.forward(t, left, axes), (t.shape[0], *shape))


@_nan_for_all.transposed
def _(ct: Cotangent, shape: Shape, left: Array, axes: Axes, _of_all: Shape) -> Cotangent:
    return linear.broadcast_to(_nan_back_if_left(ct, left, axes), shape)


@LinearMap
def _nan_back_if_left(ct: Stack, left: Array, axes: Axes) -> Stack:
    mask = np.any(np.logical_and(_leaves(ct, axes), left), axis=1)
    return _nan_where(mask, np.sum(ct, axis=(1, *axes), keepdims=True)[:, 0])


rule(_zeros, lambda t, out, movement, left, axes: _nan_if_left(t, left, axes))
rule(
    _zeros_of_all,
    lambda t, out, movement, left, axes, shape: _nan_for_all(t, left, axes, shape),
)


def _nan_where(mask: Array, x: Array) -> Any:
    """Return NaN where the mask holds, which is NaN in the derivatives of x too, and else 0."""
    return np.where(mask, x * math.nan, 0)


@primitive
def apart(x: Array, y: Array) -> Array:
    """Make zeros that move as x - y does; the difference itself is NaN of two infinities."""
    return np.zeros_like(x, shape=np.broadcast_shapes(x.shape, y.shape))


elementwise(apart, moves_alike, lambda t, out, x, y: -moves_alike(t, out))
