"""`fg-w`, `lg-fg-w`, `wp`: forward gradients by perturbing the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.spaces import combine, dense
from dualnet.core.transforms import jvp
from dualnet.errors import UsageError
from dualnet.learning.aggregate import AGGREGATIONS
from dualnet.learning.backprop import segment_losses
from dualnet.learning.rule import Measurement
from dualnet.learning.samplers import WeightTangents, default_chunk, sampler_of
from dualnet.learning.sites import segment_of_each
from dualnet.learning.task import Shard, Task, correct
from dualnet.random import Key
from dualnet.tree import Tree


@dataclass(frozen=True)
class WeightPerturbation:
    """g = Σ c_i v_i with random directions v_i of all weights and d_i = ∇f·v_i.

    One forward pass carries all k tangents; nothing flows backward and no activation is kept.
    A shard contributes k numbers (for each loss), whatever the size of the network.

    Args:
        tangents: k.
        sampler: a name in `SAMPLERS`.
        aggregate: a name in `AGGREGATIONS`, how c follows from d.
        tangent_chunk: at most so many tangents in one pass; None for as many as fit in memory.
            Only memory and speed depend on it.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", Algorithm 1; k tangents:
    Flügel et al. 2024, "Beyond Backpropagation", section 3.
    """

    tangents: int = 1
    sampler: str = "normal"
    aggregate: str = "mean"
    tangent_chunk: int | None = None

    locality: ClassVar[str] = "global"

    def __post_init__(self) -> None:
        if self.tangents < 1 or (self.tangent_chunk is not None and self.tangent_chunk < 1):
            raise UsageError("fg-w: tangents and tangent-chunk must be at least 1")
        sampler_of(self.sampler)
        if self.aggregate not in AGGREGATIONS:
            raise UsageError(
                f"fg-w: aggregate must be one of {', '.join(AGGREGATIONS)}, got {self.aggregate!r}"
            )

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return {}

    def sample(
        self, key: Key, task: Task, params: Tree, backend: Backend, n: int
    ) -> WeightTangents:
        sampler = sampler_of(self.sampler)
        chunk = self.tangent_chunk or default_chunk(backend, sampler, params, n)
        segments = segment_of_each(task.network) if self.locality == "greedy" else {}
        return WeightTangents(key, params, backend, sampler, self.tangents, chunk, segments)

    def measure(
        self,
        task: Task,
        params: Tree,
        state: Tree,
        learned: Tree,
        directions: WeightTangents,
        shard: Shard,
    ) -> Measurement:
        def losses(p: Tree) -> tuple[Any, Any]:
            of_segments, outputs, new_state = segment_losses(
                task, p, state, shard, shard.context, self.locality
            )
            return np.stack([each.sum() for each in of_segments]), (outputs, new_state)

        derivatives = []
        for tangents in directions.chunks():
            sums, d, (outputs, new_state) = self.along(losses, params, tangents)
            derivatives.append(d)
        total = {
            "loss": sums[-1],
            "correct": correct(outputs, shard.targets),
            "derivatives": np.concatenate(derivatives),  # (k, losses)
        }
        return Measurement(total, new_state)

    def along(self, losses: Any, params: Tree, tangents: Tree) -> tuple[Any, Any, Any]:
        """The losses, their derivatives along each direction `(k, losses)`, and what is beside."""
        return jvp(losses, (params,), (tangents,), has_aux=True)

    def estimate(
        self, total: dict, directions: WeightTangents, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        d = total["derivatives"] / n
        aggregate = AGGREGATIONS[self.aggregate]
        # one column a loss: coefficients for the parameters that answer to it
        c = np.stack([directions.coefficients(d[:, i], aggregate, i) for i in range(d.shape[1])], 1)
        gradients = None
        for (start, stop), tangents in zip(directions.bounds, directions.chunks(), strict=True):

            def summed(path: str, t: Any) -> Any:
                chosen = c[start:stop, directions.segment(path)]  # noqa: B023
                return combine(chosen.astype(t.dtype), t)

            part = tree.map_with_path(summed, tangents)
            gradients = part if gradients is None else tree.add(gradients, part)
        return gradients, learned


@dataclass(frozen=True)
class GreedyWeightPerturbation(WeightPerturbation):
    """`lg-fg-w`: every block's weights answer to their own local head's loss.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4.
    """

    locality: ClassVar[str] = "greedy"


@dataclass(frozen=True)
class FiniteDifferences(WeightPerturbation):
    """`wp`: `fg-w` with d_i = (f(θ + ε v_i) - f(θ)) / ε, k + 1 evaluations instead of tangents.

    It tends to `fg-w` as ε → 0, until rounding takes over.

    Args:
        difference: ε, above 0.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", their published code.
    """

    difference: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.difference > 0:
            raise UsageError(f"wp: difference must be above 0, got {self.difference}")

    def along(self, losses: Any, params: Tree, tangents: Tree) -> tuple[Any, Any, Any]:
        value, aux = losses(params)
        stacks = tree.map(dense, tangents)
        differences = []
        for i in range(len(tree.leaves(stacks)[0])):
            moved = tree.map(lambda p, v: p + self.difference * v[i], params, stacks)  # noqa: B023
            differences.append((losses(moved)[0] - value) / self.difference)
        return value, np.stack(differences), aux
