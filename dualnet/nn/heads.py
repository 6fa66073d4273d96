"""Local heads: what a part of the network would answer already."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn.context import Context
from dualnet.nn.layers import Linear
from dualnet.nn.network import Layer, Sequential, walk
from dualnet.nn.normalization import LayerNorm
from dualnet.nn.replicated import Loss, average, replicated
from dualnet.options import require_choice, require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape

READS = ("average", "all")
"""What a local head may read of features with axes between batch and channels."""


def has_local_heads(network: Layer) -> bool:
    """Tell whether there is a local head in a network, at any depth.

    Args:
        network: a layer, usually a `Sequential`.

    Raises:
        UsageError: `network` does not derive from `Layer`.

    Examples:
        >>> hidden, head = dn.nn.Linear(4), dn.nn.LocalHead(2)
        >>> dn.nn.has_local_heads(dn.nn.Sequential({"hidden": hidden, "head": head}))
        True
        >>> dn.nn.has_local_heads(hidden)
        False
    """
    return any(isinstance(layer, LocalHead) for _, layer in walk(network, containers=True))


def with_local_heads(
    network: Layer, params: Tree, features: int, *, reads: str = "average"
) -> Layer:
    """Put local heads into a chain, so that every layer with parameters begins a block.

    A head closes each block, after what follows the layer (norm, activation, pool); the last block
    ends with the outputs.

    Args:
        network: a `Sequential`; its top level gets the heads.
        params: its parameters, which say what layers have any.
        features: of each head.
        reads: what each head reads, see `LocalHead`.

    Returns:
        The network with heads, named `before-` and the layer that begins the next block.

    Raises:
        UsageError: the network is no chain, so its author has to say where its blocks end.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "relu": dn.nn.Activation(dn.nn.relu)}
        >>> network = dn.nn.Sequential({**layers, "output": dn.nn.Linear(2)})
        >>> params, _, _ = network.init(dn.Key(0), (3,))
        >>> print(dn.nn.with_local_heads(network, params, features=2))
        Sequential:
          hidden                Linear(4)
          relu                  Activation(relu)
          before-output/linear  Linear(2)
          output                Linear(2)
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
            layers.append((f"before-{name}", LocalHead(features, reads=reads)))
        layers.append((name, layer))
    return Sequential(tuple(layers))


@dataclass(frozen=True)
class LocalHead(Layer):
    """Passes x on unchanged, and makes a linear read-out beside it that only a tap gets to see.

    The read-out is the child `linear`, from x averaged over all axes between batch and channels, or
    from all of x, to `(N, features)`.  A learning rule with local losses taps its path; to other
    rules it has no derivative, because it is no part of the result.  For greedy rules a head stands
    where a block ends, not on one of the ways through a `Residual`.

    Args:
        features: how many numbers the read-out has, for example the classes.
        groups: G, runs of neighboring channels; forward gradients may have a replica of the loss
            for each and for each token, see `replicated`.  Divides the channels.
        weights: how the read-out's weights start, a name in `initial.INITIALIZERS`.
        reads: `average` over tokens or pixels, or `all`: x as one long row.  Then there is one loss
            and no replica of it, and groups must be 1.
        norm: whether the channels of each group of each token are normalized before they are read,
            as by a `LayerNorm` without gain and bias.

    Params: those of a `Linear`.

    Raises:
        UsageError: an option is out of its range, `groups` does not divide the channels, or `norm`
            leaves one channel to normalize.

    Sources: average, groups and norm: Ren et al. 2023, "Scaling Forward Gradient With Local
    Losses", section 4, and their published code; all: the local linear outputs of Bacho and Chu,
    "Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum", appendix A.

    Examples:
        >>> head, x = dn.nn.LocalHead(10), np.ones((2, 7, 7, 16))
        >>> params, state, _ = head.init(dn.Key(0), (7, 7, 16))
        >>> def tap(path, y):
        ...     print(path, y.shape)
        ...     return y
        >>> y, _ = head.apply(params, state, x, dn.nn.Context(tap=tap))
        linear (2, 10)
        >>> y is x
        True
    """

    features: int
    _: KW_ONLY
    groups: int = 1
    weights: str = "kaiming"
    reads: str = "average"
    norm: bool = False

    def __post_init__(self) -> None:
        require_count("LocalHead", "features", self.features)
        require_count("LocalHead", "groups", self.groups)
        require_choice("LocalHead", "reads", self.reads, READS)
        if self.reads == "all" and self.groups > 1:
            raise UsageError(
                "LocalHead: groups are of averaged channels; use groups=1 with reads='all', got "
                f"{self.groups}"
            )
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
        if self.norm and in_shape[-1] == self.groups:
            raise UsageError(
                f"LocalHead: a norm over a single channel is always 0, got {self.groups} groups of "
                f"{in_shape[-1]} channels; use fewer groups or norm=False"
            )
        ((name, linear),) = self.layers
        read = in_shape[-1:] if self.reads == "average" else (math.prod(in_shape),)
        params, state, _ = self.init_child(name, linear, key, read)
        return {name: params}, {name: state}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        ((name, linear),) = self.layers
        features = average(self._prepared(x))
        _, new_state = context.child(name, linear, params[name], state[name], features)
        return x, {name: new_state}

    def replicas(self, params: Tree, x: Array, loss: Loss) -> Array:
        """Return the replicas of a loss of the read-out, outside the network.

        Args:
            params: of the head.
            x: what comes into the head, `(N, *T, C)`.
            loss: of read-outs, `(N, features)` to `(N,)`, as in `replicated`.

        Returns:
            `(N, P, groups)`, for each of the P tokens and each group of channels; `(N, 1, 1)` for a
            head that reads all.
        """
        ((name, linear),) = self.layers

        def of_features(features: Array) -> Array:
            return loss(linear.apply(params[name], {}, features, Context())[0])

        return replicated(of_features, self._prepared(x), self.groups)

    def _prepared(self, x: Array) -> Array:
        """Return x as its average over tokens is read: `(N, *T, C)`, or `(N, p)` of all of it."""
        if self.norm:
            norm = LayerNorm(groups=self.groups, gain=False, bias=False)
            x, _ = norm.apply({}, {}, x, Context())
        return x if self.reads == "average" else np.reshape(x, (len(x), math.prod(x.shape[1:])))
