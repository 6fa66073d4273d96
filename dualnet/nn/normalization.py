"""Layer, group and batch norm: three choices of axes for one fused primitive, `normalize`.

With y the normalized x and s = 1 / sqrt(variance + ε), a tangent t of x gives

    (t - mean(t) - y · mean(y t)) · s,

all means over the normalized axes.  Written out with NumPy this makes several temporaries of the
size of t, which is k times the size of x; `kernels` does it block by block instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dualnet.core import linear
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import linearizer
from dualnet.core.linear import LinearMap
from dualnet.core.transforms import is_constant
from dualnet.errors import UsageError
from dualnet.nn import normalization_kernels as kernels
from dualnet.nn.context import Context
from dualnet.nn.initial import filled
from dualnet.nn.network import Layer
from dualnet.nn.over_processes import normalize_over_processes
from dualnet.nn.scaling import scaled
from dualnet.options import is_int, make_tuples, require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Axes, Linearized, Shape, Tangent

# --- the primitive ---------------------------------------------------------------------------


@primitive
def normalize(x: Array, axes: Sequence[int], epsilon: float = 1e-5) -> Array:
    """Return (x - mean) / sqrt(variance + ε), mean and (biased) variance over the axes.

    Args:
        x: float array of any shape.
        axes: over which to take mean and variance, different ones of x.
        epsilon: ε > 0, so that equal entries give 0.

    Returns:
        An array like x.

    Raises:
        UsageError: no axes, one that x does not have, or one twice.

    Source: Ba et al. 2016, "Layer Normalization", Eq. 3, without gain and bias.

    Examples:
        >>> dn.nn.normalize(np.array([[1.0, 3.0], [0.0, 10.0]]), axes=(-1,)).round(3).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """
    return kernels.normalized(x, _checked(axes, x), epsilon)[0]


@linearizer(normalize)
def _normalize(x: Array, axes: Sequence[int], epsilon: float = 1e-5) -> Linearized:
    axes = _checked(axes, x)
    if not is_constant(x):  # an outer transform differentiates s by x too
        y = normalize(x, axes, epsilon)
        s = 1.0 / np.sqrt(np.var(x, axis=axes, keepdims=True) + epsilon)
    else:
        y, s = kernels.normalized(x, axes, epsilon)
    return y, lambda t: tangent_of_normalized(t, y, s, axes)


@primitive
def _normalize_by(x: Array, mean: Array, variance: Array, axes: Axes, epsilon: float) -> Array:
    """Compute `normalize` for x whose mean and variance over the (negative) axes are known.

    Both are plain values, without the tangents that they have as functions of x; what is
    differentiated is `normalize`.
    """
    return kernels.normalized_by(x, mean, variance, axes, epsilon)[0]


@linearizer(_normalize_by)
def _(x: Array, mean: Array, variance: Array, axes: Axes, epsilon: float) -> Linearized:
    if not is_constant(x):
        return _normalize(x, axes, epsilon)
    y, s = kernels.normalized_by(x, mean, variance, axes, epsilon)
    return y, lambda t: tangent_of_normalized(t, y, s, axes)


def _checked(axes: Sequence[int], x: Array) -> Axes:
    """Return the axes as negative numbers in rising order; raise a UsageError for wrong ones."""
    try:
        from_end = tuple(sorted(a - x.ndim for a in normalize_axis_tuple(axes, x.ndim)))
    except (TypeError, ValueError):  # NumPy's AxisError is a ValueError
        from_end = ()
    if not from_end:
        raise UsageError(
            f"normalize: axes must be different axes of x, which has shape {x.shape}, got {axes!r}"
        )
    return from_end


@LinearMap
def tangent_of_normalized(t: Tangent, y: Array, s: Array, axes: Axes) -> Tangent:
    """Return (t - mean(t) - y · mean(y t)) · s for t `(k, *S)`, y `(*S)` and s with unit axes."""
    return _fused(t, y, s, axes)


@tangent_of_normalized.transposed
def _(ct: Tangent, _shape: Shape, y: Array, s: Array, axes: Axes) -> Tangent:
    return tangent_of_normalized(ct, y, s, axes)  # because s (I - 11ᵀ/n - yyᵀ/n) is symmetric


@primitive
def _fused(t: Array, y: Array, s: Array, axes: Axes) -> Array:
    return kernels.tangent(t, y, s, axes)


@linearizer(_fused)
def _(t: Array, y: Array, s: Array, axes: Axes) -> Linearized:
    mean, slope = (np.mean(part, axis=axes, keepdims=True) for part in (t, y * t))

    def by_y(v: Array) -> Array:
        n = math.prod(y.shape[a] for a in axes)
        change = linear.divide(linear.sum(linear.scale(v, t), axes, True), n)
        return -linear.scale(linear.add(linear.scale(v, slope), linear.scale(change, y)), s)

    return _fused(t, y, s, axes), (
        lambda v: tangent_of_normalized(v, y, s, axes),
        by_y,
        lambda v: linear.scale(v, t - mean - y * slope),
    )


# --- layers ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Layer):
    """Normalizes each example over some of its axes: y = normalize(x) · gain + bias.

    Args:
        axes: negative axes of an example.
        groups: the last axis is cut into so many groups, each normalized by itself (over its
            part of the last axis and the other axes).
        gain, bias: whether there are any; they start at 1 and 0.
        epsilon: ε of `normalize`.

    Params: `gain`, `bias`, both of the shape of the normalized axes.

    Raises:
        UsageError: an option is out of its range, `groups` does not divide the last axis, or inputs
            do not have the axes of the params.

    Source: Ba et al. 2016, "Layer Normalization", Eq. 4; groups: Ren et al. 2023, "Scaling Forward
    Gradient With Local Losses", section 4.

    Examples:
        >>> layer = dn.nn.LayerNorm(groups=2, gain=False, bias=False)
        >>> x = np.array([[1.0, 3.0, 100.0, 300.0]])
        >>> layer.apply({}, {}, x, dn.nn.Context())[0].round(3).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
        >>> dn.tree.map(np.shape, dn.nn.LayerNorm().init(dn.Key(0), (8, 4))[0])
        {'gain': (4,), 'bias': (4,)}
    """

    axes: Axes = (-1,)
    groups: int = 1
    gain: bool = True
    bias: bool = True
    epsilon: float = 1e-5

    normalizes = True
    row_groups = 1  # if there is one group, and the last axis is normalized

    def __post_init__(self) -> None:
        _require_epsilon("LayerNorm", self.epsilon)
        axes = self.axes if isinstance(self.axes, (tuple, list)) else ()
        negative = all(is_int(a) and a < 0 for a in axes)
        if not axes or not negative or len(set(axes)) < len(axes):
            raise UsageError(
                "LayerNorm: axes must be a tuple of different negative axes of an example, such as "
                f"(-1,), got {self.axes!r}"
            )
        require_count("LayerNorm", "groups", self.groups)
        if self.groups > 1 and -1 not in self.axes:
            raise UsageError(
                f"LayerNorm: groups are parts of axis -1, got {self.groups} groups and axes "
                f"{self.axes}"
            )
        make_tuples(self, "axes")
        by_row = self.axes == (-1,)
        object.__setattr__(self, "row_groups", self.groups if by_row else None)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        if -min(self.axes) > len(in_shape):
            raise UsageError(
                f"LayerNorm: axes {self.axes} do not exist in examples of shape {in_shape}"
            )
        _require_groups("LayerNorm", self.groups, in_shape)
        axes = sorted(self.axes)
        return _gain_and_bias(self, tuple(in_shape[a] for a in axes)), {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        first = min(self.axes)
        _require_fit("LayerNorm", x, params, sorted(self.axes), self.groups)
        shape = tuple(x.shape[a] if a in self.axes else 1 for a in range(first, 0))
        y = _normalize_groups(x, self.axes, self.groups, self.epsilon)
        params = {name: np.reshape(p, shape) for name, p in params.items()}
        return _scaled(y, params), state


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalizes each example over all positions and the channels of one group.

    Args:
        groups: divides the channels, which are the last axis.
        gain, bias: whether there are any; they start at 1 and 0.
        epsilon: ε of `normalize`.

    Params: `gain`, `bias`, both `(C,)`.

    Raises:
        UsageError: an option is out of its range, `groups` does not divide the channels, or inputs
            have other channels than the params.

    Source: Wu and He 2018, "Group Normalization", Eq. 7.

    Examples:
        >>> layer = dn.nn.GroupNorm(2)
        >>> params, _, _ = layer.init(dn.Key(0), (1, 1, 4))
        >>> pixel = np.array([2.0, 4.0, -1.0, 9.0]).reshape(1, 1, 1, 4)  # of two groups of channels
        >>> layer.apply(params, {}, pixel, dn.nn.Context())[0].round(3).tolist()
        [[[[-1.0, 1.0, -1.0, 1.0]]]]
    """

    groups: int
    _: KW_ONLY
    gain: bool = True
    bias: bool = True
    epsilon: float = 1e-5

    normalizes = True

    def __post_init__(self) -> None:
        _require_epsilon("GroupNorm", self.epsilon)
        require_count("GroupNorm", "groups", self.groups)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        _require_groups("GroupNorm", self.groups, in_shape)
        return _gain_and_bias(self, in_shape[-1:]), {}, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        _require_fit("GroupNorm", x, params, groups=self.groups)
        axes = tuple(range(1 - x.ndim, 0))
        return _scaled(_normalize_groups(x, axes, self.groups, self.epsilon), params), state


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
    """Normalizes each channel over the batch and all positions.

    In training it uses mean and variance of the batch, whose running averages are the state; in
    evaluation it uses the state.  The outputs of one example depend on the others, so the batch
    is not split into shards.  Where processes share the batch, mean and variance are those of a
    process's own examples, or of all (`Context.processes`).

    Args:
        momentum: how far a training step moves the state toward the batch.
        gain, bias: whether there are any; they start at 1 and 0.
        epsilon: ε of `normalize`.

    Params: `gain`, `bias`, both `(C,)`.  State: `mean`, `variance`, both `(C,)`, plain values
    without tangents; the variance there is the unbiased one.

    Raises:
        UsageError: an option is out of its range, inputs have other channels than the params, or
            training has fewer than 2 values for each channel.

    Source: Ioffe and Szegedy 2015, "Batch Normalization", Algorithms 1 and 2; the state's
    conventions are torch's.

    Examples:
        >>> layer = dn.nn.BatchNorm(gain=False, bias=False)
        >>> params, state, _ = layer.init(dn.Key(0), (1,))
        >>> x = np.array([[10.0], [20.0]])
        >>> y, state = layer.apply(params, state, x, dn.nn.Context(train=True))
        >>> y.round(3).tolist(), state["mean"].round(3).tolist()  # a tenth of the way to 15
        ([[-1.0], [1.0]], [1.5])
    """

    momentum: float = 0.1
    gain: bool = True
    bias: bool = True
    epsilon: float = 1e-5

    couples_examples = True
    normalizes = True

    def __post_init__(self) -> None:
        _require_epsilon("BatchNorm", self.epsilon)
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"BatchNorm: momentum must be in [0, 1], got {self.momentum}")

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        _require_groups("BatchNorm", 1, in_shape)
        channels = in_shape[-1:]
        state = {"mean": filled(channels, 0.0), "variance": filled(channels, 1.0)}
        return _gain_and_bias(self, channels), state, in_shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        _require_fit("BatchNorm", x, params | state)
        if not context.train:
            y = (x - state["mean"]) / np.sqrt(state["variance"] + self.epsilon)
            return _scaled(y, params), state
        axes, together = tuple(range(-x.ndim, -1)), context.processes
        rows = int(together.add(math.prod(x.shape[:-1])))
        if rows < 2:
            raise UsageError(
                f"BatchNorm: training needs at least 2 values for each "
                f"channel, got inputs {x.shape}; use a batch size that leaves no single example"
            )
        if together.size == 1:
            mean, variance = kernels.moments(primal_of(x), axes)
            y = _normalize_by(x, mean, variance, axes, self.epsilon)
        else:
            y, mean, variance = normalize_over_processes(x, rows, self.epsilon, together)
        moved = {
            "mean": state["mean"] + self.momentum * (mean - state["mean"]),
            "variance": state["variance"]
            + self.momentum * (variance * (rows / (rows - 1)) - state["variance"]),
        }
        return _scaled(y, params), moved


def _normalize_groups(x: Array, axes: Axes, groups: int, epsilon: float) -> Array:
    """Apply `normalize` with the last axis cut into groups."""
    if groups == 1:
        return normalize(x, axes, epsilon)
    grouped = np.reshape(x, (*x.shape[:-1], groups, x.shape[-1] // groups))
    inner = tuple(a if a == -1 else a - 1 for a in axes)
    return np.reshape(normalize(grouped, inner, epsilon), x.shape)


def _gain_and_bias(layer: LayerNorm | GroupNorm | BatchNorm, shape: Shape) -> dict[str, Array]:
    """Return a norm's params at the start."""
    params = {"gain": filled(shape, 1.0)} if layer.gain else {}
    return params | ({"bias": filled(shape, 0.0)} if layer.bias else {})


def _scaled(y: Array, params: dict[str, Array]) -> Array:
    """Return y · gain + bias, as far as there are any."""
    if "gain" in params and "bias" in params:
        return scaled(y, params["gain"], params["bias"])
    if "gain" in params:
        y = y * params["gain"]
    return y + params["bias"] if "bias" in params else y


def _require_epsilon(layer: str, epsilon: float) -> None:
    if not 0 < epsilon < math.inf:
        raise UsageError(f"{layer}: epsilon must be positive and finite, got {epsilon}")


def _require_groups(layer: str, groups: int, in_shape: Shape) -> None:
    if not in_shape or in_shape[-1] % groups:
        raise UsageError(
            f"{layer}: groups must divide the last axis, got {groups} groups and examples of "
            f"shape {in_shape}"
        )


def _require_fit(
    layer: str, x: Array, arrays: dict, axes: Sequence[int] = (-1,), groups: int = 1
) -> None:
    """Raise a UsageError for inputs whose axes differ from those of the arrays.

    Without it they would broadcast.
    """
    if x.ndim <= -min(axes):
        raise UsageError(
            f"{layer}: expected a batch of examples with axes {tuple(axes)}, got {x.shape}"
        )
    if x.shape[-1] % groups:
        raise UsageError(
            f"{layer}: groups must divide the last axis, got {groups} groups and inputs {x.shape}"
        )
    shape = tuple(x.shape[a] for a in axes)
    for name, array in arrays.items():
        if array.shape != shape:
            raise UsageError(
                f"{layer}: {name} {array.shape} expects inputs of that shape in axes "
                f"{tuple(axes)}, got {x.shape}; init the layer for the shape that it gets"
            )
