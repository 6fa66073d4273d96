"""Random programs: compositions of layers and operations, drawn by hypothesis.

A program is data, and its repr is the Python that makes it again.  Each step is an entry of a
table, with options drawn to fit the array that reaches it; all numbers come from the program's
seed.  Every layer exists twice: as dualnet computes it, and as `dualnet.check.references` writes it
out, which JAX computes; operations take the array module as their first argument.

Entries keep magnitudes at a few units, so that difference quotients have digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from peers import JaxNumpy, pair, sides

from dualnet import Key, nn, tree
from dualnet.check import references

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
        layer: makes the layer of its options.
    """

    fits: Callable[[Shape], bool]
    options: Callable[[Shape], st.SearchStrategy[Options]]
    layer: Callable[..., nn.Layer]

    def piece(self, options: Options, shape: Shape, key: Key) -> Piece:
        layer = self.layer(**options)
        params, state, out_shape = layer.init(key, shape[1:])
        context = nn.Context(train=True, key=key.fold_in("context"))

        def moved(path: str, p: np.ndarray) -> np.ndarray:  # biases off 0, gains off 1
            return p + 0.2 * normal(key.fold_in(path), p.shape)

        return Piece(
            lambda params, x: layer.apply(params, state, x, context)[0],
            lambda jax, params, x: references.apply(layer, JaxNumpy(jax), params, None, x),
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


def sequence(steps: tuple[Step, ...]) -> nn.Layer:
    layers = [KINDS[step.name].layer(**step.options) for step in steps]
    return nn.Sequential(tuple((str(i), layer) for i, layer in enumerate(layers)))


def residual(**steps: tuple[Step, ...]) -> nn.Layer:
    return nn.Residual(tuple((name, sequence(inner)) for name, inner in steps.items()))


def token_mixing(mix: tuple[Step, ...]) -> nn.Layer:
    return nn.TokenMixing((("mix", sequence(mix)),))


def kinds(rows: list[tuple]) -> dict[str, LayerKind]:
    return {row[-1].__name__: LayerKind(*row) for row in rows}


LINEAR = choices(features=[1, 2, 3, 5], bias=[True, False])
FUNCTION = choices(function=sorted(nn.ACTIVATIONS))
HEADS = choices(heads=lambda shape: dividers(shape[-1]))
INDEX = choices(index=lambda shape: range(-shape[1], shape[1]))
SIZE = choices(size=[1, 2, (1, 2), (3, 1), (2, 3)])

LAYERS = kinds(
    [
        (features, LINEAR, nn.Linear),
        (features, grouped_linears, nn.GroupedLinear),
        (features, FUNCTION, activation),
        (features, layer_norms, nn.LayerNorm),
        (features, group_norms, nn.GroupNorm),
        (batches, choices(**GAINS), nn.BatchNorm),
        (features, none, nn.Flatten),
        (features, choices(features=[2]), nn.LocalHead),
        (features, residuals, residual),
    ]
)
FOR_IMAGES = kinds(
    [
        (images, convolutions, nn.Conv2d),
        (images, pools, nn.MaxPool),
        (images, pools, nn.AveragePool),
        (images, SIZE, nn.AdaptiveAveragePool),
        (images, patches, nn.Patches),
    ]
)
FOR_TOKENS = kinds(
    [
        (tokens, none, nn.ClassToken),
        (tokens, none, nn.Positions),
        (tokens, INDEX, nn.SelectToken),
        (tokens, none, nn.AverageTokens),
        (tokens, HEADS, nn.MultiHeadAttention),
        (tokens, mixings, token_mixing),
        (tokens, mixer_blocks, nn.mixer_block),
        (tokens, mlp_mixer_blocks, nn.mlp_mixer_block),
        (tokens, transformer_blocks, nn.transformer_block),
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
    "softmax": (
        choices(axis=axes),
        lambda xp, x, axis: nn.softmax(x, axis) if xp is np else references.softmax(xp, x, axis),
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
    for fits, rows in ((arrays, OF_ARRAYS), (small, OF_SMALL_ARRAYS), (matrices, OF_MATRICES))
    for name, row in rows.items()
}
BRANCHES: dict[str, BranchKind] = {
    "plus": BranchKind(lambda xp, x, y: x + y),
    "times": BranchKind(lambda xp, x, y: x * xp.tanh(y)),
    "larger": BranchKind(lambda xp, x, y: xp.maximum(x, y)),
}
KINDS: dict[str, Any] = {**LAYERS, **FOR_IMAGES, **FOR_TOKENS, **OPERATIONS, **BRANCHES}
