"""One network's contenders take turns, in a process of its own; see `benchmarks.networks`.

Before the turns, each contender makes a few steps in a fork of this process, which says what memory
they took and what the first losses were.  One that runs out of memory or of time ends there, and
only the fork with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.network_steps import COMPARED, OurSteps, Problem, Steps, other_work
from benchmarks.timing import turns
from dualnet import backends
from dualnet.learning import Task
from dualnet.nn import softmax_cross_entropy

K = 16
"""How many tangents the forward gradients of weights have."""

ALLOWED = 5e-2
"""How far apart first losses of the peers may be, as a share of what those of `bp` fall by."""

PAUSE, SETTLE = 0.1, 0.2
"""Seconds before each turn, and of it before the step that counts."""

_SIDE = 1024

Makers = dict[str, Callable[[], Steps]]


@dataclass(frozen=True)
class Work:
    """What one process is to time.

    Attributes:
        network: its name.
        flags: of `train.py`, without a rule.
        rules: the values of `--rule`, each with its flags; or samplers of `tangents`.
        section: `backprop`, where the peers do backpropagation, or `tangents`, where all make
            forward gradients of the weights with `K` tangents.
        threads: how many threads, and cores, each contender has.
        rounds: how many turns each has.
        limit: the seconds after which no further round of turns begins.  A contender's first steps
            may take twice as long, with what is compiled.
        peers: whether torch and JAX take part.
    """

    network: str
    flags: str
    rules: tuple[str, ...]
    section: str
    threads: int
    rounds: int
    limit: float
    peers: bool = True


# --- who takes part -------------------------------------------------------------------------------


def contenders(problem: Problem, work: Work) -> Makers:
    """Return a function for each contender that makes it.

    With several threads, dualnet takes part with BLAS on all of them, and with the batch cut into
    a shard for each, unless something couples the examples of a batch.
    """
    made: Makers = {}
    whole = Task(problem.network, softmax_cross_entropy).needs_whole_batch
    for rule in work.rules:
        made[f"dualnet {rule}"] = partial(OurSteps, problem, rule)
        if work.threads > 1 and not whole:
            shards = replace(problem, backend=backends.get("numpy", work.threads))
            made[f"dualnet {rule}, shards"] = partial(OurSteps, shards, rule)
    return made | (by_peers(problem, work) if work.peers else {})


def by_peers(problem: Problem, work: Work) -> Makers:
    """Return the contenders of torch, in each layout that matters, and of JAX."""
    from benchmarks.forward_steps import JaxForwardSteps, TorchForwardSteps
    from benchmarks.peer_steps import JaxSteps, TorchSteps, convolves

    if work.section == "backprop":
        by_torch, by_jax = partial(TorchSteps, problem), partial(JaxSteps, problem)
    else:
        by_torch = partial(TorchForwardSteps, problem, K)
        by_jax = partial(JaxForwardSteps, problem, K)
    if not convolves(problem.network):
        return {"torch": by_torch, "jax": by_jax}
    return {
        "torch, channels first": partial(by_torch, channels_last=False),
        "torch, channels last": partial(by_torch, channels_last=True),
        "jax": by_jax,
    }


def start_peers(threads: int, cache: str) -> None:
    """Import torch and JAX before any fork, and start none of their threads."""
    import jax
    import torch

    torch.set_num_threads(threads)
    jax.config.update("jax_compilation_cache_dir", cache)  # the fork compiles for this process
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.filterwarnings("ignore", module="torch|jax")


# --- a trial in a fork ----------------------------------------------------------------------------


def resident(name: str) -> int:
    """Return the bytes of memory of this process that `/proc/self/status` has under a name."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def trial(make: Callable[[], Steps], steps_made: int) -> dict[str, Any]:
    """Make a contender and its first steps, and return their losses and the most memory they held.

    The memory is what the process holds beyond what it held before the contender was made, at its
    peak after the first step: parameters, the optimizer's state and the step itself, but not what a
    compiler takes.

    Args:
        make: makes the contender.
        steps_made: how many steps it makes, 2 or more.
    """
    before = resident("VmRSS")
    steps = make()
    steps()
    steps.wait()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    losses = steps.first_losses(steps_made)
    return {"losses": losses.tolist(), "memory": resident("VmHWM") - before}


def in_a_fork(work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return what `work` returns in a fork of this process; if it cannot, why, under `failed`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = work()
        except BaseException as error:  # of any kind, from a compiler or a library
            found = {"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        ready, _, _ = select.select([answer], [], [], seconds)
        text = answer.read() if ready else b""
        if not ready:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)
    how = f"ended by signal {os.WTERMSIG(status)}, as out of memory" if ready else "out of time"
    return {"failed": how if ready else f"{how}: its first steps took over {seconds:.0f} s"}


def able(made: Makers, work: Work) -> tuple[dict[str, int], dict[str, str]]:
    """Let each contender make its first steps in a fork.

    Returns:
        The bytes of each that can take turns; and why the others cannot, or what they do instead of
        the same work.
    """
    memory: dict[str, int] = {}
    failed: dict[str, str] = {}
    expected = None
    # Of forward gradients, only the first loss is compared.
    steps_made = COMPARED if work.section == "backprop" else 2
    for name, make in made.items():
        found = in_a_fork(partial(trial, make, steps_made), 2 * work.limit)
        if "failed" in found:
            failed[name] = found["failed"]
            continue
        losses = np.array(found["losses"])
        memory[name] = found["memory"]
        expected = losses if expected is None else expected
        if not name.startswith("dualnet") and (why := unlike(losses, expected, work.section)):
            failed[name] = why
            del memory[name]
    return memory, failed


def unlike(losses: np.ndarray, expected: np.ndarray, section: str) -> str | None:
    """Return in what a peer's first losses show other work than ours; None if in nothing.

    Each contender draws tangents of its own, so of forward gradients only the loss before the first
    step is the same.
    """
    if section == "backprop":
        return other_work(losses, expected, ALLOWED)
    if np.isclose(losses[0], expected[0], rtol=1e-4):
        return None
    return f"not the same work: loss {losses[0]}, by dualnet {expected[0]}"


# --- turns ----------------------------------------------------------------------------------------


def rate_of_products(rounds: int) -> float:
    """Return how many operations a second the product of two square matrices makes.

    It is measured before there are other contenders: JAX has been seen to be busy for a while after
    a step that is done.
    """
    a = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32)
    out = np.empty_like(a)
    (seconds,) = turns({"product": lambda: np.matmul(a, a, out=out)}, rounds).values()
    return 2.0 * _SIDE**3 / statistics.median(seconds)


def timed(work: Work) -> dict[str, Any]:
    """Let the contenders take turns, and return the figures as a dict for JSON."""
    rate = rate_of_products(work.rounds)
    problem = Problem.of(backends.get("numpy"), work.flags)
    made = contenders(problem, work)
    memory, failed = able(made, work)
    steps = {name: made[name]() for name in memory}

    def waited_for(one: Steps) -> Callable[[], None]:
        """Return a function that makes a step, and waits until it is done."""

        def step() -> None:
            one()
            one.wait()

        return step

    works = {name: waited_for(one) for name, one in steps.items()}
    seconds = turns(works, work.rounds, limit=work.limit, pause=PAUSE, settle=SETTLE)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    flops = next((one.flops() for name, one in steps.items() if name.startswith("torch")), None)
    return {
        **asdict(work),
        "batch": problem.settings.batch_size,
        "dataset": problem.settings.dataset,
        "optimizer": problem.settings.optimizer,
        "turns": min(map(len, seconds.values()), default=0),
        "rate": rate,
        "flops": flops,
        "floor": None if flops is None else flops / rate,
        "seconds": medians,
        "memory": memory,
        "failed": failed,
    }


def main(text: str, cache: str, out: str) -> None:
    """Do the work that the command line says, and write its figures."""
    given = json.loads(text)
    work = Work(**{**given, "rules": tuple(given["rules"])})
    if work.peers:
        start_peers(work.threads, cache)
    began = time.perf_counter()
    found = timed(work)
    Path(out).write_text(json.dumps({**found, "took": time.perf_counter() - began}))


if __name__ == "__main__":
    main(*sys.argv[1:])
