"""Random directions of all weights, a part of them at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import concatenate, exact_matmul
from dualnet.core.spaces import direction_count
from dualnet.learning.aggregate import Aggregation
from dualnet.learning.directions.algebra import (
    combine,
    directions_at,
    inner_products,
    join_directions,
)
from dualnet.learning.directions.per_example import PerExample
from dualnet.learning.directions.samplers import Sampler
from dualnet.learning.task import Shard
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

Segments = Mapping[str, int]
"""Path of a parameter → the number of the loss that it answers to; {} if there is only one."""

TANGENT_BYTES = 1 << 30
"""Memory for directions, and for what one pass carries along them, unless the caller sets how many
it is to carry."""


def directions_that_fit(bytes_each: int) -> int:
    """Return how many directions that need so many bytes each may be in memory at once."""
    return max(1, TANGENT_BYTES // max(1, bytes_each))


def direction_bytes(sampler: Sampler, params: Tree) -> int:
    """Return the bytes of one direction of all parameters."""
    return sum([sampler.numbers(p.shape) * p.dtype.itemsize for p in tree.leaves(params)])


def combined(tangents: Tree, coefficients: Sequence[Array], segments: Segments) -> Tree:
    """Return Σ_i c_i v_i for each parameter.

    Args:
        tangents: the directions.
        coefficients: `(k,)` for each loss; each parameter takes those of its own.
        segments: which loss each parameter answers to.
    """
    if not segments:
        return tree.map(lambda t: combine(coefficients[0].astype(t.dtype), t), tangents)
    return tree.map_with_path(
        lambda path, t: combine(coefficients[segments[path]].astype(t.dtype), t), tangents
    )


@dataclass(frozen=True)
class SharedDirections:
    """k random directions of a tree of parameters, the same for all examples.

    A single chunk is drawn once and kept; several are drawn anew each time they are needed, so
    that no more than one is in memory.

    Attributes:
        key: names all draws.
        params: the tree whose directions they are.
        sampler: draws them.
        k: how many directions.
        examples: how many examples the batch has.
        segments: which loss each parameter answers to.
        chunk: at most so many directions at once.
        whole: all of them, where they are a single chunk.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    examples: int
    segments: Segments
    chunk: int
    whole: Tree | None = field(init=False)

    def __post_init__(self) -> None:
        single = self.chunk >= self.k
        object.__setattr__(self, "whole", self.draw(0, self.k) if single else None)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first direction of each chunk, and the first after it."""
        return [(a, min(a + self.chunk, self.k)) for a in range(0, self.k, self.chunk)]

    def chunks(self) -> Iterator[Tree]:
        """Yield the directions, a tree like params for each chunk."""
        if self.whole is not None:
            yield self.whole
        else:
            for start, stop in self.bounds:
                yield self.draw(start, stop)

    def draw(self, start: int, stop: int) -> Tree:
        """Draw directions start … stop-1."""
        return self.sampler.draw(self.backend, self.key, self.params, start, stop)

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """Yield the directions for one shard, at most so many at once."""
        for tangents in self.chunks():
            held = direction_count(tree.leaves(tangents)[0])
            if held <= most:
                yield tangents
                continue
            for a in range(0, held, most):
                which = slice(a, a + most)
                yield tree.map(lambda t: directions_at(t, which), tangents)  # noqa: B023

    def contribution(self, d: Array, tangents: Tree) -> Array:
        """Return what a pass adds to the measurement: derivatives of the summed losses.

        Args:
            d: the derivatives of all examples' losses `(k, losses, n)`.
            tangents: the directions.

        Returns:
            `(k, losses)`.
        """
        return d.sum(-1)

    def together(self, contributions: list) -> dict[str, Any]:
        """Return those of all passes as one, to be added up over shards."""
        several = len(contributions) > 1
        return {"derivatives": concatenate(contributions) if several else contributions[0]}

    def gradients(self, total: dict[str, Any], n: int, aggregate: Aggregation) -> Tree:
        """Return the estimate from what all shards measured.

        Args:
            total: `derivatives` of the summed losses, `(k, losses)`.
            n: how many examples there were.
            aggregate: from derivatives of the mean loss to coefficients.
        """
        d = total["derivatives"] / n
        by_loss = [self.coefficients(d[:, i], aggregate, i) for i in range(d.shape[1])]
        if self.whole is not None:
            return combined(self.whole, by_loss, self.segments)
        parts = (
            combined(tangents, [c[start:stop] for c in by_loss], self.segments)
            for (start, stop), tangents in zip(self.bounds, self.chunks(), strict=True)
        )
        return functools.reduce(tree.add, parts)

    def coefficients(self, d: Array, aggregate: Aggregation, segment: int) -> Array:
        """Return c with Σ c_i v_i the estimate, for the parameters that answer to one loss.

        Args:
            d: the loss's derivatives along the independent directions, `(k,)`.
            aggregate: what is made of the derivatives along the mixed ones.
            segment: which loss.
        """
        gram = functools.cache(lambda: self.gram(segment))
        n = self.size(segment)
        if n == 0:  # nothing follows the last local head
            return np.zeros_like(d)
        if self.sampler.mix is None:
            return aggregate(d, gram, n)
        mixture = self.sampler.mix(gram(), n)
        mixed = functools.cache(lambda: exact_matmul(exact_matmul(mixture, gram()), mixture.T))
        c = aggregate(exact_matmul(mixture, d).astype(d.dtype), mixed, n)
        return exact_matmul(mixture.T, c).astype(d.dtype)

    def size(self, segment: int) -> int:
        """Count the parameters that answer to a loss."""
        if not self.segments:
            return sum([p.size for p in tree.leaves(self.params)])
        own = [p.size for path, p in tree.items(self.params) if self.segments[path] == segment]
        return sum(own)

    def gram(self, segment: int) -> Array:
        """Return the inner products of all directions over a loss's parameters, `(k, k)`."""
        result: Array = None
        for (a, b), rows in zip(self.bounds, self.chunks(), strict=True):
            for (c, d), columns in zip(self.bounds, self.chunks(), strict=True):
                if c <= a:
                    block = sum(
                        inner_products(t, u)
                        for (path, t), u in zip(tree.items(rows), tree.leaves(columns), strict=True)
                        if self.segments.get(path, 0) == segment
                    )
                    if result is None:
                        result = np.zeros_like(block, np.float64, shape=(self.k, self.k))
                    result[a:b, c:d] = block
                    result[c:d, a:b] = np.swapaxes(block, 0, 1)
        return result


@dataclass(frozen=True)
class IndependentDirections:
    """k random directions of a tree of parameters for every example of a batch.

    Attributes:
        key: names all draws; direction i of example j depends on it, the leaf's path, i and j.
        params, sampler, k, examples, segments: as in `SharedDirections`.
        coupled: whether examples move each other's losses, so that each answers to their sum.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    examples: int
    segments: Segments
    coupled: bool

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """Yield those of a shard's examples, at most so many of each at once."""
        first, n = shard.context.start, len(shard.inputs)
        for start in range(0, self.k, most):
            drawn = [
                self.sampler.draw(self.backend, self.key.fold_in(i), self.params, first, first + n)
                for i in range(start, min(start + most, self.k))
            ]
            yield tree.map(lambda *ts: PerExample(join_directions(ts), n), *drawn)

    def contribution(self, d: Array, tangents: Tree) -> Tree:
        """Return what a pass adds to the measurement: Σ d_i v_i over directions and examples.

        Args:
            d: the derivatives of all examples' losses `(k, losses, n)`.
            tangents: the directions.
        """
        if self.coupled:
            d = np.broadcast_to(d.sum(-1, keepdims=True), d.shape)
        by_loss = [np.reshape(d[:, i], d.shape[0] * d.shape[2]) for i in range(d.shape[1])]
        return combined(tree.map(lambda t: t.each, tangents), by_loss, self.segments)

    def together(self, contributions: list) -> dict[str, Any]:
        """Return those of all passes as one, to be added up over shards."""
        return {"sums": functools.reduce(tree.add, contributions)}

    def gradients(self, total: dict[str, Any], n: int, aggregate: Aggregation) -> Tree:
        """Return the estimate from what all shards measured.

        Args:
            total: `sums` Σ d_i v_i.
            n: how many examples there were.
            aggregate: `mean` or `sum`, which has the same coefficient for all derivatives.
        """
        c = float(aggregate(np.ones(self.k), dict, n)[0])
        return tree.map(lambda g: g * (c / n), total["sums"])
