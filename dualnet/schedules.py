"""Schedules: what the base learning rate is multiplied by in each update.

Every schedule is a frozen dataclass and is called in one way,
`schedule(step, total_steps, steps_per_epoch)`.  `step` counts the updates made so far, so it is 0
at the first update of a run and `total_steps - 1` at the last.  The result is a Python float from
0 to 1, which leaves the dtype of the arrays that it scales as it is.

In the formulas, x = step / total_steps is the fraction of the run that is over.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.options import Options

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "Linear",
    "Schedule",
    "StepDecay",
    "WarmupCosine",
]


@dataclass(frozen=True)
class Schedule(Options):
    """A factor from 0 to 1 for each update of a run; a derived class writes `factor_at`.

    Raises:
        UsageError: an option is out of its range, or there is none of this name.

    Examples:
        >>> class Halved(dn.schedules.Schedule):
        ...     def factor_at(self, step, total_steps, steps_per_epoch):
        ...         return 1.0 if 2 * step < total_steps else 0.5
        >>> [Halved()(step, total_steps=100, steps_per_epoch=10) for step in (0, 49, 50)]
        [1.0, 1.0, 0.5]
    """

    def __call__(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Evaluate the schedule.

        Args:
            step: updates made so far, from 0 to `total_steps`.
            total_steps: updates of the whole run, at least 1.
            steps_per_epoch: updates of one pass over the training data, at least 1.

        Returns:
            What the base learning rate is multiplied by, from 0 to 1.

        Raises:
            UsageError: if `step` lies outside the run, one of the others is below 1, or the factor
                is negative or not finite.
        """
        where = type(self).__name__
        if total_steps < 1 or steps_per_epoch < 1:
            raise UsageError(
                f"{where}: expected total_steps and steps_per_epoch of at least 1, "
                f"got {total_steps} and {steps_per_epoch}"
            )
        if not 0 <= step <= total_steps:
            raise UsageError(
                f"{where}: expected a step from 0 to total_steps = {total_steps}, got {step}; "
                "give the length of the whole run, resumed parts included"
            )
        factor = float(self.factor_at(step, total_steps, steps_per_epoch))
        if not 0.0 <= factor < math.inf:
            raise UsageError(f"{where}: expected a factor from 0 to 1, got {factor} at step {step}")
        return factor

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor for arguments that have been checked."""
        raise NotImplementedError(f"{type(self).__name__} has no factor_at")


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The base learning rate throughout: factor 1.

    Examples:
        >>> [dn.schedules.Constant()(step, 100, 10) for step in (0, 99)]
        [1.0, 1.0]
    """

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """Drops at fixed fractions of the run: factor^n, with n the number of `times` that x reached.

    Args:
        factor: what each drop multiplies the rate by, from 0 to 1.
        times: when to drop, in increasing fractions of the run, between 0 and 1.

    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2 (to a
    tenth after 32k and 48k of 64k updates: the defaults).

    Raises:
        UsageError: an option is out of its range.

    Examples:
        >>> [round(dn.schedules.StepDecay()(step, 100, 10), 4) for step in (0, 49, 50, 75)]
        [1.0, 1.0, 0.1, 0.01]
    """

    factor: float = 0.1
    times: tuple[float, ...] = (0.5, 0.75)

    def __post_init__(self) -> None:
        _check_fraction(self, "factor")
        try:
            times = tuple(float(time) for time in self.times)
        except (TypeError, ValueError):
            times = (math.nan,)
        limits = (0.0, *times, 1.0)
        if not all(a < b for a, b in itertools.pairwise(limits)):
            raise UsageError(
                "StepDecay: expected times as increasing numbers above 0 and below 1, "
                f"got {self.times!r}"
            )
        object.__setattr__(self, "times", times)  # A list would make the schedule unhashable.

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        # Dividing finds the update that is meant: 7 / 100 equals 0.07, but 0.07 * 100 exceeds 7.
        return self.factor ** sum(step / total_steps >= time for time in self.times)


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Decay by a constant factor: factor^n after n complete epochs, or after n updates.

    By default the rate is constant within an epoch and 0.95 times as large in the next
    (Bacho & Chu 2024, "Low-variance forward gradients using direct feedback alignment and
    momentum").  `Exponential(factor=math.exp(-1e-4), every="step")` is the decay
    exp(-1e-4 i) in update i of Baydin et al. 2022, "Gradients without backpropagation".

    Args:
        factor: what the rate is multiplied by each time, from 0 to 1.
        every: "epoch" or "step", how often the rate falls.

    Raises:
        UsageError: an option is out of its range.

    Examples:
        >>> halving = dn.schedules.Exponential(factor=0.5)  # each epoch of 10 updates
        >>> [halving(step, 100, 10) for step in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.25]
    """

    factor: float = 0.95
    every: str = "epoch"

    def __post_init__(self) -> None:
        _check_fraction(self, "factor")
        if self.every not in ("epoch", "step"):
            raise UsageError(f'Exponential: expected every "epoch" or "step", got {self.every!r}')

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.factor ** (step // steps_per_epoch if self.every == "epoch" else step)


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line from 1 to `final`: 1 - (1 - final) x.

    The end of the line lies one update past the last, so that no update is made with rate 0.

    Args:
        final: factor at the end of the run, from 0 to 1.

    Source: Li, Yumer & Ramanan 2020, "Budgeted training: rethinking deep neural network
    training under resource constraints" (the linear schedule).

    Raises:
        UsageError: `final` is out of its range.

    Examples:
        >>> [round(dn.schedules.Linear()(step, 100, 10), 4) for step in (0, 25, 99)]
        [1.0, 0.75, 0.01]
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fraction(self, "final")

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return 1.0 - (1.0 - self.final) * (step / total_steps)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a wave of a cosine from 1 to `final`: final + (1 - final) (1 + cos(pi x)) / 2.

    The end of the wave lies one update past the last, so that no update is made with rate 0.

    Args:
        final: factor at the end of the run, from 0 to 1.

    Source: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts",
    equation 5, without restarts.

    Raises:
        UsageError: `final` is out of its range.

    Examples:
        >>> [round(dn.schedules.Cosine()(step, 90, 10), 4) for step in (0, 30, 45, 60)]
        [1.0, 0.75, 0.5, 0.25]
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fraction(self, "final")

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        wave = (1.0 + math.cos(math.pi * step / total_steps)) / 2.0
        return self.final + (1.0 - self.final) * wave


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """A linear rise to 1, then half a wave of a cosine to `final`.

    In the first w = round(warmup total_steps) updates the factor is (step + 1) / w, then
    final + (1 - final) (1 + cos(pi (step - w) / (total_steps - w))) / 2.

    Args:
        warmup: length of the rise as a fraction of the run, from 0 to 1; at least one update is
            left to the cosine.
        final: factor at the end of the run, from 0 to 1.

    Source: Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    section 2.2 (the rise); Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with
    warm restarts", equation 5 (the wave).

    Raises:
        UsageError: an option is out of its range.

    Examples:
        >>> schedule = dn.schedules.WarmupCosine(warmup=0.1)  # ten of a hundred updates
        >>> [round(schedule(step, 100, 10), 4) for step in (0, 4, 9, 10, 55)]
        [0.1, 0.5, 1.0, 1.0, 0.5]
    """

    warmup: float = 0.1
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fraction(self, "warmup")
        _check_fraction(self, "final")

    def factor_at(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        warmup_steps = min(round(self.warmup * total_steps), total_steps - 1)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        return self.final + (1.0 - self.final) * (1.0 + math.cos(math.pi * progress)) / 2.0


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "exponential": Exponential,
    "linear": Linear,
    "cosine": Cosine,
    "warmup-cosine": WarmupCosine,
}
"""The schedules by the name that the command line gives them; all can be made by default."""


def _check_fraction(schedule: Schedule, name: str) -> None:
    value = getattr(schedule, name)
    try:
        fraction = float(value)
    except (TypeError, ValueError):
        fraction = math.nan
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(
            f"{type(schedule).__name__}: expected {name} as a number from 0 to 1, got {value!r}"
        )
    object.__setattr__(schedule, name, fraction)
