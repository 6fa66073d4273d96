"""From k directional derivatives to one gradient.

The estimate is Σ c_i v_i; an aggregation says which coefficients c follow from the derivatives
d_i = ∇f·v_i and, where it needs them, from the inner products of the directions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Aggregation = Callable[[Any, Callable[[], Any]], Any]
"""`aggregation(d, gram)`: coefficients `(k,)` from d `(k,)`; `gram()` gives the `(k, k)` inner
products of the directions, over all parameters together."""


def mean(d: Any, gram: Callable[[], Any]) -> Any:
    """c = d / k, the average of k forward gradients; unbiased.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", Eq. 2, for k = 1.
    """
    return d / len(d)


def projection(d: Any, gram: Callable[[], Any]) -> Any:
    """c solves G c = d: the orthogonal projection of ∇f onto the span of the directions.

    P_U(∇f) = V (VᵀV)⁻¹ Vᵀ∇f is the point of the span nearest to ∇f: always a descent direction,
    and ∇f itself where the span holds it (k ≥ n).  Dependent directions make G singular; then
    least squares gives the coefficients of smallest norm, with the same projection.
    Source: Flügel et al. 2024, "Beyond Backpropagation", Eq. 8-9.
    """
    g = np.asarray(gram(), np.float64)
    right = np.asarray(d, np.float64)
    try:
        lower = np.linalg.cholesky(g)
    except np.linalg.LinAlgError:
        # Singular values below the rounding of the inner products say nothing.  Those above
        # count, however small: each dropped one would lose a direction of the span.
        rounding = float(np.finfo(d.dtype).eps)
        return np.linalg.lstsq(g, right, rcond=rounding)[0].astype(d.dtype)
    return np.linalg.solve(lower.T, np.linalg.solve(lower, right)).astype(d.dtype)


AGGREGATIONS: dict[str, Aggregation] = {"mean": mean, "projection": projection}
