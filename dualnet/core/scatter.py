"""Writing into zeros, as functions: what the transposes of indexing are made of.

NumPy writes in place; duals are immutable.  These two make the array and write in one go, so
they can have a derivative rule like any other function.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.backends.replaceable import replaceable
from dualnet.core.dispatch import primitive

Shape = tuple[int, ...]


@primitive
def zeros_with(x: Any, key: Any, shape: Shape) -> Any:
    """An array of zeros of `shape` with `x` written at the basic index `key`."""
    result = np.zeros_like(x, shape=shape)
    result[key] = x
    return result


@primitive
@replaceable
def zeros_plus(x: Any, positions: np.ndarray, shape: Shape) -> Any:
    """Zeros `(k, *shape)` with `x` `(k, ...)` added at flat positions, repeats adding up."""
    k, size = x.shape[0], math.prod(shape)
    rows = np.reshape(x, (k, positions.size))
    flat = np.ravel(positions)
    result = np.zeros_like(x, shape=(k, size))
    for row, total in zip(rows, result, strict=True):
        total[:] = np.bincount(flat, weights=row, minlength=size)  # sums in double precision
    return np.reshape(result, (k, *shape))
