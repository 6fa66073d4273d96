"""What a gradient's variance does to the loss after an epoch.

Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", section 4.3 and Figure 6: Gaussian noise of many sizes is added to the gradient of
backpropagation, a network of two layers learns MNIST for an epoch, and the loss is drawn over the
variance of the gradient; beside it stand the rules of forward gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import dualnet as dn
from dualnet import tree
from dualnet.learning import Backprop
from dualnet.tree import Tree
from experiments.experiment import Experiment, Form, Settings, spread
from experiments.fdfa_variance import square
from experiments.steps import Images, Learner, mlp, published_rule

DEVIATIONS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of the noise in each entry of the gradient."""
RULES = ("fdfa", "fg-a", "fg-w")


def settings(form: Form) -> list[Settings]:
    """Return the rows: noise of each size, then rules."""
    if form.quick:
        sizes = {"dataset": "digits", "width": 16, "every": 2}
        return [{"noise": 1e-3, **sizes}, {"rule": "fg-a", **sizes}]
    sizes = {"dataset": "mnist", "width": 800, "every": 50}
    noisy = [{"noise": deviation, **sizes} for deviation in DEVIATIONS]
    return noisy + [{"rule": rule, **sizes} for rule in RULES]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Learn for an epoch with each seed; return the loss on the training images, and errors.

    The error is that of one entry of the gradient: the mean squared distance from the exact
    gradient of the same batch, over all weights and over the steps at which it is measured.  Where
    the mean of a gradient is exact, as with noise, it is the variance that is added.
    """
    images = Images(row["dataset"], form)
    found = [learned(row, images, seed) for seed in form.seeds]
    losses, errors, squares = zip(*found, strict=True)
    return {
        "loss": spread(losses),
        "variance": spread(errors),
        "squared_gradient": spread(squares),
    }


def learned(row: Settings, images: Images, seed: int) -> tuple[float, float, float]:
    """Return the loss after an epoch, the squared error, and the mean square of a gradient."""
    rule = published_rule(row["rule"]) if "rule" in row else Backprop()
    learner = Learner(images, rule, mlp(images, rule, row["width"], 2), seed)
    distances, squares = [], []
    for batch in learner.batches(1):
        done = learner.estimate(batch)
        gradients = done.gradients
        if "noise" in row:
            key = learner.key.fold_in("noise").fold_in(learner.updates)
            gradients = noisy(gradients, row["noise"], key, learner)
        if learner.updates % row["every"] == 0:
            exact = learner.estimate(batch, Backprop()).gradients
            distances.append(square(tree.map(np.subtract, gradients, exact)))
            squares.append(square(exact))
        learner.follow(done, gradients)
    entries = sum(p.size for p in tree.leaves(learner.state.params))
    loss = learner.losses(np.arange(len(images.labels))).mean()
    return (
        float(loss),
        float(np.mean(distances)) / entries,
        float(np.mean(squares)) / entries,
    )


def noisy(gradients: Tree, deviation: float, key: dn.Key, learner: Learner) -> Tree:
    """Return gradients with normal noise of a standard deviation in every entry."""
    if deviation == 0:
        return gradients

    def with_noise(path: str, g: Any) -> Any:
        noise = learner.backend.normal(key.fold_in(path), g.shape, g.dtype)
        return g + g.dtype.type(deviation) * noise

    return tree.map_with_path(with_noise, gradients)


def name_of(row: dict) -> str:
    """Return what a row is of."""
    of = row["settings"]
    return f"`{of['rule']}`" if "rule" in of else f"`bp`, noise {of['noise']:g}"


def table(rows: list[dict]) -> str:
    """Return error and loss of every row."""
    lines = [
        "| gradient | squared error of an entry | over squared gradient | loss after an epoch |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        results = row["results"]
        off = results["variance"]["mean"]
        ratio = off / results["squared_gradient"]["mean"]
        error = results["loss"]["error"]
        loss = f"{results['loss']['mean']:.3f}" + ("" if error is None else f" ± {error:.3f}")
        lines.append(f"| {name_of(row)} | {off:.2g} | {ratio:.2g} | {loss} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the loss over the squared error: noisy backpropagation as a line, rules as points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes, relative = figure.subplots(1, 2, sharey=True)
    for panel, of_square in ((axes, False), (relative, True)):
        line = [place(row, of_square) for row in rows if row["settings"].get("noise", 0.0) > 0]
        panel.plot(*zip(*line, strict=True), "o-", color="black", label="bp with noise")
        for row in rows:
            if "rule" in row["settings"]:
                panel.plot(*place(row, of_square), "s", label=row["settings"]["rule"])
            elif row["settings"]["noise"] == 0:
                loss = row["results"]["loss"]["mean"]
                panel.axhline(loss, color="black", linestyle=":", linewidth=0.8, label="bp")
        panel.set_xscale("log")
        panel.set_yscale("log")
    axes.set_xlabel("mean squared error of an entry of the gradient")
    relative.set_xlabel("mean squared error over mean squared gradient")
    axes.set_ylabel("loss after an epoch")
    axes.legend(fontsize="small")
    return figure


def place(row: dict, of_square: bool) -> tuple[float, float]:
    """Return where a row is in the picture."""
    results = row["results"]
    unit = results["squared_gradient"]["mean"] if of_square else 1.0
    return results["variance"]["mean"] / unit, results["loss"]["mean"]


EXPERIMENT = Experiment(
    name="fdfa-noise",
    shows="loss after an epoch over the variance of noise in backpropagation, and rules beside",
    source="Bacho and Chu, Figure 6",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    published={"rules": "all points lie on the line of noisy backpropagation"},
)
