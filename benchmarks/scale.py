"""What exchanges and steps cost on this machine, and the model of docs/scale-model.md fitted to it.

    mpiexec -n 2 python -m benchmarks.scale --json FILE

Run it with 1, 2, 3 and 4 processes, for example, and with `OPENBLAS_NUM_THREADS=1`.  The file keeps
the rows of other numbers of processes, and of each row the fastest time of all runs: on a machine
that others use, repeat the command until nothing gets faster.  From all rows together it fits the
costs of a worker, and of the link for each number of processes (`benchmarks/scale_model.py`), by
least squares of relative errors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scale_model
from benchmarks.network_steps import Problem, settings_of
from benchmarks.scale_model import Link, Network, Worker
from dualnet import backends, tree
from dualnet.backends import mpi
from dualnet.learning import RULES, Batch, Plan, Task, estimate_gradient
from dualnet.nn import softmax_cross_entropy
from dualnet.random import Key
from dualnet.training.settings import build
from dualnet.tree import Tree
from experiments.experiment import machine

SIZES = tuple(2**i for i in range(3, 27))
"""Bytes of the exchanges that are timed: 8 to 64 MiB."""
RANK_ONE, DENSE = "--sampler rank-one", "--sampler normal"
NETWORKS = {
    "MLP 784-512-512-10": (
        "--dataset mnist --model mlp --batch-size 256",
        {
            "bp": ("batch",),
            f"fg-w --tangents 1 {RANK_ONE}": ("batch",),
            f"fg-w --tangents 4 {RANK_ONE}": ("batch", "tangents"),
            f"fg-w --tangents 16 {RANK_ONE}": ("batch", "tangents"),
            f"fg-w --tangents 4 {DENSE}": ("batch", "tangents"),
        },
    ),
    "LocalMixer M/8/16": (
        "--dataset cifar10 --model local-mixer --batch-size 12",
        {
            "bp": ("batch",),
            f"fg-w --tangents 4 {RANK_ONE}": ("batch", "tangents"),
            f"fg-w --tangents 4 {DENSE}": ("batch", "tangents"),
        },
    ),
    "LocalMixer L/8/64": (
        "--dataset cifar10 --model local-mixer --width 2048 --groups 64 --batch-size 4",
        {"bp": ("batch",), f"fg-w --tangents 4 {RANK_ONE}": ("batch",)},
    ),
}
"""Network → its flags, and rules: the value of `--rule` with its flags → what processes share."""


def outline(name: str, plan: Plan, params: Tree) -> Network:
    """Return what the model has to know of a network."""
    products = [
        2.0 * math.prod(plan.shapes[path][:-1]) * tree.subtree(params, path)["w"].size
        for path in plan.weighted
    ]
    activities = sum([math.prod(shape) for shape in plan.shapes.values()])
    return Network(name, tree.size(params), sum(products), products[0], activities)


def fastest_of(call: Callable[[], object], least: int, most: float) -> float:
    """Return the seconds of the fastest of many calls, which all processes make as often.

    Whatever else runs on a machine adds to a time, and a call of several processes waits for the
    one that is disturbed; so the fastest call says most.  The time of a call is that of the process
    with the longest, as one that comes late does not wait.

    Args:
        call: what is timed.
        least: how often at least.
        most: for how many seconds, if that allows more; the first process says.
    """
    world, times = mpi.world(), []
    call()
    began = time.perf_counter()
    while True:
        for _ in range(least):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        enough = np.array(float(time.perf_counter() - began > most))
        if world.of_first(enough) > 0:
            break
    of_all = np.zeros((world.size, len(times)))
    of_all[world.rank] = times
    return float(world.add(of_all).max(0).min())


def exchanges() -> list[dict[str, Any]]:
    """Return the seconds of adding up trees of one array."""
    rows = []
    for nbytes in SIZES:
        numbers = np.ones(nbytes // 4, np.float32)
        seconds = fastest_of(lambda: mpi.world().add(numbers), 5, 0.3)  # noqa: B023
        rows.append({"bytes": nbytes, "seconds": seconds})
    return rows


def steps() -> tuple[list[dict[str, Any]], dict[str, Network]]:
    """Return the seconds of estimating a gradient, by each network and rule, and the networks."""
    rows: list[dict[str, Any]] = []
    networks = {}
    for name, (flags, rules) in NETWORKS.items():
        problem = Problem.of(backends.get("numpy"), flags)
        batch = Batch(problem.images, problem.labels)
        for rule, shares in rules.items():
            settings = settings_of(f"{flags} --rule {rule}")
            chosen = build(RULES, "rule", settings.rule, settings.rule_options)
            task = Task(problem.network_for(settings), softmax_cross_entropy)
            plan, learner = chosen.start(task, problem.images, Key(0))
            networks[name] = outline(name, plan, learner.params)
            at = chosen, plan, learner, batch, Key(1), problem.backend
            for share in shares if mpi.world().size > 1 else shares[:1]:
                seconds = fastest_of(
                    lambda: estimate_gradient(*at, processes=mpi.world(share)),  # noqa: B023
                    *(4, 0.6),
                )
                row = {"network": name, "rule": rule, "share": share, "batch": len(batch.inputs)}
                rows.append({**row, "seconds": seconds})
    return rows, networks


# --- the fit --------------------------------------------------------------------------------------


def least_squares(times: np.ndarray, left: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the costs c ≥ 0 with the least sum of squares of (parts c - left) / times.

    Args:
        times: measured, `(rows,)`.
        left: of these, what the costs shall explain.
        parts: how often each cost is in each row, `(rows, costs)`.
    """
    kept = list(range(parts.shape[1]))
    while True:
        scaled = parts[:, kept] / times[:, None]
        found = np.linalg.lstsq(scaled, left / times, rcond=None)[0]
        if (found >= 0).all():
            break
        del kept[int(np.argmin(found))]
    costs = np.zeros(parts.shape[1])
    costs[kept] = found
    return costs


def fitted_link(rows: list[dict[str, Any]], p: int) -> Link:
    """Return α and β of exchanges among p processes.

    Which algorithm is the faster one depends on the costs.  So each size is tried as the first for
    which halving is, or none, and the costs count with which the model is nearest.
    """
    times = np.array([row["seconds"] for row in rows])
    tried = []
    for first in (*(row["bytes"] for row in rows), math.inf):
        parts = []
        for nbytes in (row["bytes"] for row in rows):
            way = scale_model.ways_to_add(nbytes)[-1 if nbytes >= first else 0]
            parts.append([way(unit, nbytes, p) for unit in (Link(1, 0), Link(0, 1))])
        link = Link(*map(float, least_squares(times, times, np.array(parts))))
        off = [exchange_seconds(link, row) / row["seconds"] - 1 for row in rows]
        tried.append((float(np.sum(np.square(off))), link))
    return min(tried, key=lambda pair: pair[0])[1]


def exchange_seconds(link: Link, row: dict[str, Any]) -> float:
    """Return what the model says of a row of `exchanges`."""
    p, nbytes = row["processes"], row["bytes"]
    return min(float(way(link, nbytes, p)) for way in scale_model.ways_to_add(nbytes))


FREE = Link(0, 0)


def step_seconds(
    worker: Worker, link: Link, network: Network, row: dict[str, Any], cores: int
) -> float:
    """Return what the model says of a row of `steps`; processes beyond the cores take turns."""
    p, words = row["processes"], row["rule"].split()
    turns = max(1.0, p / cores)
    if words[0] == "bp":
        compute = scale_model.backprop_compute(worker, network, math.ceil(row["batch"] / p))
        exchange = scale_model.backprop_exchange(link, network, p)
    else:
        k, dense = int(words[words.index("--tangents") + 1]), row["rule"].endswith(DENSE)
        at = worker, network, p, row["batch"], k, row["share"], dense
        compute = scale_model.forward_step(*at)
        exchange = scale_model.forward_exchange(link, k, p)
    return float(turns * compute + exchange)


UNITS = (
    Worker(rate=1.0),
    Worker(math.inf, touch=1.0),
    Worker(math.inf, draw=1.0),
    Worker(math.inf, overhead=1.0),
)
"""Workers of which a single thing takes time."""


def fitted_worker(
    rows: list[dict[str, Any]], links: dict[int, Link], networks: dict[str, Network], cores: int
) -> Worker:
    """Return the costs of a process with a core of its own, once those of the links are known."""
    parts, sent = [], []
    for row in rows:
        at = networks[row["network"]], row, cores
        parts.append([step_seconds(unit, FREE, *at) for unit in UNITS])
        sent.append(step_seconds(Worker(math.inf), links[row["processes"]], *at))
    times = np.array([row["seconds"] for row in rows])
    slowness, *others = map(float, least_squares(times, times - sent, np.array(parts)))
    return Worker(1 / slowness, *others)


def fit(found: dict[str, Any]) -> tuple[dict[int, Link], Worker]:
    """Return the links of each number of processes, and the worker, from the rows of a file."""
    links = {1: FREE}
    for p in sorted({row["processes"] for row in found["exchanges"]}):
        links[p] = fitted_link([row for row in found["exchanges"] if row["processes"] == p], p)
    networks = {name: Network(*values) for name, values in found["networks"].items()}
    return links, fitted_worker(found["steps"], links, networks, found["cores"])


def merged(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of both, in the order of their processes, each with its lesser time."""
    fastest: dict[tuple, dict[str, Any]] = {}
    for row in [*before, *rows]:
        name = tuple(value for key, value in row.items() if key != "seconds")
        if name not in fastest or row["seconds"] < fastest[name]["seconds"]:
            fastest[name] = row
    return sorted(fastest.values(), key=lambda row: row["processes"])


def main() -> None:
    """Measure with the processes that there are, and fit to all rows of the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="a file for the rows")
    path, world = parser.parse_args().json, mpi.world()
    by_size = exchanges() if world.size > 1 else []
    by_rule, networks = steps()
    if world.rank:
        return
    told = {"machine": machine(), "date": f"{datetime.now(timezone.utc):%Y-%m-%d}"}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, Any] = {**told, "cores": os.cpu_count(), "networks": networks}
    for name, rows in ("exchanges", by_size), ("steps", by_rule):
        own = [{"processes": world.size, **row} for row in rows]
        found[name] = merged(before.get(name, []), own)
    links, worker = fit(found)
    found["fitted"] = {"links": {p: asdict(link) for p, link in links.items()}}
    found["fitted"]["worker"] = asdict(worker)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
