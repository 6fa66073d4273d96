"""A network that has been trained: it predicts, is judged, and is kept in a folder.

| file | what |
| --- | --- |
| `network.json` | the layers, how examples become numbers, the classes, versions |
| `checkpoint.npz` | arrays only: parameters, the network's state, the objective's read-out |

Nothing else is needed to predict, neither the data set nor the settings of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import backends, data, tree
from dualnet.backends import Backend
from dualnet.data import ArrayDataset, Dataset, Preparation
from dualnet.data.arrays import inputs_like, targets_like
from dualnet.data.consistency import fault_of
from dualnet.errors import BackendError, DivergedError, UsageError
from dualnet.naming import named
from dualnet.nn import Layer, softmax
from dualnet.nn.written import written_network
from dualnet.random import Key
from dualnet.training.bad_files import in_message
from dualnet.training.described import MOST_NUMBERS, described, refused_if_unfit, shapes_of
from dualnet.training.evaluation import batch_that_fits
from dualnet.training.history import Row
from dualnet.training.json_files import read_json
from dualnet.training.loop import Trainer
from dualnet.training.objective import Objective, TrainedNetwork
from dualnet.training.pictures.sheet import draw_predictions
from dualnet.training.run_folder import BEST, CHECKPOINT, NETWORK, RunFolder
from dualnet.training.scores import Scores
from dualnet.training.settings import Settings
from dualnet.training.state import Carried
from dualnet.training.surroundings import surroundings
from dualnet.tree import Tree
from dualnet.types import Array

_NOT_FINITE = "the parameters or the examples have become too large for such numbers"


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """See the head of this file.

    Attributes:
        network: the layers, with local heads if it has learned by a rule with local losses.
        params, model_state: their parameters and state, trees of arrays.
        readout: what the objective has learned beside the network.
        objective: what the network was trained for.
        objective_options: the name of the objective, `name`, and its options.
        preparation: how examples become numbers.
        labels: `(classes,)`, what `predict` answers for each class; empty for real targets.
        classes: the name of each class.
        real_targets: how many an example has; None where targets are classes.
        dtype: of numbers and parameters.
        backend: runs the work.
    """

    network: Layer
    params: Tree
    model_state: Tree
    readout: Tree
    objective: Objective
    objective_options: dict[str, Any]
    preparation: Preparation
    labels: np.ndarray
    classes: tuple[str, ...]
    real_targets: int | None
    dtype: np.dtype
    backend: Backend

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes" if self.classes else f"{self.real_targets} targets"
        return (
            f"<{type(self).__name__}: {tree.size(self.params):,} parameters, examples "
            f"{self.preparation.shape}, {what}>"
        )

    def predict(self, x: Any) -> np.ndarray:
        """Return the class of each example as the training targets had it, or its real targets.

        Args:
            x: examples `(n, ...)`, as those that were trained on.

        Returns:
            `(n,)`, whole numbers in int64 (in uint64 where int64 has no room for one of them),
            booleans or strings; for real targets `(n, outputs)` in the dtype of the network.

        Raises:
            UsageError: the examples are not of the shape or kind that was trained on.
            DivergedError: an output is not finite.
        """
        outputs = self.outputs(x)
        return self.labels[np.argmax(outputs, -1)] if len(self.labels) else outputs

    def probabilities(self, x: Any) -> np.ndarray:
        """Return the probability of each class, `(n, classes)`, for examples as for `predict`."""
        if not len(self.labels):
            raise UsageError("probabilities: expected a network of classes, got real targets")
        return softmax(self.outputs(x))

    def outputs(self, x: Any) -> np.ndarray:
        """Return the numbers by which `predict` decides, `(n, outputs)`, on the host."""
        examples = inputs_like(self.preparation, x)
        found = np.concatenate([self.backend.to_host(part) for part in self._outputs(examples)])
        if not np.isfinite(found).all():
            raise DivergedError(f"predict: an output is not finite; {_NOT_FINITE}")
        return found

    def evaluate(self, examples: Any) -> Scores:
        """Return loss, accuracy, confusion matrix and the scores of each class.

        Args:
            examples: `(inputs, targets)`; a data set, of which the test examples are taken; or the
                name of one.

        Raises:
            UsageError: the examples are not of the shape or kind that was trained on.
            DivergedError: an output is not finite.
        """
        x, y = self._pair(examples)
        answers, total = [], 0.0
        for part, outputs in zip(_parts(len(x), self._at_once), self._outputs(x), strict=True):
            targets = self.backend.asarray(y[part])
            with np.errstate(all="ignore"):  # the loss is looked at
                total += float(self.objective.test_losses(outputs, targets).sum())
            answers.append(self.backend.to_host(np.argmax(outputs, -1)))
        loss = total / len(x)
        if not np.isfinite(loss):
            raise DivergedError(f"evaluate: the loss is {loss}; {_NOT_FINITE}")
        if not len(self.labels):
            return Scores(loss)
        return Scores.of(loss, np.concatenate(answers), y, self.classes)

    def draw_predictions(self, examples: Any, path: str | Path, most: int = 40) -> None:
        """Draw a sheet of images, each with the class that it is taken for and the probability.

        Args:
            examples: images `(n, ...)`; or as for `evaluate`, so that the wrong ones are marked and
                come first.
            path: the file to write; its ending says the format, such as `.png`.
            most: how many images are drawn at most.

        Raises:
            UsageError: the network takes no images or has no classes, matplotlib is not installed,
                or the file cannot be written.
        """
        if self.preparation.white is None or not len(self.labels):
            what = "classes" if self.preparation.white is not None else "images"
            raise UsageError(f"draw_predictions: expected a network of {what}, got {self!r}")
        alone = not isinstance(examples, (str, tuple, list, Dataset))
        x, truth = (examples, None) if alone else self._pair(examples)
        x = inputs_like(self.preparation, x)
        probabilities = self.probabilities(x)
        draw_predictions(
            x,
            probabilities.argmax(-1),
            probabilities.max(-1),
            truth,
            self.classes,
            path,
            white=self.preparation.white,
            most=most,
        )

    def save(self, folder: str | Path) -> None:
        """Write the network into a folder, which is made if it is not there.

        Raises:
            UsageError: the folder holds a network or a run already or cannot be written to, or a
                layer cannot be written as text.
        """
        description = self.description
        kept = RunFolder(folder)
        with kept.claimed():
            if (held := kept.held()) is not None:
                raise UsageError(f"save: {kept.path} holds {held} already; choose another folder")
            on_host = tree.map(self.backend.to_host, self._trees)
            kept.write_checkpoint(on_host)
            kept.write_json(NETWORK, description)

    @property
    def description(self) -> dict[str, Any]:
        """What `network.json` holds."""
        how = self.preparation
        mean, std = (self.backend.to_host(x).tolist() for x in (how.mean, how.std))
        return {
            "network": written_network(self.network),
            "objective": self.objective_options,
            "preparation": {
                "scale": how.scale,
                "mean": mean,
                "std": std,
                "shape": list(how.shape),
                "white": None if how.white is None else int(how.white),
                "image_size": how.image_size,
            },
            "labels": self.labels.tolist(),
            "classes": list(self.classes),
            "real_targets": self.real_targets,
            "dtype": self.dtype.name,
            "versions": surroundings()["versions"],
        }

    @property
    def _trees(self) -> dict[str, Tree]:
        names = ("params", "model_state", "readout")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _at_once(self) -> int:
        return batch_that_fits(self.preparation.in_shape)

    def _outputs(self, examples: np.ndarray) -> Iterator[Array]:
        """Yield the outputs for some examples at a time."""
        trained = TrainedNetwork(self.network, self.params, self.model_state)
        for part in _parts(len(examples), self._at_once):
            x = self.preparation(self.backend.asarray(examples[part]), self.dtype)
            with np.errstate(all="ignore"):  # whoever takes them looks whether they are finite
                outputs = self.objective.logits(self.readout, trained, x)
            yield outputs

    def _pair(self, examples: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs as the data set keeps them, and numbers of classes or real targets."""
        if isinstance(examples, str):
            examples = data.load(examples, quiet=True)
        if isinstance(examples, Dataset):
            if examples.classes != self.classes:
                raise UsageError(
                    f"evaluate: expected a data set of {_classes(self.classes)}, got "
                    f"{examples.name}, which has {_classes(examples.classes)}"
                )
            if (fault := fault_of(examples)) is not None:
                raise UsageError(f"evaluate: {fault}")
            return inputs_like(self.preparation, examples.test_images[:]), examples.test_labels
        if not isinstance(examples, (tuple, list)) or len(examples) != 2:
            raise UsageError(
                "evaluate: expected (inputs, targets), a data set or the name of one, got "
                f"{type(examples).__name__}"
            )
        x = inputs_like(self.preparation, examples[0])
        return x, targets_like(self.labels, self.real_targets, examples[1], len(x))


@dataclass(frozen=True, eq=False, repr=False)
class FittedNetwork(Trained):
    """What `fit` returns: the network after the last epoch, and how it got there.

    Attributes:
        history: a row for each epoch; figures by the names in `COLUMNS`.
        best: the network after the epoch with the lowest test loss.
        settings: every choice that was made.
        summary: the outcome, as `summary.json` of a run folder has it.
    """

    history: list[Row]
    best: Trained
    settings: Settings
    summary: dict[str, Any]


def parts_of(trainer: Trainer, settings: Settings, carried: Carried) -> dict[str, Any]:
    """Return the fields of the `Trained` that a trainer has at a state."""
    dataset = trainer.dataset
    labels = np.arange(len(dataset.classes))
    return {
        "network": trainer.task.network,
        "params": carried.params,
        "model_state": carried.model_state,
        "readout": carried.readout,
        "objective": trainer.objective,
        "objective_options": {"name": settings.objective, **settings.objective_options},
        "preparation": dataset.preparation(settings.pixels),
        "labels": dataset.labels if isinstance(dataset, ArrayDataset) else labels,
        "classes": dataset.classes,
        "real_targets": None if dataset.classes else dataset.outputs,
        "dtype": np.dtype(settings.dtype),
        "backend": trainer.backend,
    }


def _classes(names: tuple[str, ...]) -> str:
    """Return classes in a few words."""
    if not names:
        return "real targets"
    some = ", ".join(names[:3])
    return f"the classes {some}" if len(names) <= 3 else f"the {len(names)} classes {some}, …"


def _parts(n: int, at_once: int) -> Iterator[slice]:
    for start in range(0, n, at_once):
        yield slice(start, start + at_once)


def _require_own(own: Any) -> None:
    """Raise a UsageError unless `own` of `load_run` is what it says."""
    if not isinstance(own, (list, tuple)) or not all(
        callable(one) and isinstance(getattr(one, "__name__", None), str) for one in own
    ):
        raise UsageError(
            "load_run: own: expected a list of classes of layers and of functions, as in "
            f"own=[MyLayer, my_function], got {in_message(repr(own))}"
        )


def load_run(
    folder: str | Path, own: Sequence[Any] = (), backend: str = "numpy", best: bool = False
) -> Trained:
    """Return the network in a folder that `save`, or a run with a folder, has written.

    Args:
        folder: the folder.
        own: a list of the classes of layers, and functions of activations, that are not dualnet's.
        backend: the name of the backend that predicts.
        best: whether it is the network after the epoch of the lowest test loss, and not the last
            one; the folder of a run has both.

    Raises:
        UsageError: there is no network, or it has layers that are neither dualnet's nor `own`,
            which is something else; or there is no `best` one.
        DataError: a file is damaged, or does not fit the other.
        BackendError: the network takes more memory than there is, or the backend cannot be used.

    Examples:
        >>> x, y = np.eye(4, dtype=np.float32), np.arange(4)
        >>> run = dn.fit("mlp", (x, y), rule="bp", epochs=1, quiet=True)
        >>> run.save("network")
        >>> again = dn.load_run("network")
        >>> bool((again.outputs(x) == run.outputs(x)).all())
        True
    """
    _require_own(own)
    kept = RunFolder(folder)
    file = kept.path / NETWORK
    if (data := read_json(file, finite=False)) is None:
        raise UsageError(f"load_run: {in_message(folder)}: no network there (no {NETWORK})")
    if best and not kept.holds(BEST):
        raise UsageError(
            f"{named('best', 'load_run')}: {in_message(folder)} has one network alone (no {BEST}); "
            f"leave {named('best')} out"
        )
    found = described(file, data, own)
    runs_on, preparation, dtype = backends.get(backend), found["preparation"], found["dtype"]
    name = BEST if best else CHECKPOINT

    def read(like: dict[str, Tree]) -> dict[str, Tree]:
        on_host = kept.read_checkpoint(like, name, whole=False)
        return tree.map(runs_on.asarray, on_host)

    try:
        with refused_if_unfit(file, MemoryError):
            like = shapes_of(found["network"], preparation.in_shape, dtype, MOST_NUMBERS)
        trees = read(like)
        trained = TrainedNetwork(found["network"], **trees)
        x = runs_on.asarray(np.zeros((1, *preparation.in_shape), dtype))
        with refused_if_unfit(file), np.errstate(all="ignore"):
            classes = len(found["classes"])
            readout = found["objective"].init_readout(Key(0), trained, x, classes)
        trees |= read({"readout": readout})
        made = Trained(**found, **trees, backend=runs_on)
        with refused_if_unfit(file), np.errstate(all="ignore"):
            shape = made.objective.logits(made.readout, trained, x).shape
            if shape != (1, made.real_targets or classes):
                raise ValueError(f"its outputs {shape[1:]} are not one for each class or target")
    except MemoryError as error:
        raise BackendError(
            f"{in_message(file)}: out of memory: {in_message(error)}; close other programs, or "
            "load the network where there is more"
        ) from error
    return made
