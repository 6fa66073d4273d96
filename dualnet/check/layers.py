"""Layers: what each makes of `{"params": ..., "state": ..., "x": ...}`, in training and evaluation.

Parameters are drawn afresh, since where training starts (gains 1, biases 0) hides mistakes.
"""

from __future__ import annotations

import math
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
    reference: Callable | None = None,
    context: Context | None = None,
    covers: Callable | None = None,
    batch: int = 3,
    apart: bool = False,
    largest: float = 1.0,
    **how: Any,
) -> None:
    """A row of a layer; `reference(params, state, x)` is the same with elementary functions."""
    context = context or Context()

    def output(_xp: Any, here: Tree) -> Any:
        return layer.apply(here["params"], here["state"], here["x"], context)[0]

    def by_reference(_xp: Any, here: Tree) -> Any:
        assert reference is not None
        return reference(here["params"], here["state"], here["x"])

    row(
        covers or type(layer),
        note,
        output,
        example(layer, in_shape, batch, apart, largest),
        composed=reference and by_reference,
        **how,
    )


TRAIN = Context(train=True, key=Key(0))

# --- linear layers, and what only passes on ------------------------------------------------------

add_layer(Linear(4), (3,), "", lambda p, s, x: x @ p["w"] + p["b"], exact=True)
add_layer(Linear(4, bias=False), (3,), "no bias", lambda p, s, x: x @ p["w"], exact=True)
add_layer(Linear(4), (2, 3), "tokens", lambda p, s, x: x @ p["w"] + p["b"], exact=True)


def _grouped_linear(p: Tree, _state: Tree, x: Any) -> Any:
    groups = len(p["w"])
    parts = [part @ w for part, w in zip(np.split(x, groups, -1), p["w"], strict=True)]
    return np.concatenate(parts, -1) + p["b"]


add_layer(GroupedLinear(4, 2), (6,), "", _grouped_linear, exact=True)
add_layer(GroupedLinear(6, 3), (2, 3), "tokens", _grouped_linear, exact=True)

for _name, _function in ACTIVATIONS.items():
    add_layer(Activation(_function), (4,), _name, watch=_function is relu)
add_layer(Flatten(), (2, 3), "", lambda p, s, x: np.reshape(x, (3, 6)), exact=True)

add_layer(Dropout(0.5), (6,), "evaluation", lambda p, s, x: x, exact=True)


def _dropout(_xp: Any, x: Any) -> Any:
    # the mask is drawn in the precision of x, and both precisions are to have the same
    y, _ = Dropout(0.5).apply({}, {}, x.astype(np.float64), TRAIN)
    return y.astype(x.dtype)


row(Dropout, "training", _dropout, (3, 6), exact=True)

row(
    StopGradient,
    "",
    lambda _xp, x: StopGradient().apply({}, {}, x, Context())[0],
    lambda rng: np.rint(rng.uniform(-5, 5, (2, 3))),
    composed=lambda _xp, x: np.rint(x),  # at whole numbers: the same value, and no slope
    decreed=True,
)

# --- convolution and pooling ---------------------------------------------------------------------

add_layer(
    Conv2d(4, 3, stride=2, padding=1, groups=2),
    (5, 4, 2),
    "",
    lambda p, s, x: references.conv2d(x, p["w"], (2, 2), ((1, 1), (1, 1)), 2) + p["b"],
    exact=True,
    batch=2,
)
add_layer(
    Conv2d(3, (2, 3), bias=False),
    (3, 4, 2),
    "no bias",
    lambda p, s, x: references.conv2d(x, p["w"]),
    exact=True,
    batch=2,
)
add_layer(
    MaxPool(2),
    (4, 5, 2),
    "",
    lambda p, s, x: references.max_pool(x, (2, 2), (2, 2)),
    watch=True,
    batch=2,
)
add_layer(
    MaxPool(3, 2, 1),
    (4, 4, 1),
    "stride and padding",
    lambda p, s, x: references.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    watch=True,
    batch=2,
)
add_layer(
    AveragePool(2, 1, 1),
    (4, 5, 2),
    "",
    lambda p, s, x: references.average_pool(x, (2, 2), (1, 1), ((1, 1), (1, 1))),
    exact=True,
)
add_layer(
    AdaptiveAveragePool((2, 3)),
    (5, 4, 2),
    "",
    lambda p, s, x: references.adaptive_average_pool(x, 2, 3),
    exact=True,
)

# --- normalization, of inputs whose variance is far from 0 -------------------------------------


def _by_groups(x: Any, axes: Shape, groups: int) -> Any:
    """Each group of the last axis normalized by itself."""
    parts = [references.normalize(part, axes) for part in np.split(x, groups, -1)]
    return np.concatenate(parts, -1)


def _batch_norm(p: Tree, _state: Tree, x: Any) -> Any:
    y = references.normalize(x, tuple(range(x.ndim - 1)))
    return y * p["gain"] + p["bias"]


def _batch_norm_of_state(p: Tree, state: Tree, x: Any) -> Any:
    y = (x - state["mean"]) / np.sqrt(state["variance"] + 1e-5)
    return y * p["gain"] + p["bias"]


add_layer(
    LayerNorm(),
    (4,),
    "",
    lambda p, s, x: references.normalize(x, (-1,)) * p["gain"] + p["bias"],
    apart=True,
)
add_layer(
    LayerNorm((-2, -1)),
    (2, 3),
    "axes",
    lambda p, s, x: references.normalize(x, (-2, -1)) * p["gain"] + p["bias"],
    apart=True,
)
add_layer(
    LayerNorm(groups=2, gain=False, bias=False),
    (2, 6),
    "groups",
    lambda p, s, x: _by_groups(x, (-1,), 2),
    apart=True,
)
add_layer(
    GroupNorm(2),
    (2, 3, 4),
    "",
    lambda p, s, x: _by_groups(x, (1, 2, 3), 2) * p["gain"] + p["bias"],
    apart=True,
)
for _shape in ((3,), (2, 3, 2)):
    add_layer(BatchNorm(), _shape, f"training, {_shape}", _batch_norm, TRAIN, batch=4, apart=True)
    add_layer(BatchNorm(), _shape, f"evaluation, {_shape}", _batch_norm_of_state)

# --- tokens --------------------------------------------------------------------------------------


def _patches(_params: Tree, _state: Tree, x: Any) -> Any:
    tiles = [
        np.reshape(x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3], (len(x), -1))
        for i in range(2)
        for j in range(2)
    ]
    return np.stack(tiles, axis=1)


def _class_token(p: Tree, _state: Tree, x: Any) -> Any:
    return np.stack([np.concatenate([p["token"][None], tokens]) for tokens in x])


add_layer(Patches((2, 3)), (4, 6, 2), "", _patches, exact=True)
add_layer(ClassToken(), (2, 3), "", _class_token, exact=True)
add_layer(Positions(), (2, 3), "", lambda p, s, x: x + p["positions"], exact=True)
add_layer(SelectToken(-1), (2, 3), "", lambda p, s, x: x[:, 1], exact=True)
add_layer(AverageTokens(), (4, 3), "", lambda p, s, x: np.sum(x, axis=1) / 4.0, exact=True)

# --- containers, attention, blocks ---------------------------------------------------------------

_two = Sequential((("in", Linear(4)), ("tanh", Activation(tanh)), ("out", Linear(3))))


def _apply_two(p: Tree, x: Any) -> Any:
    return np.tanh(x @ p["in"]["w"] + p["in"]["b"]) @ p["out"]["w"] + p["out"]["b"]


add_layer(_two, (3,), "", lambda p, s, x: _apply_two(p, x))
add_layer(Residual((("block", _two),)), (3,), "", lambda p, s, x: _apply_two(p["block"], x) + x)
add_layer(
    Residual((("block", _two), ("shortcut", Linear(3)))),
    (2,),
    "shortcut",
    lambda p, s, x: _apply_two(p["block"], x) + x @ p["shortcut"]["w"] + p["shortcut"]["b"],
)
add_layer(
    TokenMixing((("mix", Linear(2)),)),
    (4, 3),
    "",
    lambda p, s, x: np.einsum("npc,pq->nqc", x, p["mix"]["w"]) + p["mix"]["b"][:, None],
)
add_layer(
    MultiHeadAttention(2),
    (3, 4),
    "",
    lambda p, s, x: references.attention(p, x, 2),
    batch=2,
)


def _readout(_xp: Any, here: Tree) -> list:
    seen = {}

    def tap(path: str, y: Any) -> Any:
        seen[path] = y
        return y

    layer = LocalHead(2)
    y, _ = layer.apply(here["params"], here["state"], here["x"], Context(tap=tap))
    return [y, seen["linear"]]


def _mean_readout(_xp: Any, here: Tree) -> list:
    p, x = here["params"]["linear"], here["x"]
    return [x, np.sum(x, axis=(1, 2)) / math.prod(x.shape[1:3]) @ p["w"] + p["b"]]


row(
    LocalHead,
    "and its readout",
    _readout,
    example(LocalHead(2), (2, 3, 4), 3),
    composed=_mean_readout,
    exact=True,
)

# a chain of six norms bends less by its weights where these are large
add_layer(mixer_block(6, 12, 2), (6, 12), covers=mixer_block, watch=True, batch=1, largest=4.0)
add_layer(mlp_mixer_block(3, 4, 2, 3), (3, 4), covers=mlp_mixer_block, batch=2)
add_layer(transformer_block(4, 2, 3), (3, 4), covers=transformer_block, batch=2)
