"""Learning rules: what each estimates, with which variance, and what it must not depend on."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.backends import NumpyBackend
from dualnet.core.dispatch import primitive
from dualnet.core.engine import rule as derivative_rule
from dualnet.core.linear import LinearMap
from dualnet.core.spaces import dense
from dualnet.errors import UsageError
from dualnet.learning import (
    RULES,
    SAMPLERS,
    ActivityPerturbation,
    Backprop,
    Measurement,
    Shard,
    Task,
    WeightPerturbation,
    correct,
    cut,
    samplers,
    step,
)
from dualnet.learning.aggregate import projection
from dualnet.nn import (
    Activation,
    BatchNorm,
    Context,
    Dropout,
    Linear,
    Sequential,
    gelu,
    mean_squared_error,
    relu,
    softmax_cross_entropy,
    tanh,
)

BACKEND = NumpyBackend()

EVERY_RULE = [
    Backprop(),
    WeightPerturbation(tangents=8, sampler="normal"),
    WeightPerturbation(tangents=8, sampler="rademacher", aggregate="projection"),
    WeightPerturbation(tangents=8, sampler="rank-one"),
    ActivityPerturbation(tangents=3),
    ActivityPerturbation(tangents=3, sampler="rademacher"),
]


@dataclass(frozen=True)
class Problem:
    """A task, where it stands, and a batch."""

    task: Task
    params: Any
    state: Any
    x: np.ndarray
    labels: np.ndarray

    def step(self, rule, key, backend=BACKEND, shards=1):
        learned = rule.init(key, self.task, self.params)
        return step(
            rule,
            self.task,
            self.params,
            self.state,
            learned,
            self.x,
            self.labels,
            key,
            backend,
            shards,
        )

    def exact(self):
        """The gradient by dn.grad of the mean loss, without any of `dualnet.learning`'s rules."""

        def mean_loss(p):
            losses, _ = self.task.losses(p, self.state, Shard(self.x, self.labels), Context())
            return losses.mean()

        return dn.grad(mean_loss)(self.params)


def problem(rng, key, *layers, n=4, features=6, dtype=np.float64):
    """A classification problem; without layers the network is 6-5-4-3 with ReLU and tanh."""
    layers = layers or (
        ("hidden1", Linear(5)),
        ("relu1", Activation(relu)),
        ("hidden2", Linear(4)),
        # Not ReLU again: now and then all of four units would be off, and nothing be tested.
        ("tanh2", Activation(tanh)),
        ("output", Linear(3)),
    )
    task = Task(Sequential(layers), softmax_cross_entropy)
    params, state, (classes,) = task.network.init(key, (features,))
    # Biases start at 0, where a mistake about them would not show.
    params = tree.map(lambda p: (p + 0.1 * rng.standard_normal(p.shape)).astype(dtype), params)
    x = rng.standard_normal((n, features)).astype(dtype)
    return Problem(task, params, state, x, rng.integers(0, classes, n))


def flat(t):
    """All numbers of a tree of arrays, one after the other."""
    return np.concatenate([np.ravel(leaf) for leaf in tree.leaves(t)])


def assert_close(a, b, tolerance, what=""):
    a, b = flat(a), flat(b)
    error = np.linalg.norm(a - b) / np.linalg.norm(b)
    assert error <= tolerance, f"{what}: relative error {error:.1e}, allowed {tolerance:.0e}"


# --- bp ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [relu, tanh, gelu])
def test_bp_is_the_gradient_of_the_mean_loss(activation, rng, key):
    p = problem(
        rng,
        key,
        *(("hidden", Linear(5)), ("act", Activation(activation)), ("output", Linear(3))),
        n=7,
    )
    done = p.step(Backprop(), key)
    assert_close(done.gradients, p.exact(), 1e-14)
    losses = softmax_cross_entropy(
        p.task.network.apply(p.params, p.state, p.x, Context())[0], p.labels
    )
    assert np.isclose(done.loss, losses.mean(), rtol=1e-14)


def test_bp_agrees_with_torch(rng, key):
    torch = peer("torch")
    p = problem(rng, key, n=7)
    weights = tree.map(lambda a: torch.tensor(a, requires_grad=True), p.params)
    z = torch.tensor(p.x)
    for name in ("hidden1", "hidden2", "output"):
        z = z @ weights[name]["w"] + weights[name]["b"]
        z = {"hidden1": torch.relu, "hidden2": torch.tanh}.get(name, lambda z: z)(z)
    loss = torch.nn.functional.cross_entropy(z, torch.tensor(p.labels))
    loss.backward()
    done = p.step(Backprop(), key)
    assert np.isclose(done.loss, loss.item(), rtol=1e-14)
    assert_close(done.gradients, tree.map(lambda w: w.grad.numpy(), weights), 1e-13)


# --- means and variances -----------------------------------------------------------------------

STEPS = 400
PER_STEP = 60
PER_STEP_AND_EXAMPLE = 16  # fg-a draws for each of 4 examples: 25,600 directions in all


def many_estimates(p, rule, key):
    """STEPS independent gradients as rows, each the mean of the rule's `tangents` estimates."""
    return np.array([flat(p.step(rule, key.fold_in(i)).gradients) for i in range(STEPS)])


def assert_unbiased(estimates, exact):
    mean = estimates.mean(0)
    error = estimates.std(0, ddof=1) / math.sqrt(STEPS)
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(exact), "too few draws to see a bias"
    # 5.5 standard errors: of some hundred components one lies further off in 1 of 10^5 sessions.
    off = np.abs(mean - exact) - 5.5 * error
    worst = int(np.argmax(off))
    assert np.all(off <= 1e-12), (
        f"component {worst}: mean {mean[worst]:.5f}, exact {exact[worst]:.5f}, "
        f"standard error {error[worst]:.5f}"
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fg_w_is_unbiased_and_has_the_stated_variance(sampler, rng, key):
    p = problem(rng, key)
    exact = flat(p.exact())
    estimates = many_estimates(p, WeightPerturbation(PER_STEP, sampler), key)
    assert_unbiased(estimates, exact)
    # E|d v|^2 = E d^2 n = n |grad|^2 for all signs, rank-one ones included; the fourth moment of
    # normal entries adds 2 |grad|^2.  Less the |grad|^2 of the mean.
    n, total = len(exact), PER_STEP * estimates.var(0, ddof=1).sum()
    stated = (n + 1 if sampler == "normal" else n - 1) * exact @ exact
    # Measured from 400 rows of 74 numbers, the variance is off by about 1 %.
    assert abs(total / stated - 1) < 0.08


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fg_w_is_the_mean_of_derivatives_times_directions(sampler, rng, key):
    p = problem(rng, key)
    rule = WeightPerturbation(6, sampler)
    v, exact = directions_of(p, rule, key), flat(p.exact())
    assert_close(p.step(rule, key).gradients, (v @ exact) @ v / 6, 1e-12)


@pytest.mark.parametrize(("sampler", "factor"), [("normal", 3), ("rademacher", 1), ("rank-one", 1)])
def test_with_two_weights_the_fourth_moment_shows(sampler, factor, key):
    task = Task(Sequential((("output", Linear(1, bias=False)),)), mean_squared_error)
    params, x = {"output": {"w": np.array([[0.3], [0.7]])}}, np.array([[1.0, 2.0]])
    p = Problem(task, params, {"output": {}}, x, np.array([[0.5]]))
    g = flat(p.exact())
    estimates = many_estimates(p, WeightPerturbation(PER_STEP, sampler), key)
    variance = PER_STEP * estimates.var(0, ddof=1)
    # |grad|^2 + g_i^2 for normal entries, |grad|^2 - g_i^2 for signs; sums 3 and 1 times |grad|^2.
    stated = g @ g + g**2 if sampler == "normal" else g @ g - g**2
    # The standard error of a variance of 400 is 7 %.
    assert np.all(np.abs(variance / stated - 1) < 0.45)
    assert abs(variance.sum() / (factor * g @ g) - 1) < 0.45


@pytest.mark.parametrize("sampler", ["normal", "rademacher"])
@pytest.mark.parametrize("activation", [relu, tanh])
def test_fg_a_is_unbiased(sampler, activation, rng, key):
    p = problem(
        rng,
        key,
        ("hidden1", Linear(5)),
        ("act1", Activation(activation)),
        ("hidden2", Linear(4)),
        ("act2", Activation(activation)),
        ("output", Linear(3)),
    )
    estimates = many_estimates(p, ActivityPerturbation(PER_STEP_AND_EXAMPLE, sampler), key)
    assert_unbiased(estimates, flat(p.exact()))


def test_fg_a_varies_less_than_fg_w(rng, key):
    p = problem(rng, key)
    by_weight = many_estimates(p, WeightPerturbation(8), key).var(0).sum()
    by_activity = many_estimates(p, ActivityPerturbation(8), key).var(0).sum()
    assert by_activity < 0.5 * by_weight  # 9 units of each example against 74 weights


# --- projection --------------------------------------------------------------------------------


def directions_of(p, rule, key):
    """The rule's k directions as rows over all parameters."""
    drawn = rule.sample(key, p.params, BACKEND, len(p.x)).draw(0, rule.tangents)
    rows = [np.reshape(dense(t), (rule.tangents, -1)) for t in tree.leaves(drawn)]
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("k", [1, 2, 20])
def test_projection_is_the_nearest_point_of_the_span(sampler, k, rng, key):
    p = problem(rng, key)
    rule = WeightPerturbation(k, sampler, "projection")
    q, _ = np.linalg.qr(directions_of(p, rule, key).T)
    exact = flat(p.exact())
    # One basis of the whole network's span: a projection leaf by leaf would differ.
    assert_close(p.step(rule, key).gradients, q @ (q.T @ exact), 1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_projection_on_the_whole_space_is_the_gradient(sampler, rng, key):
    p = problem(rng, key)
    rule = WeightPerturbation(tree.size(p.params) + 40, sampler, "projection")
    assert_close(p.step(rule, key).gradients, p.exact(), 1e-8)


def repeated(backend, key, like, start, stop):
    """Directions 0, 0, 1, 1, 2, 2, ...: every one twice."""
    once = SAMPLERS["normal"](backend, key, like, start // 2, (stop + 1) // 2)
    return once[np.arange(start, stop) // 2 - start // 2]


@pytest.mark.parametrize("chunk", [None, 3])
def test_projection_handles_repeated_directions(chunk, rng, key, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "repeated", repeated)
    p = problem(rng, key)
    twice = p.step(WeightPerturbation(10, "repeated", "projection", chunk), key)
    once = p.step(WeightPerturbation(5, "normal", "projection"), key)
    assert_close(twice.gradients, once.gradients, 1e-9)


@pytest.mark.parametrize("chunk", [None, 3])
def test_projection_handles_repeated_directions_in_float32(chunk, rng, key, monkeypatch):
    # In chunks, the derivatives along a direction and its double differ by rounding.
    monkeypatch.setitem(SAMPLERS, "repeated", repeated)
    p = problem(rng, key, dtype=np.float32)
    twice = p.step(WeightPerturbation(10, "repeated", "projection", chunk), key)
    once = p.step(WeightPerturbation(5, "normal", "projection"), key)
    assert_close(twice.gradients, once.gradients, 1e-3)
    assert {g.dtype for g in tree.leaves(twice.gradients)} == {np.dtype(np.float32)}


def test_projection_is_a_descent_direction_and_no_longer_than_the_gradient(rng, key):
    p = problem(rng, key)
    exact = flat(p.exact())
    for i in range(20):
        g = flat(p.step(WeightPerturbation(5, "normal", "projection"), key.fold_in(i)).gradients)
        assert 0 < g @ exact and np.linalg.norm(g) <= np.linalg.norm(exact)
        assert np.isclose(g @ exact, g @ g, rtol=1e-9)


def test_projection_of_a_vanishing_gradient_is_zero(rng, key):
    task = Task(Sequential((("output", Linear(2)),)), lambda y, _: 0.0 * y.sum(-1))
    params, state, _ = task.network.init(key, (3,))
    p = Problem(task, params, state, np.ones((2, 3), np.float32), np.zeros(2, int))
    done = p.step(WeightPerturbation(4, aggregate="projection"), key)
    assert not flat(done.gradients).any()


# --- what the result must not depend on --------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("aggregate", ["mean", "projection"])
def test_fg_w_does_not_depend_on_the_chunk(sampler, aggregate, rng, key):
    p = problem(rng, key)
    whole = p.step(WeightPerturbation(8, sampler, aggregate), key)
    for chunk in (1, 3, 5, 8, 100):  # 3 and 5 leave a ragged last chunk
        chunked = p.step(WeightPerturbation(8, sampler, aggregate, chunk), key)
        assert_close(chunked.gradients, whole.gradients, 1e-12, f"chunk {chunk}")
        assert np.isclose(chunked.loss, whole.loss, rtol=1e-14)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_no_rule_depends_on_shards_or_threads(rule, rng, key):
    p = problem(rng, key, n=7)
    whole = p.step(rule, key)
    for shards, threads in [(2, 1), (3, 1), (7, 1), (20, 1), (3, 3), (7, 2)]:
        pieces = p.step(rule, key, NumpyBackend(threads), shards)
        what = f"{shards} shards on {threads} threads"
        assert_close(pieces.gradients, whole.gradients, 1e-12, what)
        assert np.isclose(pieces.loss, whole.loss, rtol=1e-12)
        assert pieces.correct == whole.correct


WITH_DROPOUT = (
    ("hidden", Linear(5)),
    ("dropout", Dropout(0.5)),
    ("tanh", Activation(tanh)),
    ("output", Linear(3)),
)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_all_shards_and_chunks_of_a_step_see_one_dropout_mask(rule, rng, key):
    p = problem(rng, key, *WITH_DROPOUT, n=7)
    whole = p.step(rule, key)
    for shards, threads in [(2, 1), (7, 1), (3, 3)]:
        pieces = p.step(rule, key, NumpyBackend(threads), shards)
        assert_close(pieces.gradients, whole.gradients, 1e-12)
        assert np.isclose(pieces.loss, whole.loss, rtol=1e-12)
    if isinstance(rule, WeightPerturbation):
        chunked = p.step(replace(rule, tangent_chunk=3), key)
        assert_close(chunked.gradients, whole.gradients, 1e-12)
    assert not np.isclose(p.step(rule, key.fold_in("other")).loss, whole.loss, rtol=1e-6)


WITH_BATCH_NORM = (
    ("hidden", Linear(5)),
    ("block", Sequential((("norm", BatchNorm()), ("tanh", Activation(tanh))))),
    ("output", Linear(3)),
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_running_statistics_move_once_a_step_whatever_the_chunk(sampler, rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM, n=7)
    expected = p.step(Backprop(), key).state
    hidden = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    statistics = expected["block"]["norm"]
    assert np.allclose(statistics["mean"], 0.1 * hidden.mean(0))
    assert np.allclose(statistics["variance"], 0.9 + 0.1 * hidden.var(0, ddof=1))
    for chunk in (1, 3, 4):
        state = p.step(WeightPerturbation(4, sampler, tangent_chunk=chunk), key).state
        assert np.array_equal(flat(state), flat(expected)), f"chunk {chunk}"
    state = p.step(ActivityPerturbation(2), key).state
    assert np.array_equal(flat(state), flat(expected))


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_network_that_couples_examples_is_not_cut(rule, rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM, n=7)
    whole, cut_in_vain = p.step(rule, key), p.step(rule, key, NumpyBackend(2), 3)
    assert np.array_equal(flat(whole.gradients), flat(cut_in_vain.gradients))
    assert np.array_equal(flat(whole.state), flat(cut_in_vain.state))


def test_bp_is_exact_through_batch_norm(rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM, n=7)

    def mean_loss(params):
        hidden = p.x @ params["hidden"]["w"] + params["hidden"]["b"]
        centered = hidden - hidden.mean(0)
        normed = centered / np.sqrt((centered * centered).mean(0) + 1e-5)
        norm, output = params["block"]["norm"], params["output"]
        z = np.tanh(normed * norm["gain"] + norm["bias"]) @ output["w"] + output["b"]
        return softmax_cross_entropy(z, p.labels).mean()

    assert_close(p.step(Backprop(), key).gradients, dn.grad(mean_loss)(p.params), 1e-11)


@dataclass(frozen=True)
class Recorder:
    """Keeps the contexts it is applied in."""

    seen: list = field(default_factory=list)

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        self.seen.append(context)
        return x, state


@pytest.mark.parametrize("rule", [Backprop(), WeightPerturbation(), ActivityPerturbation()])
def test_layers_are_told_of_the_step(rule, rng, key):
    recorder = Recorder()
    p = problem(rng, key, ("recorder", recorder), ("output", Linear(3)), n=7)
    backend = NumpyBackend()
    p.step(rule, key, backend, 3)
    assert [c.start for c in recorder.seen] == [0, 2, 4]
    assert all(c.train and c.backend is backend for c in recorder.seen)
    assert {c.key for c in recorder.seen} == {key.fold_in("network").fold_in("recorder")}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_step_is_a_function_of_its_key_and_changes_nothing(rule, rng, key):
    p = problem(rng, key)
    before = tree.map(np.copy, p.params)
    first, again = p.step(rule, key), p.step(rule, key)
    other = p.step(rule, key.fold_in("other"))
    assert np.array_equal(flat(first.gradients), flat(again.gradients))
    assert np.array_equal(flat(p.params), flat(before))
    assert np.array_equal(flat(first.gradients), flat(other.gradients)) == (rule == Backprop())


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_the_shapes_and_dtype_of_the_parameters(rule, dtype, rng, key):
    p = problem(rng, key, dtype=dtype)
    done = p.step(rule, key)
    assert tree.describe(done.gradients) == tree.describe(p.params)
    assert np.asarray(done.loss).dtype == dtype


def test_every_direction_of_every_leaf_is_independent(rng, key):
    square = (("one", Linear(6, bias=False)), ("two", Linear(6, bias=False)))
    p = problem(rng, key, *square)
    k = 4000
    for sampler in SAMPLERS:
        rule = WeightPerturbation(k, sampler)
        rows = directions_of(p, rule, key)
        one, two = rows[:, :36], rows[:, 36:]
        bound = 6 / math.sqrt(k)
        assert abs((one * two).mean(0)).max() < bound, f"{sampler}: equal leaves share draws"
        assert abs((rows[1:] * rows[:-1]).mean(0)).max() < bound, f"{sampler}: directions repeat"
        covariance = rows.T @ rows / k
        assert abs(covariance - np.eye(72)).max() < 1.5 * bound, f"{sampler}: not identity"


def test_directions_follow_the_path_and_not_the_order_of_parameters(rng, key):
    p = problem(rng, key)
    backwards = {name: p.params[name] for name in reversed(p.params)}
    rule = WeightPerturbation(3)
    one, other = (
        rule.sample(key, params, BACKEND, 4).draw(0, 3) for params in (p.params, backwards)
    )
    tree.map(lambda a, b: np.testing.assert_array_equal(a, b), one, other)


# --- fg-a --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["normal", "rademacher"])
def test_fg_a_gives_the_output_layer_its_exact_gradient(sampler, rng, key):
    p = problem(rng, key)
    done = p.step(ActivityPerturbation(1, sampler), key)
    exact = p.exact()
    assert_close(done.gradients["output"], exact["output"], 1e-12)
    assert np.linalg.norm(flat(done.gradients["hidden1"]) - flat(exact["hidden1"])) > 1e-3


def test_fg_a_without_hidden_layers_is_exact(rng, key):
    p = problem(rng, key, ("output", Linear(3)))
    assert_close(p.step(ActivityPerturbation(2), key).gradients, p.exact(), 1e-12)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_network_may_be_a_single_layer(rule, rng, key):
    task = Task(Linear(3), softmax_cross_entropy)
    params, state, _ = task.network.init(key, (6,))
    x = rng.standard_normal((4, 6)).astype(np.float32)
    p = Problem(task, params, state, x, rng.integers(0, 3, 4))
    gradients = p.step(rule, key).gradients
    assert tree.describe(gradients) == tree.describe(params)
    if isinstance(rule, (Backprop, ActivityPerturbation)):
        assert_close(gradients, p.exact(), 1e-5)


def test_fg_a_draws_for_each_example_whatever_the_shard(rng, key):
    directions = ActivityPerturbation(2).sample(key, {}, BACKEND, 9)
    z = np.zeros((9, 5))
    whole = directions.draw("hidden1", 1, z, 0)
    assert whole.shape == (2, 9, 5)
    for a, b in [(0, 4), (4, 9), (8, 9)]:
        assert np.array_equal(directions.draw("hidden1", 1, z[a:b], a), whole[:, a:b])
    rows = np.concatenate([*whole, *directions.draw("hidden2", 1, z, 0)])
    assert len(np.unique(rows.round(12), axis=0)) == len(rows)  # no two share a direction


def test_fg_a_weight_gradient_is_input_times_derivative_times_direction(rng, key):
    """The estimate written out by hand for one hidden layer and one example."""
    layers = (("hidden", Linear(4)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers, n=1)
    rule = ActivityPerturbation(1)
    z = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    u = rule.sample(key, p.params, BACKEND, 1).draw("hidden", 1, z, 0)[0]

    def loss(z):
        y = np.tanh(z) @ p.params["output"]["w"] + p.params["output"]["b"]
        return softmax_cross_entropy(y, p.labels).sum()

    d = dn.jvp(loss, (z,), (u,))[1]
    got = p.step(rule, key).gradients["hidden"]
    assert_close(got, {"w": p.x.T @ (d * u), "b": (d * u)[0]}, 1e-12)


@pytest.mark.parametrize("activation", [relu, None])
def test_fg_a_does_not_perturb_units_that_are_off(activation, rng, key):
    between = () if activation is None else (("relu", Activation(activation)),)
    p = problem(rng, key, ("hidden", Linear(40)), *between, ("output", Linear(3)), n=1)
    z = (p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"])[0]
    moved = p.step(ActivityPerturbation(1), key).gradients["hidden"]["b"] != 0
    assert 0 < np.sum(z > 0) < 40
    assert np.array_equal(moved, z > 0 if activation else np.full(40, True))


@pytest.fixture
def spy():
    """An identity layer, and the list of what its derivative was asked for.

    `"record"` when its place in a symbolic expression was recorded, `"forward"` when it carried
    dense tangents, `"backward"` when it was transposed.
    """
    asked = []

    @LinearMap
    def pass_on(t):
        asked.append("forward" if t.shape[0] else "record")
        return t

    @pass_on.transposed
    def _(ct, _shape):
        asked.append("backward")
        return ct

    @primitive
    def same(x):
        return x

    derivative_rule(same, lambda t, _out, _x: pass_on(t))
    return Activation(same), asked


def with_spies(rng, key, layer):
    return problem(
        rng,
        key,
        ("hidden1", Linear(5)),
        ("relu1", Activation(relu)),
        ("spy1", layer),
        ("hidden2", Linear(4)),
        ("relu2", Activation(relu)),
        ("spy2", layer),
        ("output", Linear(3)),
    )


def test_bp_passes_back_through_every_layer(spy, rng, key):
    layer, asked = spy
    with_spies(rng, key, layer).step(Backprop(), key)
    assert asked == ["record", "record", "backward", "backward"]


@pytest.mark.parametrize(
    "rule", [ActivityPerturbation(2), WeightPerturbation(2)], ids=["fg-a", "fg-w"]
)
def test_forward_gradients_pass_back_through_no_layer(rule, spy, rng, key):
    layer, asked = spy
    with_spies(rng, key, layer).step(rule, key)
    assert asked == ["forward", "forward"]


def test_fg_a_reaches_layers_inside_layers(rng, key):
    block = Sequential((("in", Linear(5)), ("relu", Activation(relu))))
    p = problem(rng, key, ("first", block), ("second", block), ("output", Linear(3)))
    estimates = many_estimates(p, ActivityPerturbation(PER_STEP_AND_EXAMPLE), key)
    assert_unbiased(estimates, flat(p.exact()))


# --- options, batches --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("fg-w", {"tangents": 0}, "fg-w: tangents and tangent-chunk must be at least 1"),
        ("fg-w", {"tangent_chunk": 0}, "fg-w: tangents and tangent-chunk must be at least 1"),
        ("fg-w", {"sampler": "gauss"}, "one of normal, rademacher, rank-one, got 'gauss'"),
        ("fg-w", {"aggregate": "sum"}, "aggregate must be one of mean, projection, got 'sum'"),
        ("fg-a", {"tangents": -1}, "fg-a: tangents must be at least 1, got -1"),
        ("fg-a", {"sampler": "rank-one"}, r"got 'rank-one' \(rank-one directions are for weights"),
    ],
)
def test_bad_options_say_what_would_be_good(rule, options, message):
    with pytest.raises(UsageError, match=message):
        RULES[rule](**options)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 20])
def test_cut_keeps_every_example_once_and_in_order(pieces):
    x, labels = np.arange(14).reshape(7, 2), np.arange(7)
    shards = cut(x, labels, pieces)
    assert np.array_equal(np.concatenate([s.inputs for s in shards]), x)
    assert np.array_equal(np.concatenate([s.targets for s in shards]), labels)
    assert [s.context.start for s in shards] == [int(s.targets[0]) for s in shards]
    lengths = [len(s.inputs) for s in shards]
    assert len(shards) == min(pieces, 7) and max(lengths) - min(lengths) <= 1


def test_correct_counts_largest_outputs():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert correct(outputs, np.array([1, 1, 1])) == 2


# --- what a newcomer adds ----------------------------------------------------------------------


@dataclass(frozen=True)
class SignOfDerivative:
    """Go against each direction by a fixed length, whatever the slope; counts its steps."""

    tangents: int = 4

    def init(self, key, task, params):
        return {"steps": np.zeros((), np.int64)}

    def sample(self, key, params, backend, n):
        shape = (self.tangents,)
        return tree.map_with_path(
            lambda path, p: backend.normal(key.fold_in(path), shape + p.shape, p.dtype), params
        )

    def measure(self, task, params, state, learned, directions, shard):
        def total_loss(p):
            losses, aux = task.losses(p, state, shard, shard.context)
            return losses.sum(), aux

        loss, d, (y, state) = dn.jvp(total_loss, (params,), (directions,), has_aux=True)
        return Measurement({"loss": loss, "correct": correct(y, shard.targets), "d": d}, state)

    def estimate(self, total, directions, params, learned, n):
        sign = np.sign(total["d"])
        gradients = tree.map(lambda v: np.tensordot(sign, v, 1) / self.tangents, directions)
        return gradients, {"steps": learned["steps"] + 1}


def test_a_new_rule_needs_nothing_but_its_class(rng, key):
    p = problem(rng, key, n=7)
    whole = p.step(SignOfDerivative(), key)
    assert_close(
        p.step(SignOfDerivative(), key, NumpyBackend(2), 3).gradients, whole.gradients, 1e-12
    )
    assert whole.learned["steps"] == 1
    exact = flat(p.exact())
    gs = [flat(p.step(SignOfDerivative(), key.fold_in(i)).gradients) for i in range(30)]
    assert np.mean(gs, axis=0) @ exact > 0


@dataclass(frozen=True)
class Scale:
    """y = s x, with a number s for each feature."""

    def init(self, key, in_shape):
        return {"s": np.ones(in_shape, np.float32)}, {}, in_shape

    def apply(self, params, state, x, context):
        return params["s"] * x, state


@dataclass(frozen=True)
class RunningMean:
    """Takes off the mean of what came before; a layer with state that follows its input."""

    def init(self, key, in_shape):
        return {}, {"mean": np.zeros(in_shape)}, in_shape

    def apply(self, params, state, x, context):
        mean = 0.9 * state["mean"] + 0.1 * x.mean(axis=0)
        return x - state["mean"], {
            "mean": dn.stop_gradient(mean) if context.train else state["mean"]
        }


SCALED = (
    ("hidden", Linear(5)),
    ("scale", Scale()),
    ("relu", Activation(relu)),
    ("output", Linear(3)),
)


@pytest.mark.parametrize("rule", [Backprop(), *map(WeightPerturbation, [PER_STEP])], ids=str)
def test_a_new_layer_works_with_rules_that_move_weights(rule, rng, key):
    p = problem(rng, key, *SCALED)
    if rule == Backprop():
        assert_close(p.step(rule, key).gradients, p.exact(), 1e-13)
    else:
        assert_unbiased(many_estimates(p, rule, key), flat(p.exact()))


def test_a_new_layer_works_with_fg_a(rng, key):
    p = problem(rng, key, *SCALED)
    assert_unbiased(
        many_estimates(p, ActivityPerturbation(PER_STEP_AND_EXAMPLE), key), flat(p.exact())
    )


@dataclass(frozen=True)
class Follower(RunningMean):
    """The same, without a thought for derivatives: the state is a function of the input."""

    def apply(self, params, state, x, context):
        return x - state["mean"], {"mean": 0.9 * state["mean"] + 0.1 * x.mean(axis=0)}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("layer", [RunningMean(), Follower()], ids=["stopped", "plain"])
def test_the_new_state_of_a_layer_is_plain_arrays(rule, layer, rng, key):
    p = problem(rng, key, ("hidden", Linear(5)), ("follow", layer), ("output", Linear(3)))
    state = p.step(rule, key).state
    hidden = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    assert type(state["follow"]["mean"]) is np.ndarray
    assert np.allclose(state["follow"]["mean"], 0.1 * hidden.mean(0))


# --- networks that are no chain ---------------------------------------------------------------


@dataclass(frozen=True)
class Residual:
    """x + inner(x), then an optional activation: what a newcomer might write."""

    layers: tuple

    def init(self, key, in_shape):
        ((name, inner),) = self.layers
        params, state, _ = inner.init(key, in_shape)
        return {name: params}, {name: state}, in_shape

    def apply(self, params, state, x, context):
        ((name, inner),) = self.layers
        y, new = context.child(name, inner, params[name], state[name], x)
        return x + y, {name: new}


@dataclass(frozen=True)
class Twice:
    """The same layer applied two times, with one set of weights."""

    layers: tuple

    def init(self, key, in_shape):
        ((name, inner),) = self.layers
        params, state, shape = inner.init(key, in_shape)
        return {name: params}, {name: state}, shape

    def apply(self, params, state, x, context):
        ((name, inner),) = self.layers
        for _ in range(2):
            x, new = context.child(name, inner, params[name], state[name], x)
            x = np.tanh(x)
        return x, {name: new}


def relu_then_linear(n):
    return Sequential((("relu", Activation(relu)), ("inner", Linear(n))))


def linear_relu_linear(n):
    return Sequential((("a", Linear(n)), ("relu", Activation(relu)), ("b", Linear(n))))


NOT_A_CHAIN = {
    "activation after the sum": (
        ("block", Residual((("f", linear_relu_linear(5)),))),
        ("relu2", Activation(relu)),
    ),
    "activation before the layer": (("block", Residual((("f", relu_then_linear(5)),))),),
    "a layer applied twice": (("block", Twice((("f", Linear(5)),))),),
}


@pytest.mark.parametrize("middle", NOT_A_CHAIN.values(), ids=NOT_A_CHAIN.keys())
def test_fg_a_is_unbiased_on_networks_that_are_no_chain(middle, rng, key):
    p = problem(rng, key, ("first", Linear(5)), *middle, ("output", Linear(3)))
    estimates = many_estimates(p, ActivityPerturbation(PER_STEP_AND_EXAMPLE), key)
    assert_unbiased(estimates, flat(p.exact()))


@dataclass(frozen=True)
class Frozen:
    """A layer whose weights take part as constants."""

    layers: tuple

    def init(self, key, in_shape):
        ((name, inner),) = self.layers
        params, state, shape = inner.init(key, in_shape)
        return {name: params, "unused": np.ones(2, np.float32)}, {name: state}, shape

    def apply(self, params, state, x, context):
        ((name, inner),) = self.layers
        fixed = dn.stop_gradient(params[name])
        y, new = context.child(name, inner, fixed, state[name], x)
        return y, {name: new}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_frozen_and_unused_weights_have_gradient_zero(rule, at_the_end, rng, key):
    frozen = ("frozen", Frozen((("f", Linear(3)),)))
    layers = [("first", Linear(5)), frozen] if at_the_end else [frozen, ("output", Linear(3))]
    p = problem(rng, key, *layers)
    gradients = p.step(rule, key).gradients
    if not isinstance(rule, WeightPerturbation):  # whose zero is only in the mean
        assert not np.any(flat(gradients["frozen"]))
    assert np.any(flat(gradients))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "n"), [(17, 16), (65, 64), (5, 4)])
def test_projection_knows_dependent_signs(k, n, dtype, rng):
    """Inner products of signs are integers: singular matrices pass for regular ones by rounding."""
    errors = []
    for _ in range(30):
        v = rng.choice([-1.0, 1.0], (k, n)).astype(dtype)
        gradient = rng.standard_normal(n).astype(dtype)
        q, singular, _ = np.linalg.svd(v.T.astype(float), full_matrices=False)
        span = q[:, singular > 1e-9 * singular[0]]
        expected = span @ (span.T @ gradient)
        got = projection(v @ gradient, lambda v=v: v @ v.T) @ v
        errors.append(np.abs(got - expected).max() / np.linalg.norm(gradient))
    # In single precision one draw in thousands is so nearly dependent that a direction is lost;
    # taking rounding for rank, as a plain Cholesky solve does, spoils about half of all.
    within = np.sort(errors)[25 if dtype == np.float32 else -1]
    assert within < (1e-4 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_gradients_keep_their_dtype_whatever_the_targets(rule, rng, key):
    network = Sequential((("hidden", Linear(4)), ("relu", Activation(relu)), ("out", Linear(2))))
    params, state, _ = network.init(key, (3,))
    x, targets = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((5, 2))
    done = step(
        rule, Task(network, mean_squared_error), params, state, {}, x, targets, key, BACKEND
    )
    assert {g.dtype for g in tree.leaves(done.gradients)} == {np.dtype(np.float32)}
    assert done.correct == 0  # targets that are no labels


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_default_chunk_counts_what_the_directions_need(sampler, monkeypatch):
    params = {"w": np.zeros((300, 200), np.float32), "scale": np.zeros((), np.float32)}
    sizes = {"normal": 300 * 200, "rademacher": 300 * 200, "rank-one": 300 + 200}
    one = 4 * (sizes[sampler] + 1) + 2 * 10 * 4 * 200  # and two activations of 10 examples
    monkeypatch.setattr(samplers, "TANGENT_BYTES", 7 * one + one // 2)
    assert samplers.default_chunk(BACKEND, SAMPLERS[sampler], params, 10) == 7
