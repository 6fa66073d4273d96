"""What accuracy costs: seconds, forward passes and memory, by rule.

A forward pass is a unit of time here: that of evaluating the network and its loss on a batch, in
the same process and in turns with whole steps.  Seconds are those of the steps alone, by their
median, without evaluations.  Memory is what the rule's passes through the network allocate at most
beyond parameters, batch and directions, as `tracemalloc` counts it on the host; an optimizer takes
as much under every rule.  Rates are the defaults of `train.py`.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from benchmarks.memory import peak_of
from benchmarks.timing import take_turns
from dualnet import Key, backends, learning
from dualnet.command.train import parse, settings_of
from dualnet.learning import Batch, Shard, Task, estimate_gradient
from dualnet.optim import Adam
from dualnet.training.assemble import network_of
from dualnet.training.objective import OBJECTIVES
from dualnet.training.settings import build
from experiments.experiment import Experiment, Form, Settings
from experiments.training import percents, trained

RULES = {
    "bp": "--lr 1e-3",
    "bp --checkpointing": "--lr 1e-3",
    "fg-w": "--lr 5e-4",
    "fg-w --tangents 16 --sampler rank-one": "--lr 5e-4",
    "fg-a": "--lr 1e-3",
    "fdfa": "--lr 1e-3",
    "fg-a-cv --shrink 0.1": "--lr 1e-3",
}
NETWORK = "--dataset mnist --model mlp --depth 16 --width 128 --batch-size 512 --epochs 10"
STEPS = -(-60_000 // 512)
"""How many steps an epoch has."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: the flags of each rule."""
    rules = ("bp", "bp --checkpointing", "fg-w") if form.quick else RULES
    return [{"rule": rule} for rule in rules]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return for each seed the accuracies and seconds of each epoch, and the costs of a step."""
    rule = row["rule"]
    flags = f"{NETWORK} --optimizer adam --schedule cosine --rule {rule} {RULES[rule]}"
    costs = costs_of_a_step(flags, rounds=3 if form.quick else 31)
    return [{**result, **costs} for result in trained(flags, form)]


def costs_of_a_step(flags: str, rounds: int) -> dict[str, float]:
    """Return `forward_ms` and `step_ms`, medians of so many turns, and `pass_bytes`.

    A step is an estimate of the gradient and an update by Adam, on images of noise.
    """
    chosen = settings_of(parse(shlex.split(flags)))
    network, backend, adam = (
        network_of(chosen, (28, 28, 1), 10),
        backends.get("numpy"),
        Adam(),
    )
    rule = build(learning.RULES, "rule", chosen.rule, chosen.rule_options)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((chosen.batch_size, 28, 28, 1), np.float32)
    batch = Batch(x, generator.integers(0, 10, len(x)))
    objective = build(OBJECTIVES, "objective", "supervised", {})
    plan, learner = rule.start(Task(network, objective.loss), x, Key(0))
    params, model_state, _ = learner
    opt_state = adam.init_opt_state(params)
    directions = rule.sample(Key(2), plan, params, backend, len(x))
    shard = Shard(*batch)

    def forward() -> Any:
        return plan.task.losses(params, model_state, shard, shard.context)

    def step() -> Any:
        gradients = estimate_gradient(rule, plan, learner, batch, Key(2), backend).gradients
        return adam.apply(gradients, opt_state, params, 1e-3, 1)

    seconds = take_turns({"forward": forward, "step": step}, rounds)
    return {
        "forward_ms": 1e3 * seconds["forward"],
        "step_ms": 1e3 * seconds["step"],
        "pass_bytes": peak_of(lambda: rule.measure(plan, learner, directions, shard)),
    }


def table(rows: list[dict]) -> str:
    """Return the costs of a step by each rule, and what ten epochs of them reach and take."""
    lines = [
        "| `--rule` | step, ms | forward passes | memory of the passes, MiB | test accuracy, % | "
        "seconds of steps | forward passes to 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        r = row["results"]
        passes = r["step_ms"] / r["forward_ms"]
        curve = [a or 0.0 for a in r["curves"]["test_accuracy"]]
        reached = [i for i, a in enumerate(curve) if a >= 0.95]
        to_there = f"{passes * STEPS * (reached[0] + 1):,.0f}" if reached else "not reached"
        seconds = r["step_ms"] * STEPS * len(curve) / 1e3
        last = "diverged" if "diverged" in r else f"{100 * r['test_accuracy']:.2f}"
        lines.append(
            f"| `{row['settings']['rule']}` | {r['step_ms']:.1f} | {passes:.1f} | "
            f"{r['pass_bytes'] / 2**20:.1f} | {last} | {seconds:.0f} | "
            f"{to_there} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw test accuracy against seconds, against forward passes, and against memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    by_time, by_passes, by_memory = figure.subplots(1, 3, sharey=True)
    for i, row in enumerate(rows):
        r, color = row["results"], f"C{i}"
        curve = percents(r["curves"]["test_accuracy"]) or [np.nan]
        milliseconds = r["step_ms"] * STEPS * np.arange(1, len(curve) + 1)
        by_time.plot(milliseconds / 1e3, curve, "o-", color=color, ms=3, lw=1)
        by_passes.plot(milliseconds / r["forward_ms"], curve, "o-", color=color, ms=3, lw=1)
        label = row["settings"]["rule"]
        by_memory.plot(r["pass_bytes"] / 2**20, curve[-1], "o", color=color, label=label)
    by_time.set(xlabel="seconds of steps", ylabel="test accuracy, %")
    by_passes.set(xlabel="forward passes", xscale="log")
    by_memory.set(xlabel="memory of the passes, MiB")
    by_memory.legend(fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="cost",
    shows="test accuracy against seconds, forward passes and memory, by rule",
    source="ours",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    each_seed=True,
)
