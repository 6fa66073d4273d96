"""Functions to minimize, and gradient descent on them from several seeds at once.

Each function takes points `(…, n)` and returns a value for each, `(…)`, so that one pass moves all
runs of a batch and each run has a derivative of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import dualnet as dn
from dualnet.types import Array


@dataclass(frozen=True)
class Function:
    """A function, and where and for how long it is minimized.

    Attributes:
        value: from points `(…, n)` to values `(…)`.
        start: from n to the first point `(n,)`.
        steps: how many steps of descent are made.
        minimum: from n to the least value.
    """

    value: Callable[[Array], Array]
    start: Callable[[int], np.ndarray]
    steps: int
    minimum: Callable[[int], float]


def sphere(x: Array) -> Array:
    """Return Σ x_i²."""
    return np.sum(x**2, axis=-1)


def rosenbrock(x: Array) -> Array:
    """Return Σ 100 (x_{i+1} - x_i²)² + (1 - x_i)², which is 0 for a single number."""
    here = x[..., :-1]
    return np.sum(100.0 * (x[..., 1:] - here**2) ** 2 + (1.0 - here) ** 2, axis=-1)


def styblinski_tang(x: Array) -> Array:
    """Return Σ (x_i⁴ - 16 x_i² + 5 x_i) / 2."""
    square = x**2
    return 0.5 * np.sum(square * (square - 16.0) + 5.0 * x, axis=-1)


def beale(x: Array) -> Array:
    """Return (1.5 - a + a b)² + (2.25 - a + a b²)² + (2.625 - a + a b³)² at (a, b)."""
    a, b = x[..., 0], x[..., 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * (b * b**2)) ** 2


FUNCTIONS = {
    "sphere": Function(sphere, lambda n: np.full(n, -1.0), 1000, lambda n: 0.0),
    "rosenbrock": Function(
        rosenbrock, lambda n: np.where(np.arange(n) == 0, -1.0, 0.0), 25_000, lambda n: 0.0
    ),
    "styblinski-tang": Function(
        styblinski_tang, lambda n: np.zeros(n), 1000, lambda n: -39.16616570377142 * n
    ),
    "beale": Function(beale, lambda n: np.zeros(n), 1000, lambda n: 0.0),
}
"""name → function, with the starts and numbers of steps of Flügel et al. 2024, published code."""

EARLY_STOP = 50
"""A run stops after so many steps in a row, none of which lowered the value.

Source: Flügel et al. 2024, "Beyond Backpropagation", published code.
"""

Estimate = Callable[[Array], tuple[Array, Array]]
"""From points `(runs, seeds, n)`: their values `(runs, seeds)` and gradients of the same shape."""


@dataclass(frozen=True)
class Descent:
    """How runs of gradient descent ended; each array is `(runs, seeds)`.

    Attributes:
        best: the least value that was found.
        last: the value at the end.
        steps: how many steps were made.
    """

    best: np.ndarray
    last: np.ndarray
    steps: np.ndarray


def exact(value: Callable[[Array], Array]) -> Estimate:
    """Return the estimate that is the gradient itself."""
    gradient = dn.value_and_grad(lambda x: np.sum(value(x)))

    def estimate(x: Array) -> tuple[Array, Array]:
        return value(x), gradient(x)[1]

    return estimate


def descend(function: Function, estimate: Estimate, x: Array, rates: Array, steps: int) -> Descent:
    """Follow estimated gradients, without momentum; every run until it stops by itself.

    Args:
        function: what to minimize.
        estimate: gives values and gradients.
        x: the first points `(runs, seeds, n)`.
        rates: the learning rate of each run, `(runs,)`.
        steps: at most so many steps.

    Returns:
        What was found; a run stops after `EARLY_STOP` steps in a row that did not lower its value,
        and where it is not a number any more.
    """
    rates = np.asarray(rates, x.dtype)[:, None, None]
    best = np.full(x.shape[:2], np.inf)
    last = np.full(x.shape[:2], np.inf)
    failures = np.zeros(x.shape[:2], np.int64)
    made = np.zeros(x.shape[:2], np.int64)
    active = np.ones(x.shape[:2], bool)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate may be too large
        for step in range(steps + 1):
            value, gradient = estimate(x) if step < steps else (function.value(x), 0.0)
            failures = np.where(value < last, 0, failures + 1)
            last = np.where(active, value, last)
            best = np.fmin(best, last)
            active &= (failures < EARLY_STOP) & ~np.isnan(value)
            if not active.any():
                break
            if step < steps:
                x = np.where(active[..., None], x - rates * gradient, x)
                made += active
    return Descent(best, last, made)
