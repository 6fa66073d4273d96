"""What a run is made of: the tables of choices, the network, the data, and the trainer of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from dualnet import backends
from dualnet.backends import Backend
from dualnet.backends.processes import ALONE, Processes
from dualnet.data import AUGMENTATIONS, SOURCES, Dataset
from dualnet.errors import UsageError
from dualnet.learning import RULES, Task
from dualnet.models import MODELS
from dualnet.naming import assigned
from dualnet.nn import Layer, has_local_heads, with_local_heads
from dualnet.nn.initial import shapes_alone
from dualnet.optim import OPTIMIZERS
from dualnet.random import Key
from dualnet.schedules import SCHEDULES
from dualnet.training.loop import Trainer
from dualnet.training.objective import OBJECTIVES
from dualnet.training.resolve import locality
from dualnet.training.settings import Settings, Tables, build, chosen_model
from dualnet.types import Shape

TABLES: Tables = {
    "model": MODELS,
    "objective": OBJECTIVES,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""What there is to choose from; what is put into one of these dicts is there to choose, too."""

OPEN_TABLES: Mapping[str, Mapping[str, object]] = {**TABLES, "dataset": SOURCES}
"""`TABLES` and the data sets: all to which a plugin may add."""


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
        UsageError: the model makes another number of outputs, or does not fit the examples; or
            settings say what heads read, and the network has heads of its own.
        MemoryError: no machine has so much memory.
    """
    with shapes_alone():  # the network is started only once it is known to fit into memory
        return _network_of(settings, in_shape, outputs, model)


def _network_of(settings: Settings, in_shape: Shape, outputs: int, model: Model | None) -> Layer:
    """Return what `network_of` returns."""
    chosen = model or build(MODELS, "model", settings.model, settings.model_options)
    objective = build(OBJECTIVES, "objective", settings.objective, settings.objective_options)
    try:
        network = objective.network(lambda width: _with_outputs(chosen, in_shape, width), outputs)
    except UsageError as error:
        if model is not None:
            raise
        raise UsageError(f"{chosen_model(settings)}: {error}") from error
    if locality(settings.rule) == "global":
        return network
    if has_local_heads(network):
        if settings.head_reads != "average":
            raise UsageError(
                f"{assigned('head_reads', settings.head_reads)} is of no use to "
                f"{assigned('model', settings.model)}: its local heads are its own"
            )
        return network
    with shapes_alone():
        params, _, (width,) = network.init(Key(0), in_shape)
    with_heads = with_local_heads(network, params, width, reads=settings.head_reads)
    return objective.network(lambda _: with_heads, outputs)


def _with_outputs(model: Model, in_shape: Shape, outputs: int) -> Layer:
    """Return the network of a model, which must have so many outputs."""
    network = model.network(in_shape, outputs)
    with shapes_alone():
        _, _, out_shape = network.init(Key(0), in_shape)
    if out_shape != (outputs,):
        raise UsageError(
            f"model: expected a network with outputs ({outputs},), one for each class or real "
            f"target, got {tuple(out_shape)}; let its last layer be Linear({outputs})"
        )
    return network


def backend_of(settings: Settings, processes: Processes = ALONE) -> Backend:
    """Return the backend that the settings name, on the device of this process."""
    how = settings.threads_so_far, settings.matmul_precision, processes.local_rank
    return backends.get(settings.backend, *how)


def make_trainer(
    settings: Settings, network: Layer, dataset: Dataset, processes: Processes = ALONE
) -> Trainer:
    """Return the trainer that the settings describe, with its data on the device if they fit."""
    objective = build(OBJECTIVES, "objective", settings.objective, settings.objective_options)
    backend = backend_of(settings, processes)
    if not dataset.on_disk:
        arrays = ("train_images", "train_labels", "test_images", "test_labels")
        dataset = replace(
            dataset, **{name: backend.keep_on_device(getattr(dataset, name)) for name in arrays}
        )
    return Trainer(
        task=Task(network, objective.loss),
        objective=objective,
        rule=build(RULES, "rule", settings.rule, settings.rule_options),
        optimizer=build(OPTIMIZERS, "optimizer", settings.optimizer, settings.optimizer_options),
        schedule=build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options),
        lr=settings.lr,
        dataset=dataset,
        pixels=settings.pixels,
        augment=AUGMENTATIONS[settings.augment](),
        dtype=np.dtype(settings.dtype),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        backend=backend,
        shards=settings.shards,
        early_stop=settings.early_stop,
        grad_stats=settings.grad_stats,
        graph=settings.graph,
        head_lr=settings.head_lr,
        output_lr=settings.output_lr,
        clip_norm=settings.clip_norm,
        on_nan=settings.on_nan,
        processes=processes,
    )
