"""Random directions of weights.

Each sampler draws k directions of one array, as a dense stack `(k, *S)` or a structured
tangent.  All have independent entries of mean 0 and E[v vᵀ] = I, so that (∇f·v) v has mean ∇f.
Direction i of a leaf depends on the key, the leaf's path and i, on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.spaces import RankOne
from dualnet.random import Key
from dualnet.tree import Tree

Sampler = Callable[[Backend, Key, Any, int, int], Any]
"""`sampler(backend, key, like, start, stop)`: directions start … stop-1 of an array, of which
there may be none."""


def normal(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """Independent standard normal entries."""
    return backend.normal(key, (stop - start, *like.shape), like.dtype, start * like.size)


def rademacher(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """Independent random signs."""
    return backend.signs(key, (stop - start, *like.shape), like.dtype, start * like.size)


def rank_one(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """For a matrix r sᵀ with independent sign vectors r and s, one for each matrix of a stack
    (a kernel has one at each pixel); signs for vectors.

    The entries are pairwise uncorrelated signs, so the estimate stays unbiased, and as
    ‖r sᵀ‖² = pq always, its total variance equals that of full Rademacher directions.
    """
    if len(like.shape) < 2:
        return rademacher(backend, key, like, start, stop)
    k, (*b, p, q) = stop - start, like.shape
    matrices = math.prod(b)
    return RankOne(
        backend.signs(key.fold_in("left"), (k, *b, p), like.dtype, start * matrices * p),
        backend.signs(key.fold_in("right"), (k, *b, q), like.dtype, start * matrices * q),
    )


SAMPLERS: dict[str, Sampler] = {"normal": normal, "rademacher": rademacher, "rank-one": rank_one}

TANGENT_BYTES = 1 << 30
"""Memory for what one pass carries along its directions, unless the caller sets the chunk."""


def default_chunk(backend: Backend, sampler: Sampler, params: Tree, n: int) -> int:
    """How many directions one pass over n examples may carry within `TANGENT_BYTES`.

    Counted are the directions themselves and two activations as wide as the widest fan-out.
    """
    directions = widest = 0
    for like in tree.leaves(params):
        none = sampler(backend, Key(0), like, 0, 0)  # no directions: costs nothing, has the shapes
        factors = (none.left, none.right) if isinstance(none, RankOne) else (none,)
        directions += like.itemsize * sum(math.prod(f.shape[1:]) for f in factors)
        widest = max(widest, like.itemsize * (like.shape[-1] if like.shape else 1))
    return max(1, TANGENT_BYTES // (directions + 2 * n * widest))


@dataclass(frozen=True)
class WeightTangents:
    """k random directions of a tree of parameters, drawn chunk by chunk.

    A single chunk is drawn once and kept; several are drawn anew each time they are needed, so
    that no more than one is in memory.

    Attributes:
        key: names all draws.
        params: the tree whose directions they are.
        sampler: draws one leaf.
        k: how many directions.
        chunk: at most so many at once.
        whole: all of them, where they are a single chunk.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
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
        return tree.map_with_path(
            lambda path, p: self.sampler(self.backend, self.key.fold_in(path), p, start, stop),
            self.params,
        )
