"""What fused rules and layers should give, written with elementary functions, however slow.

The table compares each fused function and each layer with its reference here, in value, jvp and
vjp.  Every reference takes the array module as `xp`, so that another framework that has NumPy's
functions computes the same, and differentiates it by rules of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dualnet import nn
from dualnet.check.table import constant
from dualnet.core.transforms import stop_gradient
from dualnet.images.windows import Geometry
from dualnet.nn import Context
from dualnet.random import Key
from dualnet.tree import Tree

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]

MASKING = Context(train=True, key=Key(0))
"""How layers are called in training; its key draws the masks of dropout."""


def stopped(xp: Any, x: Any) -> Any:
    """Stop the gradient, by the framework's own function where xp has one."""
    return getattr(xp, "stop_gradient", stop_gradient)(x)


def relu(xp: Any, x: Any) -> Any:
    return xp.where(x > 0, x, 0.0)


def sigmoid(xp: Any, x: Any) -> Any:
    return 1.0 / (1.0 + xp.exp(-x))


def gelu(xp: Any, x: Any) -> Any:
    return 0.5 * x * (1.0 + xp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax(xp: Any, x: Any, axis: int = -1) -> Any:
    e = xp.exp(x)
    return e / xp.sum(e, axis=axis, keepdims=True)


def normalize(xp: Any, x: Any, axes: tuple[int, ...], epsilon: float = 1e-5) -> Any:
    centered = x - xp.mean(x, axis=axes, keepdims=True)
    variance = xp.mean(xp.square(centered), axis=axes, keepdims=True)
    return centered / xp.sqrt(variance + epsilon)


def softmax_cross_entropy(xp: Any, logits: Any, labels: Any) -> Any:
    return -xp.log(softmax(xp, logits)[constant(np.arange(len(labels)), labels), labels])


def info_nce(xp: Any, projections: Any, temperature: float, passed: Callable[[Any], Any]) -> Any:
    """Pair by pair; `passed` is what becomes of the projections that answer."""
    n = len(projections) // 2
    unit = [f / xp.sqrt(xp.sum(f * f)) for f in projections]
    losses = []
    for i in range(2 * n):
        others = range(n, 2 * n) if i < n else range(n)
        scores = [xp.sum(unit[i] * passed(unit[j])) / temperature for j in others]
        total = sum(xp.exp(score) for score in scores)
        losses.append(xp.log(total) - scores[i % n])
    return xp.stack(losses)


def mean_squared_error(xp: Any, outputs: Any, targets: Any) -> Any:
    return xp.mean(xp.square(outputs - targets), axis=tuple(range(1, outputs.ndim)))


def conv2d(
    xp: Any,
    x: Any,
    w: Any,
    stride: Pair = (1, 1),
    padding: Sides = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Any:
    """A sum over the pixels of the window."""
    parts = []
    for own_x, own_w in zip(
        xp.split(x, groups, axis=-1), xp.split(w, groups, axis=-1), strict=True
    ):
        pixels = _shifted(xp, own_x, w.shape[:2], stride, padding, 0.0)
        products = [pixel @ own_w[at] for at, pixel in pixels]
        parts.append(sum(products[1:], products[0]))
    return xp.concatenate(parts, axis=-1)


def max_pool(xp: Any, x: Any, window: Pair, stride: Pair, padding: Sides = ((0, 0), (0, 0))) -> Any:
    pixels = _shifted(xp, x, window, stride, padding, -np.inf)
    return xp.max(xp.stack([pixel for _, pixel in pixels]), axis=0)


def average_pool(
    xp: Any, x: Any, window: Pair, stride: Pair, padding: Sides = ((0, 0), (0, 0))
) -> Any:
    pixels = _shifted(xp, x, window, stride, padding, 0.0)
    return xp.mean(xp.stack([pixel for _, pixel in pixels]), axis=0)


def adaptive_average_pool(xp: Any, x: Any, rows: int, columns: int) -> Any:
    """Return the means of rows × columns cells, whose bounds are rounded outward."""
    _, h, w, _ = x.shape
    cells = [
        [
            xp.mean(
                x[
                    :,
                    i * h // rows : -(-(i + 1) * h // rows),
                    j * w // columns : -(-(j + 1) * w // columns),
                ],
                axis=(1, 2),
            )
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    return xp.stack([xp.stack(row, axis=1) for row in cells], axis=1)


def _shifted(
    xp: Any, x: Any, window: Pair, stride: Pair, padding: Sides, value: float
) -> Iterator[tuple[Pair, Any]]:
    """For each pixel of the window its place in it and, for all windows, what it sees."""
    x = xp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)
    (kh, kw), (down, across) = window, stride
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    for a in range(kh):
        for b in range(kw):
            yield (a, b), x[:, a : a + height : down, b : b + width : across]


# --- layers --------------------------------------------------------------------------------------


@functools.singledispatch
def apply(layer: nn.Layer, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    """Apply a layer, written out; the state is None in training.

    A new layer of `dualnet.nn` is registered here once, for its row of the table, for random
    programs and for JAX.
    """
    raise NotImplementedError(f"no reference for the layer {type(layer).__name__}")


@apply.register
def _(layer: nn.Linear, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return x @ params["w"] + params.get("b", 0.0)


@apply.register
def _(layer: nn.GroupedLinear, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    w = params["w"]
    parts = [part @ own for part, own in zip(xp.split(x, len(w), axis=-1), w, strict=True)]
    return xp.concatenate(parts, axis=-1) + params.get("b", 0.0)


FUNCTIONS: dict[Callable, Callable] = {
    nn.relu: relu,
    nn.sigmoid: sigmoid,
    nn.tanh: lambda xp, x: xp.tanh(x),
    nn.gelu: gelu,
    nn.softmax: softmax,
}
"""Function of an `Activation` → the same with elementary functions."""


@apply.register
def _(layer: nn.Activation, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return FUNCTIONS[layer.function](xp, x)


@apply.register
def _(layer: nn.Flatten, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return xp.reshape(x, (len(x), -1))


@apply.register
def _(layer: nn.StopGradient, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return stopped(xp, x)


@apply.register
def _(layer: nn.Dropout, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    if state is not None:
        return x
    mask, _ = layer.apply({}, {}, np.ones(x.shape), MASKING)
    return x * constant(mask.astype(x.dtype), x)


@apply.register
def _(layer: nn.Patches, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    h, w = Geometry.of("Patches", layer.size, 1, 0).window
    tiles = [
        xp.reshape(x[:, i : i + h, j : j + w], (len(x), -1))
        for i in range(0, x.shape[1], h)
        for j in range(0, x.shape[2], w)
    ]
    return xp.stack(tiles, axis=1)


@apply.register
def _(layer: nn.ClassToken, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return xp.stack([xp.concatenate([params["token"][None], tokens]) for tokens in x])


@apply.register
def _(layer: nn.Positions, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return x + params["positions"]


@apply.register
def _(layer: nn.SelectToken, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return x[:, layer.index]


@apply.register
def _(layer: nn.AverageTokens, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return xp.sum(x, axis=1) / x.shape[1]


@apply.register
def _(layer: nn.LocalHead, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return x


@apply.register
def _(layer: nn.Conv2d, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    g = Geometry.of("Conv2d", layer.kernel, layer.stride, layer.padding)
    y = conv2d(xp, x, params["w"], g.stride, g.padding, layer.groups)
    return y + params.get("b", 0.0)


@apply.register
def _(layer: nn.MaxPool, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return max_pool(xp, x, *_windows(layer))


@apply.register
def _(layer: nn.AveragePool, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return average_pool(xp, x, *_windows(layer))


def _windows(layer: Any) -> tuple[Pair, Pair, Sides]:
    stride = layer.window if layer.stride is None else layer.stride
    g = Geometry.of("pool", layer.window, stride, layer.padding)
    return g.window, g.stride, g.padding


@apply.register
def _(layer: nn.AdaptiveAveragePool, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    return adaptive_average_pool(xp, x, *Geometry.of("pool", layer.size, 1, 0).window)


@apply.register
def _(layer: nn.LayerNorm, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    """Each group of the last axis is normalized by itself."""
    y = _by_groups(xp, x, layer.axes, layer.groups, layer.epsilon)
    shape = [x.shape[a] if a in layer.axes else 1 for a in range(min(layer.axes), 0)]
    return _scaled(y, {name: xp.reshape(p, shape) for name, p in params.items()})


@apply.register
def _(layer: nn.GroupNorm, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    y = _by_groups(xp, x, tuple(range(1, x.ndim)), layer.groups, layer.epsilon)
    return _scaled(y, params)


@apply.register
def _(layer: nn.BatchNorm, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    if state is None:
        y = normalize(xp, x, tuple(range(x.ndim - 1)), layer.epsilon)
    else:
        y = (x - state["mean"]) / xp.sqrt(state["variance"] + layer.epsilon)
    return _scaled(y, params)


def _by_groups(xp: Any, x: Any, axes: tuple[int, ...], groups: int, epsilon: float) -> Any:
    parts = [normalize(xp, part, axes, epsilon) for part in xp.split(x, groups, axis=-1)]
    return xp.concatenate(parts, axis=-1)


def _scaled(y: Any, params: Tree) -> Any:
    return y * params.get("gain", 1.0) + params.get("bias", 0.0)


@apply.register
def _(layer: nn.MultiHeadAttention, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    """Attend head by head."""

    def linear(name: str, x: Any) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    width = x.shape[-1] // layer.heads
    gathered = []
    for h in range(layer.heads):
        own = slice(h * width, (h + 1) * width)
        q, k, v = (linear(name, x)[..., own] for name in ("query", "key", "value"))
        scores = xp.einsum("nic,njc->nij", q, k) / math.sqrt(width)
        gathered.append(xp.einsum("nij,njc->nic", softmax(xp, scores), v))
    return linear("output", xp.concatenate(gathered, axis=-1))


@apply.register
def _(layer: nn.Sequential, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    for name, _ in layer.layers:
        x = _child(layer, name, xp, params, state, x)
    return x


@apply.register
def _(layer: nn.Residual, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    beside = _child(layer, "shortcut", xp, params, state, x) if len(layer.layers) == 2 else x
    return _child(layer, "block", xp, params, state, x) + beside


@apply.register
def _(layer: nn.TokenMixing, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    y = _child(layer, "mix", xp, params, state, xp.swapaxes(x, 1, 2))
    return xp.swapaxes(y, 1, 2)


def _child(layer: Any, name: str, xp: Any, params: Tree, state: Tree, x: Any) -> Any:
    child = dict(layer.layers)[name]
    return apply(child, xp, params[name], None if state is None else state[name], x)


# --- the blocks of the papers, not by way of the layers that they are built of ------------------


def mixer_block(xp: Any, params: Tree, x: Any, groups: int) -> Any:
    """Ren et al. 2023, section 4: y = relu(x + f(x)), where f has three linear maps, and a layer
    norm over the channels of each token before and after each."""
    p = params["residual"]["block"]
    mix, across, grouped = p["tokens"]["mix"]["linear"], p["channels"]["linear"], p["groups"]
    n, tokens, channels = x.shape

    def norm(x: Any) -> Any:
        return normalize(xp, x, (-1,))

    y = xp.einsum("npc,pq->nqc", norm(x), mix["w"]) + mix["b"][:, None]
    y = relu(xp, norm(y))
    y = relu(xp, norm(norm(y) @ across["w"] + across["b"]))
    y = norm(xp.reshape(y, (n, tokens, groups, channels // groups)))
    y = xp.einsum("npgc,gcd->npgd", y, grouped["linear"]["w"])
    y = norm(y + xp.reshape(grouped["linear"]["b"], (groups, -1)))
    return relu(xp, x + xp.reshape(y, x.shape))


def mlp_mixer_block(xp: Any, params: Tree, x: Any) -> Any:
    """Evaluate Eq. 1 of Tolstikhin et al. 2021."""
    p = params["tokens"]["block"]
    across = xp.swapaxes(_layer_norm(xp, p["norm"], x), 1, 2)
    x = x + xp.swapaxes(_mlp(xp, p["mlp"]["mix"], across), 1, 2)
    p = params["channels"]["block"]
    return x + _mlp(xp, p, _layer_norm(xp, p["norm"], x))


def transformer_block(xp: Any, params: Tree, x: Any, heads: int) -> Any:
    """Evaluate Eq. 2 and 3 of Dosovitskiy et al. 2021."""
    p, attention = params["attention"]["block"], nn.MultiHeadAttention(heads)
    x = x + apply(attention, xp, p["attention"], None, _layer_norm(xp, p["norm"], x))
    p = params["mlp"]["block"]
    return x + _mlp(xp, p, _layer_norm(xp, p["norm"], x))


def _layer_norm(xp: Any, params: Tree, x: Any) -> Any:
    return normalize(xp, x, (-1,)) * params["gain"] + params["bias"]


def _mlp(xp: Any, params: Tree, x: Any) -> Any:
    y = gelu(xp, x @ params["in"]["w"] + params["in"]["b"])
    return y @ params["out"]["w"] + params["out"]["b"]
