"""Functions of SciPy that are no ufuncs, under SciPy's names, so that they take duals too.

SciPy's own make plain arrays of their arguments, and nothing can dispatch them.  These here are
written with functions that have rules, or have a rule, and give SciPy's values up to rounding, in
the dtype of their arguments.  SciPy's ufuncs (`scipy.special.erf`, …) take duals themselves; see
`dualnet.special`.

SciPy is optional: `pip install "dualnet[scipy]"`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special

from dualnet.core import linear
from dualnet.core.dual import astype, primitive
from dualnet.core.engine import linearizer
from dualnet.core.python_floats import common_dtype
from dualnet.core.tables.reductions import axes_from_end
from dualnet.core.transforms import is_constant, stop_gradient
from dualnet.errors import MissingRuleError, UsageError
from dualnet.types import Array, Cotangent, Shape, Stack

__all__ = [
    "cho_solve",
    "expm",
    "log_softmax",
    "logsumexp",
    "multivariate_normal",
    "norm",
    "softmax",
    "solve_triangular",
]

Axis = int | tuple[int, ...] | None


def _array(x: Any) -> Array:
    """Make an array of a list, also of one with duals in it; a number is taken as it is."""
    return np.stack([_array(item) for item in x]) if isinstance(x, (list, tuple)) else x


# --- scipy.special -------------------------------------------------------------------------------


@primitive
def _log_sum_exp(a: Array, axis: Axis, keepdims: bool) -> Any:
    return scipy.special.logsumexp(a, axis=axis, keepdims=keepdims)


@linearizer(_log_sum_exp)
def _(a: Array, axis: Axis, keepdims: bool) -> Any:
    """The slope is the softmax weight; entries that are all of an infinite result share equally."""
    if not a.size:
        out = _log_sum_exp(a, axis, keepdims)
        return out, lambda t: linear.sum(t, axes_from_end(axis, a.ndim), keepdims)
    top = np.max(stop_gradient(a), axis=axis, keepdims=True)
    of_infinite = np.where(np.equal(stop_gradient(a), top), 0, -np.inf)
    finite = np.where(np.isinf(top), of_infinite, a)
    axes, weights = axes_from_end(axis, a.ndim), softmax(finite, axis)
    return _log_sum_exp(a, axis, keepdims), lambda t: linear.sum(
        linear.scale(t, weights), axes, keepdims
    )


def logsumexp(a: Array, axis: Axis = None, b: Any = None, keepdims: bool = False) -> Array:
    """Evaluate log Σ b exp(a), as `scipy.special.logsumexp` (without return_sign).

    Args:
        a: array.
        axis: over which axes the sum goes; None for all.
        b: weights that broadcast against a; None for 1.
        keepdims: whether the axes stay, with length 1.

    Examples:
        >>> from dualnet.scipy import logsumexp
        >>> dn.grad(logsumexp)(np.full(4, 1000.0)).tolist()  # exp(1000) would overflow
        [0.25, 0.25, 0.25, 0.25]
    """
    a = _array(a)
    if b is None:
        return _log_sum_exp(a, axis, keepdims)
    b = _array(b)
    dtype = common_dtype(a, b)
    pair = [astype(x if hasattr(x, "dtype") else np.asarray(x), dtype) for x in (a, b)]
    a, b = np.broadcast_arrays(*pair)
    counted = np.where(np.equal(b, 0), -np.inf, a)
    a = counted if is_constant(b) else a  # an entry with the weight 0 has a slope by its weight
    if not counted.size:
        return _log_sum_exp(counted, axis, keepdims)
    top = _finite_top(counted, axis)
    total = np.log(np.sum(b * np.exp(a - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axes_from_end(axis, a.ndim))


def softmax(x: Array, axis: Axis = None) -> Array:
    """Evaluate exp(x) / Σ exp(x), as `scipy.special.softmax`.

    Args:
        x: array.
        axis: over which axes the sum goes; None for all.

    Examples:
        >>> from dualnet.scipy import softmax
        >>> x = np.log(np.array([1.0, 2.0, 5.0]))
        >>> np.round(softmax(x), 3).tolist()
        [0.125, 0.25, 0.625]
        >>> shifted = dn.jvp(softmax, (x,), (np.ones(3),))[1]
        >>> bool(np.abs(shifted).max() < 1e-12)  # a shift of all moves nothing
        True
    """
    x = _array(x)
    shares = np.exp(x - _finite_top(x, axis))
    return shares / np.sum(shares, axis=axis, keepdims=True)


def log_softmax(x: Array, axis: Axis = None) -> Array:
    """Evaluate x - log Σ exp(x), as `scipy.special.log_softmax`.

    Args:
        x, axis: as for `softmax`.

    Examples:
        >>> from dualnet.scipy import log_softmax
        >>> np.round(dn.jacrev(log_softmax)(np.zeros(2)), 3).tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    x = _array(x)
    shifted = x - _finite_top(x, axis)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _finite_top(x: Array, axis: Axis) -> Array:
    """Find the largest entries along the axes as constants, to be subtracted; 0 where infinite."""
    top = np.max(stop_gradient(x), axis=axis, keepdims=True)
    return np.where(np.isfinite(top), top, 0)


# --- scipy.linalg --------------------------------------------------------------------------------


def solve_triangular(
    a: Array, b: Array, trans: Any = 0, lower: bool = False, unit_diagonal: bool = False
) -> Array:
    """Solve a x = b for a triangular a, as `scipy.linalg.solve_triangular`.

    The entries of a on the other side of the diagonal (with unit_diagonal those on it too) are not
    read, so their derivatives are 0.

    Args:
        a: `(..., n, n)`.
        b: `(n,)` or `(..., n, m)`.
        trans: 0 or "N" for a x = b; 1, 2, "T" or "C" for aᵀ x = b.
        lower: whether a is a lower triangle.
        unit_diagonal: whether its diagonal counts as ones.

    Raises:
        UsageError: trans is something else.

    Examples:
        >>> from dualnet.scipy import solve_triangular
        >>> a, b = np.array([[2.0, 0.0], [1.0, 4.0]]), np.array([2.0, 9.0])
        >>> solve_triangular(a, b, lower=True).tolist()  # 2 x = 2, x + 4 y = 9
        [1.0, 2.0]
    """
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise UsageError(
            f"dualnet.scipy.solve_triangular: trans must be 0 or 'N' (a x = b), or 1, 2, 'T' or "
            f"'C' (aᵀ x = b), got {trans!r}"
        )
    a, b, off = _array(a), _array(b), int(bool(unit_diagonal))
    a = np.tril(a, -off) if lower else np.triu(a, off)
    if unit_diagonal:
        a = a + np.eye(a.shape[-1], dtype=a.dtype)
    return np.linalg.solve(a if trans in (0, "N") else np.swapaxes(a, -1, -2), b)


def cho_solve(c_and_lower: tuple, b: Array) -> Array:
    """Solve a x = b where `(c, lower)` is the Cholesky factor of a, as `scipy.linalg.cho_solve`.

    Args:
        c_and_lower: the factor `(n, n)`, and whether it is the lower triangle.
        b: `(n,)` or `(n, m)`.

    Examples:
        >>> from dualnet.scipy import cho_solve
        >>> a, b = np.array([[4.0, 2.0], [2.0, 10.0]]), np.array([6.0, 12.0])
        >>> np.round(cho_solve((np.linalg.cholesky(a), True), b), 6).tolist()
        [1.0, 1.0]
    """
    c, lower = c_and_lower
    first, second = ("N", "T") if lower else ("T", "N")
    y = solve_triangular(c, b, trans=first, lower=lower)
    return solve_triangular(c, y, trans=second, lower=lower)


@primitive
def expm(a: Array) -> Array:
    """Evaluate the matrix exponential of a `(..., n, n)`, as `scipy.linalg.expm`.

    Source of the derivative: Higham 2008, "Functions of Matrices", Eq. 3.16.

    Examples:
        >>> from dualnet.scipy import expm
        >>> turning = np.array([[0.0, -1.0], [1.0, 0.0]])
        >>> point = lambda angle: expm(angle * turning) @ np.array([1.0, 0.0])
        >>> np.round(dn.jvp(point, (np.pi / 4,), (1.0,))[1], 4).tolist()  # (-sin, cos)
        [-0.7071, 0.7071]
    """
    return scipy.linalg.expm(a)


@linear.LinearMap
def _expm_tangent(t: Stack, a: Array) -> Stack:
    """Return the derivative of expm at a in the direction t.

    It is the upper right block of the exponential of [[a, t], [0, a]].
    Source: Higham 2008, "Functions of Matrices", Eq. 3.16.
    """
    n = a.shape[-1]
    a = np.broadcast_to(a, t.shape)
    upper = np.concatenate([a, t], axis=-1)
    lower = np.concatenate([np.zeros_like(a), a], axis=-1)
    return expm(np.concatenate([upper, lower], axis=-2))[..., :n, n:]


@_expm_tangent.transposed
def _(ct: Cotangent, _shape: Shape, a: Array) -> Cotangent:
    return _expm_tangent(ct, np.swapaxes(a, -1, -2))


@linearizer(expm)
def _(a: Array) -> Any:
    out = expm(a)
    return out, lambda t: _expm_tangent(t, a)


# --- scipy.stats ---------------------------------------------------------------------------------

_LOG_2PI = math.log(2.0 * math.pi)


class norm:
    """The normal distribution, as `scipy.stats.norm`.

    Examples:
        >>> from dualnet.scipy import norm
        >>> float(dn.grad(norm.logpdf)(2.0))  # -x
        -2.0
    """

    @staticmethod
    def logpdf(x: Array, loc: Any = 0.0, scale: Any = 1.0) -> Array:
        """Evaluate the logarithm of the density, in nats.

        Args:
            x: array.
            loc, scale: the mean and the standard deviation; they broadcast against x.
        """
        x = _array(x)
        z = (x - loc) / scale
        # The logarithm of a Python number is an array, which must not widen float32.
        log_scale = np.log(scale).astype(getattr(z, "dtype", np.float64))
        return np.square(z) * -0.5 - (log_scale + 0.5 * _LOG_2PI)


class multivariate_normal:
    """The normal distribution in several dimensions, as `scipy.stats.multivariate_normal`.

    Examples:
        >>> from dualnet.scipy import multivariate_normal
        >>> x, mean, cov = np.array([1.0, 2.0]), np.zeros(2), np.diag([1.0, 4.0])
        >>> dn.grad(multivariate_normal.logpdf)(x, mean, cov).tolist()  # -cov⁻¹ (x - mean)
        [-1.0, -0.5]
    """

    @staticmethod
    def logpdf(x: Array, mean: Any = None, cov: Any = 1.0) -> Array:
        """Evaluate the logarithm of the density at x `(..., n)`, for an invertible covariance.

        The derivative by cov is that of the symmetric part of cov, and so it is symmetric.

        Args:
            x: `(..., n)`.
            mean: `(n,)`; None for zeros.
            cov: `(n, n)`.

        Raises:
            MissingRuleError: cov is no matrix, or x has no axis of its size.
        """
        x, cov = _array(x), _array(cov)
        if np.ndim(cov) != 2:
            raise MissingRuleError(
                "dualnet.scipy.multivariate_normal.logpdf: only a matrix as cov has a derivative "
                f"rule, got {np.ndim(cov)} axes; write cov * np.eye(n), or np.diag(cov)"
            )
        n = cov.shape[-1]
        off_mean = x if mean is None else x - mean
        if off_mean.ndim == 0 or off_mean.shape[-1] != n:
            raise MissingRuleError(
                "dualnet.scipy.multivariate_normal.logpdf: expected points of shape (..., "
                f"{n}), got {off_mean.shape}; write x[..., None] for numbers"
            )
        factor = np.linalg.cholesky((cov + cov.T) * 0.5)
        rows = np.reshape(off_mean, (-1, n))
        z = np.reshape(solve_triangular(factor, rows.T, lower=True).T, off_mean.shape)
        log_det = np.sum(np.log(np.diagonal(factor)))
        return np.sum(np.square(z), axis=-1) * -0.5 - (log_det + 0.5 * n * _LOG_2PI)
