"""What processes give one another in a step of training, and what that costs over a slow link.

    mpiexec -n 2 python -m benchmarks.processes [--json FILE]

Every row is a network and a rule.  Printed are the bytes that each process gives to the others in a
step, and the median time of a step: over the machine's own memory, and over a *simulated* link of
1 Gbit/s, where each process waits as long as its bytes would take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.network_steps import Problem, settings_of
from dualnet import backends, tree
from dualnet.backends import mpi
from dualnet.backends.processes import Processes
from dualnet.learning import RULES, Batch, Task, estimate_gradient
from dualnet.nn import softmax_cross_entropy
from dualnet.random import Key
from dualnet.training.settings import build
from dualnet.tree import Tree
from experiments.experiment import machine

BYTES_A_SECOND = 1e9 / 8
"""Of the simulated link: 1 Gbit/s."""

NETWORKS = {
    "MLP 784-512-512-10": "--dataset mnist --model mlp --batch-size 64",
    "LocalMixer L/8/64": "--dataset cifar10 --model local-mixer --width 2048 --groups 64 "
    "--patches 8 --batch-size 2",
}
RULES_TIMED = {
    "bp": "batch",
    "fg-a": "batch",
    "fg-w --tangents 64 --sampler rank-one": "batch",
    "fg-w --tangents 64 --sampler rank-one --aggregate projection": "tangents",
}
"""The value of `--rule`, and behind it the rule's flags → what the processes share."""


class Linked:
    """Processes behind a simulated link, which takes its time for each byte.

    Args:
        processes: those that it stands before.
    """

    def __init__(self, processes: Processes):
        self._processes = processes
        self.rank, self.size = processes.rank, processes.size
        self.shares, self.statistics = processes.shares, processes.statistics
        self.part, self.of_first = processes.part, processes.of_first

    def add(self, one: Tree) -> Tree:
        before = self._processes.bytes_given
        total = self._processes.add(one)
        time.sleep((self._processes.bytes_given - before) / BYTES_A_SECOND)
        return total


def measured(flags: str, rule: str, world: Processes, steps: int) -> dict[str, Any]:
    """Return bytes and seconds of a step, and how many parameters the network has."""
    problem = Problem.of(backends.get("numpy"), flags)
    settings = settings_of(f"{flags} --rule {rule}")
    network = problem.network_for(settings)
    chosen = build(RULES, "rule", settings.rule, settings.rule_options)
    task = Task(network, softmax_cross_entropy)
    plan, learner = chosen.start(task, problem.images, Key(0))
    batch = Batch(problem.images, problem.labels)

    def seconds(processes: Any) -> float:
        times = []
        for number in range(steps + 1):
            began = time.perf_counter()
            at = plan, learner, batch, Key(number), problem.backend
            estimate_gradient(chosen, *at, processes=processes)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    before = world.bytes_given
    by_memory = seconds(world)
    given = (world.bytes_given - before) // (steps + 1)  # the same in every step
    return {
        "parameters": tree.size(learner.params),
        "bytes": given,
        "ms": round(1e3 * by_memory, 1),
        "ms_simulated_link": round(1e3 * seconds(Linked(world)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="a file for the rows")
    parser.add_argument("--steps", type=int, default=3, help="of each row; default 3")
    args = parser.parse_args()
    rows = []
    for network, flags in NETWORKS.items():
        for rule, shares in RULES_TIMED.items():
            world = mpi.world(shares)
            found = measured(flags, rule, world, args.steps)
            row = {"network": network, "rule": rule, "share": shares, "processes": world.size}
            rows.append({**row, **found})
            if not world.rank:
                print(
                    f"{network:20}{rule:62}{shares:10}{found['bytes']:>14,.0f} bytes"
                    f"{found['ms']:>10.1f} ms{found['ms_simulated_link']:>10.1f} ms simulated",
                    flush=True,
                )
    if args.json and not mpi.world("batch").rank:
        told = {"machine": machine(), "date": f"{datetime.now(timezone.utc):%Y-%m-%d}"}
        args.json.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
