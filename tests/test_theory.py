"""Means, variances and limits of learning rules, as the papers state them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    NETWORKS,
    WITH_BATCH_NORM,
    WITH_HEADS,
    Problem,
    assert_unbiased,
    bounded,
    directions_of,
    distance,
    estimates,
    flat,
    problem,
)

from dualnet import tree
from dualnet.learning import (
    ActivityPerturbation,
    ControlVariate,
    FiniteDifferences,
    ForwardDirectFeedback,
    GreedyActivityPerturbation,
    GreedyBackprop,
    GreedyWeightPerturbation,
    Task,
    WeightPerturbation,
    split_batch,
)
from dualnet.nn import Linear, Sequential, mean_squared_error

STEPS, PER_STEP, OF_EXAMPLE = 100, 240, 360
"""24,000 directions of weights, 36,000 of each example's activities; many in each step, so that
arrays are large and take most of the time."""


def of_network(name, rng, key):
    shape, layers = NETWORKS[name]
    return problem(rng, key, *layers, in_shape=shape)


# --- means -------------------------------------------------------------------------------------


def assert_unbiased_of_weights(p, sampler, key):
    """Orthogonal directions are no more than the network has parameters."""
    share = 4 if sampler == "orthogonal" else 1
    assert_unbiased(p, WeightPerturbation(PER_STEP // share, sampler=sampler), key, STEPS * share)


UNBIASED_SAMPLERS = ["normal", "rademacher", "rank-one", "rank-one-normal", "orthogonal"]


@pytest.mark.parametrize("sampler", UNBIASED_SAMPLERS)
def test_fg_w_is_unbiased(sampler, rng, key):
    assert_unbiased_of_weights(problem(rng, key), sampler, key)


@pytest.mark.parametrize(
    ("network", "sampler"),
    [
        ("convolution, group norm, residual", "rank-one"),
        ("mixer", "rank-one-normal"),
        ("attention", "orthogonal"),
    ],
)
def test_fg_w_is_unbiased_on_every_kind_of_network(network, sampler, rng, key):
    assert_unbiased_of_weights(of_network(network, rng, key), sampler, key)


def assert_unbiased_for_each_example(p, rule, key, exact=None):
    """With k tangents, so many draws are so many / k copies of each example."""
    assert_unbiased(p.repeated(OF_EXAMPLE // rule.tangents), rule, key, STEPS, exact)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("sampler", ["normal", "rademacher"])
@pytest.mark.parametrize("k", [1, 3])
def test_fg_a_is_unbiased(place, sampler, k, rng, key):
    p = problem(rng, key)
    assert_unbiased_for_each_example(
        p, ActivityPerturbation(k, sampler=sampler, perturb=place), key
    )


def test_fg_a_is_unbiased_with_perturbed_outputs(rng, key):
    rule = ActivityPerturbation(2, perturb="after", output_layers="perturbed")
    assert_unbiased_for_each_example(problem(rng, key), rule, key)


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        ("convolution, group norm, residual", ActivityPerturbation(1, sampler="normal")),
        (
            "convolution, group norm, residual",
            ActivityPerturbation(3, perturb="after"),
        ),
        # Not "after" here: where all units of a group are off, the norm that follows magnifies
        # what is put in after the activation 316-fold.
        ("mixer", ActivityPerturbation(1)),
        ("attention", ActivityPerturbation(1)),
        ("attention", ActivityPerturbation(3, perturb="after")),
    ],
    ids=str,
)
def test_fg_a_is_unbiased_on_every_kind_of_network(network, rule, rng, key):
    assert_unbiased_for_each_example(of_network(network, rng, key), rule, key)


# Not "dfa" with attention: what a random matrix guesses there is now and then so far off that a
# mean of as many draws as a test can take says nothing.
@pytest.mark.parametrize(
    ("network", "guess"),
    [
        ("mlp", "fdfa"),
        ("mlp", "dfa"),
        ("mlp", "last"),
        ("attention", "fdfa"),
        ("attention", "last"),
    ],
)
def test_fg_a_cv_is_unbiased_whatever_its_guess(network, guess, rng, key):
    rule = ControlVariate(1, guess=guess)
    p = of_network(network, rng, key)
    assert np.linalg.norm(flat(p.rule_state(rule))) > 0.5  # `Problem.step` starts from this
    assert_unbiased_for_each_example(p, rule, key)


@pytest.mark.parametrize(
    "rule",
    [
        ActivityPerturbation(PER_STEP),
        ActivityPerturbation(PER_STEP, perturb="after"),
        ControlVariate(PER_STEP),
    ],
    ids=str,
)
def test_rules_for_activities_are_unbiased_with_batch_norm(rule, rng, key):
    """Each example moves the others' losses: its own derivative alone would miss that."""
    p = problem(rng, key, *WITH_BATCH_NORM)
    assert_unbiased(p, rule, key, STEPS)


def test_lg_fg_w_is_unbiased_for_the_gradient_of_lg_bp(rng, key):
    p = problem(rng, key, *WITH_HEADS)
    exact = p.step(GreedyBackprop(), key).gradients
    assert_unbiased(p, GreedyWeightPerturbation(PER_STEP), key, STEPS, exact)


@pytest.mark.parametrize("place", ["before", "after"])
def test_lg_fg_a_is_unbiased_for_the_gradient_of_lg_bp(place, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    exact = p.step(GreedyBackprop(), key).gradients
    rule = GreedyActivityPerturbation(1, perturb=place)
    assert_unbiased_for_each_example(p, rule, key, exact)


# --- variances ---------------------------------------------------------------------------------


def terms(p, rule, key):
    """d_i v_i for each of many directions as rows; their mean is the rule's estimate."""
    directions = rule.sample(key, p.plan, p.params, BACKEND, len(p.x))
    (shard,) = split_batch(p.batch, 1)
    measured = rule.measure(p.plan, p.learner({}), directions, shard)
    rows = measured.total["derivatives"] / len(p.x) * directions_of(p, rule, key)
    gradients, _ = rule.estimate(measured.total, directions, p.learner({}), len(p.x))
    np.testing.assert_allclose(rows.mean(0), flat(gradients), rtol=1e-9, atol=1e-9)
    return rows


def one_matrix(rng, p, q, n=2):
    """Least squares with a linear map, so that nothing else is perturbed."""
    task = Task(Sequential((("output", Linear(q, bias=False)),)), mean_squared_error)
    params = {"output": {"w": rng.uniform(0.5, 1.5, (p, q))}}
    x, targets = rng.uniform(0.5, 1.5, (n, p)), rng.uniform(-1.5, -0.5, (n, q))
    return Problem(task, params, {"output": {}}, x, targets)


@pytest.mark.parametrize(("sampler", "sign"), [("normal", +1), ("rademacher", -1)])
def test_the_variance_of_each_component_of_a_forward_gradient(sampler, sign, rng, key):
    """|∇f|² + (∇f)_i² for normal entries, |∇f|² - (∇f)_i² for signs; 3 and 0 at n = 1."""
    for shape in [(1, 2), (2, 2)]:
        p = one_matrix(rng, *shape)
        g = flat(p.exact())
        rows = terms(p, WeightPerturbation(400_000, sampler=sampler), key)
        stated = g @ g + sign * g * g  # no component of g is small
        # the standard error of a variance of d v is at most sqrt(24 / 400,000) = 0.8 %
        assert np.max(np.abs(rows.var(0) / stated - 1)) < 0.05


@pytest.mark.parametrize(
    ("sampler", "factor", "allowed"),
    [
        ("normal", 13, 0.03),
        ("rademacher", 11, 0.03),
        ("rank-one", 11, 0.03),
        ("rank-one-normal", 5 * 6 - 1, 0.08),  # (p + 2) (q + 2) - 1, with heavy tails
    ],
)
def test_the_total_variance_of_fg_w(sampler, factor, allowed, rng, key):
    """(n + 1) |∇f|² for normal entries; (n - 1) |∇f|² for all signs, rank-one ones too."""
    p = one_matrix(rng, 3, 4)
    g = flat(p.exact())
    rows = terms(p, WeightPerturbation(400_000, sampler=sampler), key)
    assert abs(rows.var(0).sum() / (factor * g @ g) - 1) < allowed


BATCH = 2


def every_batch(rng, p, q):
    """Six examples, and the indices of all batches of two that can be drawn from them."""
    x, targets = bounded(rng, 6, p), bounded(rng, 6, q)
    return x, targets, list(itertools.product(range(6), repeat=BATCH))


def data_variance_and_square(of_examples):
    """V and S of Table 1, from the exact gradients of all examples as rows."""
    return of_examples.var(0).mean(), np.square(of_examples.mean(0)).mean()


def test_the_variance_of_fg_w_over_directions_and_data(rng, key):
    """Ren et al., Table 1, "FG-W, shared": (pq + 2)/N V + (pq + 1) S."""
    p, q = 3, 2
    x, targets, batches = every_batch(rng, p, q)
    whole = one_matrix(rng, p, q)
    on = lambda i: replace(whole, x=x[i], labels=targets[i])  # noqa: E731
    data, square = data_variance_and_square(np.array([flat(on([i]).exact()) for i in range(6)]))
    rule = WeightPerturbation(8000)
    rows = [terms(on(list(b)), rule, key.fold_in(i)) for i, b in enumerate(batches)]
    stated = (p * q + 2) / BATCH * data + (p * q + 1) * square
    # over seeds, the standard deviation of the ratio is a seventh of what is allowed
    assert abs(np.concatenate(rows).var(0).mean() / stated - 1) < 0.04


@pytest.mark.parametrize(("sampler", "steps", "more"), [("normal", 600, 2), ("rademacher", 300, 0)])
def test_the_variance_of_fg_a_over_directions_and_data(sampler, steps, more, rng, key):
    """Ren et al., Table 1, "FG-A, independent": (q + 2)/N V + (q + 1)/N S; two less for signs.

    Many batches at once: each has inputs, and copies of the weights, of its own.
    """
    p, q, copies = 2, 3, 10
    x, targets, batches = every_batch(rng, p, 2)
    network = Sequential((("hidden", Linear(q, bias=False)), ("output", Linear(2))))
    params, state, _ = network.init(key, (p,))
    params = tree.map(lambda w: rng.uniform(0.5, 1.5, w.shape), params)
    task = Task(network, mean_squared_error)
    whole = Problem(task, params, state, x, targets)
    on = lambda i: replace(whole, x=x[i : i + 1], labels=targets[i : i + 1])  # noqa: E731
    exact = np.array([np.ravel(on(i).exact()["hidden"]["w"]) for i in range(6)])
    data, square = data_variance_and_square(exact)

    chosen = np.array(batches * copies)
    blocks = len(chosen)
    spread = np.zeros((blocks, BATCH, blocks, p))
    spread[np.arange(blocks), :, np.arange(blocks)] = x[chosen]
    tiled = {"w": np.tile(params["hidden"]["w"], (blocks, 1))}
    many = replace(
        whole,
        params={**params, "hidden": tiled},
        x=np.reshape(spread, (blocks * BATCH, blocks * p)),
        labels=np.reshape(targets[chosen], (blocks * BATCH, 2)),
    )
    rule = ActivityPerturbation(1, sampler=sampler)
    rows = np.concatenate(
        [
            # the mean over all blocks' examples, of which a block has only its own
            np.reshape(
                blocks * many.step(rule, key.fold_in(i)).gradients["hidden"]["w"], (-1, p * q)
            )
            for i in range(steps)
        ]
    )
    stated = (q + more) / BATCH * data + (q + more - 1) / BATCH * square
    # again seven standard deviations
    assert abs(rows.var(0).mean() / stated - 1) < 0.05
    assert np.max(np.abs(rows.mean(0) - exact.mean(0))) < 0.03 * np.sqrt(stated)


class At(ActivityPerturbation):
    """`fg-a` whose one direction, which the batch shares, is a point of the test's."""

    def sample(self, *args):
        draw = lambda key, shape, dtype, first: np.broadcast_to(self.point, shape)  # noqa: E731
        return replace(super().sample(*args), draw_array=draw)


@pytest.mark.parametrize(
    ("points", "more"),
    [({-math.sqrt(3): 1 / 6, 0.0: 2 / 3, math.sqrt(3): 1 / 6}, 2), ({-1.0: 1 / 2, 1.0: 1 / 2}, 0)],
    ids=["normal", "rademacher"],
)
def test_the_variance_of_fg_a_with_shared_directions_over_directions_and_data(
    points, more, rng, key, monkeypatch
):
    """Ren et al., Table 1, "FG-A, shared": (q + 2)/N V + (q + 1) S; two less for signs.

    Means over normal directions are exact, by three points for each entry, as those over signs are
    by two, and those over data.
    """
    p, q = 2, 3
    x, targets, batches = every_batch(rng, p, 2)
    network = Sequential((("hidden", Linear(q, bias=False)), ("output", Linear(2))))
    params, state, _ = network.init(key, (p,))
    params = tree.map(lambda w: rng.uniform(0.5, 1.5, w.shape), params)
    whole = Problem(Task(network, mean_squared_error), params, state, x, targets)
    on = lambda i: replace(whole, x=x[i], labels=targets[i])  # noqa: E731
    exact = np.array([np.ravel(on([i]).exact()["hidden"]["w"]) for i in range(6)])
    data, square = data_variance_and_square(exact)
    rule, weights, rows = At(1, independent=False), [], []
    for point in itertools.product(points, repeat=q):
        monkeypatch.setattr(At, "point", np.array(point), raising=False)
        for batch in batches:
            weights.append(math.prod(points[u] for u in point) / len(batches))
            rows.append(np.ravel(on(list(batch)).step(rule, key).gradients["hidden"]["w"]))
    mean = np.average(rows, axis=0, weights=weights)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-9, atol=1e-12)
    variance = np.average(np.square(rows - mean), axis=0, weights=weights).mean()
    stated = (q + more) / BATCH * data + (q + more - 1) * square
    assert math.isclose(variance, stated, rel_tol=1e-9)


def test_fg_a_varies_less_than_fg_w(rng, key):
    p = problem(rng, key)
    by_weight = estimates(p, WeightPerturbation(8), key, 400).var(0).sum()
    by_activity = estimates(p, ActivityPerturbation(8), key, 400).var(0).sum()
    assert by_activity < 0.5 * by_weight  # 9 units of each example against 74 weights


# --- limits ------------------------------------------------------------------------------------


def slope(x, y):
    """Of log y against log x."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


@pytest.mark.parametrize("sampler", ["normal", "rank-one", "orthogonal"])
def test_wp_tends_to_fg_w_linearly(sampler, rng, key):
    p = problem(rng, key, ("hidden", Linear(5)), ("output", Linear(3)))
    limit = p.step(WeightPerturbation(4, sampler=sampler), key).gradients
    steps = [1e-3, 1e-4, 1e-5]
    errors = [
        distance(p.step(FiniteDifferences(4, sampler=sampler, difference=e), key).gradients, limit)
        for e in steps
    ]
    assert abs(slope(steps, errors) - 1) < 0.1
    assert errors[-1] < 1e-3


def test_the_variance_that_fdfa_adds_falls_as_the_square_of_its_rate(rng, key):
    """Bacho and Chu, Prop. 2: from a converged B, one step's noise reaches the next gradient.

    For one example Var g_ij = β² x_i² s_j² (|e J|² + (e J)_j²), with s the slope of the
    activation, e the output error and J = Wᵀ.
    """
    p = problem(rng, key, *NETWORKS["mlp"][1][2:], n=1)  # hidden2, tanh2, output
    w = p.params["output"]["w"]
    converged = {"tanh2": w.T}

    def gradients(rate):
        rule = ForwardDirectFeedback(feedback_rate=rate)
        rows = []
        for i in range(400):
            of_step = key.fold_in(rate.hex()).fold_in(i)
            rule_state = p.step(rule, of_step, rule_state=converged).rule_state
            gradients = p.step(rule, key, rule_state=rule_state).gradients
            rows.append(np.ravel(gradients["hidden2"]["w"]))
        return np.array(rows)

    rates = [0.1, 0.01, 0.001]
    variances = [gradients(rate).var(0).sum() for rate in rates]
    assert abs(slope(rates, variances) - 2) < 0.1

    h = np.tanh(p.x @ p.params["hidden2"]["w"] + p.params["hidden2"]["b"])
    z = h @ w + p.params["output"]["b"]
    e = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    e[0, p.labels[0]] -= 1.0
    back, s = e @ w.T, 1 - h**2
    stated = rates[0] ** 2 * np.sum(p.x**2) * np.sum(s**2 * (back @ back.T + back**2))
    assert abs(variances[0] / stated - 1) < 0.8  # of only 400 draws with heavy tails
