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
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import composed, elementwise, linearizer, rule, zero_derivative
from dualnet.core.linear import LinearMap
from dualnet.core.tables import linear_maps
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent

zero_derivative(np.linalg.matrix_rank)

# --- matrices and their tangents ---


def tangent_mt(t: Tangent) -> Any:
    n = len(linear.shape_of(t))
    return linear.transpose(t, (*range(-n, -2), -1, -2))


def tangent_between(left: Array, t: Tangent, right: Array) -> Any:
    return linear.matmul(linear.matmul_from_left(t, left), right)


def mt(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def identity_like(x: Array) -> Array:
    """Make the identity of the size of x's last axis, of its dtype and kind."""
    i = arange_like(x.shape[-1], x)
    return np.equal(i[:, None], i).astype(x.dtype)


def symmetrized(t: Tangent, x: Array, triangle: str) -> Any:
    """Return the tangent of the symmetric matrix of which LAPACK reads one triangle, "L" or "U"."""
    i = arange_like(x.shape[-1], x)
    row, column = (i[:, None], i) if triangle == "L" else (i, i[:, None])
    return linear.add(
        linear_maps.select(t, row >= column),
        tangent_mt(linear_maps.select(t, row > column)),
    )


def once(linear_map: Callable) -> Callable:
    """Let several maps share the image of a tangent, which is computed for the first of them."""
    last: list = [None, None]

    def shared(t: Tangent) -> Any:
        if last[0] is not t:
            last[:] = t, linear_map(t)
        return last[1]

    return shared


@primitive
def with_value(x: Array, value: Array) -> Any:
    """Give x, which was composed, the value that NumPy's own function has, to the last bit."""
    return value


rule(with_value, lambda t, out, x, value: t, None)

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
    apart = np.absolute(w[..., 1:] - w[..., :-1]) > rounding_error(w)
    number = np.cumsum(np.concatenate([np.zeros_like(w[..., :1]), apart], -1), -1)
    return np.equal(number[..., None], number[..., None, :])


def rounding_error(w: Array) -> Any:
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
    diagonal = linear.sum(linear.scale(inside, identity_like(primal_of(shares))), (-1,))
    shape = linear.shape_of(diagonal)
    row = linear.reshape(diagonal, (*shape[:-1], 1, shape[-1]))
    return linear.reshape(share(row, shares), shape)


# --- eigenvalues of symmetric matrices ---


def _eigen(a: Array, triangle: Any) -> tuple:
    """Decompose a; return eigh's result, the map to Vᵀ ȧ V, and what eigenvalues are equal."""
    out = np.linalg.eigh(a, triangle)
    v = out[1]
    equal = _equal(out[0])
    inside = once(lambda t: tangent_between(mt(v), symmetrized(t, primal_of(a), triangle), v))
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
    zero = primal_of(s) <= rounding_error(primal_of(s))
    shares = _shares(s, equal, a.dtype)
    at_zero = zeros_at_kink(s)[..., None] * identity_like(primal_of(s))
    shares = np.where(zero[..., None], at_zero, shares)
    return (
        out,
        once(lambda t: tangent_between(mt(u), t, mt(vh))),
        equal,
        zero,
        shares,
    )


@linearizer(_thin)
def _thin_svd(a: Array) -> Any:
    """ṡ = diag(B), U̇ = U (M + N) + (1 - U Uᵀ) ȧ V / s, V̇ = V (M - N) + (1 - V Vᵀ) ȧᵀ U / s.

    There B = Uᵀ ȧ V, M_ij = ½ (B + Bᵀ)_ij / (s_j - s_i) and N_ij = ½ (B - Bᵀ)_ij / (s_j + s_i):
    Townsend's formulas without the squares of s, which would overflow.
    """
    out, inside, equal, zero, shares = _singular(a)
    u, s, vh = out
    v = mt(vh)
    pairs = s[..., None, :] + s[..., None]
    no_pair = np.logical_or(equal, np.equal(primal_of(pairs), 0))
    of_sums = np.where(no_pair, 0, 0.5 / np.where(no_pair, 1, pairs))
    of_gaps = 0.5 * _one_over_gaps(s, equal)
    over_s = np.where(zero, 0, 1 / np.where(zero, 1, s))[..., None, :]

    @once
    def parts(t: Tangent) -> tuple:
        b, b_t = inside(t), tangent_mt(inside(t))
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
        within, moved = linear.add(symmetric, -skew), linear.matmul(tangent_mt(t), u)
        return tangent_mt(vectors(within, moved, tangent_mt(inside(t)), v))

    return out, (by_u, lambda t: _values(inside(t), shares, _share), by_vh)


@composed(np.linalg.svd)
def _svd(
    a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    if not compute_uv and not hermitian:
        return singular_triplet(a)
    if not compute_uv:
        return np.sort(np.absolute(np.linalg.eigvalsh(a)))[..., ::-1]
    if hermitian:
        w, v = np.linalg.eigh(a)
        order = np.argsort(np.absolute(primal_of(w)))[..., ::-1]
        w = np.take_along_axis(w, order, -1)
        v = np.take_along_axis(v, order[..., None, :], -1)
        return _SVDResult(v, np.absolute(w), mt(v * np.sign(w)[..., None, :]))
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise MissingRuleError(
            "np.linalg.svd: full_matrices=True has no derivative for a matrix of shape "
            f"{a.shape[-2:]}, because the singular vectors that it adds are not determined; pass "
            "full_matrices=False"
        )
    return _thin(a)


@primitive
def singular_triplet(a: Array) -> Any:
    return np.linalg.svd(a, compute_uv=False)


@primitive
def singular_values(a: Array) -> Any:
    """Find the singular values, for norms: equal ones share a tangent and a cotangent equally."""
    return np.linalg.svd(a, compute_uv=False)


@linearizer(singular_triplet)
def _alone_svd(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return singular_triplet(a), lambda t: _values(inside(t), shares, _share)


@linearizer(singular_values)
def _singular_values(a: Array) -> Any:
    _, inside, _, _, shares = _singular(a)
    return singular_values(a), lambda t: _values(inside(t), shares, linear.matmul)


@composed(np.linalg.svdvals)
def _svdvals(x: Array) -> Any:
    return singular_triplet(x)
