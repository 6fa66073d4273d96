"""Tangent spaces beside the dense stack, and what learning rules ask of any of them.

| space | what it holds | what it is for |
| --- | --- | --- |
| `None` | nothing | constants: rules skip them |
| array `(k, *S)` | k directions | k directional derivatives in one pass |
| `RankOne` | factors `(k, p)` and `(k, q)` | random directions of a weight matrix |
| `symbolic.Symbolic` | a recorded expression | transposed, it is reverse mode |
| `DirectSum` | one tangent from each of several spaces | several questions in one pass |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.linear import LinearMap, Structured, Tangent
from dualnet.errors import TangentError


class RankOne(Structured):
    """k directions of a matrix `(p, q)`, each an outer product `left[i] ⊗ right[i]`.

    `x @ w` has the tangent `(x · left[i]) right[i]`, which takes p + q multiplications a row
    of x where a dense direction takes p·q.  A map without a shortcut gets the dense stack.

    Args:
        left: array `(k, p)`.
        right: array `(k, q)`, of the same dtype.
    """

    def __init__(self, left: Any, right: Any):
        if left.ndim != 2 or right.ndim != 2 or left.shape[0] != right.shape[0]:
            raise TangentError(
                f"RankOne: expected factors (k, p) and (k, q), got {left.shape} and {right.shape}"
            )
        self.left = left
        self.right = right
        self.shape = (left.shape[1], right.shape[1])
        self.dtype = left.dtype

    def dense(self) -> Any:
        """The stack `(k, p, q)`."""
        return self.left[:, :, None] * self.right[:, None, :]

    def act(self, linear_map: LinearMap, params: tuple) -> Tangent:
        shortcut = _SHORTCUTS.get(linear_map)
        result = shortcut(self, *params) if shortcut else None
        return linear_map(self.dense(), *params) if result is None else result

    def plus(self, other: Tangent) -> Tangent:
        return linear.add(self.dense(), dense(other))


def _rank_one_from_left(t: RankOne, x: Any) -> Tangent:
    """x @ (left ⊗ right) = (x left) ⊗ right, for all k at once."""
    k, q = t.right.shape
    rows = np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    inner = np.matmul(t.left, np.swapaxes(rows, 0, 1))  # (k, rows), so that k leads in memory too
    return np.reshape(inner[:, :, None] * t.right[:, None, :], (k, *x.shape[:-1], q))


def _rank_one_transposed(t: RankOne, axes: tuple) -> RankOne | None:
    return RankOne(t.right, t.left) if axes == (-1, -2) else None


def _rank_one_scaled(t: RankOne, c: Any) -> RankOne | None:
    return RankOne(t.left * c, t.right) if np.ndim(c) == 0 else None


_SHORTCUTS: dict[LinearMap, Callable[..., Tangent | None]] = {
    linear.matmul_from_left: _rank_one_from_left,
    linear.transpose: _rank_one_transposed,
    linear.scale: _rank_one_scaled,
}


class DirectSum(Structured):
    """One tangent from each of several spaces, carried side by side through one pass.

    Every map acts on every part.  Activity perturbation uses it: part 0 is the dense effect
    of the perturbations so far, part 1 the symbolic dependence on the last layer's weights.

    Args:
        parts: tangents of one shape; None where that space has nothing. Not all None.
    """

    def __init__(self, *parts: Tangent):
        self.parts = parts
        present = next(p for p in parts if p is not None)
        self.shape = linear.shape_of(present)
        self.dtype = present.dtype

    def act(self, linear_map: LinearMap, params: tuple) -> Tangent:
        return DirectSum(*(p if p is None else linear_map(p, *params) for p in self.parts))

    def plus(self, other: DirectSum) -> Tangent:
        # A part that is alone stretches too: all parts are tangents of the one broadcast result.
        shape = np.broadcast_shapes(self.shape, other.shape)

        def sum_of(a: Tangent, b: Tangent) -> Tangent:
            if a is None or b is None:
                alone = b if a is None else a
                return alone if alone is None else linear.broadcast_to(alone, shape)
            return linear.add(a, b)

        return DirectSum(*(sum_of(a, b) for a, b in zip(self.parts, other.parts, strict=True)))


def dense(t: Tangent) -> Any:
    """The stack `(k, *S)` of a dense or rank-one tangent."""
    return t.dense() if isinstance(t, RankOne) else t


def directions(t: Tangent) -> int:
    """k, of a dense or rank-one tangent."""
    return t.left.shape[0] if isinstance(t, RankOne) else t.shape[0]


def combine(coefficients: Any, t: Tangent) -> Any:
    """Σ_i coefficients[i] · t[i], an array of the primal's shape; coefficients `(k,)`."""
    if isinstance(t, RankOne):
        return (t.left * coefficients[:, None]).T @ t.right
    rows = np.reshape(t, (t.shape[0], math.prod(t.shape[1:])))
    return np.reshape(coefficients @ rows, t.shape[1:])


def inner_products(t: Tangent, u: Tangent) -> Any:
    """⟨t[i], u[j]⟩ for all pairs of directions of two stacks of one kind, `(k, l)`."""
    if isinstance(t, RankOne):
        return (t.left @ u.left.T) * (t.right @ u.right.T)
    size = math.prod(t.shape[1:])
    return np.reshape(t, (t.shape[0], size)) @ np.reshape(u, (u.shape[0], size)).T
