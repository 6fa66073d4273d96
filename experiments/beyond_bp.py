"""Rules without backpropagation against backpropagation, with equal effort for each.

Every rule trains the same network for as many epochs from the same start.  Its learning rate is
the best of the same three, by the accuracy on 10,000 of the training images after a training on
the others with seed 0.  With it, it is trained on all training images by each seed, and judged by
the test images.  No test image has a part in a choice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from experiments.experiment import Experiment, Form, Settings
from experiments.training import trained

MLP = "--model mlp --depth 2 --width 512 --epochs 20"
CNN = "--model cnn --plan 15C5-40C5-P2-128 --batch-norm --epochs 20"
NETWORKS = {"mnist": MLP, "fashion-mnist": MLP, "cifar10": CNN}
COMMON = "--batch-size 128 --optimizer adam --schedule cosine"
RULES = ("bp", "fg-a-cv --shrink 0.1", "fdfa", "dkp", "dfa")
RATES = ("3e-4", "1e-3", "3e-3")
HELD_OUT = 10_000


def settings(form: Form) -> list[Settings]:
    """Return the rows: data sets, and the flags of each rule."""
    if form.quick:
        return [{"dataset": "mnist", "rule": rule} for rule in ("bp", "fdfa")]
    return [{"dataset": dataset, "rule": rule} for dataset in NETWORKS for rule in RULES]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return for each seed what the rule has reached, with its `lr` and what the `search` found."""
    dataset = row["dataset"]
    flags = f"--dataset {dataset} {NETWORKS[dataset]} {COMMON} --rule {row['rule']}"
    held_out = 16 if form.quick else HELD_OUT
    search = {}
    for lr in RATES:
        (found,) = trained(f"{flags} --lr {lr} --validation {held_out}", replace(form, seeds=(0,)))
        search[lr] = found.get("test_accuracy", 0.0)  # of one that diverges
    best = max(search, key=lambda lr: search[lr])
    return [
        {**result, "lr": best, "search": search} for result in trained(f"{flags} --lr {best}", form)
    ]


def table(rows: list[dict]) -> str:
    """Return test accuracies in % with their spread over seeds, and what was searched."""
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in rows:
        found[row["settings"]["dataset"], row["settings"]["rule"]].append(row["results"])
    lines = [
        f"| data set | `--rule` | test accuracy, % | seeds | {' | '.join(RATES)}, on held-out |",
        "| --- | --- | --- | --- |" + " --- |" * len(RATES),
    ]
    for (dataset, rule), results in found.items():
        percents = [100 * r["test_accuracy"] for r in results if "diverged" not in r]
        spread = f" ± {stdev(percents):.2f}" if len(percents) > 1 else ""
        reached = f"{fmean(percents):.2f}{spread}" if percents else "diverged"
        tried = " | ".join(
            f"**{100 * a:.2f}**" if lr == results[0]["lr"] else f"{100 * a:.2f}"
            for lr, a in results[0]["search"].items()
        )
        lines.append(f"| {dataset} | `{rule}` | {reached} | {len(results)} | {tried} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the test accuracy along training for each data set."""
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(row["settings"]["dataset"] for row in rows))
    figure = Figure(figsize=(4.8 * len(datasets), 3.6), layout="constrained")
    for axes, dataset in zip(
        figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True
    ):
        named: set[str] = set()
        for row in rows:
            rule = row["settings"]["rule"]
            if row["settings"]["dataset"] != dataset:
                continue
            percents = [100 * a for a in row["results"]["curves"]["test_accuracy"]]
            label = None if rule in named else rule
            named.add(rule)
            color = f"C{RULES.index(rule)}"
            axes.plot(range(1, len(percents) + 1), percents, color=color, lw=1, label=label)
        axes.set(title=dataset, xlabel="epoch", ylabel="test accuracy, %")
        axes.legend(fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="beyond-bp",
    shows="rules without backpropagation against it: same network, epochs and search of rates",
    source="ours",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2),
    backends=("numpy", "cupy"),
    each_seed=True,
)
