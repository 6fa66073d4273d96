"""Local heads: what a part of the network would answer already."""

from __future__ import annotations

from dataclasses import dataclass

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn.layers import Linear
from dualnet.nn.network import Context, Layer, Sequential, walk
from dualnet.nn.refusals import require_count
from dualnet.nn.replicated import average
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


def has_local_heads(network: Layer) -> bool:
    """Tell whether there is a local head in a network."""
    return any(isinstance(layer, LocalHead) for _, layer in walk(network, containers=True))


def with_local_heads(network: Layer, params: Tree, features: int) -> Layer:
    """Put local heads into a chain, so that every layer with parameters begins a block.

    A head closes each block, after what follows the layer; the last block ends with the outputs.

    Args:
        network: a `Sequential`; its top level gets the heads.
        params: its parameters, which say what layers have any.
        features: of each head.

    Raises:
        UsageError: the network is no chain, so its author has to say where its blocks end.
    """
    if not isinstance(network, Sequential):
        raise UsageError(
            f"with_local_heads: expected a Sequential, got {type(network).__name__}; put LocalHead "
            "layers where its blocks end"
        )
    weighted = [name for name, _ in network.layers if tree.leaves(params[name])]
    layers: list[tuple[str, Layer]] = []
    for name, layer in network.layers:
        if name in weighted[1:] and not layer.normalizes:
            layers.append((f"before-{name}", LocalHead(features)))
        layers.append((name, layer))
    return Sequential(tuple(layers))


@dataclass(frozen=True)
class LocalHead(Layer):
    """Passes x on unchanged, and makes a linear readout beside it that only a tap gets to see.

    The readout is the child `linear`, from x averaged over all axes between batch and channels
    to `(N, features)`.  A learning rule with local losses taps its path; to other rules it has no
    derivative, because it is no part of the result.  For greedy rules a head stands where a block
    ends, not on one of the ways through a `Residual`.

    Args:
        features: how many numbers the readout has, for example the classes.
        groups: G, runs of neighboring channels; forward gradients may have a replica of the loss
            for each and for each token, see `replicated`.  Divides the channels.
        weights: how the readout's weights start, a name in `initial.INITIALIZERS`.  A projection
            for a contrastive loss must not start at zero.

    Params: those of a `Linear`.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4.
    """

    features: int
    groups: int = 1
    weights: str = "zeros"

    def __post_init__(self) -> None:
        require_count("LocalHead", "features", self.features)
        require_count("LocalHead", "groups", self.groups)
        readout = Linear(self.features, weights=self.weights)
        object.__setattr__(self, "layers", (("linear", readout),))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if not in_shape:
            raise UsageError("LocalHead: needs an axis of channels, got examples of shape ()")
        if in_shape[-1] % self.groups:
            raise UsageError(
                f"LocalHead: groups must divide the channels, got {self.groups} groups and "
                f"examples of shape {in_shape}"
            )
        ((name, linear),) = self.layers
        params, state, _ = linear.init(key.fold_in(name), in_shape[-1:])
        return {name: params}, {name: state}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        ((name, linear),) = self.layers
        _, new_state = context.child(name, linear, params[name], state[name], average(x))
        return x, {name: new_state}

    def readout(self, params: Tree, features: Array) -> Array:
        """Return the readout `(N, features)` of averaged features `(N, C)`, outside the network."""
        ((name, linear),) = self.layers
        return linear.apply(params[name], {}, features, Context())[0]
