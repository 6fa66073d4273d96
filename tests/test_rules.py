"""What each learning rule computes: against exact gradients, by hand, and what it never does."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    EVERY_RULE,
    NETWORKS,
    WITH_BATCH_NORM,
    WITH_HEADS,
    assert_close,
    assert_unbiased,
    distance,
    estimates,
    flat,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.core.dual import primitive
from dualnet.core.engine import rule as derivative_rule
from dualnet.core.linear import LinearMap
from dualnet.errors import UsageError
from dualnet.learning import (
    RULES,
    ActivityDifferences,
    ActivityPerturbation,
    Backprop,
    ControlVariate,
    DirectFeedback,
    DirectKolenPollack,
    FeedbackAlignment,
    FiniteDifferences,
    ForwardDirectFeedback,
    GreedyActivityPerturbation,
    GreedyBackprop,
    GreedyFeedbackAlignment,
    LearnedFeedbackAlignment,
    LocalBackprop,
    LocalFeedbackAlignment,
    Task,
    WeightPerturbation,
    split_batch,
)
from dualnet.learning.direct_feedback import DirectErrors
from dualnet.nn import (
    ACTIVATIONS,
    Activation,
    Context,
    Conv2d,
    Flatten,
    GroupedLinear,
    Layer,
    Linear,
    Residual,
    Sequential,
    StopGradient,
    relu,
    softmax_cross_entropy,
    tanh,
)

WITH_ALL_WEIGHTS = (
    ("conv", Conv2d(4, 2, groups=2)),
    ("relu", Activation(relu)),
    ("flatten", Flatten()),
    ("grouped", GroupedLinear(6, groups=2)),
    ("tanh", Activation(tanh)),
    ("output", Linear(3)),
)
ON_NETWORKS = {
    **NETWORKS,
    "batch norm": ((6,), WITH_BATCH_NORM),
    "heads": ((6,), WITH_HEADS),
    "all weights": ((3, 3, 2), WITH_ALL_WEIGHTS),
}


def test_every_rule_has_a_place_among_those_tested():
    assert {type(rule) for rule in EVERY_RULE} == set(RULES.values())


# --- bp ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ON_NETWORKS)
def test_bp_is_the_gradient_of_the_mean_loss(network, rng, key):
    shape, layers = ON_NETWORKS[network]
    p = problem(rng, key, *layers, in_shape=shape, n=7)
    assert_close(p.step(Backprop(), key).gradients, p.exact(), 1e-13)


def by_hand_with_heads(p, stop):
    """The gradient of the mean of all three losses of `WITH_HEADS`, written out."""

    def linear(params, x):
        return x @ params["w"] + params["b"]

    def loss(params):
        def answer(head, h):
            return softmax_cross_entropy(linear(params[head]["linear"], h), p.labels).mean()

        z = linear(params["hidden1"], p.x)
        centered = z - z.mean(axis=-1, keepdims=True)
        normed = centered / np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
        h = np.maximum(normed * params["norm1"]["gain"] + params["norm1"]["bias"], 0.0)
        total = answer("head1", h)
        z = linear(params["hidden3"], np.tanh(linear(params["hidden2"], stop(h))))
        total = total + answer("head2", z)
        y = linear(params["output"], np.tanh(stop(z)))
        return total + softmax_cross_entropy(y, p.labels).mean()

    return dn.grad(loss)(p.params)


@pytest.mark.parametrize(
    ("rule", "stop"), [(LocalBackprop(), lambda h: h), (GreedyBackprop(), dn.stop_gradient)]
)
def test_local_losses_add_up_and_greedy_ones_are_cut_apart(rule, stop, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    assert_close(p.step(rule, key).gradients, by_hand_with_heads(p, stop), 1e-12)


# --- local heads -------------------------------------------------------------------------------

BLOCK1 = ("hidden1", "norm1", "head1")
BLOCK2 = ("hidden2", "hidden3", "head2")


def named(rules):
    return [pytest.param(rule, id=str(rule)) for rule in rules]


def locality(rule):
    return getattr(rule, "locality", "global")


@pytest.mark.parametrize("rule", named(r for r in EVERY_RULE if locality(r) == "greedy"))
def test_later_losses_do_not_reach_earlier_blocks(rule, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    rule_state = p.rule_state(rule)
    before = p.step(rule, key, rule_state=rule_state).gradients
    for earlier, later in [(BLOCK1, BLOCK2), ((*BLOCK1, *BLOCK2), ("output",))]:
        moved = {
            name: tree.map(lambda w: w + 0.5, q) if name in later else q
            for name, q in p.params.items()
        }
        after = replace(p, params=moved).step(rule, key, rule_state=rule_state).gradients
        for name in earlier:
            np.testing.assert_array_equal(flat(after[name]), flat(before[name]))
            assert np.any(flat(before[name]))
        if "norm1" not in later and "output" not in later:
            assert distance(after["hidden2"], before["hidden2"]) > 1e-3


@pytest.mark.parametrize(
    "rule",
    named(
        r for r in EVERY_RULE if locality(r) == "global" and not isinstance(r, WeightPerturbation)
    ),
)
def test_global_rules_leave_local_heads_alone(rule, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    gradients = p.step(rule, key).gradients
    assert not flat([gradients["head1"], gradients["head2"]]).any()
    assert np.all(np.abs(flat(gradients["hidden1"])).sum() > 0)


def test_fg_w_leaves_local_heads_alone_in_the_mean(rng, key):
    p = problem(rng, key, *WITH_HEADS)
    exact = p.exact()
    assert not flat([exact["head1"], exact["head2"]]).any()
    assert_unbiased(p, WeightPerturbation(60), key, 400, exact)


@pytest.mark.parametrize("rule", named(EVERY_RULE))
def test_loss_and_correct_are_those_of_the_networks_own_output(rule, rng, key):
    p = problem(rng, key, *WITH_HEADS, n=20)
    outputs, _ = p.task.network.apply(p.params, p.state, p.x, Context(train=True))
    done = p.step(rule, key, shards=3)
    assert np.isclose(done.loss, softmax_cross_entropy(outputs, p.labels).mean(), rtol=1e-12)
    assert done.correct == np.sum(outputs.argmax(-1) == p.labels)


# --- fa ----------------------------------------------------------------------------------------


def weights_as_feedback(p, rule):
    """The rule's own tree, with the weights in it."""

    def at(path):
        params = p.params
        for name in path.split("/"):
            params = params[name]
        return params["w"]

    return {path: {"w": at(path)} for path in p.rule_state(rule)}


EXACT = [
    (FeedbackAlignment(), Backprop()),
    (LocalFeedbackAlignment(), LocalBackprop()),
    (GreedyFeedbackAlignment(), GreedyBackprop()),
    (LearnedFeedbackAlignment(), Backprop()),
]


@pytest.mark.parametrize("network", ON_NETWORKS)
@pytest.mark.parametrize(("rule", "exact"), EXACT, ids=lambda rule: str(rule))
def test_fa_whose_feedback_is_the_weights_is_bp(network, rule, exact, rng, key):
    shape, layers = ON_NETWORKS[network]
    p = problem(rng, key, *layers, in_shape=shape)
    rule_state = weights_as_feedback(p, rule)
    expected = p.step(exact, key).gradients
    assert_close(p.step(rule, key, rule_state=rule_state).gradients, expected, 1e-12)
    assert distance(p.step(rule, key).gradients, expected) > 1e-3  # with feedback as drawn


def test_feedback_that_ffa_learns_tends_to_the_weights(rng, key):
    p = problem(rng, key, *WITH_ALL_WEIGHTS, in_shape=(3, 3, 2), n=64)
    rule = LearnedFeedbackAlignment()
    rule_state, weights = p.rule_state(rule), weights_as_feedback(p, rule)
    assert rule_state.keys() == {"conv", "grouped", "output"}
    errors = {path: [distance(rule_state[path], weights[path])] for path in rule_state}
    for i in range(120):
        rule_state = p.step(rule, key.fold_in(i), rule_state=rule_state).rule_state
        for path in rule_state:
            errors[path].append(distance(rule_state[path], weights[path]))
    for path, of_layer in errors.items():
        assert of_layer[0] > 0.1 and of_layer[60] < 0.01 and of_layer[-1] < 1e-6, path
    assert_close(p.step(rule, key, rule_state=rule_state).gradients, p.exact(), 1e-5)


# --- direct feedback ---------------------------------------------------------------------------


def forward(p):
    """Activities of `MLP` and the error at its outputs, by hand."""
    z1 = p.x @ p.params["hidden1"]["w"] + p.params["hidden1"]["b"]
    h1 = np.maximum(z1, 0)
    h2 = np.tanh(h1 @ p.params["hidden2"]["w"] + p.params["hidden2"]["b"])
    y = h2 @ p.params["output"]["w"] + p.params["output"]["b"]
    e = dn.grad(lambda y: softmax_cross_entropy(y, p.labels).sum())(y)
    return z1, h1, h2, e


DIRECT = [DirectFeedback(), DirectKolenPollack(), ForwardDirectFeedback()]


@pytest.mark.parametrize("rule", [FeedbackAlignment(), *DIRECT], ids=str)
def test_feedback_by_hand(rule, rng, key):
    """What comes back at a layer: for `fa` from the next layer's error, else from the outputs'."""
    p = problem(rng, key)
    feedback = p.rule_state(rule)
    z1, h1, h2, e = forward(p)
    e = e / 4
    if isinstance(rule, FeedbackAlignment):
        d2 = e @ feedback["output"]["w"].T * (1 - h2**2)
        d1 = d2 @ feedback["hidden2"]["w"].T * (z1 > 0)
    else:
        shapes = {"relu1": np.zeros((3, 5)), "tanh2": np.zeros((3, 4))}
        assert tree.describe(feedback) == tree.describe(shapes)
        d2 = e @ feedback["tanh2"] * (1 - h2**2)
        d1 = e @ feedback["relu1"] * (z1 > 0)
    expected = {
        "hidden1": {"w": p.x.T @ d1, "b": d1.sum(0)},
        "hidden2": {"w": h1.T @ d2, "b": d2.sum(0)},
        "output": {"w": h2.T @ e, "b": e.sum(0)},
    }
    got = p.step(rule, key, rule_state=feedback).gradients
    assert_close({name: got[name] for name in expected}, expected, 1e-12)


@pytest.mark.parametrize("rule", [DirectFeedback(), ControlVariate()], ids=str)
def test_the_jacobian_of_a_linear_network_as_feedback_gives_the_gradient(rule, rng, key):
    """`fg-a-cv` too: the residual of an exact guess is 0, and so is its forward gradient."""
    layers = (("one", Linear(5)), ("two", Linear(4)), ("output", Linear(3)))
    p = problem(rng, key, *layers)
    after_two = p.params["output"]["w"].T
    jacobians = {"one": after_two @ p.params["two"]["w"].T, "two": after_two}
    assert_close(p.step(rule, key, rule_state=jacobians).gradients, p.exact(), 1e-12)


def test_fg_a_cv_without_a_guess_is_fg_a_and_with_shrink_0_its_guess(rng, key):
    p = problem(rng, key)
    nothing = tree.map(np.zeros_like, p.rule_state(ControlVariate()))
    done = p.step(ControlVariate(3), key, rule_state=nothing)
    assert_close(done.gradients, p.step(ActivityPerturbation(3), key).gradients, 1e-12)
    drawn = p.rule_state(ControlVariate())
    guess = p.step(ControlVariate(shrink=0.0), key, rule_state=drawn).gradients
    by_activity = {"relu1": drawn["hidden1"], "tanh2": drawn["hidden2"]}
    assert_close(guess, p.step(DirectFeedback(), key, rule_state=by_activity).gradients, 1e-12)


def test_the_guess_of_fg_a_cv_removes_variance_with_batch_norm_too(rng, key):
    """What other examples move is guessed as well: a better guess, a smaller variance."""
    rule = ControlVariate(4, feedback_rate=0.1)

    def variance(p, rule_state):
        return estimates(p, rule, key, 60, rule_state=rule_state).var(0).sum()

    def left(p):
        nothing = rule_state = tree.map(np.zeros_like, p.rule_state(rule))
        for i in range(150):
            rule_state = p.step(rule, key.fold_in(i), rule_state=rule_state).rule_state
        return variance(p, rule_state) / variance(p, nothing)

    several = [problem(rng, key.fold_in(i), *WITH_BATCH_NORM, n=12) for i in range(5)]
    assert np.median([left(p) for p in several]) < 0.8  # of some problems it is more


def test_the_feedback_that_dkp_learns_by_hand(rng, key):
    p = problem(rng, key)
    rule = DirectKolenPollack(feedback_rate=0.3, feedback_decay=0.2)
    rule_state = p.rule_state(rule)
    _, h1, h2, e = forward(p)
    expected = {
        "relu1": rule_state["relu1"] - 0.3 * (e.T @ h1 / 4 + 0.2 * rule_state["relu1"]),
        "tanh2": rule_state["tanh2"] - 0.3 * (e.T @ h2 / 4 + 0.2 * rule_state["tanh2"]),
    }
    assert_close(p.step(rule, key, rule_state=rule_state).rule_state, expected, 1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        DirectKolenPollack(
            feedback_rate=0.3, feedback_decay=0.2, feedback_start="zeros", feedback_optimizer="adam"
        ),
        ForwardDirectFeedback(2, sampler="normal", feedback_rate=0.3, feedback_optimizer="adam"),
    ],
    ids=["dkp", "fdfa"],
)
def test_the_feedback_that_adam_learns_is_that_of_its_gradients(rule, rng, key):
    """Bacho and Chu, appendix A.  A step of plain descent says what the gradients are."""
    p = problem(rng, key)
    plain = replace(rule, feedback_optimizer="sgd")
    start = state = rule.init(key, p.plan, p.params)
    assert not flat(start).any()
    optimizer = dn.optim.Adam()
    matrices, moments = start["matrices"], optimizer.init(start["matrices"])
    for i in range(3):
        estimate = p.step(rule, key.fold_in(i), rule_state=state)
        by_plain = p.step(plain, key.fold_in(i), rule_state=matrices)
        assert_close(estimate.gradients, by_plain.gradients, 1e-12)
        gradients = tree.map(lambda b, new: (b - new) / 0.3, matrices, by_plain.rule_state)
        matrices, moments = optimizer.update(gradients, moments, matrices, 0.3)
        state = estimate.rule_state
        assert_close(state["matrices"], matrices, 1e-10)
        assert state["step"] == i + 1


def test_feedback_starts_as_wide_as_its_fan_in_says(rng, key):
    p = problem(rng, key, ("hidden", Linear(600)), ("tanh", Activation(tanh)), ("out", Linear(3)))
    of_start = {
        start: DirectFeedback(feedback_start=start).init(key, p.plan, p.params)["tanh"]
        for start in ("kaiming", "kaiming-activities")
    }
    for fan_in, b in zip((3, 600), of_start.values(), strict=True):
        largest = np.sqrt(6 / fan_in)
        assert 0.98 * largest < np.max(np.abs(b)) <= largest


def mean_jacobians(p, places):
    """Of the outputs by the activities at some places, over the batch, `(outputs, units)`."""

    def mean_outputs(offsets):
        tap = lambda path, y: y + offsets[path] if path in places else y  # noqa: E731
        return p.task.network.apply(p.params, p.state, p.x, Context(tap=tap))[0].mean(0)

    return dn.jacrev(mean_outputs)({path: np.zeros(n) for path, n in places.items()})


@pytest.mark.parametrize(
    ("rule", "places", "allowed"),
    [
        # variance β/(2 - β)/(64·8) of what one draw says, whose norm is some 3 times the Jacobian's
        (ForwardDirectFeedback(8, sampler="normal", feedback_rate=0.05), ("relu1", "tanh2"), 0.1),
        (
            ForwardDirectFeedback(8, sampler="rademacher", feedback_rate=0.05),
            ("relu1", "tanh2"),
            0.1,
        ),
        # directions go in before the activation, and say what lies after it
        (ControlVariate(8, feedback_rate=0.1), ("hidden1", "hidden2"), 0.15),
    ],
    ids=str,
)
def test_feedback_that_is_learned_forward_tends_to_the_jacobian(rule, places, allowed, rng, key):
    """Bacho and Chu, Eq. 12-13: that of the last hidden activity to the output weights."""
    p = problem(rng, key, n=64)
    rule_state = rule.init(key, p.plan, p.params)
    assert rule_state.keys() == set(places) and not flat(rule_state).any()
    for i in range(250):
        rule_state = p.step(rule, key.fold_in(i), rule_state=rule_state).rule_state
    assert distance(rule_state[places[1]], p.params["output"]["w"].T) < allowed
    if isinstance(rule, ForwardDirectFeedback):
        assert_close(rule_state, mean_jacobians(p, {"relu1": 5, "tanh2": 4}), allowed)


@pytest.mark.parametrize("rule", [DirectFeedback(), ForwardDirectFeedback()], ids=str)
def test_direct_feedback_needs_one_axis_of_outputs(rule, rng, key):
    p = problem(rng, key, ("hidden", Linear(4)), ("output", Linear(3)))
    with pytest.raises(UsageError, match=r"^feedback matrices need outputs \(N, outputs\), .*$"):
        replace(p, x=np.zeros((2, 7, 6))).rule_state(rule)


# --- fg-a --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_fg_a_weight_gradient_is_input_times_derivative_times_direction(place, rng, key):
    """The estimate written out by hand for one hidden layer and one example."""
    layers = (("hidden", Linear(4)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers, n=1)
    rule = ActivityPerturbation(1, perturb=place)
    z = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    place_of_z, at = ("hidden", z) if place == "before" else ("tanh", np.tanh(z))
    (shard,) = split_batch(p.batch, 1)
    directions = rule.sample(key, p.plan, p.params, BACKEND, 1)
    u = directions.drawer(shard)(place_of_z, 1, at, None)[0]

    def loss(z):
        h = np.tanh(z) if place == "before" else z
        y = h @ p.params["output"]["w"] + p.params["output"]["b"]
        return softmax_cross_entropy(y, p.labels).sum()

    g = dn.jvp(loss, (at,), (u,))[1] * u * (1.0 if place == "before" else 1 - at**2)
    got = p.step(rule, key).gradients
    assert_close(got["hidden"], {"w": p.x.T @ g, "b": g[0]}, 1e-12)
    assert_close(got["output"], p.exact()["output"], 1e-12)  # its true gradient


def test_fg_a_may_perturb_the_outputs_too(rng, key):
    """By hand: one scalar for the directions of hidden activities and of outputs together."""
    layers = (("hidden", Linear(4)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers, n=1)
    rule = ActivityPerturbation(1, perturb="after", output_layers="perturbed")
    h = np.tanh(p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"])
    output = p.params["output"]
    y = h @ output["w"] + output["b"]
    (shard,) = split_batch(p.batch, 1)
    draw = rule.sample(key, p.plan, p.params, BACKEND, 1).drawer(shard)
    u, v = draw("tanh", 1, h, None)[0], draw("output", 1, y, None)[0]

    def loss(h, shift):
        outputs = h @ output["w"] + output["b"] + shift
        return softmax_cross_entropy(outputs, p.labels).sum()

    d = dn.jvp(loss, (h, np.zeros_like(y)), (u, v))[1]
    got = p.step(rule, key).gradients
    assert_close(got["hidden"]["w"], p.x.T @ (d * u * (1 - h**2)), 1e-12)
    assert_close(got["output"], {"w": h.T @ (d * v), "b": d * v[0]}, 1e-12)


@pytest.mark.parametrize("independent", [True, False])
def test_the_projection_onto_all_activities_and_outputs_is_the_gradient(independent, rng, key):
    p = problem(rng, key, ("hidden", Linear(4)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    rule = ActivityPerturbation(
        7, aggregate="projection", perturb="after", independent=independent,
        output_layers="perturbed", sampler="normal",  # seven of signs may be dependent
    )  # fmt: skip
    assert_close(p.step(rule, key).gradients, p.exact(), 1e-6)
    fewer = p.step(replace(rule, tangents=6), key).gradients
    assert np.abs(fewer["output"]["w"] - p.exact()["output"]["w"]).max() > 1e-3


@pytest.mark.parametrize(
    "rule",
    [
        ForwardDirectFeedback(2),
        ForwardDirectFeedback(feedback_optimizer="adam"),
        DirectKolenPollack(feedback_rate=0.1, feedback_decay=0.1),
    ],
    ids=str,
)
def test_feedback_of_any_size_learns_the_same(rule, rng, key, monkeypatch):
    p = problem(rng, key)
    rule_state = p.step(rule, key, rule_state=rule.init(key, p.plan, p.params)).rule_state
    whole = p.step(rule, key, rule_state=rule_state).rule_state
    monkeypatch.setattr("dualnet.backends.pieces._PIECE_BYTES", 16)  # two numbers at a time
    by_pieces = p.step(rule, key, rule_state=rule_state).rule_state
    tree.map(np.testing.assert_array_equal, by_pieces, whole)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("rule", [ActivityPerturbation(2), ControlVariate(3)], ids=str)
def test_what_lies_ahead_of_an_activation_is_what_it_makes(rule, name, rng, key):
    """Functions that are known to act entry by entry are evaluated once, others with tangents."""
    known = ACTIVATIONS[name]

    def layers(function):
        inner = Residual({"block": Sequential({"inner": Linear(6)})})
        yield from (("hidden", Linear(6)), ("first", Activation(function)))
        yield from (("sum", inner), ("second", Activation(function)), ("output", Linear(3)))

    p = problem(rng, key, *layers(known))
    plain = replace(p, task=Task(Sequential(tuple(layers(lambda z: known(z)))), p.task.loss))
    one, two = (at.step(rule, key, rule_state=p.rule_state(rule)) for at in (p, plain))
    assert_close(one.gradients, two.gradients, 1e-12)


class Halved(Activation):
    def apply(self, params, state, x, context):
        return 0.5 * self.function(x), state


def test_an_activation_of_a_class_of_its_own_is_applied_as_it_says(rng, key):
    layers = (("hidden", Linear(6)), ("act", Halved(np.tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers)
    losses = [p.step(RULES[name](), key).loss for name in ("bp", "fg-a")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("shards", [1, 3])
def test_fg_a_with_directions_that_the_batch_shares(shards, rng, key):
    """Written out: one direction for all examples, but where their ReLU is off, and own losses."""
    layers = (("hidden", Linear(5)), ("relu", Activation(relu)), ("output", Linear(3)))
    p = problem(rng, key, *layers, n=4)
    rule = ActivityPerturbation(2, independent=False, sampler="normal")
    z = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    (shard,) = split_batch(p.batch, 1)
    draw = rule.sample(key, p.plan, p.params, BACKEND, 4).drawer(shard)
    u = draw("hidden", 1, z, None)
    assert np.all(u == u[:, :1]) and np.all(u[0] != u[1])
    w, b = p.params["output"]["w"], p.params["output"]["b"]
    sums = {"w": 0.0, "b": 0.0}
    for i in range(2):
        for n in range(4):
            v = u[i, 0] * (z[n] > 0)

            def loss(a, n=n):
                outputs = np.maximum(a, 0)[None] @ w + b
                return softmax_cross_entropy(outputs, p.labels[n : n + 1])[0]

            d = dn.jvp(loss, (z[n],), (v,))[1]
            sums["w"] += np.outer(p.x[n], d * v) / 8
            sums["b"] += d * v / 8
    got = p.step(rule, key, shards=shards).gradients
    assert_close(got["hidden"], sums, 1e-12)
    assert_close(got["output"], p.exact()["output"], 1e-12)


def test_examples_that_move_each_others_losses_need_directions_of_their_own(rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM)
    for rule in (ActivityPerturbation, GreedyActivityPerturbation):
        rule = rule(independent=False, batch_loss="own")
        for refuses in (rule.init, rule.sample):
            where = (BACKEND, 4) if refuses == rule.sample else ()
            with pytest.raises(UsageError, match="fg-a: a network or a loss in which examples"):
                refuses(key, p.plan, p.params, *where)


@pytest.mark.parametrize("activation", [relu, None])
def test_fg_a_does_not_perturb_units_that_are_off(activation, rng, key):
    between = () if activation is None else (("relu", Activation(activation)),)
    p = problem(rng, key, ("hidden", Linear(40)), *between, ("output", Linear(3)), n=1)
    z = (p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"])[0]
    moved = p.step(ActivityPerturbation(1), key).gradients["hidden"]["b"] != 0
    assert 0 < np.sum(z > 0) < 40
    assert np.array_equal(moved, z > 0 if activation else np.full(40, True))


# --- nothing flows backward --------------------------------------------------------------------


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


DIFFERENCES = (FiniteDifferences, ActivityDifferences)
CHAINS_BACKWARD = {"bp", "l-bp", "lg-bp", "fa", "l-fa", "lg-fa", "ffa"}


@pytest.mark.parametrize("rule", named(EVERY_RULE))
def test_only_bp_and_fa_pass_errors_back_through_layers(rule, spy, rng, key):
    layer, asked = spy
    p = problem(
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
    rule_state = p.rule_state(rule)
    asked.clear()
    p.step(rule, key, rule_state=rule_state)
    if any(type(rule) is RULES[name] for name in CHAINS_BACKWARD):
        by_turns = getattr(rule, "checkpointing", False)
        assert asked == (
            ["record", "backward"] * 2 if by_turns else ["record"] * 2 + ["backward"] * 2
        )
    elif isinstance(rule, (DirectFeedback, DirectKolenPollack, *DIFFERENCES)):
        assert asked == []  # no derivative of the whole network at all
    else:
        assert asked == ["forward", "forward"]


# --- networks that stop or freeze --------------------------------------------------------------


@pytest.mark.parametrize("rule", [FiniteDifferences(), ActivityDifferences()], ids=str)
def test_differences_refuse_what_stops_gradients(rule, rng, key):
    p = problem(rng, key, ("hidden", Linear(5)), ("stop", StopGradient()), ("output", Linear(3)))
    for ask in (lambda: p.step(rule, key, rule_state={}), lambda: rule.init(key, p.plan, p.params)):
        with pytest.raises(UsageError, match=f"{rule.name}: a difference passes through the stop-"):
            ask()


@pytest.mark.parametrize("rule", named(r for r in EVERY_RULE if not isinstance(r, DIFFERENCES)))
@pytest.mark.parametrize("at", [2, 4], ids=["in the middle", "before the last layer"])
def test_a_stop_gradient(rule, at, rng, key):
    """Before the last layer, no perturbation reaches the outputs."""
    layers = [
        ("hidden1", Linear(5)),
        ("tanh1", Activation(tanh)),
        ("hidden2", Linear(4)),
        ("tanh2", Activation(tanh)),
        ("output", Linear(3)),
    ]
    layers.insert(at, ("stop", StopGradient()))
    p = problem(rng, key, *layers)
    done = p.step(rule, key)
    assert np.isfinite(flat([done.gradients, done.rule_state])).all()
    if isinstance(rule, (Backprop, FeedbackAlignment)):  # for others 0 only in the mean
        assert not flat(done.gradients["hidden1"]).any()
        assert flat(done.gradients["hidden2"]).any() == (at == 2)
    perturbs_outputs = getattr(rule, "output_layers", "exact") == "perturbed"
    if at == 4 and not (
        perturbs_outputs or isinstance(rule, (WeightPerturbation, DirectErrors, ControlVariate))
    ):
        assert_close(done.gradients, p.exact(), 1e-12)


@dataclass(frozen=True)
class Frozen(Layer):
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


@pytest.mark.parametrize("rule", named(EVERY_RULE))
@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_frozen_and_unused_weights_have_gradient_zero(rule, at, rng, key):
    frozen = ("frozen", Frozen((("f", Linear(3)),)))
    layers = {
        "start": [frozen, ("output", Linear(3))],
        "middle": [("first", Linear(5)), frozen, ("output", Linear(3))],
        "end": [("first", Linear(5)), frozen],
    }[at]
    p = problem(rng, key, *layers)
    gradients = p.step(rule, key).gradients
    if not isinstance(rule, WeightPerturbation):  # whose zero is only in the mean
        assert not np.any(flat(gradients["frozen"]))
    if isinstance(rule, Backprop):
        assert_close(gradients, p.exact(), 1e-12)
    assert np.any(flat(gradients))
