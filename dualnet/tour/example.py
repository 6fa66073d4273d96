"""The network of the tour: 3 inputs, 4 hidden units, 2 outputs, and one example.

It is here twice.  `loss` is plain NumPy, as on pages 1 to 3 of the tutorial, for the hops; the same
network of `nn`'s layers is for the learning rules, which look for their sites in it.
"""

from __future__ import annotations

import inspect

import numpy as np

from dualnet import tree
from dualnet.learning import Batch, Task
from dualnet.nn import Activation, Layer, Linear, Sequential, tanh, with_local_heads
from dualnet.random import Key
from dualnet.tour.subject import Learning, Subject
from dualnet.types import Array

x = np.array([[0.5, -1.0, 2.0]])
target = np.array([[1.0, 0.0]])


def loss(w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """Return how far the network's two outputs are from the target, squared and added up."""
    h = np.tanh(x @ w1 + b1)
    return np.square(h @ w2 + b2 - target).sum()


LABELS = {
    "hidden/w": "w1",
    "hidden/b": "b1",
    "output/w": "w2",
    "output/b": "b2",
    "hidden": "#2",
    "tanh": "#3",
    "output": "#5",
    "before-output/linear/w": "head w",
    "before-output/linear/b": "head b",
}
"""Path in the network of layers → name in the tour; `#` are the hops of `loss`."""

_INTRODUCTION = """
    The network has 3 inputs, 4 hidden units and 2 outputs. There is one example x, with its target.
    The loss is a single number that says how far the outputs are from the target. It is a function
    of the parameters w1, b1, w2 and b2; x and the target are constants:
"""


def squared_error(outputs: Array, targets: Array) -> Array:
    """Return the loss of each example, `(N,)`, for outputs `(N, 2)`."""
    return np.square(outputs - targets).sum(-1)


def learning(seed: int, locality: str) -> Learning:
    """Make the network of layers, with a local head if a rule has local losses.

    Args:
        seed: of the parameters.
        locality: of the rule.
    """
    key = Key(seed).fold_in("network")
    layers = (("hidden", Linear(4)), ("tanh", Activation(tanh)), ("output", Linear(2)))
    network: Layer = Sequential(layers)
    params, state, _ = network.init(key, (3,))
    if locality != "global":
        network = with_local_heads(network, params, 2)
        params, state, _ = network.init(key, (3,))
    params = tree.map(np.float64, params)
    return Learning(Task(network, squared_error), params, state, Batch(x, target), LABELS)


def subject(seed: int) -> Subject:
    """Make the function with the parameters of the network that this seed starts."""
    params = learning(seed, "global").params
    arguments = {LABELS[path]: p for path, p in tree.items(params)}
    names = inspect.signature(loss).parameters
    body = inspect.getsource(loss).partition('"""\n')[2].splitlines()
    return Subject(
        _INTRODUCTION,
        (f"def loss({', '.join(names)}):", *body),
        loss,
        {name: arguments[name] for name in names},
        {"x": x, "target": target},
    )
