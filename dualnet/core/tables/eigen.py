"""Eigenvalues and eigenvectors of matrices that need not be symmetric, where all are real.

A complex spectrum is refused, as complex numbers carry no tangents.  A real one is an array of real
numbers, also with NumPy 2.5 and later, which return complex arrays always.  The derivatives are NaN
where the eigenvectors do not span the space up to rounding, or where eigenvalues are equal, because
then single eigenvalues have a kink and their vectors are not determined.
Source: Giles 2008, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation", 3.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dual import primal_of
from dualnet.core.engine import linearizer
from dualnet.core.tables.equal_values import one_over_gaps, rounding
from dualnet.core.tables.matrices import between, identity_like, once, several_results
from dualnet.errors import MissingRuleError
from dualnet.types import Array, Tangent


def _real_where_all_are(eig: tuple) -> tuple:
    """Return eig's result as NumPy had it before version 2.5: complex only where a value is."""
    values, vectors = eig
    if getattr(values, "dtype", np.dtype(float)).kind == "c" and not np.any(values.imag):
        values, vectors = values.real, vectors.real
    return values, vectors


def _spectrum(name: str, a: Array) -> tuple:
    """Decompose a; return eig's result, the map to V⁻¹ ȧ V, and which eigenvalues are equal."""
    out = _real_where_all_are(np.linalg.eig(a))
    w, v = out
    plain = primal_of(w)
    if plain.dtype.kind == "c":
        raise MissingRuleError(
            f"np.linalg.{name}: the matrix has complex eigenvalues, and complex numbers carry no "
            "tangents. Use np.linalg.eigvalsh or eigh of a symmetric matrix, np.linalg.svd, or "
            "what depends on all eigenvalues, such as np.trace, np.linalg.det or matrix_power"
        )
    gaps = np.absolute(plain[..., :, None] - plain[..., None, :])
    equal = gaps <= rounding(plain)[..., None]
    condition = np.linalg.cond(primal_of(v)) if plain.size else np.ones(plain.shape[:-1])
    spans = condition < np.finfo(plain.dtype).eps ** -0.5
    apart = np.logical_and(np.sum(equal, -1) == 1, spans[..., None])
    inverse = np.linalg.inv(np.where(spans[..., None, None], v, identity_like(plain)))
    determined = np.where(apart, 1.0, np.nan).astype(plain.dtype)[..., None, :]  # (..., 1, n)
    inside = once(lambda t: linear.scale(between(inverse, t, v), determined))
    return out, inside, equal


def _diagonal(inside: Tangent, like: Array) -> Any:
    return linear.sum(linear.scale(inside, identity_like(primal_of(like))), (-1,))


@several_results(np.linalg.eig)
def _eig(a: Array) -> Any:
    """λ̇ = diag(V⁻¹ ȧ V) and V̇ = V (F ∘ V⁻¹ ȧ V), of which the part along each unit vector is taken
    away; F_ij = 1 / (λ_j - λ_i)."""
    out, inside, equal = _spectrum("eig", a)
    w, v = out
    factors = one_over_gaps(w, equal)

    def by_vectors(t: Tangent) -> Any:
        moved = linear.matmul_from_left(linear.scale(inside(t), factors), v)
        along = linear.sum(linear.scale(moved, v), (-2,), True)
        return linear.add(moved, -linear.scale(linear.stretch(along, v.shape), v))

    return out, (lambda t: _diagonal(inside(t), w), by_vectors)


@linearizer(np.linalg.eigvals)
def _eigvals(a: Array) -> Any:
    out, inside, _ = _spectrum("eigvals", a)
    return out[0], lambda t: _diagonal(inside(t), out[0])
