"""Functions of the small symmetric matrices that hold the inner products of k directions.

They are in this layer because kernels of the CuPy backend replace them or call them.  A device's
own libraries are made for large matrices; they wait for results, or a CUDA graph cannot record
them.
"""

from __future__ import annotations

import numpy as np

from dualnet.backends.overridable import exact_matmul, overridable
from dualnet.types import Array


@overridable
def eigen(g: Array) -> tuple[Array, Array]:
    """Decompose symmetric matrices g `(..., k, k)`.

    Returns:
        The eigenvalues `(..., k)`, in any order, and matrices `(..., k, k)` whose columns are the
        eigenvectors in the same order.
    """
    return np.linalg.eigh(g)


@overridable
def inverse_factor(g: Array) -> Array:
    """Return L⁻¹ `(k, k)`, where L is lower triangular and L Lᵀ is g `(k, k)`.

    Raises:
        np.linalg.LinAlgError: g is not positive definite.  A device returns NaN instead.
    """
    return np.linalg.inv(np.linalg.cholesky(g))


def solution_by_eigenvectors(g: Array, right: Array, rounding: float) -> Array:
    """Return the solution c `(..., k)` of G c = d that has the least norm.

    It treats singular matrices like the others, so no device has to wait for the answer whether a
    matrix is singular.

    Args:
        g: G, symmetric matrices without negative eigenvalues, `(..., k, k)`.
        right: d, `(..., k)`, of the same dtype.
        rounding: eigenvalues below this share of the largest one count as zero.
    """
    values, vectors = eigen(g)
    kept = values > rounding * np.max(values, axis=-1, keepdims=True)
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    along = exact_matmul(np.swapaxes(vectors, -1, -2), right[..., None])
    return exact_matmul(vectors, inverse[..., None] * along)[..., 0]
