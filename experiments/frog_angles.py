"""What the angle between directions does to forward gradients.

Source: Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", section 4.3 and Figure 5: all directions have one angle to the first.  Left the cosine
of the estimate to a gradient of 64 ones, right the least value found on Styblinski-Tang in 64
dimensions.  The learning rates are the published ones, to five digits; the published code has no
rates of their own for projections at an angle and takes those of normal directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import dualnet as dn
from dualnet.learning.directions.samplers import sampler_of
from dualnet.types import Array
from experiments import frog_functions, frog_quality
from experiments.experiment import Experiment, Form, Settings, spread
from experiments.functions import FUNCTIONS, descend

N = 64
ANGLES = (15, 30, 45, 60, 75, 90)
MEAN_RATES = {
    (16, 15): 0.026051,
    (16, 30): 0.036365,
    (16, 45): 0.026051,
    **{(16, angle): 0.035296 for angle in (60, 75, 90)},
    (64, 15): 0.026051,
    **{(64, angle): 0.035296 for angle in (30, 45, 60, 75, 90)},
}
PROJECTION_RATES = {16: 0.0018424, 64: 0.035296}


def settings(form: Form) -> list[Settings]:
    """Return the rows: cosines, then descents, each with k and an angle in degrees."""
    angles, steps, draws = ((15, 90), 40, 20) if form.quick else (ANGLES, 1000, 1000)
    return [
        *(
            {"shown": "cosine", "k": k, "angle": a, "draws": draws}
            for k in (4, 16, 64)
            for a in angles
        ),
        *({"shown": "value", "k": k, "angle": a, "steps": steps} for k in (16, 64) for a in angles),
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return the cosines of mean and projection, or the least values that they find."""
    return cosines(row, form) if row["shown"] == "cosine" else values(row, form)


def cosines(row: Settings, form: Form) -> dict[str, Any]:
    """Return the mean cosine of each aggregation; the draws are spread over the seeds."""
    exact, sampler = np.ones(N), f"angle:{row['angle']}"
    found: dict[str, list[float]] = {"mean": [], "projection": []}
    for draw in range(row["draws"]):
        seed = form.seeds[draw % len(form.seeds)]
        key = dn.Key(seed).fold_in("angles").fold_in(draw)
        v = frog_quality.directions(sampler, key, row["k"])[None]
        for name, cosine in found.items():
            estimate = frog_functions.AGGREGATIONS[name](v @ exact, v)[0]
            cosine.append(frog_quality.compared(estimate, exact)[0])
    return {name: spread(cosine) for name, cosine in found.items()}


def values(row: Settings, form: Form) -> dict[str, Any]:
    """Return the least values of Styblinski-Tang / n that each aggregation finds, by seed."""
    function, k, angle = FUNCTIONS["styblinski-tang"], row["k"], row["angle"]
    rates = {"mean": MEAN_RATES[k, angle], "projection": PROJECTION_RATES[k]}
    x = np.zeros((len(rates), len(form.seeds), N), np.float32)
    steps = turned(frog_functions.directions(form.seeds, N, k), angle)
    estimate = frog_functions.forward(function, list(rates), steps)
    found = descend(function, estimate, x, np.array(list(rates.values())), row["steps"])
    return {
        name: {"rate": rate, "best": (found.best[i] / N).tolist()}
        for i, (name, rate) in enumerate(rates.items())
    }


def turned(drawn: Iterator[Array], angle: int) -> Iterator[Array]:
    """Yield the directions of all seeds, `(seeds, k, n)`, turned to an angle to the first."""
    mix = sampler_of(f"angle:{angle}").mix
    assert mix is not None
    for v in drawn:
        wide = v.astype(np.float64)
        yield np.stack([mix(one @ one.T, N) @ one for one in wide]).astype(v.dtype)


def found_in(rows: list[dict]) -> dict[tuple[str, int, str], dict[int, Any]]:
    """Return what was shown by kind, k and aggregation: a figure for each angle."""
    found: dict[tuple[str, int, str], dict[int, Any]] = {}
    for row in rows:
        of = row["settings"]
        for aggregation, result in row["results"].items():
            figure = result if of["shown"] == "cosine" else spread(result["best"])
            found.setdefault((of["shown"], of["k"], aggregation), {})[of["angle"]] = figure
    return found


def table(rows: list[dict]) -> str:
    """Return cosines and values by angle, with theory for the cosine of the projection."""
    found = found_in(rows)
    angles = sorted(next(iter(found.values())))
    lines = [
        f"| | {' | '.join(f'{a}°' for a in angles)} | theory |",
        f"| --- |{' --- |' * len(angles)} --- |",
    ]
    names = {"cosine": "cosine", "value": "least value / n"}
    for (shown, k, aggregation), figures in found.items():
        digits = 3 if shown == "cosine" else 2
        cells = [f"{figures[a]['mean']:.{digits}f}" for a in angles]
        of_theory = ""
        if shown == "cosine" and aggregation == "projection":
            of_theory = f"{frog_quality.onto_span(k, N):.3f}"
        label = f"{names[shown]}, {aggregation}, k = {k}"
        lines.append(f"| {label} | {' | '.join(cells)} | {of_theory} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw cosines and values over the angle, with confidence intervals of 95 %."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = dict(zip(("cosine", "value"), figure.subplots(1, 2), strict=True))
    colors = {4: "tab:orange", 16: "tab:green", 64: "tab:purple"}
    for (shown, k, aggregation), figures in found_in(rows).items():
        angles = sorted(figures)
        means = [figures[a]["mean"] for a in angles]
        errors = [1.96 * (figures[a]["error"] or 0.0) for a in angles]
        panels[shown].errorbar(
            angles,
            means,
            errors,
            linestyle="--" if aggregation == "mean" else "-",
            color=colors[k],
            marker=".",
            capsize=2,
            label=f"{aggregation}, k = {k}",
        )
    panels["cosine"].set_ylabel("cosine to the gradient")
    panels["value"].set_ylabel("least value of Styblinski-Tang / n")
    panels["value"].axhline(FUNCTIONS["styblinski-tang"].minimum(1), color="black", linewidth=0.6)
    panels["cosine"].legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, 0.93))
    panels["value"].legend(fontsize="small")
    for axes in panels.values():
        axes.set_xlabel("angle to the first direction, degrees")
    return figure


EXPERIMENT = Experiment(
    name="frog-angles",
    shows="cosine, and values found on Styblinski-Tang, for directions at 15 to 90 degrees",
    source="Flügel et al. 2024, Figure 5",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0, 1),
    published={"draws": 1000, "seeds": 5},
)
