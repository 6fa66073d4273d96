"""Copies of many arrays from the device to the host and back, each time by one transfer; and
waiting for them.

A transfer makes the host wait, however little it moves.  So the arrays lie side by side while they
are moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from dualnet.backends import lazy
from dualnet.backends.blocks import Layout
from dualnet.types import Array


def to_host(arrays: Sequence[Any]) -> list[np.ndarray]:
    """Return numbers and arrays as NumPy arrays; see `overridable.to_host`."""
    there = [x for x in arrays if _is_on_device(x)]
    layout = Layout(there)
    memory = cupy.empty((layout.size,), np.uint8)
    lazy.store(there, layout.arrays_in(memory))
    moved = iter(layout.arrays_in(cupy.asnumpy(memory)))
    return [next(moved) if _is_on_device(x) else np.asarray(x) for x in arrays]


def finish(arrays: Sequence[Any]) -> None:
    """Compute arrays, and wait for them; see `overridable.finish`."""
    lazy.force(list(arrays))
    cupy.cuda.get_current_stream().synchronize()


def back_from_host(arrays: Sequence[np.ndarray], like: Sequence[Any]) -> list[Array]:
    """Return NumPy arrays where others are; see `overridable.back_from_host`.

    For a lazy array a lazy one is returned.
    """
    going = [a for a, x in zip(arrays, like, strict=True) if _is_on_device(x)]
    layout = Layout(going)
    memory = np.empty((layout.size,), np.uint8)
    for place, a in zip(layout.arrays_in(memory), going, strict=True):
        place[...] = a
    moved = iter(layout.arrays_in(cupy.asarray(memory)))
    return [
        _of_kind(next(moved), x) if _is_on_device(x) else a
        for a, x in zip(arrays, like, strict=True)
    ]


def _is_on_device(x: Any) -> bool:
    return isinstance(x, (cupy.ndarray, lazy.LazyArray))


def _of_kind(array: Array, like: Any) -> Array:
    return lazy.known(array) if isinstance(like, lazy.LazyArray) else array
