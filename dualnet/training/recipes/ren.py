"""The rows of the paper on local losses: `ren-SIZE-DATASET-RULE` and `ren-contrastive-RULE`.

Source: Ren, Kornblith, Liao and Hinton, "Scaling Forward Gradient With Local Losses", ICLR 2023,
Tables 3 and 4; settings from their published code, which has those of ImageNet alone (heads learn
at the base rate there).  The paper gives errors; here are accuracies.
"""

from __future__ import annotations

from typing import Any

from dualnet.training.recipes.recipe import Recipe

_SUPERVISED = ("s-1-1-mnist", "m-1-16-mnist", "m-8-16-cifar10", "l-32-64-imagenet")
_WITHOUT_ERRORS = "l-8-64-cifar10"
"""The largest network for CIFAR-10: its size is published, and no row of Table 3 is known to us."""
_TEST_ERRORS: dict[str, tuple[float, ...]] = {
    "bp": (2.66, 2.41, 33.62, 36.82),
    "l-bp": (2.38, 2.16, 30.75, 42.38),
    "lg-bp": (2.43, 2.81, 33.84, 54.37),
    "fa": (2.82, 2.90, 39.94, 94.55),
    "l-fa": (3.21, 2.90, 39.74, 87.20),
    "lg-fa": (3.11, 2.50, 39.73, 85.45),
    "dfa": (3.31, 3.17, 38.80, 91.17),
    "fg-w": (9.25, 8.56, 55.95, 97.71),
    "fg-a": (3.24, 3.76, 59.72, 98.83),
    "lg-fg-w": (9.25, 5.66, 52.70, 97.39),
    "lg-fg-a": (3.24, 2.55, 30.68, 58.37),
}
"""Rule to errors in % of the networks above."""

_CONTRASTIVE_TEST_ERRORS = {
    "bp": 24.11,
    "l-bp": 24.69,
    "lg-bp": 29.63,
    "fa": 45.87,
    "lg-fa": 36.72,
    "dfa": 46.09,
    "fg-w": 53.37,
    "fg-a": 54.59,
    "lg-fg-w": 52.66,
    "lg-fg-a": 32.88,
}
"""Rule to errors in % of a linear read-out; CIFAR-10, M/8/16."""

_MIXERS: dict[str, dict[str, Any]] = {
    "s-1-1-mnist": {"dataset": "mnist", "width": 256, "patches": 1, "groups": 1, "depth": 1},
    "m-1-16-mnist": {"dataset": "mnist", "width": 512, "patches": 1, "groups": 16, "depth": 1},
    "m-8-16-cifar10": {"dataset": "cifar10", "width": 512, "patches": 8, "groups": 16, "depth": 4},
    "l-8-64-cifar10": {
        "dataset": "cifar10",
        "width": 2048,
        "patches": 8,
        "groups": 64,
        "depth": 4,
    },
    "l-32-64-imagenet": {
        "dataset": "imagenet-folder",
        "image_size": 224,
        "width": 2048,
        "patches": 32,
        "groups": 64,
        "depth": 4,
    },
}
_COMMON: dict[str, Any] = {"model": "local-mixer", "pixels": "standard", "weight_decay": 1e-4}
_READOUT: dict[str, Any] = {"head_norm": True, "output_norm": True, "output_lr": 0.1}
_IMAGENET: dict[str, Any] = {
    **_READOUT,
    "objective": "supervised",
    "optimizer": "momentum",
    "momentum": 0.9,
    "lr": 0.05,
    "schedule": "warmup-cosine",
    "warmup": 10 / 120,
    "epochs": 120,
    "batch_size": 256,
    "augment": "flip-resized-crop",
}
_SMALL: dict[str, Any] = {
    **_READOUT,
    "objective": "supervised",
    "optimizer": "sgd",
    "lr": 0.1,
    "schedule": "linear",
    "epochs": 200,
    "batch_size": 100,
}
_CONTRASTIVE: dict[str, Any] = {
    "objective": "contrastive",
    "projection": 128,
    "temperature": 0.5,
    "stop": True,
    "negatives": "both-views",
    "head_norm": False,
    "output_norm": False,
    "readout_norm": True,
    "optimizer": "lars",
    "momentum": 0.9,
    "trust": 0.001,
    "lr": 0.1 * 16 * 128 / 256,  # for a batch of 256, and in proportion to the batch
    "schedule": "warmup-cosine",
    "warmup": 10 / 800,
    "epochs": 800,
    "batch_size": 16 * 128,
}

_DECAY = "here biases shrink, too"
_OUTPUT_OURS = {
    "output_lr": "of the rate; in the source of the gradient, to which the whole decay is added"
}
_IMAGENET_OURS = {
    **_OUTPUT_OURS,
    "augment": "the source's crops have at least 0.3 of the area, and colors change, too",
    "weight_decay": _DECAY,
}
_DEFAULT = "nothing is published for this data set; the published code's default"
_OF_IMAGENET = "nothing is published for this data set; as in the configuration for ImageNet"
_SMALL_OURS = {
    **_OUTPUT_OURS,
    **dict.fromkeys(("optimizer", "lr", "schedule", "epochs", "batch_size"), _DEFAULT),
    **dict.fromkeys(("head_norm", "output_norm", "initial weights"), _OF_IMAGENET),
    "weight_decay": f"{_DEFAULT}; {_DECAY}",
}
_FLIP = "the published code flips images even where it is told to augment none, as the paper's are"
_OTHER_SET = "nothing is published for this data set; here is what ImageNet has"
_CONTRASTIVE_OURS = {
    **dict.fromkeys(
        (
            *("optimizer", "momentum", "lr", "schedule", "warmup", "epochs", "batch_size"),
            *("augment", "weight_decay"),
        ),
        _OTHER_SET,
    ),
    "trust": "not given; the default of the library that the source uses",
    "read-out": "by Adam during training, in the source by gradient descent after every epoch",
}


_ONE_TANGENT = {"tangents": 1, "sampler": "normal"}
_RULES: dict[str, dict[str, Any]] = {
    "dfa": {
        "feedback_tokens": "shared",
        "feedback_error": "own",
        "feedback_start": "scaled-normal",
    },
    "fg-a": _ONE_TANGENT,
    "lg-fg-a": _ONE_TANGENT,
    "fg-w": {**_ONE_TANGENT, "output_layers": "exact"},
    "lg-fg-w": {**_ONE_TANGENT, "output_layers": "exact", "losses": "through-norms"},
}
_DFA_OURS = {"feedback_start": "by the width of the layer; in the source by the layer's fan-in"}


def _recipe(rule: str, percent: float | None, table: str, settings: dict, ours: dict) -> Recipe:
    return Recipe(
        {**_COMMON, **settings, "rule": rule, **_RULES.get(rule, {})},
        accuracy=None if percent is None else round(1 - percent / 100, 4),
        source=f"Ren et al. 2023, Scaling Forward Gradient With Local Losses, {table}",
        ours={**ours, **_DFA_OURS} if rule == "dfa" else ours,
    )


def _supervised(network: str, rule: str, percent: float | None, table: str = "Table 3") -> Recipe:
    if network == "l-32-64-imagenet":
        settings, ours = _IMAGENET, _IMAGENET_OURS
    elif network.endswith("cifar10"):
        settings, ours = {**_SMALL, "augment": "flip"}, {**_SMALL_OURS, "augment": _FLIP}
    else:
        settings, ours = {**_SMALL, "augment": "none"}, _SMALL_OURS
    return _recipe(rule, percent, table, {**_MIXERS[network], **settings}, ours)


def _contrastive(rule: str, percent: float) -> Recipe:
    # Views that differ too much leave a forward gradient nothing to go by.
    augment = "contrastive-large" if "fg-" in rule else "contrastive"
    settings = {**_MIXERS["m-8-16-cifar10"], **_CONTRASTIVE, "augment": augment}
    return _recipe(rule, percent, "Table 4", settings, _CONTRASTIVE_OURS)


RECIPES = {
    f"ren-{network}-{rule}": _supervised(network, rule, percents[column])
    for column, network in enumerate(_SUPERVISED)
    for rule, percents in _TEST_ERRORS.items()
}
RECIPES |= {
    f"ren-{_WITHOUT_ERRORS}-{rule}": _supervised(_WITHOUT_ERRORS, rule, None, "size L/8/64")
    for rule in _TEST_ERRORS
}
RECIPES |= {
    f"ren-contrastive-{rule}": _contrastive(rule, percent)
    for rule, percent in _CONTRASTIVE_TEST_ERRORS.items()
}
