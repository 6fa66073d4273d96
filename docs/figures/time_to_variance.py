"""The time to a variance against the number of workers: docs/figures/time-to-variance.svg.

The lines are the model of docs/scale-model.md, `benchmarks/scale_model.py`.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from drawing import Drawing

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that `benchmarks` is found

from benchmarks.scale_model import (
    LINKS,
    MLP,
    WORKER,
    WORKERS,
    fastest_backprop,
    fastest_forward,
)

NOISE, WANTED = 10_000, 100.0
"""S and V: backpropagation takes a batch of 100."""
LEFT, RIGHT, TOP, BOTTOM = 86, 580, 56, 400
TIMES = {1e-6: "1 µs", 1e-5: "10 µs", 1e-4: "100 µs", 1e-3: "1 ms", 1e-2: "10 ms", 0.1: "100 ms"}


def across(p: float) -> float:
    """Return where a number of workers lies from left to right; the axis is logarithmic."""
    return LEFT + (RIGHT - LEFT) * math.log(p / WORKERS[0]) / math.log(WORKERS[-1] / WORKERS[0])


def up(seconds: float) -> float:
    """Return where a time lies from top to bottom; the axis is logarithmic."""
    low, high = math.log(min(TIMES)), math.log(max(TIMES))
    return BOTTOM - (BOTTOM - TOP) * (math.log(seconds) - low) / (high - low)


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "The time to the same variance against the number of workers",
        f"A plot for {MLP.name} with S = {NOISE:,} and V = {WANTED:g}, with two logarithmic axes."
        "  With all workers, backpropagation takes about 5 ms over 10 Gbit/s and 0.15 ms over 400"
        " Gbit/s, however many they are.  The time of fg-w falls from 50 ms with 8 workers to about"
        " 1 ms and 0.4 ms with 10,000.  So over 10 Gbit/s the lines cross, and over 400 Gbit/s they"
        " do not.  One worker that backpropagates alone takes 3 µs.",
        530,
    )
    d.text(16, 32, "time to the variance V", "ink bold start")
    for seconds, words in TIMES.items():
        d.line((LEFT, up(seconds)), (RIGHT, up(seconds)), look="pale")
        d.text(LEFT - 10, up(seconds) + 6, words, "ink end")
    for p in (8, 64, 512, 4_096):
        d.line((across(p), BOTTOM), (across(p), BOTTOM + 6), look="soft")
        d.text(across(p), BOTTOM + 28, f"{p:,}")
    d.line((LEFT, BOTTOM), (RIGHT, BOTTOM), look="soft")
    d.text((LEFT + RIGHT) / 2, BOTTOM + 54, "workers")
    for (name, link), dashed in zip(LINKS.items(), ("", " dashed"), strict=True):
        ways = {"bp": (fastest_backprop, "primal"), "fg-w": (fastest_forward, "tangent")}
        for row, (rule, (fastest, look)) in enumerate(ways.items()):
            at = [(WORKER, link, MLP, p, NOISE, WANTED, False) for p in WORKERS]
            points = [(across(each[3]), up(fastest(*each).seconds)) for each in at]
            d.line(*points, look=look + dashed)
            x, y = 16 + 290 * bool(dashed), BOTTOM + 88 + 28 * row
            d.line((x, y - 6), (x + 40, y - 6), look=look + dashed)
            d.text(x + 50, y, f"{rule}, {name}", f"{look} start")
    # by itself, a worker sends nothing over any link
    alone = fastest_backprop(WORKER, link, MLP, 1, NOISE, WANTED, False).seconds
    d.line((LEFT, up(alone)), (RIGHT, up(alone)), look="primal")
    d.text(RIGHT, up(alone) - 10, "one worker by bp, alone", "primal end")
    return str(d)
