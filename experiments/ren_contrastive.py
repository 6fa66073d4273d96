"""Contrastive learning by every rule, in a small form.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Table 4: errors of a linear
read-out on CIFAR-10 after 800 epochs with LocalMixer M/8/16.  Here the mixer is smaller, sees 5,000
of the images, and learns for 10 epochs, all rules with one direction and at one rate.  Under the
rules of forward gradients, crops are large, as they are in the paper.
"""

from __future__ import annotations

from typing import Any

from dualnet.training.recipes import RECIPES
from experiments import ren_stop
from experiments.experiment import Experiment, Form, Settings
from experiments.training import trained

BEGIN = "ren-contrastive-"
PUBLISHED = {
    name.removeprefix(BEGIN): round(100 * recipe.accuracy, 2)
    for name, recipe in RECIPES.items()
    if name.startswith(BEGIN) and recipe.accuracy is not None
}
"""Test accuracies of the read-out, in %."""
PUBLISHED_FORM = "--negatives both-views --readout-norm --no-head-norm --no-output-norm"
"""The loss and the norms of the published contrastive form, as in the recipes."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: rules."""
    rules = ("bp", "lg-fg-a") if form.quick else tuple(PUBLISHED)
    network = ren_stop.NETWORK.replace("train 1000", "train 5000").replace(
        "test 2000", "test 10000"
    )
    return [
        {
            "rule": rule,
            "flags": f"{network} {PUBLISHED_FORM} --groups 4 --rule {rule} "
            + ("--sampler normal " if rule in ("fg-a", "lg-fg-a") else "")
            + ("--augment contrastive-large" if "fg-" in rule else "--augment contrastive"),
        }
        for rule in rules
    ]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return the losses along training, and the accuracy of the linear read-out.

    The accuracy of a run that diverges is None.
    """
    return [
        {"train_loss": one["curves"]["train_loss"], "test_accuracy": one.get("test_accuracy")}
        for one in trained(row["flags"], form)
    ]


def table(rows: list[dict]) -> str:
    """Return the accuracy of the read-out beside the published one."""
    lines = ["| `--rule` | read-out, here | read-out, published |", "| --- | --- | --- |"]
    for row in rows:
        rule, accuracy = row["settings"]["rule"], row["results"]["test_accuracy"]
        lines.append(f"| `{rule}` | {ren_stop.read_out(accuracy)} | {PUBLISHED[rule]:.2f} % |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw accuracies here over the published ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        rule, share = row["settings"]["rule"], row["results"]["test_accuracy"]
        if share is None:
            continue
        accuracy = 100 * share
        axes.plot([PUBLISHED[rule]], [accuracy], "o", color="tab:blue")
        axes.annotate(rule, (PUBLISHED[rule], accuracy), (4, 3), textcoords="offset points")
    axes.margins(0.1)  # room for the names
    axes.set_xlabel("published test accuracy of the read-out, %")
    axes.set_ylabel("here, %")
    return figure


EXPERIMENT = Experiment(
    name="ren-contrastive",
    shows="linear read-out of features that every rule learned by a contrastive loss, small form",
    source="Ren et al. 2023, Table 4",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    published={"test_accuracy": PUBLISHED},
    backends=("numpy", "cupy"),
    each_seed=True,
)
