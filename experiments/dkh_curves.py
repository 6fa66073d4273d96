"""What the figures of Daprato, Jain and Hung have in common: curves of trainings by recipes.

Source: "Forward Gradients Are Not All You Need", Figures 2 to 5.  They are published as pictures
without numbers, so what the paper says of them in words stands beside what was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from experiments.experiment import Experiment, Form, Settings
from experiments.training import by_recipe, drawable, trained

PAPER = "Daprato, Jain and Hung, Forward Gradients Are Not All You Need"
LENGTH = {"epochs": "--epochs", "images": "--limit-train", "test_images": "--limit-test"}
"""What a row says of its length → the flag for it."""
HIGHEST = 100.0
"""Losses above this lie outside a picture, so that a run on its way to infinity hides no other."""
QUICK = "--limit-train 32 --limit-test 32 --epochs 2 --batch-size 16"


@dataclass(frozen=True)
class Line:
    """A line of a table, and a part of its picture.

    Attributes:
        label: what tells it from the others.
        recipes: the head of a column → the recipe that is trained for it.
        says: what the paper says of it.
    """

    label: str
    recipes: Mapping[str, str]
    says: str


def curves(
    name: str,
    shows: str,
    where: str,
    lines: Sequence[Line],
    quick: Sequence[str],
    **length: int,
) -> Experiment:
    """Return the experiment that trains the recipes of a figure.

    Args:
        name, shows: of the experiment.
        where: the figure or section in the paper.
        lines: of its table.
        quick: the recipes of the quick form.
        length: how much is trained and tested, by the names in `LENGTH`; the paper does not say.
    """
    columns = list(dict.fromkeys(column for line in lines for column in line.recipes))

    def settings(form: Form) -> list[Settings]:
        if form.quick:
            return [{"recipe": recipe} for recipe in quick]
        recipes = dict.fromkeys(r for line in lines for r in line.recipes.values())
        return [{"recipe": recipe, **length} for recipe in recipes]

    def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
        flags = [f"{flag} {row[name]}" for name, flag in LENGTH.items() if name in row]
        short = QUICK if form.quick else " ".join(flags)
        return trained(f"--recipe {row['recipe']} {short}", replace(form, quick=False))

    def table(rows: list[dict]) -> str:
        found = by_recipe(rows)
        head = [f"`{column}`: train loss, test accuracy" for column in columns]
        text = [f"| | {' | '.join(head)} | in the paper |", f"| --- |{' --- |' * (len(head) + 1)}"]
        for line in lines:
            if any(recipe in found for recipe in line.recipes.values()):
                cells = [cell(found.get(line.recipes.get(column, ""), [])) for column in columns]
                text.append(f"| {line.label} | {' | '.join(cells)} | {line.says} |")
        return "\n".join(text)

    def picture(rows: list[dict]) -> Any:
        return draw(by_recipe(rows), lines)

    return Experiment(
        name=name,
        shows=shows,
        source=f"{PAPER}, {where}",
        settings=settings,
        measure=measure,
        table=table,
        picture=picture,
        published={"in words": {line.label: line.says for line in lines}},
        backends=("numpy", "cupy"),
        each_seed=True,
    )


def diverged(result: dict[str, Any]) -> str:
    """Return when a run has diverged, such as `diverged at step 12`; nothing if it has not."""
    when = re.search(r"diverged (at step|in epoch) \d+", result.get("diverged", ""))
    return when[0] if when else ""


def cell(results: list[dict]) -> str:
    """Return the last training loss and test accuracy, means of the seeds, and who diverged."""
    if not results:
        return "–"
    good = [result for result in results if "diverged" not in result]
    parts = []
    if good:
        loss = fmean(result["train_loss"] for result in good)
        accuracy = fmean(result["test_accuracy"] for result in good)
        parts.append(f"{loss:.3g}, {100 * accuracy:.1f} %")
    lost = [diverged(result) for result in results if "diverged" in result]
    if lost:
        parts.append(lost[0] if len(results) == 1 else f"{len(lost)} of {len(results)} diverged")
    return "; ".join(parts)


def draw(found: dict[str, list[dict]], lines: Sequence[Line]) -> Any:
    """Draw a part for each line: the training loss of each epoch, a color for each rule."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = [line for line in lines if any(r in found for r in line.recipes.values())]
    across = 2 if len(shown) == 4 else min(3, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(3.6 * across, 3.2 * down), layout="constrained")
    parts = figure.subplots(down, across, squeeze=False, sharey=True)
    curves = [result["curves"]["train_loss"] for results in found.values() for result in results]
    epochs = max(map(len, curves), default=0)
    for axes in parts.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, line in zip(parts.flat, shown, strict=False):
        for column, recipe in line.recipes.items():
            color, label = "C0" if column == "bp" else "C1", column
            for result in found.get(recipe, []):
                losses = result["curves"]["train_loss"]
                when = diverged(result)
                # A run that was lost in its first epoch has a cross at the top, as it has no loss.
                lost = len(losses) == 0
                axes.plot(
                    [1] if lost else range(1, len(losses) + 1),
                    [0.95] if lost else drawable(losses),
                    "x-" if when else ".-",
                    color=color,
                    label=f"{label}, {when}" if when and label else label,
                    lw=1,
                    **({"transform": axes.get_xaxis_transform()} if lost else {}),
                )
                label = None
        axes.set(title=line.label, xlabel="epoch", yscale="log")
        axes.title.set_fontsize("medium")
        axes.set_xlim(1 - 0.05 * epochs, 1.05 * epochs)  # the same in all parts
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="x-small")
    for row in parts:
        row[0].set_ylabel("training loss of the epoch")
    parts[0, 0].set_ylim(top=min(parts[0, 0].get_ylim()[1], HIGHEST))
    return figure
