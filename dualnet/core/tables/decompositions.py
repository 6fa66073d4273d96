"""Eigenvalues, singular values, factorizations, and what is made of them: det, pinv, lstsq.

Where eigenvalues are equal, eigenvectors are not determined and single eigenvalues have a kink, so:

* A *vector* of an eigenvalue or singular value that another one equals has the derivative NaN, and
  so have the vectors that a singular value of 0 leaves undetermined.
* Equal *values* share a tangent equally: each gets the mean of theirs.  This is right for all that
  is a smooth function of the matrix, such as the sum of the values or of their logarithms, because
  only the sum over equal values enters there.  Reverse mode sees what a function makes of the
  values.  Where it does not treat equal ones alike (it takes the largest alone), it has no
  derivative, and the cotangent is NaN.  Forward mode must answer before it can see that; there the
  mean is a convention, as with np.max of equal entries.
* A singular value of 0 has the tangent 0, as np.absolute has at 0; its cotangent is NaN unless the
  function does not depend on it to first order.
* Second derivatives there are NaN.

Values count as equal when they differ by less than rounding, n·ε·max|value|.  The signs of vectors
are those of LAPACK, and derivatives hold while the signs stay.
Sources: Giles 2008, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation"; Townsend 2016, "Differentiating the singular value decomposition".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import Dual, primal_of, primitive
from dualnet.core.engine import composed, elementwise, linearizer, operand, rule, zero_derivative
from dualnet.core.linear import LinearMap
from dualnet.core.tables import linear_maps
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent

zero_derivative(np.linalg.matrix_rank)

# --- matrices and their tangents ---


def _transposed(t: Tangent) -> Any:
    n = len(linear.shape_of(t))
    return linear.transpose(t, (*range(-n, -2), -1, -2))


def _between(left: Array, t: Tangent, right: Array) -> Any:
    return linear.matmul(linear.matmul_from_left(t, left), right)


def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _identity(x: Array) -> Array:
    """Make the identity of the size of x's last axis, of its dtype and kind."""
    i = arange_like(x.shape[-1], x)
    return np.equal(i[:, None], i).astype(x.dtype)


def _symmetrized(t: Tangent, x: Array, triangle: str) -> Any:
    """Return the tangent of the symmetric matrix of which LAPACK reads one triangle, "L" or "U"."""
    i = arange_like(x.shape[-1], x)
    row, column = (i[:, None], i) if triangle == "L" else (i, i[:, None])
    return linear.add(
        linear_maps.select(t, row >= column), _transposed(linear_maps.select(t, row > column))
    )


def _once(linear_map: Callable) -> Callable:
    """Let several maps share the image of a tangent, which is computed for the first of them."""
    last: list = [None, None]

    def shared(t: Tangent) -> Any:
        if last[0] is not t:
            last[:] = t, linear_map(t)
        return last[1]

    return shared


@primitive
def _valued(x: Array, value: Array) -> Any:
    """Give x, which was composed, the value that NumPy's own function has, to the last bit."""
    return value


rule(_valued, lambda t, out, x, value: t, None)

# --- what is undetermined ---


@LinearMap
def scale_with_nan(t: Stack, c: Array) -> Stack:
    """Return c · t, where c is NaN for what is undetermined.

    In the transpose a cotangent of 0 stays 0: nothing depends on what is undetermined there.
    """
    return linear.align(t, c.ndim) * c


@scale_with_nan.transposed
def _(ct: Cotangent, shape: Shape, c: Array) -> Cotangent:
    return linear.unbroadcast(_scale_nonzero(ct, c), shape)


@LinearMap
def _scale_nonzero(t: Stack, c: Array) -> Stack:
    return _times_nonzero(linear.align(t, c.ndim), c)


@_scale_nonzero.transposed
def _(ct: Cotangent, shape: Shape, c: Array) -> Cotangent:
    return linear.unbroadcast(_scale_nonzero(ct, c), shape)


@LinearMap
def _scale_where_nonzero(t: Stack, x: Array) -> Stack:
    return _times_nonzero(x, t)


@_scale_where_nonzero.transposed
def _(ct: Cotangent, shape: Shape, x: Array) -> Cotangent:
    return linear.unbroadcast(_scale_where_nonzero(ct, x), shape)


@primitive
def _times_nonzero(x: Array, c: Array) -> Any:
    """Multiply, with 0 where x is 0, whatever c is; so is each term of its derivatives."""
    return np.where(np.equal(x, 0), 0, x * c)


elementwise(
    _times_nonzero,
    lambda t, out, x, c: _scale_nonzero(t, c),
    lambda t, out, x, c: _scale_where_nonzero(t, x),
)


@primitive
def zeros_at_kink(x: Array) -> Any:
    """Make the zeros of a convention at a kink; their derivative is NaN, as there is none."""
    return np.zeros_like(x)


rule(zeros_at_kink, lambda t, out, x: scale_with_nan(t, np.full_like(out, np.nan)))


# --- equal values ---


def _equal(w: Array) -> Any:
    """Tell which of the sorted values `(..., n)` are equal up to rounding: `(..., n, n)`."""
    w = primal_of(w)
    apart = np.absolute(w[..., 1:] - w[..., :-1]) > _rounding(w)
    number = np.cumsum(np.concatenate([np.zeros_like(w[..., :1]), apart], -1), -1)
    return np.equal(number[..., None], number[..., None, :])


def _rounding(w: Array) -> Any:
    """Find the size `(..., 1)` of rounding errors in values `(..., n)`."""
    return np.max(np.absolute(w), -1, keepdims=True) * (w.shape[-1] * np.finfo(w.dtype).eps)


def _one_over_gaps(w: Array, equal: Array) -> Any:
    """Return 1 / (w_j - w_i) at (i, j), and 0 where they are equal."""
    return np.where(equal, 0, 1 / np.where(equal, 1, w[..., None, :] - w[..., None]))


def _undetermined(equal: Array, dtype: Any, beside: Array | bool = False) -> Any:
    """Return a row `(..., 1, n)`: NaN for vectors whose value another one equals, 1 for others."""
    several = np.logical_or(np.sum(equal, -1) > 1, beside)
    return np.where(several, np.nan, 1.0).astype(dtype)[..., None, :]


@LinearMap
def _share(t: Stack, shares: Array) -> Stack:
    """Mix the values `(k, ..., 1, n)` that share a tangent."""
    return np.matmul(t, shares)


@_share.transposed
def _(ct: Cotangent, _shape: Shape, shares: Array) -> Cotangent:
    return _share_if_alike(ct, shares)


@LinearMap
def _share_if_alike(ct: Stack, shares: Array) -> Stack:
    """Mix the cotangents of equal values if they are equal themselves, else return NaN there."""
    mean, plain = np.matmul(ct, shares), primal_of(ct)
    error = np.absolute(plain - primal_of(mean))
    allowed = 100 * np.finfo(plain.dtype).eps * np.max(np.absolute(plain), -1, keepdims=True)
    return np.where(error <= allowed, mean, np.nan)


@_share_if_alike.transposed
def _(ct: Cotangent, _shape: Shape, shares: Array) -> Cotangent:
    return _share(ct, shares)


def _shares(w: Array, equal: Array, dtype: Any) -> Any:
    return equal.astype(dtype) / np.sum(equal, -1, keepdims=True, dtype=dtype)


def _values(inside: Tangent, shares: Array, share: Callable) -> Any:
    """Return the tangents `(..., n)` of values from those of the diagonal of `(..., n, n)`."""
    diagonal = linear.sum(linear.scale(inside, _identity(primal_of(shares))), (-1,))
    shape = linear.shape_of(diagonal)
    row = linear.reshape(diagonal, (*shape[:-1], 1, shape[-1]))
    return linear.reshape(share(row, shares), shape)


# --- eigenvalues of symmetric matrices ---


def _eigen(a: Array, triangle: Any) -> tuple:
    """Decompose a; return eigh's result, the map to Vᵀ ȧ V, and what eigenvalues are equal."""
    out = np.linalg.eigh(a, triangle)
    v = out[1]
    equal = _equal(out[0])
    inside = _once(lambda t: _between(_t(v), _symmetrized(t, primal_of(a), triangle), v))
    return out, inside, equal


@linearizer(np.linalg.eigh)
def _eigh(a: Array, UPLO: Any = "L") -> Any:
    """λ̇ = diag(Vᵀ ȧ V) and V̇ = V (F ∘ Vᵀ ȧ V), where F_ij = 1 / (λ_j - λ_i) (Giles, 3.1).

    Only the triangle that UPLO names is read, so only its tangent counts.
    """
    out, inside, equal = _eigen(a, UPLO.upper())
    w, v = out
    shares, factors = _shares(w, equal, a.dtype), _one_over_gaps(w, equal)
    determined = _undetermined(equal, a.dtype)

    def by_vectors(t: Tangent) -> Any:
        image = linear.matmul_from_left(linear.scale(inside(t), factors), v)
        return scale_with_nan(image, determined)

    return out, (lambda t: _values(inside(t), shares, _share), by_vectors)


@linearizer(np.linalg.eigvalsh)
def _eigvalsh(a: Array, UPLO: Any = "L") -> Any:
    (w, _), inside, equal = _eigen(a, UPLO.upper())
    shares = _shares(w, equal, a.dtype)
    return np.linalg.eigvalsh(a, UPLO), lambda t: _values(inside(t), shares, _share)


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
    equal = _equal(s)
    zero = primal_of(s) <= _rounding(primal_of(s))
    shares = _shares(s, equal, a.dtype)
    at_zero = zeros_at_kink(s)[..., None] * _identity(primal_of(s))
    shares = np.where(zero[..., None], at_zero, shares)
    return out, _once(lambda t: _between(_t(u), t, _t(vh))), equal, zero, shares


@linearizer(_thin)
def _thin_svd(a: Array) -> Any:
    """ṡ = diag(B), U̇ = U (M + N) + (1 - U Uᵀ) ȧ V / s, V̇ = V (M - N) + (1 - V Vᵀ) ȧᵀ U / s.

    There B = Uᵀ ȧ V, M_ij = ½ (B + Bᵀ)_ij / (s_j - s_i) and N_ij = ½ (B - Bᵀ)_ij / (s_j + s_i):
    Townsend's formulas without the squares of s, which would overflow.
    """
    out, inside, equal, zero, shares = _singular(a)
    u, s, vh = out
    v = _t(vh)
    pairs = s[..., None, :] + s[..., None]
    no_pair = np.logical_or(equal, np.equal(primal_of(pairs), 0))
    of_sums = np.where(no_pair, 0, 0.5 / np.where(no_pair, 1, pairs))
    of_gaps = 0.5 * _one_over_gaps(s, equal)
    over_s = np.where(zero, 0, 1 / np.where(zero, 1, s))[..., None, :]

    @_once
    def parts(t: Tangent) -> tuple:
        b, b_t = inside(t), _transposed(inside(t))
        symmetric, skew = linear.add(b, b_t), linear.add(b, -b_t)
        return linear.scale(symmetric, of_gaps), linear.scale(skew, of_sums)

    def vectors(within: Tangent, moved: Tangent, b: Tangent, x: Array) -> Any:
        """Return the tangent of the vectors x, of which `within` stays in their span."""
        image = linear.matmul_from_left(within, x)
        if x.shape[-2] == x.shape[-1]:
            return scale_with_nan(image, _undetermined(equal, a.dtype))
        beyond = linear.scale(linear.add(moved, -linear.matmul_from_left(b, x)), over_s)
        return scale_with_nan(linear.add(image, beyond), _undetermined(equal, a.dtype, zero))

    def by_u(t: Tangent) -> Any:
        symmetric, skew = parts(t)
        return vectors(linear.add(symmetric, skew), linear.matmul(t, v), inside(t), u)

    def by_vh(t: Tangent) -> Any:
        symmetric, skew = parts(t)
        within, moved = linear.add(symmetric, -skew), linear.matmul(_transposed(t), u)
        return _transposed(vectors(within, moved, _transposed(inside(t)), v))

    return out, (by_u, lambda t: _values(inside(t), shares, _share), by_vh)


@composed(np.linalg.svd)
def _svd(
    a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    if not compute_uv and not hermitian:
        return _alone(a)
    if not compute_uv:
        return np.sort(np.absolute(np.linalg.eigvalsh(a)))[..., ::-1]
    if hermitian:
        w, v = np.linalg.eigh(a)
        order = np.argsort(np.absolute(primal_of(w)))[..., ::-1]
        w = np.take_along_axis(w, order, -1)
        v = np.take_along_axis(v, order[..., None, :], -1)
        return _SVDResult(v, np.absolute(w), _t(v * np.sign(w)[..., None, :]))
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise MissingRuleError(
            "np.linalg.svd: full_matrices=True has no derivative for a matrix of shape "
            f"{a.shape[-2:]}, because the singular vectors that it adds are not determined; pass "
            "full_matrices=False"
        )
    return _thin(a)


@primitive
def _alone(a: Array) -> Any:
    return np.linalg.svd(a, compute_uv=False)


@primitive
def singular_values(a: Array) -> Any:
    """Find the singular values, for norms: equal ones share a tangent and a cotangent equally."""
    return np.linalg.svd(a, compute_uv=False)


@linearizer(_alone)
def _alone_svd(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return _alone(a), lambda t: _values(inside(t), shares, _share)


@linearizer(singular_values)
def _singular_values(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return singular_values(a), lambda t: _values(inside(t), shares, linear.matmul)


@composed(np.linalg.svdvals)
def _svdvals(x: Array) -> Any:
    return _alone(x)


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
    singular = np.any(pivots <= _rounding(pivots), -1)[..., None, None]
    square = np.where(singular, np.nan, square)
    i = arange_like(n, primal_of(a))
    below = i[:size, None] > i[:size]
    on_or_above = i[:size, None] <= i

    @_once
    def y(t: Tangent) -> Any:
        first = linear_maps.index(t, (..., slice(0, size))) if size < n else t
        return _transposed(linear_maps.solve(_transposed(first), _t(square)))

    inside = _once(lambda t: linear.matmul_from_left(y(t), _t(q)))

    @_once
    def rotation(t: Tangent) -> Any:
        lower = linear_maps.select(inside(t), below)
        return linear.add(lower, -_transposed(lower))

    def by_q(t: Tangent) -> Any:
        image = linear.matmul_from_left(rotation(t), q)
        if m <= n:
            return image
        return linear.add(image, linear.add(y(t), -linear.matmul_from_left(inside(t), q)))

    def by_r(t: Tangent) -> Any:
        moved = linear.add(linear.matmul_from_left(t, _t(q)), -linear.matmul(rotation(t), r))
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
    left = _t(out) if upper else out
    i = arange_like(a.shape[-1], a)
    half = 0.5 * ((i[:, None] >= i).astype(a.dtype) + (i[:, None] > i).astype(a.dtype))

    def linear_map(t: Tangent) -> Any:
        symmetric = _symmetrized(t, a, "U" if upper else "L")
        inside = linear_maps.solve(_transposed(linear_maps.solve(symmetric, left)), left)
        image = linear.matmul_from_left(linear.scale(inside, half), left)
        return _transposed(image) if upper else image

    return out, linear_map


# --- determinants ---


@primitive
def _det_by_inverse(x: Array) -> Any:
    return np.linalg.det(x)


@linearizer(_det_by_inverse)
def _jacobi(x: Array) -> Any:
    """The tangent is det(x) tr(x⁻¹ ẋ) for an invertible x (Jacobi)."""
    out = _det_by_inverse(x)
    cofactors = np.expand_dims(out, (-2, -1)) * _t(np.linalg.inv(x))
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
    y = _t(u) @ a @ _t(vh)
    rest = y[..., rank:, rank:]
    outer: Any = np.rint(np.linalg.det(u) * np.linalg.det(vh))
    if rank:
        regular = y[..., :rank, :rank]
        outer = outer * _det_by_inverse(regular)
        rest = rest - y[..., rank:, :rank] @ np.linalg.solve(regular, y[..., :rank, rank:])
    return _valued(outer * _det_without_division(rest), np.linalg.det(plain))


def _det_without_division(a: Array) -> Any:
    """Evaluate a determinant by products and sums alone.

    Source: Bird 2011, "A simple division-free algorithm for computing determinants".
    """
    n = a.shape[-1]
    identity = _identity(primal_of(a))
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
    factor = _t(np.linalg.inv(np.where(singular, np.nan, a)))
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
        a = np.tril(a) + _t(np.tril(a, -1))
    if cutoff is not None:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        sizes = primal_of(s)
        of_each = cutoff[..., None] if np.ndim(cutoff) else cutoff
        dropped = sizes <= of_each * sizes[..., :1]
        if np.any(np.logical_and(dropped, sizes > _rounding(sizes))):
            value = np.linalg.pinv(plain, **how) if value is None else value
            a = (u * np.where(dropped, 0, s)[..., None, :]) @ vh
    out = _pseudoinverse(a, **how)
    return out if value is None else _valued(out, value)


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
        t_t = _transposed(t)
        rows = linear.matmul_from_left(t_t, p @ _t(p))
        columns = linear.matmul(linear.matmul(t_t, _t(p)), p)
        image = linear.add(rows, linear.add(columns, -_between(p, t, p)))
        image = linear.add(image, -linear.matmul(linear.matmul(rows, a), p))
        return linear.add(image, -linear.matmul_from_left(linear.matmul_from_left(columns, a), p))

    return p, linear_map


@composed(np.linalg.lstsq)
def _lstsq(a: Array, b: Array, rcond: float | None = None) -> Any:
    a, b = operand(a), operand(b)
    x, residuals, rank, s = _least_squares(a, b, rcond)
    return x, residuals, rank, _valued(_alone(a), s) if isinstance(a, Dual) else s


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
    if np.any(s[int(rank) :] > _rounding(s)):
        raise MissingRuleError(
            f"np.linalg.lstsq: rcond={rcond} drops singular values that are not 0, which has no "
            "derivative rule; write np.linalg.pinv(a, rcond) @ b"
        )
    p = np.linalg.pinv(a, max(a.shape) * float(np.finfo(a.dtype).eps) if rcond is None else rcond)
    columns = b.shape[1:] or (1,)
    x_columns, b_columns = (np.reshape(y, (y.shape[0], *columns)) for y in (x, b))
    r = b_columns - a @ x_columns

    def solution_by_a(t: Tangent) -> Any:
        t_t = _transposed(t)
        image = -linear.matmul_from_left(linear.matmul(t, x_columns), p)
        image = linear.add(image, linear.matmul_from_left(linear.matmul(t_t, r), p @ _t(p)))
        free = linear.matmul(t_t, _t(p) @ x_columns)
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
