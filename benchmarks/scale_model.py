"""What a step costs on many workers, and how many steps it takes: the model of docs/scale-model.md.

It is arithmetic alone: nothing is measured or fitted here.  `benchmarks/scale.py` fits `Worker` and
`Link` to what it measures on a machine; `WORKER` and `LINKS` are assumptions about others.

Letters are those of the page: n parameters, k directions, p workers, B examples in a batch, S the
noise scale (the variance of an example's gradient over |∇f|²), V the variance of an estimate over
|∇f|².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dualnet.backends.mpi import FEW
from dualnet.types import Array


class Network(NamedTuple):
    """What the model has to know of a network.

    Attributes:
        name: as tables have it.
        parameters: n.
        operations: A, multiplications and additions in the products of a forward pass of one
            example.
        of_inputs: A₁, those of the first layer, whose input has no tangent and needs no cotangent.
        activities: how many numbers the layers of a pass give, for one example.
    """

    name: str
    parameters: int
    operations: float
    of_inputs: float
    activities: float


@dataclass(frozen=True)
class Worker:
    """A process with a core or a device of its own.

    Attributes:
        rate: multiplications and additions in a second.
        touch: seconds for each number that a layer gives, or that stands for its derivative.
        draw: seconds to draw a number of a dense direction, and to add it to the update.
        overhead: seconds of each step, whatever is in it.
    """

    rate: float
    touch: float = 0.0
    draw: float = 0.0
    overhead: float = 0.0


@dataclass(frozen=True)
class Link:
    """What is between workers.

    Attributes:
        alpha: α, seconds for a message, however short.
        beta: β, seconds for each byte of it.
    """

    alpha: float
    beta: float


# --- assumptions ----------------------------------------------------------------------------------

WORKER = Worker(rate=1e14)
"""A device that keeps up 100 TFLOP/s, and spends time on nothing but products."""
LINKS = {"10 Gbit/s": Link(20e-6, 8 / 10e9), "400 Gbit/s": Link(2e-6, 8 / 400e9)}
"""Name → a message of 20 µs over Ethernet, and of 2 µs over a cluster's own network."""
NUMBER, COUNT = 4, 8
"""Bytes of a number, and of the count of right answers."""

MLP = Network("MLP 784-512-512-10", 669_706, 2.0 * 668_672, 2.0 * 401_408, 2_842)
RESNET18 = Network("ResNet18, 32x32", 11_173_962, 2.0 * 555_422_720, 2.0 * 1_769_472, 2_335_754)
TRANSFORMER = Network("transformer", 10**9, 2.0 * 10**9 * 2_048, 0.0, 0)
"""2,048 tokens are an example, whose pass takes a multiplication and an addition for each parameter
and token; products of activities are left out."""
NETWORKS = MLP, RESNET18, TRANSFORMER

WORKERS = (8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 10_000)
"""For how many workers there are predictions."""
NOISE_SCALES = tuple(10**i for i in range(1, 7))
"""S, in examples."""
VARIANCES = (0.01, 1.0, 100.0, 10_000.0)
"""V; backpropagation has it with S/V examples."""


# --- compute --------------------------------------------------------------------------------------


def backprop_compute(worker: Worker, network: Network, examples: Array | float) -> Array | float:
    """Return the seconds of a worker's part of a step: three passes, but for the first layer."""
    operations = 3 * network.operations - network.of_inputs
    return worker.overhead + examples * (
        operations / worker.rate + 3 * network.activities * worker.touch
    )


def forward_compute(
    worker: Worker,
    network: Network,
    examples: Array | float,
    own: Array | float,
    k: Array | float,
    dense: bool = False,
) -> Array | float:
    """Return the seconds of a worker's part of a step of `fg-w`.

    Args:
        examples: of this worker.
        own: along how many directions it takes them.
        k: how many directions there are; the update is made from all.
        dense: whether a direction has a number for each parameter, rather than factors.
    """
    along = (2 if dense else 1) * network.operations - network.of_inputs
    operations = network.operations + own * along
    passes = examples * (operations / worker.rate + (1 + own) * network.activities * worker.touch)
    adding = worker.draw if dense else 2 / worker.rate  # for each parameter and direction
    return worker.overhead + passes + k * network.parameters * adding


def forward_step(
    worker: Worker,
    network: Network,
    p: Array | float,
    batch: Array | float,
    k: Array | float,
    share: str,
    dense: bool = False,
) -> Array | float:
    """Return the seconds of computing a step of `fg-w` that p workers share.

    Args:
        share: `batch` or `tangents`, as the flag of `train.py`.
    """
    if share == "batch":
        return forward_compute(worker, network, np.ceil(np.divide(batch, p)), k, k, dense)
    return forward_compute(worker, network, batch, np.ceil(np.divide(k, p)), k, dense)


# --- communication --------------------------------------------------------------------------------
# Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in
# MPICH".  A round takes a message from each to another, all at once.


def gathered(link: Link, nbytes: Array | float, p: Array | float) -> Array | float:
    """Return the seconds until each has the bytes of all: blocks that double in every round."""
    return np.ceil(np.log2(p)) * link.alpha + np.subtract(p, 1) * nbytes * link.beta


def doubled(link: Link, nbytes: Array | float, p: Array | float) -> Array | float:
    """Return the seconds until each has the sum, which they exchange whole in every round."""
    return np.ceil(np.log2(p)) * (link.alpha + nbytes * link.beta)


def halved(link: Link, nbytes: Array | float, p: Array | float) -> Array | float:
    """Return the seconds until each has the sum: each adds up a part, and then all get all parts.

    This is Rabenseifner's algorithm; a ring sends as many bytes, in more messages.
    """
    each_way = np.ceil(np.log2(p)) * link.alpha
    return 2 * (each_way + np.subtract(p, 1) / p * nbytes * link.beta)


def reduced(link: Link, nbytes: Array | float, p: Array | float) -> Array | float:
    """Return the seconds of an allreduce, whose algorithm is the faster one of both."""
    return np.minimum(doubled(link, nbytes, p), halved(link, nbytes, p))


def ways_to_add(nbytes: float) -> tuple[Callable, ...]:
    """Return how `Processes.add` may add up so many bytes of one dtype; it takes the fastest."""
    return (gathered,) if nbytes <= FEW else (doubled, halved)


def backprop_exchange(link: Link, network: Network, p: Array | float) -> Array | float:
    """Return the seconds in which gradients and losses are added up, and then the counts."""
    numbers = NUMBER * (network.parameters + 1)
    if numbers + COUNT <= FEW:
        return gathered(link, numbers + COUNT, p)
    return reduced(link, numbers, p) + reduced(link, COUNT, p)


def forward_exchange(link: Link, k: Array | float, p: Array | float) -> Array | float:
    """Return the seconds in which k slopes and the loss are added up, and the counts."""
    numbers = NUMBER * np.add(k, 1)
    apart = reduced(link, numbers, p) + reduced(link, COUNT, p)
    return np.where(numbers + COUNT <= FEW, gathered(link, numbers + COUNT, p), apart)


# --- variance -------------------------------------------------------------------------------------

SPREADS: dict[str, Callable] = {
    "normal": lambda n, k: (n + 1) / k,
    "rademacher": lambda n, k: (n - 1) / k,
    "rank-one": lambda n, k: (n - 1) / k,
    "orthogonal": lambda n, k: n / k - 1,
}
"""Sampler → E|g|² / |∇f|² - 1 of the mean g of k forward gradients, for the gradient ∇f of a batch.
With orthogonal directions, of which there are at most n, g is n/k times the projection."""


def variance(noise: float, batch: Array | float, spread: Array | float = 0.0) -> Array | float:
    """Return V of an estimate from a batch; by default that of backpropagation."""
    return np.divide(noise, batch) + spread * (1 + np.divide(noise, batch))


def examples_needed(noise: float, wanted: Array | float, spread: Array | float) -> Array | float:
    """Return the least batch with which an estimate has the wanted V; infinity if none has."""
    left = np.subtract(wanted, spread)
    possible = left > 0
    return np.where(possible, np.ceil(noise * (1 + spread) / np.where(possible, left, 1.0)), np.inf)


# --- the fastest way to a variance ----------------------------------------------------------------


class Way(NamedTuple):
    """How a variance is reached.

    Attributes:
        seconds: all steps together.
        workers: how many of them work.
        batch: examples of a step.
        directions: k.
        steps: how many estimates are averaged.
    """

    seconds: float
    workers: int
    batch: float
    directions: float = 0
    steps: float = 1


def choices(p: int, some: bool) -> np.ndarray:
    """Return how many of p workers may work: all, or also 1, 2, 4, … of them."""
    return np.unique([*(2.0 ** np.arange(math.log2(p))), p]) if some else np.array([float(p)])


def fastest_backprop(
    worker: Worker, link: Link, network: Network, p: int, noise: float, wanted: float, some: bool
) -> Way:
    """Return the fastest way of backpropagation; see `fastest_forward`.

    More workers than examples are of no use, so they are idle.
    """
    batch = float(examples_needed(noise, wanted, 0.0))
    workers = np.minimum(choices(p, some), batch)
    compute = backprop_compute(worker, network, np.ceil(batch / workers))
    seconds = compute + backprop_exchange(link, network, workers)
    best = int(np.argmin(seconds))
    return Way(float(seconds[best]), int(workers[best]), batch)


def fastest_forward(
    worker: Worker,
    link: Link,
    network: Network,
    p: int,
    noise: float,
    wanted: float,
    some: bool,
) -> Way:
    """Return the fastest way of `fg-w` with rank-one directions.

    It may average m steps, each with variance m V, choose k and the batch that this takes, and
    share the batch or the directions.

    Args:
        p: how many workers there are.
        noise: S.
        wanted: V.
        some: whether as many of the workers work as is fastest; else all do.
    """
    n = network.parameters
    steps = 4.0 ** np.arange(max(0.0, math.log(n / wanted, 4)) + 1)[:, None]
    k = np.unique(np.ceil(2.0 ** np.arange(0, 10 + math.log2(n / min(1.0, wanted)), 0.5)))
    k = k[:, None, None]
    workers = choices(p, some)
    batch = examples_needed(noise, steps * wanted, SPREADS["rank-one"](n, k))
    at = worker, network, workers, batch, k
    compute = np.minimum(forward_step(*at, "batch"), forward_step(*at, "tangents"))
    seconds = steps * (compute + forward_exchange(link, k, workers))
    i, j, w = np.unravel_index(np.argmin(seconds), seconds.shape)
    return Way(
        float(seconds[i, j, w]),
        int(workers[w]),
        float(batch[i, j, 0]),
        float(k[i, 0, 0]),
        float(steps[j, 0]),
    )


# --- where one way overtakes another --------------------------------------------------------------


def overtaken(
    worker: Worker, link: Link, network: Network, noise: float, wanted: float, some: bool
) -> int | None:
    """Return from which of `WORKERS` on `fg-w` is faster than backpropagation; None for never.

    See `fastest_forward` for the arguments.
    """
    first = None
    for p in reversed(WORKERS):
        at = worker, link, network, p, noise, wanted, some
        if fastest_forward(*at).seconds >= fastest_backprop(*at).seconds:
            break
        first = p
    return first


def tie_speed(
    worker: Worker, alpha: float, network: Network, p: int, noise: float, wanted: float
) -> float | None:
    """Return below how many bit/s `fg-w` is faster, if all workers work; None for none at all."""

    def lead(log_beta: float) -> float:
        at = worker, Link(alpha, 10**log_beta), network, p, noise, wanted, False
        return fastest_backprop(*at).seconds - fastest_forward(*at).seconds

    low, high = -15.0, 6.0
    if lead(high) <= 0:
        return None
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if lead(middle) > 0 else (middle, high)
    return 8 / 10**high


def workers_to_beat_one(
    worker: Worker, network: Network, noise: float, wanted: float
) -> float | None:
    """Return from how many workers on `fg-w` is faster than one that backpropagates alone.

    Nothing that the workers send takes any time.  None, if no number of them is enough.
    """
    free = Link(0.0, 0.0)
    alone = fastest_backprop(worker, free, network, 1, noise, wanted, False).seconds

    def behind(log_p: float) -> bool:
        at = worker, free, network, round(2**log_p), noise, wanted, False
        return fastest_forward(*at).seconds >= alone

    low, high = 0.0, 60.0
    if behind(high):
        return None
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if behind(middle) else (low, middle)
    return 2**high
