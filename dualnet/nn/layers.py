"""Linear maps, and layers that only pass on what they get: flatten, stop-gradient, dropout."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np

from dualnet.backends.overridable import as_rows, matmul
from dualnet.core.transforms import stop_gradient
from dualnet.errors import UsageError
from dualnet.nn.affine import affine
from dualnet.nn.context import Context
from dualnet.nn.initial import initial, initial_bias, require_initializer
from dualnet.nn.network import Layer
from dualnet.options import require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


@dataclass(frozen=True)
class Linear(Layer):
    """Maps x to x w + b.

    Args:
        features: q, the fan-out; None for as many as come in.
        bias: whether there is a b; it starts at zero, under `torch` like w.
        weights: how w starts, a name in `initial.INITIALIZERS`.

    Params: `w` `(p, q)`, `b` `(q,)`.  Maps `(..., p)` to `(..., q)`.

    Raises:
        UsageError: `features` is below 1 or `weights` no such name; inputs are not of p features.

    Examples:
        >>> layer = dn.nn.Linear(2)
        >>> dn.tree.map(np.shape, layer.init(dn.Key(0), (3,))[0])
        {'w': (3, 2), 'b': (2,)}
        >>> w, b = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([10.0, 20.0])
        >>> y, _ = layer.apply({"w": w, "b": b}, {}, np.array([[1.0, 2.0, 3.0]]), dn.nn.Context())
        >>> y.tolist()
        [[14.0, 25.0]]
    """

    features: int | None
    _: KW_ONLY
    bias: bool = True
    weights: str = "kaiming"

    row_groups = 1

    def __post_init__(self) -> None:
        if self.features is not None:
            require_count("Linear", "features", self.features)
        require_initializer("Linear", self.weights)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        fan_in = _features_of("Linear", in_shape)
        features = self.features or fan_in
        params = {"w": initial(self.weights, key.fold_in("w"), (fan_in, features), fan_in)}
        if self.bias:
            params["b"] = initial_bias(self.weights, key.fold_in("b"), features, fan_in)
        return params, {}, (*in_shape[:-1], features)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        w = params["w"]
        if x.shape[-1:] != w.shape[:1]:
            raise UsageError(
                f"Linear: weights {w.shape} expect inputs (..., {w.shape[0]}), got {x.shape}; init "
                "gets the shape of one example, without the batch"
            )
        if self.bias:
            return affine(x, w, params["b"]), state
        # One product for all rows, because x @ w would make one for each matrix of x.
        return np.reshape(matmul(as_rows(x), w), (*x.shape[:-1], w.shape[-1])), state


@dataclass(frozen=True)
class GroupedLinear(Layer):
    """Maps features in G groups, each by weights of its own: G linear maps side by side.

    Args:
        features: q, the fan-out of all groups together.
        groups: G; divides p and q.
        bias: whether there is a b; it starts at zero, under `torch` like w.
        weights: how w starts, a name in `initial.INITIALIZERS`.

    Params: `w` `(G, p/G, q/G)`, `b` `(q,)`.  Maps `(..., p)` to `(..., q)`.

    Raises:
        UsageError: an option is below 1, `groups` does not divide p or q, or inputs are not of p
            features.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4.

    Examples:
        >>> layer = dn.nn.GroupedLinear(4, groups=2, bias=False)
        >>> layer.init(dn.Key(0), (4,))[0]["w"].shape
        (2, 2, 2)
        >>> w = np.stack([np.ones((2, 2)), np.full((2, 2), 10.0)])
        >>> layer.apply({"w": w}, {}, np.array([[1.0, 2.0, 3.0, 4.0]]), dn.nn.Context())[0].tolist()
        [[3.0, 3.0, 70.0, 70.0]]
    """

    features: int
    _: KW_ONLY
    groups: int
    bias: bool = True
    weights: str = "kaiming"

    row_groups = 1  # if there is one group

    def __post_init__(self) -> None:
        require_count("GroupedLinear", "features", self.features)
        require_count("GroupedLinear", "groups", self.groups)
        require_initializer("GroupedLinear", self.weights)
        if self.features % self.groups:
            raise UsageError(
                f"GroupedLinear: groups must divide features, got {self.groups} groups and "
                f"{self.features} features"
            )
        object.__setattr__(self, "row_groups", self.groups)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        p = _features_of("GroupedLinear", in_shape)
        if p % self.groups:
            raise UsageError(
                f"GroupedLinear: groups must divide the inputs, got {self.groups} groups and "
                f"examples of shape {in_shape}"
            )
        fan_in = p // self.groups
        shape = (self.groups, fan_in, self.features // self.groups)
        params = {"w": initial(self.weights, key.fold_in("w"), shape, fan_in)}
        if self.bias:
            params["b"] = initial_bias(self.weights, key.fold_in("b"), self.features, fan_in)
        return params, {}, (*in_shape[:-1], self.features)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        w = params["w"]
        groups, fan_in, _ = w.shape
        if x.shape[-1:] != (groups * fan_in,):
            raise UsageError(
                f"GroupedLinear: weights {w.shape} expect inputs "
                f"(..., {groups * fan_in}), got {x.shape}"
            )
        rows = np.reshape(x, (math.prod(x.shape[:-1]), groups, fan_in))
        by_group = matmul(np.swapaxes(rows, 0, 1), w)  # (G, rows, q/G)
        y = np.reshape(np.swapaxes(by_group, 0, 1), (*x.shape[:-1], self.features))
        return (y + params["b"] if self.bias else y), state


@dataclass(frozen=True)
class Flatten(Layer):
    """Joins all axes of an example: `(N, ...)` to `(N, p)`.

    It has no parameters.

    Examples:
        >>> layer = dn.nn.Flatten()
        >>> layer.init(dn.Key(0), (28, 28, 1))[2]
        (784,)
        >>> layer.apply({}, {}, np.zeros((2, 28, 28, 1)), dn.nn.Context())[0].shape
        (2, 784)
    """

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, (math.prod(in_shape),)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return np.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), state


@dataclass(frozen=True)
class StopGradient(Layer):
    """Passes values on and no derivatives: a loss behind it has gradient 0 before it.

    Maps `(N, ...)` to the same shape, and has no parameters.

    Examples:
        >>> layer, context = dn.nn.StopGradient(), dn.nn.Context()
        >>> f = lambda x: (x * layer.apply({}, {}, x, context)[0]).sum()
        >>> dn.grad(f)(np.array([1.0, 2.0, 3.0])).tolist()  # x in the place of the 2 x of x²
        [1.0, 2.0, 3.0]
    """

    row_groups = 0

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return stop_gradient(x), state


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, sets entries to 0 with probability `rate` and divides the others by 1 - rate.

    The mask is a function of the context's key, of the example's index in the batch and of the
    dtype of x, so all tangents, chunks of tangents and shards of a step see one mask; float32 and
    float64 see different ones.

    Args:
        rate: in [0, 1).

    Maps `(N, ...)` to the same shape.

    Raises:
        UsageError: `rate` is outside [0, 1); in training the context has no key, or x is neither
            float32 nor float64.

    Source: Srivastava et al. 2014, "Dropout", section 4; scaled in training, not in evaluation.

    Examples:
        >>> layer, x = dn.nn.Dropout(0.5), np.ones((1, 6))
        >>> layer.apply({}, {}, x, dn.nn.Context(train=True, key=dn.Key(0)))[0].tolist()
        [[2.0, 0.0, 2.0, 2.0, 2.0, 0.0]]
        >>> layer.apply({}, {}, x, dn.nn.Context())[0].tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    rate: float

    row_groups = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise UsageError(f"Dropout: rate must be a number in [0, 1), got {self.rate!r}")

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        if not context.train or self.rate == 0:
            return x, state
        if context.key is None:
            raise UsageError(
                "Dropout: training needs a key for the mask, got none; "
                "use Context(train=True, key=...)"
            )
        if x.dtype not in (np.float32, np.float64):
            raise UsageError(
                f"Dropout: expected inputs of float32 or float64, got "
                f"{x.dtype}; convert them, for example by x.astype(np.float32)"
            )
        first = context.start * math.prod(x.shape[1:])
        drawn = np.asarray(context.backend.uniform(context.key, x.shape, x.dtype, first), like=x)
        mask = np.greater_equal(drawn, self.rate).astype(x.dtype)
        mask /= 1.0 - self.rate
        return x * mask, state


def _features_of(layer: str, in_shape: Shape) -> int:
    """Return how many features examples of this shape have; raise a UsageError if none."""
    if not in_shape or in_shape[-1] < 1:
        raise UsageError(
            f"{layer}: needs an axis of features, at least 1, got examples of shape {in_shape}"
        )
    return in_shape[-1]
