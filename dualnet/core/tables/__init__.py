"""The derivative rules of NumPy's functions, one table for each kind.

Importing this package registers all of them.  Read `elementwise` first.
"""

from dualnet.core.tables import (
    elementwise,
    indexing,
    linalg,
    rearranging,
    reductions,
    shaping,
    signals,
    statistics,
    without_nan,
)

__all__ = [
    "elementwise",
    "indexing",
    "linalg",
    "rearranging",
    "reductions",
    "shaping",
    "signals",
    "statistics",
    "without_nan",
]
