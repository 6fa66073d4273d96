"""One step of every rule on a small network, where the calls of Python cost more than the arrays.

    python -m benchmarks.small_steps [--rounds N] [--json FILE]

A step is an estimate of the gradient and an update by Adam, in float32.  Printed are medians in
microseconds for the MLP 784-32-10 with one example, and how many Python functions the step of a
larger network calls (784-32-16-10, four examples), which does not depend on how busy the machine
is.  A second table has both for the step of `train.py` without a flag but `--rule`: the digits'
MLP 64-128-10 with batches of 32, made by the training loop itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import take_turns
from dualnet import backends, data
from dualnet.command import train
from dualnet.learning import RULES, Batch, LearnerState, Rule, Task, estimate_gradient
from dualnet.nn import Activation, Linear, Sequential, relu, softmax_cross_entropy
from dualnet.optim import Adam
from dualnet.random import Key
from dualnet.training.assemble import make_trainer, network_of

LR = 1e-3
INPUTS, CLASSES = 784, 10
COUNTED = {
    **{name: rule() for name, rule in RULES.items()},
    "fg-w, rank-one, k = 4": RULES["fg-w"](tangents=4, sampler="rank-one"),
}
"""The rules whose calls are counted."""
DIGITS = ("bp", "fg-a", "fdfa", "fg-w", "fg-w --sampler rank-one --tangents 4")
"""The values of `--rule`, with flags of the rules behind them, of the steps on digits."""


def step_of(rule: Rule, widths: tuple[int, ...], examples: int) -> Callable[[], None]:
    """Return a function that does one step of an MLP, and the next when it is called again."""
    layers: list[tuple[str, Any]] = []
    for i, width in enumerate(widths):
        layers += [(f"hidden{i}", Linear(width)), (f"relu{i}", Activation(relu))]
    network = Sequential((*layers, ("output", Linear(CLASSES))))
    generator = np.random.default_rng(0)
    x = generator.standard_normal((examples, INPUTS), dtype=np.float32)
    batch = Batch(x, generator.integers(0, CLASSES, examples))
    plan, learner = rule.start(Task(network, softmax_cross_entropy), x, Key(0))
    backend, adam = backends.get("numpy", 1), Adam()
    opt_state, number = adam.init(learner.params), 0

    def work() -> None:
        nonlocal learner, opt_state, number
        done = estimate_gradient(rule, plan, learner, batch, Key(number), backend)
        params, opt_state = adam.update(done.gradients, opt_state, learner.params, LR)
        learner = LearnerState(params, done.model_state, done.rule_state)
        number += 1

    return work


def digits_step(flags: str) -> Callable[[], None]:
    """Return a function that does one step of `train.py` with these flags, and then the next."""
    settings = train.settings_of(train.parse(flags.split()))
    dataset = data.load(settings.dataset, quiet=True)
    trainer = make_trainer(
        settings, network_of(settings, dataset.in_shape, dataset.outputs), dataset
    )
    order = trainer.order(0)
    batch, now = next(trainer.examples.batches(order)), trainer.start()
    advance = trainer.backend.recorded(trainer.advance, trainer.graph)

    def work() -> None:
        nonlocal now
        with np.errstate(all="ignore"):  # as in a run
            now = trainer.collect_losses(trainer.step(now, advance, batch, len(order)))

    return work


def calls_of(work: Callable[[], None]) -> int:
    """Count the calls of Python functions when `work` runs for the second time."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    work()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def measure(rounds: int) -> dict[str, Any]:
    """Return all figures, as one JSON-able dict."""
    seconds = take_turns(
        {name: step_of(rule(), (32,), 1) for name, rule in RULES.items()}, rounds, warm_up=5
    )
    calls = {name: calls_of(step_of(rule, (32, 16), 4)) for name, rule in COUNTED.items()}
    rows = table("rule", seconds, calls)
    steps = {f"--rule {rule}": digits_step(f"--rule {rule}") for rule in DIGITS}
    seconds = take_turns(steps, rounds, warm_up=5)
    digits = table("train.py", seconds, {name: calls_of(step) for name, step in steps.items()})
    return {
        "timed": "784-32-10, batch 1",
        "counted": "784-32-16-10, batch 4",
        "rows": rows,
        "digits": digits,
    }


def table(what: str, seconds: dict[str, float], calls: dict[str, int]) -> list[dict[str, Any]]:
    """Print the calls of each step, and its time where it was measured; return the rows."""
    print(f"{what:44} {'µs':>8} {'calls':>8}")
    rows = []
    for name, number in calls.items():
        time = f"{1e6 * seconds[name]:8.0f}" if name in seconds else " " * 8
        print(f"{name:44} {time} {number:8}", flush=True)
        rows.append({"rule": name, "seconds": seconds.get(name), "calls": number})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    result = measure(args.rounds)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
