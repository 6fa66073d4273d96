"""The tables of docs/scale-model.md: what was measured beside the model, and what it predicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from benchmarks import scale, scale_model
from benchmarks.pages import Tables, results, table
from benchmarks.scale_model import LINKS, NETWORKS, WORKER, Link, Network, Worker

SHOWN = 8, 128, 1_024, 10_000
"""For how many workers the page shows times."""
SHOWN_VARIANCES = scale_model.VARIANCES[1:]
"""V for which the page answers."""
CASES = (1_000, 1.0), (10_000, 100.0)
"""S and V of these times."""
SLOW = (1_000, 1.0), (10_000, 100.0), (1_000_000, 10_000.0)
"""S and V for which the page says how slow a link has to be."""
SMALL = tuple(Network(f"{n:,} parameters", n, 2.0 * n, 0.0, 0.0) for n in (1_000, 10_000, 100_000))
"""Fully connected networks, whose every layer takes part in full."""


def short(x: float) -> str:
    """Format a number with two digits that count, and a unit's prefix before large ones."""
    for above, prefix in (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"):
        if x >= 0.995 * above:
            return f"{two_digits(x / above)}{prefix}"
    return f"{two_digits(x)} "


def two_digits(x: float) -> str:
    """Format a number from 1 on with two digits that count."""
    return f"{x:.1f}" if x < 9.95 else f"{float(f'{x:.2g}'):,.0f}"


def time(seconds: float) -> str:
    """Format a time with two digits that count."""
    units = (("years", 3600 * 24 * 365), ("days", 3600 * 24), ("h", 3600), ("s", 1), ("ms", 1e-3))
    for unit, size in units:
        if seconds >= 0.995 * size:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{two_digits(1e6 * seconds)} µs"


# --- predictions ----------------------------------------------------------------------------------


def overtakings(network: Network, link: Link, wanted: float) -> Iterator[tuple[int, int | None]]:
    """Yield each S at which a batch has two examples or more, and from how many workers on."""
    for noise in scale_model.NOISE_SCALES:
        if noise >= 2 * wanted:
            yield noise, scale_model.overtaken(WORKER, link, network, noise, wanted, False)


def answer() -> str:
    """Return from how many workers on `fg-w` is faster."""
    rows = []
    for network in NETWORKS:
        for name, link in LINKS.items():
            cells = []
            for wanted in SHOWN_VARIANCES:
                found = dict(overtakings(network, link, wanted))
                told = [f"{f'{p:,}' if p else 'never'} at S = {s:,}" for s, p in found.items()]
                cells.append("<br>".join(told) if any(found.values()) else "never")
            rows.append([network.name, name, *cells])
    return table(["network", "link", *(f"V = {v:,g}" for v in SHOWN_VARIANCES)], rows)


def assumptions() -> str:
    """Return what is taken for granted of the workers, the links and the networks."""
    rows = [["a worker", f"{WORKER.rate / 1e12:g} TFLOP/s, kept up, and nothing else takes time"]]
    for name, link in LINKS.items():
        rows.append(
            [f"a link of {name}", f"α = {1e6 * link.alpha:g} µs, β = {1e9 * link.beta:g} ns"]
        )
    for network in NETWORKS:
        told = f"n = {network.parameters:,}, A = {short(network.operations)}FLOP for each example"
        if network.of_inputs:
            told += f", A₁ = {short(network.of_inputs)}FLOP"
        rows.append([network.name, told])
    rows.append(["a number", f"{scale_model.NUMBER} bytes"])
    return table(["what", "assumed"], rows)


def numbers() -> str:
    """Return how many numbers `fg-w` sends at least, and the k of the cheapest single step."""
    rows = []
    for wanted in scale_model.VARIANCES:
        cells = [f"{wanted:,g}"]
        for network in NETWORKS:
            n = network.parameters
            for count in (n - 1) / wanted, (n - 1) / (math.sqrt(1 + wanted) - 1):
                cells.append(short(count).rstrip())
        rows.append(cells)
    head = ["V"]
    for network in NETWORKS:
        head += [f"{network.name}: at least", "cheapest k"]
    sent = [f"{short(network.parameters).rstrip()}" for network in NETWORKS]
    own = ["`bp`, any V", *(cell for count in sent for cell in (count, ""))]
    return table(head, [*rows, own])


def times() -> str:
    """Return the times to a variance for some numbers of workers."""
    rows = []
    for network in NETWORKS:
        for noise, wanted in CASES:
            for p in SHOWN:
                cells = [network.name, f"{noise:,}", f"{wanted:g}", f"{p:,}"]
                for link in LINKS.values():
                    at = WORKER, link, network, p, noise, wanted
                    best = scale_model.fastest_backprop(*at, True)
                    cells.append(time(scale_model.fastest_backprop(*at, False).seconds))
                    cells.append(f"{time(best.seconds)} ({best.workers:,})")
                    cells.append(time(scale_model.fastest_forward(*at, False).seconds))
                rows.append(cells)
    head = ["network", "S", "V", "workers"]
    for name in LINKS:
        head += [f"{name}: `bp`", "`bp`, fastest (workers)", "`fg-w`"]
    return table(head, rows)


def links() -> str:
    """Return how slow a link has to be for `fg-w` to be faster, where all workers work."""
    rows = []
    alpha = next(iter(LINKS.values())).alpha
    for network in NETWORKS:
        for noise, wanted in SLOW:
            cells = [network.name, f"{noise:,}", f"{wanted:,.0f}"]
            for p in SHOWN:
                speed = scale_model.tie_speed(WORKER, alpha, network, p, noise, wanted)
                cells.append("never" if speed is None else f"{short(speed)}bit/s")
            rows.append(cells)
    return table(["network", "S", "V", *(f"{p:,} workers" for p in SHOWN)], rows)


def alone() -> str:
    """Return from how many workers on `fg-w` is faster than one that backpropagates alone."""
    rows = []
    for network in (*SMALL, *NETWORKS):
        cells = []
        for noise in scale_model.NOISE_SCALES[1:]:
            p = scale_model.workers_to_beat_one(WORKER, network, noise, 1.0)
            cells.append("never" if p is None else two_digits(p))
        rows.append([network.name, *cells])
    return table(["network", *(f"S = {s:,}" for s in scale_model.NOISE_SCALES[1:])], rows)


# --- measurements ---------------------------------------------------------------------------------


@cache
def measured() -> tuple[dict, dict[int, Link], Worker, dict[str, Network]]:
    """Return the file of what was measured, with the costs and the networks in it."""
    found = results("scale")
    links = {int(p): Link(**link) for p, link in found["fitted"]["links"].items()}
    networks = {name: Network(*values) for name, values in found["networks"].items()}
    return found, links, Worker(**found["fitted"]["worker"]), networks


def of_exchanges() -> dict[int, dict[int, tuple[float, float]]]:
    """Return by processes and bytes what an exchange took, and what the model says."""
    found, links, *_ = measured()
    pairs: dict[int, dict[int, tuple[float, float]]] = {}
    for row in found["exchanges"]:
        p, nbytes = row["processes"], row["bytes"]
        pairs.setdefault(p, {})[nbytes] = row["seconds"], scale.exchange_seconds(links[p], row)
    return pairs


def of_steps() -> dict[tuple[str, str, str], dict[int, tuple[float, float]]]:
    """Return by network, rule and share, and by processes, what a step took, and the model's."""
    found, links, worker, networks = measured()
    pairs: dict[tuple[str, str, str], dict[int, tuple[float, float]]] = {}
    for row in found["steps"]:
        p, network = row["processes"], networks[row["network"]]
        says = scale.step_seconds(worker, links[p], network, row, found["cores"])
        name = row["network"], row["rule"], row["share"]
        pairs.setdefault(name, {})[p] = row["seconds"], says
    return pairs


def errors(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the root of the mean square of relative errors, and the largest."""
    relative = np.array([abs(says / took - 1) for took, says in pairs])
    return float(np.sqrt(np.mean(relative**2))), float(relative.max())


def fitted() -> str:
    """Return the fitted costs, and how far off the model is."""
    _, links, worker, _ = measured()
    rows = []
    for p, pairs in of_exchanges().items():
        usual, most = errors(pairs.values())
        told = f"α = {1e6 * links[p].alpha:.0f} µs, β = {1e9 * links[p].beta:.2f} ns"
        rows.append([f"exchanges of {p} processes", told, f"{usual:.0%}", f"{most:.0%}"])
    usual, most = errors(pair for by_p in of_steps().values() for pair in by_p.values())
    costs = (
        f"{worker.rate / 1e9:.0f} GFLOP/s; {1e9 * worker.touch:.2f} ns for a number that a layer "
        f"gives, {1e9 * worker.draw:.1f} ns for a number of a dense direction, "
        f"{1e3 * worker.overhead:.1f} ms for a step"
    )
    rows.append(["steps", costs, f"{usual:.0%}", f"{most:.0%}"])
    return table(["what", "fitted", "usual error", "largest"], rows)


def exchanges() -> str:
    """Return what some exchanges took, and what the model says."""
    pairs = of_exchanges()
    sizes = list(next(iter(pairs.values())))[::3]
    rows = [
        [f"{size:,}", *(f"{1e3 * x:.2f}" for p in pairs for x in pairs[p][size])] for size in sizes
    ]
    head = ["bytes"]
    for p in pairs:
        head += [f"{p} processes", "model"]
    return table(head, rows)


def steps() -> str:
    """Return what all steps took, and what the model says."""
    rows = []
    for (network, rule, share), by_p in of_steps().items():
        cells = [network, f"`{rule}`", share]
        for p in range(1, 5):
            took = by_p.get(p)
            cells.append("" if took is None else f"{1e3 * took[0]:.1f} / {1e3 * took[1]:.1f}")
        rows.append(cells)
    return table(["network", "rule", "shared", *(f"p = {p}" for p in range(1, 5))], rows)


def when() -> str:
    """Say where and when the machine was measured."""
    found, *_ = measured()
    return f"{found['machine']}; {found['date']}."


TABLES: Tables = {
    "scale answer": answer,
    "scale numbers": numbers,
    "scale assumptions": assumptions,
    "scale times": times,
    "scale links": links,
    "scale alone": alone,
    "scale when": when,
    "scale fitted": fitted,
    "scale exchanges": exchanges,
    "scale steps": steps,
}
