"""A network of dualnet's layers, built of torch's modules.

    module = in_torch(network, params)

The module has the network's parameters in torch's layouts.  It takes images `(N, C, H, W)`, which
may lie channels last in memory, tokens `(N, T, C)` and features `(N, p)`, and returns the outputs
in training mode.  Local heads and what they read out are left out, as backpropagation of the
network's own loss does not see them.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch.nn import functional

from dualnet import nn
from dualnet.nn import Layer
from dualnet.tree import Tree


def _parameter(array: np.ndarray) -> torch.nn.Parameter:
    """Return a copy of the array as a parameter."""
    return torch.nn.Parameter(torch.from_numpy(np.array(array, copy=True, order="C")))


@functools.singledispatch
def in_torch(layer: Layer, params: Tree) -> torch.nn.Module:
    """Return the layer as a module of torch.

    Args:
        layer: a layer of dualnet.
        params: its parameters, in NumPy arrays, which are copied.

    Raises:
        NotImplementedError: there is no module for such a layer here.
    """
    raise NotImplementedError(f"{type(layer).__name__} in torch")


class _Function(torch.nn.Module):
    """A function of arrays as a module without parameters."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


# --- linear maps, and layers that move entries ---------------------------------------------------


@in_torch.register
def _(layer: nn.Linear, params):
    w = params["w"]
    module = torch.nn.Linear(*w.shape, bias="b" in params)
    module.weight = _parameter(w.T)
    if "b" in params:
        module.bias = _parameter(params["b"])
    return module


class _GroupedLinear(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        self.weight = _parameter(params["w"])  # (G, p/G, q/G)
        self.bias = _parameter(params["b"]) if "b" in params else None

    def forward(self, x):
        rows = x.reshape(-1, *self.weight.shape[:2]).transpose(0, 1)
        y = torch.bmm(rows, self.weight).transpose(0, 1).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


@in_torch.register
def _(layer: nn.GroupedLinear, params):
    return _GroupedLinear(params)


def _pixels_first(x):
    """Put the axis of channels last, where dualnet has it; the entries of such images stay."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


@in_torch.register
def _(layer: nn.Flatten, params):
    return _Function(lambda x: _pixels_first(x).flatten(1))


@in_torch.register(nn.LocalHead)
@in_torch.register(nn.StopGradient)
def _(layer, params):
    return _Function(lambda x: x if isinstance(layer, nn.LocalHead) else x.detach())


_ACTIVATIONS = {
    nn.relu: torch.nn.ReLU,
    nn.tanh: torch.nn.Tanh,
    nn.gelu: functools.partial(torch.nn.GELU, approximate="tanh"),
    nn.sigmoid: torch.nn.Sigmoid,
}


@in_torch.register
def _(layer: nn.Activation, params):
    return _ACTIVATIONS[layer.function]()


@in_torch.register
def _(layer: nn.Patches, params):
    h, w = (layer.size, layer.size) if isinstance(layer.size, int) else layer.size

    def patches(x):
        cut = _pixels_first(x).unflatten(2, (-1, w)).unflatten(1, (-1, h))
        return cut.transpose(2, 3).flatten(3).flatten(1, 2)

    return _Function(patches)


class _ClassToken(torch.nn.Module):
    def __init__(self, token):
        super().__init__()
        self.token = _parameter(token)

    def forward(self, x):
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1)


class _Positions(torch.nn.Module):
    def __init__(self, positions):
        super().__init__()
        self.positions = _parameter(positions)

    def forward(self, x):
        return x + self.positions


@in_torch.register
def _(layer: nn.ClassToken, params):
    return _ClassToken(params["token"])


@in_torch.register
def _(layer: nn.Positions, params):
    return _Positions(params["positions"])


@in_torch.register
def _(layer: nn.SelectToken, params):
    return _Function(lambda x: x[:, layer.index])


@in_torch.register
def _(layer: nn.AverageTokens, params):
    return _Function(lambda x: x.mean(1))


# --- convolution and pooling ---------------------------------------------------------------------


@in_torch.register
def _(layer: nn.Conv2d, params):
    w = params["w"].transpose(3, 2, 0, 1)
    kernel, stride, padding = w.shape[2:], layer.stride, layer.padding
    groups, bias = layer.groups, "b" in params
    module = torch.nn.Conv2d(
        w.shape[1] * groups, len(w), kernel, stride, padding, groups=groups, bias=bias
    )
    module.weight = _parameter(w)
    if bias:
        module.bias = _parameter(params["b"])
    return module


@in_torch.register
def _(layer: nn.MaxPool, params):
    return torch.nn.MaxPool2d(layer.window, layer.stride, layer.padding)


@in_torch.register
def _(layer: nn.AdaptiveAveragePool, params):
    return torch.nn.AdaptiveAvgPool2d(layer.size)


# --- normalization, attention --------------------------------------------------------------------


class _BatchNorm(torch.nn.BatchNorm2d):
    """Batch norm of images or of features."""

    def _check_input_dim(self, x):
        pass


@in_torch.register
def _(layer: nn.BatchNorm, params):
    module = _BatchNorm(len(params["gain"]), layer.epsilon, layer.momentum)
    module.weight, module.bias = _parameter(params["gain"]), _parameter(params["bias"])
    return module


class _LayerNorm(torch.nn.Module):
    """Layer norm over the last axis, or over each of the groups that it is cut into."""

    def __init__(self, layer, params):
        super().__init__()
        self.groups, self.epsilon = layer.groups, layer.epsilon
        self.weight = _parameter(params["gain"]) if "gain" in params else None
        self.bias = _parameter(params["bias"]) if "bias" in params else None

    def forward(self, x):
        if self.groups > 1:
            apart = x.unflatten(-1, (self.groups, -1))
            return functional.layer_norm(apart, apart.shape[-1:], eps=self.epsilon).flatten(-2)
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


@in_torch.register
def _(layer: nn.LayerNorm, params):
    if tuple(layer.axes) != (-1,) or (layer.groups > 1 and params):
        raise NotImplementedError(f"{layer} in torch")
    return _LayerNorm(layer, params)


class _Attention(torch.nn.Module):
    def __init__(self, layer, params):
        super().__init__()
        self.heads = layer.heads
        for name, linear in layer.layers:
            setattr(self, name, in_torch(linear, params[name]))

    def forward(self, x):
        def by_head(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        parts = (by_head(linear(x)) for linear in (self.query, self.key, self.value))
        together = functional.scaled_dot_product_attention(*parts)
        return self.output(together.transpose(1, 2).flatten(2))


@in_torch.register
def _(layer: nn.MultiHeadAttention, params):
    return _Attention(layer, params)


# --- containers ----------------------------------------------------------------------------------


@in_torch.register
def _(layer: nn.Sequential, params):
    return torch.nn.Sequential(*(in_torch(child, params[name]) for name, child in layer.layers))


class _Residual(torch.nn.Module):
    def __init__(self, block, shortcut):
        super().__init__()
        self.block, self.shortcut = block, shortcut

    def forward(self, x):
        return self.block(x) + self.shortcut(x)


@in_torch.register
def _(layer: nn.Residual, params):
    parts = {name: in_torch(child, params[name]) for name, child in layer.layers}
    return _Residual(parts["block"], parts.get("shortcut", torch.nn.Identity()))


class _TokenMixing(torch.nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.mix = mix

    def forward(self, x):
        return self.mix(x.transpose(1, 2)).transpose(1, 2)


@in_torch.register
def _(layer: nn.TokenMixing, params):
    return _TokenMixing(in_torch(dict(layer.layers)["mix"], params["mix"]))
