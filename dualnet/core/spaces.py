"""Tangent spaces beside the dense stack, and what learning rules ask of any of them.

| space | what it holds | what it is for |
| --- | --- | --- |
| `None` | nothing | constants: rules skip them |
| array `(k, *S)` | k directions | k directional derivatives in one pass |
| `RankOne` | factors `(k, p)` and `(k, q)` | random directions of weight matrices and kernels |
| `LowRank` | several `RankOne`, to be added up | the same, of higher rank |
| `per_example.PerExample` | k directions for each example | weights perturbed for each alone |
| `symbolic.Symbolic` | a recorded expression | transposed, it is reverse mode |
| `DirectSum` | one tangent from each of several spaces | several questions in one pass |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet.backends.replaceable import exact_product, matrix_product
from dualnet.core import linear
from dualnet.core.joining import concatenated
from dualnet.core.linear import LinearMap, Structured, Tangent
from dualnet.errors import TangentError


class Stack(Structured):
    """A tangent that holds k directions in another form than one array."""

    k: int

    def dense(self) -> Any:
        """The array `(k, *S)`."""
        raise NotImplementedError


class RankOne(Stack):
    """k directions of a matrix `(p, q)`, each an outer product `left[i] ⊗ right[i]`.

    `x @ w` has the tangent `(x · left[i]) right[i]`, which takes p + q multiplications a row
    of x where a dense direction takes p·q.  Arrays of more axes are stacks of matrices `(*b, p,
    q)` with factors of their own: a kernel `(kh, kw, p, q)` has an outer product at each pixel.
    A map without a shortcut gets the dense stack.

    Args:
        left: array `(k, *b, p)`.
        right: array `(k, *b, q)`, of the same dtype.
    """

    def __init__(self, left: Any, right: Any):
        for factor in (left, right):
            if not hasattr(factor, "dtype"):
                raise TangentError(
                    f"RankOne: expected arrays as factors, got {type(factor).__name__}; convert it "
                    "by np.asarray"
                )
        if left.ndim < 2 or left.shape[:-1] != right.shape[:-1]:
            raise TangentError(
                "RankOne: expected factors (k, *b, p) and (k, *b, q), got "
                f"{left.shape} and {right.shape}"
            )
        if left.dtype != right.dtype:
            raise TangentError(
                f"RankOne: expected factors of one dtype, got {left.dtype} and {right.dtype}; "
                "convert one by astype"
            )
        self.left = left
        self.right = right
        self.k = left.shape[0]
        self.shape = (*left.shape[1:], right.shape[-1])
        self.dtype = left.dtype

    def dense(self) -> Any:
        """The stack `(k, *b, p, q)`."""
        return self.left[..., :, None] * self.right[..., None, :]

    def act(self, linear_map: LinearMap, params: tuple) -> Tangent:
        short = _SHORTCUTS.get(linear_map)
        result = short(self, *params) if short else None
        return linear_map(self.dense(), *params) if result is None else result

    def plus(self, other: Tangent) -> Tangent:
        return linear.add(self.dense(), dense(other))


_SHORTCUTS: dict[LinearMap, Callable[..., Tangent | None]] = {}


def shortcut(linear_map: LinearMap) -> Callable:
    """Decorator: how `linear_map` acts on a RankOne, cheaper than on its dense stack.

    The function takes the RankOne and the map's params; None is its answer where it has no
    cheaper way.
    """

    def decorate(function: Callable[..., Tangent | None]) -> Callable:
        _SHORTCUTS[linear_map] = function
        return function

    return decorate


@shortcut(linear.matmul_from_left)
def _(t: RankOne, x: Any) -> Tangent | None:
    """x @ (left ⊗ right) = (x left) ⊗ right, for all k at once."""
    if len(t.shape) == 2:
        k, q = t.right.shape
        rows = np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        inner = matrix_product(t.left, np.swapaxes(rows, 0, 1))  # (k, rows), as it lies in memory
        return np.reshape(inner[:, :, None] * t.right[:, None, :], (k, *x.shape[:-1], q))
    if x.shape[:-2] != t.shape[:-2]:
        return None
    inner = np.moveaxis(matrix_product(x, np.moveaxis(t.left, 0, -1)), -1, 0)  # (k, *b, rows)
    return inner[..., None] * t.right[..., None, :]


@shortcut(linear.transpose)
def _(t: RankOne, axes: tuple) -> RankOne | None:
    swapped = (*range(-len(axes), -2), -1, -2)
    return RankOne(t.right, t.left) if axes == swapped else None


@shortcut(linear.reshape)
def _(t: RankOne, shape: tuple) -> RankOne | None:
    """Where only the stack's axes change."""
    if shape[-2:] != t.shape[-2:]:
        return None
    k, (*b, p, q) = len(t.left), shape
    return RankOne(np.reshape(t.left, (k, *b, p)), np.reshape(t.right, (k, *b, q)))


@shortcut(linear.scale)
def _(t: RankOne, c: Any) -> RankOne | None:
    if np.ndim(c):
        return None
    left = t.left * c
    return RankOne(left, t.right) if left.dtype == t.right.dtype else None  # c widens


class LowRank(Stack):
    """k directions of a matrix, each the sum of several outer products.

    Maps act term by term, by the shortcuts of `RankOne`.

    Args:
        terms: at least one `RankOne`, all of one shape.
    """

    def __init__(self, terms: Sequence[RankOne]):
        self.terms = tuple(terms)
        self.k = self.terms[0].k
        self.shape = self.terms[0].shape
        self.dtype = self.terms[0].dtype

    def dense(self) -> Any:
        """The stack `(k, *b, p, q)`."""
        return functools.reduce(linear.add, (term.dense() for term in self.terms))

    def act(self, linear_map: LinearMap, params: tuple) -> Tangent:
        images = [linear_map(term, *params) for term in self.terms]
        if all(isinstance(image, RankOne) for image in images):
            return LowRank(images)
        return functools.reduce(linear.add, images)

    def plus(self, other: Tangent) -> Tangent:
        return linear.add(self.dense(), dense(other))


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
    """The stack `(k, *S)` of a tangent that holds k directions."""
    return t.dense() if isinstance(t, Stack) else t


def directions(t: Tangent) -> int:
    """k, of a tangent that holds k directions."""
    return t.k if isinstance(t, Stack) else t.shape[0]


def numbers(t: Tangent) -> int:
    """How many numbers one direction of a dense, rank-one or low-rank tangent consists of."""
    if isinstance(t, LowRank):
        return sum(numbers(term) for term in t.terms)
    factors = (t.left, t.right) if isinstance(t, RankOne) else (t,)
    return sum(math.prod(f.shape[1:]) for f in factors)


def part(t: Tangent, which: slice) -> Tangent:
    """Some of the directions of a dense, rank-one or low-rank tangent."""
    if isinstance(t, LowRank):
        return LowRank([part(term, which) for term in t.terms])
    return RankOne(t.left[which], t.right[which]) if isinstance(t, RankOne) else t[which]


def joined(ts: Sequence[Tangent]) -> Tangent:
    """The directions of several dense or several rank-one tangents, one after the other."""
    if isinstance(ts[0], RankOne):
        return RankOne(*(concatenated([getattr(t, f) for t in ts]) for f in ("left", "right")))
    return concatenated(ts)


def combine(coefficients: Any, t: Tangent) -> Any:
    """Σ_i coefficients[i] · t[i], an array of the primal's shape; coefficients `(k,)`."""
    if isinstance(t, LowRank):
        return functools.reduce(np.add, (combine(coefficients, term) for term in t.terms))
    if isinstance(t, RankOne):
        weighted = np.moveaxis(t.left, 0, -1) * coefficients
        return matrix_product(weighted, np.moveaxis(t.right, 0, -2))
    rows = np.reshape(t, (t.shape[0], math.prod(t.shape[1:])))
    return np.reshape(matrix_product(coefficients, rows), t.shape[1:])


def inner_products(t: Tangent, u: Tangent) -> Any:
    """⟨t[i], u[j]⟩ for all pairs of directions of two stacks of one kind, `(k, l)`."""
    if isinstance(t, LowRank):
        return sum(inner_products(a, b) for a in t.terms for b in u.terms)
    if isinstance(t, RankOne):
        pairs = _gram(t.left, u.left) * _gram(t.right, u.right)  # (*b, k, l)
        return np.sum(pairs, axis=tuple(range(pairs.ndim - 2)))
    size = math.prod(t.shape[1:])
    return exact_product(np.reshape(t, (t.shape[0], size)), np.reshape(u, (u.shape[0], size)).T)


def _gram(a: Any, b: Any) -> Any:
    """The inner products along the last axis of a `(k, *b, p)` and b `(l, *b, p)`, `(*b, k, l)`."""
    return exact_product(np.moveaxis(a, 0, -2), np.moveaxis(b, 0, -1))
