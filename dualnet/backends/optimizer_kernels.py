"""The optimizers' updates, each as one kernel; the rules stand in `dualnet.optim`.

What a kernel takes of the learning rate and the number of the step is a formula of both, as a
recorded step knows neither (`placeholders`).
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

_OPTIMIZERS = Module("optimizers")


def _updated(
    kernel: str, formula: Callable[..., tuple], size: int, rule: Any, arrays: list, *now: Any
) -> list[Any] | None:
    """The new memories and, last, the new parameter; None where the kernel does not serve.

    Args:
        kernel: its name.
        formula: `formula(rule, lr, step)`, the numbers that the kernel takes; so many: `size`.
        rule: the optimizer.
        arrays: the gradient, the memories, the parameter.
        now: lr and step, of which a recorded step knows only where its numbers will be.
    """
    if not serves(*arrays):
        return None
    p = arrays[-1]
    new = [cupy.empty(p.shape, p.dtype) for _ in arrays[1:]]
    values, later = placed((kernel, rule), functools.partial(formula, rule), size, p.dtype, *now)
    scalars = (p.dtype.type(x) for x in values)
    arguments = (*flat(*arrays), *new, np.int64(p.size), *scalars, later)
    _OPTIMIZERS.over(p.size, kernel, p.dtype, *arguments)
    return new


def _sgd_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, rule.weight_decay


@kernel_for("SGD.update_leaf")
def _sgd(rule: Any, g: Any, s: dict, p: Any, lr: Any, step: Any) -> Any:
    new = _updated("sgd", _sgd_numbers, 2, rule, [g, p], lr, step)
    return NotImplemented if new is None else (new[0], {})


def _velocity_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, rule.weight_decay, rule.momentum


def _with_velocity(kernel: str) -> Callable:
    def update(rule: Any, g: Any, s: dict, p: Any, lr: Any, step: Any) -> Any:
        new = _updated(kernel, _velocity_numbers, 3, rule, [g, s["velocity"], p], lr, step)
        return NotImplemented if new is None else (new[1], {"velocity": new[0]})

    return update


KERNELS["Momentum.update_leaf"] = _with_velocity("momentum")
KERNELS["Nesterov.update_leaf"] = _with_velocity("nesterov")


def _lars_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    return lr, 0.0, rule.momentum  # its decay is in the gradient already


@kernel_for("LARS.update_leaf")
def _lars(rule: Any, g: Any, s: dict, p: Any, lr: Any, step: Any) -> Any:
    """Momentum, of a gradient whose lengths CuPy's own sums have found."""
    if not serves(g, p):
        return NotImplemented
    g = g if len(p.shape) < 2 else rule.scale_gradient(g, p)
    new = _updated("momentum", _lars_numbers, 3, rule, [g, s["velocity"], p], lr, step)
    return NotImplemented if new is None else (new[1], {"velocity": new[0]})


def _adam_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    root = math.sqrt(1.0 - rule.beta2**step)
    rate = lr * root / (1.0 - rule.beta1**step)
    betas = (rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2)
    return rate, rule.epsilon * root, rule.weight_decay, 1.0, *betas


def _adamw_numbers(rule: Any, lr: float, step: int) -> tuple[float, ...]:
    rate, offset, decay, _, *betas = _adam_numbers(rule, lr, step)
    return rate, offset, 0.0, 1.0 - lr * decay, *betas


def _with_moments(formula: Callable) -> Callable:
    def update(rule: Any, g: Any, s: dict, p: Any, lr: Any, step: Any) -> Any:
        moments = s["first_moment"], s["second_moment"]
        new = _updated("adam", formula, 8, rule, [g, *moments, p], lr, step)
        if new is None:
            return NotImplemented
        return new[2], {"first_moment": new[0], "second_moment": new[1]}

    return update


KERNELS["Adam.update_leaf"] = _with_moments(_adam_numbers)
KERNELS["AdamW.update_leaf"] = _with_moments(_adamw_numbers)
