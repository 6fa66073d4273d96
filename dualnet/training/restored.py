"""The state of a run as its folder has it: whether it can be one of that run, and how it goes on.

What a checkpoint holds may be damaged or have come from anybody.  The position says how many rows
the other parts must have, and which numbers they can be.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dualnet.errors import UsageError
from dualnet.naming import assigned, counted
from dualnet.training.checkpoint import Stored
from dualnet.training.described import shapes_of
from dualnet.training.history import fault_of
from dualnet.training.loop import Trainer
from dualnet.training.run_folder import BEST, CHECKPOINT, COLUMNS, RunFolder
from dualnet.training.state import TrainState
from dualnet.tree import Tree

_MOST_STEPS = 1 << 53
"""Beyond it, float64 does not tell one step from the next."""


def require_fitting(trainer: Trainer, folder: RunFolder) -> None:
    """Raise a DataError if the checkpoint is of a network of another size.

    The settings may ask for a network that is far too large, which need not be made to see it.
    """
    network, in_shape = trainer.task.network, trainer.dataset.in_shape
    folder.read_checkpoint(shapes_of(network, in_shape, trainer.dtype), whole=False)


def restored(trainer: Trainer, start: TrainState, folder: RunFolder) -> TrainState:
    """Return the state in a run's checkpoint.

    Args:
        trainer: of the run as it goes on.
        start: the state before its first step, which the checkpoint must be like.
        folder: of the run.

    Raises:
        DataError: the checkpoint is missing, damaged or does not fit.
        UsageError: the run has made more epochs than it is to have, or the file cannot be read.
    """
    epoch, batch = _position(folder)
    images = len(trainer.dataset.train_images)
    per_epoch = -(-images // trainer.batch_size)
    steps = epoch * per_epoch + batch
    if epoch < 0 or not 0 <= batch <= per_epoch or steps > _MOST_STEPS:
        why = f"it is at step {batch} of epoch {epoch + 1}, and epochs have {per_epoch} steps"
        raise folder.damaged(CHECKPOINT, why)
    _require_no_more(epoch, batch, trainer.epochs)
    like = {**start.as_trees(), "history": _history_of(epoch)}
    if trainer.grad_stats is not None:
        compared = -(-steps // trainer.grad_stats)
        shape = (compared, *start.comparisons.shape[1:])
        like["comparisons"] = Stored(shape, np.dtype(np.float64))
    now = TrainState.from_trees(folder.read_checkpoint(like, undefined=("history", "comparisons")))
    for fault in _faults(trainer, now, min(batch * trainer.batch_size, images), steps):
        raise folder.damaged(CHECKPOINT, fault)
    return now


def require_no_more(folder: RunFolder, epochs: int) -> None:
    """Raise a UsageError if a run has made more epochs than it is to have.

    Raises:
        DataError: the checkpoint is damaged.
    """
    _require_no_more(*_position(folder), epochs)


def _require_no_more(epoch: int, batch: int, epochs: int) -> None:
    if (epoch, batch) > (epochs, 0):
        done = counted(epoch, "epoch") + (f" and {counted(batch, 'step')}" if batch else "")
        raise UsageError(f"{assigned('epochs', epochs)}: the run has done {done} already")


def history_in(folder: RunFolder, epochs: int) -> np.ndarray:
    """Return the history in a run's checkpoint, `(epochs made, columns)`.

    Args:
        folder: of the run.
        epochs: how many the run is to have.

    Raises:
        DataError: the checkpoint is damaged.
        UsageError: it cannot be read.
    """
    made, _ = _position(folder)
    if not 0 <= made <= epochs:
        raise folder.damaged(CHECKPOINT, f"it has made {made} of {counted(epochs, 'epoch')}")
    like = {"history": _history_of(made)}
    return folder.read_checkpoint(like, whole=False, undefined=("history",))["history"]


def _position(folder: RunFolder) -> tuple[int, int]:
    """Return the position in a checkpoint, whatever it is."""
    like = {"position": Stored((2,), np.dtype(np.int64))}
    epoch, batch = folder.read_checkpoint(like, whole=False)["position"].tolist()
    return epoch, batch


def _history_of(epochs: int) -> Stored:
    return Stored((epochs, len(COLUMNS)), np.dtype(np.float64))


def _faults(trainer: Trainer, now: TrainState, seen: int, steps: int) -> Iterator[str]:
    """Yield what cannot be in a state.

    Args:
        trainer: of the run.
        now: the state.
        seen: how many images its epoch has trained on so far.
        steps: how many its run has made.
    """
    skips = trainer.on_nan == "skip"
    if (fault := fault_of(now.history, trainer.objective.classifies)) is not None:
        yield f"of its history {fault}"
    _, correct, examples, seconds = now.sums.tolist()
    whole = (correct * trainer.objective.views_per_image) % 1 == examples % 1 == 0
    fits = 0 <= correct <= examples <= seen and (skips or examples == seen)
    if not (whole and fits and seconds >= 0):
        yield f"it has sums {now.sums.tolist()} after {counted(seen, 'image')} of an epoch"
    if not seen and now.sums.any():
        yield f"it has sums {now.sums.tolist()} at the start of an epoch"
    # An epoch of which every step was left out ends a run.
    if skips and not 0 <= int(now.skipped) <= steps - int(now.position[0]):
        yield f"it has left out {now.skipped} of {counted(steps, 'step')}"
    if trainer.grad_stats is not None:
        cosine, angle, ratio = np.moveaxis(now.comparisons, -1, 0)
        for what, numbers, least, most in (
            ("a cosine", cosine, -1.0, 1.0),
            ("an angle", angle, 0.0, 180.0),
            ("a ratio of norms", ratio, 0.0, np.inf),
        ):
            wrong = (numbers < least - 1e-6) | (numbers > most + 1e-6)  # not so NaN: undefined
            if wrong.any():
                yield f"it compares gradients and finds {what} of {numbers[wrong][0]}"


def of_best(state: TrainState) -> dict[str, Tree]:
    """Return the trees of `best.npz`: all that predictions need, and the number of the epoch."""
    carried = state.carried
    return {
        "params": carried.params,
        "model_state": carried.model_state,
        "readout": carried.readout,
        "epoch": np.array(len(state.history)),
    }


def read_best(now: TrainState, folder: RunFolder) -> dict[str, Tree]:
    """Return the trees that `of_best` made, as they are in a run folder.

    Args:
        now: the state of the run.
        folder: of the run.

    Raises:
        DataError: the file is missing, damaged, or does not fit.
        UsageError: the file cannot be read.
    """
    found = folder.read_checkpoint(of_best(now), BEST)
    if not 0 < int(found["epoch"]) <= len(now.history):
        why = f"it is of epoch {found['epoch']}, and the run has made {len(now.history)}"
        raise folder.damaged(BEST, why)
    return found
