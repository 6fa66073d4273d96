"""Time the loss's jvp and the whole fg-w step of an MLP, by dualnet, torch and JAX in one run.

    python -m benchmarks.mlp_jvp [--rounds N] [--json FILE]

It needs the extra `bench`.  The MLP is 784-1024-1024-10, with batch 64 and float32.  It prints
medians in milliseconds, and ratios: the time of the faster peer over that of dualnet, which is
above 1 where dualnet is faster.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from benchmarks.peers import LR, Jax, Torch, require
from benchmarks.timing import take_turns
from dualnet import backends, tree
from dualnet.learning import Batch, LearnerState, Plan, Task, WeightPerturbation, estimate_gradient
from dualnet.models import MLP
from dualnet.nn import Context, softmax_cross_entropy
from dualnet.optim import SGD
from dualnet.tree import Tree
from dualnet.types import Array

KS = (1, 4, 16, 64)
BATCH = 64


class Ours:
    """The work as dualnet does it, with the methods of `peers.Torch` and `peers.Jax`."""

    def __init__(self) -> None:
        self.network = MLP(width=1024, depth=2).network((784,), 10)
        self.params, self.state, _ = self.network.init(dn.Key(0), (784,))
        generator = np.random.default_rng(0)
        self.x = generator.standard_normal((BATCH, 784), dtype=np.float32)
        self.y = generator.integers(0, 10, BATCH)
        self.backend = backends.get("numpy")
        self.plan = Plan.of(
            Task(self.network, softmax_cross_entropy), self.params, self.state, self.x
        )

    def jvp(self, tangents: Tree) -> Callable:
        """Return a function that computes the loss's jvp once, along a stack of tangents."""

        def loss(params: Tree) -> Array:
            outputs, _ = self.network.apply(params, self.state, self.x, Context(train=True))
            return softmax_cross_entropy(outputs, self.y).mean()

        return lambda: dn.jvp(loss, (self.params,), (tangents,))[1]

    def step(self, k: int, sampler: str) -> Callable:
        """Return a function that makes one fg-w step with k directions."""
        rule, sgd = WeightPerturbation(tangents=k, sampler=sampler), SGD()
        params, memory, number = self.params, sgd.init(self.params), 0

        def work() -> None:
            nonlocal params, memory, number
            key = dn.Key(number)
            learner, batch = LearnerState(params, self.state, {}), Batch(self.x, self.y)
            done = estimate_gradient(rule, self.plan, learner, batch, key, self.backend)
            params, memory = sgd.update(done.gradients, memory, params, LR)
            number += 1

        return work

    def tangents_from(self, arrays: list) -> Tree:
        """Make a tree of tangents from a list of them in the peers' order: weights, then biases."""
        half = len(arrays) // 2
        pairs = iter(zip(arrays[:half], arrays[half:], strict=True))
        return {
            name: dict(zip(("w", "b"), next(pairs), strict=True)) if leaf else {}
            for name, leaf in self.params.items()
        }


def compare(rounds: int) -> dict[str, Any]:
    """Measure everything and return the figures as a dict for JSON."""
    ours = Ours()
    layers = [p for p in ours.params.values() if p]
    weights, biases = [p["w"] for p in layers], [p["b"] for p in layers]
    peers = [Torch(weights, biases, ours.x, ours.y), Jax(weights, biases, ours.x, ours.y)]
    rows = []
    for k in KS:
        drawn = peers[0].draw(k)
        contenders = {"dualnet": ours.jvp(ours.tangents_from([t.numpy() for t in drawn]))}
        agreed = np.allclose(contenders["dualnet"](), peers[0].along(drawn), rtol=1e-3, atol=1e-4)
        assert agreed, "dualnet and torch differ on the same tangents"
        contenders |= {peer.name: peer.jvp(k) for peer in peers}
        rows.append(row(f"jvp, dense, k = {k}", take_turns(contenders, rounds)))
        del contenders, drawn
    k = KS[-1]
    contenders = {"dualnet": ours.step(k, "rank-one")}
    contenders |= {peer.name: peer.step(k) for peer in peers}
    rows.append(row(f"fg-w step, k = {k}, ours rank-one", take_turns(contenders, rounds)))
    contenders["dualnet"] = ours.step(k, "normal")
    rows.append(row(f"fg-w step, k = {k}, ours dense normal", take_turns(contenders, rounds)))
    parameters = tree.size(ours.params)
    return {"network": "784-1024-1024-10", "parameters": parameters, "batch": BATCH, "rows": rows}


def row(what: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Print one line of the table and return its figures."""
    best = min(s for name, s in seconds.items() if name != "dualnet")
    ratio = best / seconds["dualnet"]
    times = "  ".join(f"{name} {1e3 * s:8.2f} ms" for name, s in seconds.items())
    print(f"{what:38} {times}   ratio {ratio:5.2f}", flush=True)
    return {"what": what, "seconds": seconds, "ratio": ratio}


def main() -> None:
    """Read the command line, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    require("benchmarks.mlp_jvp", "torch", "jax")
    result = compare(args.rounds)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
