"""Layers, losses, networks: answers worked out by hand, refusals, and what taps see."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn import (
    Activation,
    Context,
    Conv2d,
    Flatten,
    GroupedLinear,
    Layer,
    Linear,
    LocalHead,
    Sequential,
    gelu,
    mean_squared_error,
    relu,
    sigmoid,
    softmax_cross_entropy,
    walk,
)

# --- layers ------------------------------------------------------------------------------------


def test_a_head_does_not_read_norms_over_a_single_channel(key):
    with pytest.raises(UsageError, match=r"LocalHead: a norm over a single channel is always 0"):
        LocalHead(2, groups=4, norm=True).init(key, (4,))


def test_linear_starts_as_its_source_says(key):
    params, state, shape = Linear(300).init(key, (200,))
    w, b = params["w"], params["b"]
    bound = math.sqrt(6 / 200)  # Kaiming uniform
    assert w.shape == (200, 300) and b.shape == (300,) and shape == (300,) and state == {}
    assert w.dtype == b.dtype == np.float32 and not b.any()
    assert np.abs(w).max() <= bound * (1 + 1e-6)
    # Var of the uniform distribution is bound² / 3; 6 standard errors with Var(w²) = 4 bound⁴ / 45.
    error = 6 * bound**2 * math.sqrt(4 / 45 / w.size)
    assert abs((w.astype(np.float64) ** 2).mean() - bound**2 / 3) < error
    other, _, _ = Linear(300).init(key.fold_in("other"), (200,))
    assert not np.array_equal(other["w"], w)


@pytest.mark.parametrize(
    ("layer", "in_shape", "fan_in"),
    [
        (Linear(300, weights="torch"), (200,), 200),
        (GroupedLinear(300, groups=2, weights="torch"), (200,), 100),
        (Conv2d(300, (2, 5), weights="torch"), (4, 6, 20), 200),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_may_start_as_in_torch(layer, in_shape, fan_in, key):
    """Weights and biases are uniform in ±1 / √fan-in; see `torch.nn.Linear` and `Conv2d`."""
    params, _, _ = layer.init(key, in_shape)
    bound = 1 / math.sqrt(fan_in)
    for entries in (params["w"], params["b"]):
        assert entries.dtype == np.float32 and np.abs(entries).max() <= bound * (1 + 1e-6)
        # each entry exceeds 0.95 of the bound with probability 1/20
        assert np.abs(entries).max() >= 0.95 * bound
        # Var of the uniform distribution is bound² / 3; 6 standard errors, as above
        error = 6 * bound**2 * math.sqrt(4 / 45 / entries.size)
        assert abs((entries.astype(np.float64) ** 2).mean() - bound**2 / 3) < error
    assert not np.array_equal(params["b"], params["w"].ravel()[:300])


def test_layers_start_as_torch_does_beside_torch(key):
    torch = peer("torch")
    ours, _, _ = Linear(50, weights="torch").init(key, (400,))
    theirs = torch.nn.Linear(400, 50)
    for a, b in ((ours["w"], theirs.weight), (ours["b"], theirs.bias)):
        assert abs(np.abs(a).max() / np.abs(b.detach().numpy()).max() - 1) < 0.3


def test_relu_has_slope_zero_at_zero():
    x = np.array([-1.0, -0.0, 0.0, 1e-300, 2.0])
    value, slope = dn.jvp(relu, (x,), (np.ones_like(x),))
    assert value.tolist() == [0, 0, 0, 1e-300, 2]
    assert slope.tolist() == [0, 0, 0, 1, 1]
    assert dn.grad(lambda v: relu(v).sum())(x).tolist() == [0, 0, 0, 1, 1]


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        x = np.array([-1e4, 1e4], np.float32)
        value, slope = dn.jvp(sigmoid, (x,), (np.ones_like(x),))
    assert value.tolist() == [0, 1] and slope.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_a_large_array_is_that_of_its_rows(dtype, rng):
    x = 3 * rng.standard_normal((40, 2001)).astype(dtype)  # several pieces, the last one shorter
    ones = np.ones_like(x)
    by_row = [dn.jvp(gelu, (row,), (one,)) for row, one in zip(x, ones, strict=True)]
    for a in (x, np.asfortranarray(x)):
        for got, rows in zip(dn.jvp(gelu, (a,), (ones,)), zip(*by_row, strict=True), strict=True):
            np.testing.assert_allclose(got, rows, rtol=0, atol=8 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(gelu(a), dn.jvp(gelu, (a,), (ones,))[0])


def seen_by_a_tap(layer, params, x):
    """What a layer's readout is, which only a tap gets to see."""
    seen = {}

    def tap(path, y):
        seen[path] = y
        return y

    y, _ = layer.apply(params, {"linear": {}}, x, Context(tap=tap))
    assert y is x
    return seen["linear"]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("reads", ["average", "all"])
def test_a_local_head_reads_the_average_or_all(reads, norm, key, rng):
    head = LocalHead(3, reads=reads, norm=norm)
    params, _, shape = head.init(key, (2, 5, 4))
    w, b = params["linear"]["w"], params["linear"]["b"] + 1
    assert shape == (2, 5, 4) and w.shape == ((4, 3) if reads == "average" else (40, 3))
    x = rng.standard_normal((6, 2, 5, 4))
    y = x
    if norm:  # of each token's channels
        y = y - y.mean(-1, keepdims=True)
        y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5)
    read = y.mean((1, 2)) if reads == "average" else y.reshape(6, 40)
    readout = seen_by_a_tap(head, {"linear": {"w": w, "b": b}}, x)
    np.testing.assert_allclose(readout, read @ w + b, rtol=1e-6, atol=1e-6)


def test_a_local_head_normalizes_each_group(key, rng):
    head = LocalHead(3, groups=2, norm=True)
    params, _, _ = head.init(key, (5, 4))
    x = rng.standard_normal((6, 5, 4))
    parts = x.reshape(6, 5, 2, 2)
    parts = parts - parts.mean(-1, keepdims=True)
    parts = parts / np.sqrt((parts * parts).mean(-1, keepdims=True) + 1e-5)
    read = parts.reshape(6, 5, 4).mean(1)
    expected = read @ params["linear"]["w"] + params["linear"]["b"]
    np.testing.assert_allclose(seen_by_a_tap(head, params, x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalHead(3, reads="some"), "LocalHead: reads: expected one of .*, got 'some'"),
        (lambda: LocalHead(3, groups=2, reads="all"), "groups are of averaged channels; .* got 2"),
    ],
)
def test_what_a_local_head_refuses(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# --- losses ------------------------------------------------------------------------------------


def test_squared_error_equals_its_formula():
    outputs = np.array([[1.0, 2.0], [3.0, -1.0]])
    targets = np.array([[0.0, 4.0], [3.0, 1.0]])
    assert np.allclose(mean_squared_error(outputs, targets), [(1 + 4) / 2, (0 + 4) / 2])
    gradient = dn.grad(lambda y: mean_squared_error(y, targets).sum())(outputs)
    assert np.allclose(gradient, [[1, -2], [0, -2]])  # 2 (output - target) / 2
    assert mean_squared_error(np.array([1.0, 2.0]), np.array([0.0, 5.0])).tolist() == [1, 9]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_is_stable_for_huge_logits(dtype):
    huge = 1e30
    logits = np.array([[huge, 0, -huge], [huge, 0, -huge], [huge, huge, huge]], dtype)
    labels = np.array([0, 1, 2])

    def f(z):
        return softmax_cross_entropy(z, labels)

    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, slope = dn.jvp(f, (logits,), (np.ones_like(logits),))
        gradient = dn.grad(lambda z: f(z).sum())(logits)
    assert value[0] == 0 and value[1] == dtype(huge) and np.isclose(value[2], math.log(3))
    third = 1 / 3
    expected = [[0, 0, 0], [1, -1, 0], [third, third, third - 1]]
    assert np.allclose(gradient, expected, atol=1e-6)
    assert np.allclose(slope, 0, atol=1e-6)  # adding a constant to all logits changes nothing


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros(3), np.zeros(3, int)),
        (np.zeros((2, 3)), np.zeros(3, int)),
        (np.zeros((2, 3)), np.zeros((2, 1), int)),
        (np.zeros((2, 3)), np.zeros(2)),
        (np.zeros((2, 3)), np.zeros(2, bool)),
        (np.zeros((2, 3)), [0, 1]),
        ([[0.0, 1.0]], np.zeros(1, int)),
    ],
)
def test_cross_entropy_says_what_it_expects(logits, labels):
    with pytest.raises(UsageError, match=r"logits \(N, classes\) and integer labels \(N,\), got"):
        softmax_cross_entropy(logits, labels)


@pytest.mark.parametrize("dtype", ("i1", "u1", "<i4", ">i8", "u8"))
@pytest.mark.parametrize("wrong", (-1, -128, 3, 127))
def test_labels_out_of_range_are_refused(wrong, dtype):
    """NumPy would take a negative one from the end, and no other check would see it."""
    logits = np.zeros((3, 3))
    labels = np.array([0, wrong % 256 if "u" in dtype else wrong, 2]).astype(dtype)
    expected = rf"labels from 0 to 2 for logits \(N, 3\), got {labels[1]} for example 1"
    for call in (
        lambda: softmax_cross_entropy(logits, labels),
        lambda: dn.jvp(lambda x: softmax_cross_entropy(x, labels), (logits,), (logits,)),
        lambda: dn.grad(lambda x: softmax_cross_entropy(x, labels).sum())(logits),
    ):
        with pytest.raises(UsageError, match=expected):
            call()
    assert softmax_cross_entropy(logits, labels * 0).shape == (3,)
    assert softmax_cross_entropy(logits[:0], labels[:0]).shape == (0,)


def test_masked_classes_have_no_share_and_no_slope():
    logits = np.array([[1.0, -np.inf, 2.0], [-np.inf, 0.0, -np.inf]])
    labels = np.array([0, 1])

    def loss(x):
        return softmax_cross_entropy(x, labels).sum()

    rest = softmax_cross_entropy(logits[:1, ::2], labels[:1])
    np.testing.assert_allclose(loss(logits), rest[0])
    slope, tangent = dn.grad(loss)(logits), dn.jvp(loss, (logits,), (np.ones((2, 3)),))[1]
    np.testing.assert_array_equal(slope[:, 1], 0)
    np.testing.assert_allclose(tangent, 0, atol=1e-15)
    assert np.isfinite(dn.hvp(loss, (logits,), (np.ones((2, 3)),))[0]).all()


@pytest.mark.parametrize("shape", [(2,), (2, 4), (3, 3)])
def test_squared_error_does_not_broadcast(shape):
    with pytest.raises(UsageError, match=r"of one shape \(N, \.\.\.\), got \(2, 3\) and"):
        mean_squared_error(np.zeros((2, 3)), np.zeros(shape))


# --- networks ----------------------------------------------------------------------------------


def nested():
    block = Sequential((("in", Linear(4)), ("relu", Activation(relu))))
    return Sequential((("first", block), ("second", block), ("output", Linear(2))))


PATHS = ["first/in", "first/relu", "first", "second/in", "second/relu", "second", "output"]


def test_taps_see_every_output_in_order(key, rng):
    network = nested()
    params, state, _ = network.init(key, (3,))
    x = rng.standard_normal((2, 3))
    seen = []

    def tap(path, y):
        seen.append((path, y))
        return y

    y, _ = network.apply(params, state, x, Context(tap=tap))
    assert [path for path, _ in seen] == PATHS
    outputs = dict(seen)
    assert outputs["output"] is y
    inner = params["first"]["in"]
    assert np.allclose(outputs["first/in"], x @ inner["w"] + inner["b"])
    assert np.array_equal(outputs["first"], np.maximum(outputs["first/in"], 0))


def test_what_a_tap_returns_flows_on(key, rng):
    network = nested()
    params, state, _ = network.init(key, (3,))

    def cut(path, y):
        return np.full_like(y, 2.0) if path == "second" else y

    y, _ = network.apply(params, state, rng.standard_normal((2, 3)), Context(tap=cut))
    output = params["output"]
    assert np.allclose(y, 2 * output["w"].sum(0) + output["b"])


def test_walk_names_the_layers_that_hold_no_others():
    found = list(walk(nested()))
    assert [path for path, _ in found] == [p for p in PATHS if "/" in p or p == "output"]
    assert found[-1][1] == Linear(2)
    assert list(walk(Linear(2))) == [("", Linear(2))]


def test_equal_layers_at_different_places_start_differently(key):
    params, _, _ = nested().init(key, (4,))
    assert not np.array_equal(params["first"]["in"]["w"], params["second"]["in"]["w"])


@pytest.mark.parametrize("names", [("a", "a"), ("a/b", "c"), ("", "a")])
def test_sequential_refuses_ambiguous_names(names):
    with pytest.raises(UsageError, match="names must differ and hold no '/'"):
        Sequential(tuple((name, Flatten()) for name in names))


@dataclass(frozen=True)
class Counter(Layer):
    """A layer with state and a use for randomness, as dropout and batch norm will be."""

    def init(self, key, in_shape):
        return {}, {"calls": np.zeros(())}, in_shape

    def apply(self, params, state, x, context):
        calls = state["calls"] + 1 if context.train else state["calls"]
        return x + context.key.bits % 2**20 if context.key else x, {"calls": calls}


def test_state_and_keys_are_passed_by_path(key):
    network = Sequential((("a", Counter()), ("b", Sequential((("c", Counter()),)))))
    _, state, _ = network.init(key, (1,))
    x = np.zeros((1, 1))
    y, after = network.apply({"a": {}, "b": {"c": {}}}, state, x, Context(train=True, key=key))
    assert [leaf.item() for leaf in tree.leaves(after)] == [1, 1]
    assert [leaf.item() for leaf in tree.leaves(state)] == [0, 0]  # nothing in place
    keys = key.fold_in("a"), key.fold_in("b").fold_in("c")
    assert y.item() == sum(k.bits % 2**20 for k in keys)
    y, after = network.apply({"a": {}, "b": {"c": {}}}, state, x, Context())
    assert y.item() == 0 and [leaf.item() for leaf in tree.leaves(after)] == [0, 0]
