"""Layers one by one: shapes, derivatives, formulas, dtypes, and what they say of bad arguments."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import dualnet as dn
from dualnet import tree
from dualnet.backends import NumpyBackend
from dualnet.errors import UsageError
from dualnet.nn import (
    Activation,
    AverageTokens,
    BatchNorm,
    ClassToken,
    Context,
    Dropout,
    Flatten,
    GroupedLinear,
    GroupNorm,
    LayerNorm,
    Linear,
    LocalHead,
    MultiHeadAttention,
    Patches,
    Positions,
    Residual,
    SelectToken,
    Sequential,
    StopGradient,
    TokenMixing,
    couples_examples,
    mixer_block,
    mlp_mixer_block,
    normalization_kernels,
    normalize,
    relu,
    softmax,
    transformer_block,
    walk,
)

BACKEND = NumpyBackend()


@dataclass(frozen=True)
class Case:
    """A layer, the shape of an example, and what comes out."""

    layer: Any
    in_shape: tuple
    out_shape: tuple
    order: int = 2

    def start(self, key, rng, dtype=np.float64):
        """Parameters away from zeros and ones, the state, and a batch of three."""
        params, state, shape = self.layer.init(key, self.in_shape)
        assert shape == self.out_shape
        assert {a.dtype for a in tree.leaves((params, state))} <= {np.dtype(np.float32)}
        params = tree.map(lambda p: (p + 0.3 * rng.standard_normal(p.shape)).astype(dtype), params)
        state = tree.map(lambda s: s.astype(dtype), state)
        return params, state, rng.standard_normal((3, *self.in_shape)).astype(dtype)


# Epsilons are large, or channels many, where the difference quotients would be rough otherwise.
LAYERS = {
    "Linear": Case(Linear(4), (5,), (4,)),
    "Linear, more axes": Case(Linear(4), (2, 3, 5), (2, 3, 4)),
    "Linear, as many": Case(Linear(None, bias=False), (2, 3), (2, 3)),
    "GroupedLinear": Case(GroupedLinear(4, 2), (6,), (4,)),
    "GroupedLinear, more axes": Case(GroupedLinear(6, 3, bias=False), (2, 3), (2, 6)),
    "Flatten": Case(Flatten(), (2, 3, 4), (24,)),
    "LayerNorm": Case(LayerNorm(epsilon=0.1), (2, 5), (2, 5)),
    "LayerNorm, axes": Case(LayerNorm((-2, -1), epsilon=0.1), (2, 3, 4), (2, 3, 4)),
    "LayerNorm, first axis": Case(LayerNorm((-3,), epsilon=0.1), (4, 3, 2), (4, 3, 2)),
    "LayerNorm, apart": Case(LayerNorm((-1, -3), epsilon=0.1), (2, 3, 4), (2, 3, 4)),
    "LayerNorm, groups": Case(LayerNorm((-1,), 2, epsilon=0.1), (2, 6), (2, 6)),
    "LayerNorm, axes, groups": Case(LayerNorm((-3, -1), 2, epsilon=0.1), (2, 3, 4), (2, 3, 4)),
    "LayerNorm, bare": Case(LayerNorm(gain=False, bias=False, epsilon=0.1), (5,), (5,)),
    "GroupNorm": Case(GroupNorm(2, epsilon=0.1), (2, 3, 4), (2, 3, 4)),
    "GroupNorm, no positions": Case(GroupNorm(2, bias=False, epsilon=0.1), (6,), (6,)),
    "BatchNorm": Case(BatchNorm(epsilon=0.1), (4,), (4,)),
    "BatchNorm, images": Case(BatchNorm(gain=False, epsilon=0.1), (2, 3, 4), (2, 3, 4)),
    "Dropout": Case(Dropout(0.4), (2, 5), (2, 5)),
    "Residual": Case(Residual((("block", Linear(5)),)), (5,), (5,)),
    "Residual, shortcut": Case(
        Residual((("block", Linear(4)), ("shortcut", Linear(4, bias=False)))), (5,), (4,)
    ),
    "TokenMixing": Case(TokenMixing((("mix", Linear(2)),)), (3, 4), (2, 4)),
    "Patches": Case(Patches((2, 1)), (4, 3, 2), (6, 4)),
    "ClassToken": Case(ClassToken(), (3, 4), (4, 4)),
    "Positions": Case(Positions(), (3, 4), (3, 4)),
    "SelectToken": Case(SelectToken(-1), (3, 4), (4,)),
    "AverageTokens": Case(AverageTokens(), (3, 4), (4,)),
    "MultiHeadAttention": Case(MultiHeadAttention(2), (3, 4), (3, 4)),
    "LocalHead": Case(LocalHead(3), (2, 2, 4), (2, 2, 4)),
    "mlp_mixer_block": Case(mlp_mixer_block(5, 16, 8, 8), (5, 16), (5, 16)),
    "transformer_block": Case(transformer_block(16, 2, 8), (3, 16), (3, 16)),
    "softmax": Case(Activation(softmax), (2, 5), (2, 5)),
}
every_layer = pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())


def training(key):
    return Context(train=True, key=key)


@every_layer
@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_derivatives_of_layers(case, train, key, rng):
    params, state, x = case.start(key, rng)
    context = Context(train=train, key=key)

    def f(p, x):
        y, new_state = case.layer.apply(p, state, x, context)
        assert tree.describe(new_state) == tree.describe(state)
        return y

    assert f(params, x).shape == (3, *case.out_shape)
    dn.check_jvp(f, (params, x), order=case.order, key=key, tolerance=1e-6)
    dn.check_vjp(f, (params, x), key=key)


@every_layer
def test_every_layer_keeps_float32(case, key, rng):
    params, state, x = case.start(key, rng, np.float32)

    def f(p, x):
        return case.layer.apply(p, state, x, training(key))

    y, new_state = f(params, x)
    (out, pushed), pull = (
        dn.jvp(lambda p, x: f(p, x)[0], (params, x), tree.map(np.ones_like, (params, x))),
        dn.vjp(lambda p, x: f(p, x)[0], params, x)[1],
    )
    arrays = tree.leaves((y, new_state, out, pushed, pull(np.ones_like(y))))
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}


@every_layer
def test_nothing_passed_in_is_changed(case, key, rng):
    params, state, x = case.start(key, rng)
    before = tree.map(np.copy, (params, state, x))
    dn.grad(lambda p, x: case.layer.apply(p, state, x, training(key))[0].sum(), (0, 1))(params, x)
    for a, b in zip(tree.leaves(before), tree.leaves((params, state, x)), strict=True):
        assert np.array_equal(a, b)


@every_layer
def test_a_backward_pass_of_a_forward_pass(case, key, rng):
    """The gradient of v·∂y/∂x, and the same by the forward derivative of the gradient."""
    params, state, x = case.start(key, rng)
    v, u = rng.standard_normal((2, *x.shape))

    def total(x):
        return np.tanh(case.layer.apply(params, state, x, training(key))[0]).sum()

    outside = dn.grad(lambda x: dn.jvp(total, (x,), (v,))[1])(x)
    inside = dn.jvp(dn.grad(total), (x,), (v,))[1]
    scale = np.abs(inside).max() or 1
    assert np.abs(outside - inside).max() < 1e-10 * scale
    assert math.isclose(
        np.vdot(outside, u), np.vdot(dn.hvp(total, (x,), (u,))[0], v), abs_tol=1e-9 * scale
    )


def output(layer, params, x, context=None, state=None):
    return layer.apply(params, state or {}, x, context or Context())[0]


# --- softmax -----------------------------------------------------------------------------------


def test_softmax_equals_its_formula(rng):
    x = rng.standard_normal((2, 3, 4))
    for axis in (-1, 1, 0):
        e = np.exp(x)
        assert np.allclose(softmax(x, axis), e / e.sum(axis, keepdims=True), rtol=1e-13)
        dn.check_jvp(lambda v, axis=axis: softmax(v, axis), (x,), order=2)
        dn.check_vjp(lambda v, axis=axis: softmax(v, axis), (x,))


def test_softmax_does_not_overflow():
    x = np.array([[1e4, 0, -1e4], [1e30, 1e30, -1e30]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        value, slope = dn.jvp(softmax, (x,), (np.ones_like(x),))
    assert value.tolist() == [[1, 0, 0], [0.5, 0.5, 0]] and not slope.any()


# --- linear maps -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6)])
def test_grouped_linear_is_a_linear_map_for_each_group(shape, key, rng):
    layer = GroupedLinear(9, 3)
    params, _, _ = layer.init(key, shape)
    x = rng.standard_normal((4, *shape))
    for g in range(3):
        y = output(layer, params, x)[..., 3 * g : 3 * g + 3]
        expected = x[..., 2 * g : 2 * g + 2] @ params["w"][g]
        assert np.allclose(y, expected + params["b"][3 * g : 3 * g + 3], rtol=1e-12)


@pytest.mark.parametrize("layer", [Linear(6), GroupedLinear(6, 2)], ids=["Linear", "Grouped"])
@pytest.mark.parametrize("in_shape", [(4,), (3, 4)])
def test_rank_one_tangents_of_weights_equal_dense_ones(layer, in_shape, key, rng):
    params, _, _ = layer.init(key, in_shape)
    params = tree.map(lambda p: p.astype(np.float64), params)
    x = rng.standard_normal((5, *in_shape))
    *stack, p, q = params["w"].shape
    t = dn.RankOne(rng.standard_normal((7, *stack, p)), rng.standard_normal((7, *stack, q)))

    def f(w):
        return np.tanh(output(layer, params | {"w": w}, x))

    _, short = dn.jvp(f, (params["w"],), (t,))
    _, long = dn.jvp(f, (params["w"],), (t.dense(),))
    assert np.allclose(short, long, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("weights", "deviation"),
    [("scaled-normal", 2 / math.sqrt(800)), ("kaiming", math.sqrt(2 / 800)), ("zeros", 0.0)],
)
def test_weights_start_as_named(weights, deviation, key):
    params, _, _ = Linear(300, weights=weights).init(key, (800,))
    # 6 standard errors of a deviation estimated from n values, for a normal distribution
    error = 6 * deviation / math.sqrt(2 * params["w"].size)
    assert abs(params["w"].std(dtype=np.float64) - deviation) <= error
    narrow = GroupedLinear(400, 20, weights=weights).init(key, (400,))[0]["w"]
    if weights == "scaled-normal":  # 2 / sqrt(20) is more than the limit
        assert abs(narrow.std() - 0.1) < 6 * 0.1 / math.sqrt(2 * narrow.size)


# --- normalization -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axes", [(-1,), (-2,), (-3,), (0,), (0, 1), (-2, -1), (-4, -3, -2), (-3, -1), (-4, -2), (0, -1)]
)
@pytest.mark.parametrize("block", [1, 200, 1 << 20], ids="block of {} bytes".format)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 1, 5, 6), (7, 128, 2, 3)], ids=str)
def test_normalize_equals_its_formula_in_blocks_of_any_size(shape, axes, block, rng, monkeypatch):
    monkeypatch.setattr(normalization_kernels, "_BLOCK_BYTES", block)
    x, t = rng.standard_normal(shape) + 2, rng.standard_normal((4, *shape))
    y, pushed = dn.jvp(lambda x: normalize(x, axes, 0.1), (x,), (t,))

    def mean(v):
        return v.mean(tuple(a % 4 - 4 for a in axes), keepdims=True)

    s = 1 / np.sqrt(mean((x - mean(x)) ** 2) + 0.1)
    expected = (x - mean(x)) * s
    assert np.allclose(y, expected, atol=1e-13)
    assert np.allclose(pushed, s * (t - mean(t) - expected * mean(expected * t)), atol=1e-12)
    assert y.flags.c_contiguous or len(axes) > 1
    for got, of_numpy in zip(
        normalization_kernels.moments(x, tuple(sorted(a % 4 - 4 for a in axes))),
        (x.mean(axes), x.var(axes)),
        strict=True,
    ):
        assert np.allclose(got, of_numpy, rtol=1e-12)


@pytest.mark.parametrize("axes", [(-1,), (0,), (-3, -2), (0, 1)], ids="over {}".format)
@pytest.mark.parametrize("offset", [0, 3])
def test_normalize_loses_no_digits_in_float32(axes, offset, rng):
    x = (rng.standard_normal((200, 100, 16)) + offset).astype(np.float32)
    t = rng.standard_normal(x.shape).astype(np.float32)
    single = dn.jvp(lambda x: normalize(x, axes), (x,), (t,))
    double = dn.jvp(lambda x: normalize(x, axes), (x.astype(float),), (t.astype(float),))
    for a, b in zip(single, double, strict=True):
        assert a.dtype == np.float32 and np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_entries_become_zero_and_not_nan(dtype):
    x, t = np.full((2, 4), 3.0, dtype), np.arange(8, dtype=dtype).reshape(2, 4)
    with np.errstate(all="raise"):
        y, pushed = dn.jvp(lambda x: normalize(x, (-1,)), (x,), (t,))
        (pulled,) = dn.vjp(lambda x: normalize(x, (-1,)), x)[1](t)
    expected = (t - t.mean(-1, keepdims=True)) / math.sqrt(1e-5)
    assert not y.any()
    assert np.allclose(pushed, expected, rtol=1e-6) and np.allclose(pulled, expected, rtol=1e-6)


def test_normalizing_nothing_gives_nothing():
    for shape, axes in [((0, 3), (-1,)), ((0, 3), (0,)), ((2, 0, 3), (-1,))]:
        assert normalize(np.zeros(shape), axes).shape == shape


def test_gain_and_bias_have_the_shape_of_the_normalized_axes(key):
    for axes, shape in [((-1,), (4,)), ((-1, -3), (2, 4)), ((-2,), (3,))]:
        params, _, _ = LayerNorm(axes).init(key, (2, 3, 4))
        assert params["gain"].shape == params["bias"].shape == shape
        assert np.all(params["gain"] == 1) and not params["bias"].any()


def test_layer_norm_over_groups_is_layer_norm_of_each(key, rng):
    layer = LayerNorm((-3, -1), groups=2)
    params, _, _ = layer.init(key, (5, 3, 4))
    params = tree.map(lambda p: rng.standard_normal(p.shape), params)
    assert params["gain"].shape == (5, 4)
    x = rng.standard_normal((2, 5, 3, 4))
    y = output(layer, params, x)
    for part in (slice(0, 2), slice(2, 4)):
        mine = x[..., part]
        expected = normalize(mine, (-3, -1)) * params["gain"][:, None, part]
        assert np.allclose(y[..., part], expected + params["bias"][:, None, part])


def test_the_state_of_batch_norm_has_no_tangents(key, rng):
    layer = BatchNorm()
    params, state, _ = layer.init(key, (4,))
    seen = []

    def f(x):
        y, new_state = layer.apply(params, state, x, training(key))
        seen.extend(tree.leaves(new_state))
        return y

    x = rng.standard_normal((5, 4))
    dn.grad(lambda x: dn.jvp(f, (x,), (x,))[1].sum())(x)
    assert [type(a) for a in seen] == [np.ndarray] * 2


def test_a_network_says_whether_it_couples_examples():
    inner = Residual((("block", Sequential((("a", Linear(3)), ("b", BatchNorm())))),))
    assert couples_examples(Sequential((("first", Linear(3)), ("inner", inner))))
    assert not couples_examples(mixer_block(4, 6, 2)) and not couples_examples(Linear(2))


@dataclass(frozen=True)
class Together(Sequential):
    """A container that itself mixes examples."""

    layers: tuple
    couples_examples = True


def test_a_container_may_couple_examples_too():
    assert couples_examples(Sequential((("t", Together((("a", Linear(3)),))),)))


# --- stop-gradient, dropout ------------------------------------------------------------------


def test_stop_gradient_lets_nothing_through(rng):
    x = rng.standard_normal((3, 4))

    def f(x):
        return x * output(StopGradient(), {}, x)

    ones = np.ones_like(x)
    assert np.array_equal(output(StopGradient(), {}, x), x)
    assert np.array_equal(dn.jvp(f, (x,), (ones,))[1], x)  # and not 2 x
    assert np.array_equal(dn.vjp(f, x)[1](ones)[0], x)
    assert not dn.jvp(dn.grad(lambda x: f(x).sum()), (x,), (ones,))[1].any()
    assert not dn.vjp(lambda x: output(StopGradient(), {}, x), x)[1](ones)[0].any()


def test_dropout_scales_what_it_keeps_and_keeps_its_share(key):
    x, rate = np.full((200, 300), 3.0, np.float32), 0.3
    y = output(Dropout(rate), {}, x, training(key))
    kept = y != 0
    assert np.allclose(y[kept], 3 / 0.7)
    error = 6 * math.sqrt(rate * (1 - rate) / x.size)  # 6 standard errors of a share
    assert abs(kept.mean() - (1 - rate)) < error
    assert not np.array_equal(kept, output(Dropout(rate), {}, x, training(key.fold_in("b"))) != 0)


def test_dropout_is_the_identity_in_evaluation_and_at_rate_zero(key, rng):
    x = rng.standard_normal((3, 4))
    assert output(Dropout(0.5), {}, x, Context(key=key)) is x
    assert output(Dropout(0.0), {}, x, Context(train=True)) is x


def test_all_tangents_and_shards_see_one_mask(key, rng):
    x, t = np.ones((7, 5, 3)), rng.standard_normal((4, 7, 5, 3))

    def f(x, start=0):
        return output(Dropout(0.5), {}, x, replace(training(key), start=start))

    y, pushed = dn.jvp(f, (x,), (t,))
    assert np.array_equal(pushed, t * y)
    shards = np.concatenate([f(x[a:b], a) for a, b in [(0, 2), (2, 3), (3, 7)]])
    assert np.array_equal(shards, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_draws_are_parts_of_one_sequence(dtype, key):
    whole = BACKEND.uniform(key, (200_000,), dtype)
    assert whole.dtype == dtype and 0 <= whole.min() and whole.max() < 1
    for start, stop in [(0, 10), (3, 4), (65_530, 65_540), (65_536, 131_073), (7, 199_999)]:
        part = BACKEND.uniform(key, (stop - start,), dtype, start)
        assert np.array_equal(part, whole[start:stop])
    n = whole.size
    assert abs(whole.mean(dtype=float) - 1 / 2) < 6 * math.sqrt(1 / 12 / n)
    assert abs(np.square(whole, dtype=float).mean() - 1 / 3) < 6 * math.sqrt(4 / 45 / n)


# --- tokens, attention, heads ------------------------------------------------------------------


def test_patches_are_the_pixels_of_a_window(rng):
    x = rng.standard_normal((2, 6, 4, 3))
    y = output(Patches((3, 2)), {}, x)
    assert y.shape == (2, 4, 18)
    for p, (i, j) in enumerate([(0, 0), (0, 2), (3, 0), (3, 2)]):
        assert np.array_equal(y[:, p], x[:, i : i + 3, j : j + 2].reshape(2, 18))


def test_class_token_and_positions(key, rng):
    x = rng.standard_normal((2, 3, 4))
    (token, _, _), (positions, _, _) = ClassToken().init(key, (3, 4)), Positions().init(key, (3, 4))
    with_token = output(ClassToken(), token, x)
    assert np.array_equal(with_token[:, 1:], x)
    assert np.array_equal(with_token[:, 0], np.tile(token["token"], (2, 1)))
    assert np.array_equal(output(SelectToken(), {}, with_token), with_token[:, 0])
    assert np.array_equal(output(Positions(), positions, x), x + positions["positions"])
    assert np.allclose(output(AverageTokens(), {}, x), x.mean(1))
    (many, _, _) = Positions().init(key, (100, 200))
    assert abs(many["positions"].std() - 0.02) < 6 * 0.02 / math.sqrt(2 * 20_000)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4)])
def test_a_local_head_is_seen_by_the_tap_alone(shape, key, rng):
    network = Sequential((("head", LocalHead(3)),))
    params, state, out_shape = network.init(key, shape)
    assert out_shape == shape and not np.any(params["head"]["linear"]["w"])
    params = tree.map(lambda p: rng.standard_normal(p.shape), params)
    x, seen = rng.standard_normal((2, *shape)), {}

    def tap(path, y):
        seen[path] = y
        return y

    y, _ = network.apply(params, state, x, Context(tap=tap))
    assert y is x and list(seen) == ["head/linear", "head"]
    linear = params["head"]["linear"]
    features = x.reshape(2, -1, 4).mean(1)
    assert np.allclose(seen["head/linear"], features @ linear["w"] + linear["b"])
    gradients = dn.grad(lambda p: network.apply(p, state, x, Context())[0].sum())(params)
    assert not any(np.any(g) for g in tree.leaves(gradients))


# --- blocks ------------------------------------------------------------------------------------


def test_mixer_block_equals_its_formula(key, rng):
    network = mixer_block(3, 6, 2)
    params, state, shape = network.init(key, (3, 6))
    assert shape == (3, 6)
    params = tree.map(lambda p: rng.standard_normal(p.shape), params)
    x = rng.standard_normal((2, 3, 6))
    inner = params["residual"]["block"]
    tokens, channels = inner["tokens"]["mix"]["linear"], inner["channels"]["linear"]
    groups = inner["groups"]["linear"]

    def norm(v):
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)

    z = np.swapaxes(x, 1, 2)
    z = np.maximum(norm(norm(z) @ tokens["w"] + tokens["b"]), 0)
    z = np.swapaxes(z, 1, 2)
    z = np.maximum(norm(norm(z) @ channels["w"] + channels["b"]), 0)
    z = norm(z.reshape(2, 3, 2, 3))
    z = norm(np.einsum("npgc,gcd->npgd", z, groups["w"]) + groups["b"].reshape(2, 3))
    expected = np.maximum(z.reshape(2, 3, 6) + x, 0)
    assert np.allclose(output(network, params, x, state=state), expected, atol=1e-12)
    assert {leaf.weights for _, leaf in walk(network) if hasattr(leaf, "weights")} == {
        "scaled-normal"
    }


def test_mixer_and_transformer_blocks_equal_their_formulas(key, rng):
    x = rng.standard_normal((2, 3, 4))

    def drawn(network):
        params, state, _ = network.init(key, (3, 4))
        return tree.map(lambda p: rng.standard_normal(p.shape), params), state

    def norm(v, p):
        return normalize(v, (-1,)) * p["gain"] + p["bias"]

    def mlp(v, p):
        z = v @ p["in"]["w"] + p["in"]["b"]
        z = 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return z @ p["out"]["w"] + p["out"]["b"]

    mixer = mlp_mixer_block(3, 4, 5, 6)
    params, state = drawn(mixer)
    first, second = params["tokens"]["block"], params["channels"]["block"]
    y = x + np.swapaxes(mlp(np.swapaxes(norm(x, first["norm"]), 1, 2), first["mlp"]["mix"]), 1, 2)
    y = y + mlp(norm(y, second["norm"]), second)
    assert np.allclose(output(mixer, params, x, state=state), y)

    transformer = transformer_block(4, 2, 6)
    params, state = drawn(transformer)
    first, second = params["attention"]["block"], params["mlp"]["block"]
    attention = MultiHeadAttention(2)
    y = x + output(
        attention,
        first["attention"],
        norm(x, first["norm"]),
        state=attention.init(key, (3, 4))[1],
    )
    y = y + mlp(norm(y, second["norm"]), second)
    assert np.allclose(output(transformer, params, x, state=state), y)


def local_mixer(patch, tokens, channels, groups, blocks, classes=10):
    """The network of Ren et al. 2023 from the parts of dualnet.nn."""

    def norm(groups=1):
        return LayerNorm(groups=groups, gain=False, bias=False)

    layers = [
        ("patches", Patches(patch)),
        ("embed", Linear(channels, weights="scaled-normal")),
        ("embed_norm", norm()),
        ("embed_relu", Activation(relu)),
        ("groups", GroupedLinear(channels, groups, weights="scaled-normal")),
        ("groups_norm", norm(groups)),
        ("groups_relu", Activation(relu)),
        ("head0", LocalHead(classes)),
    ]
    for b in range(1, blocks):
        layers.append((f"block{b}", mixer_block(tokens, channels, groups)))
        layers.append((f"head{b}", LocalHead(classes)))
    layers += [
        ("average", AverageTokens()),
        ("stop", StopGradient()),
        ("output", Linear(classes, weights="zeros")),
    ]
    return Sequential(tuple(layers))


@pytest.mark.parametrize(
    ("name", "network", "in_shape", "count"),
    [
        ("S/1/1", local_mixer(28, 1, 256, 1, 1), (28, 28, 1), 271_892),
        ("M/1/16", local_mixer(28, 1, 512, 16, 1), (28, 28, 1), 429_076),
        ("M/8/16", local_mixer(4, 64, 512, 16, 4), (32, 32, 3), 918_770),
        ("L/8/64", local_mixer(4, 64, 2048, 64, 4), (32, 32, 3), 13_074_674),
    ],
)
def test_local_mixers_have_the_parameters_that_the_paper_states(
    name, network, in_shape, count, key
):
    params, _, out_shape = network.init(key, in_shape)
    assert tree.size(params) == count and out_shape == (10,)


# --- what bad arguments say --------------------------------------------------------------------

ONE = np.zeros((1, 4), np.float32)
BAD = {
    "features": (lambda: Linear(0), "Linear: features must be an int of at least 1, got 0"),
    "weights": (
        lambda: Linear(3, weights="random").init(dn.Key(0), (2,)),
        "weights must be one of kaiming, zeros, scaled-normal, got 'random'",
    ),
    "groups": (lambda: GroupedLinear(5, 2), r"divide features, got 2 groups and 5 features"),
    "groups in": (
        lambda: GroupedLinear(4, 2).init(dn.Key(0), (3,)),
        r"GroupedLinear: groups must divide the inputs, got 2 groups and examples of shape \(3,\)",
    ),
    "groups apply": (
        lambda: output(GroupedLinear(4, 2), {"w": np.zeros((2, 3, 2))}, ONE),
        r"weights \(2, 3, 2\) expect inputs \(\.\.\., 6\), got \(1, 4\)",
    ),
    "no features": (lambda: GroupedLinear(4, 2).init(dn.Key(0), ()), "examples of shape \\(\\)"),
    "rate": (lambda: Dropout(1.0), r"Dropout: rate must be a number in \[0, 1\), got 1.0"),
    "rate nan": (lambda: Dropout(math.nan), r"in \[0, 1\), got nan"),
    "key": (
        lambda: output(Dropout(0.5), {}, ONE, Context(train=True)),
        r"^Dropout: training needs a key for the mask, got none; use Context\(train=True, key=",
    ),
    "axes": (
        lambda: LayerNorm((1,)),
        r"different negative axes of an example, such as \(-1,\), got \(1,\)",
    ),
    "axes twice": (lambda: LayerNorm((-1, -1)), r"different negative axes"),
    "axes missing": (
        lambda: LayerNorm((-3,)).init(dn.Key(0), (2, 4)),
        r"LayerNorm: axes \(-3,\) do not exist in examples of shape \(2, 4\)",
    ),
    "norm groups": (
        lambda: LayerNorm((-2,), groups=2),
        r"groups are parts of axis -1, got 2 groups and axes \(-2,\)",
    ),
    "norm channels": (
        lambda: GroupNorm(3).init(dn.Key(0), (2, 4)),
        r"GroupNorm: groups must divide the last axis, got 3 groups and examples of shape \(2, 4\)",
    ),
    "norm groups 0": (
        lambda: GroupNorm(0),
        "GroupNorm: groups must be an int of at least 1, got 0",
    ),
    "epsilon": (lambda: LayerNorm(epsilon=0.0), "LayerNorm: epsilon must be positive, got 0.0"),
    "momentum": (lambda: BatchNorm(2), r"BatchNorm: momentum must be in \[0, 1\], got 2"),
    "one example": (
        lambda: output(BatchNorm(), {}, ONE, Context(train=True, path="norm")),
        r"BatchNorm norm: training needs at least 2 values .* got inputs \(1, 4\); use a batch",
    ),
    "patches": (
        lambda: Patches(3).init(dn.Key(0), (6, 4, 1)),
        r"divide into patches of 3 by 3, got examples of shape \(6, 4, 1\)",
    ),
    "patch size": (
        lambda: Patches(0),
        r"size must be an int of at least 1, or two \(h, w\), got 0",
    ),
    "images": (lambda: Patches(2).init(dn.Key(0), (6, 4)), r"expected images \(H, W, C\)"),
    "tokens": (lambda: ClassToken().init(dn.Key(0), (6,)), r"examples \(tokens, channels\), got"),
    "token": (lambda: SelectToken(3).init(dn.Key(0), (3, 4)), "no token 3 among 3"),
    "heads": (
        lambda: MultiHeadAttention(3).init(dn.Key(0), (2, 4)),
        r"channels that divide by 3 heads, got shape \(2, 4\)",
    ),
    "heads 0": (lambda: MultiHeadAttention(0), "heads must be an int of at least 1, got 0"),
    "head": (lambda: LocalHead(3).init(dn.Key(0), ()), "LocalHead: needs an axis of channels"),
    "residual": (
        lambda: Residual((("block", Linear(3)),)).init(dn.Key(0), (4,)),
        r"Residual: the block turns \(4,\) into \(3,\), but \(4,\) is to be added to it; change",
    ),
    "names": (
        lambda: Residual((("inner", Linear(3)),)),
        r"Residual: layers must be named \('block',\) or \('block', 'shortcut'\), got \('inner',\)",
    ),
    "features float": (lambda: Linear(2.5), "Linear: features must be an int .* got 2.5"),
    "head features": (lambda: LocalHead("3"), "LocalHead: features must be an int .* got '3'"),
    "groups float": (
        lambda: GroupedLinear(4, 2.0),
        "GroupedLinear: groups must be an int .* got 2.0",
    ),
    "norm groups float": (lambda: GroupNorm(2.0), "GroupNorm: groups must be an int .* got 2.0"),
    "layer norm groups": (lambda: LayerNorm(groups=2.0), "LayerNorm: groups must be an int .* 2.0"),
    "heads float": (lambda: MultiHeadAttention(2.0), "heads must be an int .* got 2.0"),
    "axes int": (lambda: LayerNorm(-1), r"must be a tuple .* such as \(-1,\), got -1"),
    "axes float": (lambda: LayerNorm((-1.0,)), r"different negative axes .* got \(-1.0,\)"),
    "token float": (lambda: SelectToken(0.5), "SelectToken: index must be an int, got 0.5"),
    "rate text": (lambda: Dropout("0.5"), r"a number in \[0, 1\), got '0.5'"),
    "patch text": (lambda: Patches("4"), r"Patches: size must be an int .* got '4'"),
    "patch floats": (lambda: Patches((5.0, 5.0)), r"or two \(h, w\), got \(5.0, 5.0\)"),
    "patch of three": (lambda: Patches((1, 2, 3)), r"or two \(h, w\), got \(1, 2, 3\)"),
    "0 features": (
        lambda: Linear(3).init(dn.Key(0), (0,)),
        r"Linear: needs an axis of features, at least 1, got examples of shape \(0,\)",
    ),
    "0 features, groups": (
        lambda: GroupedLinear(4, 2).init(dn.Key(0), (0,)),
        r"GroupedLinear: needs an axis of features, at least 1, got examples of shape \(0,\)",
    ),
    "0 channels": (
        lambda: MultiHeadAttention(2).init(dn.Key(0), (3, 0)),
        r"MultiHeadAttention: expected examples .* got shape \(3, 0\)",
    ),
    "normalize": (
        lambda: normalize(ONE, (2,)),
        r"normalize: axes must be different axes of x, .* \(1, 4\), got \(2,\)",
    ),
    "normalize twice": (lambda: normalize(ONE, [1, -1]), r"different axes of x, .* got \[1, -1\]"),
    "normalize none": (lambda: normalize(ONE, ()), r"different axes of x, .* got \(\)"),
    "normalize text": (lambda: normalize(ONE, "1"), "different axes of x, .* got '1'"),
    "dropout of ints": (
        lambda: output(Dropout(0.5), {}, ONE.astype(int), training(dn.Key(0))),
        r"^Dropout: expected inputs of float32 or float64, got int64; .* x.astype\(np.float32\)",
    ),
    "dropout of halves": (
        lambda: output(Dropout(0.5), {}, ONE.astype(np.float16), training(dn.Key(0))),
        "float32 or float64, got float16",
    ),
    "mixed": (
        lambda: TokenMixing((("mix", Flatten()),)).init(dn.Key(0), (3, 4)),
        r"must give examples \(channels, tokens\), but turns \(4, 3\) into \(12,\)",
    ),
    "mixing": (
        lambda: TokenMixing((("mix", Linear(3)),)).init(dn.Key(0), (4,)),
        r"TokenMixing: expected examples \(tokens, channels\), got shape \(4,\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_say_what_would_be_right(call, message):
    with pytest.raises(UsageError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def fit(layer, in_shape, x_shape, train):
    """The layer, started for one shape and applied to inputs of another."""
    params, state, _ = layer.init(dn.Key(0), in_shape)
    context = Context(train=train, key=dn.Key(1), path="a/b")
    return layer.apply(params, state, np.zeros(x_shape), context)


MISFITS = {
    "Linear": (Linear(3), (4,), (2, 1), r"weights \(4, 3\) expect inputs \(\.\.\., 4\)"),
    "GroupedLinear": (GroupedLinear(4, 2), (4,), (), r"weights .* expect inputs \(\.\.\., 4\)"),
    "BatchNorm": (BatchNorm(), (5, 5, 4), (2, 5, 5, 1), r"\(4,\) expects .* axes \(-1,\)"),
    "BatchNorm, state": (BatchNorm(gain=False, bias=False), (4,), (2, 1), r"mean \(4,\) expects"),
    "BatchNorm, no batch": (BatchNorm(), (4,), (4,), r"a batch of examples with axes \(-1,\)"),
    "GroupNorm": (GroupNorm(2), (5, 5, 4), (2, 5, 5, 2), r"gain \(4,\) expects .* axes \(-1,\)"),
    "GroupNorm, groups": (GroupNorm(2), (4,), (2, 1), "got 2 groups and inputs"),
    "LayerNorm": (LayerNorm(), (5, 5, 4), (2, 5, 5, 1), r"gain \(4,\) expects .* axes \(-1,\)"),
    "LayerNorm, axes": (
        LayerNorm((-1, -3)),
        (2, 3, 4),
        (2, 2, 3, 1),
        r"gain \(2, 4\) expects .* axes \(-3, -1\)",
    ),
    "LayerNorm, no batch": (LayerNorm((-2,)), (3, 4), (3, 4), "expected a batch of examples"),
    "Patches": (Patches(2), (4, 4, 1), (2, 5, 5, 1), "divide into patches of 2 by 2"),
    "Patches, axes": (Patches(2), (4, 4, 1), (4, 4, 1), r"expected inputs \(N, H, W, C\)"),
    "ClassToken": (ClassToken(), (3, 4), (2, 3, 1), r"expected inputs \(N, T, 4\)"),
    "Positions": (Positions(), (4, 6), (2, 1, 6), r"expected inputs \(N, 4, 6\)"),
    "SelectToken": (SelectToken(2), (3, 4), (2, 2, 4), "no token 2 in inputs"),
    "SelectToken, axes": (SelectToken(), (3, 4), (2, 4), r"expected inputs \(N, T, C\)"),
    "AverageTokens": (AverageTokens(), (3, 4), (2, 4), r"expected inputs \(N, T, C\)"),
    "MultiHeadAttention": (MultiHeadAttention(2), (3, 4), (2, 3, 5), "divide by 2 heads"),
    "MultiHeadAttention, axes": (MultiHeadAttention(2), (3, 4), (2, 4), r"inputs \(N, T, C\)"),
    "TokenMixing": (TokenMixing((("mix", Linear(2)),)), (3, 4), (3, 4), r"inputs \(N, T, C\)"),
}


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", MISFITS)
def test_inputs_of_another_shape_are_not_broadcast(name, train):
    layer, in_shape, x_shape, message = MISFITS[name]
    with pytest.raises(UsageError, match=message) as raised:
        fit(layer, in_shape, x_shape, train)
    text = str(raised.value)
    assert text.startswith(f"{type(layer).__name__} a/b: ") and str(x_shape) in text
    assert "\n" not in text


def test_numpy_ints_and_lists_of_axes_are_taken(rng):
    x = rng.standard_normal((2, 10, 10, 1))
    assert output(Patches(np.int64(5)), {}, x).shape == (2, 4, 25)
    for axes in ([1, 2], (-2, 1), np.array([1, 2])):
        assert np.array_equal(normalize(x, axes), normalize(x, (-3, -2)))
        dn.check_jvp(lambda x, axes=axes: normalize(x, axes, 0.1), (x,))
