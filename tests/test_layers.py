"""Layers: shapes, dtypes, starts, steps of every rule, and what they say of bad arguments.

Their values and derivatives are verified row by row in test_check, and by peers in test_peers.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from learning_problems import BACKEND, flat, problem

import dualnet as dn
from dualnet import tree
from dualnet.check import ROWS, references
from dualnet.errors import UsageError
from dualnet.learning import (
    RULES,
    Task,
    WeightPerturbation,
)
from dualnet.nn import (
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
    normalization_kernels,
    normalize,
    softmax,
    walk,
)

# --- every layer ---------------------------------------------------------------------------------

LAYERS = {row.name: row for row in ROWS if row.layer}
every_layer = pytest.mark.parametrize("row", LAYERS.values(), ids=LAYERS.keys())


@every_layer
def test_every_layer_starts_and_stays_in_float32(row, key, rng):
    (here,) = row.arrays(rng, np.float32)
    params, state, out_shape = row.layer.init(key, here["x"].shape[1:])
    assert tree.describe((params, state)) == tree.describe((here["params"], here["state"]))
    assert {a.dtype for a in tree.leaves((params, state))} <= {np.dtype(np.float32)}

    context = Context(train=row.train, key=key)
    y, new_state = row.layer.apply(here["params"], here["state"], here["x"], context)
    assert y.shape == (len(here["x"]), *out_shape)
    assert tree.describe(new_state) == tree.describe(state)
    assert {a.dtype for a in tree.leaves((y, new_state))} == {np.dtype(np.float32)}


@every_layer
def test_nothing_passed_in_is_changed(row, rng):
    xs = row.arrays(rng)
    before = tree.map(np.copy, xs)
    dn.grad(lambda here: row(here).sum())(*xs)
    for a, b in zip(tree.leaves(before), tree.leaves(xs), strict=True):
        assert np.array_equal(a, b)


WITH_WEIGHTS = {
    name: row
    for name, row in LAYERS.items()
    if any(p.ndim > 1 for p in tree.leaves(row.arrays(np.random.default_rng(0))[0]["params"]))
}


@pytest.mark.parametrize("row", WITH_WEIGHTS.values(), ids=WITH_WEIGHTS.keys())
def test_rank_one_tangents_of_weights_equal_dense_ones(row, key, rng):
    """Also under a rule that draws them, in chunks."""
    (here,) = row.arrays(rng)
    rule = WeightPerturbation(tangents=3, sampler="rank-one")
    task = Task(row.layer, lambda y, _labels: y.reshape(len(y), -1).sum(1))
    sample = rule.sample(key, task, here["params"], BACKEND, len(here["x"]))
    (thin,) = sample.chunks()
    dense = tree.map(lambda t: t.dense() if isinstance(t, dn.RankOne) else t, thin)
    assert any(isinstance(t, dn.RankOne) for t in tree.leaves(thin))
    pushed, expected = (
        dn.jvp(lambda p: np.tanh(row(here | {"params": p})), (here["params"],), (t,))[1]
        for t in (thin, dense)
    )
    np.testing.assert_allclose(pushed, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@every_layer
def test_a_step_of_every_layer_under_every_rule(row, name, key, rng):
    """The layer, then a classifier; and a layer before it, so that something flows back."""
    in_shape = row.arrays(rng)[0]["x"].shape[1:]
    layers = (
        ("before", BatchNorm()),
        ("layer", row.layer),
        ("flatten", Flatten()),
        ("output", Linear(2)),  # as many classes as the local head's
    )
    p = problem(rng, key, *layers, in_shape=in_shape, n=3)
    stops = any(isinstance(x, StopGradient) for _, x in walk(p.task.network))
    if name in ("ap", "wp") and stops:
        with pytest.raises(
            UsageError, match=f"{name}: a difference passes through the stop-gradient"
        ):
            p.step(RULES[name](), key)
        return
    done = p.step(RULES[name](), key)
    assert tree.describe(done.gradients) == tree.describe(p.params)
    assert np.all(np.isfinite(flat(done.gradients)))
    for a, b in zip(tree.leaves(done.model_state), tree.leaves(p.state), strict=True):
        assert np.any(a != b)  # the running statistics


def training(key):
    return Context(train=True, key=key)


def output(layer, params, x, context=None, state=None):
    return layer.apply(params, state or {}, x, context or Context())[0]


# --- softmax -----------------------------------------------------------------------------------


def test_softmax_does_not_overflow():
    x = np.array([[1e4, 0, -1e4], [1e30, 1e30, -1e30]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        value, slope = dn.jvp(softmax, (x,), (np.ones_like(x),))
    assert value.tolist() == [[1, 0, 0], [0.5, 0.5, 0]] and not slope.any()


# --- linear maps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "deviation"),
    [("scaled-normal", 2 / math.sqrt(800)), ("kaiming", math.sqrt(2 / 800)), ("zeros", 0.0)],
)
def test_weights_start_as_named(weights, deviation, key):
    params, _, _ = Linear(300, weights=weights).init(key, (800,))
    # 6 standard errors of a deviation estimated from n values, for a normal distribution
    error = 6 * deviation / math.sqrt(2 * params["w"].size)
    assert abs(params["w"].std(dtype=np.float64) - deviation) <= error
    narrow = GroupedLinear(400, groups=20, weights=weights).init(key, (400,))[0]["w"]
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
    formula = lambda x: references.normalize(np, x, axes, 0.1)  # noqa: E731
    expected, expected_moved = dn.jvp(formula, (x,), (t,))
    assert np.allclose(y, expected, atol=1e-13)
    assert np.allclose(pushed, expected_moved, atol=1e-12)
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
        params, _, _ = LayerNorm(axes=axes).init(key, (2, 3, 4))
        assert params["gain"].shape == params["bias"].shape == shape
        assert np.all(params["gain"] == 1) and not params["bias"].any()


@dataclass(frozen=True)
class Together(Sequential):
    """A container that itself mixes examples."""

    layers: tuple
    couples_examples = True


def test_a_network_says_whether_it_couples_examples():
    inner = Residual((("block", Sequential((("a", Linear(3)), ("b", BatchNorm())))),))
    assert couples_examples(Sequential((("first", Linear(3)), ("inner", inner))))
    assert not couples_examples(
        mixer_block(tokens=4, channels=6, groups=2)
    ) and not couples_examples(Linear(2))
    assert couples_examples(Sequential((("t", Together((("a", Linear(3)),))),)))


# --- stop-gradient, dropout ------------------------------------------------------------------


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


# --- tokens, attention, heads ------------------------------------------------------------------


def test_positions_start_small(key):
    (many, _, _) = Positions().init(key, (100, 200))
    assert abs(many["positions"].std() - 0.02) < 6 * 0.02 / math.sqrt(2 * 20_000)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4)])
def test_a_local_head_is_seen_by_the_tap_alone(shape, key, rng):
    network = Sequential((("head", LocalHead(3)),))
    params, state, out_shape = network.init(key, shape)
    assert out_shape == shape
    assert np.any(params["head"]["linear"]["w"]) and not np.any(params["head"]["linear"]["b"])
    zero, _, _ = LocalHead(3, weights="zeros").init(key, shape)
    assert not np.any(zero["linear"]["w"])
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


# --- what bad arguments say --------------------------------------------------------------------

ONE = np.zeros((1, 4), np.float32)


def start(layer, in_shape):
    return layer.init(dn.Key(0), in_shape)


BAD = [
    (lambda: Linear(0), "Linear: features: expected an int of at least 1, got 0"),
    (
        lambda: start(Linear(3, weights="random"), (2,)),
        "weights: expected one of kaiming, torch, zeros, scaled-normal, got 'random'",
    ),
    (lambda: GroupedLinear(5, groups=2), r"divide features, got 2 groups and 5 features"),
    (
        lambda: start(GroupedLinear(4, groups=2), (3,)),
        r"GroupedLinear: groups must divide the inputs, got 2 groups and examples of shape \(3,\)",
    ),
    (
        lambda: output(GroupedLinear(4, groups=2), {"w": np.zeros((2, 3, 2))}, ONE),
        r"weights \(2, 3, 2\) expect inputs \(\.\.\., 6\), got \(1, 4\)",
    ),
    (lambda: start(GroupedLinear(4, groups=2), ()), "examples of shape \\(\\)"),
    (lambda: Dropout(1.0), r"Dropout: rate must be a number in \[0, 1\), got 1.0"),
    (lambda: Dropout(math.nan), r"in \[0, 1\), got nan"),
    (
        lambda: output(Dropout(0.5), {}, ONE, Context(train=True)),
        r"^Dropout: training needs a key for the mask, got none; use Context\(train=True, key=",
    ),
    (
        lambda: LayerNorm(axes=(1,)),
        r"different negative axes of an example, such as \(-1,\), got \(1,\)",
    ),
    (lambda: LayerNorm(axes=(-1, -1)), r"different negative axes"),
    (
        lambda: start(LayerNorm(axes=(-3,)), (2, 4)),
        r"LayerNorm: axes \(-3,\) do not exist in examples of shape \(2, 4\)",
    ),
    (
        lambda: LayerNorm(axes=(-2,), groups=2),
        r"groups are parts of axis -1, got 2 groups and axes \(-2,\)",
    ),
    (
        lambda: start(GroupNorm(3), (2, 4)),
        r"GroupNorm: groups must divide the last axis, got 3 groups and examples of shape \(2, 4\)",
    ),
    (lambda: GroupNorm(0), "GroupNorm: groups: expected an int of at least 1, got 0"),
    (lambda: LayerNorm(epsilon=0.0), "LayerNorm: epsilon must be positive and finite, got 0.0"),
    (lambda: BatchNorm(momentum=2), r"BatchNorm: momentum must be in \[0, 1\], got 2"),
    (
        lambda: output(BatchNorm(), {}, ONE, Context(train=True, path="norm")),
        r"BatchNorm: training needs at least 2 values .* got inputs \(1, 4\); use a batch",
    ),
    (
        lambda: start(Patches(3), (6, 4, 1)),
        r"divide into patches of 3 by 3, got examples of shape \(6, 4, 1\)",
    ),
    (lambda: Patches(0), r"size: expected an int of at least 1, or two \(h, w\), got 0"),
    (lambda: start(Patches(2), (6, 4)), r"expected images \(H, W, C\)"),
    (lambda: start(ClassToken(), (6,)), r"examples \(tokens, channels\), got"),
    (lambda: start(SelectToken(3), (3, 4)), "no token 3 among 3"),
    (
        lambda: start(MultiHeadAttention(3), (2, 4)),
        r"channels that divide by 3 heads, got shape \(2, 4\)",
    ),
    (lambda: MultiHeadAttention(0), "heads: expected an int of at least 1, got 0"),
    (lambda: start(LocalHead(3), ()), "LocalHead: needs an axis of channels"),
    (
        lambda: Residual((("block", Linear(3)),)).init(dn.Key(0), (4,)),
        r"Residual: the block turns \(4,\) into \(3,\), but \(4,\) is to be added to it; change",
    ),
    (
        lambda: Residual((("inner", Linear(3)),)),
        r"Residual: layers must be named \('block',\) or \('block', 'shortcut'\), got \('inner',\)",
    ),
    (lambda: Linear(2.5), "Linear: features: expected an int or None, got 2.5"),
    (lambda: LocalHead("3"), "LocalHead: features: expected an int, got '3'"),
    (lambda: GroupedLinear(4, groups=2.0), "GroupedLinear: groups: expected an int, got 2.0"),
    (lambda: GroupNorm(2.0), "GroupNorm: groups: expected an int, got 2.0"),
    (lambda: LayerNorm(groups=2.0), "LayerNorm: groups: expected an int, got 2.0"),
    (lambda: MultiHeadAttention(2.0), "heads: expected an int, got 2.0"),
    (lambda: LayerNorm(axes=-1), r"must be a tuple .* such as \(-1,\), got -1"),
    (lambda: LayerNorm(axes=(-1.0,)), r"different negative axes .* got \(-1.0,\)"),
    (lambda: SelectToken(0.5), "SelectToken: index: expected an int, got 0.5"),
    (lambda: Dropout("0.5"), "Dropout: rate: expected a number, got '0.5'"),
    (lambda: Patches("4"), r"Patches: size: expected an int .* got '4'"),
    (lambda: Patches((5.0, 5.0)), r"or two \(h, w\), got \(5.0, 5.0\)"),
    (lambda: Patches((1, 2, 3)), r"or two \(h, w\), got \(1, 2, 3\)"),
    (
        lambda: start(Linear(3), (0,)),
        r"Linear: needs an axis of features, at least 1, got examples of shape \(0,\)",
    ),
    (
        lambda: start(GroupedLinear(4, groups=2), (0,)),
        r"GroupedLinear: needs an axis of features, at least 1, got examples of shape \(0,\)",
    ),
    (
        lambda: start(MultiHeadAttention(2), (3, 0)),
        r"MultiHeadAttention: expected examples .* got shape \(3, 0\)",
    ),
    (
        lambda: normalize(ONE, (2,)),
        r"normalize: axes must be different axes of x, .* \(1, 4\), got \(2,\)",
    ),
    (lambda: normalize(ONE, [1, -1]), r"different axes of x, .* got \[1, -1\]"),
    (lambda: normalize(ONE, ()), r"different axes of x, .* got \(\)"),
    (lambda: normalize(ONE, "1"), "different axes of x, .* got '1'"),
    (
        lambda: output(Dropout(0.5), {}, ONE.astype(int), training(dn.Key(0))),
        r"^Dropout: expected inputs of float32 or float64, got int64; .* x.astype\(np.float32\)",
    ),
    (
        lambda: output(Dropout(0.5), {}, ONE.astype(np.float16), training(dn.Key(0))),
        "float32 or float64, got float16",
    ),
    (
        lambda: TokenMixing((("mix", Flatten()),)).init(dn.Key(0), (3, 4)),
        r"must give examples \(channels, tokens\), but turns \(4, 3\) into \(12,\)",
    ),
    (
        lambda: TokenMixing((("mix", Linear(3)),)).init(dn.Key(0), (4,)),
        r"TokenMixing: expected examples \(tokens, channels\), got shape \(4,\)",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_say_what_would_be_right(call, message):
    with pytest.raises(UsageError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def fit(layer, in_shape, x_shape, train):
    """The layer, started for one shape and applied to inputs of another."""
    params, state, _ = layer.init(dn.Key(0), in_shape)
    context = Context(train=train, key=dn.Key(1), path="a")
    return context.child("b", layer, params, state, np.zeros(x_shape))


MISFITS = {
    "Linear": (Linear(3), (4,), (2, 1), r"weights \(4, 3\) expect inputs \(\.\.\., 4\)"),
    "GroupedLinear": (
        GroupedLinear(4, groups=2),
        (4,),
        (),
        r"weights .* expect inputs \(\.\.\., 4\)",
    ),
    "BatchNorm": (BatchNorm(), (5, 5, 4), (2, 5, 5, 1), r"\(4,\) expects .* axes \(-1,\)"),
    "BatchNorm, state": (BatchNorm(gain=False, bias=False), (4,), (2, 1), r"mean \(4,\) expects"),
    "BatchNorm, no batch": (BatchNorm(), (4,), (4,), r"a batch of examples with axes \(-1,\)"),
    "GroupNorm": (GroupNorm(2), (5, 5, 4), (2, 5, 5, 2), r"gain \(4,\) expects .* axes \(-1,\)"),
    "GroupNorm, groups": (GroupNorm(2), (4,), (2, 1), "got 2 groups and inputs"),
    "LayerNorm": (LayerNorm(), (5, 5, 4), (2, 5, 5, 1), r"gain \(4,\) expects .* axes \(-1,\)"),
    "LayerNorm, axes": (
        LayerNorm(axes=(-1, -3)),
        (2, 3, 4),
        (2, 2, 3, 1),
        r"gain \(2, 4\) expects .* axes \(-3, -1\)",
    ),
    "LayerNorm, no batch": (LayerNorm(axes=(-2,)), (3, 4), (3, 4), "expected a batch of examples"),
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
    kind = type(layer).__name__
    assert text.startswith(f"{kind}: ") and str(x_shape) in text
    assert text.endswith(f"; in layer a/b ({kind}.apply)")
    assert "\n" not in text


def test_numpy_ints_and_lists_of_axes_are_taken(rng):
    x = rng.standard_normal((2, 10, 10, 1))
    assert output(Patches(np.int64(5)), {}, x).shape == (2, 4, 25)
    for axes in ([1, 2], (-2, 1), np.array([1, 2])):
        assert np.array_equal(normalize(x, axes), normalize(x, (-3, -2)))
        dn.check_jvp(lambda x, axes=axes: normalize(x, axes, 0.1), (x,))
