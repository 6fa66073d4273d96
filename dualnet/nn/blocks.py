"""Containers that are no chain, and the blocks of the papers that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dualnet.errors import UsageError
from dualnet.nn.activations import Activation, gelu, relu
from dualnet.nn.attention import MultiHeadAttention
from dualnet.nn.context import Context
from dualnet.nn.layers import GroupedLinear, Linear
from dualnet.nn.network import Layer, Layers, Sequential, named_layers
from dualnet.nn.normalization import LayerNorm
from dualnet.nn.refusals import require_inputs
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


@dataclass(frozen=True, repr=False)
class Residual(Layer):
    """Adds what goes around a block to its output: block(x) + shortcut(x), or block(x) + x.

    Args:
        layers: `(("block", layer),)` or `(("block", layer), ("shortcut", layer))`.

    Raises:
        UsageError: the layers have other names, or the block's output has another shape than what
            is added to it.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", Eq. 1 and 2.

    Examples:
        >>> layer = dn.nn.Residual({"block": dn.nn.Activation(dn.nn.relu)})
        >>> params, state, _ = layer.init(dn.Key(0), (2,))
        >>> layer.apply(params, state, np.array([[-1.0, 2.0]]), dn.nn.Context())[0].tolist()
        [[-1.0, 4.0]]
    """

    layers: Layers

    def __post_init__(self) -> None:
        _set_layers(self, ("block",), ("block", "shortcut"))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        params, state, shapes = {}, {}, {}
        for name, layer in self.layers:
            params[name], state[name], shapes[name] = self.init_child(name, layer, key, in_shape)
        beside = shapes.get("shortcut", in_shape)
        if shapes["block"] != beside:
            raise UsageError(
                f"Residual: the block turns {in_shape} into {shapes['block']}, but {beside} is to "
                "be added to it; change the block, or give a shortcut of the same shape"
            )
        return params, state, beside

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        outputs, new_state = [], {}
        for name, layer in self.layers:
            y, new_state[name] = context.child(name, layer, params[name], state[name], x)
            outputs.append(y)
        return outputs[0] + (outputs[1] if len(outputs) == 2 else x), new_state


@dataclass(frozen=True, repr=False)
class TokenMixing(Layer):
    """Applies a layer for channels to tokens: `(N, P, C)` to `(N, C, P)`, the layer, and back.

    Args:
        layers: `(("mix", layer),)`.

    Raises:
        UsageError: the layer has another name, or examples or its outputs are no tokens of
            channels.

    Source: Tolstikhin et al. 2021, "MLP-Mixer", Eq. 1.

    Examples:
        >>> layer = dn.nn.TokenMixing({"mix": dn.nn.Linear(5)})  # 3 tokens to 5, for every channel
        >>> params, _, out_shape = layer.init(dn.Key(0), (3, 7))
        >>> params["mix"]["w"].shape, out_shape
        ((3, 5), (5, 7))
    """

    layers: Layers

    def __post_init__(self) -> None:
        _set_layers(self, ("mix",))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if len(in_shape) != 2:
            raise UsageError(
                f"TokenMixing: expected examples (tokens, channels), got shape {in_shape}"
            )
        ((name, layer),) = self.layers
        params, state, mixed = self.init_child(name, layer, key, in_shape[::-1])
        if len(mixed) != 2:
            raise UsageError(
                "TokenMixing: the inner layer must give examples (channels, tokens), but turns "
                f"{in_shape[::-1]} into {mixed}"
            )
        return {name: params}, {name: state}, mixed[::-1]

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("TokenMixing", x, "N", "T", "C")
        ((name, layer),) = self.layers
        swapped = np.swapaxes(x, -1, -2)
        y, new_state = context.child(name, layer, params[name], state[name], swapped)
        return np.swapaxes(y, -1, -2), {name: new_state}


def mixer_block(*, tokens: int, channels: int, groups: int) -> Sequential:
    """Make a block of LocalMixer, one after the first.

    It mixes tokens, then channels, then maps groups of channels; a residual and a ReLU follow.

    Every linear layer stands between two layer norms without gain and bias.  They are over the
    channels of a token, those around the mixing of tokens too; those around the grouped map are
    over one group.

    Args:
        tokens: P.
        channels: C.
        groups: G; divides C.

    Returns:
        A network that maps `(N, P, C)` to `(N, P, C)`.

    Raises:
        UsageError: a number is below 1, or `groups` does not divide `channels`.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4 and Fig. 2; the
    axes of the norms are those of the published code.

    Examples:
        >>> block = dn.nn.mixer_block(tokens=4, channels=6, groups=2)
        >>> params, _, out_shape = block.init(dn.Key(0), (4, 6))
        >>> for path, leaf in dn.tree.items(params):
        ...     print(path, leaf.shape)
        residual/block/tokens/mix/linear/w (4, 4)
        residual/block/tokens/mix/linear/b (4,)
        residual/block/channels/linear/w (6, 6)
        residual/block/channels/linear/b (6,)
        residual/block/groups/linear/w (2, 3, 3)
        residual/block/groups/linear/b (6,)
    """
    activation = ("relu", Activation(relu))
    norm = LayerNorm(gain=False, bias=False)
    after = replace(norm, axes=(-2,))  # tokens are the last axis where they are mixed
    mix = Sequential(
        (("linear", Linear(tokens, weights="scaled-normal")), ("after", after), activation)
    )
    across = Sequential((*_between_norms(Linear(channels, weights="scaled-normal")), activation))
    grouped = GroupedLinear(channels, groups=groups, weights="scaled-normal")
    layers = (
        ("before", norm),
        ("tokens", TokenMixing((("mix", mix),))),
        ("channels", across),
        ("groups", Sequential(_between_norms(grouped, groups))),
    )
    return Sequential((("residual", Residual((("block", Sequential(layers)),))), activation))


def _between_norms(layer: Layer, groups: int = 1) -> Layers:
    norm = LayerNorm(groups=groups, gain=False, bias=False)
    return (("before", norm), ("linear", layer), ("after", norm))


def mlp_mixer_block(
    *, tokens: int, channels: int, token_width: int, channel_width: int
) -> Sequential:
    """Make a layer of MLP-Mixer: an MLP over the tokens of a channel, then one over channels.

    Args:
        tokens, channels: P and C.
        token_width, channel_width: hidden units of the two MLPs.

    Returns:
        A network that maps `(N, P, C)` to `(N, P, C)`.

    Raises:
        UsageError: a number is below 1.

    Source: Tolstikhin et al. 2021, "MLP-Mixer", Eq. 1.

    Examples:
        >>> block = dn.nn.mlp_mixer_block(tokens=4, channels=6, token_width=8, channel_width=12)
        >>> params, _, out_shape = block.init(dn.Key(0), (4, 6))
        >>> out_shape
        (4, 6)
        >>> dn.tree.subtree(params, "tokens/block/mlp/mix/in/w").shape  # from 4 tokens to 8
        (4, 8)
    """
    mix_tokens = TokenMixing((("mix", Sequential(_mlp(token_width, tokens))),))
    return Sequential(
        (
            ("tokens", _after_norm(("mlp", mix_tokens))),
            ("channels", _after_norm(*_mlp(channel_width, channels))),
        )
    )


def transformer_block(*, width: int, heads: int, mlp_width: int) -> Sequential:
    """Make a layer of a vision transformer: attention, then an MLP, each after a norm.

    Each of the two is residual.

    Args:
        width: C.
        heads: divides C.
        mlp_width: hidden units of the MLP.

    Returns:
        A network that maps `(N, T, C)` to `(N, T, C)`.

    Raises:
        UsageError: a number is below 1; `init` finds that `heads` does not divide `width`.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", Eq. 2 and 3.

    Examples:
        >>> block = dn.nn.transformer_block(width=6, heads=2, mlp_width=12)
        >>> params, _, out_shape = block.init(dn.Key(0), (4, 6))
        >>> list(params), list(params["attention"]["block"]["attention"])
        (['attention', 'mlp'], ['query', 'key', 'value', 'output'])
        >>> out_shape, dn.tree.size(params)  # 4 (36 + 6) + 72 + 12 + 72 + 6 + norms 24
        ((4, 6), 354)
    """
    return Sequential(
        (
            ("attention", _after_norm(("attention", MultiHeadAttention(heads)))),
            ("mlp", _after_norm(*_mlp(mlp_width, width))),
        )
    )


def _mlp(hidden: int, out: int) -> Layers:
    return (("in", Linear(hidden)), ("gelu", Activation(gelu)), ("out", Linear(out)))


def _after_norm(*layers: tuple[str, Layer]) -> Residual:
    return Residual((("block", Sequential((("norm", LayerNorm()), *layers))),))


def _set_layers(container: Residual | TokenMixing, *allowed: tuple[str, ...]) -> None:
    """Make pairs of a container's children; raise a UsageError for other names than allowed."""
    kind = type(container).__name__
    layers = named_layers(kind, container.layers)
    names = tuple(name for name, _ in layers)
    if names not in allowed:
        expected = " or ".join(map(str, allowed))
        raise UsageError(f"{kind}: layers must be named {expected}, got {names}")
    object.__setattr__(container, "layers", layers)
