"""The derivative rules of NumPy's functions, one table for each kind.

Importing this package registers all of them.  Read `elementwise` first.
"""

from dualnet.core.tables import (
    decompositions,
    eigen,
    elementwise,
    equal_values,
    indexing,
    inverses,
    keywords,
    kinks,
    linalg,
    matrices,
    norms,
    products,
    ranges,
    rearranging,
    reductions,
    roots,
    shaping,
    signals,
    statistics,
    ufunc_methods,
    without_nan,
    writing,
)

__all__ = [
    "decompositions",
    "eigen",
    "elementwise",
    "equal_values",
    "indexing",
    "inverses",
    "keywords",
    "kinks",
    "linalg",
    "matrices",
    "norms",
    "products",
    "ranges",
    "rearranging",
    "reductions",
    "roots",
    "shaping",
    "signals",
    "statistics",
    "ufunc_methods",
    "without_nan",
    "writing",
]
