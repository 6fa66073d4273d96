"""Formulas on large arrays, evaluated piece by piece, so that intermediate results stay in cache.

Each of NumPy's calls reads and writes whole arrays.  A formula of ten calls, on arrays that do not
fit into the cache, takes most of its time for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.types import Array

_PIECE_BYTES = 1 << 17
"""A few arrays of this size fit into the second-level cache, and a loop over one of them takes
several times as long as its start."""


def by_pieces(formula: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """Return formula(*arrays), evaluated on one piece of them after another where they are large.

    Args:
        formula: elementwise; takes arrays of one shape, and returns arrays of that shape.
        arrays: anything that the formula takes.  They are one piece on a device, which fuses the
            calls of a formula, where they are differentiated, and where their shapes differ or
            their entries are not in order.
    """
    x = arrays[0]
    plain = all(type(y) is np.ndarray and y.flags.c_contiguous for y in arrays)
    if not plain or x.nbytes <= _PIECE_BYTES or any(y.shape != x.shape for y in arrays):
        return formula(*arrays)
    flat = [np.reshape(y, (x.size,)) for y in arrays]
    step = _PIECE_BYTES // x.itemsize
    results: list[Any] = []
    for start in range(0, x.size, step):
        parts = formula(*(y[start : start + step] for y in flat))
        results = results or [np.empty_like(flat[0], dtype=part.dtype) for part in parts]
        for result, part in zip(results, parts, strict=True):
            result[start : start + step] = part
    return tuple(np.reshape(result, x.shape) for result in results)
