"""Tangents of matrices, and rules whose function has several results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import Level
from dualnet.core.engine import register, take_apart, with_tangent
from dualnet.core.tables import linear_maps
from dualnet.types import Array, Tangent

# --- matrices ------------------------------------------------------------------------------------


def transposed(t: Tangent) -> Any:
    n = len(linear.shape_of(t))
    return linear.transpose(t, (*range(-n, -2), -1, -2))


def between(left: Array, t: Tangent, right: Array) -> Any:
    return linear.matmul(linear.matmul_from_left(t, left), right)


def swapped(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def identity_like(x: Array) -> Array:
    """Make the identity of the size of x's last axis, of its dtype and kind."""
    i = arange_like(x.shape[-1], x)
    return np.equal(i[:, None], i).astype(x.dtype)


def symmetrized(t: Tangent, x: Array, triangle: str) -> Any:
    """Return the tangent of the symmetric matrix of which LAPACK reads one triangle, "L" or "U"."""
    i = arange_like(x.shape[-1], x)
    row, column = (i[:, None], i) if triangle == "L" else (i, i[:, None])
    return linear.add(
        linear_maps.select(t, row >= column), transposed(linear_maps.select(t, row > column))
    )


def once(linear_map: Callable) -> Callable:
    """Let several maps share the image of a tangent, which is computed for the first of them."""
    last: list = [None, None]

    def shared(t: Tangent) -> Any:
        if last[0] is not t:
            last[:] = t, linear_map(t)
        return last[1]

    return shared


# --- rules ---------------------------------------------------------------------------------------


def several_results(fn: Callable) -> Callable:
    """Register `fn`, which returns a tuple, as `linearizer` does (a decorator).

    The function that is decorated returns `(results, maps)`, where `maps` holds for each result
    what a linearizer would return for it alone, or None for a result that carries no tangent.
    """

    def decorate(function: Callable) -> Callable:
        def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
            primals, tangents = take_apart(args, level)
            results, maps = function(*primals, **kwargs)
            pairs = [
                x
                if m is None
                else with_tangent(fn, level, x, tangents, (m,) if callable(m) else m, (), {})
                for x, m in zip(results, maps, strict=True)
            ]
            return getattr(results, "_make", tuple)(pairs)  # as NumPy names them; CuPy does not

        register(fn, evaluate, [function])
        return function

    return decorate
