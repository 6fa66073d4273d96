"""A run that several processes share: how it begins alike in all of them, and stays alike.

Every process makes every step, from the same sums, so that each has all parameters.  Only the first
one has a folder, prints and calls callbacks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dualnet import tree
from dualnet.backends import mpi
from dualnet.backends.overridable import to_host
from dualnet.backends.processes import ALONE, SHARES, STATISTICS, Processes
from dualnet.data import Dataset
from dualnet.data.fingerprint import fingerprint
from dualnet.errors import DualnetError, UsageError
from dualnet.learning.sharing import require_batch_norm_alone, require_sum_of_losses
from dualnet.naming import assigned, named
from dualnet.options import require_choice
from dualnet.training.loop import Trainer
from dualnet.training.settings import AUTO, Settings
from dualnet.training.state import Carried, TrainState

NAMES = ("mpi",)
"""The names that `processes_called` knows."""


def processes_called(
    name: str | None, share: str | None, statistics: str | None = None, profile: bool = False
) -> Processes:
    """Return the processes that train together, by the name of what has started them.

    Args:
        name: `mpi`, for those of `mpiexec`; None for this one alone.
        share: what they have a part of, one of `SHARES`; None for `batch`.
        statistics: of whose examples batch norm takes its statistics, one of `STATISTICS`; None for
            `process`.
        profile: whether the time of their steps is told.

    Raises:
        UsageError: there is no such name, nobody to share with, or nothing to take statistics of.
        BackendError: MPI is not there.
    """
    if share is not None:
        require_choice("", named("share"), share, SHARES)
    if statistics is not None:
        require_choice("", named("statistics"), statistics, STATISTICS)
    if name is None:
        of_several = {"share": share, "statistics": statistics, "profile": profile or None}
        for flag, value in of_several.items():
            if value is not None:
                raise UsageError(
                    f"{assigned(flag, value)} is of no use to one process; "
                    f"add {assigned('processes', 'mpi')}"
                )
        return ALONE
    require_choice("", named("processes"), name, NAMES)
    if share == "tangents" and statistics is not None:
        raise UsageError(
            f"{assigned('statistics', statistics)} is of no use to {assigned('share', 'tangents')},"
            " where every process has all examples of a batch"
        )
    return mpi.world(share or "batch", statistics or "process")


def require_sharable(settings: Settings, trainer: Trainer) -> None:
    """Raise a UsageError if several processes are to share a run and cannot."""
    if trainer.processes.size == 1:
        return
    if trainer.processes.shares == "batch":
        require_sum_of_losses(trainer.task)
    if trainer.processes.statistics == "all":
        if not trainer.task.couples_examples:
            raise UsageError(
                f"{assigned('statistics', 'all')} is of no use to a network without batch norm"
            )
        require_batch_norm_alone(trainer.task)
    if settings.threads == AUTO:
        raise UsageError(
            f"{assigned('threads', AUTO)}: several processes would choose differently; give a "
            "number of threads"
        )


@contextmanager
def first_goes_ahead(processes: Processes) -> Iterator[None]:
    """Let the first process do something before the others, which then find what it leaves.

    So files are downloaded once, and decoded once.  Where the first one fails, the others go on,
    too, and may meet the same error.
    """
    if processes.rank:
        processes.of_first(())
        yield
        return
    try:
        yield
    except Exception:
        processes.of_first(())
        raise
    processes.of_first(())


def begun_alike(
    start: TrainState, best: Carried | None, processes: Processes
) -> tuple[TrainState, Carried | None]:
    """Return the state from which all processes go on, and the best one so far, of the first."""
    if processes.size == 1:
        return start, best
    own = start.as_trees(), start.carried if best is None else best, best is not None
    trees, best, is_there = processes.of_first(own)
    return TrainState.from_trees(trees), best if is_there else None


def require_same_task(
    settings: Settings, dataset: Dataset, processes: Processes, profile: bool = False
) -> None:
    """Raise an error if a process was given other settings or examples than the first one.

    Each would measure its part of another batch, and the sum would be of no use.  Machines may have
    other numbers of threads.
    """
    if processes.size == 1:
        return
    chosen = {name: value for name, value in settings.as_json().items() if name != "threads"}
    # These decide what is exchanged.
    chosen |= {"share": processes.shares, "statistics": processes.statistics, "profile": profile}
    texts = {"settings": json.dumps(chosen, sort_keys=True), "examples": fingerprint(dataset)}
    for what, text in texts.items():
        own = _digest(text.encode())
        if own != processes.of_first(own):
            raise UsageError(
                f"processes: expected in process {processes.rank} the {what} of the first one, got "
                f"others; give all processes the same {what}"
            )


def require_alike(carried: Carried, processes: Processes) -> None:
    """Raise an error if a process carries other numbers from step to step than the first one.

    All of them compute the same from the same sums.  Processors or devices of different kinds may
    round differently; then parameters would drift apart without a word.
    """
    if processes.size == 1:
        return
    leaves = to_host([leaf for leaf in tree.leaves(carried) if leaf is not None])
    own = _digest(b"".join([leaf.tobytes() for leaf in leaves]))
    if own != processes.of_first(own):
        raise DualnetError(
            f"processes: expected in process {processes.rank} the parameters and states of the "
            "first one, got others; processors and devices of different kinds round differently: "
            "start all processes on machines of one kind"
        )


def _digest(content: bytes) -> np.ndarray:
    """Return a number by which contents are told apart."""
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)
