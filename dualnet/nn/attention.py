"""Multi-head self-attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualnet.backends.overridable import matmul
from dualnet.errors import UsageError
from dualnet.nn.activations import softmax
from dualnet.nn.context import Context
from dualnet.nn.layers import Linear
from dualnet.nn.network import Layer
from dualnet.nn.refusals import require_inputs
from dualnet.options import require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


@dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """Every token gathers from all tokens what its queries ask for: `(N, T, C)` to `(N, T, C)`.

    Each of h heads has C/h channels and computes softmax(q kᵀ / sqrt(C/h)) v; then a linear map
    takes all heads together.

    Args:
        heads: h; divides C.

    Children: `query`, `key`, `value`, `output`, each a `Linear` from C to C.

    Raises:
        UsageError: `heads` is below 1 or does not divide C, or examples are no tokens of channels.

    Source: Vaswani et al. 2017, "Attention Is All You Need", Eq. 1 and section 3.2.2.

    Examples:
        >>> layer = dn.nn.MultiHeadAttention(2)
        >>> params, state, out_shape = layer.init(dn.Key(0), (3, 4))
        >>> x = np.random.default_rng(0).normal(size=(1, 3, 4))
        >>> y, _ = layer.apply(params, state, x, dn.nn.Context())
        >>> swapped, _ = layer.apply(params, state, x[:, ::-1], dn.nn.Context())
        >>> bool(np.allclose(swapped, y[:, ::-1]))  # tokens have no order
        True
    """

    heads: int

    def __post_init__(self) -> None:
        require_count("MultiHeadAttention", "heads", self.heads)
        names = ("query", "key", "value", "output")
        object.__setattr__(self, "layers", tuple((name, Linear(None)) for name in names))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if len(in_shape) != 2 or in_shape[1] < 1 or in_shape[1] % self.heads:
            raise UsageError(
                "MultiHeadAttention: expected examples (tokens, channels) with channels that "
                f"divide by {self.heads} heads, got shape {in_shape}"
            )
        params, state = {}, {}
        for name, layer in self.layers:
            params[name], state[name], _ = self.init_child(name, layer, key, in_shape)
        return params, state, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("MultiHeadAttention", x, "N", "T", "C")
        n, tokens, channels = x.shape
        if channels % self.heads:
            raise UsageError(
                f"MultiHeadAttention: expected inputs (N, T, C) with channels "
                f"that divide by {self.heads} heads, got {x.shape}"
            )
        new_state = {}

        def child(name: str, layer: Layer, x: Array) -> Array:
            y, new_state[name] = context.child(name, layer, params[name], state[name], x)
            return y

        def by_head(y: Array) -> Array:  # (N, h, T, C/h)
            heads = np.reshape(y, (n, tokens, self.heads, channels // self.heads))
            return np.swapaxes(heads, 1, 2)

        *inward, (name, outward) = self.layers
        queries, keys, values = (by_head(child(name, layer, x)) for name, layer in inward)
        scores = matmul(queries, np.swapaxes(keys, -1, -2))
        weights = softmax(scores / math.sqrt(channels // self.heads))
        gathered = np.swapaxes(matmul(weights, values), 1, 2)  # (N, T, h, C/h)
        return child(name, outward, np.reshape(gathered, x.shape)), new_state
