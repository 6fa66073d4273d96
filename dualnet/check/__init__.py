"""Verification of every operation, layer, loss, optimizer and model: `python -m dualnet.check`.

A `Row` says what to call and from where; `ROWS` is the table; `verify` holds one row to the truth.
"""

import numpy as np

from dualnet.check import functions, layers, losses, models, optimizers
from dualnet.check.operations import OPERATIONS
from dualnet.check.operations.keywords import UFUNCS
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

_SUMS = (np.add, np.multiply)  # the ufuncs of which CuPy has reduce and accumulate
_METHODS_NOT_IN_CUPY = {
    *(getattr(u, name) for u in UFUNCS for name in ("reduce", "accumulate") if u not in _SUMS),
    *(u.reduceat for u in UFUNCS),  # which takes no list of indices there
    *(np.add.at, np.subtract.at),  # likewise
}

_QUANTILES_IN_CUPY = ("linear", "lower", "higher", "midpoint", "nearest")


def _is_of_another_quantile(row: Row) -> bool:
    """Whether CuPy lacks the method of a row of np.quantile, or takes no q of two axes as here."""
    method = row.note.partition("method=")[2]
    known = method in _QUANTILES_IN_CUPY and not (method == "linear" and "by q" in row.note)
    return row.covers is np.quantile and "method=" in row.note and not known


NOT_IN_CUPY = frozenset(
    {
        "_geometric_points",
        "method sort",  # of an array that is not contiguous
        "np.clip-max",
        "np.clip-min and max",
        "np.choose",
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
        "np.max-no entries",
        "np.min-no entries",
        "np.pad-a dict",
        "np.pad-by the constant",
        "np.pad-median",
        "np.piecewise",
        "np.piecewise-otherwise a number",
        "np.quantile-weights",
        "np.reshape-shape=",
        "np.select",  # a default that is an array
        "np.sort-stable",
        "np.std-correction",
        "np.var-correction",
        "operator x @= c",
        "values_of_svd-in svdvals",
    }
    | {row.name for row in ROWS if row.covers in _FUNCTIONS_NOT_IN_CUPY}
    | {row.name for row in ROWS if "-where" in row.name}  # CuPy's reductions take no where=
    | {row.name for row in ROWS if row.note == "initial"}  # and no initial=
    | {row.name for row in ROWS if row.covers in _METHODS_NOT_IN_CUPY}
    | {row.name for row in ROWS if _is_of_another_quantile(row)}
)
"""Rows whose function, or this way of calling it, CuPy does not have (14.2)."""

__all__ = ["LIMITS", "NOT_IN_CUPY", "ROWS", "Result", "Row", "verify", "worst"]
