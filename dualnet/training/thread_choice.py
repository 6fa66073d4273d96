"""What `--threads auto` chooses: BLAS on all cores, or a shard of the batch on each core.

Which one is quicker depends on the network, the rule, the batch and the machine, so a few steps of
each are made and timed before a run begins.  Steps are pure functions, and nothing of these stays.
Both give the same numbers to rounding.  The choice is written into the settings of the run, so that
a run that goes on rounds as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dualnet import backends
from dualnet.backends.threads import cores
from dualnet.training.loop import Trainer
from dualnet.training.settings import AUTO, MOST_THREADS, Settings

SHORT = 5e-3
"""Seconds of a step that is not worth a trial: to cut it up saves little, and most often costs."""

ROUNDS = 3
"""How often the two take turns; a turn is two steps, of which the second one counts."""

FEWEST_STEPS = 500
"""Of a run that is worth a trial, whose fourteen steps then are less than 3 % of it."""

CLEARLY = 0.97
"""Shards are chosen if they take less than this part of the time."""


def with_threads(settings: Settings, trainer: Trainer) -> tuple[Settings, Trainer, str]:
    """Return settings and trainer of a run with the number of threads that `auto` chooses.

    Args:
        settings: of the run; with a number of threads they are returned as they are.
        trainer: as `make_trainer` makes it of them.

    Returns:
        Settings and trainer, and what was chosen and why, in one line; "" where nothing was to be
        chosen.
    """
    if settings.threads != AUTO:
        return settings, trainer, ""
    count, why = _chosen(trainer)
    if count > 1:
        trainer = replace(trainer, backend=backends.get("numpy", count))
    return replace(settings, threads=count), trainer, f"auto: {count}, {why}"


def _chosen(trainer: Trainer) -> tuple[int, str]:
    """Return how many threads a run is to have, and why."""
    count = min(cores(), trainer.shards or trainer.batch_size, MOST_THREADS)
    steps = trainer.epochs * len(trainer.order(0))
    if trainer.backend.name != "numpy":
        return 1, f"as {trainer.backend.name} has its own"
    if trainer.task.needs_whole_batch:
        return 1, "as network and loss need a batch in one piece"
    if count == 1:
        return 1, "as there is one core, one shard, or one example in a batch"
    if steps < FEWEST_STEPS:
        return 1, f"as so few steps as {steps} are not worth a trial"
    whole = _step_of(trainer, 1)
    whole()  # the first step takes memory, and imports
    if (alone := whole()) < SHORT:
        return 1, f"as a step takes {1e3 * alone:.1f} ms, which is not worth a trial"
    both = {1: whole, count: _step_of(trainer, count)}
    seconds: dict[int, list[float]] = {1: [], count: []}
    for _ in range(ROUNDS):
        for threads, step in both.items():
            step()  # disturbed by threads that the other left behind, which do not sleep yet
            seconds[threads].append(step())
    best = {threads: min(times) for threads, times in seconds.items()}
    told = (
        f"{1e3 * best[1]:.1f} ms a step, {1e3 * best[count]:.1f} ms with {count} shards at a time"
    )
    return (count if best[count] < CLEARLY * best[1] else 1), told


def _step_of(trainer: Trainer, threads: int) -> Callable[[], float]:
    """Return a function that makes the first step of a run, and returns its seconds."""
    trainer = replace(trainer, backend=backends.get("numpy", threads))
    carried, order = trainer.start().carried, trainer.order(0)
    with closing(trainer.examples.batches(order[:1])) as batches:
        batch = next(batches)
    key, numbers = trainer.of_step(0, len(order))
    advance: Callable[[], Any] = partial(trainer.advance, carried, batch, key, numbers)

    def step() -> float:
        began = time.perf_counter()
        with np.errstate(all="ignore"):  # as in training
            advance()
        return time.perf_counter() - began

    return step
