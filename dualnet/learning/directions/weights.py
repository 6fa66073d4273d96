"""Random directions of all weights, a part of them at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import concatenate, exact_matmul, stack
from dualnet.core.spaces import direction_count
from dualnet.learning.aggregate import Aggregation
from dualnet.learning.answers import Answers
from dualnet.learning.directions.algebra import (
    combine,
    combine_parts,
    directions_at,
    inner_products,
    inner_products_of_parts,
    join_directions,
)
from dualnet.learning.directions.per_example import PerExample
from dualnet.learning.directions.samplers import Sampler
from dualnet.learning.task import Shard
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Tangent

TANGENT_BYTES = 1 << 30
"""Memory for directions, and for what one pass carries along them, unless the caller sets how many
it is to carry."""


def directions_that_fit(bytes_each: int) -> int:
    """Return how many directions that need so many bytes each may be in memory at once."""
    return max(1, TANGENT_BYTES // max(1, bytes_each))


def direction_bytes(sampler: Sampler, params: Tree) -> int:
    """Return the bytes of one direction of all parameters."""
    return sum([sampler.numbers(p.shape) * p.dtype.itemsize for p in tree.leaves(params)])


class Coefficients(NamedTuple):
    """What the directions of the parameters that answer to one loss are multiplied by.

    Attributes:
        whole: `(k,)`, for parameters that answer to the whole loss.
        by_group: `(k, G)`, for the parts of the others; None where there is one group.
    """

    whole: Array
    by_group: Array = None

    def of_directions(self, which: slice) -> Coefficients:
        """Return those of some of the directions."""
        return Coefficients(
            self.whole[which], None if self.by_group is None else self.by_group[which]
        )


def combined(tangents: Tree, coefficients: Sequence[Coefficients], answers: Answers) -> Tree:
    """Return Σ_i c_i v_i for each parameter.

    Args:
        tangents: the directions.
        coefficients: for each loss; each parameter takes those of its own.
        answers: to what each parameter answers.
    """

    def of_parameter(path: str, t: Tangent) -> Array:
        loss, axis = answers.at(path)
        whole, by_group = coefficients[loss]
        if axis is None:
            return combine(whole.astype(t.dtype), t)
        return combine_parts(by_group.astype(t.dtype), t, axis)

    return tree.map_with_path(of_parameter, tangents)


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
        answers: to what each parameter answers.
        chunk: at most so many directions at once.
        whole: all of them, where they are a single chunk.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    examples: int
    answers: Answers
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

    def contribution(self, d: Array, tangents: Tree, shard: Shard) -> Array:
        """Return what a pass adds to the measurement: derivatives of the summed losses.

        Args:
            d: the derivatives of all examples' losses `(k, derivatives, n)`, see `Answers`.
            tangents: the directions.
            shard: whose losses they are.

        Returns:
            `(k, derivatives)`.
        """
        return d.sum(-1)

    def together(self, contributions: list) -> dict[str, Any]:
        """Return those of all passes as one, to be added up over shards."""
        several = len(contributions) > 1
        return {"derivatives": concatenate(contributions) if several else contributions[0]}

    def along(self, part: range) -> SomeDirections:
        """Return some of the directions."""
        return SomeDirections(self, part)

    def gradients(self, total: dict[str, Any], n: int, aggregate: Aggregation) -> Tree:
        """Return the estimate from what all shards measured.

        Args:
            total: `derivatives` of the summed losses, `(k, losses)`.
            n: how many examples there were.
            aggregate: from derivatives of the mean loss to coefficients.
        """
        of_losses = self.answers.by_loss(total["derivatives"] / n)
        by_loss = [self.coefficients(d, aggregate, loss) for loss, d in enumerate(of_losses)]
        if self.whole is not None:
            return combined(self.whole, by_loss, self.answers)
        parts = (
            combined(tangents, [c.of_directions(slice(*bound)) for c in by_loss], self.answers)
            for bound, tangents in zip(self.bounds, self.chunks(), strict=True)
        )
        return functools.reduce(tree.add, parts)

    def coefficients(self, d: Array, aggregate: Aggregation, loss: int) -> Coefficients:
        """Return c with Σ c_i v_i the estimate, for the parameters that answer to one loss.

        A group's replica of the loss depends on its own parts of parameters, and on the parameters
        that answer to the whole loss.  So the inner products for its coefficients are over these.

        Args:
            d: the derivatives of the loss along the directions as drawn, `(k, groups)`.
            aggregate: what is made of the derivatives along the mixed ones.
            loss: which loss.
        """
        grams = functools.cache(lambda: self.grams(loss))
        undivided, of_group = self.sizes(loss)
        groups = d.shape[1]
        if groups == 1:
            return Coefficients(self._aggregated(d[:, 0], aggregate, lambda: grams()[0], undivided))

        def over_all() -> Array:
            return np.sum(grams(), axis=0)

        def over_group(g: int) -> Array:
            return grams()[0] + grams()[1 + g]

        size = undivided + groups * of_group
        whole = self._aggregated(np.sum(d, axis=1), aggregate, over_all, size)
        by_group = [
            self._aggregated(
                d[:, g], aggregate, functools.partial(over_group, g), undivided + of_group
            )
            for g in range(groups)
        ]
        return Coefficients(whole, stack(by_group, axis=1))

    def _aggregated(
        self, d: Array, aggregate: Aggregation, gram: Callable[[], Array], n: int
    ) -> Array:
        """Return c `(k,)` for d `(k,)` and the inner products over the n parameters it is of."""
        if n == 0:  # nothing follows the last local head
            return np.zeros_like(d)
        if self.sampler.mix is None:
            return aggregate(d, gram, n)
        mixture = self.sampler.mix(gram(), n)
        mixed = functools.cache(lambda: exact_matmul(exact_matmul(mixture, gram()), mixture.T))
        c = aggregate(exact_matmul(mixture, d).astype(d.dtype), mixed, n)
        return exact_matmul(mixture.T, c).astype(d.dtype)

    def sizes(self, loss: int) -> tuple[int, int]:
        """Count the parameters that answer to a whole loss, and those to one group of it."""
        undivided = divided = 0
        for path, p in tree.items(self.params):
            own, axis = self.answers.at(path)
            if own == loss and axis is None:
                undivided += p.size
            elif own == loss:
                divided += p.size
        return undivided, divided // self.answers.groups[loss]

    def grams(self, loss: int) -> Array:
        """Return the inner products of all directions over the parameters of a loss.

        Returns:
            Those over the parameters that answer to the whole loss `(1, k, k)`, and behind them, if
            there are several groups, those over the parts that answer to each, `(1 + G, k, k)`.
        """
        groups = self.answers.groups[loss]
        shape = (1 if groups == 1 else 1 + groups, self.k, self.k)
        result = np.zeros_like(tree.leaves(self.params)[0], np.float64, shape=shape)
        answers = [self.answers.at(path) for path, _ in tree.items(self.params)]
        for (top, bottom), rows in zip(self.bounds, self.chunks(), strict=True):
            for (left, right), columns in zip(self.bounds, self.chunks(), strict=True):
                if left > top:
                    continue
                leaves = zip(answers, tree.leaves(rows), tree.leaves(columns), strict=True)
                own = [(a.axis, t, u) for a, t, u in leaves if a.loss == loss]
                result[0, top:bottom, left:right] = sum(
                    inner_products(t, u) for axis, t, u in own if axis is None
                )
                if groups > 1:
                    result[1:, top:bottom, left:right] = sum(
                        inner_products_of_parts(t, u, axis, groups)
                        for axis, t, u in own
                        if axis is not None
                    )
                block = result[:, top:bottom, left:right]
                result[:, left:right, top:bottom] = np.swapaxes(block, 1, 2)
        return result


@dataclass(frozen=True)
class SomeDirections:
    """Some of k directions; what they measure adds up with what the others do.

    Attributes:
        every: all k directions.
        part: which of them.
    """

    every: SharedDirections
    part: range

    @property
    def examples(self) -> int:
        """How many examples the batch has."""
        return self.every.examples

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """Yield the directions for one shard, at most so many at once."""
        most = min(most, self.every.chunk)
        for start in range(self.part.start, self.part.stop, most):
            stop = min(start + most, self.part.stop)
            if self.every.whole is None:
                yield self.every.draw(start, stop)
            else:
                which = slice(start, stop)
                yield tree.map(lambda t: directions_at(t, which), self.every.whole)  # noqa: B023

    def contribution(self, d: Array, tangents: Tree, shard: Shard) -> Array:
        """Return what a pass adds to the measurement; see `SharedDirections`."""
        return self.every.contribution(d, tangents, shard)

    def together(self, contributions: list) -> dict[str, Any]:
        """Return the derivatives along all k directions, 0 along the others."""
        own = concatenate(contributions)
        all_k = np.zeros_like(own, shape=(self.every.k, *own.shape[1:]))
        all_k[self.part.start : self.part.stop] = own
        return {"derivatives": all_k}


@dataclass(frozen=True)
class IndependentDirections:
    """k random directions of a tree of parameters for every example of a batch.

    Attributes:
        key: names all draws; direction i of example j depends on it, the leaf's path, i and j.
        params, sampler, k, examples, answers: as in `SharedDirections`.
        coupled: whether examples move each other's losses, so that each answers to their sum.
        part: which of the k directions; None for all.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    examples: int
    answers: Answers
    coupled: bool
    part: range | None = None

    def along(self, part: range) -> IndependentDirections:
        """Return some of the directions."""
        return replace(self, part=part)

    def passes(self, most: int, shard: Shard) -> Iterator[Tree]:
        """Yield those of a shard's examples, at most so many of each at once."""
        first, n = shard.context.start, len(shard.inputs)
        part = self.part or range(self.k)
        for start in range(0, len(part), most):
            drawn = [
                self.sampler.draw(self.backend, self.key.fold_in(i), self.params, first, first + n)
                for i in part[start : start + most]
            ]
            yield tree.map(lambda *ts: PerExample(join_directions(ts), n), *drawn)

    def contribution(self, d: Array, tangents: Tree, shard: Shard) -> Tree:
        """Return what a pass adds to the measurement: Σ d_i v_i over directions and examples.

        Args:
            d: the derivatives of all examples' losses `(k, derivatives, n)`, see `Answers`.
            tangents: the directions.
            shard: whose losses they are.
        """
        if self.coupled:
            of_batch = shard.context.processes.add(d.sum(-1, keepdims=True))
            d = np.broadcast_to(of_batch, d.shape)
        by_loss = []
        for of_loss in self.answers.by_loss(d):
            k, groups, n = of_loss.shape
            each = np.reshape(np.swapaxes(of_loss, 1, 2), (k * n, groups))
            if groups == 1:
                by_loss.append(Coefficients(each[:, 0]))
            else:
                by_loss.append(Coefficients(np.sum(each, axis=1), each))
        return combined(tree.map(lambda t: t.each, tangents), by_loss, self.answers)

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
