"""A network of dualnet's layers as a function of JAX's arrays.

    outputs = in_jax(network, params, x)

The parameters have dualnet's names and layouts, and images are `(N, H, W, C)`.  The outputs are
those of training mode.  Local heads and what they read out are left out, as backpropagation of the
network's own loss does not see them.
"""

from __future__ import annotations

import functools

import jax
from jax import numpy as jnp

from dualnet import nn
from dualnet.nn import Layer
from dualnet.tree import Tree


@functools.singledispatch
def in_jax(layer: Layer, params: Tree, x: jax.Array) -> jax.Array:
    """Return the layer's output in training mode.

    Args:
        layer: a layer of dualnet.
        params: its parameters.
        x: its input, `(N, ...)`.

    Raises:
        NotImplementedError: there is no such layer here.
    """
    raise NotImplementedError(f"{type(layer).__name__} in JAX")


def _pair(n):
    return (n, n) if isinstance(n, int) else tuple(n)


# --- linear maps, and layers that move entries ---------------------------------------------------


@in_jax.register
def _(layer: nn.Linear, params, x):
    y = x @ params["w"]
    return y + params["b"] if "b" in params else y


@in_jax.register
def _(layer: nn.GroupedLinear, params, x):
    apart = x.reshape(*x.shape[:-1], *params["w"].shape[:2])
    y = jnp.einsum("...gp,gpq->...gq", apart, params["w"]).reshape(*x.shape[:-1], -1)
    return y + params["b"] if "b" in params else y


@in_jax.register
def _(layer: nn.Flatten, params, x):
    return x.reshape(len(x), -1)


@in_jax.register(nn.LocalHead)
@in_jax.register(nn.StopGradient)
def _(layer, params, x):
    return x if isinstance(layer, nn.LocalHead) else jax.lax.stop_gradient(x)


_ACTIVATIONS = {
    nn.relu: jax.nn.relu,
    nn.tanh: jnp.tanh,
    nn.gelu: functools.partial(jax.nn.gelu, approximate=True),
    nn.sigmoid: jax.nn.sigmoid,
}


@in_jax.register
def _(layer: nn.Activation, params, x):
    return _ACTIVATIONS[layer.function](x)


@in_jax.register
def _(layer: nn.Patches, params, x):
    (h, w), (n, height, width, channels) = _pair(layer.size), x.shape
    cut = x.reshape(n, height // h, h, width // w, w, channels).swapaxes(2, 3)
    return cut.reshape(n, -1, h * w * channels)


@in_jax.register
def _(layer: nn.ClassToken, params, x):
    token = jnp.broadcast_to(params["token"], (len(x), 1, x.shape[-1]))
    return jnp.concatenate([token, x], 1)


@in_jax.register
def _(layer: nn.Positions, params, x):
    return x + params["positions"]


@in_jax.register
def _(layer: nn.SelectToken, params, x):
    return x[:, layer.index]


@in_jax.register
def _(layer: nn.AverageTokens, params, x):
    return x.mean(1)


# --- convolution and pooling ---------------------------------------------------------------------


def _sides(padding):
    """Return ((top, bottom), (left, right))."""
    return [_pair(side) for side in _pair(padding)]


@in_jax.register
def _(layer: nn.Conv2d, params, x):
    y = jax.lax.conv_general_dilated(
        x,
        params["w"],
        _pair(layer.stride),
        _sides(layer.padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer.groups,
    )
    return y + params["b"] if "b" in params else y


@in_jax.register
def _(layer: nn.MaxPool, params, x):
    window, stride = _pair(layer.window), _pair(layer.stride or layer.window)
    padding = [(0, 0), *_sides(layer.padding), (0, 0)]
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), padding
    )


@in_jax.register
def _(layer: nn.AdaptiveAveragePool, params, x):
    (rows, columns), (n, height, width, channels) = _pair(layer.size), x.shape
    if height % rows or width % columns:
        raise NotImplementedError(f"{layer} of images {x.shape} in JAX")
    cut = x.reshape(n, rows, height // rows, columns, width // columns, channels)
    return cut.mean((2, 4))


# --- normalization, attention --------------------------------------------------------------------


def _normalized(x, axes, epsilon):
    centered = x - x.mean(axes, keepdims=True)
    return centered * jax.lax.rsqrt(jnp.square(centered).mean(axes, keepdims=True) + epsilon)


def _scaled(y, params):
    return y * params.get("gain", 1.0) + params.get("bias", 0.0)


@in_jax.register
def _(layer: nn.BatchNorm, params, x):
    return _scaled(_normalized(x, tuple(range(x.ndim - 1)), layer.epsilon), params)


@in_jax.register
def _(layer: nn.LayerNorm, params, x):
    if tuple(layer.axes) != (-1,):
        raise NotImplementedError(f"{layer} in JAX")
    apart = x.reshape(*x.shape[:-1], layer.groups, -1)
    return _scaled(_normalized(apart, -1, layer.epsilon).reshape(x.shape), params)


@in_jax.register
def _(layer: nn.MultiHeadAttention, params, x):
    linear = dict(layer.layers)

    def by_head(name):
        return in_jax(linear[name], params[name], x).reshape(*x.shape[:2], layer.heads, -1)

    together = jax.nn.dot_product_attention(*map(by_head, ("query", "key", "value")))
    return in_jax(linear["output"], params["output"], together.reshape(x.shape))


# --- containers ----------------------------------------------------------------------------------


def _child(layer, name, params, x):
    return in_jax(dict(layer.layers)[name], params[name], x)


@in_jax.register
def _(layer: nn.Sequential, params, x):
    for name, _ in layer.layers:
        x = _child(layer, name, params, x)
    return x


@in_jax.register
def _(layer: nn.Residual, params, x):
    shortcut = _child(layer, "shortcut", params, x) if "shortcut" in params else x
    return _child(layer, "block", params, x) + shortcut


@in_jax.register
def _(layer: nn.TokenMixing, params, x):
    return _child(layer, "mix", params, x.swapaxes(1, 2)).swapaxes(1, 2)
