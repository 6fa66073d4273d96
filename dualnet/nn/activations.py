"""Activation functions, and the layer that applies one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.backends.overridable import overridable
from dualnet.backends.pieces import by_pieces
from dualnet.core import linear
from dualnet.core.dual import primitive
from dualnet.core.engine import linearizer
from dualnet.core.half import in_single
from dualnet.core.linear import LinearMap
from dualnet.errors import UsageError
from dualnet.nn.context import Context
from dualnet.nn.network import Layer
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Linearized, Shape, Tangent


@dataclass(frozen=True, repr=False)
class Activation(Layer):
    """Applies an elementwise function, or `softmax`, and has no parameters.

    Args:
        function: of an array, such as `relu` or `np.tanh`; its result has the array's shape.

    Maps `(N, ...)` to the same shape.

    Raises:
        UsageError: `function` cannot be called.

    Examples:
        >>> layer = dn.nn.Activation(dn.nn.relu)
        >>> layer.init(dn.Key(0), (3,))
        ({}, {}, (3,))
        >>> layer.apply({}, {}, np.array([[-1.0, 0.0, 2.0]]), dn.nn.Context())[0].tolist()
        [[0.0, 0.0, 2.0]]
    """

    function: Callable[[Array], Array]

    row_groups = 0  # softmax has 1

    def __post_init__(self) -> None:
        function = self.function
        if isinstance(function, type) or not callable(function):
            name = function if isinstance(function, str) else ""
            write = f"nn.{name}" if name in ACTIVATIONS else "nn.relu"
            raise UsageError(
                f"Activation: expected a function of an array, got {function!r}; write "
                f"Activation({write})"
            )
        if function is softmax:
            object.__setattr__(self, "row_groups", 1)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return self.function(x), state


@primitive
def relu(x: Array) -> Array:
    """Return max(x, 0); the slope at 0 is 0.

    Args:
        x: float array of any shape.

    Returns:
        An array like x.

    Source: Nair and Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines".

    Examples:
        >>> dn.nn.relu(np.array([-2.0, 0.0, 3.0])).tolist()
        [0.0, 0.0, 3.0]
        >>> dn.grad(lambda x: dn.nn.relu(x).sum())(np.array([-2.0, 0.0, 3.0])).tolist()
        [0.0, 0.0, 1.0]
    """
    return np.maximum(x, 0)


@linearizer(relu)
def _relu(x: Array) -> Linearized:
    slope = np.greater(x, 0).astype(x.dtype)
    return relu(x), lambda t: linear.scale(t, slope)


@primitive
def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), computed by tanh so that nothing overflows.

    Args:
        x: float array of any shape.

    Returns:
        An array like x, from 0 to 1.

    Examples:
        >>> dn.nn.sigmoid(np.array([-1000.0, 0.0, np.log(3.0)])).round(6).tolist()
        [0.0, 0.5, 0.75]
    """
    return 0.5 * np.tanh(0.5 * x) + 0.5


@linearizer(sigmoid)
def _sigmoid(x: Array) -> Linearized:
    out = sigmoid(x)
    return out, lambda t: linear.scale(t, out * (1.0 - out))


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of x, as `np.tanh` does, under a name for `ACTIVATIONS`.

    Args:
        x: float array of any shape.

    Returns:
        An array like x, from -1 to 1.

    Examples:
        >>> dn.nn.tanh(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
        [-0.7616, 0.0, 0.7616]
        >>> float(dn.grad(dn.nn.tanh)(0.0))
        1.0
    """
    return np.tanh(x)


@primitive
def gelu(x: Array) -> Array:
    """Return x · Φ(x) in its tanh form, Φ the normal distribution function.

    Args:
        x: float array of any shape.

    Returns:
        An array like x.

    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2.

    Examples:
        >>> dn.nn.gelu(np.array([-1.0, 0.0, 1.0, 5.0])).round(4).tolist()
        [-0.1588, 0.0, 0.8412, 5.0]
    """
    return by_pieces(lambda x: (x * _gelu_share(x, x * x),), x)[0]


_GELU_SCALE, _GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def _gelu_share(x: Array, square: Array) -> Array:
    """Return Φ(x) in its tanh form, (1 + tanh(scale · (x + cube · x³))) / 2."""
    return 0.5 * (1.0 + np.tanh(_GELU_SCALE * (x + _GELU_CUBE * (square * x))))


def _gelu_and_slope(x: Array) -> tuple[Array, Array]:
    """Return x Φ, and its slope Φ + x Φ' with Φ' = 2 Φ (1 - Φ) · scale · (1 + 3 cube · x²)."""
    square = x * x
    share = _gelu_share(x, square)
    out = x * share
    by_inner = (2.0 * _GELU_SCALE) + (6.0 * _GELU_SCALE * _GELU_CUBE) * square
    return out, share + out * (1.0 - share) * by_inner


@linearizer(gelu)
def _gelu(x: Array) -> Linearized:
    single = in_single(x)
    out, slope = by_pieces(_gelu_and_slope, single)
    return (out if single is x else gelu(x)), lambda t: linear.scale(t, slope)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "tanh": tanh,
    "gelu": gelu,
    "sigmoid": sigmoid,
}
"""Name → elementwise function, as options of models and a saved network name it."""


# --- softmax, which is not elementwise and so not in the table ----------------------------------

_BLOCK_BYTES = 1 << 17
"""Bytes of one direction of a block, which is read twice and written twice."""


@primitive
def softmax(x: Array, axis: int = -1) -> Array:
    """Return exp(x) / Σ exp(x) along an axis; x is shifted so that nothing overflows.

    Entries of -inf have no share and no slope; where all are -inf, or one is inf, it is NaN.

    Args:
        x: float array of any shape.
        axis: along which the result sums to 1.

    Returns:
        An array like x.

    Raises:
        AxisError: x has no such axis (NumPy's own error).

    Source: Bridle 1990, "Probabilistic Interpretation of Feedforward Classification Network
    Outputs".

    Examples:
        >>> dn.nn.softmax(np.log([[1.0, 1.0, 2.0]])).round(6).tolist()
        [[0.25, 0.25, 0.5]]
        >>> dn.nn.softmax(np.array([1000.0, 1000.0])).tolist()
        [0.5, 0.5]
    """
    return _softmax_along(x, axis)


@overridable
def _softmax_along(x: Array, axis: int) -> Array:
    """Compute `softmax`."""
    p = np.exp(x - np.max(x, axis=axis, keepdims=True))
    p /= np.sum(p, axis=axis, keepdims=True)
    return p


@linearizer(softmax)
def _softmax(x: Array, axis: int = -1) -> Linearized:
    p = softmax(x, axis)
    from_end = axis if axis < 0 else axis - x.ndim
    return p, lambda t: tangent_of_softmax(t, p, from_end)


@LinearMap
def tangent_of_softmax(t: Tangent, p: Array, axis: int) -> Tangent:
    """Return p (t - Σ p t) with sums along a (negative) axis; p `(*S)` is the softmax."""
    return _tangent_of_softmax_along(t, p, axis)


@overridable
def _tangent_of_softmax_along(t: Tangent, p: Array, axis: int) -> Tangent:
    """Compute `tangent_of_softmax`."""
    if axis == -1 and are_of_host(t, p) and p.size:
        return _tangent_by_rows(t, p)
    u = t * p
    # In place for plain arrays; what is differentiated makes a new array.
    u -= p * np.sum(u, axis=axis, keepdims=True)
    return u


def _tangent_by_rows(t: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Compute `tangent_of_softmax` along rows, as p (t - Σ p t), some rows at a time."""
    k, n = len(t), p.shape[-1]
    t_rows, p_rows = np.reshape(t, (k, p.size // n, n)), np.reshape(p, (p.size // n, n))
    out = np.empty_like(t_rows)
    step = max(1, _BLOCK_BYTES // (n * p.itemsize))
    for start in range(0, len(p_rows), step):
        weights = p_rows[start : start + step]
        for of_direction, result in zip(t_rows, out, strict=True):
            moved, block = of_direction[start : start + step], result[start : start + step]
            np.subtract(moved, np.vecdot(moved, weights)[:, None], out=block)
            block *= weights
    return np.reshape(out, t.shape)


@tangent_of_softmax.transposed
def _(ct: Tangent, _shape: Shape, p: Array, axis: int) -> Tangent:
    return tangent_of_softmax(ct, p, axis)  # because diag(p) - p pᵀ is symmetric
