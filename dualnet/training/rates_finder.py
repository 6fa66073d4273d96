"""A finder of learning rates: the first steps of a run, at each of several rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dualnet.data import Dataset
from dualnet.errors import DivergedError, UsageError
from dualnet.naming import assigned, counted, named
from dualnet.nn import Layer
from dualnet.progress import progress_bar
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course, step_number
from dualnet.training.loop import Trainer
from dualnet.training.memory import out_of_memory_explained
from dualnet.training.settings import Settings
from dualnet.training.thread_choice import with_threads


@dataclass(frozen=True)
class ShortRun:
    """What became of the first steps at one rate.

    Attributes:
        lr: the base learning rate.
        train_loss: mean loss of the steps, of the last epoch alone if there are several; in nats.
        test_loss, test_accuracy: of the network after the last step.
        diverged: why there are no such figures, which are None then; None if there are.
    """

    lr: float
    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    diverged: str | None = None


@dataclass(frozen=True)
class FoundRates:
    """What `find_rates` returns.

    Attributes:
        runs: from the lowest rate to the highest.
        steps: that each of them made.
        tested_on: the images of `test_loss`: `test`, or `validation` images.
        start_loss: the test loss before the first step.
        lr: the rate to take; None if there is none.
        why: says so, and what speaks against it.
    """

    runs: tuple[ShortRun, ...]
    steps: int
    tested_on: str
    start_loss: float
    lr: float | None
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a dict."""
        return asdict(self)

    def table(self) -> str:
        """Return a line for each rate below a line of headings, in aligned columns."""
        lines = [["rate", "train loss", f"{self.tested_on} loss", "accuracy", ""]]
        for one in self.runs:
            figures = (one.train_loss, one.test_loss, one.test_accuracy)
            told = one.diverged or ("<- lowest loss" if one.lr == self.lr else "")
            cells = ["-" if x is None else f"{x:.4f}" for x in figures]
            lines.append([f"{one.lr:g}", *cells, told])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([*map(str.rjust, line[:-1], widths), line[-1]]).rstrip() for line in lines
        )


def find_rates(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    rates: Sequence[float],
    *,
    rate_steps: int | None = None,
    quiet: bool = False,
) -> FoundRates:
    """Make the first steps of a run at each of several rates, and say which rate to take.

    The steps are those of the run that the settings describe, with its schedule and its seed.  The
    rate of the lowest test loss is taken, if that is lower than before the first step.

    Args:
        settings: of the run; its rate is of no account.
        network: built from `settings.model`.
        dataset: to learn from and to test on.
        rates: the base learning rates; two or more.
        rate_steps: how many steps to make at each rate; None for one epoch.
        quiet: whether the progress bar is left out.

    Raises:
        UsageError: a rate or the number of steps makes no sense.
        BackendError: there is not enough memory.
    """
    grid = sorted(set(rates))
    if len(grid) < 2 or not all(math.isfinite(lr) and lr > 0 for lr in grid):
        raise UsageError(
            f"{named('rates', 'find_rates')}: expected two or more positive numbers, got "
            f"{' '.join(f'{lr:g}' for lr in rates) or 'none'}"
        )
    with out_of_memory_explained(settings), np.errstate(all="ignore"):
        alone = replace(settings, early_stop=None, grad_stats=None)
        _, trainer, _ = with_threads(alone, make_trainer(alone, network, dataset))
        per_epoch = len(trainer.order(0))
        steps = per_epoch if rate_steps is None else rate_steps
        if not 1 <= steps <= per_epoch * settings.epochs:
            raise UsageError(
                f"{named('rate_steps', 'find_rates')}: expected a number from 1 to "
                f"{per_epoch * settings.epochs}, the steps of {assigned('epochs', settings.epochs)}"
                f", got {rate_steps}"
            )
        start_loss, _ = trainer.evaluate(trainer.start())
        runs = tuple(
            _short_run(replace(trainer, lr=lr), steps, per_epoch)
            for lr in progress_bar(grid, desc="rates", unit="rate", leave=False, quiet=quiet)
        )
    lr, why = _choice(runs, steps, dataset.tested_on, start_loss)
    return FoundRates(runs, steps, dataset.tested_on, start_loss, lr, why)


def _short_run(trainer: Trainer, steps: int, per_epoch: int) -> ShortRun:
    """Make so many steps at the trainer's rate, and evaluate."""
    try:
        with closing(course(trainer, trainer.start(), [], quiet=True)) as states:
            now = next(s for s in states if step_number(s.position, per_epoch) == steps)
        now = trainer.collect_losses(now)
        test_loss, accuracy = trainer.evaluate(now)
    except DivergedError as error:
        return ShortRun(trainer.lr, diverged=str(error).partition(";")[0])
    loss, _, examples, _ = now.sums
    if not math.isfinite(test_loss):
        return ShortRun(trainer.lr, diverged=f"diverged: the test loss is {test_loss}")
    if not examples:
        return ShortRun(trainer.lr, diverged="diverged: all steps were left out")
    return ShortRun(trainer.lr, float(loss / examples), test_loss, accuracy)


def _choice(
    runs: Sequence[ShortRun], steps: int, tested_on: str, start_loss: float
) -> tuple[float | None, str]:
    """Return the rate to take, None if there is none, and why."""
    good = [one for one in runs if one.test_loss is not None]
    if not good:
        return None, "take none of these: all diverged; try lower rates"
    best = min(good, key=lambda one: one.test_loss or 0.0)
    assert best.test_loss is not None
    if not best.test_loss < start_loss:
        return None, (
            f"take none of these: the loss on {tested_on} images was {start_loss:.4f} at the start "
            "and is not lower after any of them; try others, or more steps"
        )
    why = (
        f"take {assigned('lr', best.lr)}: it has the lowest loss on {tested_on} images after "
        f"{counted(steps, 'step')}"
    )
    if best is runs[0]:
        why += "; it is the lowest of these rates, so try lower ones, too"
    if best is runs[-1]:
        why += "; it is the highest of these rates, so try higher ones, too"
    elif runs[runs.index(best) + 1].diverged:
        why += "; the next higher rate diverged, so a long run may need a lower one"
    if tested_on == "test":
        own = f"{named('validation')} N"
        why += f"; test images have chosen it, so take {own} where their score counts"
    return best.lr, why
