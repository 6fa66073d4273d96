"""Operations: one row for each way of calling a function that has a derivative rule.

Rows take the array module as their first argument, so that the same row runs on NumPy and on JAX.
"""

from dualnet.check.operations import (
    convolution,
    decompositions,
    elementwise,
    indexing,
    keywords,
    linalg,
    methods,
    ranges,
    rearranging,
    reductions,
    shaping,
    signals,
    statistics,
)

OPERATIONS = [
    *elementwise.ROWS,
    *reductions.ROWS,
    *keywords.ROWS,
    *linalg.ROWS,
    *decompositions.ROWS,
    *convolution.ROWS,
    *shaping.ROWS,
    *rearranging.ROWS,
    *statistics.ROWS,
    *signals.ROWS,
    *indexing.ROWS,
    *ranges.ROWS,
    *methods.ROWS,
]
"""All rows of this package."""

__all__ = ["OPERATIONS"]
