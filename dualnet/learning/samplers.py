"""Random directions of weights.

Each sampler draws k directions of one array, as a dense stack `(k, *S)` or a structured
tangent.  All have independent entries of mean 0 and E[v vᵀ] = I, so that (∇f·v) v has mean ∇f.
Direction i of a leaf depends on the key, the leaf's path and i, on nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.beside import arange
from dualnet.core.spaces import RankOne, inner_products
from dualnet.errors import UsageError
from dualnet.learning.aggregate import Aggregation
from dualnet.random import Key
from dualnet.tree import Tree

Draw = Callable[[Backend, Key, Any, int, int], Any]
"""`draw(backend, key, like, start, stop)`: directions start … stop-1 of an array, of which there
may be none."""
Mix = Callable[[Any, int], Any]
"""`mix(gram, n)`: from the inner products `(k, k)` of k directions in n dimensions, the matrix
`(k, k)` whose rows say of what mixture of them each direction is made."""


@dataclass(frozen=True)
class Sampler:
    """How directions are drawn.

    Directions that depend on one another (orthogonal ones, say) are mixtures M v of independent
    ones.  M v need not be made: ∇f·(M v) = M (∇f·v), and Σ c_i (M v)_i = Σ (Mᵀ c)_i v_i.

    Attributes:
        draw: draws independent directions of one array.
        mix: M, or None for the independent ones themselves.
    """

    draw: Draw
    mix: Mix | None = None


def normal(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """Independent standard normal entries."""
    return backend.normal(key, (stop - start, *like.shape), like.dtype, start * like.size)


def rademacher(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """Independent random signs."""
    return backend.signs(key, (stop - start, *like.shape), like.dtype, start * like.size)


def rank_one(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """r sᵀ with independent sign vectors r and s for every matrix; signs for vectors.

    A kernel is a stack of matrices, one at each pixel.

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


def rank_one_normal(backend: Backend, key: Key, like: Any, start: int, stop: int) -> Any:
    """`rank_one` with normal factors: as unbiased, of larger variance."""
    if len(like.shape) < 2:
        return normal(backend, key, like, start, stop)
    k, (*b, p, q) = stop - start, like.shape
    matrices = math.prod(b)
    return RankOne(
        backend.normal(key.fold_in("left"), (k, *b, p), like.dtype, start * matrices * p),
        backend.normal(key.fold_in("right"), (k, *b, q), like.dtype, start * matrices * q),
    )


def orthonormal(gram: Any, n: int) -> Any:
    """Orthogonal directions of length 1, the first along the first drawn (Gram-Schmidt)."""
    if len(gram) > n:
        raise UsageError(
            f"only {n} directions of {n} parameters can be orthogonal, not {len(gram)}"
        )
    return np.linalg.inv(np.linalg.cholesky(gram))


def orthogonal(gram: Any, n: int) -> Any:
    """Orthogonal directions of length sqrt(n), so that E[v vᵀ] = I."""
    return math.sqrt(n) * orthonormal(gram, n)


def varying(gram: Any, n: int) -> Any:
    """Orthogonal directions of lengths sqrt(n) · 2i/(k + 1) for i from 1 to k."""
    k = len(gram)
    lengths = 2.0 * (arange(k, gram) + 1) / (k + 1)
    return lengths[:, None] * orthogonal(gram, n)


def unit(gram: Any, n: int) -> Any:
    """Directions scaled to length 1."""
    return np.diag(1.0 / np.sqrt(np.diagonal(gram)))


def at_angle(degrees: float) -> Mix:
    """Directions of length sqrt(n) at one angle to the first, their other parts orthogonal."""
    along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def mix(gram: Any, n: int) -> Any:
        basis = orthogonal(gram, n)
        return np.concatenate([basis[:1], along * basis[:1] + across * basis[1:]])

    return mix


SAMPLERS: dict[str, Sampler] = {
    "normal": Sampler(normal),
    "rademacher": Sampler(rademacher),
    "rank-one": Sampler(rank_one),
    "rank-one-normal": Sampler(rank_one_normal),
    "unit": Sampler(normal, unit),
    "orthogonal": Sampler(normal, orthogonal),
    "orthonormal": Sampler(normal, orthonormal),
    "varying": Sampler(normal, varying),
}
"""name → sampler; `angle:DEG` is another, see `sampler_of`."""


def sampler_of(name: str) -> Sampler:
    """The sampler with a name in `SAMPLERS`, or `angle:DEG` for `at_angle(DEG)`.

    Raises:
        UsageError: there is none.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    kind, _, degrees = name.partition(":")
    try:
        if kind == "angle" and 0 < float(degrees) <= 90:
            return Sampler(normal, at_angle(float(degrees)))
    except ValueError:
        pass
    raise UsageError(
        f"sampler must be one of {', '.join(SAMPLERS)} or angle:DEG with DEG above 0 and at most "
        f"90, got {name!r}"
    )


TANGENT_BYTES = 1 << 30
"""Memory for what one pass carries along its directions, unless the caller sets the chunk."""


def default_chunk(backend: Backend, sampler: Sampler, params: Tree, n: int) -> int:
    """How many directions one pass over n examples may carry within `TANGENT_BYTES`.

    Counted are the directions themselves and two activations as wide as the widest fan-out.
    """
    directions = widest = 0
    for like in tree.leaves(params):
        none = sampler.draw(
            backend, Key(0), like, 0, 0
        )  # no directions: costs nothing, has the shapes
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
        segments: for the path of each layer, which of several losses it answers to; {} if all
            answer to one.
        whole: all of them, where they are a single chunk.
    """

    key: Key
    params: Tree
    backend: Backend
    sampler: Sampler
    k: int
    chunk: int
    segments: dict[str, int] = field(default_factory=dict)
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
            lambda path, p: self.sampler.draw(self.backend, self.key.fold_in(path), p, start, stop),
            self.params,
        )

    def segment(self, path: str) -> int:
        """Which loss the parameter at a path answers to."""
        layer = path
        while self.segments and layer not in self.segments:
            layer = layer.rpartition("/")[0]
        return self.segments[layer] if self.segments else 0

    def coefficients(self, d: Any, aggregate: Aggregation, segment: int) -> Any:
        """c with Σ c_i v_i the estimate, for the parameters that answer to one loss.

        Args:
            d: the loss's derivatives along the independent directions, `(k,)`.
            aggregate: what is made of the derivatives along the mixed ones.
            segment: which loss.
        """
        gram = functools.cache(lambda: self.gram(segment))
        if self.sampler.mix is None:
            return aggregate(d, gram, self.size(segment))
        n = self.size(segment)
        mixture = self.sampler.mix(gram(), n)
        mixed = functools.cache(lambda: mixture @ gram() @ mixture.T)
        return (mixture.T @ aggregate((mixture @ d).astype(d.dtype), mixed, n)).astype(d.dtype)

    def size(self, segment: int) -> int:
        """How many parameters answer to a loss."""
        return sum(p.size for path, p in tree.items(self.params) if self.segment(path) == segment)

    def gram(self, segment: int) -> Any:
        """The inner products of all k directions over a loss's parameters together, `(k, k)`."""
        result: Any = None
        for (a, b), rows in zip(self.bounds, self.chunks(), strict=True):
            for (c, d), columns in zip(self.bounds, self.chunks(), strict=True):
                if c <= a:
                    block = sum(
                        inner_products(t, u)
                        for (path, t), u in zip(tree.items(rows), tree.leaves(columns), strict=True)
                        if self.segment(path) == segment
                    )
                    if result is None:
                        result = np.zeros_like(block, np.float64, shape=(self.k, self.k))
                    result[a:b, c:d] = block
                    result[c:d, a:b] = np.swapaxes(block, 0, 1)
        return result
