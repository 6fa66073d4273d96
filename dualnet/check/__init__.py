"""Verification of every operation, layer, loss, optimizer and model: `python -m dualnet.check`.

A `Row` says what to call and from where; `ROWS` is the table; `verify` holds one row to the truth.
"""

import numpy as np

from dualnet.check import functions, layers, losses, models, optimizers
from dualnet.check.operations import OPERATIONS
from dualnet.check.table import Row
from dualnet.check.verify import LIMITS, Result, verify, worst

ROWS = [
    *OPERATIONS,
    *functions.ROWS,
    *layers.ROWS,
    *losses.ROWS,
    *optimizers.ROWS,
    *models.ROWS,
]
"""The table."""

_FUNCTIONS_NOT_IN_CUPY = (
    *(np.vecdot, getattr(np, "matvec", None), getattr(np, "vecmat", None), np.linalg.vecdot),
    *(np.linalg.tensordot, np.linalg.multi_dot, np.linalg.svdvals),
    *(np.linalg.vector_norm, np.linalg.matrix_norm),
    *(np.linalg.diagonal, np.linalg.outer, np.linalg.trace),
    *(np.block, np.insert, np.nanpercentile, np.nanquantile, getattr(np, "unstack", None)),
)

NOT_IN_CUPY = frozenset(
    {
        "_geometric_points",
        "np.clip-max",
        "np.clip-min and max",
        "np.geomspace",
        "np.geomspace-axis",
        "np.geomspace-negative",
        "np.linalg.cholesky-upper",
        "np.linalg.pinv-hermitian",
        "np.linalg.pinv-rtol, drops a value",
        "np.linalg.solve-(2, 1, 3, 3)(3, 3, 2)",
        "np.linalg.solve-(2, 3, 3)(3, 2)",
        "np.linalg.solve-(3, 3)(2, 3, 2)",
        "np.linalg.svd-hermitian",
        "np.linalg.svd-hermitian, values",
        "np.quantile-weights",
        "np.reshape-shape=",
        "np.sort-stable",
        "np.std-correction",
        "np.var-correction",
    }
    | {row.name for row in ROWS if row.covers in _FUNCTIONS_NOT_IN_CUPY}
    | {row.name for row in ROWS if "-where" in row.name}  # CuPy's reductions take no where=
)
"""Rows whose function, or this way of calling it, CuPy does not have (14.2)."""

__all__ = ["LIMITS", "NOT_IN_CUPY", "ROWS", "Result", "Row", "verify", "worst"]
