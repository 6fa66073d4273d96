"""Optimizers as their formulas against forms that work in place: time of a step of training.

    python -m benchmarks.optimizers [--json FILE]

The formula of an optimizer in NumPy's operators makes a new array for each of them.  The form in
place makes one array for each array of the result and reuses it for what comes between.
Both do the same operations in the same order, so the parameters are equal bit for bit in the end,
which is checked.  Measured is an update by itself, always of the same gradients, and a step: the
exact gradient of a batch of 64 examples, which is the cheapest there is, and the update.

Prediction, made before measuring: the form in place is at most 1.15 times as quick for the large
network and at most 1.05 times for the small one, because NumPy reuses the memory of an intermediate
array of 256 KiB or more that an operator is about to drop, and smaller arrays stay in the cache.
A form in place is kept beside a formula only if it reliably makes a step of training at least 1.1
times as quick.

Measured on two shared cores: for the small network the form in place is 1.02 to 1.2 times as quick
by itself, and 0.95 to 1.15 times in a step.  For the large one the ratio is anything from 0.5 to 6,
from one run to the next: what costs time are pages of memory that the C library returns to the
system and gets anew, and whether it does so depends on what else was allocated.

So `train.py`'s own loop decided at first, on MNIST with 784-512-512-10 and batches of 64: no form
in place gained the tenth that was asked for.  Since then the process keeps freed memory
(`backends/freed_memory.py`), also where an optimizer is used by itself, and products have become
quicker.  Now, on one thread, forms in place take 1.1 to 1.5 times less by themselves for the large
network, and steps 1.03 to 1.04 times less.  In a `bp` step of 784-1024-1024-10, batch 128, Adam's
takes 3.8 ms in the place of 4.5 of 22.  So the package has them (`optim/adam.py`, `descended`).
Blocks of 32 to 512 KiB, updated one after the other, were no quicker (Adam 4.0 to 5.9 ms).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from benchmarks.timing import take_turns
from dualnet import tree
from dualnet.nn import softmax_cross_entropy
from dualnet.optim import SGD, Adam, Momentum, Optimizer
from dualnet.tree import Tree
from dualnet.types import Array

NETWORKS = {"784-512-512-10": (784, 512, 512, 10), "784-32-10": (784, 32, 10)}
BATCH, ROUNDS = 64, 100
LR, STEP = 1e-4, 10


@dataclass(frozen=True, kw_only=True)
class SGDByFormula(SGD):
    """`SGD` without decay, by its formula."""

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        return p - lr * g, {}


@dataclass(frozen=True, kw_only=True)
class MomentumByFormula(Momentum):
    """`Momentum` without decay, by its formula."""

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        velocity = self.momentum * s["velocity"] + g
        return p - lr * velocity, {"velocity": velocity}


@dataclass(frozen=True, kw_only=True)
class AdamByFormula(Adam):
    """`Adam` without decay, by its formula."""

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        m = self.beta1 * s["first_moment"] + (1.0 - self.beta1) * g
        v = self.beta2 * s["second_moment"] + (1.0 - self.beta2) * (g * g)
        c = math.sqrt(1.0 - self.beta2**step)
        rate = lr * c / (1.0 - self.beta1**step)
        new_p = p - rate * (m / (np.sqrt(v) + c * self.epsilon))
        return new_p, {"first_moment": m, "second_moment": v}


PAIRS: dict[str, tuple[Optimizer, Optimizer]] = {
    "sgd": (SGDByFormula(), SGD()),
    "momentum": (MomentumByFormula(), Momentum()),
    "adam": (AdamByFormula(), Adam()),
}


def parameters_of(widths: tuple[int, ...], generator: np.random.Generator) -> Tree:
    """Draw float32 arrays of the shapes of a network's weights and biases."""
    shapes = [s for a, b in itertools.pairwise(widths) for s in ((a, b), (b,))]
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def losses(params: Tree, x: Array, labels: Array) -> Array:
    """Return the mean loss of a ReLU network, whose parameters are w, b, w, b, …"""
    *hidden, (w, b) = zip(params[::2], params[1::2], strict=True)
    for hidden_w, hidden_b in hidden:
        x = np.maximum(x @ hidden_w + hidden_b, 0.0)
    return softmax_cross_entropy(x @ w + b, labels).mean()


class Run:
    """Updates in a row, as in training: what an update makes takes the place of what it was given.

    Args:
        optimizer: makes the updates.
        params: those before the first update.
        gradient: gives the gradients of an update by the parameters.
    """

    def __init__(self, optimizer: Optimizer, params: Tree, gradient: Callable[[Tree], Tree]):
        self.optimizer, self.params, self.gradient = optimizer, params, gradient
        self.opt_state = optimizer.init_opt_state(params)

    def __call__(self) -> None:
        """Make one update."""
        grads = self.gradient(self.params)
        self.params, self.opt_state = self.optimizer.apply(
            grads, self.opt_state, self.params, LR, STEP
        )


def measure(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Compare both forms of every optimizer on both networks; print and return the rows."""
    rows = []
    heads = ("network", "optimizer", "what", "formula, µs", "in place, µs", "ratio")
    print("{:>15} {:>10} {:>7} {:>12} {:>13} {:>6}".format(*heads))
    for network, widths in NETWORKS.items():
        generator = np.random.default_rng(0)
        params, grads = parameters_of(widths, generator), parameters_of(widths, generator)
        x = generator.standard_normal((BATCH, widths[0]), dtype=np.float32)
        batch = x, generator.integers(0, widths[-1], BATCH)
        gradients: dict[str, Callable[[Tree], Tree]] = {
            "update": lambda _: grads,  # noqa: B023
            "step": lambda params: dn.grad(losses)(params, *batch),  # noqa: B023
        }
        for name, forms in PAIRS.items():
            for what, gradient in gradients.items():
                formula, in_place = (Run(form, params, gradient) for form in forms)
                seconds = take_turns({"formula": formula, "in place": in_place}, rounds)
                tree.map(np.testing.assert_array_equal, formula.params, in_place.params)
                ratio = seconds["formula"] / seconds["in place"]
                row = {"network": network, "optimizer": name, "what": what, "ratio": ratio}
                rows.append({**row, "seconds": seconds})
                print(
                    f"{network:>15} {name:>10} {what:>7} {1e6 * seconds['formula']:12.0f} "
                    f"{1e6 * seconds['in place']:13.0f} {ratio:6.2f}",
                    flush=True,
                )
    return rows


def main() -> None:
    """Measure, and write the rows where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows = measure()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
