"""dualnet's layers a second time, made of the parts of torch and of JAX.

    in_torch(layer, params, x, state)
    in_jax(layer, params, x, state)

apply a layer to the framework's own arrays and return y.  Params and state have dualnet's names
and shapes; state is None in training, where batch norm does without it.  Where a framework has
the layer, it is asked for it: torch has convolution, pooling, norms and attention whole, JAX
has windows, and the rest is written out by its formula.  The blocks of the papers are written
out below, so that they are not compared with their own walkable data.
"""

import functools
import math

from peers import peer

from dualnet import nn

jax = peer("jax")
jnp = peer("jax.numpy")
torch = peer("torch")
F = torch.nn.functional

OF_TORCH = {
    nn.relu: F.relu,
    nn.tanh: torch.tanh,
    nn.gelu: functools.partial(F.gelu, approximate="tanh"),
    nn.sigmoid: torch.sigmoid,
    nn.softmax: functools.partial(F.softmax, dim=-1),
}
OF_JAX = {
    nn.relu: jax.nn.relu,
    nn.tanh: jnp.tanh,
    nn.gelu: functools.partial(jax.nn.gelu, approximate=True),
    nn.sigmoid: jax.nn.sigmoid,
    nn.softmax: jax.nn.softmax,
}


def pair(value):
    return (value, value) if isinstance(value, int) else value


def sides(padding):
    """((top, bottom), (left, right))."""
    return tuple(pair(side) for side in pair(padding))


@functools.singledispatch
def in_torch(layer, params, x, state):
    raise NotImplementedError(f"{type(layer).__name__} in torch")


@functools.singledispatch
def in_jax(layer, params, x, state):
    raise NotImplementedError(f"{type(layer).__name__} in JAX")


# --- linear maps, and layers that move entries ---------------------------------------------------


@in_torch.register
def _(layer: nn.Linear, params, x, state):
    return F.linear(x, params["w"].T, params.get("b"))


@in_jax.register
def _(layer: nn.Linear, params, x, state):
    return jnp.einsum("...p,pq->...q", x, params["w"]) + params.get("b", 0.0)


@in_torch.register
def _(layer: nn.GroupedLinear, params, x, state):
    return F.linear(x, torch.block_diag(*params["w"]).T, params.get("b"))


@in_jax.register
def _(layer: nn.GroupedLinear, params, x, state):
    w = params["w"]
    apart = x.reshape(*x.shape[:-1], *w.shape[:2])
    y = jnp.einsum("...gp,gpq->...gq", apart, w)
    return y.reshape(*x.shape[:-1], layer.features) + params.get("b", 0.0)


@in_torch.register
def _(layer: nn.Flatten, params, x, state):
    return x.flatten(1)


@in_jax.register
def _(layer: nn.Flatten, params, x, state):
    return x.reshape(len(x), -1)


@in_torch.register
def _(layer: nn.StopGradient, params, x, state):
    return x.detach()


@in_jax.register
def _(layer: nn.StopGradient, params, x, state):
    return jax.lax.stop_gradient(x)


@in_torch.register
def _(layer: nn.Activation, params, x, state):
    return OF_TORCH[layer.function](x)


@in_jax.register
def _(layer: nn.Activation, params, x, state):
    return OF_JAX[layer.function](x)


@in_torch.register
def _(layer: nn.Patches, params, x, state):
    size = pair(layer.size)
    columns = F.unfold(x.movedim(-1, 1), size, stride=size)  # (N, C·h·w, P): channels first
    apart = columns.unflatten(1, (x.shape[-1], math.prod(size)))
    return apart.movedim(-1, 1).swapaxes(2, 3).flatten(2)


@in_jax.register
def _(layer: nn.Patches, params, x, state):
    h, w = pair(layer.size)
    corners = [(i, j) for i in range(0, x.shape[1], h) for j in range(0, x.shape[2], w)]
    patches = [x[:, i : i + h, j : j + w].reshape(len(x), -1) for i, j in corners]
    return jnp.stack(patches, axis=1)


@in_torch.register
def _(layer: nn.ClassToken, params, x, state):
    return torch.cat([params["token"].expand(len(x), 1, -1), x], dim=1)


@in_jax.register
def _(layer: nn.ClassToken, params, x, state):
    padded = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
    return padded.at[:, 0].set(params["token"])


@in_torch.register
@in_jax.register
def _(layer: nn.Positions, params, x, state):
    return x + params["positions"]


@in_torch.register
@in_jax.register
def _(layer: nn.SelectToken, params, x, state):
    return x[:, layer.index]


@in_torch.register
@in_jax.register
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


@in_jax.register
def _(layer: nn.Conv2d, params, x, state):
    y = jax.lax.conv_general_dilated(
        x,
        params["w"],
        pair(layer.stride),
        sides(layer.padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer.groups,
    )
    return y + params.get("b", 0.0)


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


def pool_in_jax(layer, x, start, reduction):
    window = pair(layer.window)
    stride = window if layer.stride is None else pair(layer.stride)
    padding = ((0, 0), *sides(layer.padding), (0, 0))
    return jax.lax.reduce_window(x, start, reduction, (1, *window, 1), (1, *stride, 1), padding)


@in_jax.register
def _(layer: nn.MaxPool, params, x, state):
    return pool_in_jax(layer, x, -jnp.inf, jax.lax.max)


@in_jax.register
def _(layer: nn.AveragePool, params, x, state):
    return pool_in_jax(layer, x, 0.0, jax.lax.add) / math.prod(pair(layer.window))


@in_torch.register
def _(layer: nn.AdaptiveAveragePool, params, x, state):
    return F.adaptive_avg_pool2d(x.movedim(-1, 1), pair(layer.size)).movedim(1, -1)


@in_jax.register
def _(layer: nn.AdaptiveAveragePool, params, x, state):
    """Not in JAX: the cells as torch documents them, one by one."""

    def cells(n, length):
        return [slice(i * length // n, math.ceil((i + 1) * length / n)) for i in range(n)]

    rows, columns = (
        cells(n, length) for n, length in zip(pair(layer.size), x.shape[1:3], strict=True)
    )
    grid = [jnp.stack([x[:, r, c].mean((1, 2)) for c in columns], 1) for r in rows]
    return jnp.stack(grid, 1)


# --- normalization -------------------------------------------------------------------------------


def normalized(x, axes, epsilon):
    centered = x - x.mean(axes, keepdims=True)
    return centered / jnp.sqrt(jnp.square(centered).mean(axes, keepdims=True) + epsilon)


def scaled(y, params):
    return y * params.get("gain", 1.0) + params.get("bias", 0.0)


def with_axes_of(layer, params, x):
    """Gain and bias so that they broadcast against x."""
    shape = [x.shape[a] if a in layer.axes else 1 for a in range(min(layer.axes), 0)]
    return {name: p.reshape(shape) for name, p in params.items()}


@in_torch.register
def _(layer: nn.LayerNorm, params, x, state):
    apart = x.unflatten(-1, (layer.groups, -1))
    axes = [a if a == -1 else a - 1 for a in sorted(layer.axes)]
    last = list(range(-len(axes), 0))
    moved = apart.movedim(axes, last)
    y = F.layer_norm(moved, moved.shape[-len(axes) :], eps=layer.epsilon).movedim(last, axes)
    return scaled(y.flatten(-2), with_axes_of(layer, params, x))


@in_jax.register
def _(layer: nn.LayerNorm, params, x, state):
    parts = jnp.split(x, layer.groups, axis=-1)
    y = jnp.concatenate([normalized(part, layer.axes, layer.epsilon) for part in parts], -1)
    return scaled(y, with_axes_of(layer, params, x))


@in_torch.register
def _(layer: nn.GroupNorm, params, x, state):
    x = x.movedim(-1, 1).contiguous()  # its jvp asks for that, and its vjp for a gain
    gain, bias = params.get("gain", x.new_ones(x.shape[1])), params.get("bias")
    return F.group_norm(x, layer.groups, gain, bias, layer.epsilon).movedim(1, -1)


@in_jax.register
def _(layer: nn.GroupNorm, params, x, state):
    parts = jnp.split(x, layer.groups, axis=-1)
    axes = tuple(range(1, x.ndim))
    return scaled(jnp.concatenate([normalized(p, axes, layer.epsilon) for p in parts], -1), params)


@in_torch.register
def _(layer: nn.BatchNorm, params, x, state):
    mean, variance = (None, None) if state is None else (state["mean"], state["variance"])
    gain, bias = params.get("gain"), params.get("bias")
    x = x.movedim(-1, 1)
    y = F.batch_norm(x, mean, variance, gain, bias, state is None, eps=layer.epsilon)
    return y.movedim(1, -1)


@in_jax.register
def _(layer: nn.BatchNorm, params, x, state):
    if state is None:
        return scaled(normalized(x, tuple(range(x.ndim - 1)), layer.epsilon), params)
    return scaled((x - state["mean"]) / jnp.sqrt(state["variance"] + layer.epsilon), params)


# --- attention -----------------------------------------------------------------------------------


def projections(layer, in_peer, params, x):
    """Queries, keys and values, each (N, T, heads, C / heads)."""
    inward = (in_peer(nn.Linear(None), params[name], x, {}) for name in ("query", "key", "value"))
    return (y.reshape(*x.shape[:2], layer.heads, -1) for y in inward)


@in_torch.register
def _(layer: nn.MultiHeadAttention, params, x, state):
    by_head = [y.swapaxes(1, 2) for y in projections(layer, in_torch, params, x)]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        gathered = F.scaled_dot_product_attention(*by_head)
    return in_torch(nn.Linear(None), params["output"], gathered.swapaxes(1, 2).flatten(2), {})


@in_jax.register
def _(layer: nn.MultiHeadAttention, params, x, state):
    q, k, v = projections(layer, in_jax, params, x)
    p = jax.nn.softmax(jnp.einsum("nthc,nuhc->nhtu", q, k) / math.sqrt(q.shape[-1]))
    gathered = jnp.einsum("nhtu,nuhc->nthc", p, v).reshape(x.shape)
    return in_jax(nn.Linear(None), params["output"], gathered, {})


# --- containers ----------------------------------------------------------------------------------


def register_containers(in_peer):
    def child(layer, name, params, x, state):
        child = dict(layer.layers)[name]
        return in_peer(child, params[name], x, None if state is None else state[name])

    @in_peer.register
    def _(layer: nn.Sequential, params, x, state):
        for name, _ in layer.layers:
            x = child(layer, name, params, x, state)
        return x

    @in_peer.register
    def _(layer: nn.Residual, params, x, state):
        shortcut = child(layer, "shortcut", params, x, state) if "shortcut" in params else x
        return child(layer, "block", params, x, state) + shortcut

    @in_peer.register
    def _(layer: nn.TokenMixing, params, x, state):
        return child(layer, "mix", params, x.swapaxes(1, 2), state).swapaxes(1, 2)


register_containers(in_torch)
register_containers(in_jax)


# --- the blocks of the papers, written out -------------------------------------------------------


def mixer_block_in_jax(groups, params, x):
    """Ren et al. 2023, section 4: y = relu(x + f(x)), and a layer norm before and after each of
    the three linear maps of f."""
    p = params["residual"]["block"]
    mix, across, grouped = p["tokens"]["mix"]["linear"], p["channels"]["linear"], p["groups"]
    n, tokens, channels = x.shape

    def norm(x, axis=-1):
        return normalized(x, (axis,), 1e-5)

    y = jnp.einsum("npc,pq->nqc", norm(x, 1), mix["w"]) + mix["b"][:, None]
    y = jax.nn.relu(norm(y, 1))
    y = jax.nn.relu(norm(norm(y) @ across["w"] + across["b"]))
    y = norm(y.reshape(n, tokens, groups, channels // groups))
    y = jnp.einsum("npgc,gcd->npgd", y, grouped["linear"]["w"])
    y = norm(y + grouped["linear"]["b"].reshape(groups, -1))
    return jax.nn.relu(x + y.reshape(x.shape))


def mixer_block_in_torch(groups, params, x):
    p = params["residual"]["block"]
    mix, across, grouped = p["tokens"]["mix"]["linear"], p["channels"]["linear"], p["groups"]

    def norm(x):
        return F.layer_norm(x, x.shape[-1:])

    y = F.relu(norm(F.linear(norm(x.mT), mix["w"].T, mix["b"]))).mT
    y = F.relu(norm(F.linear(norm(y), across["w"].T, across["b"])))
    y = norm(y.unflatten(-1, (groups, -1))).flatten(2)
    y = F.linear(y, torch.block_diag(*grouped["linear"]["w"]).T, grouped["linear"]["b"])
    return F.relu(x + norm(y.unflatten(-1, (groups, -1))).flatten(2))


def mlp_in_jax(params, x):
    y = jax.nn.gelu(x @ params["in"]["w"] + params["in"]["b"], approximate=True)
    return y @ params["out"]["w"] + params["out"]["b"]


def mlp_in_torch(params, x):
    y = F.gelu(F.linear(x, params["in"]["w"].T, params["in"]["b"]), approximate="tanh")
    return F.linear(y, params["out"]["w"].T, params["out"]["b"])


def layer_norm_in_jax(params, x):
    return normalized(x, (-1,), 1e-5) * params["gain"] + params["bias"]


def layer_norm_in_torch(params, x):
    return F.layer_norm(x, x.shape[-1:], params["gain"], params["bias"])


def mlp_mixer_block_in(norm, mlp, params, x):
    """Tolstikhin et al. 2021, Eq. 1."""
    p = params["tokens"]["block"]
    x = x + mlp(p["mlp"]["mix"], norm(p["norm"], x).swapaxes(1, 2)).swapaxes(1, 2)
    p = params["channels"]["block"]
    return x + mlp(p, norm(p["norm"], x))


def transformer_block_in(norm, mlp, in_peer, heads, params, x):
    """Dosovitskiy et al. 2021, Eq. 2 and 3."""
    p = params["attention"]["block"]
    attention = nn.MultiHeadAttention(heads)
    x = x + in_peer(attention, p["attention"], norm(p["norm"], x), {})
    p = params["mlp"]["block"]
    return x + mlp(p, norm(p["norm"], x))


mlp_mixer_block_in_jax = functools.partial(mlp_mixer_block_in, layer_norm_in_jax, mlp_in_jax)
mlp_mixer_block_in_torch = functools.partial(mlp_mixer_block_in, layer_norm_in_torch, mlp_in_torch)
transformer_block_in_jax = functools.partial(
    transformer_block_in, layer_norm_in_jax, mlp_in_jax, in_jax
)
transformer_block_in_torch = functools.partial(
    transformer_block_in, layer_norm_in_torch, mlp_in_torch, in_torch
)


# --- small networks, written out -----------------------------------------------------------------


def cnn_in_jax(params, x):
    """Convolution, batch norm, ReLU, pool, linear; in training."""
    y = in_jax(nn.Conv2d(4, 3, 2, 1), params["conv"], x, {})
    y = scaled(normalized(y, (0, 1, 2), 1e-5), params["norm"])
    y = jax.nn.relu(y)
    y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return y.reshape(len(x), -1) @ params["head"]["w"] + params["head"]["b"]


def vit_in_jax(params, x):
    """A vision transformer of one block with two heads, patches of 2 by 3."""
    y = in_jax(nn.Patches((2, 3)), {}, x, {}) @ params["embed"]["w"] + params["embed"]["b"]
    first = jnp.broadcast_to(params["class"]["token"], (len(x), 1, y.shape[-1]))
    y = jnp.concatenate([first, y], 1) + params["positions"]["positions"]
    y = transformer_block_in_jax(2, params["block"], y)
    y = layer_norm_in_jax(params["norm"], y)[:, 0]
    return y @ params["head"]["w"] + params["head"]["b"]
