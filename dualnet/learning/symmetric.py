"""What is made of symmetric matrices of inner products of k directions.

A device's libraries are made for large ones, and look at numbers or cannot be recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.backends.replaceable import replaceable


@replaceable
def eigen(g: Any) -> tuple[Any, Any]:
    """Eigenvalues `(n, k)`, in any order, and the eigenvectors that are the columns of `(n, k, k)`,
    of symmetric matrices g `(n, k, k)`."""
    return np.linalg.eigh(g)


@replaceable
def inverse_factor(g: Any) -> Any:
    """L⁻¹, where L is lower triangular and L Lᵀ is g `(k, k)`.

    Raises:
        np.linalg.LinAlgError: g is singular; where a device computes, NaN takes its place.
    """
    return np.linalg.inv(np.linalg.cholesky(g))
