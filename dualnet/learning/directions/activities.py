"""Random directions of activities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.overridable import stack
from dualnet.backends.processes import ALONE, Processes
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, DrawAtSite
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule, scaled
from dualnet.learning.task import LearnerState, Shard
from dualnet.naming import did_you_mean
from dualnet.options import require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Stack

ACTIVITY_SAMPLERS = ("normal", "rademacher")
"""Distributions of the entries of directions of activities."""


@dataclass(frozen=True)
class ActivityDirections:
    """Random directions of activities, a sequence for each site and direction.

    Attributes:
        key: names all draws.
        draw_array: the backend's `normal` or `signs`.
        k: how many directions.
        shared: whether all examples of the batch have the same.
        first: the number of the first of them, as some of more directions.
        k_of_all: how many directions there are, if these are a process's part of them.
        processes: that have a part each.
    """

    key: Key
    draw_array: Callable[..., Array]
    k: int
    shared: bool = False
    first: int = 0
    k_of_all: int | None = None
    processes: Processes = ALONE

    @classmethod
    def by_name(cls, sampler: str, key: Key, backend: Backend, k: int) -> ActivityDirections:
        """Make k directions by a sampler named in `ACTIVITY_SAMPLERS`."""
        return cls(key, backend.normal if sampler == "normal" else backend.signs, k)

    def drawer(self, shard: Shard) -> DrawAtSite:
        """Return `draw(path, visit, z, slope)` for a shard.

        Entries where the activation's slope is zero are set to zero, because their gradient is
        zero too.
        """

        def draw(path: str, visit: int, z: Array, slope: Array | None) -> Stack:
            site = self.key.fold_in(path).fold_in(visit)
            shape, first = z.shape, shard.context.start * (z.size // max(1, len(z)))
            if self.shared:
                shape, first = (1, *z.shape[1:]), 0
            drawn = [
                self.draw_array(site.fold_in(self.first + i), shape, z.dtype, first)
                for i in range(self.k)
            ]
            u = stack(drawn) if self.k > 1 else drawn[0][None]
            if self.shared:
                u = np.repeat(u, len(z), axis=1)
            return u if slope is None else u * np.not_equal(slope, 0)

        return draw

    def along_all(self, d: Array) -> Array:
        """Return derivatives along all directions `(k_of_all, n)`.

        A process that has no direction of its own gives those along one of another's, so what
        several give is averaged.

        Args:
            d: those along these directions, `(k, n)`.
        """
        if self.k_of_all is None:
            return d
        these = slice(self.first, self.first + self.k)
        sums = np.zeros_like(d, shape=(self.k_of_all, *d.shape[1:]))
        given = np.zeros((self.k_of_all, 1))
        sums[these], given[these] = d, 1.0
        sums, given = self.processes.add((sums, given))
        return sums / np.asarray(given, d.dtype, like=d)

    def all_at(self, cuts: list[Cut], shard: Shard) -> list[Stack]:
        """Return all directions at each cut, of which these are some."""
        if self.k_of_all is None:
            return [cut.directions for cut in cuts]
        draw = replace(self, k=self.k_of_all, first=0).drawer(shard)
        return [draw(cut.path, cut.visit, cut.activity, cut.slope) for cut in cuts]

    def own(self, c: Array) -> Array:
        """Return the coefficients of these directions `(k, n)`, given those of all.

        `measure_along` scales what k directions give as a part of a mean, by `k / k_of_all`.  Here
        all coefficients make a sum, so this is undone beforehand.
        """
        if self.k_of_all is None:
            return c
        return c[self.first : self.first + self.k] * (self.k_of_all / self.k)


@dataclass(frozen=True)
class DrawsActivities(Rule):
    """What rules share that put k random directions into activities.

    Args:
        tangents: k.
        sampler: `rademacher` or `normal`.  Of all independent entries with mean 0 and variance 1,
            random signs give the estimate of least variance, and they are quick to draw.
    """

    tangents: int = 1
    _: KW_ONLY
    sampler: str = "rademacher"

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> ActivityDirections:
        return ActivityDirections.by_name(self.sampler, key, backend, self.tangents)

    def measure_along(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: ActivityDirections,
        shard: Shard,
        part: range,
        processes: Processes,
    ) -> Measurement:
        """Do as of `Rule`: what each direction gives is averaged, and so are the parts."""
        some = replace(
            directions, k=len(part), first=part.start, k_of_all=directions.k, processes=processes
        )
        measured = self.measure(plan, learner, some, shard)
        return measured._replace(total=scaled(measured.total, len(part) / directions.k))


def require_sampler(rule: str, tangents: int, sampler: str) -> None:
    """Raise a UsageError unless k and the sampler are what activities can be perturbed with."""
    require_count(rule, "tangents", tangents)
    if sampler not in ACTIVITY_SAMPLERS:
        raise UsageError(
            f"{rule}: sampler: expected one of {', '.join(ACTIVITY_SAMPLERS)}, got {sampler!r} "
            f"(rank-one directions are for weights){did_you_mean(sampler, ACTIVITY_SAMPLERS)}"
        )
