"""The variance of forward gradients of weights and of activities, for one layer.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Table 1 and Propositions 3
and 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.learning import ActivityPerturbation, Backprop, Rule, WeightPerturbation
from dualnet.nn import Activation, Flatten, Linear, Sequential, tanh
from experiments.experiment import Experiment, Form, Settings, figure, over_seeds
from experiments.start import Start
from experiments.steps import Images

UNITS = 16
"""q of the layer of Table 1; the images of 8 x 8 pixels are its p = 64."""
SIZES = (1, 4, 16, 64)

METHODS: dict[str, Rule] = {
    "FG-W, shared": WeightPerturbation(output_layers="exact"),
    "FG-W, independent": WeightPerturbation(
        sampler="rank-one", independent=True, output_layers="exact"
    ),
    "FG-A, shared": ActivityPerturbation(sampler="normal", independent=False),
    "FG-A, independent": ActivityPerturbation(sampler="normal"),
}
"""Rows of Table 1.  One layer is perturbed, as the read-out has its exact gradient."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: methods by size of the batch."""
    sizes = (4,) if form.quick else SIZES
    drawn = (8, 10) if form.quick else (64, 200)
    return [
        {
            **{"method": method, "batch": batch, "dataset": "digits"},
            **{"examples": drawn[0], "estimates": drawn[1]},
        }
        for method in METHODS
        for batch in sizes
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row found, means over seeds with their standard errors."""
    images = Images(row["dataset"], form, limit=1000)
    return over_seeds([at_start(row, images, seed) for seed in form.seeds])


def at_start(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return the variance of a layer's weight, over directions and batches, and theory's.

    Batches are drawn from a few examples with replacement, so that V and S are known.  All are
    means over the weights, relative to S.
    """
    layers = (
        ("flatten", Flatten()),
        ("hidden", Linear(UNITS, bias=False)),
        ("tanh", Activation(tanh)),
        ("output", Linear(10)),
    )
    start = Start(Sequential(layers), images.in_shape, seed, EXPERIMENT.name)
    of_examples = np.array(
        [
            start.gradients(Backprop(), images.batch(np.array([i])))["hidden/w"]
            for i in range(row["examples"])
        ],
        np.float64,
    )
    mean = of_examples.mean(0)
    variance, square = float(of_examples.var(0).mean()), float(np.square(mean).mean())
    rng = np.random.default_rng(seed)
    squares = []
    for draw in range(row["estimates"]):
        batch = images.batch(rng.integers(0, row["examples"], row["batch"]))
        estimate = start.gradients(METHODS[row["method"]], batch, draw)["hidden/w"]
        squares.append(np.square(estimate - mean).mean())
    p, q = mean.shape
    stated = {
        name: (a * variance / row["batch"] + b * square) / square
        for name, (a, b) in factors(row["method"], p, q, row["batch"]).items()
    }
    return {"measured": float(np.mean(squares)) / square, "V": variance / square, **stated}


def factors(method: str, p: int, q: int, batch: int) -> dict[str, tuple[float, float]]:
    """Return what V / N and S are multiplied by: as published, and for the directions used here.

    The published factors are for normal directions.  Those of single examples' weights are signs
    here, whose fourth moment is 1 instead of 3.
    """
    of_weights = method.startswith("FG-W")
    shared = method.endswith("shared")
    n = p * q if of_weights else q
    share = 1 if shared else batch
    signs = of_weights and not shared
    published = (n + 2, (n + 1) / share)
    return {"published": published, "theory": (n, (n - 1) / share) if signs else published}


def table(rows: list[dict]) -> str:
    """Return measured variances beside theory and the published ones."""
    sizes = sorted({row["settings"]["batch"] for row in rows})
    lines = [
        f"| variance of a weight over S | {' | '.join(f'N = {n}' for n in sizes)} |",
        f"| --- |{' --- |' * len(sizes)}",
    ]
    for method in METHODS:
        results = [row["results"] for row in rows if row["settings"]["method"] == method]
        shown = {"": "measured", ", theory for signs": "theory", ", published": "published"}
        if results[0]["theory"] == results[0]["published"]:
            del shown[", theory for signs"]
        for label, name in shown.items():
            cells = [figure(found[name], errors=name == "measured") for found in results]
            lines.append(f"| {method}{label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the variances over the size of the batch."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 4.5), layout="constrained")
    axes = drawing.subplots()
    for i, method in enumerate(METHODS):
        of_method = [row for row in rows if row["settings"]["method"] == method]
        sizes = [row["settings"]["batch"] for row in of_method]
        means = {
            name: [row["results"][name]["mean"] for row in of_method]
            for name in ("measured", "theory")
        }
        axes.plot(sizes, means["theory"], color=f"C{i}", label=None if i else "theory (lines)")
        axes.plot(sizes, means["measured"], "o", color=f"C{i}", label=method)
    axes.set(yscale="log", xlabel="N, examples of a batch", ylim=(1, 3e5))
    axes.set_xscale("log", base=2)
    axes.set_ylabel("variance of a weight over S")
    axes.legend(fontsize="small", loc="upper right")
    return drawing


EXPERIMENT = Experiment(
    name="ren-variance",
    shows="variance of forward gradients of weights and of activities, for one layer",
    source="Ren et al. 2023, Table 1, Propositions 3 and 4",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0,),
    published={
        "FG-W, shared": "(pq+2)/N V + (pq+1) S",
        "FG-W, independent": "(pq+2)/N V + (pq+1)/N S",
        "FG-A, shared": "(q+2)/N V + (q+1) S",
        "FG-A, independent": "(q+2)/N V + (q+1)/N S",
    },
)
