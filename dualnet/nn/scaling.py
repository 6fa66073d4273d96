"""y · gain + bias as one function, whose tangents are added up while they are in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.core import linear
from dualnet.core.dual import Dual, Level, primitive
from dualnet.core.engine import register, take_apart, with_tangent
from dualnet.types import Array

_BLOCK_BYTES = 1 << 18
"""A block of a tangent is written once and added to twice, so it should stay in the cache."""


@primitive
def scaled(y: Array, gain: Array, bias: Array) -> Array:
    """Return y · gain + bias for y `(N, ...)`, and gain and bias that broadcast to an example."""
    if not are_of_host(y, gain, bias):
        return y * gain + bias
    out = y * _spread(gain, y)
    out += _spread(bias, y)
    return out


def _spread(x: Array, y: Array) -> Array:
    """Repeat x for an example of y: NumPy's loops are slow along the few channels of an image."""
    return np.ascontiguousarray(np.broadcast_to(x, y.shape[1:]))


_MAPS = (
    lambda t, out, y, gain, bias: linear.scale(t, gain),
    lambda t, out, y, gain, bias: linear.scale(linear.align(t, out.ndim), y),
    lambda t, out, y, gain, bias: linear.stretch(t, out.shape),
)


def _evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
    primals, tangents = take_apart(args, level)
    out = scaled(*primals)
    if are_of_host(*primals, *tangents):
        return Dual(out, _sum_of_tangents(*primals, *tangents), level)
    y, gain, bias = primals
    if are_of_host(*primals):
        gain = _spread(gain, y)
    return with_tangent(scaled, level, out, tangents, _MAPS, (out, y, gain, bias), {})


register(scaled, _evaluate, _MAPS, leading=2)


def _sum_of_tangents(y: Array, gain: Array, _b: Array, t: Array, by_g: Array, by_b: Array) -> Array:
    """Return the stack t · gain + y · by_g + by_b for each direction, some examples at a time."""
    out = np.empty_like(t, order="C")
    gain = _spread(gain, y)
    step = max(1, _BLOCK_BYTES // max(1, gain.nbytes))
    for direction, change, shift, moved in zip(t, by_g, by_b, out, strict=True):
        change, shift = _spread(change, y), _spread(shift, y)
        for start in range(0, len(y), step):
            some = slice(start, start + step)
            block = np.multiply(direction[some], gain, out=moved[some])
            block += y[some] * change
            block += shift
    return out
