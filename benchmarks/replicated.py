"""Measure replicated losses, fused and by copies: time and memory against the number of groups.

    python -m benchmarks.replicated [--json FILE]

The work is one jvp (k = 1) of a cross-entropy, along its features and the head's weights.  There
are 4 examples of 64 tokens and 128 channels, in float32, and P·G replicas of the loss for P = 64
and G groups.  The fused form computes the aggregate and the softmax once; the form by copies
computes them once for every replica (Fig. 5 of Ren et al. 2023).  Memory is what NumPy allocates at
the peak (by tracemalloc).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from benchmarks.memory import peak_of
from benchmarks.timing import take_turns
from dualnet.nn import replicated, replicated_by_copies, softmax_cross_entropy
from dualnet.types import Array

BATCH, TOKENS, CHANNELS, CLASSES = 4, 64, 128, 10
GROUPS = (1, 2, 4, 8, 16)


def make_pass(form: Callable, groups: int) -> Callable[[], Any]:
    """Return a function that computes the jvp of all replicas once, by one of the two forms."""
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.standard_normal(shape, dtype=np.float32)  # noqa: E731
    x, w = draw(BATCH, TOKENS, CHANNELS), draw(CHANNELS, CLASSES)
    labels = generator.integers(0, CLASSES, BATCH)
    tangents = draw(1, *x.shape), draw(1, *w.shape)

    def losses(x: Array, w: Array) -> Array:
        return form(lambda features: softmax_cross_entropy(features @ w, labels), x, groups)

    return lambda: dn.jvp(losses, (x, w), tangents)


def measure(groups: tuple[int, ...] = GROUPS, rounds: int = 5) -> dict[str, Any]:
    """Measure everything and return the figures as a dict for JSON."""
    rows = []
    print(f"{'G':>3} {'fused, ms':>10} {'copies, ms':>11} {'ratio':>6}", end="")
    print(f" {'fused, MiB':>11} {'copies, MiB':>12} {'ratio':>6}")
    for count in groups:
        fused, copies = make_pass(replicated, count), make_pass(replicated_by_copies, count)
        seconds = take_turns({"fused": fused, "copies": copies}, rounds)
        peak = {"fused": peak_of(fused), "copies": peak_of(copies)}
        rows.append({"groups": count, "seconds": seconds, "peak": peak})
        t, m = (each["copies"] / each["fused"] for each in (seconds, peak))
        print(
            f"{count:3} {1e3 * seconds['fused']:10.2f} {1e3 * seconds['copies']:11.1f} {t:6.0f}",
            end="",
        )
        print(f" {peak['fused'] / 2**20:11.2f} {peak['copies'] / 2**20:12.1f} {m:6.0f}", flush=True)
    shape = {"batch": BATCH, "tokens": TOKENS, "channels": CHANNELS, "classes": CLASSES, "k": 1}
    return {**shape, "rows": rows}


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
