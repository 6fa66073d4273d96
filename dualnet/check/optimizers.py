"""Optimizer steps: new parameters and memory as a function of parameters, gradients and memory.

An optimizer works in place, where no dual can pass.  So its derivative is taken from the formula
of its paper, written out below, and its value from its own code: the differences that judge the
derivative are then those of the code, and a step that is not its formula fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.check.table import Row, adder
from dualnet.core.dual import Dual, innermost_level
from dualnet.core.engine import take_apart
from dualnet.optim import LARS, SGD, Adam, AdamW, Momentum, Nesterov, Optimizer, clip_to_norm
from dualnet.tree import Tree

ROWS: list[Row] = []
row = adder(ROWS, "optimizers")

LR = 0.25
STEPS = 2
"""Which update it is: there was one before, so that the memory is not zero."""

Formula = Callable[[Any, Any, dict, Any], tuple[Any, dict]]
"""`(p, g, memory, optimizer) -> (p, memory)` for one array."""

# --- the formulas --------------------------------------------------------------------------------


def _sgd(p: Any, g: Any, _memory: dict, o: SGD) -> tuple[Any, dict]:
    return p - LR * (g + o.weight_decay * p), {}


def _momentum(p: Any, g: Any, memory: dict, o: Momentum) -> tuple[Any, dict]:
    velocity = o.momentum * memory["velocity"] + g + o.weight_decay * p
    return p - LR * velocity, {"velocity": velocity}


def _nesterov(p: Any, g: Any, memory: dict, o: Nesterov) -> tuple[Any, dict]:
    g = g + o.weight_decay * p
    velocity = o.momentum * memory["velocity"] + g
    return p - LR * (g + o.momentum * velocity), {"velocity": velocity}


def _moments(g: Any, memory: dict, o: Adam | AdamW) -> tuple[Any, dict]:
    """Return m' / (sqrt(v') + epsilon), and the moments m and v."""
    m = o.beta1 * memory["first_moment"] + (1.0 - o.beta1) * g
    v = o.beta2 * memory["second_moment"] + (1.0 - o.beta2) * np.square(g)
    unbiased_m, unbiased_v = m / (1.0 - o.beta1**STEPS), v / (1.0 - o.beta2**STEPS)
    return (
        unbiased_m / (np.sqrt(unbiased_v) + o.epsilon),
        {"first_moment": m, "second_moment": v},
    )


def _adam(p: Any, g: Any, memory: dict, o: Adam) -> tuple[Any, dict]:
    change, memory = _moments(g + o.weight_decay * p, memory, o)
    return p - LR * change, memory


def _adamw(p: Any, g: Any, memory: dict, o: AdamW) -> tuple[Any, dict]:
    change, memory = _moments(g, memory, o)
    return (1.0 - LR * o.weight_decay) * p - LR * change, memory


def _lars(p: Any, g: Any, memory: dict, o: LARS) -> tuple[Any, dict]:
    if len(np.shape(p)) > 1:
        of_p, of_g = (np.sqrt(np.sum(np.square(x))) for x in (p, g))
        g = o.trust * of_p / (of_g + o.weight_decay * of_p) * (g + o.weight_decay * p)
    velocity = o.momentum * memory["velocity"] + g
    return p - LR * velocity, {"velocity": velocity}


FORMULAS: dict[type[Optimizer], Formula] = {
    SGD: _sgd,
    Momentum: _momentum,
    Nesterov: _nesterov,
    Adam: _adam,
    AdamW: _adamw,
    LARS: _lars,
}

# --- a step as a function ------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One update by `optimizer`: the value by its code, tangents by its formula."""

    optimizer: Optimizer

    def __call__(self, _xp: Any, params: Tree, gradients: Tree, memory: Tree) -> Tree:
        given = (params, gradients, memory)
        leaves = tuple(tree.leaves(given))
        level = innermost_level(leaves)
        if level is None:
            return self.by_code(params, gradients, memory)
        outside = tree.unflatten(given, take_apart(leaves, level)[0])
        values = self(_xp, *outside)
        by_formula = self.by_formula(_xp, params, gradients, memory)
        tangents = take_apart(tuple(tree.leaves_like(values, by_formula)), level)[1]
        pairs = zip(tree.leaves(values), tangents, strict=True)
        return tree.unflatten(values, [x if t is None else Dual(x, t, level) for x, t in pairs])

    def by_code(self, params: Tree, gradients: Tree, memory: Tree) -> Tree:
        state = {"step": np.array(STEPS - 1), **memory}
        new_params, new_state = self.optimizer.update(gradients, state, params, LR)
        return new_params, {name: new_state[name] for name in memory}

    def by_formula(self, _xp: Any, params: Tree, gradients: Tree, memory: Tree) -> Tree:
        formula = FORMULAS[type(self.optimizer)]
        new_params: dict[str, Any] = {}
        new_memory: dict[str, dict] = {name: {} for name in memory}
        for path, p in params.items():
            own = {name: memory[name][path] for name in memory}
            new_params[path], own = formula(p, gradients[path], own, self.optimizer)
            for name, value in own.items():
                new_memory[name][path] = value
        return new_params, new_memory


SHAPES = {"w": (2, 3), "b": (3,)}


def _entries(low: float, high: float) -> Callable:
    """Draw entries of either sign with magnitudes from [low, high]."""

    def draw(rng: np.random.Generator) -> Tree:
        return {
            name: rng.choice([-1.0, 1.0], shape) * rng.uniform(low, high, shape)
            for name, shape in SHAPES.items()
        }

    return draw


PARAMETERS = _entries(0.5, 2.0)
GRADIENTS = _entries(8.0, 16.0)
"""Far from 0, where the root of a second moment (a thousandth of their squares) is steep."""


def _memory(optimizer: Optimizer) -> Callable:
    """What the optimizer remembers after a first update."""

    def draw(rng: np.random.Generator) -> Tree:
        params, gradients = PARAMETERS(rng), GRADIENTS(rng)
        _, state = optimizer.update(gradients, optimizer.init(params), params, LR)
        return {name: state[name] for name in optimizer.state_names}

    return draw


def add_step(note: str, optimizer: Optimizer, add: Callable = row) -> None:
    """Add the row of an optimizer that has a formula in `FORMULAS`, by `add` to its rows."""
    step = Step(optimizer)
    draws = PARAMETERS, GRADIENTS, _memory(optimizer)
    add(type(optimizer), note, step, *draws, composed=step.by_formula)


for _family in FORMULAS:
    add_step("", _family())
    add_step("weight decay", _family(weight_decay=0.125))
add_step("no momentum", Momentum(momentum=0.0))
add_step("much trust", LARS(trust=2.0, weight_decay=0.5))
add_step("other decays", Adam(beta1=0.5, beta2=0.75, epsilon=0.125))


def _clipped(most: float) -> Callable:
    """The formula of `clip_to_norm`."""

    def formula(xp: Any, gradients: Tree) -> Tree:
        norm = xp.sqrt(sum(xp.sum(g * g) for g in gradients.values()))
        return {name: g * xp.minimum(1.0, most / norm) for name, g in gradients.items()}

    return formula


for _note, _most in (("clipped", 4.0), ("short enough", 512.0)):
    row(
        clip_to_norm,
        _note,
        lambda _xp, gradients, most=_most: clip_to_norm(gradients, most),
        GRADIENTS,
        composed=_clipped(_most),
    )
