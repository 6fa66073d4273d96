"""The curves of Daprato, Jain and Hung: `dkh-NETWORK-OPTIMIZER-RATE-RULE`.

Source: "Forward Gradients Are Not All You Need", Figures 2 to 5 and section 4.3.  Its figures have
no numbers, and its text gives networks, optimizers and rates, but no batch size, no number of
epochs and no schedule.
"""

from __future__ import annotations

from typing import Any

from dualnet.training.recipes.recipe import Recipe

_RATES = ("2e-3", "2e-4", "2e-5")
_RULES = ("bp", "fg-w")

_COMMON: dict[str, Any] = {
    "dataset": "mnist",
    "objective": "supervised",
    "schedule": "constant",
    "epochs": 10,
    "batch_size": 64,
    "pixels": "standard",
    "augment": "none",
    "weight_decay": 0.0,
}
_MLP = {"model": "mlp", "depth": 2, "activation": "relu", "batch_norm": False}
_CNN = {"model": "cnn4", "plan": "64C3-64C3-P2-64C3-64C3-P2-1024", "batch_norm": False}
_RESNET = {"model": "resnet", "width": 32, "depth": 4, "batch_norm": True}

_COMMON_OURS = {
    "schedule": "not given; the rate stays as it is",
    "epochs": "not given",
    "batch_size": "not given; that of Baydin et al. 2022, which the paper repeats",
    "pixels": "not given",
    "weight_decay": "none is given",
    "initial weights": "the source's Haiku draws them from a truncated normal of variance "
    "1/fan-in, here they are Kaiming-uniform, of variance 2/fan-in",
}
_ADAM = {"beta1": 0.9, "beta2": 0.999}
_ADAM_OURS = dict.fromkeys(_ADAM, "not given; Adam's usual one")
_IMAGES = {"dataset": "not given; that of Baydin et al. 2022, whose network the paper takes"}
_CNN_OURS = _IMAGES | {"plan": "where the two pools are is not given, and no padding is"}
_RESNET_OURS = _IMAGES | {
    "network": "the convolution before the blocks and the average over pixels behind them are ours"
}
_CIFAR_OURS = {
    "lr": "not given here; that of the paper's other figures of optimizers",
    "depth": "the text has the layers of the first network, with other widths",
}


def _recipe(
    network: dict[str, Any], optimizer: str, rate: str, rule: str, where: str, ours: dict[str, str]
) -> Recipe:
    adam = optimizer == "adam"
    return Recipe(
        {
            **_COMMON,
            **network,
            "optimizer": optimizer,
            **(_ADAM if adam else {}),
            "lr": float(rate),
            "rule": rule,
            **({"tangents": 1, "sampler": "normal"} if rule == "fg-w" else {}),
        },
        accuracy=None,
        source=f"Daprato, Jain and Hung, Forward Gradients Are Not All You Need, {where}",
        ours={**_COMMON_OURS, **(_ADAM_OURS if adam else {}), **ours},
    )


def _recipes() -> dict[str, Recipe]:
    """Return the recipes of all figures by name."""
    found: dict[str, Recipe] = {}

    def add(
        name: str,
        network: dict[str, Any],
        runs: list[tuple[str, str, str]],
        where: str,
        ours: dict[str, str],
    ) -> None:
        for optimizer, rate, rule in runs:
            key = f"dkh-{name}-{optimizer}-{rate}-{rule}"
            found.setdefault(key, _recipe(network, optimizer, rate, rule, where, ours))

    both = [(optimizer, "2e-4", rule) for optimizer in ("sgd", "adam") for rule in _RULES]
    rates = [("sgd", rate, rule) for rate in _RATES for rule in _RULES]
    add("mlp512", _MLP | {"width": 512}, rates, "Figure 2", {})
    for width in (512, 1024, 2048):
        add(f"mlp{width}", _MLP | {"width": width}, both, "Figure 3", {})
    add("mlp512-norm", _MLP | {"width": 512, "batch_norm": True}, both, "Figure 4", {})
    cifar = _MLP | {"width": 1024, "dataset": "cifar10"}
    add("mlp1024-cifar10", cifar, both, "section 4.3", _CIFAR_OURS)
    plain = [("sgd", rate, "fg-w") for rate in _RATES]
    add("cnn4", _CNN, plain, "section 4.4", _CNN_OURS)
    residual = [("sgd", "2e-3", "fg-w"), ("adam", "2e-3", "fg-w"), ("adam", "2e-3", "bp")]
    add("resnet", _RESNET, residual, "Figure 5", _RESNET_OURS)
    return found


RECIPES = _recipes()
