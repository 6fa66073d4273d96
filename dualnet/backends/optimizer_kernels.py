"""The optimizers' updates, each as one kernel; the rules stand in `dualnet.optim`.

A kernel takes numbers that follow from the learning rate and the number of the step by a formula.
A recorded step knows neither of them yet, so the formula itself is handed on (`placeholders`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from dualnet.backends.launching import KERNELS, Module, flat, kernel_for, serves
from dualnet.backends.placeholders import placed
from dualnet.types import Array

_OPTIMIZERS = Module("optimizers")


def _update(
    kernel: str,
    formula: Callable[..., tuple[float, ...]],
    rule: Any,
    arrays: list[Array],
    *lr_and_step: Any,
) -> list[Array] | None:
    """Return the new state of a parameter and, last, the new parameter.

    Args:
        kernel: its name in the source.
        formula: `formula(rule, lr, step)` gives the numbers that the kernel takes.
        rule: the optimizer.
        arrays: the gradient, the arrays of the parameter's state, the parameter.
        lr_and_step: both as numbers, or both as the placeholders of a recorded step.

    Returns:
        As many new arrays as `arrays` has without the gradient; None where the kernel does not
        serve these arrays.
    """
    if not serves(*arrays):
        return None
    p = arrays[-1]
    new = [cupy.empty(p.shape, p.dtype) for _ in arrays[1:]]
    values, later = placed(functools.partial(formula, rule), p.dtype, *lr_and_step)
    scalars = (p.dtype.type(x) for x in values)
    arguments = (*flat(*arrays), *new, np.int64(p.size), *scalars, later)
    _OPTIMIZERS.over(p.size, kernel, p.dtype, *arguments)
    return new


def _sgd_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, rule.weight_decay


@kernel_for("SGD.update_leaf")
def _sgd(rule: Any, g: Array, s: dict[str, Array], p: Array, lr: Any, step: Any) -> Any:
    new = _update("sgd", _sgd_numbers, rule, [g, p], lr, step)
    return NotImplemented if new is None else (new[0], {})


def _velocity_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, rule.weight_decay, rule.momentum


def _with_velocity(kernel: str) -> Callable:
    """Return an `update_leaf` for a rule whose state is a velocity."""

    def update(rule: Any, g: Array, s: dict[str, Array], p: Array, lr: Any, step: Any) -> Any:
        new = _update(kernel, _velocity_numbers, rule, [g, s["velocity"], p], lr, step)
        return NotImplemented if new is None else (new[1], {"velocity": new[0]})

    return update


KERNELS["Momentum.update_leaf"] = _with_velocity("momentum")
KERNELS["Nesterov.update_leaf"] = _with_velocity("nesterov")


def _lars_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, 0.0, rule.momentum  # the decay is in the gradient already


@kernel_for("LARS.update_leaf")
def _lars(rule: Any, g: Array, s: dict[str, Array], p: Array, lr: Any, step: Any) -> Any:
    """Update by momentum, with a gradient that CuPy's own sums and products have scaled."""
    if not serves(g, p):
        return NotImplemented
    g = g if len(p.shape) < 2 else rule.scale_gradient(g, p)
    new = _update("momentum", _lars_numbers, rule, [g, s["velocity"], p], lr, step)
    return NotImplemented if new is None else (new[1], {"velocity": new[0]})


def _adam_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    """Return rate, offset, decay, the kept share of the parameter, and both pairs of shares.

    Rate and offset hold the corrections of the moments, as in `Adam.update_leaf`.
    """
    rest = 1.0 - rule.beta2**step
    c = math.sqrt(rest) if isinstance(rest, float) else np.sqrt(rest)
    rate = lr * c / (1.0 - rule.beta1**step)
    shares = (rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2)
    return rate, rule.epsilon * c, rule.weight_decay, 1.0, *shares


def _adamw_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    """Return what `_adam_numbers` does; the decay takes a share of the parameter instead."""
    rate, offset, decay, _, *shares = _adam_numbers(rule, lr, step)
    return rate, offset, 0.0, 1.0 - lr * decay, *shares


def _with_moments(formula: Callable[..., tuple[float, ...]]) -> Callable:
    """Return an `update_leaf` for a rule whose state is two moments."""

    def update(rule: Any, g: Array, s: dict[str, Array], p: Array, lr: Any, step: Any) -> Any:
        moments = s["first_moment"], s["second_moment"]
        new = _update("adam", formula, rule, [g, *moments, p], lr, step)
        if new is None:
            return NotImplemented
        return new[2], {"first_moment": new[0], "second_moment": new[1]}

    return update


KERNELS["Adam.update_leaf"] = _with_moments(_adam_numbers)
KERNELS["AdamW.update_leaf"] = _with_moments(_adamw_numbers)
