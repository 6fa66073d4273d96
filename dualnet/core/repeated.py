"""Writing at an index that may name an entry more than once.

NumPy writes in order, so the last value stays.  On a device the values are written at the same
time, and any of them may stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.types import Array


def write_at(x: Array, key: Any, value: Any) -> Array:
    """Return x after `x[key] = value`, where the last value stays on every backend.

    Args:
        x: array that nobody else holds, because it may be written to.
        key: every kind of index that NumPy knows.
        value: array of x's kind, or a number; it broadcasts to the shape of `x[key]`.
    """
    if isinstance(x, np.ndarray) or not _may_repeat(key):
        x[key] = value
        return x
    positions = np.reshape(np.arange(x.size, like=x), x.shape)[key]
    if not hasattr(value, "__array_function__"):
        value = np.asarray(value, like=x)
    extra = max(value.ndim - positions.ndim, 0)  # NumPy ignores such axes here
    value = np.broadcast_to(np.reshape(value, value.shape[extra:]), positions.shape)
    order = np.argsort(np.ravel(positions), kind="stable")
    positions = np.ravel(positions)[order]
    differs = np.not_equal(positions[1:], positions[:-1])
    last = np.concatenate([differs, np.ones_like(positions[:1], bool)])
    # All values but the last of each position go to a place behind the end, which is cut off.
    longer = np.concatenate([np.ravel(x), np.zeros_like(x, shape=(1,))])
    longer[np.where(last, positions, x.size)] = np.ravel(value)[order]
    return np.reshape(longer[:-1], x.shape)


def _may_repeat(key: Any) -> bool:
    """Tell whether a key holds arrays or lists of integers, which may name an entry twice."""
    items = key if isinstance(key, tuple) else (key,)
    arrays = (x if hasattr(x, "dtype") else np.asarray(x) for x in items if _is_array(x))
    return any(a.dtype.kind in "iu" and a.ndim for a in arrays)


def _is_array(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or hasattr(x, "dtype")
