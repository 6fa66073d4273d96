"""What a run reads from its folder to go on."""

from __future__ import annotations

import numpy as np

from dualnet import tree
from dualnet.errors import DataError, UsageError
from dualnet.naming import assigned
from dualnet.training.run_folder import BEST, COLUMNS, RunFolder
from dualnet.training.settings import Settings
from dualnet.training.state import TrainState
from dualnet.tree import Tree


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
