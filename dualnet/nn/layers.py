"""Layers: linear maps, activations, flatten."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dispatch import primitive
from dualnet.core.engine import linearizer
from dualnet.errors import UsageError
from dualnet.nn.network import Context, Shape
from dualnet.random import Key
from dualnet.tree import Tree


@dataclass(frozen=True)
class Linear:
    """y = x w + b.

    Weights start uniform on ±sqrt(6 / fan-in) (Kaiming uniform: activities keep their size through
    ReLU layers), biases at zero.  Source: He et al. 2015, "Delving Deep into Rectifiers", Eq. 10.

    Args:
        features: q, the fan-out.
        bias: whether there is a b.

    Params: `w` `(p, q)`, `b` `(q,)`.  Maps `(..., p)` to `(..., q)`.
    """

    features: int
    bias: bool = True

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if not in_shape:
            raise UsageError("Linear: needs an axis of features, got examples of shape ()")
        fan_in = in_shape[-1]
        generator = np.random.Generator(np.random.SFC64(key.fold_in("w").bits))
        bound = math.sqrt(6.0 / fan_in)
        w = generator.random((fan_in, self.features), np.float32) * (2 * bound) - bound
        params = {"w": w}
        if self.bias:
            params["b"] = np.zeros(self.features, np.float32)
        return params, {}, (*in_shape[:-1], self.features)

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]:
        w = params["w"]
        if x.shape[-1:] != w.shape[:1]:
            raise UsageError(
                f"Linear {context.path}: weights {w.shape} expect inputs (..., {w.shape[0]}), "
                f"got {x.shape}"
            )
        y = x @ w
        return (y + params["b"] if self.bias else y), state


@dataclass(frozen=True)
class Activation:
    """An elementwise function without parameters."""

    function: Callable[[Any], Any]

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]:
        return self.function(x), state


@dataclass(frozen=True)
class Flatten:
    """All axes of an example in one: `(N, ...)` to `(N, p)`."""

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, (math.prod(in_shape),)

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]:
        return np.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), state


@primitive
def relu(x: Any) -> Any:
    """max(x, 0), with slope 0 at 0."""
    return np.maximum(x, 0)


@linearizer(relu)
def _relu(x: Any) -> Any:
    mask = np.greater(x, 0).astype(x.dtype)
    return relu(x), lambda t: linear.scale(t, mask)


@primitive
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), by tanh so that nothing overflows."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


@linearizer(sigmoid)
def _sigmoid(x: Any) -> Any:
    out = sigmoid(x)
    return out, lambda t: linear.scale(t, out * (1.0 - out))


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(x)


def gelu(x: Any) -> Any:
    """x · Φ(x) in its tanh form.

    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2.
    """
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + np.tanh(inner))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": relu,
    "tanh": tanh,
    "gelu": gelu,
    "sigmoid": sigmoid,
}
