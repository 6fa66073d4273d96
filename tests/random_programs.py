"""Random programs: compositions of layers and operations, drawn by hypothesis.

A program is data, and its repr is the Python that makes it again.  Each step is an entry of a
table, with options drawn to fit the array that reaches it; all numbers come from the program's
seed.  Every layer exists twice: as dualnet computes it, and from JAX's own functions; operations
take the array module as their first argument.

Entries keep magnitudes at a few units, so that difference quotients have digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dualnet import Key, nn, tree

Shape = tuple[int, ...]
Options = dict[str, Any]
LARGEST = 500
"""No step is offered more entries than this, so arrays stay small."""


@dataclass(frozen=True)
class Step:
    """An entry of `KINDS`, and its options; some have steps among them."""

    name: str
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Steps one after the other, from an array of a shape `(N, ...)`; the seed of all numbers."""

    shape: Shape
    steps: tuple[Step, ...]
    seed: int

    def compile(self) -> tuple[Callable, Callable, tuple]:
        """The program as a function of dualnet, as one of JAX, and where to evaluate them.

        Returns:
            `f(params, x)`, `by_jax(jax, params, x)`, and `(params, x)` in double precision.
        """
        key = Key(self.seed)
        whole = chain(self.steps, self.shape, key.fold_in("steps"))
        return whole.apply, whole.by_jax, (whole.params, normal(key.fold_in("x"), self.shape))

    def __str__(self) -> str:
        steps = " > ".join(step.name for step in self.steps)
        return f"{steps}, from {self.shape}, seed {self.seed}"


@dataclass(frozen=True)
class Piece:
    """A step made for one shape."""

    apply: Callable[[Any, Any], Any]
    by_jax: Callable[[Any, Any, Any], Any]
    params: Any
    out_shape: Shape


def normal(key: Key, shape: Shape) -> np.ndarray:
    return np.random.default_rng(key.bits).standard_normal(shape)


def chain(steps: tuple[Step, ...], shape: Shape, key: Key) -> Piece:
    """One piece of several; its params are a tuple of theirs."""
    pieces: list[Piece] = []
    for i, step in enumerate(steps):
        pieces.append(KINDS[step.name].piece(step.options, shape, key.fold_in(i)))
        shape = pieces[-1].out_shape

    def apply(params: tuple, x: Any) -> Any:
        for piece, its_own in zip(pieces, params, strict=True):
            x = piece.apply(its_own, x)
        return x

    def by_jax(jax: Any, params: tuple, x: Any) -> Any:
        for piece, its_own in zip(pieces, params, strict=True):
            x = piece.by_jax(jax, its_own, x)
        return x

    return Piece(apply, by_jax, tuple(piece.params for piece in pieces), shape)


# --- kinds of steps ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerKind:
    """A layer in training mode.

    Attributes:
        fits: whether it takes arrays of a shape `(N, ...)`.
        options: from such a shape, a strategy of keyword arguments.
        by_jax: `by_jax(jax, params, x, **options)`.
        layer: makes the layer of its options.
    """

    fits: Callable[[Shape], bool]
    options: Callable[[Shape], st.SearchStrategy[Options]]
    by_jax: Callable
    layer: Callable[..., nn.Layer]

    def piece(self, options: Options, shape: Shape, key: Key) -> Piece:
        layer = self.layer(**options)
        params, state, out_shape = layer.init(key, shape[1:])
        context = nn.Context(train=True, key=key.fold_in("context"))

        def moved(path: str, p: np.ndarray) -> np.ndarray:  # biases off 0, gains off 1
            return p + 0.2 * normal(key.fold_in(path), p.shape)

        return Piece(
            lambda params, x: layer.apply(params, state, x, context)[0],
            lambda jax, params, x: self.by_jax(jax, params, x, **options),
            tree.map_with_path(moved, params),
            (shape[0], *out_shape),
        )


@dataclass(frozen=True)
class OperationKind:
    """A function of arrays, which NumPy and JAX share.

    Attributes:
        fits, options: as for layers; the shape may be any.
        f: `f(xp, x, **options)`, or `f(xp, x, w, **options)` if there are weights.
        weights: from the shape and the options, the shape of w.
    """

    fits: Callable[[Shape], bool]
    options: Callable[[Shape], st.SearchStrategy[Options]]
    f: Callable
    weights: Callable[[Shape, Options], Shape] | None = None

    def piece(self, options: Options, shape: Shape, key: Key) -> Piece:
        params = (normal(key, self.weights(shape, options)),) if self.weights else ()

        def apply(params: tuple, x: Any) -> Any:
            return self.f(np, x, *params, **options)

        def by_jax(jax: Any, params: tuple, x: Any) -> Any:
            return self.f(JaxNumpy(jax), x, *params, **options)

        return Piece(apply, by_jax, params, np.shape(apply(params, np.ones(shape))))


@dataclass(frozen=True)
class BranchKind:
    """`join(xp, x, y)`, where steps of their own make y of x; y's mean, if its shape differs."""

    join: Callable[[Any, Any, Any], Any]

    def fits(self, shape: Shape) -> bool:
        return arrays(shape)

    def options(self, shape: Shape) -> st.SearchStrategy[Options]:
        return st.fixed_dictionaries({"steps": some_steps(shape, 2, OPERATIONS, LAYERS)})

    def piece(self, options: Options, shape: Shape, key: Key) -> Piece:
        inner = chain(options["steps"], shape, key)

        def joined(xp: Any, x: Any, y: Any) -> Any:
            return self.join(xp, x, y if inner.out_shape == shape else xp.mean(y))

        return Piece(
            lambda params, x: joined(np, x, inner.apply(params, x)),
            lambda jax, params, x: joined(JaxNumpy(jax), x, inner.by_jax(jax, params, x)),
            inner.params,
            shape,
        )


class JaxNumpy:
    """jax.numpy, with maxima that select.

    JAX's derivative of a maximum asks which operand == it.  Compiled, an operand may be computed
    twice with different roundings; then the answer is none, and the derivative 0 or infinite.
    """

    def __init__(self, jax: Any) -> None:
        self._numpy = jax.numpy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)

    def maximum(self, x: Any, y: Any) -> Any:
        return self.where(x > y, x, y)

    def minimum(self, x: Any, y: Any) -> Any:
        return self.where(x < y, x, y)

    def max(self, x: Any, axis: Any, keepdims: bool) -> Any:
        chosen = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        last = self.moveaxis(x, tuple(chosen), tuple(range(-len(chosen), 0)))
        rows = self.reshape(last, (*last.shape[: x.ndim - len(chosen)], -1))
        y = self.sort(rows)[..., -1]
        return self.expand_dims(y, tuple(chosen)) if keepdims else y

    def min(self, x: Any, axis: Any, keepdims: bool) -> Any:
        return -self.max(-x, axis, keepdims)


# --- drawing -------------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn, most: int = 6) -> Program:
    most_of_axes = draw(st.sampled_from([(6,), (6, 6, 4), (5, 6)]))  # vectors, images, tokens
    shape = (draw(st.integers(1, 3)), *(draw(st.integers(1, n)) for n in most_of_axes))
    tables = (OPERATIONS, FOR_IMAGES, FOR_TOKENS, LAYERS, FOR_IMAGES, OPERATIONS, BRANCHES)
    return Program(shape, draw(some_steps(shape, most, *tables)), draw(st.integers(0, 99)))


@st.composite
def some_steps(draw: st.DrawFn, shape: Shape, most: int, *tables: dict) -> tuple[Step, ...]:
    """Steps that fit one after the other, each from one of the tables."""
    steps: list[Step] = []
    while len(steps) < most and (not steps or draw(st.integers(0, 4))):
        fitting = [[name for name in table if table[name].fits(shape)] for table in tables]
        fitting = [names for names in fitting if names]
        if not fitting:  # a number, or too many of them
            break
        name = draw(st.sampled_from(draw(st.sampled_from(fitting))))
        steps.append(Step(name, draw(KINDS[name].options(shape))))
        shape = chain(tuple(steps[-1:]), shape, Key(0)).out_shape
    return tuple(steps)


def dictionary(**options: st.SearchStrategy) -> st.SearchStrategy[Options]:
    return st.fixed_dictionaries(options)


def choices(**options: Any) -> Callable[[Shape], st.SearchStrategy[Options]]:
    """Each option one of a list, or of a list that a function makes of the shape."""

    def strategy(shape: Shape) -> st.SearchStrategy[Options]:
        lists = {name: v(shape) if callable(v) else v for name, v in options.items()}
        return dictionary(**{name: st.sampled_from(values) for name, values in lists.items()})

    return strategy


def dividers(n: int) -> list[int]:
    return [d for d in range(1, 5) if n % d == 0]


def axes(shape: Shape) -> list[int]:
    """Each axis, counted from either end."""
    return [*range(len(shape)), *range(-len(shape), 0)]


def some_axes(shape: Shape) -> list:
    """An axis, a pair of axes, or all."""
    pairs = [(i, j - len(shape)) for j in range(len(shape)) for i in range(j)]
    return [*axes(shape), *pairs, None]


# --- options of layers: every form in which they can be given ------------------------------------

# ε is larger than by default, as it bounds how much a norm of equal numbers amplifies rounding
GAINS: Options = {"gain": [True, False], "bias": [True, False], "epsilon": [0.1, 0.01]}


def pair(value: Any) -> tuple:
    return (value, value) if isinstance(value, int) else value


def sides(padding: Any) -> tuple:
    """((above, below), (left, right))."""
    return tuple(pair(side) for side in pair(padding))


def sizes(most: Shape, least: int = 1) -> st.SearchStrategy:
    """An int, or one for each axis."""
    one_each = st.tuples(*(st.integers(least, n) for n in most))
    return st.integers(least, min(most)) | one_each


def paddings(most: Shape) -> st.SearchStrategy:
    return sizes(most, least=0) | st.tuples(*(st.tuples(*[st.integers(0, n)] * 2) for n in most))


@st.composite
def convolutions(draw: st.DrawFn, shape: Shape) -> Options:
    padding = draw(paddings((2, 2)))
    padded = [n + sum(around) for n, around in zip(shape[1:3], sides(padding), strict=True)]
    groups = draw(st.sampled_from(dividers(shape[3])))
    return {
        "features": groups * draw(st.integers(1, max(1, 4 // groups))),
        "kernel": draw(sizes(tuple(min(3, n) for n in padded))),
        "stride": draw(sizes((3, 3))),
        "padding": padding,
        "groups": groups,
        "bias": draw(st.booleans()),
    }


@st.composite
def pools(draw: st.DrawFn, shape: Shape) -> Options:
    window = draw(sizes(tuple(min(3, n) for n in shape[1:3])))
    padding = draw(paddings(tuple(n - 1 for n in pair(window))))
    return {"window": window, "stride": draw(st.none() | sizes((3, 3))), "padding": padding}


@st.composite
def grouped_linears(draw: st.DrawFn, shape: Shape) -> Options:
    groups = draw(st.sampled_from(dividers(shape[-1])))
    return {"features": groups * draw(st.integers(1, 2)), "groups": groups}


@st.composite
def layer_norms(draw: st.DrawFn, shape: Shape) -> Options:
    among = st.sampled_from(range(1 - len(shape), 0))
    chosen = draw(st.lists(among, unique=True, min_size=1))
    groups = draw(st.sampled_from(dividers(shape[-1]))) if -1 in chosen else 1
    return {"axes": tuple(chosen), "groups": groups, **draw(choices(**GAINS)(shape))}


def group_norms(shape: Shape) -> st.SearchStrategy[Options]:
    return choices(groups=dividers(shape[-1]), **GAINS)(shape)


def patches(shape: Shape) -> st.SearchStrategy[Options]:
    return dictionary(size=st.tuples(*(st.sampled_from(dividers(n)) for n in shape[1:3])))


def mixer_blocks(shape: Shape) -> st.SearchStrategy[Options]:
    return choices(tokens=shape[1:2], channels=shape[2:], groups=dividers(shape[2]))(shape)


def mlp_mixer_blocks(shape: Shape) -> st.SearchStrategy[Options]:
    widths = {"token_width": [1, 3], "channel_width": [2, 4]}
    return choices(tokens=shape[1:2], channels=shape[2:], **widths)(shape)


def transformer_blocks(shape: Shape) -> st.SearchStrategy[Options]:
    return choices(width=shape[2:], heads=dividers(shape[2]), mlp_width=[1, 3])(shape)


@st.composite
def residuals(draw: st.DrawFn, shape: Shape) -> Options:
    block = draw(some_steps(shape, 2, SIMPLE))
    same = chain(block, shape, Key(0)).out_shape == shape
    return {"block": block} if same else {"block": block, "shortcut": block}


def mixings(shape: Shape) -> st.SearchStrategy[Options]:
    return dictionary(mix=some_steps((shape[0], shape[2], shape[1]), 2, MIXING))


# --- options of operations -----------------------------------------------------------------------


@st.composite
def slices(draw: st.DrawFn, shape: Shape) -> Options:
    """An index of integers, slices with steps of both signs, new axes, and ellipses."""
    key: list[Any] = []
    for n in shape[: draw(st.integers(1, len(shape)))]:
        i = draw(st.integers(-n, n - 1))
        every = [slice(None, None, step) for step in (None, -1, 2)]
        key.append(draw(st.sampled_from([*every, slice(i, None), slice(i, None, -2), i])))
    return {"key": (*key, *draw(st.sampled_from([(), (None,), (...,)])))}


def shapes(shape: Shape) -> list[Shape]:
    """Other shapes of as many entries: two neighboring axes as one, one as two, or all as one."""
    merged = [(*shape[:i], math.prod(shape[i : i + 2]), *shape[i + 2 :]) for i in range(len(shape))]
    split = [
        (*shape[:i], n // d, d, *shape[i + 1 :])
        for i, n in enumerate(shape)
        for d in dividers(n)
        if len(shape) < 4
    ]
    return [(-1,), *merged[:-1], *split]


def permutations(shape: Shape) -> st.SearchStrategy[Options]:
    return dictionary(axes=st.permutations(range(len(shape))).map(tuple))


@st.composite
def takes(draw: st.DrawFn, shape: Shape) -> Options:
    axis = draw(st.sampled_from(axes(shape)))
    among = st.integers(-shape[axis], shape[axis] - 1)  # from either end, and repeated ones
    return {"indices": draw(st.lists(among, min_size=1, max_size=3)), "axis": axis}


def pads(shape: Shape) -> st.SearchStrategy[Options]:
    widths = st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 2))] * len(shape))
    return dictionary(widths=widths, mode=st.sampled_from(["constant", "edge", "wrap"]))


@st.composite
def broadcasts(draw: st.DrawFn, shape: Shape) -> Options:
    """A shape that stretches to the array's: axes of size 1, leading axes left out."""
    stretched = tuple(draw(st.sampled_from([n, 1])) for n in shape)
    left_out = draw(st.integers(0, len(shape)))
    return {"function": draw(st.sampled_from(sorted(BINARY))), "shape": stretched[left_out:]}


# --- layers as JAX computes them -----------------------------------------------------------------


def linear_by_jax(jax: Any, p: dict, x: Any, **_: Any) -> Any:
    return jax.numpy.einsum("...p,pq->...q", x, p["w"]) + p.get("b", 0.0)


def grouped_linear_by_jax(jax: Any, p: dict, x: Any, **_: Any) -> Any:
    jnp = jax.numpy
    parts = jnp.split(x, len(p["w"]), axis=-1)
    outputs = [part @ w for part, w in zip(parts, p["w"], strict=True)]
    return jnp.concatenate(outputs, axis=-1) + p.get("b", 0.0)


def convolution_by_jax(
    jax: Any, p: dict, x: Any, stride: Any, padding: Any, groups: int, **_: Any
) -> Any:
    # padded here, as XLA (of jaxlib 0.10.2) can abort where the padding exceeds the kernel
    y = jax.lax.conv_general_dilated(
        jax.numpy.pad(x, ((0, 0), *sides(padding), (0, 0))),
        p["w"],
        pair(stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + p.get("b", 0.0)


def _pooled(jax: Any, x: Any, start: float, f: Callable, options: dict) -> Any:
    window, stride, padding = (options[name] for name in ("window", "stride", "padding"))
    strides = pair(window if stride is None else stride)
    around = ((0, 0), *sides(padding), (0, 0))
    return jax.lax.reduce_window(x, start, f, (1, *pair(window), 1), (1, *strides, 1), around)


def max_pool_by_jax(jax: Any, p: dict, x: Any, **options: Any) -> Any:
    return _pooled(jax, x, -math.inf, jax.lax.max, options)


def average_pool_by_jax(jax: Any, p: dict, x: Any, **options: Any) -> Any:
    return _pooled(jax, x, 0.0, jax.lax.add, options) / math.prod(pair(options["window"]))


def adaptive_average_pool_by_jax(jax: Any, p: dict, x: Any, size: Any) -> Any:
    jnp = jax.numpy
    for axis, cells in zip((1, 2), pair(size), strict=True):
        n = x.shape[axis]
        ends = [(i * n // cells, math.ceil((i + 1) * n / cells)) for i in range(cells)]
        x = jnp.stack(
            [jnp.mean(jax.lax.slice_in_dim(x, *end, axis=axis), axis=axis) for end in ends], axis
        )
    return x


def _normalized(jax: Any, x: Any, axes: tuple, groups: int, epsilon: float) -> Any:
    jnp = jax.numpy
    parts = jnp.split(x, groups, axis=-1)
    outputs = [
        (part - part.mean(axes, keepdims=True)) / jnp.sqrt(part.var(axes, keepdims=True) + epsilon)
        for part in parts
    ]
    return jnp.concatenate(outputs, axis=-1)


def layer_norm_by_jax(
    jax: Any, p: dict, x: Any, axes: tuple, groups: int, epsilon: float, **_: Any
) -> Any:
    kept = [a for a in range(-x.ndim, 0) if a not in axes]
    p = {name: jax.numpy.expand_dims(value, kept) for name, value in p.items()}
    return _normalized(jax, x, axes, groups, epsilon) * p.get("gain", 1.0) + p.get("bias", 0.0)


def group_norm_by_jax(jax: Any, p: dict, x: Any, groups: int, epsilon: float, **_: Any) -> Any:
    y = _normalized(jax, x, tuple(range(1, x.ndim)), groups, epsilon)
    return y * p.get("gain", 1.0) + p.get("bias", 0.0)


def batch_norm_by_jax(jax: Any, p: dict, x: Any, epsilon: float, **_: Any) -> Any:
    y = _normalized(jax, x, tuple(range(x.ndim - 1)), 1, epsilon)
    return y * p.get("gain", 1.0) + p.get("bias", 0.0)


def attention_by_jax(jax: Any, p: dict, x: Any, heads: int) -> Any:
    jnp = jax.numpy
    by_head = {
        name: jnp.stack(jnp.split(linear_by_jax(jax, p[name], x), heads, axis=-1))
        for name in ("query", "key", "value")
    }
    scores = jnp.einsum("hntc,hnsc->hnts", by_head["query"], by_head["key"])
    weights = jax.nn.softmax(scores / math.sqrt(x.shape[-1] // heads), axis=-1)
    gathered = jnp.einsum("hnts,hnsc->hntc", weights, by_head["value"])
    return linear_by_jax(jax, p["output"], jnp.concatenate(list(gathered), axis=-1))


def patches_by_jax(jax: Any, p: dict, x: Any, size: Any) -> Any:
    jnp = jax.numpy
    (h, w), (_, height, width, _) = pair(size), x.shape
    patches = [
        x[:, i : i + h, j : j + w].reshape(x.shape[0], -1)
        for i in range(0, height, h)
        for j in range(0, width, w)
    ]
    return jnp.stack(patches, axis=1)


def class_token_by_jax(jax: Any, p: dict, x: Any) -> Any:
    jnp = jax.numpy
    return jnp.stack([jnp.vstack([p["token"], tokens]) for tokens in x])


def activation_by_jax(jax: Any, p: dict, x: Any, function: str) -> Any:
    return (jax.numpy.tanh if function == "tanh" else getattr(jax.nn, function))(x)


def softmax_by_jax(jax: Any, p: dict, x: Any, axis: int) -> Any:
    return jax.nn.softmax(x, axis)


def sequence_by_jax(jax: Any, p: dict, x: Any, steps: tuple[Step, ...]) -> Any:
    for i, step in enumerate(steps):
        x = KINDS[step.name].by_jax(jax, p[str(i)], x, **step.options)
    return x


def residual_by_jax(jax: Any, p: dict, x: Any, block: tuple, shortcut: tuple = ()) -> Any:
    beside = sequence_by_jax(jax, p["shortcut"], x, shortcut) if shortcut else x
    return beside + sequence_by_jax(jax, p["block"], x, block)


def token_mixing_by_jax(jax: Any, p: dict, x: Any, mix: tuple) -> Any:
    return sequence_by_jax(jax, p["mix"], x.transpose(0, 2, 1), mix).transpose(0, 2, 1)


def _norm(jax: Any, x: Any, p: dict | None = None, groups: int = 1) -> Any:
    return layer_norm_by_jax(jax, p or {}, x, axes=(-1,), groups=groups, epsilon=1e-5)


def _mlp(jax: Any, p: dict, x: Any) -> Any:
    return linear_by_jax(jax, p["out"], jax.nn.gelu(linear_by_jax(jax, p["in"], x)))


def transformer_block_by_jax(jax: Any, p: dict, x: Any, heads: int, **_: Any) -> Any:
    first, second = p["attention"]["block"], p["mlp"]["block"]
    x = x + attention_by_jax(jax, first["attention"], _norm(jax, x, first["norm"]), heads)
    return x + _mlp(jax, second, _norm(jax, x, second["norm"]))


def mlp_mixer_block_by_jax(jax: Any, p: dict, x: Any, **_: Any) -> Any:
    first, second = p["tokens"]["block"], p["channels"]["block"]
    normed = _norm(jax, x, first["norm"]).transpose(0, 2, 1)
    x = x + _mlp(jax, first["mlp"]["mix"], normed).transpose(0, 2, 1)
    return x + _mlp(jax, second, _norm(jax, x, second["norm"]))


def mixer_block_by_jax(jax: Any, p: dict, x: Any, groups: int, **_: Any) -> Any:
    p, relu = p["residual"]["block"], jax.nn.relu
    y = x.transpose(0, 2, 1)
    y = relu(_norm(jax, linear_by_jax(jax, p["tokens"]["mix"]["linear"], _norm(jax, y))))
    y = y.transpose(0, 2, 1)
    y = relu(_norm(jax, linear_by_jax(jax, p["channels"]["linear"], _norm(jax, y))))
    y = grouped_linear_by_jax(jax, p["groups"]["linear"], _norm(jax, y, groups=groups))
    return relu(x + _norm(jax, y, groups=groups))


# --- tables of layers ----------------------------------------------------------------------------


def images(shape: Shape) -> bool:
    return len(shape) == 4 and math.prod(shape) <= LARGEST


def tokens(shape: Shape) -> bool:
    return len(shape) == 3 and math.prod(shape) <= LARGEST


def features(shape: Shape) -> bool:
    return len(shape) >= 2 and math.prod(shape) <= LARGEST


def batches(shape: Shape) -> bool:
    return features(shape) and math.prod(shape[:-1]) >= 2


def none(shape: Shape) -> st.SearchStrategy[Options]:
    return st.just({})


def activation(function: str) -> nn.Layer:
    return nn.Activation(nn.ACTIVATIONS[function])


def softmax(axis: int) -> nn.Layer:
    return nn.Activation(lambda x: nn.softmax(x, axis))


def sequence(steps: tuple[Step, ...]) -> nn.Layer:
    layers = [KINDS[step.name].layer(**step.options) for step in steps]
    return nn.Sequential(tuple((str(i), layer) for i, layer in enumerate(layers)))


def residual(**steps: tuple[Step, ...]) -> nn.Layer:
    return nn.Residual(tuple((name, sequence(inner)) for name, inner in steps.items()))


def token_mixing(mix: tuple[Step, ...]) -> nn.Layer:
    return nn.TokenMixing((("mix", sequence(mix)),))


def kinds(rows: list[tuple]) -> dict[str, LayerKind]:
    return {layer.__name__: LayerKind(*about, layer) for *about, layer in rows}


LINEAR = choices(features=[1, 2, 3, 5], bias=[True, False])
FUNCTION = choices(function=sorted(nn.ACTIVATIONS))
HEADS = choices(heads=lambda shape: dividers(shape[-1]))
INDEX = choices(index=lambda shape: range(-shape[1], shape[1]))
SIZE = choices(size=[1, 2, (1, 2), (3, 1), (2, 3)])

LAYERS = kinds(
    [
        (features, LINEAR, linear_by_jax, nn.Linear),
        (features, grouped_linears, grouped_linear_by_jax, nn.GroupedLinear),
        (features, FUNCTION, activation_by_jax, activation),
        (features, choices(axis=axes), softmax_by_jax, softmax),
        (features, layer_norms, layer_norm_by_jax, nn.LayerNorm),
        (features, group_norms, group_norm_by_jax, nn.GroupNorm),
        (batches, choices(**GAINS), batch_norm_by_jax, nn.BatchNorm),
        (features, none, lambda jax, p, x: x.reshape(x.shape[0], -1), nn.Flatten),
        (features, choices(features=[2]), lambda jax, p, x, features: x, nn.LocalHead),
        (features, residuals, residual_by_jax, residual),
    ]
)
FOR_IMAGES = kinds(
    [
        (images, convolutions, convolution_by_jax, nn.Conv2d),
        (images, pools, max_pool_by_jax, nn.MaxPool),
        (images, pools, average_pool_by_jax, nn.AveragePool),
        (images, SIZE, adaptive_average_pool_by_jax, nn.AdaptiveAveragePool),
        (images, patches, patches_by_jax, nn.Patches),
    ]
)
FOR_TOKENS = kinds(
    [
        (tokens, none, class_token_by_jax, nn.ClassToken),
        (tokens, none, lambda jax, p, x: x + p["positions"], nn.Positions),
        (tokens, INDEX, lambda jax, p, x, index: x[:, index], nn.SelectToken),
        (tokens, none, lambda jax, p, x: x.mean(1), nn.AverageTokens),
        (tokens, HEADS, attention_by_jax, nn.MultiHeadAttention),
        (tokens, mixings, token_mixing_by_jax, token_mixing),
        (tokens, mixer_blocks, mixer_block_by_jax, nn.mixer_block),
        (tokens, mlp_mixer_blocks, mlp_mixer_block_by_jax, nn.mlp_mixer_block),
        (tokens, transformer_blocks, transformer_block_by_jax, nn.transformer_block),
    ]
)
SIMPLE = {name: kind for name, kind in LAYERS.items() if name != "residual"} | FOR_IMAGES
MIXING = {name: LAYERS[name] for name in ("Linear", "GroupedLinear", "activation", "LayerNorm")}

# --- tables of operations ------------------------------------------------------------------------


def bounded(xp: Any, y: Any) -> Any:
    return 2.0 * xp.arctan(y)


def gram(xp: Any, x: Any) -> Any:
    """A positive definite matrix."""
    products = x @ xp.swapaxes(x, -1, -2) / x.shape[-1]
    return products + 2.0 * np.eye(x.shape[-2], dtype=x.dtype)


SMOOTH: dict[str, Callable] = {
    "tanh": lambda xp, x: xp.tanh(x),
    "sin": lambda xp, x: xp.sin(x),
    "cos": lambda xp, x: xp.cos(x),
    "arctan": lambda xp, x: bounded(xp, x),
    "arcsinh": lambda xp, x: xp.arcsinh(x),
    "exp": lambda xp, x: xp.exp(-xp.square(x)),
    "expm1": lambda xp, x: xp.expm1(xp.tanh(x)),
    "log": lambda xp, x: xp.log(1.5 + xp.square(x)),
    "log1p": lambda xp, x: x - xp.log1p(xp.square(x)),
    "sqrt": lambda xp, x: xp.sqrt(1.0 + xp.square(x)),
    "cbrt": lambda xp, x: xp.cbrt(2.0 + xp.sin(x)),
    "reciprocal": lambda xp, x: 1.0 / (1.0 + x * x),
    "divide": lambda xp, x: x / (1.0 + xp.square(x)),
    "cube": lambda xp, x: bounded(xp, x**3 - x),
    "power": lambda xp, x: (0.5 + xp.square(xp.sin(x))) ** xp.tanh(x),
    "hypot": lambda xp, x: xp.hypot(x, 0.5) - 1.0,
    "sinh": lambda xp, x: xp.sinh(xp.tanh(x)) + xp.cosh(xp.sin(x)),
    "negative": lambda xp, x: -x,
}
KINKED: dict[str, Callable] = {
    "abs": lambda xp, x: xp.abs(x),
    "maximum": lambda xp, x: xp.maximum(x, 0.3 - x),
    "minimum": lambda xp, x: xp.minimum(x, 0.7),
    "clip": lambda xp, x: xp.clip(x, -1.1, 0.9),
    "where": lambda xp, x: xp.where(x > 0.1, x, 0.3 * x),
}
BINARY: dict[str, Callable] = {
    "add": lambda xp, x, w: x + w,
    "subtract": lambda xp, x, w: w - x,
    "multiply": lambda xp, x, w: x * w,
    "divide": lambda xp, x, w: x / (1.0 + xp.square(w)),
    "power": lambda xp, x, w: (0.5 + xp.square(xp.tanh(w))) ** xp.sin(x),
    "arctan2": lambda xp, x, w: xp.arctan2(x + w, 1.0 + xp.square(w)),
    "logaddexp": lambda xp, x, w: xp.logaddexp(w, x),
    "hypot": lambda xp, x, w: xp.hypot(x, 1.0 + xp.square(w)),
}
REDUCTIONS: dict[str, Callable] = {
    "sum": lambda xp, x, **how: xp.sum(x, **how) / math.sqrt(x.size),
    "mean": lambda xp, x, **how: xp.mean(x, **how),
    "var": lambda xp, x, **how: xp.var(x, **how),
    "std": lambda xp, x, **how: xp.sqrt(0.2 + xp.var(x, **how)),
    "norm": lambda xp, x, **how: xp.sqrt(0.1 + xp.mean(xp.square(x), **how)),
    "prod": lambda xp, x, **how: xp.prod(1.2 * xp.sin(x), **how),
    "max": lambda xp, x, **how: xp.max(x, **how),
    "min": lambda xp, x, **how: xp.min(x, **how),
}
SUBSCRIPTS = {
    1: ["i,i->i", "i,j->ij", "i,i->"],
    2: ["ij,kj->ik", "ij,ik->jk", "ij,ij->j", "ij,ik->ijk"],
    3: ["ijk,ijl->ikl", "ijk,ilk->ijl", "ijk,ijk->ki", "ijk,ilm->jm"],
    4: ["ijkl,ijkm->ilm", "ijkl,ijkl->lj", "ijkl,imkl->jm"],
}


def arrays(shape: Shape) -> bool:
    return len(shape) >= 1 and math.prod(shape) <= LARGEST


def small(shape: Shape) -> bool:
    return 1 <= len(shape) <= 4 and math.prod(shape) <= LARGEST // 4


def matrices(shape: Shape) -> bool:
    return features(shape) and shape[-2] <= 8


OF_ARRAYS: dict[str, tuple] = {
    "smooth": (choices(function=sorted(SMOOTH)), lambda xp, x, function: SMOOTH[function](xp, x)),
    "kinked": (choices(function=sorted(KINKED)), lambda xp, x, function: KINKED[function](xp, x)),
    "squeeze": (none, lambda xp, x: xp.squeeze(x)),
    "binary": (
        broadcasts,
        lambda xp, x, w, function, shape: BINARY[function](xp, x, w),
        lambda shape, options: options["shape"],
    ),
    "reduce": (
        choices(function=sorted(REDUCTIONS), axis=some_axes, keepdims=[True, False]),
        lambda xp, x, function, **how: REDUCTIONS[function](xp, x, **how),
    ),
    "cumsum": (choices(axis=axes), lambda xp, x, axis: bounded(xp, xp.cumsum(x, axis=axis))),
    "cumprod": (choices(axis=axes), lambda xp, x, axis: xp.cumprod(1.2 * xp.sin(x), axis=axis)),
    "sort": (choices(axis=axes), lambda xp, x, axis: xp.sort(x, axis)),
    "reshape": (choices(shape=shapes), lambda xp, x, shape: xp.reshape(x, shape)),
    "transpose": (permutations, lambda xp, x, axes: xp.transpose(x, axes)),
    "swapaxes": (choices(a=axes, b=axes), lambda xp, x, a, b: xp.swapaxes(x, a, b)),
    "moveaxis": (choices(a=axes, b=axes), lambda xp, x, a, b: xp.moveaxis(x, a, b)),
    "slice": (slices, lambda xp, x, key: x[key]),
    "take": (takes, lambda xp, x, indices, axis: xp.take(x, np.array(indices), axis)),
    "flip": (choices(axis=some_axes), lambda xp, x, axis: xp.flip(x, axis)),
    "roll": (
        choices(shift=[1, -2, 5], axis=[None, 0, -1]),
        lambda xp, x, shift, axis: xp.roll(x, shift, axis),
    ),
    "matmul": (
        choices(features=[1, 2, 4]),
        lambda xp, x, w, features: x @ w / math.sqrt(len(w)),
        lambda shape, options: (shape[-1], options["features"]),
    ),
    "tensordot": (
        choices(features=[1, 3]),
        lambda xp, x, w, features: xp.tensordot(x, w, axes=([0], [1])) / math.sqrt(w.shape[1]),
        lambda shape, options: (options["features"], shape[0]),
    ),
}
OF_SMALL_ARRAYS: dict[str, tuple] = {
    "repeat": (choices(n=[2, 3], axis=axes), lambda xp, x, n, axis: xp.repeat(x, n, axis)),
    "tile": (choices(reps=[2, (2, 1), (1, 3)]), lambda xp, x, reps: xp.tile(x, reps)),
    "pad": (pads, lambda xp, x, widths, mode: xp.pad(x, widths, mode=mode)),
    "concatenate": (
        choices(axis=axes),
        lambda xp, x, axis: xp.concatenate([x, xp.sin(x), xp.flip(x, axis)], axis),
    ),
    "diff": (
        choices(axis=axes),
        lambda xp, x, axis: xp.diff(xp.concatenate([x, x * x / 2.0], axis=axis), axis=axis),
    ),
    "stack": (choices(axis=axes), lambda xp, x, axis: xp.stack([xp.cos(x), x], axis)),
    "expand_dims": (choices(axis=axes), lambda xp, x, axis: xp.expand_dims(x, axis)),
    "einsum": (
        choices(subscripts=lambda shape: SUBSCRIPTS[len(shape)]),
        lambda xp, x, subscripts: bounded(xp, xp.einsum(subscripts, x, xp.cos(x))),
    ),
}
OF_MATRICES: dict[str, tuple] = {
    "tril": (choices(k=[0, -1, 1]), lambda xp, x, k: xp.tril(x, k)),
    "triu": (choices(k=[0, -1, 1]), lambda xp, x, k: xp.triu(x, k)),
    "diagonal": (none, lambda xp, x: xp.diagonal(x)),
    "trace": (none, lambda xp, x: xp.trace(x, axis1=-2, axis2=-1)),
    "matmul from the left": (
        choices(features=[1, 2, 4]),
        lambda xp, x, w, features: w @ x / math.sqrt(w.shape[-1]),
        lambda shape, options: (options["features"], shape[-2]),
    ),
    "gram": (none, lambda xp, x: bounded(xp, gram(xp, x))),
    "solve": (none, lambda xp, x: xp.linalg.solve(gram(xp, x), x)),
    "inv": (none, lambda xp, x: xp.linalg.inv(gram(xp, x))),
    "cholesky": (none, lambda xp, x: bounded(xp, xp.linalg.cholesky(gram(xp, x)))),
    "logdet": (none, lambda xp, x: xp.linalg.slogdet(gram(xp, x))[1]),
}
OPERATIONS: dict[str, OperationKind] = {
    name: OperationKind(fits, *row)
    for fits, rows in (
        (arrays, OF_ARRAYS),
        (small, OF_SMALL_ARRAYS),
        (matrices, OF_MATRICES),
    )
    for name, row in rows.items()
}
BRANCHES: dict[str, BranchKind] = {
    "plus": BranchKind(lambda xp, x, y: x + y),
    "times": BranchKind(lambda xp, x, y: x * xp.tanh(y)),
    "larger": BranchKind(lambda xp, x, y: xp.maximum(x, y)),
}
KINDS: dict[str, Any] = {**LAYERS, **FOR_IMAGES, **FOR_TOKENS, **OPERATIONS, **BRANCHES}
