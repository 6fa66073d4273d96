"""QR and Cholesky factors, determinants, pseudoinverses and least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import Dual, primal_of, primitive
from dualnet.core.engine import composed, linearizer, operand
from dualnet.core.tables import linear_maps
from dualnet.core.tables.decompositions import (
    identity_like,
    mt,
    once,
    rounding_error,
    singular_triplet,
    symmetrized,
    tangent_between,
    tangent_mt,
    with_value,
)
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Tangent

# --- QR and Cholesky ---


@linearizer(np.linalg.qr)
def _qr(a: Array, mode: str = "reduced") -> Any:
    """Q̇ = Q Ω + (1 - Q Qᵀ) Y and Ṙ = Qᵀ ȧ - Ω R, where Y = ȧ₁ R₁⁻¹.

    The index 1 stands for the first min(m, n) columns, and the skew Ω has the lower triangle of
    Qᵀ Y.  Where R₁ is singular up to rounding, Q is not determined and the derivatives are NaN.
    Source: Walter and Lehmann 2018, "Algorithmic differentiation of linear algebra functions", 4.
    """
    m, n = a.shape[-2:]
    if mode not in ("reduced", "r") and not (mode == "complete" and m <= n):
        raise MissingRuleError(
            f"np.linalg.qr: mode={mode!r} has no derivative rule for a matrix of shape {(m, n)}; "
            "'reduced' and 'r' have, and 'complete' where no columns are added to Q"
        )
    out = np.linalg.qr(a, "reduced")
    q, r = out
    size = min(m, n)
    square = r[..., :size]
    pivots = np.absolute(np.diagonal(primal_of(square), axis1=-2, axis2=-1))
    singular = np.any(pivots <= rounding_error(pivots), -1)[..., None, None]
    square = np.where(singular, np.nan, square)
    i = arange_like(n, primal_of(a))
    below = i[:size, None] > i[:size]
    on_or_above = i[:size, None] <= i

    @once
    def y(t: Tangent) -> Any:
        first = linear_maps.index(t, (..., slice(0, size))) if size < n else t
        return tangent_mt(linear_maps.solve(tangent_mt(first), mt(square)))

    inside = once(lambda t: linear.matmul_from_left(y(t), mt(q)))

    @once
    def rotation(t: Tangent) -> Any:
        lower = linear_maps.select(inside(t), below)
        return linear.add(lower, -tangent_mt(lower))

    def by_q(t: Tangent) -> Any:
        image = linear.matmul_from_left(rotation(t), q)
        if m <= n:
            return image
        return linear.add(image, linear.add(y(t), -linear.matmul_from_left(inside(t), q)))

    def by_r(t: Tangent) -> Any:
        moved = linear.add(linear.matmul_from_left(t, mt(q)), -linear.matmul(rotation(t), r))
        return linear_maps.select(moved, on_or_above)

    return (out[1], by_r) if mode == "r" else (out, (by_q, by_r))


@linearizer(np.linalg.cholesky)
def _cholesky(a: Array, *, upper: bool = False) -> Any:
    """Find L with L Lᵀ = a; L̇ = L Φ(L⁻¹ ȧ L⁻ᵀ), where Φ keeps the lower triangle and halves
    the diagonal.  With `upper`, the result is Lᵀ.

    NumPy reads one triangle of a alone, the lower or with `upper` the upper one, so only that of ȧ
    counts.
    Source: Murray 2016, "Differentiation of the Cholesky decomposition", Eq. 8.
    """
    out = np.linalg.cholesky(a, upper=True) if upper else np.linalg.cholesky(a)
    left = mt(out) if upper else out
    i = arange_like(a.shape[-1], a)
    half = 0.5 * ((i[:, None] >= i).astype(a.dtype) + (i[:, None] > i).astype(a.dtype))

    def linear_map(t: Tangent) -> Any:
        symmetric = symmetrized(t, a, "U" if upper else "L")
        inside = linear_maps.solve(tangent_mt(linear_maps.solve(symmetric, left)), left)
        image = linear.matmul_from_left(linear.scale(inside, half), left)
        return tangent_mt(image) if upper else image

    return out, linear_map


# --- determinants ---


@primitive
def _det_by_inverse(x: Array) -> Any:
    return np.linalg.det(x)


@linearizer(_det_by_inverse)
def _jacobi(x: Array) -> Any:
    """The tangent is det(x) tr(x⁻¹ ẋ) for an invertible x (Jacobi)."""
    out = _det_by_inverse(x)
    cofactors = np.expand_dims(out, (-2, -1)) * mt(np.linalg.inv(x))
    return out, lambda t: linear.sum(linear.scale(t, cofactors), (-2, -1))


@composed(np.linalg.det)
def _det(a: Array) -> Any:
    """Evaluate the determinant so that all its derivatives are right, at singular matrices too.

    Where x is singular or nearly so, x = U y Vᵀ with constant U and V makes y diagonal (its
    derivatives are not).  By its large entries, y is invertible; what elimination leaves of the
    rest is small, and its determinant is evaluated without divisions.
    """
    plain = primal_of(operand(a))
    few = np.finfo(plain.dtype).eps ** (-1 / 6)  # so that third derivatives keep half their digits
    try:
        inverse = np.linalg.inv(plain)
        condition = np.max(np.sum(np.absolute(plain), -1), -1) * np.max(
            np.sum(np.absolute(inverse), -1), -1
        )
        if np.all(condition < few) or not np.all(np.isfinite(plain)):
            return _det_by_inverse(a)
    except np.linalg.LinAlgError:
        pass
    u, s, vh = np.linalg.svd(plain)
    large = s * few > s[..., :1]
    rank = int(np.min(np.sum(large, -1)))
    if rank == plain.shape[-1]:
        return _det_by_inverse(a)
    y = mt(u) @ a @ mt(vh)
    rest = y[..., rank:, rank:]
    outer: Any = np.rint(np.linalg.det(u) * np.linalg.det(vh))
    if rank:
        regular = y[..., :rank, :rank]
        outer = outer * _det_by_inverse(regular)
        rest = rest - y[..., rank:, :rank] @ np.linalg.solve(regular, y[..., :rank, rank:])
    return with_value(outer * _det_without_division(rest), np.linalg.det(plain))


def _det_without_division(a: Array) -> Any:
    """Evaluate a determinant by products and sums alone.

    Source: Bird 2011, "A simple division-free algorithm for computing determinants".
    """
    n = a.shape[-1]
    identity = identity_like(primal_of(a))
    above = np.triu(np.ones_like(identity), 1)
    f = a
    for _ in range(n - 1):
        after = above @ np.sum(f * identity, -1)[..., None]
        f = (f * above - identity * after) @ a
    return f[..., 0, 0] * (-1.0) ** (n - 1)


@linearizer(np.linalg.slogdet)
def _slogdet(a: Array) -> Any:
    """The sign is plain; the tangent of log|det a| is tr(a⁻¹ ȧ), or NaN for a singular a."""
    out = np.linalg.slogdet(a)
    singular = np.isneginf(primal_of(out[1]))[..., None, None]
    factor = mt(np.linalg.inv(np.where(singular, np.nan, a)))
    return out, (None, lambda t: linear.sum(linear.scale(t, factor), (-2, -1)))


# --- pseudoinverses and least squares ---


@composed(np.linalg.pinv)
def _pinv(a: Array, rcond: Any = None, hermitian: bool = False, **rtol: Any) -> Any:
    """Invert what is left where rcond drops singular values that are not 0."""
    how = {**({} if rcond is None else {"rcond": rcond}), **rtol}
    cutoff = next((value for value in how.values() if value is not None), None)
    plain = primal_of(a)
    value = None
    if hermitian:
        value = np.linalg.pinv(plain, hermitian=True, **how)
        a = np.tril(a) + mt(np.tril(a, -1))
    if cutoff is not None:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        sizes = primal_of(s)
        of_each = cutoff[..., None] if np.ndim(cutoff) else cutoff
        dropped = sizes <= of_each * sizes[..., :1]
        if np.any(np.logical_and(dropped, sizes > rounding_error(sizes))):
            value = np.linalg.pinv(plain, **how) if value is None else value
            a = (u * np.where(dropped, 0, s)[..., None, :]) @ vh
    out = _pseudoinverse(a, **how)
    return out if value is None else with_value(out, value)


@primitive
def _pseudoinverse(a: Array, **how: Any) -> Any:
    return np.linalg.pinv(a, **how)


@linearizer(_pseudoinverse)
def _pseudoinverse_of_one_rank(a: Array, **how: Any) -> Any:
    """Differentiate the pseudoinverse P while the rank of a stays what it is.

    Ṗ = -P ȧ P + P Pᵀ ȧᵀ (1 - a P) + (1 - P a) ȧᵀ Pᵀ P.
    Source: Golub and Pereyra 1973, "The differentiation of pseudo-inverses ...", Eq. 4.12.
    """
    p = _pseudoinverse(a, **how)

    def linear_map(t: Tangent) -> Any:
        t_t = tangent_mt(t)
        rows = linear.matmul_from_left(t_t, p @ mt(p))
        columns = linear.matmul(linear.matmul(t_t, mt(p)), p)
        image = linear.add(rows, linear.add(columns, -tangent_between(p, t, p)))
        image = linear.add(image, -linear.matmul(linear.matmul(rows, a), p))
        return linear.add(image, -linear.matmul_from_left(linear.matmul_from_left(columns, a), p))

    return p, linear_map


@composed(np.linalg.lstsq)
def _lstsq(a: Array, b: Array, rcond: float | None = None) -> Any:
    a, b = operand(a), operand(b)
    x, residuals, rank, s = _least_squares(a, b, rcond)
    return x, residuals, rank, with_value(singular_triplet(a), s) if isinstance(a, Dual) else s


@primitive
def _least_squares(a: Array, b: Array, rcond: float | None) -> Any:
    return np.linalg.lstsq(a, b, rcond)


@linearizer(_least_squares)
def _solution_and_residuals(a: Array, b: Array, rcond: float | None) -> Any:
    """Solve a x ≈ b; ẋ = P (ḃ - ȧ x) + P Pᵀ ȧᵀ r + (1 - P a) ȧᵀ Pᵀ x, with r = b - a x.

    P is the pseudoinverse of a, whose rank stays what it is.
    """
    out = _least_squares(a, b, rcond)
    x, residuals, rank, s = out
    if np.any(s[int(rank) :] > rounding_error(s)):
        raise MissingRuleError(
            f"np.linalg.lstsq: rcond={rcond} drops singular values that are not 0, which has no "
            "derivative rule; write np.linalg.pinv(a, rcond) @ b"
        )
    p = np.linalg.pinv(a, max(a.shape) * float(np.finfo(a.dtype).eps) if rcond is None else rcond)
    columns = b.shape[1:] or (1,)
    x_columns, b_columns = (np.reshape(y, (y.shape[0], *columns)) for y in (x, b))
    r = b_columns - a @ x_columns

    def solution_by_a(t: Tangent) -> Any:
        t_t = tangent_mt(t)
        image = -linear.matmul_from_left(linear.matmul(t, x_columns), p)
        image = linear.add(image, linear.matmul_from_left(linear.matmul(t_t, r), p @ mt(p)))
        free = linear.matmul(t_t, mt(p) @ x_columns)
        free = linear.add(free, -linear.matmul_from_left(linear.matmul_from_left(free, a), p))
        return linear.reshape(linear.add(image, free), x.shape)

    def solution_by_b(t: Tangent) -> Any:
        return linear.reshape(
            linear.matmul_from_left(linear.reshape(t, b_columns.shape), p), x.shape
        )

    def moved(change: Tangent) -> Any:
        return linear.sum(linear.scale(change, 2.0 * r), (-2,))

    by_residuals = (
        lambda t: -moved(linear.matmul(t, x_columns)),
        lambda t: moved(linear.reshape(t, b_columns.shape)),
    )
    solution = solution_by_a, solution_by_b
    return out, (solution, by_residuals if residuals.size else None, None, None)
