"""What the steps of processes that share a run take, for `--profile`, and which process is slow."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from dualnet.backends.timed_processes import TimedProcesses
from dualnet.console import WIDTH
from dualnet.options import is_number

PARTS = ("compute", "wait", "communication")
"""What the time of a step is divided into.  The three add up to all of it."""

SLOW = 1.25
"""A process is slow if it computes so many times as long as the middle one: all others then wait
for a fifth of their time.  Equal processors differ by some per cent."""

SURE = 6.0
"""By how many standard errors the two must differ as well.  So a few steps that something else has
held up name nobody.  Of 100,000 epochs of ten steps that all were drawn alike, from log-normal
times that scattered by 30 %, one named a process."""

FEWEST = 5
"""Fewer steps do not tell how much they scatter, and name nobody."""


class StepTimes:
    """The clock of a process for its steps.

    Compute is what is left of a step without waiting and communication: reading the examples, the
    progress bar and, in the first process, checkpoints on the way are part of it.  Evaluations and
    what comes after an epoch are no steps.

    Args:
        processes: that share the steps, whose exchanges they time.

    Attributes:
        bytes_given: how many bytes this process has given to others to tell its times.
    """

    def __init__(self, processes: TimedProcesses):
        self._processes = processes
        self.bytes_given = 0
        self._steps_of_run, self._of_run = 0, np.zeros((processes.size, len(PARTS)))
        self.begin()

    def begin(self) -> None:
        """Begin an epoch, and its first step."""
        self._steps, self._sums, self._squares = 0, np.zeros(len(PARTS)), 0.0
        self._last = self._now()

    def step(self) -> None:
        """Count a step that ends now, where the next one begins."""
        now = self._now()
        step, wait, communication = now - self._last
        compute = step - wait - communication
        self._last = now
        self._steps += 1
        self._sums += (compute, wait, communication)
        self._squares += compute**2

    def _now(self) -> np.ndarray:
        """Return the time, and what there was so far of waiting and communication."""
        processes = self._processes
        return np.array([processes.clock(), processes.waiting, processes.exchanging])

    def epoch(self) -> str:
        """Give the times of this epoch to all others, and return what they say; "" without a step.

        All processes call it together, after the epoch's last step.
        """
        n = self._steps
        if not n:  # the run goes on from the last step of an epoch
            return ""
        means = self._sums / n
        variance = max(self._squares / n - means[0] ** 2, 0.0) / (n - 1) if n >= FEWEST else np.inf
        own = np.zeros((self._processes.size, len(PARTS) + 1))
        own[self._processes.rank] = *means, variance
        before = self._processes.bytes_given
        of_all = self._processes.add(own)
        self.bytes_given += self._processes.bytes_given - before
        self._steps_of_run += n
        self._of_run += n * of_all[:, :-1]
        return told(of_all[:, :-1], np.sqrt(of_all[:, -1]))

    def summary(self) -> dict[str, Any]:
        """Return what a summary has of it: for each process the seconds of a step, on average over
        all steps since the run began or went on; nothing if there were none."""
        if not self._steps_of_run:
            return {}
        rows = (self._of_run / self._steps_of_run).tolist()
        return {"profile": [dict(zip(PARTS, row, strict=True)) for row in rows]}


def told(seconds: np.ndarray, errors: np.ndarray) -> str:
    """Return a line on what a step takes, which names the slowest process if it is slow.

    Args:
        seconds: mean seconds of a step in each of `PARTS`, `(processes, 3)`.
        errors: the standard error of each process's compute, `(processes,)`.
    """
    compute, wait, communication = 1e3 * seconds.T
    slowest = int(np.argmax(compute))
    if is_slow(seconds[:, 0], errors):
        others = np.arange(len(seconds)) != slowest
        who, waits = ("the others", "they wait") if len(seconds) > 2 else ("the other", "it waits")
        line = (
            f"process {slowest} is slow: compute {_span(compute[[slowest]])} ms, {who} "
            f"{_span(compute[others])}; {waits} {_span(wait[others])}"
        )
    else:
        line = (
            f"none stands out: compute {_span(compute)} ms, wait up to {_ms(wait.max())}, "
            f"communication up to {_ms(communication.max())}"
        )
    return textwrap.fill(line, WIDTH)


def is_slow(compute: np.ndarray, errors: np.ndarray) -> bool:
    """Return whether the process that computes longest is clearly slower than the middle one.

    Args:
        compute: mean seconds of a step in each process, `(processes,)`.
        errors: their standard errors.
    """
    order = np.argsort(compute)
    slowest, middle = order[-1], order[(len(order) - 1) // 2]  # of two, the quicker one
    excess = compute[slowest] - compute[middle]
    return bool(
        compute[slowest] > SLOW * compute[middle]
        and excess > SURE * np.hypot(errors[slowest], errors[middle])
    )


def _span(milliseconds: np.ndarray) -> str:
    """Return from what to what some times are."""
    least, most = _ms(milliseconds.min()), _ms(milliseconds.max())
    return least if least == most else f"{least} to {most}"


def _ms(x: float) -> str:
    return f"{x:.0f}" if x >= 9.95 else f"{x:.1f}" if x >= 0.995 else f"{x:.2f}"


def profile_in(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the profile that a summary has, under its name; nothing if there is none, or what is
    there cannot be one."""
    rows = summary.get("profile")
    fits = isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.keys() == set(PARTS)
        and all(is_number(x) and 0 <= x < np.inf for x in row.values())
        for row in rows
    )
    return {"profile": rows} if fits and rows else {}
