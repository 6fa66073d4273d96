"""Random directions of all weights, a part of them at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import exact_product
from dualnet.core.arrays import concatenate_arrays, stack_arrays
from dualnet.core.spaces import direction_count
from dualnet.learning.aggregate import Aggregation
from dualnet.learning.directions.algebra import (
    combine,
    directions_at,
    inner_products,
    join_directions,
    numbers,
)
from dualnet.learning.directions.per_example import PerExample
from dualnet.learning.directions.samplers import Sampler
from dualnet.learning.task import Shard
from dualnet.nn.network import Layer
from dualnet.random import Key
from dualnet.tree import Tree

TANGENT_BYTES = 1 << 30
"""Memory for directions, and for what one pass carries along them, unless the caller sets how many
it is to carry."""


def directions_that_fit(bytes_each: int) -> int:
    """How many directions that need so many bytes each may be there at once."""
    return max(1, TANGENT_BYTES // max(1, bytes_each))


def direction_bytes(backend: Backend, sampler: Sampler, params: Tree) -> int:
    """Bytes of one direction of all parameters."""
    none = sampler.draw(backend, Key(0), params, 0, 0)  # costs nothing, and has the shapes
    return sum(numbers(t) * t.dtype.itemsize for t in tree.leaves(none))


def activation_bytes(network: Layer, params: Tree, state: Tree, shard: Shard) -> int:
    """Bytes of activations that a pass holds for each example and direction.

    That is the input and the output of some layer, so twice the largest output; which is that, an
    evaluation of two examples shows (of one alone, batch norm knows no variance).
    """
    inputs = shard.inputs[:2]
    outputs = [0]

    def tap(path: str, y: Any) -> Any:
        outputs.append(y.size // len(inputs) * y.dtype.itemsize)
        return y

    network.apply(params, state, inputs, replace(shard.context, tap=tap))
    return 2 * max(outputs)


def segment_at(segments: dict[str, int], path: str) -> int:
    """Which loss the parameter at a path answers to.

    Args:
        segments: which one each layer does, by its path; {} if there is one loss alone.
        path: the parameter's.
    """
    layer = path
    while segments and layer not in segments:
        layer = layer.rpartition("/")[0]
    return segments[layer] if segments else 0


def combined(tangents: Tree, coefficients: Any, segments: dict[str, int]) -> Tree:
    """Σ_i c_i v_i for each parameter.

    Args:
        tangents: the directions.
        coefficients: `(k, losses)`, of which each parameter takes the column of its loss.
        segments: as for `segment_at`.
    """

    def of_leaf(path: str, t: Any) -> Any:
        return combine(coefficients[:, segment_at(segments, path)].astype(t.dtype), t)

    return tree.map_with_path(of_leaf, tangents)


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
        segments: as for `segment_at`.
        chunk: at most so many directions at once.
        whole: all of them, where they are a single chunk.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    examples: int
    segments: dict[str, int]
    chunk: int
    whole: Tree | None = field(init=False)

    def __post_init__(self) -> None:
        single = self.chunk >= self.k
        object.__setattr__(self, "whole", self.draw(0, self.k) if single else None)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last + 1 direction of each chunk."""
        return [(a, min(a + self.chunk, self.k)) for a in range(0, self.k, self.chunk)]

    def chunks(self) -> Iterator[Tree]:
        """The directions, a tree like params for each chunk."""
        if self.whole is not None:
            yield self.whole
        else:
            for start, stop in self.bounds:
                yield self.draw(start, stop)

    def draw(self, start: int, stop: int) -> Tree:
        """Directions start … stop-1."""
        return self.sampler.draw(self.backend, self.key, self.params, start, stop)

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """The directions for one shard, at most so many at once."""
        for tangents in self.chunks():
            held = direction_count(tree.leaves(tangents)[0])
            if held <= most:
                yield tangents
                continue
            for a in range(0, held, most):
                which = slice(a, a + most)
                yield tree.map(lambda t: directions_at(t, which), tangents)  # noqa: B023

    def contribution(self, d: Any, tangents: Tree) -> Any:
        """What a pass adds to the measurement: derivatives of the summed losses `(k, losses)`.

        Args:
            d: the derivatives of all examples' losses `(k, losses, n)`.
            tangents: the directions.
        """
        return d.sum(-1)

    def together(self, contributions: list) -> dict[str, Any]:
        """Those of all passes as one, to be added up over shards."""
        return {"derivatives": concatenate_arrays(contributions)}

    def gradients(self, total: dict[str, Any], n: int, aggregate: Aggregation) -> Tree:
        """The estimate from what all shards measured.

        Args:
            total: `derivatives` of the summed losses, `(k, losses)`.
            n: how many examples there were.
            aggregate: from derivatives of the mean loss to coefficients.
        """
        d = total["derivatives"] / n
        # one column a loss: coefficients for the parameters that answer to it
        c = stack_arrays([self.coefficients(d[:, i], aggregate, i) for i in range(d.shape[1])], 1)
        parts = (
            combined(tangents, c[start:stop], self.segments)
            for (start, stop), tangents in zip(self.bounds, self.chunks(), strict=True)
        )
        return functools.reduce(tree.add, parts)

    def coefficients(self, d: Any, aggregate: Aggregation, segment: int) -> Any:
        """c with Σ c_i v_i the estimate, for the parameters that answer to one loss.

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
        mixed = functools.cache(lambda: exact_product(exact_product(mixture, gram()), mixture.T))
        c = aggregate(exact_product(mixture, d).astype(d.dtype), mixed, n)
        return exact_product(mixture.T, c).astype(d.dtype)

    def size(self, segment: int) -> int:
        """How many parameters answer to a loss."""
        return sum(
            p.size
            for path, p in tree.items(self.params)
            if segment_at(self.segments, path) == segment
        )

    def gram(self, segment: int) -> Any:
        """The inner products of all k directions over a loss's parameters together, `(k, k)`."""
        result: Any = None
        for (a, b), rows in zip(self.bounds, self.chunks(), strict=True):
            for (c, d), columns in zip(self.bounds, self.chunks(), strict=True):
                if c <= a:
                    block = sum(
                        inner_products(t, u)
                        for (path, t), u in zip(tree.items(rows), tree.leaves(columns), strict=True)
                        if segment_at(self.segments, path) == segment
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
    segments: dict[str, int]
    coupled: bool

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """Those of a shard's examples, at most so many of each at once."""
        first, n = shard.context.start, len(shard.inputs)
        for start in range(0, self.k, most):
            drawn = [
                self.sampler.draw(self.backend, self.key.fold_in(i), self.params, first, first + n)
                for i in range(start, min(start + most, self.k))
            ]
            yield tree.map(lambda *ts: PerExample(join_directions(ts), n), *drawn)

    def contribution(self, d: Any, tangents: Tree) -> Tree:
        """What a pass adds to the measurement: Σ d_i v_i over directions and examples.

        Args:
            d: the derivatives of all examples' losses `(k, losses, n)`.
            tangents: the directions.
        """
        if self.coupled:
            d = np.broadcast_to(d.sum(-1, keepdims=True), d.shape)
        c = np.reshape(np.swapaxes(d, 1, 2), (d.shape[0] * d.shape[2], d.shape[1]))
        return combined(tree.map(lambda t: t.each, tangents), c, self.segments)

    def together(self, contributions: list) -> dict[str, Any]:
        """Those of all passes as one, to be added up over shards."""
        return {"sums": functools.reduce(tree.add, contributions)}

    def gradients(self, total: dict[str, Any], n: int, aggregate: Aggregation) -> Tree:
        """The estimate from what all shards measured.

        Args:
            total: `sums` Σ d_i v_i.
            n: how many examples there were.
            aggregate: `mean` or `sum`, which has the same coefficient for all derivatives.
        """
        c = float(aggregate(np.ones(self.k), dict, n)[0])
        return tree.map(lambda g: g * (c / n), total["sums"])
