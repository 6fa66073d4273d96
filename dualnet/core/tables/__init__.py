"""The derivative rules of NumPy's functions, one table for each kind.

Importing this package registers all of them.  Read `elementwise` first.
"""

from dualnet.core.tables import (
    decompositions,
    elementwise,
    indexing,
    inverses,
    linalg,
    norms,
    products,
    reductions,
    shaping,
)

__all__ = [
    "decompositions",
    "elementwise",
    "indexing",
    "inverses",
    "linalg",
    "norms",
    "products",
    "reductions",
    "shaping",
]
