"""Layers: what each makes of `{"params": ..., "state": ..., "x": ...}`, in training and evaluation.

Parameters are drawn afresh, since where training starts (gains 1, biases 0) hides mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.check import references
from dualnet.check.table import Draw, Row, adder, distinct, uniform
from dualnet.nn import (
    ACTIVATIONS,
    Activation,
    AdaptiveAveragePool,
    AveragePool,
    AverageTokens,
    BatchNorm,
    ClassToken,
    Context,
    Conv2d,
    Dropout,
    Flatten,
    GroupedLinear,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    LocalHead,
    MaxPool,
    MultiHeadAttention,
    Patches,
    Positions,
    Residual,
    SelectToken,
    Sequential,
    StopGradient,
    TokenMixing,
    mixer_block,
    mlp_mixer_block,
    relu,
    softmax,
    tanh,
    transformer_block,
)
from dualnet.random import Key
from dualnet.tree import Tree

ROWS: list[Row] = []
row = adder(ROWS, "layers")

Shape = tuple[int, ...]

# --- a layer as a function -----------------------------------------------------------------------


def example(
    layer: Layer, in_shape: Shape, batch: int, apart: bool = False, largest: float = 1.0
) -> Draw:
    """Parameters, state and inputs of a layer.

    Args:
        layer, in_shape, batch: what is to be called.
        apart: no two inputs are nearly equal.
        largest: parameters are drawn from [-largest, largest].
    """
    params, state, _ = layer.init(Key(0), in_shape)
    shape = (batch, *in_shape)
    inputs = distinct(*shape) if apart else uniform(-2.0, 2.0, *shape)

    def draw(rng: np.random.Generator) -> Tree:
        def entries(path: str, x: np.ndarray) -> np.ndarray:
            low, high = (0.5, 2.0) if path.endswith("variance") else (-largest, largest)
            return rng.uniform(low, high, x.shape)

        return {
            "params": tree.map_with_path(entries, params),
            "state": tree.map_with_path(entries, state),
            "x": inputs(rng),
        }

    return draw


def add_layer(
    layer: Layer,
    in_shape: Shape,
    note: str = "",
    train: bool = False,
    covers: Callable | None = None,
    composed: Callable | None = None,
    batch: int = 3,
    apart: bool = False,
    largest: float = 1.0,
    **how: Any,
) -> None:
    """Add the row of a layer; `composed(xp, params, x)` replaces its reference."""
    context = references.MASKING if train else Context()

    def output(_xp: Any, here: Tree) -> Any:
        return layer.apply(here["params"], here["state"], here["x"], context)[0]

    def by_reference(xp: Any, here: Tree) -> Any:
        if composed:
            return composed(xp, here["params"], here["x"])
        state = None if train else here["state"]
        return references.apply(layer, xp, here["params"], state, here["x"])

    row(
        covers or type(layer),
        note,
        output,
        example(layer, in_shape, batch, apart, largest),
        composed=by_reference,
        layer=layer,
        train=train,
        **how,
    )


# --- linear layers, and what only passes on ------------------------------------------------------

add_layer(Linear(4), (3,), exact=True)
add_layer(Linear(None, bias=False), (3,), "no bias", exact=True)
add_layer(Linear(4), (2, 3), "tokens", exact=True)
add_layer(GroupedLinear(4, groups=2), (6,), exact=True)
add_layer(GroupedLinear(6, groups=3), (2, 3), "tokens", exact=True)
add_layer(GroupedLinear(6, groups=3, bias=False), (2, 9), "no bias", exact=True)

for _name, _function in {**ACTIVATIONS, "softmax": softmax}.items():
    add_layer(Activation(_function), (4,), _name, watch=_function is relu)
add_layer(Flatten(), (2, 3), exact=True)
add_layer(Dropout(0.5), (6,), "evaluation", exact=True)


def _dropout(_xp: Any, x: Any) -> Any:
    # the mask is drawn in the precision of x, and both precisions are to have the same
    y, _ = Dropout(0.5).apply({}, {}, x.astype(np.float64), references.MASKING)
    return y.astype(x.dtype)


row(
    Dropout,
    "training",
    _dropout,
    (3, 6),
    composed=lambda xp, x: references.apply(Dropout(0.5), xp, {}, None, x),
    exact=True,
)
row(
    StopGradient,
    "",
    lambda _xp, x: StopGradient().apply({}, {}, x, Context())[0],
    lambda rng: np.rint(rng.uniform(-5, 5, (2, 3))),
    composed=lambda xp, x: xp.rint(x),  # at whole numbers: the same value, and no slope
    decreed=True,
)

# --- convolution and pooling ---------------------------------------------------------------------

add_layer(Conv2d(4, 3, stride=2, padding=1, groups=2), (5, 4, 2), exact=True, batch=2)
add_layer(Conv2d(3, (2, 3), bias=False), (3, 4, 2), "no bias", exact=True, batch=2)
add_layer(Conv2d(32, 3), (18, 18, 32), "3x3, many channels", exact=True, batch=2)  # by tiles
add_layer(Conv2d(2, 2, padding=((0, 1), (1, 0))), (3, 3, 1), "asymmetric", exact=True, batch=2)
add_layer(MaxPool(2), (4, 5, 2), watch=True, batch=2)
add_layer(MaxPool(3, stride=2, padding=1), (4, 4, 1), "stride and padding", watch=True, batch=2)
add_layer(AveragePool(2, stride=1, padding=1), (4, 5, 2), exact=True)
add_layer(
    AveragePool(3, stride=(1, 2), padding=(1, 0)), (4, 5, 1), "stride and padding", exact=True
)
add_layer(AdaptiveAveragePool((2, 3)), (5, 4, 2), exact=True)
add_layer(AdaptiveAveragePool(1), (2, 3, 2), "of all", exact=True)
add_layer(AdaptiveAveragePool((5, 2)), (3, 3, 1), "larger", exact=True)

# --- normalization, of inputs whose variance is far from 0 -------------------------------------

for _layer, _in_shape, _note in (
    (LayerNorm(), (4,), ""),
    (LayerNorm(epsilon=0.1), (2, 5), "epsilon"),
    (LayerNorm(axes=(-2, -1)), (2, 3), "axes"),
    (LayerNorm(axes=(-3,)), (4, 3, 2), "first axis"),
    (LayerNorm(axes=(-1, -3)), (2, 3, 4), "axes that are apart"),
    (LayerNorm(groups=2, gain=False, bias=False), (2, 6), "groups"),
    (LayerNorm(axes=(-3, -1), groups=2), (3, 2, 4), "axes and groups"),
    (LayerNorm(gain=False), (2, 5), "no gain"),
    (LayerNorm(bias=False), (2, 5), "no bias"),
    (GroupNorm(2), (2, 3, 4), ""),
    (GroupNorm(1, bias=False), (3, 2, 2), "one group"),
    (GroupNorm(2, gain=False), (4, 2, 2), "each channel"),
    (GroupNorm(3), (9,), "no positions"),
):
    add_layer(_layer, _in_shape, _note, apart=True)
for _in_shape in ((3,), (2, 3, 2)):
    add_layer(BatchNorm(), _in_shape, f"training, {_in_shape}", True, batch=4, apart=True)
    add_layer(BatchNorm(), _in_shape, f"evaluation, {_in_shape}")
_bare = BatchNorm(gain=False, bias=False, epsilon=0.1)
add_layer(_bare, (2, 2, 3), "training, bare", True, apart=True)

# --- tokens --------------------------------------------------------------------------------------

add_layer(Patches((2, 3)), (4, 6, 2), exact=True)
add_layer(ClassToken(), (2, 3), exact=True)
add_layer(Positions(), (2, 3), exact=True)
add_layer(SelectToken(-1), (2, 3), exact=True)
add_layer(AverageTokens(), (4, 3), exact=True)

# --- containers, attention, blocks ---------------------------------------------------------------

_two = Sequential((("in", Linear(4)), ("tanh", Activation(tanh)), ("out", Linear(3))))
_cut = Sequential((("in", Linear(4)), ("stop", StopGradient()), ("out", Linear(3))))

add_layer(_two, (3,))
add_layer(_cut, (3,), "with a stop-gradient", decreed=True)
add_layer(Residual((("block", _two),)), (3,))
add_layer(Residual((("block", _two), ("shortcut", Linear(3)))), (2,), "shortcut")
add_layer(TokenMixing((("mix", Linear(2)),)), (4, 3))
add_layer(MultiHeadAttention(2), (3, 4), batch=2)
add_layer(MultiHeadAttention(1), (1, 4), "one head", batch=1)
add_layer(LocalHead(2), (3,), "alone", exact=True)


def _readout(_xp: Any, here: Tree) -> list:
    seen = {}

    def tap(path: str, y: Any) -> Any:
        seen[path] = y
        return y

    layer = LocalHead(2)
    y, _ = layer.apply(here["params"], here["state"], here["x"], Context(tap=tap))
    return [y, seen["linear"]]


def _mean_readout(xp: Any, here: Tree) -> list:
    p, x = here["params"]["linear"], here["x"]
    return [x, xp.mean(x, axis=(1, 2)) @ p["w"] + p["b"]]


row(
    LocalHead,
    "and its read-out",
    _readout,
    example(LocalHead(2), (2, 3, 4), 3),
    composed=_mean_readout,
    exact=True,
)

# a chain of six norms bends less by its weights where these are large
add_layer(
    mixer_block(tokens=6, channels=12, groups=2),
    (6, 12),
    covers=mixer_block,
    composed=lambda xp, params, x: references.mixer_block(xp, params, x, 2),
    watch=True,
    batch=1,
    largest=4.0,
)
add_layer(
    mlp_mixer_block(tokens=3, channels=4, token_width=2, channel_width=3),
    (3, 4),
    covers=mlp_mixer_block,
    composed=references.mlp_mixer_block,
    batch=2,
)
add_layer(
    transformer_block(width=4, heads=2, mlp_width=3),
    (3, 4),
    covers=transformer_block,
    composed=lambda xp, params, x: references.transformer_block(xp, params, x, 2),
    batch=2,
)
