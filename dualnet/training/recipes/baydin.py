"""The convolutional network of Baydin et al.: `baydin-cnn4-RULE`.

Source: Baydin et al. 2022, "Gradients without Backpropagation", section 5.
"""

from __future__ import annotations

import math
from typing import Any

from dualnet.training.recipes.recipe import Recipe

_SETTINGS: dict[str, Any] = {
    "dataset": "mnist",
    "objective": "supervised",
    "model": "cnn4",
    "plan": "64C3-64C3-P2-64C3-64C3-P2-1024",
    "batch_norm": False,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "lr": 2e-4,
    "schedule": "exponential",
    "factor": math.exp(-1e-4),  # the rate of update i is lr exp(-1e-4 i)
    "every": "step",
    "epochs": 10,
    "batch_size": 64,
    "pixels": "standard",
    "augment": "none",
}
_OURS = {
    "plan": "where the two pools are is not given, and no padding is",
    "epochs": "the published curves are over seconds",
    "pixels": "not given",
    "initial weights": "not given",
}

RECIPES = {
    f"baydin-cnn4-{rule}": Recipe(
        {**_SETTINGS, "rule": rule, **perturbs},
        accuracy=None,
        source="Baydin et al. 2022, Gradients without Backpropagation, section 5",
        ours=_OURS,
    )
    for rule, perturbs in (("bp", {}), ("fg-w", {"tangents": 1, "sampler": "normal"}))
}
