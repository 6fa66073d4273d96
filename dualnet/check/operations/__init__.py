"""Operations: one row for each way of calling a function that has a derivative rule.

Rows take the array module as their first argument, so that the same row runs on NumPy and on JAX.
"""

from dualnet.check.operations import (
    convolution,
    decompositions,
    elementwise,
    indexing,
    linalg,
    methods,
    reductions,
    shaping,
)

OPERATIONS = [
    *elementwise.ROWS,
    *reductions.ROWS,
    *linalg.ROWS,
    *decompositions.ROWS,
    *convolution.ROWS,
    *shaping.ROWS,
    *indexing.ROWS,
    *methods.ROWS,
]
"""All rows of this package."""

__all__ = ["OPERATIONS"]
