"""The column of torch beside the tables of `dualnet.check`.

    in_torch(layer, params, x, state)

applies a layer to torch's arrays and returns y.  Params and state have dualnet's names and shapes;
state is None in training, where batch norm does without it.  Where torch has the layer, it is asked
for it: convolution, pooling, norms and attention.  `FUNCTIONS` has the rows that are no layer.
"""

import functools
import math

import numpy as np
from peers import pair, peer, sides

from dualnet import nn
from dualnet.check.losses import LABELS
from dualnet.check.references import MASKING

torch = peer("torch")
F = torch.nn.functional


@functools.singledispatch
def in_torch(layer, params, x, state):
    raise NotImplementedError(f"{type(layer).__name__} in torch")


# --- linear maps, and layers that move entries ---------------------------------------------------


@in_torch.register
def _(layer: nn.Linear, params, x, state):
    return F.linear(x, params["w"].T, params.get("b"))


@in_torch.register
def _(layer: nn.GroupedLinear, params, x, state):
    return F.linear(x, torch.block_diag(*params["w"]).T, params.get("b"))


@in_torch.register
def _(layer: nn.Flatten, params, x, state):
    return x.flatten(1)


@in_torch.register
def _(layer: nn.StopGradient, params, x, state):
    return x.detach()


@in_torch.register(nn.Dropout)
@in_torch.register(nn.LocalHead)
def _(layer, params, x, state):
    return x  # dropout in evaluation


ACTIVATIONS = {
    nn.relu: F.relu,
    nn.tanh: torch.tanh,
    nn.gelu: functools.partial(F.gelu, approximate="tanh"),
    nn.sigmoid: torch.sigmoid,
    nn.softmax: functools.partial(F.softmax, dim=-1),
}


@in_torch.register
def _(layer: nn.Activation, params, x, state):
    return ACTIVATIONS[layer.function](x)


@in_torch.register
def _(layer: nn.Patches, params, x, state):
    size = pair(layer.size)
    columns = F.unfold(x.movedim(-1, 1), size, stride=size)  # (N, C·h·w, P): channels first
    apart = columns.unflatten(1, (x.shape[-1], math.prod(size)))
    return apart.movedim(-1, 1).swapaxes(2, 3).flatten(2)


@in_torch.register
def _(layer: nn.ClassToken, params, x, state):
    return torch.cat([params["token"].expand(len(x), 1, -1), x], dim=1)


@in_torch.register
def _(layer: nn.Positions, params, x, state):
    return x + params["positions"]


@in_torch.register
def _(layer: nn.SelectToken, params, x, state):
    return x[:, layer.index]


@in_torch.register
def _(layer: nn.AverageTokens, params, x, state):
    return x.mean(1)


# --- convolution and pooling ---------------------------------------------------------------------


def padded_in_torch(x, padding, of_torch, value=0.0):
    """Images as torch has them, channels first, and the padding that is left to torch itself,
    which wants it symmetric, and for pools not more than half a window."""
    (top, bottom), (left, right) = sides(padding)
    x = x.movedim(-1, 1)
    if of_torch and top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


@in_torch.register
def _(layer: nn.Conv2d, params, x, state):
    x, padding = padded_in_torch(x, layer.padding, True)
    w = params["w"].permute(3, 2, 0, 1)
    y = F.conv2d(x, w, params.get("b"), pair(layer.stride), padding, groups=layer.groups)
    return y.movedim(1, -1)


def pool_in_torch(pool, layer, x, outside):
    window = pair(layer.window)
    halves = all(2 * max(side) <= n for side, n in zip(sides(layer.padding), window, strict=True))
    x, padding = padded_in_torch(x, layer.padding, halves, outside)
    return pool(x, window, layer.stride and pair(layer.stride), padding).movedim(1, -1)


@in_torch.register
def _(layer: nn.MaxPool, params, x, state):
    return pool_in_torch(F.max_pool2d, layer, x, -math.inf)


@in_torch.register
def _(layer: nn.AveragePool, params, x, state):
    return pool_in_torch(F.avg_pool2d, layer, x, 0.0)


@in_torch.register
def _(layer: nn.AdaptiveAveragePool, params, x, state):
    return F.adaptive_avg_pool2d(x.movedim(-1, 1), pair(layer.size)).movedim(1, -1)


# --- normalization, attention --------------------------------------------------------------------


@in_torch.register
def _(layer: nn.LayerNorm, params, x, state):
    apart = x.unflatten(-1, (layer.groups, -1))
    axes = [a if a == -1 else a - 1 for a in sorted(layer.axes)]
    last = list(range(-len(axes), 0))
    moved = apart.movedim(axes, last)
    y = F.layer_norm(moved, moved.shape[-len(axes) :], eps=layer.epsilon).movedim(last, axes)
    shape = [x.shape[a] if a in layer.axes else 1 for a in range(min(layer.axes), 0)]
    scale = {name: p.reshape(shape) for name, p in params.items()}
    return y.flatten(-2) * scale.get("gain", 1.0) + scale.get("bias", 0.0)


@in_torch.register
def _(layer: nn.GroupNorm, params, x, state):
    x = x.movedim(-1, 1).contiguous()  # its jvp asks for that, and its vjp for a gain
    gain, bias = params.get("gain", x.new_ones(x.shape[1])), params.get("bias")
    return F.group_norm(x, layer.groups, gain, bias, layer.epsilon).movedim(1, -1)


@in_torch.register
def _(layer: nn.BatchNorm, params, x, state):
    mean, variance = (None, None) if state is None else (state["mean"], state["variance"])
    gain, bias = params.get("gain"), params.get("bias")
    x = x.movedim(-1, 1)
    y = F.batch_norm(x, mean, variance, gain, bias, state is None, eps=layer.epsilon)
    return y.movedim(1, -1)


@in_torch.register
def _(layer: nn.MultiHeadAttention, params, x, state):
    def by_head(name):
        y = in_torch(nn.Linear(None), params[name], x, {})
        return y.reshape(*x.shape[:2], layer.heads, -1).swapaxes(1, 2)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        y = F.scaled_dot_product_attention(*map(by_head, ("query", "key", "value")))
    return in_torch(nn.Linear(None), params["output"], y.swapaxes(1, 2).flatten(2), {})


# --- containers ----------------------------------------------------------------------------------


def child(layer, name, params, x, state):
    state = None if state is None else state[name]
    return in_torch(dict(layer.layers)[name], params[name], x, state)


@in_torch.register
def _(layer: nn.Sequential, params, x, state):
    for name, _ in layer.layers:
        x = child(layer, name, params, x, state)
    return x


@in_torch.register
def _(layer: nn.Residual, params, x, state):
    shortcut = child(layer, "shortcut", params, x, state) if "shortcut" in params else x
    return child(layer, "block", params, x, state) + shortcut


@in_torch.register
def _(layer: nn.TokenMixing, params, x, state):
    return child(layer, "mix", params, x.swapaxes(1, 2), state).swapaxes(1, 2)


# --- rows that are no layer ----------------------------------------------------------------------


def local_head(here):
    p = here["params"]["linear"]
    return [here["x"], in_torch(nn.Linear(None), p, here["x"].mean((1, 2)), {})]


def dropout(x):
    mask, _ = nn.Dropout(0.5).apply({}, {}, np.ones(tuple(x.shape)), MASKING)
    return x * torch.from_numpy(mask)


FUNCTIONS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "gelu": ACTIVATIONS[nn.gelu],
    "softmax-(2, 3, 4), axis=1": lambda x: F.softmax(x, 1),
    "normalize-(2, 3, 4), axes=(0, 2)": lambda x: F.batch_norm(x, None, None, training=True),
    "softmax_cross_entropy": lambda x: F.cross_entropy(
        x, torch.from_numpy(LABELS), reduction="none"
    ),
    "mean_squared_error-(2, 3, 2)": lambda x, y: F.mse_loss(x, y, reduction="none").mean((1, 2)),
    "StopGradient": lambda x: x.detach(),
    "Dropout-training": dropout,
    "LocalHead-and its read-out": local_head,
}
"""name of a row → the same by torch."""
