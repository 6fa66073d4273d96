"""Layers, networks and losses.  Start with `network`, which says what a layer is."""

from dualnet.nn.activations import ACTIVATIONS, Activation, gelu, relu, sigmoid, softmax, tanh
from dualnet.nn.attention import MultiHeadAttention
from dualnet.nn.blocks import (
    Residual,
    TokenMixing,
    mixer_block,
    mlp_mixer_block,
    transformer_block,
)
from dualnet.nn.context import Context
from dualnet.nn.contrastive import InfoNCE
from dualnet.nn.convolution import Conv2d, conv2d
from dualnet.nn.heads import READS, LocalHead, has_local_heads, with_local_heads
from dualnet.nn.initial import INITIALIZERS
from dualnet.nn.layers import Dropout, Flatten, GroupedLinear, Linear, StopGradient
from dualnet.nn.losses import Loss, mean_squared_error, softmax_cross_entropy
from dualnet.nn.network import Layer, Sequential, couples_examples, table, walk
from dualnet.nn.normalization import BatchNorm, GroupNorm, LayerNorm, normalize
from dualnet.nn.pooling import (
    AdaptiveAveragePool,
    AveragePool,
    MaxPool,
    adaptive_average_pool,
    average_pool,
    max_pool,
)
from dualnet.nn.replicated import average, replicated, replicated_by_copies
from dualnet.nn.tokens import AverageTokens, ClassToken, Patches, Positions, SelectToken

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "READS",
    "Activation",
    "AdaptiveAveragePool",
    "AveragePool",
    "AverageTokens",
    "BatchNorm",
    "ClassToken",
    "Context",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "GroupedLinear",
    "InfoNCE",
    "Layer",
    "LayerNorm",
    "Linear",
    "LocalHead",
    "Loss",
    "MaxPool",
    "MultiHeadAttention",
    "Patches",
    "Positions",
    "Residual",
    "SelectToken",
    "Sequential",
    "StopGradient",
    "TokenMixing",
    "adaptive_average_pool",
    "average",
    "average_pool",
    "conv2d",
    "couples_examples",
    "gelu",
    "has_local_heads",
    "max_pool",
    "mean_squared_error",
    "mixer_block",
    "mlp_mixer_block",
    "normalize",
    "relu",
    "replicated",
    "replicated_by_copies",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "table",
    "tanh",
    "transformer_block",
    "walk",
    "with_local_heads",
]
