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

__all__ = ["LIMITS", "ROWS", "Result", "Row", "verify", "worst"]
