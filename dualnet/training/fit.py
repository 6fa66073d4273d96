"""`fit`: train a network on a data set or on arrays of one's own, in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from dualnet import data, tree
from dualnet.data import Dataset, from_arrays
from dualnet.data.arrays import FORMS
from dualnet.errors import UsageError
from dualnet.models import MODELS
from dualnet.nn import Layer
from dualnet.training.assemble import TABLES, Model, network_of
from dualnet.training.history import best_epoch
from dualnet.training.loop import Trainer
from dualnet.training.objective import OBJECTIVES
from dualnet.training.resolve import resolve
from dualnet.training.run import make_trainer
from dualnet.training.run_folder import COLUMNS
from dualnet.training.settings import Settings, build
from dualnet.training.state import Carried, TrainState
from dualnet.training.trained import Trained, parts_of
from dualnet.tree import Tree
from dualnet.types import Shape

Row = dict[str, float]
"""An epoch's figures by the names in `COLUMNS`."""
Callback = Callable[[Row], Any]


@dataclass(frozen=True)
class Given:
    """A model that is given in Python, and not by a name and options."""


GIVEN = "given"
_OF_DATA = ("limit_train", "limit_test", "image_size", "validation")


@dataclass(frozen=True, eq=False, repr=False)
class FittedNetwork(Trained):
    """What `fit` returns: the network after the last epoch, and how it got there.

    Attributes:
        history: a row for each epoch; figures by the names in `COLUMNS`.
        best: the network after the epoch with the lowest test loss.
        settings: every choice that was made.
    """

    history: list[Row]
    best: Trained
    settings: Settings


@dataclass(frozen=True)
class _Fixed:
    """The model whose network is given as it is."""

    layers: Layer

    def network(self, in_shape: Shape, classes: int) -> Layer:
        return self.layers


def fit(
    model: str | Model | Layer,
    examples: Any,
    *,
    rule: str = "fg-a",
    callbacks: Sequence[Callback] = (),
    data_dir: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> FittedNetwork:
    """Train a network, and return it with its history.

    Args:
        model: the name of a model, such as `mlp`; a model with options, such as `MLP(width=64)`;
            or a network, whose outputs must be as many as classes or real targets.
        examples: the name of a data set; a data set; `(inputs, targets)` or `(inputs, targets,
            test inputs, test targets)`, arrays as `data.from_arrays` takes them.
        rule: the name of a learning rule, see `RULES`.
        callbacks: functions that are called after each epoch with its figures, a dict by the names
            in `COLUMNS`.  If one returns True, training ends.
        data_dir: the folder that has the files of a named data set.
        quiet: whether progress bars are left out.
        **settings: all other settings and options by the names that their flags have on the command
            line, with `_` for `-`: `epochs`, `lr`, `batch_size`, `tangents`, `optimizer`, `seed`,
            `backend`, …

    Returns:
        The trained network, which predicts and is judged and saved.

    Raises:
        UsageError: the examples are not of a shape or kind that can be learned from, there is no
            such setting, or a choice cannot be made.
        DivergedError: the loss is NaN or infinite.
    """
    name = examples if isinstance(examples, str) else getattr(examples, "name", "arrays")
    of_data = {key: settings[key] for key in _OF_DATA if settings.get(key) is not None}
    dataset = _dataset(examples, data_dir, quiet, of_data)
    if not dataset.classes:
        settings.setdefault("objective", "regression")
    tables = {**TABLES, "model": {**MODELS, GIVEN: Given}}
    named, options = _name_and_options(model)
    given = {**settings, "dataset": name, "model": named, "rule": rule}
    chosen = resolve({**given, **options}, tables)
    objective = build(OBJECTIVES, "objective", chosen.objective, chosen.objective_options)
    if objective.classifies != bool(dataset.classes):
        kind = "classes" if dataset.classes else "real targets"
        raise UsageError(f"fit: objective: {chosen.objective} is of no use to {kind}")
    network = network_of(chosen, dataset.in_shape, dataset.outputs, _model(model))
    trainer = make_trainer(chosen, network, dataset)
    return _trained(trainer, chosen, callbacks, quiet)


def _trained(
    trainer: Trainer, settings: Settings, callbacks: Sequence[Callback], quiet: bool
) -> FittedNetwork:
    """Train, and return the network after the last epoch and the best one."""
    last = trainer.start()
    best = parts_of(trainer, settings, _kept(last.carried))

    def on_epoch(state: TrainState) -> None:
        nonlocal last, best
        last = state
        if best_epoch(state.history) == len(state.history):
            best = parts_of(trainer, settings, _kept(state.carried))
        row = _rows(state)[-1]
        if any([callback(row) is True for callback in callbacks]):
            raise _Enough

    try:
        trainer.train(last, on_epoch, lambda state: None, quiet)
    except _Enough:
        pass
    return FittedNetwork(
        **parts_of(trainer, settings, _kept(last.carried)),
        history=_rows(last),
        best=Trained(**best),
        settings=settings,
    )


def _kept(carried: Carried) -> Carried:
    """Return a state whose network has arrays of its own.

    A recorded step writes into the same memory again.
    """

    def own(part: Tree) -> Tree:
        return tree.map(lambda leaf: leaf.copy(), part)

    return carried._replace(
        params=own(carried.params),
        model_state=own(carried.model_state),
        readout=own(carried.readout),
    )


class _Enough(Exception):
    """A callback has ended the training."""


def _rows(state: TrainState) -> list[Row]:
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in state.history]


def _dataset(examples: Any, data_dir: str | None, quiet: bool, given: dict[str, Any]) -> Dataset:
    """Return the data set that examples are, have or name."""
    if isinstance(examples, str):
        return data.load(examples, data_dir, quiet=quiet, **given)
    refused = sorted(set(given) - {"validation"})
    if refused:
        raise UsageError(f"fit: {refused[0]} is of no use to arrays; take a part of the arrays")
    if isinstance(examples, Dataset):
        return examples.validating(given["validation"]) if given else examples
    if isinstance(examples, (tuple, list)) and len(examples) in (2, 4):
        return from_arrays(*examples, **given)
    raise UsageError(
        f"fit: examples: expected the name of a data set, a data set, or {FORMS}, got "
        f"{type(examples).__name__}"
    )


def _name_and_options(model: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of a model, and its options where it is given with options.

    Raises:
        UsageError: it is no model.
    """
    if isinstance(model, str):
        return model, {}
    if isinstance(model, Layer):
        return GIVEN, {}
    if isinstance(model, type) or not callable(getattr(model, "network", None)):
        raise UsageError(
            f"fit: model: expected one of {', '.join(MODELS)}, a model such as MLP(width=64), or a "
            f"network such as Sequential(...), got {model!r}"
        )
    name = next((name for name, cls in MODELS.items() if type(model) is cls), GIVEN)
    return name, {} if name == GIVEN else {f.name: getattr(model, f.name) for f in fields(model)}


def _model(model: Any) -> Model | None:
    """Return the model that was given; None where it was named."""
    if isinstance(model, str):
        return None
    return _Fixed(model) if isinstance(model, Layer) else model
