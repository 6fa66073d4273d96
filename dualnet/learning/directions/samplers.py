"""Random directions of weights.

Each sampler draws k directions of a tree of parameters: for each leaf a dense stack `(k, *S)` or a
structured tangent.  All draws but `basis` are of every leaf by itself, with uncorrelated entries of
mean 0 and E[v vᵀ] = I, so that (∇f·v) v has mean ∇f; draw i of a leaf depends on the key, the
leaf's path and i, on nothing else.  Mixtures of draws are what their docstrings say.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import exact_matmul
from dualnet.backends.symmetric import inverse_factor
from dualnet.core.spaces import RankOne
from dualnet.errors import UsageError
from dualnet.learning.directions.low_rank import LowRank
from dualnet.naming import did_you_mean
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape, Tangent

DrawWeights = Callable[[Backend, Key, Tree, int, int], Tree]
"""`draw(backend, key, params, start, stop)`: directions start … stop-1 of a tree, of which there
may be none."""
Mix = Callable[[Array, int], Array]
"""`mix(gram, n)`: from the inner products `(k, k)` of k directions in n dimensions, the matrix
`(k, k)` whose rows say of what mixture of them each direction is made."""


@dataclass(frozen=True)
class Sampler:
    """Says how directions are drawn.

    Directions that depend on one another (orthogonal ones, say) are mixtures M v of independent
    ones.  M v need not be made: ∇f·(M v) = M (∇f·v), and Σ c_i (M v)_i = Σ (Mᵀ c)_i v_i.

    Attributes:
        draw: draws independent directions.
        mix: M, or None for the independent ones themselves.
        rank: of how many outer products a matrix's direction is the sum; None if it is dense.
    """

    draw: DrawWeights
    mix: Mix | None = None
    rank: int | None = None

    def numbers(self, shape: Shape) -> int:
        """Return of how many numbers a direction of a parameter of this shape consists."""
        if self.rank is None or len(shape) < 2:
            return math.prod(shape)
        *b, p, q = shape
        return self.rank * math.prod(b) * (p + q)


def leaf_by_leaf(draw: Callable[..., Tangent]) -> DrawWeights:
    """Make a draw for one array a draw for a tree, each leaf by a key of its path (a decorator)."""

    @functools.wraps(draw)
    def draw_tree(backend: Backend, key: Key, params: Tree, start: int, stop: int) -> Tree:
        return tree.map_with_path(
            lambda path, p: draw(backend, key.fold_in(path), p, start, stop), params
        )

    return draw_tree


@leaf_by_leaf
def normal(backend: Backend, key: Key, like: Array, start: int, stop: int) -> Array:
    """Draw independent standard normal entries."""
    return backend.normal(key, (stop - start, *like.shape), like.dtype, start * like.size)


@leaf_by_leaf
def rademacher(backend: Backend, key: Key, like: Array, start: int, stop: int) -> Array:
    """Draw independent random signs."""
    return backend.signs(key, (stop - start, *like.shape), like.dtype, start * like.size)


def rank_one_of(name: str, rank: int = 1) -> DrawWeights:
    """Return a draw of sums of `rank` outer products over sqrt(rank).

    The backend's `signs` or `normal`, as `name` says, draws the factors.
    """

    @leaf_by_leaf
    def draw(backend: Backend, key: Key, like: Array, start: int, stop: int) -> Array:
        entries, scale = getattr(backend, name), 1.0 / math.sqrt(rank)
        if len(like.shape) < 2:
            return entries(key, (stop - start, *like.shape), like.dtype, start * like.size)
        *b, p, q = like.shape

        def factor(key: Key, n: int) -> Array:
            numbers = math.prod(b) * n
            return entries(key, (stop - start, *b, n), like.dtype, start * numbers)

        terms = [
            RankOne(scale * factor(term.fold_in("left"), p), factor(term.fold_in("right"), q))
            for term in (key, *(key.fold_in(r) for r in range(1, rank)))
        ]
        return terms[0] if rank == 1 else LowRank(terms)

    return draw


def rank_one(backend: Backend, key: Key, params: Tree, start: int, stop: int) -> Tree:
    """Draw r sᵀ with independent sign vectors r and s for every matrix, and signs for vectors.

    A kernel is a stack of matrices, one at each pixel.

    The entries are pairwise uncorrelated signs, so the estimate stays unbiased, and as
    ‖r sᵀ‖² = pq always, its total variance equals that of full Rademacher directions.  The sum of R
    such products over sqrt(R), `rank-one:R`, is as unbiased; its total variance is larger by
    (2 - 2/R) ‖∇f‖² for the matrices' part of ∇f, and for large R that of normal directions.
    """
    return rank_one_of("signs")(backend, key, params, start, stop)


def rank_one_normal(backend: Backend, key: Key, params: Tree, start: int, stop: int) -> Tree:
    """Draw as `rank_one` does, with normal factors: as unbiased, of larger variance."""
    return rank_one_of("normal")(backend, key, params, start, stop)


def basis(backend: Backend, key: Key, params: Tree, start: int, stop: int) -> Tree:
    """Move one parameter alone by each direction, in the order of the tree; no randomness.

    With k ≥ n the projection is the gradient, and directions beyond the n-th are 0; with k < n no
    aggregation says anything about the other parameters.
    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """
    leaves = tree.leaves(params)
    if not leaves:  # all parameters get exact gradients
        return params
    return one_each(params, np.arange(stop - start, like=leaves[0]) + start)


def varying(longest: float) -> DrawWeights:
    """Return a draw of directions that each move another random parameter alone.

    Their lengths are uniform between 1 and `longest`.  There are no more than n of them.
    Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
    """

    def draw(backend: Backend, key: Key, params: Tree, start: int, stop: int) -> Tree:
        n = tree.size(params)
        if stop > n:
            raise UsageError(
                f"varying:MAX moves another parameter by each direction, so there are at most {n} "
                f"directions of {n} parameters, not {stop}"
            )
        numbers = backend.uniform(key.fold_in("order"), (n,), np.float64)
        shares = backend.uniform(key.fold_in("length"), (stop - start,), np.float64, start)
        lengths = 1.0 + (longest - 1.0) * shares
        return one_each(params, np.argsort(numbers)[start:stop], lengths)

    return draw


def one_each(params: Tree, which: Array, lengths: Array | float = 1.0) -> Tree:
    """Return directions that each move one parameter of a tree alone.

    Args:
        params: the tree.
        which: the number of each direction's parameter in the order of the tree, `(k,)`; those
            beyond the last give directions that are 0.
        lengths: how far each moves, `(k,)`, or one number for all.
    """
    first = 0

    def rows(like: Array) -> Array:
        nonlocal first
        numbers = np.arange(like.size, like=like) + first
        first += like.size
        moved = np.equal(which[:, None], numbers).astype(like.dtype)
        if not isinstance(lengths, float):
            moved = moved * lengths[:, None].astype(like.dtype)
        return np.reshape(moved, (len(which), *like.shape))

    return tree.map(rows, params)


def orthonormal(gram: Array, n: int) -> Array:
    """Mix to orthogonal directions of length 1, the first along the first drawn (Gram-Schmidt)."""
    if len(gram) > n:
        raise UsageError(
            f"only {n} directions of {n} parameters can be orthogonal, not {len(gram)}"
        )
    return inverse_factor(gram)


def orthogonal(gram: Array, n: int) -> Array:
    """Mix to orthogonal directions of length sqrt(n), so that E[v vᵀ] = I."""
    return math.sqrt(n) * orthonormal(gram, n)


def of_many_lengths(gram: Array, n: int) -> Array:
    """Mix to orthogonal directions of lengths sqrt(n) · 2i/(k + 1) for i from 1 to k (ours)."""
    k = len(gram)
    lengths = 2.0 * (np.arange(k, like=gram) + 1) / (k + 1)
    return lengths[:, None] * orthogonal(gram, n)


def at_angle(degrees: float) -> Mix:
    """Return a mix to directions of length 1, at one angle to the first of them.

    Each of the others turns away from the first in the plane that both were drawn in, so that the
    directions beside the first are as independent as those that were drawn.
    Source: Flügel et al. 2024, "Beyond Backpropagation", section 4.3, published code.
    """
    along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def mix(gram: Array, n: int) -> Array:
        k = len(gram)
        if n < 2 <= k:
            raise UsageError("angle:DEG needs 2 parameters or more; a single one has no angles")
        length = np.sqrt(gram[0, 0])
        shares = gram[:, 0] / gram[0, 0]  # of the first direction in each
        beside = np.diagonal(gram) - shares * gram[:, 0]  # squared length of what is left
        is_first = np.arange(k, like=gram) == 0
        scales = np.where(is_first, 0.0, across / np.sqrt(np.where(is_first, 1.0, beside)))
        on_first = np.where(is_first, 1.0, along) / length - scales * shares
        return scales[:, None] * np.identity(k, like=gram) + on_first[:, None] * is_first

    return mix


def orthogonal_at_angle(degrees: float) -> Mix:
    """Return a mix to directions of length sqrt(n) at one angle to the first (ours).

    Their parts beside the first are orthogonal to one another.
    """
    along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def mix(gram: Array, n: int) -> Array:
        basis = orthogonal(gram, n)
        return np.concatenate([basis[:1], along * basis[:1] + across * basis[1:]])

    return mix


def unit(mix: Mix | None) -> Mix:
    """Return a mix to directions, or mixtures of them, of length 1 (but for those that are 0)."""

    def scaled(gram: Array, n: int) -> Array:
        mixture = np.identity(len(gram), like=gram) if mix is None else mix(gram, n)
        squares = np.sum(exact_matmul(mixture, gram) * mixture, axis=1)
        return mixture / np.sqrt(np.where(squares > 0, squares, 1.0))[:, None]

    return scaled


WEIGHT_SAMPLERS: dict[str, Sampler] = {
    "normal": Sampler(normal),
    "rademacher": Sampler(rademacher),
    "rank-one": Sampler(rank_one, rank=1),
    "rank-one-normal": Sampler(rank_one_normal, rank=1),
    "orthogonal": Sampler(normal, orthogonal),
    "orthonormal": Sampler(normal, orthonormal),
    "orthogonal-lengths": Sampler(normal, of_many_lengths),
    "basis": Sampler(basis),
}
"""Name → sampler; `sampler_of` knows some with a number, and scales any to length 1."""


def sampler_of(name: str) -> Sampler:
    """Return the sampler of a name.

    Args:
        name: one in `WEIGHT_SAMPLERS`; `rank-one:R` for sums of R outer products; `varying:MAX` for
            `varying(MAX)`; `angle:DEG` for `at_angle(DEG)`; `orthogonal-angle:DEG` for
            `orthogonal_at_angle(DEG)`; any of these with `:unit` behind it for directions of
            length 1.

    Raises:
        UsageError: there is none.
    """
    plain = name.removesuffix(":unit")
    sampler = WEIGHT_SAMPLERS.get(plain) or _with_number(*plain.partition(":")[::2])
    if sampler is None:
        raise UsageError(
            f"sampler: expected one of {', '.join(WEIGHT_SAMPLERS)}, rank-one:R with R at least 1, "
            "varying:MAX with MAX at least 1, or angle:DEG or orthogonal-angle:DEG with DEG above "
            f"0 and at most 90, with :unit behind it for directions of length 1, got {name!r}"
            f"{did_you_mean(name, WEIGHT_SAMPLERS)}"
        )
    return sampler if plain == name else replace(sampler, mix=unit(sampler.mix))


def _with_number(kind: str, number: str) -> Sampler | None:
    try:
        if kind == "angle" and 0 < float(number) <= 90:
            return Sampler(normal, at_angle(float(number)))
        if kind == "orthogonal-angle" and 0 < float(number) <= 90:
            return Sampler(normal, orthogonal_at_angle(float(number)))
        if kind == "varying" and 1 <= float(number) < math.inf:
            return Sampler(varying(float(number)))
        if kind == "rank-one" and int(number) >= 1:
            return Sampler(rank_one_of("signs", int(number)), rank=int(number))
    except ValueError:  # not a number
        pass
    return None
