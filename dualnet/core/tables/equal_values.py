"""Eigenvalues and singular values that are equal or 0, and their vectors.

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

Values count as equal when they differ by less than rounding, n·ε·max|value|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import elementwise
from dualnet.core.linear import LinearMap
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.matrices import identity_like
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent

# --- what is undetermined ------------------------------------------------------------------------


@LinearMap
def scale_with_nan(t: Stack, c: Array) -> Stack:
    """Return c · t, where the constant c is NaN for what is undetermined, and 1 elsewhere.

    In the transpose a cotangent of 0 stays 0: nothing depends on what is undetermined there.
    """
    return linear.align(t, c.ndim) * c


@scale_with_nan.transposed
def _(ct: Cotangent, shape: Shape, c: Array) -> Cotangent:
    return linear.unbroadcast(scale_nonzero(ct, c), shape)


@LinearMap
def scale_nonzero(t: Stack, c: Array) -> Stack:
    return times_nonzero(linear.align(t, c.ndim), c)


@scale_nonzero.transposed
def _(ct: Cotangent, shape: Shape, c: Array) -> Cotangent:
    return linear.unbroadcast(scale_nonzero(ct, c), shape)


@primitive
def times_nonzero(x: Array, c: Array) -> Any:
    """Multiply by a constant c, with 0 where x is 0, whatever c is; so do its derivatives."""
    return np.where(np.equal(x, 0), 0, x * c)


elementwise(times_nonzero, lambda t, out, x, c: scale_nonzero(t, c), None)


@primitive
def times_nan(x: Array, c: Array) -> Any:
    """Multiply by a constant c that is NaN for what is undetermined, as `scale_with_nan` does."""
    return x * c


elementwise(times_nan, lambda t, out, x, c: scale_with_nan(t, c), None)


def zeros_at_kink(x: Array) -> Any:
    """Make the zeros of a convention at a kink; their derivative is NaN, as there is none."""
    zeros = np.zeros_like(primal_of(x))
    return valued(times_nan(x, zeros + np.nan), zeros)


# --- equal values ---


def which_equal(w: Array) -> Any:
    """Tell which of the sorted values `(..., n)` are equal up to rounding: `(..., n, n)`."""
    w = primal_of(w)
    apart = np.absolute(w[..., 1:] - w[..., :-1]) > rounding(w)
    number = np.cumsum(np.concatenate([np.zeros_like(w[..., :1]), apart], -1), -1)
    return np.equal(number[..., None], number[..., None, :])


def rounding(w: Array) -> Any:
    """Find the size `(..., 1)` of rounding errors in values `(..., n)`."""
    return _largest(w) * (w.shape[-1] * np.finfo(w.dtype).eps)


def _largest(w: Array) -> Any:
    """Find the largest magnitude `(..., 1)` along the last axis; that of no values is 0."""
    magnitudes = np.absolute(w)
    if not w.shape[-1]:
        return np.sum(magnitudes, -1, keepdims=True)
    return np.max(magnitudes, -1, keepdims=True)


def one_over_gaps(w: Array, equal: Array) -> Any:
    """Return 1 / (w_j - w_i) at (i, j), and 0 where they are equal."""
    return np.where(equal, 0, 1 / np.where(equal, 1, w[..., None, :] - w[..., None]))


def undetermined(equal: Array, dtype: Any, beside: Array | bool = False) -> Any:
    """Return a row `(..., 1, n)`: NaN for vectors whose value another one equals, 1 for others."""
    several = np.logical_or(np.sum(equal, -1) > 1, beside)
    return np.where(several, np.nan, 1.0).astype(dtype)[..., None, :]


@LinearMap
def share(t: Stack, shares: Array) -> Stack:
    """Mix the values `(k, ..., 1, n)` that share a tangent."""
    return np.matmul(t, shares)


@share.transposed
def _(ct: Cotangent, _shape: Shape, shares: Array) -> Cotangent:
    return share_back(ct, shares)


@LinearMap
def share_back(ct: Stack, shares: Array) -> Stack:
    """Mix the cotangents of equal values if they are equal themselves, else return NaN there."""
    mean, plain = np.matmul(ct, shares), primal_of(ct)
    error = np.absolute(plain - primal_of(mean))
    allowed = 100 * np.finfo(plain.dtype).eps * _largest(plain)
    return np.where(error <= allowed, mean, np.nan)


share_back.transposed(lambda ct, _shape, shares: share(ct, shares))


def shares_of(w: Array, equal: Array, dtype: Any) -> Any:
    return equal.astype(dtype) / np.sum(equal, -1, keepdims=True, dtype=dtype)


def values_from(inside: Tangent, shares: Array, share: Callable) -> Any:
    """Return the tangents `(..., n)` of values from those of the diagonal of `(..., n, n)`."""
    diagonal = linear.sum(linear.scale(inside, identity_like(primal_of(shares))), (-1,))
    shape = linear.shape_of(diagonal)
    row = linear.reshape(diagonal, (*shape[:-1], 1, shape[-1]))
    return linear.reshape(share(row, shares), shape)
