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


def by_pieces(formula: Callable[[Array], tuple[Array, ...]], x: Array) -> tuple[Array, ...]:
    """Return formula(x), evaluated on one piece of x after another where x is large.

    Args:
        formula: elementwise; takes an array, and returns arrays of its shape.
        x: anything that the formula takes.  It is one piece on a device, which fuses the calls of a
            formula, where it is differentiated, and where its entries are not in order.
    """
    if not isinstance(x, np.ndarray) or x.nbytes <= _PIECE_BYTES or not x.flags.c_contiguous:
        return formula(x)
    flat = np.reshape(x, (x.size,))
    step = _PIECE_BYTES // x.itemsize
    results: list[Any] = []
    for start in range(0, x.size, step):
        parts = formula(flat[start : start + step])
        results = results or [np.empty_like(flat, dtype=part.dtype) for part in parts]
        for result, part in zip(results, parts, strict=True):
            result[start : start + step] = part
    return tuple(np.reshape(result, x.shape) for result in results)
