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
from dualnet.learning.independence import summed_by_part
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


def combine_parts(coefficients: Array, t: Tangent, axis: int) -> Array:
    """Return Σ_i c[i] · t[i], where each run of neighbors on an axis has coefficients of its own.

    Args:
        coefficients: c `(k, G)`.
        t: directions of a parameter, one axis of which falls into G runs.
        axis: which: the first or the last of a dense parameter or of a stack of matrices.
    """
    if isinstance(t, LowRank):
        return functools.reduce(np.add, (combine_parts(coefficients, u, axis) for u in t.terms))
    if isinstance(t, RankOne):
        left, right = t.left, t.right
        if axis == -1:
            right = _scaled_parts(right, coefficients, right.ndim - 1)
        else:
            left = _scaled_parts(left, coefficients, 1)
        return combine(np.ones_like(coefficients[:, 0]), RankOne(left, right))
    parts = _parts(t, axis, coefficients.shape[1])
    weighted = summed_by_part(coefficients[:, None, None], parts[:, None], False)
    return np.reshape(weighted, t.shape[1:])


def _scaled_parts(factor: Array, c: Array, axis: int) -> Array:
    """Multiply runs on an axis of a factor `(k, ...)` by c `(k, G)`."""
    size = factor.shape[axis]
    spread = np.repeat(c, size // c.shape[1], axis=1)
    shape = (len(c), *(size if a == axis else 1 for a in range(1, factor.ndim)))
    return factor * np.reshape(spread, shape)


def _parts(t: Array, axis: int, groups: int) -> Array:
    """Return dense directions with an axis cut into groups, as `(k, before, G, within)`."""
    k, *shape = t.shape
    before = math.prod(shape[:-1]) if axis == -1 else 1
    return np.reshape(t, (k, before, groups, math.prod(shape) // (before * groups)))


def inner_products_of_parts(t: Tangent, u: Tangent, axis: int, groups: int) -> Array:
    """Return ⟨t[i], u[j]⟩ over each run of neighbors on an axis, `(G, k, l)`.

    The arguments are those of `combine_parts`.
    """
    if isinstance(t, LowRank):
        return sum(inner_products_of_parts(a, b, axis, groups) for a in t.terms for b in u.terms)
    if isinstance(t, RankOne):
        of_left = _gram(t.left, u.left)  # (*b, k, l)
        if axis == -1:
            rights = [np.reshape(f, (*f.shape[:-1], groups, -1)) for f in (t.right, u.right)]
            pairs = of_left[..., None, :, :] * _gram(*rights)  # (*b, G, k, l)
            return np.sum(pairs, axis=tuple(range(pairs.ndim - 3)))
        pairs = of_left * _gram(t.right, u.right)
        pairs = np.reshape(pairs, (groups, -1, *pairs.shape[-2:]))
        return np.sum(pairs, axis=1)
    by_group = [np.moveaxis(_parts(each, axis, groups), 2, 0) for each in (t, u)]
    of_t, of_u = (np.reshape(r, (*r.shape[:2], -1)) for r in by_group)  # (G, k, ...)
    return exact_matmul(of_t, np.swapaxes(of_u, 1, 2))


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
