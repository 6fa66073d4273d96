"""Tables of published rows: each recipe trained as it is, its test accuracy beside the paper's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from dualnet.training.recipes import RECIPES
from experiments.experiment import Experiment, Form, Settings
from experiments.training import by_recipe, percents, trained

Columns = Mapping[str, str]
"""The head of a column → what its recipes' names begin with; the rule's name ends them."""


def recipe_table(
    name: str, shows: str, source: str, columns: Columns, quick: Sequence[str]
) -> Experiment:
    """Return the experiment that trains every recipe of a table, a row for each and each seed.

    Args:
        name, shows, source: of the experiment.
        columns: of the table; its lines are the rules.
        quick: the recipes of the quick form.
    """
    recipes = {
        f"{begin}-{rule}": (head, rule)
        for head, begin in columns.items()
        for rule in _rules_of(begin)
    }

    def settings(form: Form) -> list[Settings]:
        return [{"recipe": recipe} for recipe in (quick if form.quick else recipes)]

    def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
        return trained(f"--recipe {row['recipe']}", form)

    def table(rows: list[dict]) -> str:
        found = by_recipe(rows)
        heads = {recipes[recipe][0]: None for recipe in found}
        rules = {rule: None for recipe, (_, rule) in recipes.items() if recipe in found}
        lines = [
            f"| test accuracy, % | {' | '.join(heads)} |",
            f"| --- |{' --- |' * len(heads)}",
        ]
        for rule in rules:
            cells = [_cell(f"{columns[head]}-{rule}", found) for head in heads]
            lines.append(f"| `{rule}` | {' | '.join(cells)} |")
        return "\n".join(lines)

    def picture(rows: list[dict]) -> Any:
        return _draw(by_recipe(rows), recipes)

    return Experiment(
        name=name,
        shows=shows,
        source=source,
        settings=settings,
        measure=measure,
        table=table,
        picture=picture,
        published={"test_accuracy": {recipe: RECIPES[recipe].accuracy for recipe in recipes}},
        backends=("numpy", "cupy"),
        each_seed=True,
    )


def _rules_of(begin: str) -> list[str]:
    """Return the rules of the recipes that begin so, in the paper's order."""
    return [
        recipe.settings["rule"]
        for name, recipe in RECIPES.items()
        if name == f"{begin}-{recipe.settings['rule']}"
    ]


def _cell(recipe: str, found: dict[str, list[dict]]) -> str:
    """Return what a recipe has reached, the number of its seeds, and what is published."""
    if recipe not in RECIPES:
        return ""
    published = f"{100 * RECIPES[recipe].accuracy:.2f}"
    if recipe not in found:
        return f"– ({published})"
    good = [100 * r["test_accuracy"] for r in found[recipe] if "diverged" not in r]
    diverged = len(found[recipe]) - len(good)
    reached = f"{fmean(good):.2f}" if good else ""
    if len(good) > 1:
        reached += f" ± {stdev(good):.2f}"
    parts = [reached, f"{diverged} diverged" if diverged else ""]
    return f"{', '.join(filter(None, parts))} ({published})"


def _draw(found: dict[str, list[dict]], recipes: Mapping[str, tuple[str, str]]) -> Any:
    """Draw for each recipe the test error along training, and the published one as a line.

    The axis has equal steps for equal ratios, so that good rules can be told apart beside bad ones.
    """
    from matplotlib.figure import Figure

    heads = list(dict.fromkeys(recipes[recipe][0] for recipe in found))
    rules = list(dict.fromkeys(recipes[recipe][1] for recipe in found))
    across = min(len(heads), 3)
    down = -(-len(heads) // across)
    figure = Figure(figsize=(4.5 * across, 3.6 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for axes, head in itertools.zip_longest(panels, heads):
        if head is None:
            axes.remove()
            continue
        for recipe, results in found.items():
            if recipes[recipe][0] != head:
                continue
            color = f"C{rules.index(recipes[recipe][1])}"
            for i, result in enumerate(results):
                curve = [100 - p for p in percents(result["curves"]["test_accuracy"])]
                label = recipes[recipe][1] if i == 0 else None
                axes.plot(range(1, len(curve) + 1), curve, color=color, label=label, lw=1)
            axes.axhline(100 - 100 * RECIPES[recipe].accuracy, color=color, ls=":", lw=1)
        axes.set(title=head, xlabel="epoch", ylabel="test error, %", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(_first_digits)
        axes.legend(fontsize=8)
    figure.suptitle("dotted: published", fontsize=9)
    return figure


def _first_digits(x: float, _position: int) -> str:
    """Return a number of one digit as it is written if the digit is 2, 3 or 5, else nothing."""
    return f"{x:g}" if f"{x:e}"[0] in "235" else ""
