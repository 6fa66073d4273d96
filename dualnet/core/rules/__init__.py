"""The derivative rules of NumPy's functions, one file for each kind.

Importing this package registers them all.  Read `elementwise` first: it is a table of
derivatives.
"""

from dualnet.core.rules import convolution, elementwise, indexing, linalg, reductions, shaping

__all__ = ["convolution", "elementwise", "indexing", "linalg", "reductions", "shaping"]
