"""What learning rules do with k directions of a parameter: part, join, combine, multiply.

Each function takes dense stacks, `RankOne` and `LowRank` directions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from dualnet.backends.overridable import concatenate, exact_matmul, matmul
from dualnet.core.spaces import RankOne
from dualnet.learning.directions.low_rank import LowRank
from dualnet.types import Array, Tangent


def directions_at(t: Tangent, which: slice) -> Tangent:
    """Return some of the directions of a dense, rank-one or low-rank tangent."""
    if isinstance(t, LowRank):
        return LowRank([directions_at(term, which) for term in t.terms])
    return RankOne(t.left[which], t.right[which]) if isinstance(t, RankOne) else t[which]


def join_directions(ts: Sequence[Tangent]) -> Tangent:
    """Join the directions of several dense or several rank-one tangents, one after the other."""
    if isinstance(ts[0], RankOne):
        return RankOne(*(concatenate([getattr(t, f) for t in ts]) for f in ("left", "right")))
    return concatenate(ts)


def combine(coefficients: Array, t: Tangent) -> Array:
    """Return Σ_i c[i] · t[i], an array of the primal's shape, for coefficients c `(k,)`."""
    if isinstance(t, LowRank):
        return functools.reduce(np.add, (combine(coefficients, term) for term in t.terms))
    if isinstance(t, RankOne):
        weighted = np.moveaxis(t.left, 0, -1) * coefficients
        return matmul(weighted, np.moveaxis(t.right, 0, -2))
    rows = np.reshape(t, (t.shape[0], math.prod(t.shape[1:])))
    return np.reshape(matmul(coefficients, rows), t.shape[1:])


def inner_products(t: Tangent, u: Tangent) -> Array:
    """Return ⟨t[i], u[j]⟩ for all pairs of directions of two tangents of one kind, `(k, l)`."""
    if isinstance(t, LowRank):
        return sum(inner_products(a, b) for a in t.terms for b in u.terms)
    if isinstance(t, RankOne):
        pairs = _gram(t.left, u.left) * _gram(t.right, u.right)  # (*b, k, l)
        return np.sum(pairs, axis=tuple(range(pairs.ndim - 2)))
    size = math.prod(t.shape[1:])
    return exact_matmul(np.reshape(t, (t.shape[0], size)), np.reshape(u, (u.shape[0], size)).T)


def _gram(a: Array, b: Array) -> Array:
    """Return a · b `(*b, k, l)` along the last axes of a `(k, *b, p)` and b `(l, *b, p)`."""
    return exact_matmul(np.moveaxis(a, 0, -2), np.moveaxis(b, 0, -1))
