"""`fit`: train a network on a data set or on arrays of one's own, in Python."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import data, naming
from dualnet.backends.processes import ALONE, Processes
from dualnet.data import Dataset, from_arrays
from dualnet.data.arrays import FORMS
from dualnet.data.arrays import NAME as ARRAYS
from dualnet.data.consistency import fault_of
from dualnet.errors import UsageError
from dualnet.models import MODELS
from dualnet.nn import Layer
from dualnet.options import of_kind
from dualnet.training.assemble import TABLES, Model, backend_of, network_of
from dualnet.training.checkpoint_interval import CheckpointInterval
from dualnet.training.memory import out_of_memory_explained, require_memory
from dualnet.training.objective import OBJECTIVES
from dualnet.training.resolve import resolve
from dualnet.training.run import Callback, run
from dualnet.training.run_folder import NETWORK, RunFolder
from dualnet.training.settings import AUTO, Settings, build
from dualnet.training.shared_run import first_goes_ahead, processes_called
from dualnet.training.trained import FittedNetwork
from dualnet.types import Shape


@dataclass(frozen=True)
class Given:
    """A model that is given in Python, and not by a name and options."""


GIVEN = "given"
_OF_DATA = ("limit_train", "limit_test", "image_size", "validation")


@dataclass(frozen=True)
class _Fixed:
    """The model whose network is given as it is."""

    layers: Layer

    def network(self, in_shape: Shape, classes: int) -> Layer:
        return self.layers


def fit(
    model: str | Model | Layer | None = None,
    examples: Any = None,
    *,
    rule: str | None = None,
    callbacks: Sequence[Callback] = (),
    data_dir: str | None = None,
    run_dir: str | Path | RunFolder | None = None,
    resume: bool = False,
    checkpoint_every: str | int | None = None,
    quiet: bool = False,
    processes: str | None = None,
    share: str | None = None,
    statistics: str | None = None,
    profile: bool = False,
    **settings: Any,
) -> FittedNetwork:
    """Train a network, and return it with its history.

    Args:
        model: the name of a model, such as `mlp`; a model with options, such as `MLP(width=64)`;
            or a network, whose outputs must be as many as classes or real targets.  None for that
            of the `recipe`, or else `mlp`.
        examples: the name of a data set; a data set; `(inputs, targets)` or `(inputs, targets,
            test inputs, test targets)`, arrays as `data.from_arrays` takes them.  None for those of
            the `recipe`, or else `digits`.
        rule: the name of a learning rule, see `RULES`.  None for that of the `recipe`, or else
            `fg-a`.
        callbacks: functions that are called after each epoch with its figures, a dict by the names
            in `COLUMNS`.  If one returns True, training ends.
        data_dir: the folder that has the files of a named data set.
        run_dir: a folder for checkpoints, figures and the outcome, see `RunFolder`; None for none.
        resume: whether a run that `run_dir` holds already goes on from its checkpoint, with the
            same examples and settings, but for more `epochs`; where there is none, one begins.
        checkpoint_every: how often `run_dir` gets a checkpoint beside that of each epoch, in steps,
            as 100, or minutes, as `"5m"`; None for five minutes, or what it was before.
        quiet: whether the header, progress bars and the lines of epochs are left out.
        processes: `mpi` to share every batch with the other processes that `mpiexec` has started,
            each of which calls `fit` with the same arguments; None for this process alone.
        share: what these have a part of: the examples of each `batch`, or the `tangents`, the
            directions; None for `batch`.
        statistics: of whose examples batch norm takes mean and variance where a batch is shared: of
            each `process`'s own, or of `all`; None for `process`.
        profile: whether the first of them says after each epoch what a step takes in compute, wait
            and communication, and which process is slow; the summary then has `profile`.
        **settings: all other settings and options by the names that their flags have on the command
            line, with `_` for `-`: `epochs`, `lr`, `batch_size`, `tangents`, `optimizer`, `seed`,
            `backend`, `recipe`, …

    Returns:
        The trained network, which predicts and is judged and saved.

    Raises:
        UsageError: the examples are not of a shape or kind that can be learned from, there is no
            such setting, or a choice cannot be made.
        DataError: files of the data set or of the run are missing or damaged.
        DivergedError: the loss, a parameter or the optimizer's state is NaN or infinite.
        BackendError: the backend cannot be used, or memory does not suffice.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        >>> y = np.where(x[:, 0] > 0.0, "right", "left")
        >>> run = dn.fit("mlp", (x, y), rule="bp", epochs=20, quiet=True)
        >>> run.predict(np.array([[2.0, 0.0], [-2.0, 0.0]], np.float32)).tolist()
        ['right', 'left']
        >>> len(run.history), run.evaluate((x, y)).accuracy > 0.9
        (20, True)
    """
    _require_callbacks(callbacks)
    together = processes_called(processes, share, statistics, profile)
    with together.telling_of_errors():
        folder = None if together.rank else _folder(run_dir, data_dir, checkpoint_every)
        named, options = _name_and_options(model)
        _require_said_once(model, examples, options, data_dir, settings)
        choices = {"model": named, "rule": rule, "dataset": _name_of(examples)}
        given = {**settings, **{n: v for n, v in choices.items() if v is not None}, **options}
        tables = {**TABLES, "model": {**MODELS, GIVEN: Given}}
        with nullcontext() if folder is None else folder.claimed():
            if examples is None or isinstance(examples, str):
                # What nobody can do is refused before files are looked for.
                with first_goes_ahead(together):
                    chosen, dataset = loaded(resolve(given, tables), data_dir, quiet, together)
            else:
                dataset = _given(examples, {key: settings.get(key) for key in _OF_DATA})
                if not dataset.classes:
                    given.setdefault("objective", "regression")
                chosen = with_backend(resolve(given, tables), together)
            _require_targets(chosen, dataset)
            with out_of_memory_explained(chosen):
                network = network_of(chosen, dataset.in_shape, dataset.outputs, _model(model))
            require_memory(chosen, network, dataset.in_shape, len(dataset.train_images))
            begun = resume and not together.rank and _holds_the_same_run(folder, chosen)
            if begun:
                chosen = _with_threads_of(folder, chosen)
            if together.rank:
                callbacks, quiet = (), True
            how: dict[str, Any] = {"resume": begun, "callbacks": callbacks, "quiet": quiet}
            how |= {"processes": together, "profile": profile}
            return run(chosen, network, dataset, folder, **how)


def loaded(
    settings: Settings, data_dir: str | None, quiet: bool, processes: Processes = ALONE
) -> tuple[Settings, Dataset]:
    """Return the settings, with the backend that `auto` finds, and the data set that they name."""
    # The backend comes first, to say at once if it cannot be used.
    settings = with_backend(settings, processes)
    of_data = {name: getattr(settings, name) for name in _OF_DATA}
    return settings, data.load(settings.dataset, data_dir, quiet=quiet, **of_data)


def with_backend(settings: Settings, processes: Processes) -> Settings:
    """Return the settings with the backend that `auto` finds, once it was seen to work.

    Nothing has used a device before, so that each process uses its own alone.
    """
    backend = backend_of(settings, processes)
    # Where `auto` chooses NumPy, settings for CuPy are dropped.
    of_cupy: dict[str, Any] = {"matmul_precision": "full", "graph": True}
    dropped = {} if backend.name == "cupy" else of_cupy
    threads = AUTO if settings.threads == AUTO else backend.threads
    return replace(settings, backend=backend.name, threads=threads, **dropped)


def _folder(
    run_dir: str | Path | RunFolder | None, data_dir: str | None, checkpoint_every: str | int | None
) -> RunFolder | None:
    """Return the folder of the run, which remembers where its data are, and how often it saves."""
    beside = {} if data_dir is None else {"data_dir": os.path.abspath(data_dir)}
    if checkpoint_every is not None:
        every = str(of_kind("", "fit: checkpoint_every", checkpoint_every, "int | str"))
        CheckpointInterval(every)  # refused at once
        beside["checkpoint_every"] = every
    if run_dir is None:
        if checkpoint_every is not None:
            raise UsageError("fit: checkpoint_every: expected run_dir with it, a folder; got none")
        return None
    if not isinstance(run_dir, (str, Path, RunFolder)) or run_dir == "":
        raise UsageError(f"fit: run_dir: expected the path of a folder, got {run_dir!r}")
    folder = run_dir if isinstance(run_dir, RunFolder) else RunFolder(run_dir)
    if beside:
        folder.remember(beside)
    return folder


def _holds_the_same_run(folder: RunFolder | None, chosen: Settings) -> bool:
    """Return whether a run with these settings, but for its epochs, can go on in the folder.

    Raises:
        UsageError: there is no folder, or its run has other settings.
    """
    if folder is None:
        raise UsageError("fit: resume: expected run_dir with it, the folder of the run; got none")
    if not folder.has_begun():
        if folder.holds("config.json"):  # of a run that was killed before its first checkpoint
            for name in filter(folder.holds, (NETWORK, "config.json")):
                folder.remove(name)
        return False
    # As JSON has them: there a tuple is a list.
    before, now = (json.loads(json.dumps(one.as_json())) for one in (folder.settings(), chosen))
    for name, value in now.items():
        if (name, value) != ("threads", AUTO) and name != "epochs" and before[name] != value:
            raise UsageError(
                f"fit: resume: the run in {folder.path} has {name} {before[name]!r}, got "
                f"{value!r}; give it the same, or choose another run_dir"
            )
    return True


def _with_threads_of(folder: RunFolder | None, chosen: Settings) -> Settings:
    """Return the settings with the threads that `auto` chose when the run began."""
    if folder is None or chosen.threads != AUTO:
        return chosen
    return replace(chosen, threads=folder.settings().threads)


def _require_targets(chosen: Settings, dataset: Dataset) -> None:
    """Raise a UsageError if the objective is for another kind of targets than the data set has."""
    objective = build(OBJECTIVES, "objective", chosen.objective, chosen.objective_options)
    if objective.classifies != bool(dataset.classes):
        kind = "classes" if dataset.classes else "real targets"
        where = naming.named("objective", "fit")
        raise UsageError(f"{where}: {chosen.objective} is of no use to {kind}")
    if not dataset.classes:
        _require_told_apart(dataset.train_labels, chosen.dtype)


def _require_told_apart(targets: np.ndarray, dtype: str) -> None:
    """Raise a UsageError if a dtype rounds real targets by more than a hundredth of their range."""
    with np.errstate(over="ignore"):
        rounding = np.abs(targets.astype(dtype) - targets).max(0)
        apart = targets.max(0) - targets.min(0)
    for by, most in zip(rounding.tolist(), apart.tolist(), strict=True):
        if most > 0 and not by <= most / 100:
            raise UsageError(
                f"fit: targets: {dtype} rounds some by {by:.3g}, and they lie {most:.3g} apart at "
                "most; subtract their mean and divide by their deviation first"
            )


def _require_callbacks(callbacks: Any) -> None:
    """Raise a UsageError unless callbacks are functions."""
    if not isinstance(callbacks, (tuple, list)) or not all(map(callable, callbacks)):
        raise UsageError(
            f"fit: callbacks: expected a list of functions, as in callbacks=[f], got {callbacks!r}"
        )


def _require_said_once(
    model: Any,
    examples: Any,
    options: dict[str, Any],
    data_dir: str | None,
    settings: dict[str, Any],
) -> None:
    """Raise a UsageError if settings contradict a model with options, or examples."""
    twice = sorted(set(options) & set(settings))
    if twice:
        raise UsageError(
            f"fit: {twice[0]}={settings[twice[0]]!r} is given beside {model!r}, which has its own; "
            "give it to the model alone"
        )
    if examples is not None and "dataset" in settings:
        raise UsageError(
            f"fit: dataset={settings['dataset']!r} is given beside examples; give one of them"
        )
    if data_dir is not None and not (examples is None or isinstance(examples, str)):
        raise UsageError(
            "fit: data_dir is of no use to arrays, nor to a data set that is read already"
        )


def _name_of(examples: Any) -> str | None:
    """Return under which name settings have the examples; None where nothing was given."""
    if examples is None or isinstance(examples, str):
        return examples
    name = getattr(examples, "name", ARRAYS)
    return name if name in data.SOURCES else ARRAYS


def _given(examples: Any, given: dict[str, Any]) -> Dataset:
    """Return the data set that examples are or that arrays make."""
    given = {name: of_kind("", name, value, "int | None") for name, value in given.items()}
    validation = given.pop("validation")
    refused = [name for name, value in given.items() if value is not None]
    if refused:
        raise UsageError(f"fit: {refused[0]} is of no use to arrays; take a part of the arrays")
    if isinstance(examples, Dataset):
        if (fault := fault_of(examples)) is not None:
            raise UsageError(f"fit: examples: {fault}")
        return examples if validation is None else examples.validating(validation)
    if isinstance(examples, (tuple, list)) and len(examples) in (2, 4):
        return from_arrays(*examples, validation=validation)
    raise UsageError(
        f"fit: examples: expected the name of a data set, a data set, or {FORMS}, got "
        f"{type(examples).__name__}"
    )


def _name_and_options(model: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the name of a model, and its options where it is given with options.

    Raises:
        UsageError: it is no model.
    """
    if model is None or isinstance(model, str):
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
    if model is None or isinstance(model, str):
        return None
    return _Fixed(model) if isinstance(model, Layer) else model
