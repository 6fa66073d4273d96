"""Measure the peak memory of one step against depth: fg-w with rank-one directions, and bp.

    python -m benchmarks.memory [--json FILE]

The networks are MLPs of width 512 with 2, 16 and 64 hidden layers, with batch 512, k = 8 and
float32.  It counts the memory that NumPy allocates beyond the parameters (by tracemalloc), at two
peaks.  The first is that of the passes through the network: the rule's `measure`, for directions
that were drawn before.  The second is that of the whole step, which also draws the directions and
makes the gradient, an array as large as the parameters.
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import backends, tree
from dualnet.learning import (
    Backprop,
    Batch,
    LearnerState,
    Plan,
    Rule,
    Task,
    WeightPerturbation,
    estimate_gradient,
    split_batch,
)
from dualnet.models import MLP
from dualnet.nn import softmax_cross_entropy

DEPTHS = (2, 16, 64)
WIDTH, BATCH, K = 512, 512, 8


def peak_of(work: Callable[[], Any]) -> int:
    """Return the most bytes in use while `work` runs, beyond those in use before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(rule: Rule, depth: int) -> dict[str, int]:
    """Return the bytes of the parameters, and the peaks of the passes and of the whole step."""
    network = MLP(width=WIDTH, depth=depth).network((WIDTH,), 10)
    params, state, _ = network.init(dn.Key(0), (WIDTH,))
    generator = np.random.default_rng(0)
    x = generator.standard_normal((BATCH, WIDTH), dtype=np.float32)
    y = generator.integers(0, 10, BATCH)
    plan = Plan.of(Task(network, softmax_cross_entropy), params, state, x[:1])
    backend = backends.get("numpy")
    learner, batch = LearnerState(params, state, {}), Batch(x, y)
    directions = rule.sample(dn.Key(1), plan, params, backend, BATCH)
    (shard,) = split_batch(batch, 1)
    return {
        "parameters": 4 * tree.size(params),
        "passes": peak_of(lambda: rule.measure(plan, learner, directions, shard)),
        "step": peak_of(lambda: estimate_gradient(rule, plan, learner, batch, dn.Key(1), backend)),
    }


def measure() -> dict[str, Any]:
    """Measure everything and return the figures as a dict for JSON."""
    rules = {
        f"fg-w, rank-one, k = {K}": WeightPerturbation(K, sampler="rank-one"),
        "bp": Backprop(),
    }
    rows = []
    print(f"{'MiB':24} {'depth':>5} {'parameters':>11} {'passes':>8} {'step':>8}")
    for name, rule in rules.items():
        for depth in DEPTHS:
            found = peaks(rule, depth)
            rows.append({"rule": name, "depth": depth, **found})
            p, passes, whole = (found[c] / 2**20 for c in ("parameters", "passes", "step"))
            print(f"{name:24} {depth:5} {p:11.1f} {passes:8.1f} {whole:8.1f}", flush=True)
    return {"width": WIDTH, "batch": BATCH, "k": K, "rows": rows}


def main() -> None:
    """Read the command line, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    result = measure()
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
