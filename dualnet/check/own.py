"""Rows for models, layers and optimizers of a user's own, from files that `--plugin` names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dualnet.check.layers import example
from dualnet.check.models import CLASSES, mean_loss
from dualnet.check.optimizers import FORMULAS, add_step
from dualnet.check.table import Row, adder, met
from dualnet.errors import UsageError
from dualnet.models import MODELS
from dualnet.nn import Context, Dropout, Layer, StopGradient, walk
from dualnet.optim import OPTIMIZERS
from dualnet.random import Key
from dualnet.training.plugins import is_own, own_parts
from dualnet.tree import Tree

EXAMPLES = ((4, 4, 1), (8, 8, 1), (8, 8, 3), (16, 16, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3))
"""The shapes of examples on which a model is tried: the first is taken for which it has layers."""
INPUTS = ((4,), (3, 4), (4, 4, 2))
"""The shapes of inputs on which a layer is verified, if it takes them."""
_BATCH = 3


def own_rows() -> tuple[list[Row], list[str]]:
    """Return the rows of what the files have, and a line for all that has none, saying why."""
    rows: list[Row] = []
    left_out: list[str] = []
    for add in (_add_models, _add_layers, _add_optimizers):
        left_out += add(rows)
    return rows, left_out


def _add_models(rows: list[Row]) -> list[str]:
    for name, model in MODELS.items():
        if not is_own(model):
            continue
        found = _first(EXAMPLES, _networks_of(model))
        add = adder(rows, "models")
        if isinstance(found, str):
            add(f"model {name}", "", _refusing(found), _refusing(found))
            continue
        in_shape, network = found
        # A mask of dropout differs between single and double precision.
        train = not any(isinstance(layer, Dropout) for _, layer in walk(network))
        _add(add, f"model {name}", "", network, in_shape, mean_loss(network, _BATCH, train=train))
    return []


def _refusing(why: str) -> Callable:
    """Return a function that fails, so that the row of a model without a network fails."""

    def refuse(*_: Any) -> Any:
        raise UsageError(f"it has no network for any images; {why}")

    return refuse


def _add_layers(rows: list[Row]) -> Iterator[str]:
    for layer in own_parts():
        if not isinstance(layer, type):
            continue
        taken = 0
        for shape in INPUTS:
            found = _first((shape,), _maker_of(layer))
            if not isinstance(found, str):
                taken += 1
                made, name = found[1], f"layer {layer.__name__}"
                _add(adder(rows, "layers"), name, f"{shape}", made, shape, _output(made))
        if not taken:
            yield f"layer {layer.__name__}: {found}; a model that has it is verified"


def _add_optimizers(rows: list[Row]) -> Iterator[str]:
    for name, optimizer in OPTIMIZERS.items():
        if not is_own(optimizer):
            continue
        if optimizer not in FORMULAS:
            yield (
                f"optimizer {name}: its formula is not in dualnet.check.optimizers.FORMULAS, so "
                "that there is nothing to compare its code with"
            )
            continue
        add_step("", optimizer(), adder(rows, "optimizers"))


def _networks_of(model: Any) -> Callable[[Any], Layer]:
    """Return the function from the shape of an example to the network of a model."""
    return lambda shape: model().network(shape, CLASSES)


def _maker_of(layer: Any) -> Callable[[Any], Layer]:
    """Return a function that makes the layer with its defaults, whatever the shape of its input."""
    return lambda _: layer()


def _first(
    shapes: tuple[tuple[int, ...], ...], make: Callable[[Any], Layer]
) -> tuple[tuple[int, ...], Layer] | str:
    """Return the first shape that a layer takes, and the layer; else say why it takes none."""
    why = ""
    for shape in shapes:
        try:
            layer = make(shape)
            params, state, _ = layer.init(Key(0), shape)
            x = np.zeros((_BATCH, *shape), np.float32)
            layer.apply(params, state, x, Context(train=True, key=Key(0)))
            return shape, layer
        except Exception as error:  # of any kind: it is a user's code
            what = " ".join(str(error).split())
            why = why or f"for inputs {shape}, {type(error).__name__}: {what}"
    return why


def _add(
    add: Callable,
    name: str,
    note: str,
    layer: Layer,
    in_shape: tuple[int, ...],
    f: Callable[[Any, Tree], Any],
) -> None:
    """Add the row of a function of a layer's parameters, state and inputs."""
    draw = example(layer, in_shape, _BATCH)
    decreed = any(isinstance(inside, StopGradient) for _, inside in walk(layer))
    kinks = met(lambda here: f(np, here), (draw(np.random.default_rng(0)),))
    add(name, note, f, draw, watch=bool(kinks) and not decreed, decreed=decreed)


def _output(layer: Layer) -> Callable[[Any, Tree], Any]:
    context = Context(train=True, key=Key(0))
    return lambda _xp, here: layer.apply(here["params"], here["state"], here["x"], context)[0]
