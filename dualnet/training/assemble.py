"""The network that a run trains: the model's layers, with local heads if the rule needs them."""

from __future__ import annotations

from typing import Any, Protocol

from dualnet.errors import UsageError
from dualnet.nn import Layer, has_local_heads, with_local_heads
from dualnet.random import Key
from dualnet.training.objective import Objective
from dualnet.types import Shape


class Model(Protocol):
    """A family of networks; the models of the papers are dataclasses whose fields are options."""

    def network(self, in_shape: Shape, classes: int) -> Layer:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        ...


def network_of(
    model: Model,
    objective: Objective,
    locality: str,
    in_shape: Shape,
    outputs: int,
    head_reads: str = "average",
) -> Any:
    """Return a model's network for an objective and a rule.

    Args:
        model: builds the layers.
        objective: what the network is trained for.
        locality: of the rule: `global`, `local` or `greedy`.  All but the first need local heads.
        in_shape: of an example.
        outputs: how many classes or real targets there are.
        head_reads: what the heads read that a network without any gets, see `nn.LocalHead`.

    Raises:
        UsageError: `head_reads` is not the default, and the network has heads of its own.
    """
    network = objective.network(lambda width: model.network(in_shape, width), outputs)
    if locality == "global":
        return network
    if has_local_heads(network):
        if head_reads != "average":
            raise UsageError(
                f"--head-reads {head_reads} is of no use to --model "
                f"{type(model).__name__}: its local heads are its own"
            )
        return network
    params, _, (width,) = network.init(Key(0), in_shape)
    with_heads = with_local_heads(network, params, width, head_reads)
    return objective.network(lambda _: with_heads, outputs)
