"""What a run is made of: the tables of choices, and the network that is trained."""

from __future__ import annotations

from typing import Protocol

from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.models import MODELS
from dualnet.naming import assigned
from dualnet.nn import Layer, has_local_heads, with_local_heads
from dualnet.optim import OPTIMIZERS
from dualnet.random import Key
from dualnet.schedules import SCHEDULES
from dualnet.training.objective import OBJECTIVES
from dualnet.training.resolve import locality
from dualnet.training.settings import Settings, Tables, build
from dualnet.types import Shape

TABLES: Tables = {
    "model": MODELS,
    "objective": OBJECTIVES,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""What there is to choose from; what is put into one of these dicts is there to choose, too."""


class Model(Protocol):
    """A family of networks; the models of the papers are dataclasses whose fields are options."""

    def network(self, in_shape: Shape, classes: int) -> Layer:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        ...


def network_of(
    settings: Settings, in_shape: Shape, outputs: int, model: Model | None = None
) -> Layer:
    """Return the network that settings name, with local heads if the rule has local losses.

    Args:
        settings: of the run.
        in_shape: of an example.
        outputs: how many classes or real targets there are.
        model: builds the layers; None for the model that the settings name.

    Raises:
        UsageError: settings say what heads read, and the network has heads of its own.
    """
    chosen = model or build(MODELS, "model", settings.model, settings.model_options)
    objective = build(OBJECTIVES, "objective", settings.objective, settings.objective_options)
    network = objective.network(lambda width: chosen.network(in_shape, width), outputs)
    if locality(settings.rule) == "global":
        return network
    if has_local_heads(network):
        if settings.head_reads != "average":
            raise UsageError(
                f"{assigned('head_reads', settings.head_reads)} is of no use to "
                f"{assigned('model', settings.model)}: its local heads are its own"
            )
        return network
    params, _, (width,) = network.init(Key(0), in_shape)
    with_heads = with_local_heads(network, params, width, reads=settings.head_reads)
    return objective.network(lambda _: with_heads, outputs)
