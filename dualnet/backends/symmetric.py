"""What is made of symmetric matrices of inner products of k directions.

Written in NumPy's calls, on this floor because a kernel is made of it too.  A device's libraries
are made for large matrices, and look at numbers or cannot be recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.backends.overridable import exact_product, overridable


@overridable
def eigen(g: Any) -> tuple[Any, Any]:
    """Eigenvalues `(..., k)`, in any order, and the eigenvectors that are the columns of
    `(..., k, k)`, of symmetric matrices g `(..., k, k)`."""
    return np.linalg.eigh(g)


@overridable
def inverse_factor(g: Any) -> Any:
    """L⁻¹, where L is lower triangular and L Lᵀ is g `(k, k)`.

    Raises:
        np.linalg.LinAlgError: g is singular; where a device computes, NaN takes its place.
    """
    return np.linalg.inv(np.linalg.cholesky(g))


def solution_by_eigenvectors(g: Any, right: Any, rounding: float) -> Any:
    """c `(..., k)` of least norm with G c = d, without asking which matrices are singular.

    Args:
        g: symmetric, no negative eigenvalues, `(..., k, k)`.
        right: d, `(..., k)`, of the same dtype.
        rounding: eigenvalues below this share of the largest count as 0.
    """
    values, vectors = eigen(g)
    kept = values > rounding * np.max(values, axis=-1, keepdims=True)
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    along = exact_product(np.swapaxes(vectors, -1, -2), right[..., None])
    return exact_product(vectors, inverse[..., None] * along)[..., 0]
