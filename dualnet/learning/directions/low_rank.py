"""Directions of a matrix that are sums of several outer products."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from dualnet.core import linear
from dualnet.core.linear import LinearMap, StructuredTangent
from dualnet.core.spaces import RankOne
from dualnet.types import Stack, Tangent


class LowRank(StructuredTangent):
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

    def dense(self) -> Stack:
        """Return the stack `(k, *b, p, q)`."""
        return functools.reduce(linear.add, (term.dense() for term in self.terms))

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Tangent:
        images = [linear_map(term, *params) for term in self.terms]
        if all(isinstance(image, RankOne) for image in images):
            return LowRank(images)
        return functools.reduce(linear.add, images)
