"""Random directions of weights: how they are drawn and mixed, and what is made of derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    MLP,
    NETWORKS,
    WITH_BATCH_NORM,
    WITH_HEADS,
    Problem,
    assert_close,
    directions_of,
    flat,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.core.spaces import RankOne, dense
from dualnet.errors import UsageError
from dualnet.learning import (
    WEIGHT_AGGREGATIONS,
    WEIGHT_SAMPLERS,
    ActivityPerturbation,
    ControlVariate,
    GreedyActivityPerturbation,
    GreedyBackprop,
    GreedyWeightPerturbation,
    Task,
    WeightPerturbation,
)
from dualnet.learning.aggregate import projection
from dualnet.learning.directions import weights
from dualnet.learning.directions.low_rank import LowRank
from dualnet.learning.directions.samplers import Sampler, sampler_of
from dualnet.nn import Context, Linear, Sequential, softmax_cross_entropy

WITH_NUMBERS = ["rank-one:3", "varying:3", "angle:30", "orthogonal-angle:30"]
EVERY_SAMPLER = [*WEIGHT_SAMPLERS, *WITH_NUMBERS, "normal:unit", "rank-one:3:unit"]
RANDOM = ["normal", "rademacher", "rank-one", "rank-one-normal", "rank-one:3"]
ORTHOGONAL = ["orthogonal", "orthonormal", "orthogonal-lengths", "orthogonal-angle:30"]


def mixed_directions(p, rule, key):
    """The directions that a rule's estimate is made of, as rows over all parameters."""
    v = directions_of(p, rule, key)
    mix = sampler_of(rule.sampler).mix
    return v if mix is None else mix(v @ v.T, v.shape[1]) @ v


# --- draws -------------------------------------------------------------------------------------


def test_every_direction_of_every_leaf_is_independent(rng, key):
    p = problem(rng, key, ("one", Linear(6, bias=False)), ("two", Linear(6, bias=False)))
    k = 4000
    for sampler in RANDOM:
        rows = directions_of(p, WeightPerturbation(k, sampler=sampler), key)
        one, two = rows[:, :36], rows[:, 36:]
        # products of four normal factors have fourth moments of 81, not 9
        bound = (12 if sampler == "rank-one-normal" else 6) / math.sqrt(k)
        assert abs((one * two).mean(0)).max() < bound, f"{sampler}: equal leaves share draws"
        assert abs((rows[1:] * rows[:-1]).mean(0)).max() < bound, f"{sampler}: directions repeat"
        covariance = rows.T @ rows / k
        assert abs(covariance - np.eye(72)).max() < 2 * bound, f"{sampler}: not identity"


def test_directions_follow_the_path_and_not_the_order_of_parameters(rng, key):
    p = problem(rng, key)
    backwards = {name: p.params[name] for name in reversed(p.params)}
    rule = WeightPerturbation(3)
    one, other = (
        rule.sample(key, p.plan, params, BACKEND, 4).draw(0, 3) for params in (p.params, backwards)
    )
    tree.map(lambda a, b: np.testing.assert_array_equal(a, b), one, other)


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_a_chunk_counts_what_the_directions_need(sampler, monkeypatch):
    params = {"w": np.zeros((300, 200), np.float32), "scale": np.zeros((), np.float64)}
    size = 300 + 200 if sampler.startswith("rank-one") else 300 * 200
    one = 4 * (3 if "3" in sampler and "rank" in sampler else 1) * size + 8
    assert weights.direction_bytes(sampler_of(sampler), params) == one
    monkeypatch.setattr(weights, "TANGENT_BYTES", 7 * one + one // 2)
    assert weights.directions_that_fit(one) == 7 and weights.directions_that_fit(9**9) == 1


class Counted(WeightPerturbation):
    """How many directions each pass carried."""

    def along(self, losses, params, tangents):
        self.passes.append(len(tree.leaves(tree.map(dense, tangents))[0]))
        return super().along(losses, params, tangents)


@pytest.mark.parametrize("sampler", ["normal", "rank-one", "rank-one:2"])
def test_a_pass_counts_the_activations_of_images(sampler, rng, key, monkeypatch):
    """16 pixels of 4 channels are most of all outputs, though no weights have so many."""
    shape, layers = NETWORKS["convolution, group norm, residual"]
    p = problem(rng, key, *layers, in_shape=shape, n=6)
    of_example = 2 * 3 * 3 * 4 * p.x.itemsize  # a 2x2 window leaves 3x3 of 4x4 pixels
    assert p.plan.activation_bytes == of_example
    whole = p.step(WeightPerturbation(8, sampler=sampler, aggregate="projection"), key).gradients
    monkeypatch.setattr(Counted, "passes", [], raising=False)
    monkeypatch.setattr(weights, "TANGENT_BYTES", 3 * 6 * of_example)
    for shards in (1, 3):
        Counted.passes.clear()
        got = p.step(
            Counted(8, sampler=sampler, aggregate="projection"), key, shards=shards
        ).gradients
        # rounding is magnified by the solve
        assert_close(got, whole, 1e-9)
        assert max(Counted.passes) <= 3 and sum(Counted.passes) == 8 * shards
        Counted.passes.clear()
        p.step(Counted(8, sampler=sampler, tangent_chunk=5), key, shards=shards)
        assert Counted.passes == [5, 3] * shards


# --- mixtures ----------------------------------------------------------------------------------

K = 6
LENGTHS = 2 * np.arange(1, K + 1) / (K + 1)
ALONG = math.cos(math.radians(30))
AT_30_DEGREES = np.full((K, K), ALONG**2) + (1 - ALONG**2) * np.eye(K)
AT_30_DEGREES[0, 1:] = AT_30_DEGREES[1:, 0] = ALONG

INNER_PRODUCTS = {
    "orthogonal": lambda n: n * np.eye(K),
    "orthonormal": lambda n: np.eye(K),
    "orthogonal-lengths": lambda n: n * np.diag(LENGTHS**2),
    "orthogonal-angle:30": lambda n: n * AT_30_DEGREES,
}


@pytest.mark.parametrize("sampler", INNER_PRODUCTS)
def test_the_lengths_and_angles_of_mixed_directions(sampler, rng, key):
    p = problem(rng, key)
    v = mixed_directions(p, WeightPerturbation(K, sampler=sampler), key)
    n = v.shape[1]
    np.testing.assert_allclose(v @ v.T, INNER_PRODUCTS[sampler](n), rtol=1e-10, atol=1e-10 * n)
    # the first goes along the first drawn
    first = directions_of(p, WeightPerturbation(K), key)[0]
    assert np.isclose(v[0] @ first, np.linalg.norm(v[0]) * np.linalg.norm(first))


@pytest.mark.parametrize("degrees", [15, 90])
def test_directions_at_an_angle_turn_away_from_the_first_as_published(degrees, rng, key):
    """Each in the plane of the first and its own draw, so that they are not beside one another."""
    p = problem(rng, key)
    drawn = directions_of(p, WeightPerturbation(K), key)
    along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    first = drawn[0] / np.linalg.norm(drawn[0])
    expected = [first]
    for row in drawn[1:]:
        beside = row - (row @ first) * first
        expected.append(along * first + across * beside / np.linalg.norm(beside))
    v = mixed_directions(p, WeightPerturbation(K, sampler=f"angle:{degrees}"), key)
    np.testing.assert_allclose(v, expected, rtol=1e-9, atol=1e-12)


def test_directions_of_one_parameter_have_no_angles(rng, key):
    p = problem(rng, key, ("output", Linear(1, bias=False)), in_shape=(1,))
    p.step(WeightPerturbation(1, sampler="angle:30"), key)
    with pytest.raises(UsageError, match=r"^angle:DEG needs 2 parameters or more"):
        p.step(WeightPerturbation(2, sampler="angle:30"), key)


@pytest.mark.parametrize("sampler", [*WEIGHT_SAMPLERS, *WITH_NUMBERS])
def test_unit_directions_have_length_one_and_go_the_same_way(sampler, rng, key):
    p = problem(rng, key)
    v = mixed_directions(p, WeightPerturbation(K, sampler=f"{sampler}:unit"), key)
    plain = mixed_directions(p, WeightPerturbation(K, sampler=sampler), key)
    np.testing.assert_allclose(
        v, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-12, rtol=1e-9
    )


@pytest.mark.parametrize("sampler", ORTHOGONAL)
def test_only_so_many_directions_can_be_orthogonal(sampler, rng, key):
    p = problem(rng, key, ("output", Linear(1, bias=False)))
    p.step(WeightPerturbation(7, sampler="normal:unit"), key)
    for name in (sampler, f"{sampler}:unit"):
        with pytest.raises(UsageError, match=r"^only 6 directions of 6 parameters can be .*not 7$"):
            p.step(WeightPerturbation(7, sampler=name), key)


# --- the standard basis, and sums of outer products --------------------------------------------


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("network", NETWORKS)
def test_basis_directions_are_those_of_all_parameters_together(network, chunk, rng, key):
    shape, layers = NETWORKS[network]
    p = problem(rng, key, *layers, in_shape=shape)
    n, exact = tree.size(p.params), flat(p.exact())
    for k in (5, n + 3):
        rule = WeightPerturbation(k, sampler="basis", tangent_chunk=chunk)
        if chunk is None:
            np.testing.assert_array_equal(directions_of(p, rule, key), np.eye(k, n))
        elif k > 50:
            continue  # passes by the hundred
        for aggregate, factor in [("sum", 1.0), ("mean", 1 / k), ("projection", 1.0)]:
            got = flat(p.step(replace(rule, aggregate=aggregate), key).gradients)
            off = got - factor * np.where(np.arange(n) < k, exact, 0)
            assert np.linalg.norm(off) < 1e-9 * np.linalg.norm(exact), f"{k} {aggregate}"


@pytest.mark.parametrize("aggregate", WEIGHT_AGGREGATIONS)
@pytest.mark.parametrize("sampler", ["basis", "basis:unit"])
def test_directions_of_no_length_do_no_harm(sampler, aggregate, rng, key):
    """Beyond the last parameter, and in the blocks of a greedy rule that no direction moves."""
    p = problem(rng, key, ("output", Linear(2)))
    assert np.isfinite(
        flat(p.step(WeightPerturbation(20, sampler=sampler, aggregate=aggregate), key).gradients)
    ).all()
    p = problem(rng, key, *WITH_HEADS)
    moved = flat(
        p.step(
            GreedyWeightPerturbation(
                3, sampler=sampler, aggregate=aggregate, output_layers="perturbed"
            ),
            key,
        ).gradients
    )
    assert np.isfinite(moved).all() and moved[:3].any() and not moved[3:].any()


@pytest.mark.parametrize("aggregate", WEIGHT_AGGREGATIONS)
@pytest.mark.parametrize("sampler", [*EVERY_SAMPLER, "basis:unit"])
def test_where_nothing_is_perturbed_gradients_are_exact(sampler, aggregate, rng, key):
    p = problem(rng, key, ("output", Linear(2)))
    how = {"sampler": sampler, "aggregate": aggregate, "output_layers": "exact"}
    if sampler.startswith("varying"):
        with pytest.raises(UsageError, match="at most 0 directions of 0 parameters, not 3"):
            p.step(WeightPerturbation(3, **how), key)
        return
    for rule in (WeightPerturbation(3, **how), GreedyWeightPerturbation(3, **how)):
        assert_close(flat(p.step(rule, key).gradients), flat(p.exact()), 1e-12)


def test_varying_directions_each_move_another_parameter_by_a_random_length(rng, key):
    p = problem(rng, key)
    n = tree.size(p.params)
    v = directions_of(p, WeightPerturbation(n, sampler="varying:3"), key)
    places, lengths = v.argmax(1), v.max(1)
    assert (np.count_nonzero(v, axis=1) == 1).all() and len(set(places)) == n
    assert not np.array_equal(places, np.sort(places))  # a chance of one in n!
    assert 1 <= lengths.min() and lengths.max() <= 3
    # The mean of n uniform lengths, by five standard errors.
    assert abs(lengths.mean() - 2) < 5 * (2 / math.sqrt(12)) / math.sqrt(n)
    with pytest.raises(UsageError, match=rf"at most {n} directions of {n} parameters, not {n + 1}"):
        p.step(WeightPerturbation(n + 1, sampler="varying:3"), key)


def test_sums_of_outer_products_have_their_rank(rng, key):
    p = problem(rng, key)
    for rank in (1, 2, 4, 40):
        rule = WeightPerturbation(30, sampler=f"rank-one:{rank}")
        drawn = rule.sample(key, p.plan, p.params, BACKEND, 4).draw(0, 30)
        w = dense(drawn["hidden1"]["w"])
        # signs may agree, so that now and then the rank is lower
        assert np.linalg.matrix_rank(w).max() == min(rank, 5)
        whole = np.sqrt(rank) * w
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-12)  # a sum of signs
        assert np.all(np.round(whole).astype(int) % 2 == rank % 2)
    one, other = (
        directions_of(p, WeightPerturbation(3, sampler=s), key) for s in ("rank-one", "rank-one:1")
    )
    np.testing.assert_array_equal(one, other)


def test_sums_of_outer_products_are_never_made_dense(rng, key, monkeypatch):
    shape, layers = NETWORKS["convolution, group norm, residual"]
    p = problem(rng, key, *layers, in_shape=shape)
    rule = WeightPerturbation(4, sampler="rank-one:3", aggregate="projection")
    expected = p.step(rule, key).gradients
    for space in (RankOne, LowRank):
        monkeypatch.setattr(space, "dense", None)
    assert_close(p.step(rule, key).gradients, expected, 0.0)


# --- aggregations ------------------------------------------------------------------------------


def of_one(i, d, v):
    return d[i] * v[i]


BY_HAND = {
    "mean": lambda d, v: d @ v / len(d),
    "sum": lambda d, v: d @ v,
    "mean-times-n": lambda d, v: v.shape[1] * (d @ v) / len(d),
    "projection": lambda d, v: np.linalg.pinv(v) @ d,
    "largest": lambda d, v: of_one(np.argmax(np.abs(d)), d, v),
    "steepest": lambda d, v: of_one(np.argmax(np.abs(d) / np.linalg.norm(v, axis=1)), d, v),
    "near-best": lambda d, v: (
        np.sum([a * b for a, b in zip(d, v, strict=True) if near_the_best(a, b, d, v)], axis=0) / K
    ),
    "steepest-projection": lambda d, v: BY_HAND["largest"](
        d / np.linalg.norm(v, axis=1), v / np.linalg.norm(v, axis=1, keepdims=True)
    ),
    "better-half": lambda d, v: np.mean(
        [a * b for a, b in zip(d, v, strict=True) if abs(a) >= abs(d).max() / 2], axis=0
    ),
    "corrected-mean": lambda d, v: (
        BY_HAND["mean"](d, v)
        / (math.sqrt((v.shape[1] + K) / (1 + K)) / v.shape[1] * np.mean(np.sum(v**2, axis=1)))
    ),
    "corrected-projection": lambda d, v: (
        BY_HAND["projection"](d, v) / (mean_length(K) / mean_length(v.shape[1]))
    ),
}


def near_the_best(a, b, d, v):
    """Whether the cosine of a direction b, times the length of the gradient, is near the best."""
    return abs(a) / np.linalg.norm(b) >= max(abs(d) / np.linalg.norm(v, axis=1)) - 0.1


def mean_length(n):
    """Of n independent normal numbers: for even n, sqrt(2) · Γ((n + 1) / 2) / Γ(n / 2)."""
    return math.sqrt(2) * math.gamma((n + 1) / 2) / math.gamma(n / 2)


@pytest.mark.parametrize("aggregate", WEIGHT_AGGREGATIONS)
@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_every_aggregation_of_every_kind_of_directions_by_hand(aggregate, sampler, rng, key):
    p = problem(rng, key)
    rule = WeightPerturbation(K, sampler=sampler, aggregate=aggregate)
    v = mixed_directions(p, rule, key)
    expected = BY_HAND[aggregate](v @ flat(p.exact()), v)
    assert_close(p.step(rule, key).gradients, expected, 1e-9)
    single = replace(p, params=tree.map(np.float32, p.params), x=p.x.astype(np.float32))
    gradients = single.step(rule, key).gradients
    assert {g.dtype for g in tree.leaves(gradients)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("published", "ours", "expected"),
    [
        ("near-best", "better-half", (0.357, 5.6)),
        ("steepest", "steepest-projection", (20.3, 0.318)),
    ],
)
def test_how_long_published_estimates_are_beside_ours(published, ours, expected, rng, key):
    """With 64 normal directions and a gradient of 64 ones, relative to it; means of 500 draws."""
    n = k = 64
    exact = np.ones(n)
    lengths = []
    for _ in range(500):
        v = rng.normal(size=(k, n))
        both = [
            WEIGHT_AGGREGATIONS[a](v @ exact, lambda v=v: v @ v.T, n) for a in (published, ours)
        ]
        lengths.append([np.linalg.norm(c @ v) / np.linalg.norm(exact) for c in both])
    errors = np.std(lengths, axis=0) / math.sqrt(len(lengths))
    rounded = 0.01 * np.array(expected)
    assert (np.abs(np.mean(lengths, axis=0) - expected) < 7 * errors + rounded).all()


# --- projection --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        *[
            ("mlp", WeightPerturbation(k, sampler=sampler, aggregate="projection"))
            for sampler in EVERY_SAMPLER
            for k in (1, 2, 20)
        ],
        *[
            (
                network,
                WeightPerturbation(20, sampler="rank-one", aggregate="projection", tangent_chunk=7),
            )
            for network in NETWORKS
        ],
    ],
    ids=str,
)
def test_projection_is_the_nearest_point_of_the_span(network, rule, rng, key):
    shape, layers = NETWORKS[network]
    p = problem(rng, key, *layers, in_shape=shape)
    q, _ = np.linalg.qr(directions_of(p, rule, key).T)
    exact = flat(p.exact())
    # One basis of the whole network's span: a projection leaf by leaf would differ.
    off = flat(p.step(rule, key).gradients) - q @ (q.T @ exact)
    # not relative to the projection: the first parameter's derivative, of `basis`, may be 0
    assert np.linalg.norm(off) < 1e-9 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("sampler", "layers", "more", "allowed"),
    [
        *[(name, MLP, 40, 1e-8) for name in ("basis", *RANDOM)],
        *[(name, MLP, 0, 1e-5) for name in ("varying:3", "angle:30")],
        *[(name, (("output", Linear(3)),), 0, 1e-5) for name in ORTHOGONAL],
    ],
)
def test_projection_on_the_whole_space_is_the_gradient(sampler, layers, more, allowed, rng, key):
    """Of orthogonal directions there are no more than weights."""
    p = problem(rng, key, *layers)
    rule = WeightPerturbation(tree.size(p.params) + more, sampler=sampler, aggregate="projection")
    assert_close(p.step(rule, key).gradients, p.exact(), allowed)


def repeated(backend, key, params, start, stop):
    """Directions 0, 0, 1, 1, 2, 2, ...: every one twice."""
    once = WEIGHT_SAMPLERS["normal"].draw(backend, key, params, start // 2, (stop + 1) // 2)
    return tree.map(lambda t: t[np.arange(start, stop) // 2 - start // 2], once)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
@pytest.mark.parametrize("chunk", [None, 3])
def test_projection_handles_repeated_directions(chunk, dtype, tolerance, rng, key, monkeypatch):
    # In chunks, the derivatives along a direction and its double differ by rounding.
    monkeypatch.setitem(WEIGHT_SAMPLERS, "repeated", Sampler(repeated))
    p = problem(rng, key, dtype=dtype)
    twice = p.step(
        WeightPerturbation(10, sampler="repeated", aggregate="projection", tangent_chunk=chunk), key
    )
    once = p.step(WeightPerturbation(5, sampler="normal", aggregate="projection"), key)
    assert_close(twice.gradients, once.gradients, tolerance)


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
        got = projection(v @ gradient, lambda v=v: v @ v.T, n) @ v
        errors.append(np.abs(got - expected).max() / np.linalg.norm(gradient))
    # In single precision one draw in thousands is so nearly dependent that a direction is lost;
    # taking rounding for rank, as a plain Cholesky solve does, spoils about half of all.
    within = np.sort(errors)[25 if dtype == np.float32 else -1]
    assert within < (1e-4 if dtype == np.float32 else 1e-8)


def test_the_mean_squared_cosine_of_a_projection_is_k_over_n(rng, key):
    p = problem(rng, key)
    exact, k = flat(p.exact()), 20
    rows = [
        flat(
            p.step(
                WeightPerturbation(k, sampler="normal", aggregate="projection"), key.fold_in(i)
            ).gradients
        )
        for i in range(400)
    ]
    squares = [(g @ exact) ** 2 / (g @ g) / (exact @ exact) for g in rows]
    # beta-distributed with parameters k/2 and (n - k)/2
    n = len(exact)
    deviation = math.sqrt(2 * k * (n - k) / (n * n * (n + 2)))
    assert abs(np.mean(squares) - k / n) < 5.5 * deviation / math.sqrt(400)


def test_projection_of_a_vanishing_gradient_is_zero(rng, key):
    task = Task(Sequential((("output", Linear(2)),)), lambda y, _: 0.0 * y.sum(-1))
    params, state, _ = task.network.init(key, (3,))
    p = Problem(task, params, state, np.ones((2, 3), np.float32), np.zeros(2, int))
    done = p.step(WeightPerturbation(4, aggregate="projection"), key)
    assert not flat(done.gradients).any()


# --- projection of activities ------------------------------------------------------------------


def activity_gradients(p, places):
    """The exact gradient of the summed loss by each place's activity, and the activities."""
    seen = {}

    def watch(path, y):
        if path in places:
            seen[path] = y
        return y

    context = Context(train=True, tap=watch)
    p.task.network.apply(p.params, p.state, p.x, context)

    def loss(offsets):
        tap = lambda path, y: y + offsets[path] if path in places else y  # noqa: E731
        y, _ = p.task.network.apply(p.params, p.state, p.x, Context(train=True, tap=tap))
        return softmax_cross_entropy(y, p.labels).sum()

    return dn.grad(loss)({path: np.zeros_like(z) for path, z in seen.items()}), seen


@pytest.mark.parametrize("k", [1, 4, 12, 30])
def test_activity_projection_is_the_projection_of_each_examples_gradient(k, rng, key):
    """Onto the span of its directions at all places together; of 9 or more, all of the space."""
    p = problem(rng, key)
    rule = ActivityPerturbation(k, aggregate="projection")
    of_activities, seen = activity_gradients(p, ("hidden1", "hidden2"))
    slopes = {"hidden1": 1.0 * (seen["hidden1"] > 0), "hidden2": None}
    directions = rule.sample(key, p.plan, p.params, BACKEND, 4)
    draw = directions.drawer(dn.learning.split_batch(p.batch, 1)[0])
    u = np.concatenate([draw(path, 1, seen[path], slopes[path]) for path in seen], axis=2)
    g = np.concatenate([of_activities[path] for path in seen], axis=1)
    for n in range(4):
        vectors, singular, _ = np.linalg.svd(u[:, n].T, full_matrices=False)
        span = vectors[:, singular > 1e-9]
        g[n] = span @ (span.T @ g[n])
    h1 = np.maximum(seen["hidden1"], 0.0)
    expected = {
        "hidden1": {"w": p.x.T @ g[:, :5] / 4, "b": g[:, :5].mean(0)},
        "hidden2": {"w": h1.T @ g[:, 5:] / 4, "b": g[:, 5:].mean(0)},
    }
    got = p.step(rule, key).gradients
    assert_close({name: got[name] for name in expected}, expected, 1e-9)


@pytest.mark.parametrize("make", [ActivityPerturbation, ControlVariate])
@pytest.mark.parametrize(
    ("layers", "k"), [(MLP, 12), (WITH_BATCH_NORM, 4 * 10 + 3)], ids=["plain", "batch norm"]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 1e-3)])
def test_with_a_direction_for_each_activity_projection_gives_the_gradient(
    make, layers, k, dtype, tolerance, rng, key
):
    """Batch norm makes the activities of four examples, ten each, one space."""
    p = problem(rng, key, *layers, dtype=dtype)
    rule = make(k, aggregate="projection", sampler="normal")  # so many of signs may be dependent
    assert_close(p.step(rule, key).gradients, p.exact(), tolerance)


def test_a_blocks_directions_answer_to_its_own_loss_and_end_there(rng, key):
    """A direction for each of the 8 activities of the larger block is enough, of 13 in all."""
    p = problem(rng, key, *WITH_HEADS)
    rule = GreedyActivityPerturbation(9, aggregate="projection", sampler="normal")
    assert_close(p.step(rule, key).gradients, p.step(GreedyBackprop(), key).gradients, 1e-8)
