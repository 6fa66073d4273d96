"""Minimizing functions by multi-tangent forward gradients, in 1 to 1,024 dimensions.

Source: Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", section 4.2 and Figure 4.  The learning rates (`frog_rates.csv`, from the published
table, to five digits), starts, numbers of steps, float32 and the stop after 50 steps that do not
lower the value are those of the published code.  Beale's function is that of Baydin et al. 2022,
"Gradients without Backpropagation", section 5.1, with the rate and the start that FROG's code has.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import backends
from dualnet.types import Array
from experiments.experiment import Experiment, Form, Settings, spread
from experiments.functions import FUNCTIONS, Estimate, Function, descend, exact

ESTIMATES = (
    "bp",
    *("mean-1", "mean-2", "mean-4", "mean-16"),
    *("projection-2", "projection-4", "projection-16"),
)
"""The exact gradient, and aggregation-k for each forward gradient, in the order of the table."""
LEAST = 1e-45
"""Near the least number above 0 in float32."""
DRAWN_AT_ONCE = 1 << 20
"""How many numbers of a seed's directions are in memory, unless one step needs more."""


def published_rates() -> dict[tuple[str, int], dict[str, float]]:
    """Return the published learning rate of each estimate, by function and n."""
    with open(Path(__file__).with_name("frog_rates.csv"), newline="", encoding="utf-8") as file:
        return {
            (row.pop("function"), int(row.pop("n"))): {name: float(r) for name, r in row.items()}
            for row in csv.DictReader(file)
        }


RATES = published_rates() | {("beale", 2): dict.fromkeys(ESTIMATES, 0.01)}


def settings(form: Form) -> list[Settings]:
    """Return the rows: a function, n, and the number of directions, 0 for the exact gradient."""
    if form.quick:
        sizes = {"sphere": (8,), "styblinski-tang": (8,), "beale": (2,)}
        return [
            {"function": f, "n": n, "k": k, "steps": 40}
            for f, ns in sizes.items()
            for n in ns
            for k in (0, 1, 4)
        ]
    return [
        {"function": f, "n": n, "k": k, "steps": FUNCTIONS[f].steps}
        for f, n in RATES
        for k in (0, 1, 2, 4, 16)
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Minimize by every estimate of k directions, from all seeds at once.

    Estimates of equal k follow the same directions, as in the published code.
    """
    function, n, k = FUNCTIONS[row["function"]], row["n"], row["k"]
    rates = {e: r for e, r in RATES[row["function"], n].items() if directions_of(e) == k}
    start = np.asarray(function.start(n), np.float32)
    x = np.broadcast_to(start, (len(rates), len(form.seeds), n)).copy()
    if k == 0:
        estimate = exact(function.value)
    else:
        estimate = forward(function, list(rates), directions(form.seeds, n, k))
    found = descend(function, estimate, x, np.array(list(rates.values())), row["steps"])
    return {
        name: {
            "rate": rate,
            "best": found.best[i].tolist(),
            "last": [float(v) if np.isfinite(v) else None for v in found.last[i]],
            "steps": found.steps[i].tolist(),
        }
        for i, (name, rate) in enumerate(rates.items())
    }


def directions_of(estimate: str) -> int:
    """Return how many directions an estimate has; the exact gradient has none."""
    return int(estimate.partition("-")[2] or 0)


def forward(function: Function, estimates: list[str], steps: Iterator[Array]) -> Estimate:
    """Return forward gradients of several aggregations along the same directions.

    Args:
        function: whose gradient.
        estimates: the aggregation of each run; a number of directions may stand behind it.
        steps: the directions of every seed, `(seeds, k, n)`, for step after step.
    """

    def estimate(x: Array) -> tuple[Array, Array]:
        v = next(steps)
        moved = np.broadcast_to(np.moveaxis(v, 1, 0)[:, None], (v.shape[1], *x.shape))
        value, d = dn.jvp(function.value, (x,), (moved,))
        d = np.moveaxis(d, 0, -1)  # (runs, seeds, k)
        rows = [AGGREGATIONS[name.partition("-")[0]](d[i], v) for i, name in enumerate(estimates)]
        return value, np.stack(rows)

    return estimate


def mean(d: Array, v: Array) -> Array:
    """Average forward gradients: d `(seeds, k)`, v `(seeds, k, n)`, result `(seeds, n)`."""
    return np.squeeze(d[:, None] @ v, 1) / d.shape[-1]


def projection(d: Array, v: Array) -> Array:
    """Project the gradient onto the span of the directions; n of them are enough, as published."""
    enough = slice(min(v.shape[1:]))
    v, wide = v[:, enough], v[:, enough].astype(np.float64)
    c = np.linalg.solve(wide @ np.swapaxes(wide, 1, 2), d[:, enough, None].astype(np.float64))
    return np.squeeze(np.swapaxes(c, 1, 2) @ wide, 1).astype(v.dtype)


AGGREGATIONS = {"mean": mean, "projection": projection}
"""Those of `dualnet.learning.aggregate`, for all seeds in one call."""


def directions(seeds: tuple[int, ...], n: int, k: int) -> Iterator[Array]:
    """Yield k normal directions of every seed, `(seeds, k, n)`, for step after step."""
    backend = backends.get("numpy")
    keys = [dn.Key(seed).fold_in("directions").fold_in(n).fold_in(k) for seed in seeds]
    steps = max(1, DRAWN_AT_ONCE // (k * n))
    for chunk in range(1 << 60):
        drawn = [backend.normal(key.fold_in(chunk), (steps, k, n), np.float32) for key in keys]
        yield from np.stack(drawn, 1)


def scaled(function: str, n: int) -> float:
    """Return what values are divided by: n for Styblinski-Tang, whose least value grows with n."""
    return float(n) if function == "styblinski-tang" else 1.0


def found_by_place(rows: list[dict]) -> dict[tuple[str, int], dict[str, dict]]:
    """Return the results of all estimates by function and n."""
    found: dict[tuple[str, int], dict[str, dict]] = {}
    for row in rows:
        place = row["settings"]["function"], row["settings"]["n"]
        found.setdefault(place, {}).update(row["results"])
    return found


def as_cell(found: dict, by: float) -> str:
    """Return the mean best value as text, with how many seeds ended as no number behind it."""
    lost = sum(last is None for last in found["last"])
    return f"{spread(found['best'])['mean'] / by:.4g}" + (f" †{lost}" if lost else "")


def table(rows: list[dict]) -> str:
    """Return the best values, means over seeds, for each function and n."""
    columns = [e for e in ESTIMATES if any(e in row["results"] for row in rows)]
    lines = [
        f"| function | n | {' | '.join(c.replace('-', ', k = ') for c in columns)} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for (function, n), found in found_by_place(rows).items():
        by = scaled(function, n)
        cells = [as_cell(found[c], by) if c in found else "" for c in columns]
        name = f"{function}{' / n' if by > 1 or function == 'styblinski-tang' else ''}"
        lines.append(f"| {name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the best value over n for each estimate, a panel for each function."""
    from matplotlib.figure import Figure

    found = found_by_place(rows)
    names = [f for f in FUNCTIONS if f != "beale" and any(f == place[0] for place in found)]
    figure = Figure(figsize=(4.6 * len(names), 4.2), layout="constrained")
    styles = {"bp": "-", "mean": "--", "projection": "-"}
    colors = {0: "black", 1: "tab:gray", 2: "tab:blue", 4: "tab:orange", 16: "tab:green"}
    for axes, function in zip(np.ravel(figure.subplots(1, len(names))), names, strict=True):
        # Of a single number, the function of Rosenbrock is 0.
        least = 2 if function == "rosenbrock" else 1
        ns = sorted(n for f, n in found if f == function and n >= least)
        for estimate in ESTIMATES:
            at = [n for n in ns if estimate in found[function, n]]
            if not at:
                continue
            means = [
                spread(found[function, n][estimate]["best"])["mean"] / scaled(function, n)
                for n in at
            ]
            if function != "styblinski-tang":
                means = np.maximum(means, LEAST)  # a logarithmic axis has no 0
            aggregation, k = estimate.partition("-")[0], directions_of(estimate)
            label = estimate.replace("-", ", k = ")
            axes.plot(at, means, styles[aggregation], color=colors[k], marker=".", label=label)
        axes.set_xscale("log", base=2)
        if function == "styblinski-tang":
            axes.axhline(FUNCTIONS[function].minimum(1), color="black", linewidth=0.6)
            axes.set_ylabel("best value / n")
        else:
            axes.set_yscale("log")
            axes.set_ylabel("best value (0 is drawn as 1e-45)")
        axes.set_xlabel("n")
        axes.set_title(function)
    figure.axes[-1].legend(fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="frog-functions",
    shows="the least value found on sphere, Rosenbrock, Styblinski-Tang and Beale, n = 1 to 1,024",
    source="Flügel et al. 2024, Figure 4; Baydin et al. 2022, section 5.1",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0, 1),
    published={
        "seeds": 5,
        "rates": "experiments/frog_rates.csv",
        "least value of styblinski-tang / n": -39.16599,
    },
)
