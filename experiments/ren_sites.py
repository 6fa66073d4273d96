"""Where local losses are: for every block, and within a block for every patch and every group.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4 and the ablation of
local losses: blockwise, patchwise and groupwise losses each reduce the variance of `lg-fg-a` and
improve what is learned.  Here a small LocalMixer sees 5,000 images of CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.analysis import EXACT, Point, variance
from dualnet.learning import ActivityPerturbation, GreedyActivityPerturbation, Rule
from dualnet.models.local_mixer import LocalMixer
from dualnet.nn import Layer, Sequential
from dualnet.types import Array
from experiments.experiment import Experiment, Form, Settings
from experiments.fdfa_variance import square
from experiments.steps import Images, Learner

RATE = 1e-3


@dataclass(frozen=True)
class AtSites(GreedyActivityPerturbation):
    """`lg-fg-a` whose losses are replicated by patch, by group, by both or not at all.

    Args:
        by_patch, by_group: whether every token, and every group of channels, has a replica.
    """

    by_patch: bool = True
    by_group: bool = True

    def answered(self, derivatives: Array) -> Array:
        axes = [axis for axis, by in ((2, self.by_patch), (3, self.by_group)) if not by]
        return np.sum(derivatives, axis=tuple(axes), keepdims=True) if axes else derivatives


SITES: dict[str, Rule] = {
    "the output alone": ActivityPerturbation(sampler="normal"),
    "blocks": AtSites(sampler="normal", by_patch=False, by_group=False),
    "blocks, groups": AtSites(sampler="normal", by_patch=False),
    "blocks, patches": AtSites(sampler="normal", by_group=False),
    "blocks, patches, groups": AtSites(sampler="normal"),
}


def sizes(form: Form) -> Settings:
    """Return the settings that all rows of small LocalMixers share."""
    if form.quick:
        return {"dataset": "digits", "width": 8, "patches": 2, "depth": 2, "images": 64, **QUICK}
    return {"dataset": "cifar10", "width": 64, "patches": 4, "depth": 2, "images": 5000, **FULL}


FULL: Settings = {"epochs": 4, "batches": 10, "tested": 2000}
QUICK: Settings = {"epochs": 1, "batches": 2, "tested": 64}


def settings(form: Form) -> list[Settings]:
    """Return the rows: sites."""
    sites = list(SITES)[::2] if form.quick else list(SITES)
    return [{"losses": site, "groups": 4, **sizes(form)} for site in sites]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row's rule learns, and the variance that it adds."""
    (seed,) = form.seeds
    images, rule = Images(row["dataset"], form, row["images"]), SITES[row["losses"]]
    return learned(images, rule, mixer(row, images, rule), row, seed)


def mixer(row: Settings, images: Images, rule: Rule, **options: bool) -> Sequential:
    """Return the LocalMixer of a row, whose output only reads if the rule has local losses.

    `options` are others of `LocalMixer`.
    """
    model = LocalMixer(
        width=row["width"],
        patches=row["patches"],
        groups=row["groups"],
        depth=row["depth"],
        readout=rule.locality != "global",
        **options,
    )
    return model.network(images.in_shape, 10)


def learned(
    images: Images, rule: Rule, network: Layer, row: Settings, seed: int
) -> dict[str, float]:
    """Learn by a rule; return the loss on training images and the accuracy on test images.

    Also return the variance that the rule adds to a gradient, relative to the gradient's square, at
    the weights after an epoch of exact gradients of the rule's losses.
    """
    learner = Learner(images, rule, network, seed, RATE)
    for batch in learner.batches(row["epochs"]):
        learner.follow(learner.estimate(batch))
    loss = learner.losses(np.arange(len(images.labels))[: row["tested"]]).mean()
    test = images.test_batch(row["tested"])
    correct = np.mean(learner.outputs(test.inputs).argmax(axis=-1) == test.targets)
    return {"loss": float(loss), "test_accuracy": float(correct), **noise(learner, row, seed)}


def noise(learner: Learner, row: Settings, seed: int) -> dict[str, float]:
    """Return the relative variance that a learner's rule adds after an epoch of exact gradients."""
    rule, images = learner.rule, learner.images
    exact = Learner(images, EXACT[rule.locality], learner.plan.task.network, seed, RATE)
    for batch in exact.batches(1):
        exact.follow(exact.estimate(batch))
    state = exact.state._replace(rule_state=learner.state.rule_state)
    point = Point(rule, exact.plan, state, exact.backend)
    key = exact.key.fold_in("variance")
    found = variance(point, images.inputs, images.labels, 64, key, row["batches"])[-1]
    squares = [
        square(exact.estimate(batch).gradients)
        for _, batch in zip(range(row["batches"]), exact.batches(row["batches"]), strict=False)
    ]
    return {"added": found.added / float(np.mean(squares))}


def lines_of(rows: list[dict], names: dict[str, str]) -> list[str]:
    """Return the lines of a table: the named settings of each row, and what it found."""
    heads = [*names.values(), "added variance / square", "training loss", "test accuracy"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in rows:
        results = row["results"]
        cells = [str(row["settings"][name]) for name in names]
        cells += [
            f"{results['added']:.3g}",
            f"{results['loss']:.3f}",
            f"{100 * results['test_accuracy']:.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(rows: list[dict]) -> str:
    """Return variance, loss and accuracy by where local losses are."""
    return "\n".join(lines_of(rows, {"losses": "local losses at"}))


def picture(rows: list[dict]) -> Any:
    """Draw variances and accuracies by where local losses are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row["settings"]["losses"] for row in rows]
    left.barh(names, [row["results"]["added"] for row in rows])
    left.set_xscale("log")
    left.set_xlabel("added variance / mean |gradient|²")
    right.barh(names, [100 * row["results"]["test_accuracy"] for row in rows])
    right.set_xlabel("test accuracy, %")
    return figure


EXPERIMENT = Experiment(
    name="ren-sites",
    shows="variance and accuracy with local losses for blocks, for patches and for groups",
    source="Ren et al. 2023, ablation of local losses",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
)
