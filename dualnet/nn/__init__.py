"""Layers, networks and losses.  Start with `network`, which says what a layer is."""

from dualnet.nn.layers import ACTIVATIONS, Activation, Flatten, Linear, gelu, relu, sigmoid, tanh
from dualnet.nn.losses import mean_squared_error, softmax_cross_entropy
from dualnet.nn.network import Context, Layer, Sequential, walk

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Context",
    "Flatten",
    "Layer",
    "Linear",
    "Sequential",
    "gelu",
    "mean_squared_error",
    "relu",
    "sigmoid",
    "softmax_cross_entropy",
    "tanh",
    "walk",
]
