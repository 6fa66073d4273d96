"""`fg-w`: forward gradients by perturbing the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.spaces import combine, inner_products
from dualnet.core.transforms import jvp
from dualnet.errors import UsageError
from dualnet.learning.aggregate import AGGREGATIONS
from dualnet.learning.rule import Measurement
from dualnet.learning.samplers import SAMPLERS, WeightTangents, default_chunk
from dualnet.learning.task import Shard, Task, correct
from dualnet.random import Key
from dualnet.tree import Tree


@dataclass(frozen=True)
class WeightPerturbation:
    """g = Σ c_i v_i with random directions v_i of all weights and d_i = ∇f·v_i.

    One forward pass carries all k tangents; nothing flows backward and no activation is kept.
    A shard contributes k numbers, whatever the size of the network.

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

    def __post_init__(self) -> None:
        if self.tangents < 1 or (self.tangent_chunk is not None and self.tangent_chunk < 1):
            raise UsageError("fg-w: tangents and tangent-chunk must be at least 1")
        for option, table in (("sampler", SAMPLERS), ("aggregate", AGGREGATIONS)):
            if getattr(self, option) not in table:
                raise UsageError(
                    f"fg-w: {option} must be one of {', '.join(table)}, "
                    f"got {getattr(self, option)!r}"
                )

    def init(self, key: Key, task: Task, params: Tree) -> Tree:
        return {}

    def sample(self, key: Key, params: Tree, backend: Backend, n: int) -> WeightTangents:
        sampler = SAMPLERS[self.sampler]
        chunk = self.tangent_chunk or default_chunk(backend, sampler, params, n)
        return WeightTangents(key, params, backend, sampler, self.tangents, chunk)

    def measure(
        self,
        task: Task,
        params: Tree,
        state: Tree,
        learned: Tree,
        directions: WeightTangents,
        shard: Shard,
    ) -> Measurement:
        def total_loss(p: Tree) -> tuple[Any, Any]:
            losses, aux = task.losses(p, state, shard, shard.context)
            return losses.sum(), aux

        derivatives = []
        for tangents in directions.chunks():
            loss, d, (outputs, new_state) = jvp(total_loss, (params,), (tangents,), has_aux=True)
            derivatives.append(d)
        total = {
            "loss": loss,
            "correct": correct(outputs, shard.targets),
            "derivatives": np.concatenate(derivatives),
        }
        return Measurement(total, new_state)

    def estimate(
        self, total: dict, directions: WeightTangents, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        d = total["derivatives"] / n
        c = AGGREGATIONS[self.aggregate](d, lambda: _gram(directions))
        gradients = None
        for (start, stop), tangents in zip(directions.bounds, directions.chunks(), strict=True):
            chosen = c[start:stop]
            part = tree.map(lambda t: combine(chosen.astype(t.dtype), t), tangents)  # noqa: B023
            gradients = part if gradients is None else tree.add(gradients, part)
        return gradients, learned


def _gram(directions: WeightTangents) -> Any:
    """The inner products of all k directions, over all parameters together, `(k, k)`."""
    result = np.empty((directions.k, directions.k))
    for (a, b), rows in zip(directions.bounds, directions.chunks(), strict=True):
        for (c, d), columns in zip(directions.bounds, directions.chunks(), strict=True):
            if c <= a:
                pairs = zip(tree.leaves(rows), tree.leaves(columns), strict=True)
                block = sum(inner_products(t, u) for t, u in pairs)
                result[a:b, c:d] = block
                result[c:d, a:b] = block.T
    return result
