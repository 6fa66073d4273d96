"""Models: the loss of each network at a small size, by its parameters, state and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.check.layers import example
from dualnet.check.table import Row, adder, constant
from dualnet.models import MODELS
from dualnet.nn import Context, Layer, softmax_cross_entropy
from dualnet.random import Key
from dualnet.tree import Tree

ROWS: list[Row] = []
row = adder(ROWS, "models")

CLASSES = 3
LABELS = np.array([1, 0, 2])


def add_model(
    name: str,
    note: str,
    in_shape: tuple[int, ...],
    options: dict[str, Any],
    batch: int = 3,
    lift: float = 0.0,
    **how: Any,
) -> None:
    """A row of the model that `models.MODELS` knows by name.

    `lift` is added to the biases of norms, and 1 to their gains, so that most ReLUs behind are on
    and differ: a norm of nearly equal entries is too steep for differences.  A larger lift would
    cost digits, as norms subtract it again.  Outputs are so large then that a softmax is all or
    nothing, and their mean is looked at instead of a loss.
    """
    network = MODELS[name](**options).network(in_shape, CLASSES)
    draw = example(network, in_shape, batch)

    def lifted(rng: np.random.Generator) -> Tree:
        above = {"bias": lift, "gain": 1.0}
        return tree.map_with_path(lambda p, x: x + above.get(p.rpartition("/")[2], 0.0), draw(rng))

    loss = mean_loss(network, batch, of_outputs=bool(lift))
    row(f"model {name}", note, loss, lifted if lift else draw, **how)


def mean_loss(
    network: Layer, batch: int, *, train: bool = True, of_outputs: bool = False
) -> Callable[[Any, Tree], Any]:
    """Return the mean loss of a network as a function of parameters, state and inputs.

    Args:
        network: has `CLASSES` outputs.
        batch: how many examples there are.
        train: whether it is applied as in training.
        of_outputs: whether it is the mean of the outputs instead.
    """
    context = Context(train=train, key=Key(0))

    def loss(_xp: Any, here: Tree) -> Any:
        outputs, _ = network.apply(here["params"], here["state"], here["x"], context)
        if of_outputs:
            return np.mean(outputs)
        labels = constant(LABELS[:batch], outputs)
        return np.mean(softmax_cross_entropy(outputs, labels))

    return loss


add_model("mlp", "", (2, 3, 1), {"width": 12, "depth": 2}, watch=True)
add_model("mlp", "no hidden layer", (4,), {"depth": 0})
add_model("mlp", "gelu", (4,), {"width": 4, "depth": 1, "activation": "gelu"})
add_model("mlp", "batch norm", (3,), {"width": 3, "depth": 2, "batch_norm": True}, watch=True)

add_model("cnn", "", (4, 4, 1), {"plan": "2C3-P2-3C1-4"}, watch=True)
add_model("cnn", "batch norm", (5, 5, 1), {"plan": "2C3-3", "batch_norm": True}, watch=True)
add_model("cnn4", "", (6, 6, 1), {"plan": "2C2-2C2-P2-2C1-2C1-P2-3"}, batch=1, watch=True)
add_model("lenet5", "", (16, 16, 1), {}, batch=2, lift=3.0, watch=True)
add_model("alexnet", "", (63, 63, 1), {"channels": 1, "width": 3}, batch=2, lift=3.0, watch=True)

add_model("resnet", "", (4, 4, 1), {"width": 2, "depth": 2}, watch=True)
add_model("resnet18", "", (16, 16, 1), {"width": 1}, batch=2, lift=3.0, watch=True)

small_tokens = {"width": 4, "depth": 1, "mlp_width": 3, "patch": 2}
add_model("vit", "", (4, 4, 1), {**small_tokens, "heads": 2}, batch=2, watch=True)
add_model("mlp-mixer", "", (4, 4, 1), {**small_tokens, "token_width": 2}, batch=2, watch=True)

# one block: after a ReLU there is often a channel whose tokens are all 0, where a norm is too
# steep for differences; the other blocks are `mixer_block`, which has a row of its own
small_mixer = {"width": 12, "patches": 2, "groups": 2, "depth": 1, "readout": False}
add_model("local-mixer", "", (6, 6, 1), small_mixer, batch=1, watch=True)
