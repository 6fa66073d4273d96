"""Networks trained by multi-tangent forward gradients, from the recipes as they are.

Source: Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", sections 4.4 and 4.5.  Their results are published as pictures without numbers, but for
what the text says of them.  Rates, split and early stopping are those of the published code.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from dualnet.training.recipes.frog import ESTIMATES
from experiments.experiment import Experiment, Form, Settings
from experiments.training import by_recipe, drawable, trained

NETWORKS = {
    "fc256-mnist": "FC 256",
    "fc1024-mnist": "FC 1024",
    "fc4096-mnist": "FC 4096",
    "lenet5-mnist": "LeNet5",
    "resnet18-mnist": "ResNet18, MNIST",
    "resnet18-cifar10": "ResNet18, CIFAR-10",
    "vit-mnist": "ViT, MNIST",
    "vit-cifar10": "ViT, CIFAR-10",
    "mlp-mixer-mnist": "MLP-Mixer, MNIST",
    "mlp-mixer-cifar10": "MLP-Mixer, CIFAR-10",
}
"""What a recipe's name has between `frog-` and its estimate → how the table calls it."""
QUICK = "--limit-train 96 --validation 32 --epochs 2 --batch-size 16"
SAYS = (
    "more directions come nearer to the gradient and train better",
    "for large networks a gap to backpropagation remains",
)


def recipe_of(network: str, estimate: str) -> str:
    """Return the name of a recipe."""
    return f"frog-{network}-{estimate}"


def settings(form: Form) -> list[Settings]:
    """Return the rows: a recipe each."""
    if form.quick:
        chosen = [("fc256-mnist", "bp"), ("fc256-mnist", "projection-4-fg-a")]
    else:
        chosen = [(network, estimate) for network in NETWORKS for estimate in ESTIMATES]
    return [{"recipe": recipe_of(*names)} for names in chosen]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Train until the loss on validation images has not been lower for ten epochs."""
    flags = f"--recipe {row['recipe']}{f' {QUICK}' if form.quick else ''}"
    return trained(flags, replace(form, quick=False))


def best(result: dict[str, Any]) -> tuple[float, int]:
    """Return the accuracy at the lowest loss on validation images, and the number of epochs.

    A run that diverges counts until then, and has the accuracy 0 if that is before its first epoch
    has ended.
    """
    losses, accuracies = (result["curves"][f"test_{name}"] for name in ("loss", "accuracy"))
    known = [np.inf if loss is None else loss for loss in losses]
    return (accuracies[int(np.argmin(known))] if known else 0.0), len(known)


def table(rows: list[dict]) -> str:
    """Return the best validation accuracy of each network and estimate, means of the seeds."""
    found = by_recipe(rows)
    estimates = [e for e in ESTIMATES if any(recipe_of(n, e) in found for n in NETWORKS)]
    heads = [f"`{e.removesuffix('-fg-a')}`" for e in estimates]
    lines = [
        f"| validation accuracy, %, and epochs | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    for network, title in NETWORKS.items():
        of_network = [found.get(recipe_of(network, e), []) for e in estimates]
        if any(of_network):
            lines.append(f"| {title} | {' | '.join(map(cell, of_network))} |")
    return "\n".join(lines)


def cell(results: list[dict]) -> str:
    """Return the best accuracy and the epochs, means of the seeds, and how many diverged."""
    if not results:
        return "–"
    accuracies, epochs = zip(*map(best, results), strict=True)
    text = f"{100 * fmean(accuracies):.2f} ({fmean(epochs):.0f})"
    diverged = sum("diverged" in result for result in results)
    return f"{text}, {diverged} of {len(results)} diverged" if diverged else text


def picture(rows: list[dict]) -> Any:
    """Draw the loss on validation images along training, a part for each network."""
    from matplotlib.figure import Figure

    found = by_recipe(rows)
    shown = [n for n in NETWORKS if any(recipe_of(n, e) in found for e in ESTIMATES)]
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(4.2 * across, 3.4 * down), layout="constrained")
    parts = figure.subplots(down, across, squeeze=False)
    for axes in parts.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, network in zip(parts.flat, shown, strict=False):
        for i, estimate in enumerate(ESTIMATES):
            label: str | None = estimate.removesuffix("-fg-a")
            dashes = "--" if estimate.startswith("mean") else "-"
            for result in found.get(recipe_of(network, estimate), []):
                losses = drawable(result["curves"]["test_loss"])
                epochs = range(1, len(losses) + 1)
                axes.plot(epochs, losses, dashes, color=f"C{i}", label=label, lw=1)
                label = None
        axes.set(title=NETWORKS[network], xlabel="epoch", yscale="log")
        axes.set_ylabel("loss on validation images")
        axes.legend(fontsize="x-small")
    return figure


EXPERIMENT = Experiment(
    name="frog-networks",
    shows="networks by forward gradients of 1 to 16 directions, their mean and their projection",
    source="Flügel et al. 2024, sections 4.4 and 4.5",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2),
    published={"in words": SAYS, "seeds": 3},
    backends=("numpy", "cupy"),
    each_seed=True,
)
