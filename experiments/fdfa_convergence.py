"""How fast each rule learns: loss and test accuracy along training.

Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", section 4.2 and Figure 3.  The curves are those of the trainings of `fdfa-mlp` and
`fdfa-cnn`: a row that one of them has in the same folder is taken from there, and only what is
missing is trained.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from statistics import fmean
from typing import Any

from dualnet.training.recipes import RECIPES
from experiments import fdfa_cnn, fdfa_mlp
from experiments.experiment import Experiment, Form, Settings, file_of, named, read_rows
from experiments.training import trained

NETWORKS = {
    "fdfa-mlp2-mnist": ("MNIST, 2 layers", fdfa_mlp.EXPERIMENT),
    "fdfa-cnn-code-mnist": ("MNIST, convolutions", fdfa_cnn.EXPERIMENT),
}
"""What recipes begin with → the head of their panels, and the experiment that trains them."""
RULES = ("bp", "fg-w", "fg-a", "lg-fg-a", "dfa", "dkp", "fdfa")
EPOCHS = (1, 3, 10, 30, 100)
REACHED = (0.9, 0.97, 0.98)
"""Test accuracies of which the table says after how many epochs they are reached."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: recipes."""
    if form.quick:
        return [{"recipe": f"fdfa-mlp2-mnist-{rule}"} for rule in ("bp", "fdfa")]
    return [
        {"recipe": f"{network}-{rule}"}
        for network, (_, experiment) in NETWORKS.items()
        for rule in RULES
        if f"{network}-{rule}" in experiment.published["test_accuracy"]
    ]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return the curves of every seed, from the experiment that has trained it or by training."""
    _, experiment = NETWORKS[network_of(row)]
    path = file_of(experiment, form, form.work.parent)
    known = {
        known["seeds"]: known["results"]
        for known in read_rows(experiment, path)
        if known["settings"] == row
    }
    found = []
    for seed in form.seeds:
        name = named((seed,))
        if name not in known:
            alone = replace(form, seeds=(seed,))
            (known[name],) = trained(f"--recipe {row['recipe']}", alone)
        found.append({"curves": known[name]["curves"]})
    return found


def network_of(settings: Settings) -> str:
    """Return what the name of a row's recipe begins with."""
    return settings["recipe"].removesuffix(f"-{rule_of(settings)}")


def rule_of(settings: Settings) -> str:
    """Return the rule of a row's recipe."""
    return RECIPES[settings["recipe"]].settings["rule"]


def by_recipe(rows: list[dict]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return the mean curves over seeds, by network and rule."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        name = network_of(row["settings"]), rule_of(row["settings"])
        found.setdefault(name, []).append(row["results"]["curves"])
    return {
        name: {
            column: [fmean(e) for e in zip(*(finite(c[column]) for c in curves), strict=False)]
            for column in ("train_loss", "test_accuracy")
        }
        for name, curves in found.items()
    }


def finite(curve: list[float | None]) -> list[float]:
    """Return a curve up to where a number is not finite, which a row has as None."""
    return [number for number in itertools.takewhile(lambda n: n is not None, curve)]


def table(rows: list[dict]) -> str:
    """Return losses after some epochs, and how many epochs it takes to some accuracies."""
    of_all = by_recipe(rows)
    last = max(len(curves["train_loss"]) for curves in of_all.values())
    epochs = [epoch for epoch in EPOCHS if epoch <= last]
    heads = [f"loss, epoch {epoch}" for epoch in epochs]
    heads += [f"epochs to {100 * accuracy:.0f} %" for accuracy in REACHED]
    lines = [f"| | `--rule` | {' | '.join(heads)} |", f"| --- | --- |{' --- |' * len(heads)}"]
    for (network, rule), curves in of_all.items():
        loss = curves["train_loss"]
        cells = [f"{loss[e - 1]:.3g}" if e <= len(loss) else "" for e in epochs]
        cells += [first_above(curves["test_accuracy"], accuracy) for accuracy in REACHED]
        lines.append(f"| {NETWORKS[network][0]} | `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def first_above(curve: list[float], accuracy: float) -> str:
    """Return the first epoch that ends with at least an accuracy, as text; – for none."""
    reached = [epoch for epoch, found in enumerate(curve, 1) if found >= accuracy]
    return str(reached[0]) if reached else "–"


def picture(rows: list[dict]) -> Any:
    """Draw losses and test accuracies over epochs, a row of panels for each network."""
    from matplotlib.figure import Figure

    of_all = by_recipe(rows)
    networks = list(dict.fromkeys(network for network, _ in of_all))
    figure = Figure(figsize=(10, 3.6 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 2, squeeze=False)
    for (network, rule), curves in of_all.items():
        losses, accuracies = panels[networks.index(network)]
        color = f"C{RULES.index(rule)}"
        epochs = range(1, len(curves["train_loss"]) + 1)
        losses.plot(epochs, curves["train_loss"], color=color, label=rule)
        percents = [100 * accuracy for accuracy in curves["test_accuracy"]]
        accuracies.plot(epochs, percents, color=color, label=rule)
        losses.set(title=NETWORKS[network][0], xlabel="epoch", ylabel="training loss")
        losses.set_yscale("log")
        accuracies.set(xlabel="epoch", ylabel="test accuracy, %")
        accuracies.legend(fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="fdfa-convergence",
    shows="loss and test accuracy along training, by every rule",
    source="Bacho and Chu, Figure 3",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    backends=("numpy", "cupy"),
    each_seed=True,
)
