"""One training run, from settings to summary."""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from dualnet import backends, tree
from dualnet.analysis import TOTAL
from dualnet.data import AUGMENTATIONS, Dataset
from dualnet.errors import BackendError, DataError, UsageError
from dualnet.learning import RULES, Task
from dualnet.naming import assigned, named
from dualnet.nn import Layer
from dualnet.optim import OPTIMIZERS
from dualnet.schedules import SCHEDULES
from dualnet.training.curve import draw_curve
from dualnet.training.history import best, best_epoch, outcome
from dualnet.training.loop import Trainer
from dualnet.training.objective import OBJECTIVES
from dualnet.training.run_folder import BEST, COLUMNS, NETWORK, RunFolder
from dualnet.training.settings import Settings, build
from dualnet.training.state import TrainState
from dualnet.training.trained import Trained, parts_of
from dualnet.tree import Tree

_WARM_UP_STEPS = 5


def run(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    folder: RunFolder,
    *,
    resume: bool = False,
    quiet: bool = False,
    published: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, evaluate, and fill the run folder.

    Args:
        settings: all choices.
        network: built from `settings.model` by the caller (models stand above the package).
        dataset: loaded by the caller.
        folder: where to write.
        resume: whether the folder holds a checkpoint to go on from.
        quiet: whether progress bars are left out.
        published: what the summary holds beside the outcome, to compare it with; None for nothing.

    Returns:
        What `summary.json` holds.

    Raises:
        DivergedError, DataError, UsageError, BackendError: see `dualnet.errors`.
    """
    with out_of_memory_explained(settings):
        trainer = make_trainer(settings, network, dataset)
        one = Run(settings, trainer, folder, resume=resume, published=published)
    if one.done is not None:
        return one.done
    with out_of_memory_explained(settings):
        now, step_seconds = trainer.train(one.start, one.save_epoch, one.save, quiet)
    return one.finish(now, step_seconds)


class Run:
    """A run and its folder: where it starts, what is saved on the way, and its summary.

    Args:
        settings, folder, resume, published: see `run`.
        trainer: of the run.

    Attributes:
        start: the state from which the run goes on.
        done: the summary of a run that has reached its last epoch before; None for others.

    Raises:
        DataError, UsageError: see `run`.
    """

    def __init__(
        self,
        settings: Settings,
        trainer: Trainer,
        folder: RunFolder,
        *,
        resume: bool = False,
        published: dict[str, Any] | None = None,
    ):
        self._began = time.perf_counter()
        self.settings, self.trainer, self.folder = settings, trainer, folder
        self._published = published or {}
        self._memory: dict[str, int] = {}
        self.start = trainer.start()
        self.done: dict[str, Any] | None = None
        if resume:
            self.start = restored(self.start, settings, folder)
            found = folder.summary() if trainer.is_over(self.start) else None
            # A run that was given more epochs and then killed has the summary of fewer.
            if found is not None and found.get("epochs") == len(self.start.history):
                self.done = found
                return
            folder.write_settings(settings)  # the run may have more epochs now
            self._drop_best_of_a_lost_epoch()
        else:
            folder.create(settings)
        self._write_network()
        self.save(self.start)

    def _write_network(self) -> None:
        """Write `network.json`, unless a layer cannot be written as text."""
        of_start = Trained(**parts_of(self.trainer, self.settings, self.start.carried))
        try:
            description = of_start.description
        except UsageError:
            return  # the run itself needs no description, only whoever loads its network
        self.folder.write_json(NETWORK, description)

    def save(self, state: TrainState) -> None:
        """Write a state, from which the run can go on."""
        self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, state.as_trees()))
        if self.settings.grad_stats is not None:
            layers = [path for path, _ in tree.items(state.carried.params)]
            self.folder.write_gradients(
                [*layers, TOTAL], self.settings.grad_stats, state.comparisons
            )

    def save_epoch(self, state: TrainState) -> None:
        """Write a state after an epoch, and the figures of all epochs."""
        if best_epoch(state.history) == len(state.history):
            # Before the checkpoint: a run that is killed in between makes this epoch again.
            best = of_best(state)
            self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, best), BEST)
        self.save(state)
        self.folder.write_metrics(state.history)
        self._memory = self.trainer.backend.memory()  # a recorded step still holds its memory

    def _drop_best_of_a_lost_epoch(self) -> None:
        """Delete `best.npz` if it is of an epoch that the checkpoint does not know.

        That is so after a run was killed between the two.  It makes the epoch again, but perhaps
        with other numbers, because it may have been given more epochs, and with them other rates.
        """
        if self.folder.holds(BEST):
            epoch = int(read_best(self.start, self.folder)["epoch"])
            history = self.start.history
            if not len(history) or epoch != best_epoch(history):
                self.folder.remove(BEST)

    def finish(self, now: TrainState, step_seconds: list[float]) -> dict[str, Any]:
        """Write and return the summary of a run that has reached its last epoch."""
        settings = self.settings
        summary = {
            **outcome(now.history),
            **best(now.history),
            "seconds_per_step": seconds_per_step(step_seconds),
            "seconds": time.perf_counter() - self._began,
            "peak_memory_bytes": peak_memory_bytes(),
            **self._memory,
            "seed": settings.seed,
            "dataset": settings.dataset,
            "tested_on": self.trainer.dataset.tested_on,
            "model": settings.model,
            "parameters": tree.size(now.carried.params),
            "objective": settings.objective,
            "rule": settings.rule,
            **{f"rule_{name}": value for name, value in settings.rule_options.items()},
            **last_cosine(now.comparisons),
            **({"skipped_steps": int(now.skipped)} if settings.on_nan == "skip" else {}),
            **self._published,
            "run_dir": str(self.folder.path),
        }
        self.folder.write_json("summary.json", summary)
        title = f"{settings.dataset}, {settings.model}, {settings.rule}"
        draw_curve(now.history, title, self.folder.path / "curve.png")
        return summary


def make_trainer(settings: Settings, network: Layer, dataset: Dataset) -> Trainer:
    """Return the trainer that the settings describe, with its data on the device if they fit."""
    objective = build(OBJECTIVES, "objective", settings.objective, settings.objective_options)
    backend = backends.get(settings.backend, settings.threads, settings.matmul_precision)
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
    )


def restored(start: TrainState, settings: Settings, folder: RunFolder) -> TrainState:
    """Return the state in a run's checkpoint.

    Args:
        start: the state of such a run before its first step, which the checkpoint must be like.
        settings: of the run as it goes on.
        folder: of the run.

    Raises:
        DataError: the checkpoint is missing, damaged or does not fit.
        UsageError: the run has done more epochs than the settings ask for.
    """
    # The history and the comparisons grow, so their length is whatever the checkpoint holds.
    grown = tree.map(lambda _: None, start.comparisons)
    like = {**start.as_trees(), "history": None, "comparisons": grown}
    now = TrainState.from_trees(folder.read_checkpoint(like))
    if now.history.shape != (now.position[0], len(COLUMNS)) or now.history.dtype != np.float64:
        raise DataError(
            f"{folder.path / 'checkpoint.npz'} is damaged: at epoch {now.position[0]} it has a "
            f"history {now.history.dtype}{now.history.shape}; start the run anew"
        )
    pairs = zip(tree.leaves(now.comparisons), tree.leaves(start.comparisons), strict=True)
    for found, empty in pairs:
        if (found.shape[1:], found.dtype) != (empty.shape[1:], empty.dtype):
            raise DataError(
                f"{folder.path / 'checkpoint.npz'} is damaged: it compares gradients in "
                f"{found.dtype}{found.shape}, expected {empty.dtype}(m, {empty.shape[1]}, 3); "
                "start the run anew"
            )
    if settings.epochs < now.position[0]:
        raise UsageError(
            f"{assigned('epochs', settings.epochs)}: the run has done {now.position[0]} "
            "epochs already"
        )
    return now


def of_best(state: TrainState) -> dict[str, Tree]:
    """Return the trees of `best.npz`: all that predictions need, and the number of the epoch."""
    carried = state.carried
    return {
        "params": carried.params,
        "model_state": carried.model_state,
        "readout": carried.readout,
        "epoch": np.array(len(state.history)),
    }


def read_best(like: TrainState, folder: RunFolder) -> dict[str, Tree]:
    """Return the trees that `of_best` made, as they are in a run folder.

    Args:
        like: a state of such a run, as `Trainer.start` makes it.
        folder: of the run.

    Raises:
        DataError: the file is missing, damaged, or does not fit.
    """
    return folder.read_checkpoint(of_best(like), BEST)


@contextmanager
def out_of_memory_explained(settings: Settings, seeds: int = 1) -> Iterator[None]:
    """Turn a MemoryError into a BackendError that says which settings would make the work fit.

    Args:
        settings: of the work.
        seeds: how many runs with these settings are side by side.
    """
    try:
        yield
    except MemoryError as error:
        options = settings.rule_options
        k = f", k = {options['tangents']}" if "tangents" in options else ""
        lower = [named("batch_size")]
        if "tangent_chunk" in options:
            chunk = options["tangent_chunk"]
            none = f"no {named('tangent_chunk')}"
            k += f", {none if chunk is None else assigned('tangent_chunk', chunk)}"
            lower.insert(0, named("tangent_chunk"))
        elif "tangents" in options:
            lower.insert(0, named("tangents"))
        if seeds > 1:
            k += f", {seeds} seeds at once"
            lower.insert(0, f"the number of {named('seeds')}")
        raise BackendError(
            f"backend {settings.backend}: out of memory with batch size {settings.batch_size}{k}: "
            f"{str(error).rstrip('.')}{_what_would_fit(error, settings)}; lower "
            f"{' or '.join(lower)}, raise {named('shards')}, or take a smaller model; what was "
            "checkpointed is kept"
        ) from error


def _what_would_fit(error: MemoryError, settings: Settings) -> str:
    """Say what a device has, and how large a batch may be at most; nothing for the host.

    A step that fails had taken some bytes and asked for more.  In proportion to these, the largest
    batch is overestimated: the rest of the step would have asked for more still, and parameters
    take the same bytes for a smaller batch.
    """
    if settings.backend != "cupy":
        return ""
    from dualnet.backends.cupy_backend import device_memory  # which is not needed on the host

    free, total = device_memory()
    text = f"; the device has {total:,} bytes, {free:,} of them free"
    sizes = re.search(r"allocating ([\d,]+) bytes \(allocated so far: ([\d,]+) bytes", str(error))
    if sizes is None:
        return text
    asked, taken = (int(size.replace(",", "")) for size in sizes.groups())
    most = settings.batch_size * total // (asked + taken)
    if most >= settings.batch_size:
        return text  # others hold the rest, or it is in pieces
    return f"{text}; of such a batch, no more than {most} would fit"


def seconds_per_step(step_seconds: list[float]) -> float | None:
    """Return the median of all steps but the first five; None if there were no more."""
    after = step_seconds[_WARM_UP_STEPS:]
    return statistics.median(after) if after else None


def last_cosine(comparisons: Tree) -> dict[str, float | None]:
    """Return the total cosine of the last comparison by its name in a summary.

    Nothing is returned if no gradients are compared; the cosine is None where it is undefined.
    """
    if not len(comparisons):
        return {}
    cosine = float(comparisons[-1, -1, 0])
    return {"gradient_cosine": cosine if np.isfinite(cosine) else None}


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
