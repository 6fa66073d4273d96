"""Rules without backpropagation against backpropagation, with equal effort for each.

Every rule trains the same network for as many epochs from the same start.  It has six trials, of
learning rates or of rates and another option, each a training on 50,000 of the training images
(40,000 of CIFAR-10's) with seed 0, judged by the 10,000 others.  With the best it is trained on all
training images by each seed, and judged by the test images.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from experiments.experiment import Experiment, Form, Settings
from experiments.training import percents, trained

MLP = "--model mlp --depth 2 --width 512 --epochs 20"
CNN = "--model cnn --plan 15C5-40C5-P2-128 --batch-norm --epochs 20"
NETWORKS = {"mnist": MLP, "fashion-mnist": MLP, "cifar10": CNN}
COMMON = "--batch-size 128 --optimizer adam --schedule cosine"
_RATES = ("2e-4", "5e-4", "1e-3", "2e-3", "3e-3", "5e-3")
_OF_RATES = tuple(f"--lr {lr}" for lr in _RATES)
TRIALS: dict[str, tuple[str, ...]] = {
    "bp": _OF_RATES,
    "fdfa": tuple(f"--lr {lr} --tangents {k}" for lr in _RATES[1:4] for k in (1, 4)),
    "fdfa --sampler normal": _OF_RATES,
    "dkp": _OF_RATES,
    "dfa": _OF_RATES,
    "fg-a-cv --sampler normal": tuple(
        f"--lr {lr} --shrink {shrink}" for lr in _RATES[1:4] for shrink in ("0.1", "0.3")
    ),
}
"""Rule, as `--rule` has it with an option → the flags of its trials."""
HELD_OUT = 10_000


def settings(form: Form) -> list[Settings]:
    """Return the rows: data sets, and the flags of each rule."""
    if form.quick:
        return [{"dataset": "mnist", "rule": rule} for rule in ("bp", "fdfa")]
    return [{"dataset": dataset, "rule": rule} for dataset in NETWORKS for rule in TRIALS]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return for each seed what the rule has reached, the `best` trial, and all of the `trials`."""
    dataset, rule = row["dataset"], row["rule"]
    flags = f"--dataset {dataset} {NETWORKS[dataset]} {COMMON} --rule {rule}"
    held_out = 16 if form.quick else HELD_OUT
    trials = {}
    for trial in TRIALS[rule][:2] if form.quick else TRIALS[rule]:
        tried = f"{flags} {trial} --validation {held_out}"
        (found,) = trained(tried, replace(form, seeds=(0,)))
        trials[trial] = found.get("test_accuracy", 0.0)  # 0 if it diverges
    best = max(trials, key=lambda trial: trials[trial])
    return [
        {**result, "best": best, "trials": trials} for result in trained(f"{flags} {best}", form)
    ]


def table(rows: list[dict]) -> str:
    """Return test accuracies in % with their spread over seeds, and the trials."""
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in rows:
        found[row["settings"]["dataset"], row["settings"]["rule"]].append(row["results"])
    lines = [
        "| data set | rule | test accuracy, % | seeds | best trial | held out, % | worst, % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (dataset, rule), results in found.items():
        good = [100 * r["test_accuracy"] for r in results if "diverged" not in r]
        spread = f" ± {stdev(good):.2f}" if len(good) > 1 else ""
        reached = f"{fmean(good):.2f}{spread}" if good else "diverged"
        trials = [100 * a for a in results[0]["trials"].values()]
        lines.append(
            f"| {dataset} | `{rule}` | {reached} | {len(results)} | `{results[0]['best']}` | "
            f"{max(trials):.2f} | {min(trials):.2f} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the test accuracy along training for each data set."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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
            curve = percents(row["results"]["curves"]["test_accuracy"])
            label = None if rule in named else rule
            named.add(rule)
            color = f"C{list(TRIALS).index(rule)}"
            axes.plot(range(1, len(curve) + 1), curve, color=color, lw=1, label=label)
        axes.set(title=dataset, xlabel="epoch", ylabel="test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="beyond-bp",
    shows="rules without backpropagation against it: same network, epochs and number of trials",
    source="ours",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2),
    backends=("numpy", "cupy"),
    each_seed=True,
)
