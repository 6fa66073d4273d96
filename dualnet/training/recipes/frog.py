"""The networks of Flügel et al.: `frog-NETWORK-DATASET-bp` and `…-AGGREGATE-K-fg-a`.

Source: Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", sections 4.4 and 4.5; settings from their published code, learning rates from its
tables, to five digits.

The published code perturbs the activities of its blocks unless it is told to perturb weights, and
its published commands do not tell it.  The published rates are of that kind, too: those of a
projection are about n/k times those of a mean, as its estimates are k/n as long, with n the number
of activities (522 in the smallest network).  Of weights there are 270,000.
"""

from __future__ import annotations

from typing import Any

from dualnet.training.recipes.recipe import Recipe

Rates = tuple[float, ...]
"""Learning rates of `bp`, of means of 1, 2, 4, 16 directions, of projections of 2, 4, 16."""

ESTIMATES = (
    "bp",
    *("mean-1-fg-a", "mean-2-fg-a", "mean-4-fg-a", "mean-16-fg-a"),
    *("projection-2-fg-a", "projection-4-fg-a", "projection-16-fg-a"),
)
"""What ends a recipe's name, in the order of `Rates`."""

_PUBLISHED: dict[str, Rates] = {
    "fc256-mnist": (
        *(0.026051, 5.5903e-4, 8.4776e-4, 8.1949e-4, 1.4287e-3),
        *(0.21137, 0.12075, 0.042321),
    ),
    "fc1024-mnist": (
        *(0.033369, 1.5718e-4, 2.1759e-4, 7.9093e-4, 2.6898e-3),
        *(0.23112, 0.20022, 0.12698),
    ),
    "fc4096-mnist": (
        *(0.038668, 7.0602e-5, 1.2905e-4, 1.7678e-4, 4.9768e-4),
        *(0.46327, 0.35364, 0.25173),
    ),
    "resnet18-mnist": (
        *(0.1, 7.0602e-5, 2.8345e-4, 2.0958e-4, 4.3283e-4),
        *(0.50826, 0.50826, 0.12151),
    ),
    "resnet18-cifar10": (
        *(0.1, 3.3760e-4, 7.1614e-4, 1.2916e-3, 2.5174e-3),
        *(0.48637, 0.48637, 0.48637),
    ),
    "vit-mnist": (
        *(0.1, 2.0670e-5, 3.3917e-5, 3.5768e-5, 7.0602e-5),
        *(0.48637, 0.48637, 0.48637),
    ),
    "vit-cifar10": (
        *(0.1, 4.9931e-5, 6.6051e-5, 7.5602e-5, 1.9345e-4),
        *(1.0, 1.0, 0.48637),
    ),
}
_OTHERS = {
    "lenet5-mnist": "fc256-mnist",
    "mlp-mixer-mnist": "vit-mnist",
    "mlp-mixer-cifar10": "vit-cifar10",
}
"""Networks of the published code without published rates → whose rates they have here."""

_COMMON: dict[str, Any] = {
    "objective": "supervised",
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "schedule": "constant",
    "epochs": 200,
    "validation": 10_000,
    "early_stop": 10,
    "pixels": "standard",
    "augment": "none",
}
_BATCH_SIZES = {"mnist": 64, "cifar10": 128}
_FC = {
    "model": "mlp",
    "depth": 2,
    "activation": "relu",
    "batch_norm": False,
    "weights": "torch",
}
_NETWORKS: dict[str, dict[str, Any]] = {
    "fc256": {**_FC, "width": 256},
    "fc1024": {**_FC, "width": 1024},
    "fc4096": {**_FC, "width": 4096},
    "lenet5": {"model": "lenet5"},
    "resnet18": {"model": "resnet18", "width": 64, "stem": "large"},
    "vit": {"model": "vit", "width": 256, "depth": 6, "heads": 4, "mlp_width": 512, "patch": 4},
    "mlp-mixer": {
        "model": "mlp-mixer",
        "width": 512,
        "depth": 8,
        "token_width": 256,
        "mlp_width": 2048,
        "patch": 4,
    },
}

_OURS = {
    "validation": "as many images as in the source, but others",
    "early_stop": "the source counts the loss before the first epoch, too, and also ends a run "
    "whose loss reaches 10",
}
_START = {"initial weights": "the source has those of torch"}
_BLOCKS = {
    "perturb": "the source perturbs the outputs of whole blocks, and goes back through a block "
    "exactly; here activities are perturbed after each layer"
}
_WITH_BATCH_NORM = ("lenet5", "resnet18")
_BATCH_NORM = {
    "batch_loss": "the source derives, by backpropagation, the batch's loss along each example's "
    "directions alone; one forward pass yields the batch's total or the example's own loss",
    "independent": "in the source all examples of a batch have the same directions, and each "
    "example its own derivatives, which one forward pass through batch norm does not yield",
}


def _recipe(name: str, estimate: str, rate: float) -> Recipe:
    network, _, dataset = name.rpartition("-")
    ours = dict(_OURS)
    if not network.startswith("fc"):
        ours |= _START
    if name in _OTHERS:
        ours["lr"] = f"nothing is published for this network; that of {_OTHERS[name]}"
    perturbs: dict[str, Any] = {"rule": "bp"}
    if estimate != "bp":
        aggregate, k, _ = estimate.split("-", 2)
        perturbs = {
            "rule": "fg-a",
            "tangents": int(k),
            "sampler": "normal",
            "aggregate": aggregate,
            "perturb": "after",
            "batch_loss": "own",
            "independent": network in _WITH_BATCH_NORM,
            "output_layers": "perturbed",
        }
        if not network.startswith("fc"):
            ours |= _BLOCKS
        if network in _WITH_BATCH_NORM:
            ours |= _BATCH_NORM
    batch = {"dataset": dataset, "batch_size": _BATCH_SIZES[dataset], "lr": rate}
    return Recipe(
        {**_COMMON, **_NETWORKS[network], **batch, **perturbs},
        accuracy=None,
        source="Flügel et al. 2024, Beyond Backpropagation, section "
        f"{'4.4' if network.startswith('fc') else '4.5'} and published code",
        ours=ours,
    )


_RATES = _PUBLISHED | {name: _PUBLISHED[alike] for name, alike in _OTHERS.items()}

RECIPES = {
    f"frog-{name}-{estimate}": _recipe(name, estimate, rate)
    for name, rates in _RATES.items()
    for estimate, rate in zip(ESTIMATES, rates, strict=True)
}
