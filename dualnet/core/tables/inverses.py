"""Determinants, pseudoinverses and least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import operand
from dualnet.core.dual import Dual, astype, primal_of, primitive
from dualnet.core.engine import composed, linearizer, zero_derivative
from dualnet.core.tables.decompositions import values_of_svd
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.equal_values import rounding
from dualnet.core.tables.matrices import (
    between,
    identity_like,
    several_results,
    swapped,
    transposed,
)
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Tangent

zero_derivative(np.linalg.matrix_rank)

# --- determinants ---


@primitive
def _det_by_inverse(x: Array) -> Any:
    return np.linalg.det(x)


@linearizer(_det_by_inverse)
def _jacobi(x: Array) -> Any:
    """The tangent is det(x) tr(x⁻¹ ẋ) for an invertible x (Jacobi)."""
    out = _det_by_inverse(x)
    cofactors = np.expand_dims(out, (-2, -1)) * swapped(np.linalg.inv(x))
    return out, lambda t: linear.sum(linear.scale(t, cofactors), (-2, -1))


@composed(np.linalg.det)
def _det(a: Array) -> Any:
    """Evaluate the determinant so that all its derivatives are right, at singular matrices too.

    Where x is singular or nearly so, x = U y Vᵀ with constant U and V makes y diagonal (its
    derivatives are not).  By its large entries, y is invertible; what elimination leaves of the
    rest is small, and its determinant is evaluated without divisions.
    """
    plain = primal_of(operand(a))
    if not plain.size:
        return _det_by_inverse(a)
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
    y = swapped(u) @ a @ swapped(vh)
    rest = y[..., rank:, rank:]
    outer: Any = np.rint(np.linalg.det(u) * np.linalg.det(vh))
    if rank:
        regular = y[..., :rank, :rank]
        outer = outer * _det_by_inverse(regular)
        rest = rest - y[..., rank:, :rank] @ np.linalg.solve(regular, y[..., :rank, rank:])
    return valued(outer * _det_without_division(rest), np.linalg.det(plain))


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


@several_results(np.linalg.slogdet)
def _slogdet(a: Array) -> Any:
    """The sign is plain; the tangent of log|det a| is tr(a⁻¹ ȧ), or NaN for a singular a."""
    out = np.linalg.slogdet(a)
    singular = np.isneginf(primal_of(out[1]))[..., None, None]
    factor = swapped(np.linalg.inv(np.where(singular, np.nan, a)))
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
        a = np.tril(a) + swapped(np.tril(a, -1))
    if cutoff is not None:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        sizes = primal_of(s)
        of_each = cutoff[..., None] if np.ndim(cutoff) else cutoff
        dropped = sizes <= of_each * sizes[..., :1]
        if np.any(np.logical_and(dropped, sizes > rounding(sizes))):
            value = np.linalg.pinv(plain, **how) if value is None else value
            a = (u * np.where(dropped, 0, s)[..., None, :]) @ vh
    out = _pseudoinverse(a, **how)
    return out if value is None else valued(out, value)


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
        t_t = transposed(t)
        rows = linear.matmul_from_left(t_t, p @ swapped(p))
        columns = linear.matmul(linear.matmul(t_t, swapped(p)), p)
        image = linear.add(rows, linear.add(columns, -between(p, t, p)))
        image = linear.add(image, -linear.matmul(linear.matmul(rows, a), p))
        return linear.add(image, -linear.matmul_from_left(linear.matmul_from_left(columns, a), p))

    return p, linear_map


@composed(np.linalg.lstsq)
def _lstsq(a: Array, b: Array, rcond: float | None = None) -> Any:
    a, b = operand(a), operand(b)
    dtype = np.result_type(a, b)
    a, b = (y if y.dtype == dtype else astype(y, dtype) for y in (a, b))
    x, residuals, rank, s = _least_squares(a, b, rcond)
    return x, residuals, rank, valued(values_of_svd(a), s) if isinstance(a, Dual) else s


@primitive
def _least_squares(a: Array, b: Array, rcond: float | None) -> Any:
    return np.linalg.lstsq(a, b, rcond)


@several_results(_least_squares)
def _solution_and_residuals(a: Array, b: Array, rcond: float | None) -> Any:
    """Solve a x ≈ b; ẋ = P (ḃ - ȧ x) + P Pᵀ ȧᵀ r + (1 - P a) ȧᵀ Pᵀ x, with r = b - a x.

    P is the pseudoinverse of a, whose rank stays what it is.
    """
    out = _least_squares(a, b, rcond)
    x, residuals, rank, s = out
    if np.any(s[int(rank) :] > rounding(s)):
        raise MissingRuleError(
            f"np.linalg.lstsq: rcond={rcond} drops singular values that are not 0, which has no "
            "derivative rule; write np.linalg.pinv(a, rcond) @ b"
        )
    p = np.linalg.pinv(a, max(a.shape) * float(np.finfo(a.dtype).eps) if rcond is None else rcond)
    columns = b.shape[1:] or (1,)
    x_columns, b_columns = (np.reshape(y, (y.shape[0], *columns)) for y in (x, b))
    r = b_columns - a @ x_columns

    def solution_by_a(t: Tangent) -> Any:
        t_t = transposed(t)
        image = -linear.matmul_from_left(linear.matmul(t, x_columns), p)
        image = linear.add(image, linear.matmul_from_left(linear.matmul(t_t, r), p @ swapped(p)))
        free = linear.matmul(t_t, swapped(p) @ x_columns)
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
