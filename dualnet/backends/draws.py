"""Random numbers on the device: many arrays are drawn by one launch.

A step draws an array for each parameter, and most of these are small: then the launches take longer
than the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dualnet.backends.launching import Module
from dualnet.backends.placeholders import PlaceholderKey, key_words
from dualnet.random import Key
from dualnet.types import Array, Shape

_KINDS = {"normal": 0, "uniform": 1, "signs": 2}
"""Name of what is drawn → its number in cuda/draws.cu."""
_AT_ONCE = 64
"""How many requests one launch serves; the same as in cuda/draws.cu."""
_DRAWS_AT_ONCE = 4
"""How many numbers a thread draws at a time; the same as in cuda/draws.cu."""
_ROUNDS = 2
"""How many times a thread draws so many; the same as in cuda/draws.cu."""

_DRAWS = Module("draws")
_WORDS = ("out", "size", "start", "key", "stream", "later")
_FIELDS = dict.fromkeys(_WORDS, np.uint64) | dict.fromkeys(("kind", "first"), np.uint32)
_REQUESTS = np.dtype([(name, dtype, (_AT_ONCE,)) for name, dtype in _FIELDS.items()])
"""The struct `Requests` of cuda/draws.cu."""


@dataclass(frozen=True)
class Draw:
    """A part of a key's sequence of random numbers.

    Attributes:
        kind: `normal`, `uniform` or `signs`, as the methods of `Backend` are called.
        key: the key, or the placeholder of one in a recorded step.
        shape: the shape of the array to draw.
        dtype: its dtype, float32 or float64.
        start: the place in the key's sequence from which the numbers are taken.
    """

    kind: str
    key: Key | PlaceholderKey
    shape: Shape
    dtype: np.dtype
    start: int = 0


def fill(out: Array, draw: Draw) -> None:
    """Draw numbers into an array; see `fill_many`."""
    fill_many([out], [draw])


def fill_many(outs: Sequence[Array], draws: Sequence[Draw]) -> None:
    """Draw numbers into several arrays, by one launch for each dtype and each 64 arrays.

    The numbers are those of single draws, bit for bit.

    Args:
        outs: contiguous CuPy arrays.
        draws: what to draw into each; an array has the shape and the dtype of its draw.

    Raises:
        ValueError: an array is not contiguous, or of another shape or dtype than its draw; or there
            are more draws than arrays, or fewer.
    """
    by_dtype: dict[np.dtype, list[tuple[Array, Draw]]] = {}
    for out, draw in zip(outs, draws, strict=True):
        if out.shape != draw.shape or out.dtype != draw.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"fill_many draws {draw.shape} {np.dtype(draw.dtype)} into a contiguous array of "
                f"this shape and dtype, got {out.shape} {out.dtype} with strides {out.strides}"
            )
        if out.size:
            by_dtype.setdefault(out.dtype, []).append((out, draw))
    for dtype, pairs in by_dtype.items():
        for at in range(0, len(pairs), _AT_ONCE):
            _launch(dtype, pairs[at : at + _AT_ONCE])


def _launch(dtype: np.dtype, pairs: Sequence[tuple[Array, Draw]]) -> None:
    """Serve at most 64 requests of one dtype, for arrays that are not empty."""
    columns: list[tuple[int, ...]] = []
    blocks = 0
    for out, draw in pairs:
        size, start = math.prod(draw.shape), draw.start
        words, later = key_words(draw.key)
        address = 0 if later is None else later.data.ptr
        columns.append((out.data.ptr, size, start, *words, address, _KINDS[draw.kind], blocks))
        quads = -(-(start + size) // _DRAWS_AT_ONCE) - start // _DRAWS_AT_ONCE
        blocks += -(-quads // (_ROUNDS * _DRAWS.threads))
    requests = np.zeros(1, _REQUESTS)
    requests["first"] = 2**32 - 1
    for name, numbers in zip(_FIELDS, zip(*columns, strict=True), strict=True):
        requests[name][0, : len(pairs)] = np.array(numbers, np.uint64)
    _DRAWS.launch("draw", dtype, blocks, requests)
