"""Directions of a parameter that are different for every example of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dualnet.backends.overridable import concatenate, matmul
from dualnet.core import linear
from dualnet.core.linear import LinearMap, StructuredTangent
from dualnet.core.spaces import RankOne, dense, direction_count
from dualnet.core.tables import linear_maps
from dualnet.errors import TangentError
from dualnet.images.convolution import convolve_own_rank_one
from dualnet.images.rules import conv_of_kernel_tangent
from dualnet.images.windows import Geometry
from dualnet.learning.directions.algebra import directions_at
from dualnet.types import Array, Shape, Stack, Tangent


class PerExample(StructuredTangent):
    """k directions of a parameter for each of n examples.

    As long as the parameter is by itself they are k·n directions like any others.  Where it meets
    the batch, every example takes the k that are its own, and the result is a dense stack.  It
    meets the batch in a product x @ w, where the batch is the leading axis of x or of its rows;
    in a convolution; and where it is stretched along a new or unit leading axis.  Such an axis is
    taken for that of the batch, because nothing tells it from a constant's of as many rows.  The
    axis may hold several rows for each example, side by side.

    Args:
        each: k·n directions, dense or `RankOne`; those of example j are j, n + j, 2n + j, ...
        examples: n.
    """

    k: int
    shape: Shape

    def __init__(self, each: Tangent, examples: int):
        self.each = each
        self.examples = examples
        self.k = direction_count(each) // examples
        self.shape = linear.shape_of(each)
        self.dtype = each.dtype

    def dense(self) -> Stack:
        """Refuse: there is no dense stack `(k, *S)`.

        Raises:
            TangentError: always.
        """
        raise self.error("a result in which it meets no batch")

    def of_example(self, j: int) -> Tangent:
        """Return the k directions of one example."""
        return directions_at(self.each, slice(j, None, self.examples))

    def rows(self, length: int) -> int:
        """Return how many rows each example has on an axis of so many."""
        if length % self.examples:
            raise self.error(f"a batch of {length}")
        return length // self.examples

    def error(self, what: str) -> TangentError:
        """Return the error about a use of the parameter that has no meaning."""
        return TangentError(
            f"PerExample: {self.examples} examples have directions of their own of a parameter of "
            f"shape {self.shape}, which mean nothing in {what}; use it in x @ w, in a convolution, "
            "or stretched along the batch"
        )

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Tangent:
        if linear_map in _PRODUCTS:
            return _PRODUCTS[linear_map](self, *params)
        if linear_map in _STRETCHING:
            stack = self._stretched(_STRETCHING[linear_map](params[0]))
            if stack is not None:
                return linear_map(stack, *params)
        elif linear_map not in _ALONE:
            raise self.error(linear_map.__name__)
        return PerExample(linear_map(self.each, *params), self.examples)

    def add(self, other: Tangent) -> Tangent:
        if isinstance(other, PerExample):
            return PerExample(linear.add(self.each, other.each), self.examples)
        stack = self._stretched(linear.shape_of(other))
        if stack is None:
            raise self.error("a sum with what is no batch")
        return linear.add(stack, other)

    def _stretched(self, shape: Shape) -> Stack | None:
        """Return each row's own directions `(k, rows, ...)`, of the rank of `shape`.

        Return None where `shape` does not stretch the parameter along the leading axis.
        """
        own = self.shape
        # Directions of a single example are everybody's, whatever a 1 in front stands for.
        if len(own) > len(shape) or (shape[:1] == (1,) and self.examples > 1):
            return None
        if len(own) == len(shape):
            if own[:1] != (1,):
                return None
            own = own[1:]
        rows, ones = self.rows(shape[0]), (1,) * (len(shape) - 1 - len(own))
        stack = np.reshape(dense(self.each), (self.k, self.examples, *ones, *own))
        return stack if rows == 1 else np.repeat(stack, rows, axis=1)


_ALONE = {linear.reshape, linear.transpose, linear_maps.index, linear.cast}
"""Maps in which no parameter meets a batch."""

_STRETCHING: dict[LinearMap, Callable[[Array], Shape]] = {
    linear.broadcast_to: tuple,
    linear.scale: np.shape,
    linear.divide: np.shape,
    linear_maps.select: np.shape,
}
"""Maps in which it may, and what shape they stretch it to, from their first param."""

_PRODUCTS: dict[LinearMap, Callable[..., Stack]] = {}


def product(linear_map: LinearMap) -> Callable:
    """Say how a map in which parameters always meet the batch acts on a PerExample (a decorator).

    The function takes the PerExample and the map's params, and returns a dense stack.
    """

    def decorate(function: Callable[..., Stack]) -> Callable:
        _PRODUCTS[linear_map] = function
        return function

    return decorate


@product(linear.matmul_from_left)
def _(t: PerExample, x: Array) -> Stack:
    """Multiply every example's rows by its own matrices, by factors first if these have any."""
    *stack, p, q = t.shape
    k, n, lead = t.k, t.examples, x.shape[:-1]
    if not stack:
        x = np.reshape(x, (math.prod(lead), p))
    elif x.shape[:-2] != tuple(stack):
        raise t.error(f"a product with a batch of shape {x.shape}")
    x = np.reshape(x, (*stack, n, t.rows(x.shape[-2]), p))
    if isinstance(t.each, RankOne):
        left, right = (np.reshape(f, (k, n, *f.shape[1:])) for f in (t.each.left, t.each.right))
        left = np.moveaxis(left, (0, 1), (-2, -3))  # (*stack, n, k, p)
        inner = matmul(left, np.swapaxes(x, -1, -2))
        inner = np.moveaxis(inner, -2, 0)  # (k, *stack, n, rows)
        y = inner[..., None] * np.moveaxis(right, 1, -2)[..., None, :]
    else:
        w = np.reshape(t.each, (k, n, *t.shape))
        y = matmul(x, np.moveaxis(w, 1, -3))
    return np.reshape(y, (k, *lead, q))


@product(conv_of_kernel_tangent)
def _(t: PerExample, x: Array, geometry: Geometry) -> Stack:
    if t.rows(len(x)) != 1:
        raise t.error(f"a batch of {len(x)} images")
    if isinstance(t.each, RankOne) and t.shape[0] == 1:
        shape = (t.k, t.examples)
        left, right = (np.reshape(f, (*shape, *f.shape[2:])) for f in (t.each.left, t.each.right))
        return np.expand_dims(convolve_own_rank_one(x, left, right, geometry), 1)
    of_each = [
        conv_of_kernel_tangent(t.of_example(j), x[j : j + 1], geometry) for j in range(len(x))
    ]
    return concatenate(of_each, axis=2)  # (k, 1, M, rows, columns, Q)
