"""From k directional derivatives to one gradient.

The estimate is Σ c_i v_i; an aggregation says which coefficients c follow from the derivatives
d_i = ∇f·v_i and, where it needs them, from the inner products of the directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dualnet.backends.overridable import overridable
from dualnet.types import Array

Aggregation = Callable[[Array, Callable[[], Array], int], Array]
"""`aggregation(d, gram, n)`: coefficients `(k,)` from d `(k,)`; `gram()` gives the `(k, k)` inner
products of the directions, over all n parameters together."""


def mean(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Average k forward gradients, which is unbiased: c = d / k.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", Eq. 2, for k = 1.
    """
    return d / len(d)


def projection(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Project ∇f onto the span of the directions, orthogonally: c solves G c = d.

    P_U(∇f) = V (VᵀV)⁻¹ Vᵀ∇f is the point of the span nearest to ∇f: always a descent direction,
    and ∇f itself where the span holds it (k ≥ n).  Dependent directions make G singular; then
    least squares gives the coefficients of smallest norm, with the same projection.
    Source: Flügel et al. 2024, "Beyond Backpropagation", Eq. 8-9.
    """
    rounding = max(float(np.finfo(d.dtype).eps), len(d) * float(np.finfo(np.float64).eps))
    return least_norm(gram().astype(np.float64), d.astype(np.float64), rounding).astype(d.dtype)


@overridable
def least_norm(g: Array, right: Array, rounding: float) -> Array:
    """Return the solution of G c = d, the one of least norm where G is singular.

    Args:
        g: symmetric, no negative eigenvalues, `(k, k)`.
        right: d, `(k,)`.
        rounding: what rounding leaves of a singular matrix, relative to its entries: of the inner
            products, and of the solver.
    """
    try:
        lower = np.linalg.cholesky(g)
        pivots = np.square(np.diagonal(lower))
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    # A Cholesky factor of a singular matrix may exist by rounding, and then says anything.
    if pivots.min() <= 1e3 * rounding * np.diagonal(g).max():
        # Singular values above rounding count, however small: dropping one loses a direction.
        return np.linalg.lstsq(g, right, rcond=rounding)[0]
    return np.linalg.solve(lower.T, np.linalg.solve(lower, right))


def total(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Sum up k forward gradients: c = d."""
    return d


def times_n(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Scale the mean of directions of length 1 back to be unbiased: c = n d / k."""
    return d * (n / len(d))


def largest(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Take the forward gradient of the direction of largest |d| alone."""
    return only(np.argmax(np.abs(d)), d)


def steepest(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Take the forward gradient d·v of the steepest direction alone, that of largest |d| / ‖v‖.

    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """
    return only(np.argmax(slopes(d, gram)), d)


def steepest_projection(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Project ∇f onto the steepest direction alone: `steepest` divided by ‖v‖² (ours)."""
    return (steepest(d, gram, n) / squared_lengths(gram)).astype(d.dtype)


def near_best(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Sum up the directions that are nearly as steep as the best, over k: c = d / k or 0.

    Near is a slope |d| / ‖v‖ of at least the largest one less 0.1.  For a gradient of length 1 the
    slopes are the cosines; for another one, what is near depends on its length.
    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """
    steep = slopes(d, gram)
    return np.where(steep >= np.max(steep) - 0.1, d / len(d), 0).astype(d.dtype)


def better_half(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Average the directions whose |d| is at least half the largest (ours)."""
    near = np.abs(d) >= 0.5 * np.max(np.abs(d))
    return np.where(near, d / np.sum(near), 0).astype(d.dtype)


def only(best: Array, d: Array) -> Array:
    """Return d at one place and 0 elsewhere."""
    return np.where(np.arange(len(d), like=d) == best, d, 0)


def slopes(d: Array, gram: Callable[[], Array]) -> Array:
    """Return |d| / ‖v‖ of each direction: the cosine of its angle to ∇f, times ‖∇f‖."""
    return np.abs(d) / np.sqrt(squared_lengths(gram))


def squared_lengths(gram: Callable[[], Array]) -> Array:
    """Return ‖v‖² of each direction, and 1 for a direction that is 0, which has d = 0."""
    squares = np.diagonal(gram())
    return np.where(squares > 0, squares, 1.0)


def corrected_mean(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Divide the mean by its published expected length, which is to make it as long as ∇f.

    For directions of length 1 that length is sqrt(2 / (π n)) ‖∇f‖ for k = 1, and published as
    sqrt((n + k) / (1 + k)) / n ‖∇f‖ for k > 1; for others it is their mean squared length times as
    much.  The second is too small: in many dimensions the mean is E[χ_k] / k / sqrt(n) ‖∇f‖ long,
    which is 1.085 times as much for k = 2, 1.05 for k = 4 and 1.015 for k = 16.
    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """
    k = len(d)
    expected = math.sqrt(2 / (math.pi * n)) if k == 1 else math.sqrt((n + k) / (1 + k)) / n
    squares = np.mean(np.diagonal(gram()))
    squared_length = np.where(squares > 0, squares, 1.0)  # directions that are 0 have d = 0
    return mean(d, gram, n) / (expected * squared_length).astype(d.dtype)


def corrected_projection(d: Array, gram: Callable[[], Array], n: int) -> Array:
    """Divide the projection by its expected length, so that it is about as long as ∇f.

    For isotropic directions that length is E[χ_k] / E[χ_n] ‖∇f‖, and ‖∇f‖ for k ≥ n.
    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """
    k = len(d)
    return projection(d, gram, n) / (_expected_chi(k) / _expected_chi(n) if k < n else 1.0)


def _expected_chi(k: int) -> float:
    """Return the expected length of k independent standard normal numbers."""
    return math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))


WEIGHT_AGGREGATIONS: dict[str, Aggregation] = {
    "mean": mean,
    "sum": total,
    "mean-times-n": times_n,
    "projection": projection,
    "largest": largest,
    "steepest": steepest,
    "near-best": near_best,
    "steepest-projection": steepest_projection,
    "better-half": better_half,
    "corrected-mean": corrected_mean,
    "corrected-projection": corrected_projection,
}
"""Name → how k directional derivatives become one gradient; the functions give their sources."""
