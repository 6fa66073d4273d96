"""Models: the loss of each network at a small size, by its parameters, state and inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.check.layers import example
from dualnet.check.table import Row, adder
from dualnet.core.beside import beside
from dualnet.nn import Context, softmax_cross_entropy
from dualnet.random import Key
from dualnet.tree import Tree
from models import MODELS

ROWS: list[Row] = []
row = adder(ROWS, "models")

CLASSES = 3
LABELS = np.array([1, 0, 2])


def add_model(
    name: str, note: str, in_shape: tuple[int, ...], options: dict[str, Any], **how: Any
) -> None:
    """A row of the model that `models.MODELS` knows by name."""
    network = MODELS[name](**options).network(in_shape, CLASSES)
    context = Context(train=True, key=Key(0))

    def loss(_xp: Any, here: Tree) -> Any:
        outputs, _ = network.apply(here["params"], here["state"], here["x"], context)
        return np.mean(softmax_cross_entropy(outputs, beside(LABELS, outputs)))

    row(f"model {name}", note, loss, example(network, in_shape, len(LABELS)), **how)


add_model("mlp", "", (2, 3, 1), {"width": 12, "depth": 2}, watch=True)
add_model("mlp", "no hidden layer", (4,), {"depth": 0})
add_model("mlp", "gelu", (4,), {"width": 4, "depth": 1, "activation": "gelu"})
