"""Local heads: what a part of the network would answer already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn.layers import Linear, require_count
from dualnet.nn.network import Context, Layer, Sequential, Shape
from dualnet.random import Key
from dualnet.tree import Tree


def has_local_heads(network: Layer) -> bool:
    """Whether there is a local head in a network."""
    children = getattr(network, "layers", ())
    return isinstance(network, LocalHead) or any(has_local_heads(child) for _, child in children)


def with_local_heads(network: Layer, params: Tree, features: int) -> Layer:
    """A chain with a local head after every layer with parameters and what follows it, but the
    last: one block for each.

    Args:
        network: a `Sequential`; its top level is what gets heads.
        params: its parameters, which say what layers have any.
        features: of each head.

    Raises:
        UsageError: it is no chain, so that somebody has to say where its blocks end.
    """
    if not isinstance(network, Sequential):
        raise UsageError(
            f"with_local_heads: expected a Sequential, got {type(network).__name__}; put LocalHead "
            "layers where its blocks end"
        )
    weighted = [name for name, _ in network.layers if tree.leaves(params[name])]
    layers: list[tuple[str, Layer]] = []
    for name, layer in network.layers:
        if name in weighted[1:] and not getattr(layer, "normalizes", False):
            layers.append((f"before-{name}", LocalHead(features)))
        layers.append((name, layer))
    return Sequential(tuple(layers))


@dataclass(frozen=True)
class LocalHead:
    """Passes x on unchanged; beside it, a linear readout that only a tap gets to see.

    The readout is the child `linear`, from x averaged over all axes between batch and channels
    to `(N, features)`.  A learning rule with local losses taps its path; what is no part of
    the result has no derivative otherwise.

    Args:
        features: how many numbers the readout has, for example the classes.

    Params: those of a `Linear` that starts at zero.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4.
    """

    features: int

    def __post_init__(self) -> None:
        require_count("LocalHead", "features", self.features)

    @property
    def layers(self) -> tuple[tuple[str, Layer], ...]:
        """The child, where `walk` finds it."""
        return (("linear", Linear(self.features, weights="zeros")),)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if not in_shape:
            raise UsageError("LocalHead: needs an axis of channels, got examples of shape ()")
        ((name, linear),) = self.layers
        params, state, _ = linear.init(key.fold_in(name), in_shape[-1:])
        return {name: params}, {name: state}, in_shape

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]:
        ((name, linear),) = self.layers
        between = tuple(range(1, x.ndim - 1))
        features = np.mean(x, axis=between) if between else x
        _, new_state = context.child(name, linear, params[name], state[name], features)
        return x, {name: new_state}
