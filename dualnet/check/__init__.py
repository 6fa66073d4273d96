"""Verification of every operation, layer, loss, optimizer and model: `python -m dualnet.check`.

A `Row` says what to call and from where; `ROWS` is the table; `verify` holds one row to the truth.
"""

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

NOT_IN_CUPY = frozenset(
    {
        "_geometric_points",
        "np.clip-max",
        "np.clip-min and max",
        "np.geomspace",
        "np.geomspace-axis",
        "np.geomspace-negative",
        "np.linalg.diagonal",
        "np.linalg.diagonal-offset",
        "np.linalg.diagonal-rank 3",
        "np.linalg.outer",
        "np.linalg.solve-(2, 1, 3, 3)(3, 3, 2)",
        "np.linalg.solve-(2, 3, 3)(3, 2)",
        "np.linalg.solve-(3, 3)(2, 3, 2)",
        "np.linalg.trace",
        "np.linalg.trace-offset",
        "np.linalg.trace-rank 3",
        "np.reshape-shape=",
        "np.sort-stable",
        "np.std-correction",
        "np.var-correction",
    }
)
"""Rows whose function, or this way of calling it, CuPy does not have (14.2)."""

__all__ = ["LIMITS", "NOT_IN_CUPY", "ROWS", "Result", "Row", "verify", "worst"]
