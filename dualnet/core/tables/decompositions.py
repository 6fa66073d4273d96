"""Eigenvalues, singular values, QR and Cholesky factors.

What holds where values are equal or 0 stands in `equal_values`.  The signs of vectors are those of
LAPACK, and derivatives hold while the signs stay.
Sources: Giles 2008, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation"; Townsend 2016, "Differentiating the singular value decomposition".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import composed, linearizer
from dualnet.core.tables import linear_maps
from dualnet.core.tables.equal_values import (
    one_over_gaps,
    rounding,
    scale_with_nan,
    share,
    shares_of,
    undetermined,
    values_from,
    which_equal,
    zeros_at_kink,
)
from dualnet.core.tables.matrices import (
    between,
    identity_like,
    once,
    several_results,
    swapped,
    symmetrized,
    transposed,
)
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Tangent

# --- eigenvalues of symmetric matrices ---


def _eigen(a: Array, triangle: Any) -> tuple:
    """Decompose a; return eigh's result, the map to Vᵀ ȧ V, and what eigenvalues are equal."""
    out = np.linalg.eigh(a, triangle)
    v = out[1]
    equal = which_equal(out[0])
    inside = once(lambda t: between(swapped(v), symmetrized(t, primal_of(a), triangle), v))
    return out, inside, equal


@several_results(np.linalg.eigh)
def _eigh(a: Array, UPLO: Any = "L") -> Any:
    """λ̇ = diag(Vᵀ ȧ V) and V̇ = V (F ∘ Vᵀ ȧ V), where F_ij = 1 / (λ_j - λ_i) (Giles, 3.1).

    Only the triangle that UPLO names is read, so only its tangent counts.
    """
    out, inside, equal = _eigen(a, UPLO.upper())
    w, v = out
    shares, factors = shares_of(w, equal, a.dtype), one_over_gaps(w, equal)
    determined = undetermined(equal, a.dtype)

    def by_vectors(t: Tangent) -> Any:
        image = linear.matmul_from_left(linear.scale(inside(t), factors), v)
        return scale_with_nan(image, determined)

    return out, (lambda t: values_from(inside(t), shares, share), by_vectors)


@linearizer(np.linalg.eigvalsh)
def _eigvalsh(a: Array, UPLO: Any = "L") -> Any:
    (w, _), inside, equal = _eigen(a, UPLO.upper())
    shares = shares_of(w, equal, a.dtype)
    return np.linalg.eigvalsh(a, UPLO), lambda t: values_from(inside(t), shares, share)


# --- singular values ---


_SVDResult = type(np.linalg.svd(np.eye(1)))


@primitive
def _thin(a: Array) -> Any:
    return np.linalg.svd(a, full_matrices=False)


def _singular(a: Array) -> tuple:
    """Decompose a; return the result, Uᵀ ȧ V as a map, what values are equal, and how they share.

    A value of 0 has the tangent 0.
    """
    out = _thin(a)
    u, s, vh = out
    equal = which_equal(s)
    zero = primal_of(s) <= rounding(primal_of(s))
    shares = shares_of(s, equal, a.dtype)
    at_zero = zeros_at_kink(s)[..., None] * identity_like(primal_of(s))
    shares = np.where(zero[..., None], at_zero, shares)
    return out, once(lambda t: between(swapped(u), t, swapped(vh))), equal, zero, shares


@several_results(_thin)
def _thin_svd(a: Array) -> Any:
    """ṡ = diag(B), U̇ = U (M + N) + (1 - U Uᵀ) ȧ V / s, V̇ = V (M - N) + (1 - V Vᵀ) ȧᵀ U / s.

    There B = Uᵀ ȧ V, M_ij = ½ (B + Bᵀ)_ij / (s_j - s_i) and N_ij = ½ (B - Bᵀ)_ij / (s_j + s_i):
    Townsend's formulas without the squares of s, which would overflow.
    """
    out, inside, equal, zero, shares = _singular(a)
    u, s, vh = out
    v = swapped(vh)
    pairs = s[..., None, :] + s[..., None]
    no_pair = np.logical_or(equal, np.equal(primal_of(pairs), 0))
    of_sums = np.where(no_pair, 0, 0.5 / np.where(no_pair, 1, pairs))
    of_gaps = 0.5 * one_over_gaps(s, equal)
    over_s = np.where(zero, 0, 1 / np.where(zero, 1, s))[..., None, :]

    @once
    def parts(t: Tangent) -> tuple:
        b, b_t = inside(t), transposed(inside(t))
        symmetric, skew = linear.add(b, b_t), linear.add(b, -b_t)
        return linear.scale(symmetric, of_gaps), linear.scale(skew, of_sums)

    def vectors(within: Tangent, moved: Tangent, b: Tangent, x: Array) -> Any:
        """Return the tangent of the vectors x, of which `within` stays in their span."""
        image = linear.matmul_from_left(within, x)
        if x.shape[-2] == x.shape[-1]:
            return scale_with_nan(image, undetermined(equal, a.dtype))
        beyond = linear.scale(linear.add(moved, -linear.matmul_from_left(b, x)), over_s)
        return scale_with_nan(linear.add(image, beyond), undetermined(equal, a.dtype, zero))

    def by_u(t: Tangent) -> Any:
        symmetric, skew = parts(t)
        return vectors(linear.add(symmetric, skew), linear.matmul(t, v), inside(t), u)

    def by_vh(t: Tangent) -> Any:
        symmetric, skew = parts(t)
        within, moved = linear.add(symmetric, -skew), linear.matmul(transposed(t), u)
        return transposed(vectors(within, moved, transposed(inside(t)), v))

    return out, (by_u, lambda t: values_from(inside(t), shares, share), by_vh)


@composed(np.linalg.svd)
def _svd(
    a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    if not compute_uv and not hermitian:
        return values_of_svd(a)
    if not compute_uv:
        return np.sort(np.absolute(np.linalg.eigvalsh(a)))[..., ::-1]
    if hermitian:
        w, v = np.linalg.eigh(a)
        order = np.argsort(np.absolute(primal_of(w)))[..., ::-1]
        w = np.take_along_axis(w, order, -1)
        v = np.take_along_axis(v, order[..., None, :], -1)
        return _SVDResult(v, np.absolute(w), swapped(v * np.sign(w)[..., None, :]))
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise MissingRuleError(
            "np.linalg.svd: full_matrices=True has no derivative for a matrix of shape "
            f"{a.shape[-2:]}, because the singular vectors that it adds are not determined; pass "
            "full_matrices=False"
        )
    return _thin(a)


@primitive
def values_of_svd(a: Array) -> Any:
    return np.linalg.svd(a, compute_uv=False)


@primitive
def singular_values(a: Array) -> Any:
    """Find the singular values, for norms: equal ones share a tangent and a cotangent equally."""
    return np.linalg.svd(a, compute_uv=False)


@linearizer(values_of_svd)
def _alone_svd(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return values_of_svd(a), lambda t: values_from(inside(t), shares, share)


@linearizer(singular_values)
def _singular_values(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return singular_values(a), lambda t: values_from(inside(t), shares, linear.matmul)


@composed(np.linalg.svdvals)
def _svdvals(x: Array) -> Any:
    return values_of_svd(x)


# --- QR and Cholesky ---


@composed(np.linalg.qr)
def _qr(a: Array, mode: str = "reduced") -> Any:
    m, n = a.shape[-2:]
    if mode not in ("reduced", "r") and not (mode == "complete" and m <= n):
        raise MissingRuleError(
            f"np.linalg.qr: mode={mode!r} has no derivative rule for a matrix of shape {(m, n)}; "
            "'reduced' and 'r' have, and 'complete' where no columns are added to Q"
        )
    out = _reduced_qr(a)
    return out[1] if mode == "r" else out


@primitive
def _reduced_qr(a: Array) -> Any:
    return np.linalg.qr(a)


@several_results(_reduced_qr)
def _reduced(a: Array) -> Any:
    """Q̇ = Q Ω + (1 - Q Qᵀ) Y and Ṙ = Qᵀ ȧ - Ω R, where Y = ȧ₁ R₁⁻¹.

    The index 1 stands for the first min(m, n) columns, and the skew Ω has the lower triangle of
    Qᵀ Y.  Where R₁ is singular up to rounding, Q is not determined and the derivatives are NaN.
    Source: Walter and Lehmann 2018, "Algorithmic differentiation of linear algebra functions", 4.
    """
    m, n = a.shape[-2:]
    out = _reduced_qr(a)
    q, r = out
    size = min(m, n)
    square = r[..., :size]
    pivots = np.absolute(np.diagonal(primal_of(square), axis1=-2, axis2=-1))
    singular = np.any(pivots <= rounding(pivots), -1)[..., None, None]
    square = np.where(singular, np.nan, square)
    i = arange_like(n, primal_of(a))
    below = i[:size, None] > i[:size]
    on_or_above = i[:size, None] <= i

    @once
    def y(t: Tangent) -> Any:
        first = linear_maps.index(t, (..., slice(0, size))) if size < n else t
        return transposed(linear_maps.solve(transposed(first), swapped(square)))

    inside = once(lambda t: linear.matmul_from_left(y(t), swapped(q)))

    @once
    def rotation(t: Tangent) -> Any:
        lower = linear_maps.select(inside(t), below)
        return linear.add(lower, -transposed(lower))

    def by_q(t: Tangent) -> Any:
        image = linear.matmul_from_left(rotation(t), q)
        if m <= n:
            return image
        return linear.add(image, linear.add(y(t), -linear.matmul_from_left(inside(t), q)))

    def by_r(t: Tangent) -> Any:
        moved = linear.add(linear.matmul_from_left(t, swapped(q)), -linear.matmul(rotation(t), r))
        return linear_maps.select(moved, on_or_above)

    return out, (by_q, by_r)


@linearizer(np.linalg.cholesky)
def _cholesky(a: Array, *, upper: bool = False) -> Any:
    """Find L with L Lᵀ = a; L̇ = L Φ(L⁻¹ ȧ L⁻ᵀ), where Φ keeps the lower triangle and halves
    the diagonal.  With `upper`, the result is Lᵀ.

    NumPy reads one triangle of a alone, the lower or with `upper` the upper one, so only that of ȧ
    counts.
    Source: Murray 2016, "Differentiation of the Cholesky decomposition", Eq. 8.
    """
    out = np.linalg.cholesky(a, upper=True) if upper else np.linalg.cholesky(a)
    left = swapped(out) if upper else out
    i = arange_like(a.shape[-1], a)
    half = 0.5 * ((i[:, None] >= i).astype(a.dtype) + (i[:, None] > i).astype(a.dtype))

    def linear_map(t: Tangent) -> Any:
        symmetric = symmetrized(t, a, "U" if upper else "L")
        inside = linear_maps.solve(transposed(linear_maps.solve(symmetric, left)), left)
        image = linear.matmul_from_left(linear.scale(inside, half), left)
        return transposed(image) if upper else image

    return out, linear_map
