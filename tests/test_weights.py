"""Perturbing the weights of every example alone, and how long estimates are."""

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
    assert_close,
    assert_unbiased,
    block,
    bounded,
    directions_of,
    flat,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.backends import NumpyBackend
from dualnet.core.spaces import RankOne, dense
from dualnet.errors import TangentError
from dualnet.learning import (
    GreedyBackprop,
    GreedyWeightPerturbation,
    Task,
    WeightPerturbation,
    split_batch,
)
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.learning.directions.per_example import PerExample
from dualnet.nn import (
    AverageTokens,
    ClassToken,
    Conv2d,
    Flatten,
    GroupedLinear,
    LayerNorm,
    Linear,
    Patches,
    Positions,
    Sequential,
    mean_squared_error,
)

OWN = WeightPerturbation(3, sampler="rank-one", independent=True)

EVERY_USE = {
    **NETWORKS,
    "tokens": (
        (4, 4, 2),
        (
            ("patches", Patches(2)),
            ("class", ClassToken()),
            ("positions", Positions()),
            ("grouped", GroupedLinear(6, groups=2)),
            ("norm", LayerNorm(axes=(-2, -1))),
            ("mean", AverageTokens()),
            ("output", Linear(3)),
        ),
    ),
    "kernels": (
        (5, 4, 2),
        (
            ("first", block(Conv2d(4, (3, 2), padding=1, groups=2), Conv2d(4, 1))),
            ("strided", Conv2d(2, 3, stride=2, bias=False)),
            ("flatten", Flatten()),
            ("output", Linear(3)),
        ),
    ),
    "one in, one out": ((1,), (("in", Linear(1)), ("norm", Linear(2)), ("output", Linear(2)))),
    "heads": ((6,), WITH_HEADS),
}
"""Wherever layers use parameters: name → shape of an example, layers."""


def of_use(name, rng, key, **how):
    shape, layers = EVERY_USE[name]
    return problem(rng, key, *layers, in_shape=shape, **how)


def drawn(p, rule, key, shards=1):
    """Every example's directions as rows over all parameters, `(k, N, n)`."""
    directions = rule.sample(key, p.plan, p.params, BACKEND, len(p.x))
    parts = []
    for shard in split_batch(p.batch, shards):
        (tangents,) = directions.passes(rule.tangents, shard)
        shape = (rule.tangents, len(shard.inputs), -1)
        rows = [np.reshape(dense(t.each), shape) for t in tree.leaves(tangents)]
        parts.append(np.concatenate(rows, axis=2))
    return np.concatenate(parts, axis=1)


def of_each(p):
    """The exact gradient of each example's own loss as rows."""
    return np.array(
        [
            flat(replace(p, x=p.x[i : i + 1], labels=p.labels[i : i + 1]).exact())
            for i in range(len(p.x))
        ]
    )


# --- the estimate --------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("use", EVERY_USE)
def test_every_example_answers_along_its_own_directions(use, n, aggregate, rng, key):
    p = of_use(use, rng, key, n=n)
    rule = replace(OWN, aggregate=aggregate)
    v = drawn(p, rule, key)
    d = np.sum(v * of_each(p), axis=-1)  # (k, N)
    expected = np.einsum("kn,kni->i", d, v) / n / (3 if aggregate == "mean" else 1)
    assert_close(p.step(rule, key).gradients, expected, 1e-11)
    single = replace(p, params=tree.map(np.float32, p.params), x=p.x.astype(np.float32))
    gradients = single.step(rule, key).gradients  # along the same signs
    assert {g.dtype for g in tree.leaves(gradients)} == {np.dtype(np.float32)}
    if n > 1:  # of one example, the gradient may be all but nothing
        assert_close(gradients, expected, 1e-4)


def test_with_batch_norm_all_examples_answer_to_the_batchs_loss(rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM)
    v = drawn(p, OWN, key)
    copies = tree.map(lambda w: np.stack([w] * 4), p.params)

    def total(p_each):  # every example with weights of its own
        x = np.einsum("np,npq->nq", p.x, p_each["hidden"]["w"]) + p_each["hidden"]["b"]
        norm = p_each["block"]["norm"]
        x = (x - x.mean(0)) / np.sqrt(np.mean((x - x.mean(0)) ** 2, axis=0) + 1e-5)
        x = np.tanh(x * norm["gain"] + norm["bias"])
        x = np.einsum("np,npq->nq", x, p_each["output"]["w"]) + p_each["output"]["b"]
        return p.task.loss(x, p.labels).sum()

    exact = dn.grad(total)(copies)
    rows = np.concatenate([np.reshape(g, (4, -1)) for g in tree.leaves(exact)], axis=1)
    assert_close(rows.mean(0), flat(p.exact()), 1e-9)
    d = np.sum(v * rows, axis=(1, 2))
    assert_close(p.step(OWN, key).gradients, np.einsum("k,kni->i", d, v) / 12, 1e-9)


@pytest.mark.parametrize("network", NETWORKS)
def test_independent_directions_are_unbiased_on_every_kind_of_network(network, rng, key):
    shape, layers = NETWORKS[network]
    p = problem(rng, key, *layers, in_shape=shape)
    rule = WeightPerturbation(2, sampler="rank-one", independent=True)
    # each copy of an example has directions of its own; the mixer has the most weights by far
    assert_unbiased(p.repeated(150 if network == "mixer" else 50), rule, key, 100)


def test_lg_fg_w_with_independent_directions_is_unbiased(rng, key):
    p = problem(rng, key, *WITH_HEADS)
    rule = GreedyWeightPerturbation(2, sampler="rank-one", independent=True)
    exact = p.step(GreedyBackprop(), key).gradients
    assert_unbiased(p.repeated(30), rule, key, 100, exact)


@pytest.mark.parametrize(
    ("rule", "of_data", "of_square"),
    [
        (
            WeightPerturbation(1, sampler="rank-one", independent=True),
            lambda n, N: n / N,
            lambda n, N: (n - 1) / N,
        ),
        (WeightPerturbation(1, sampler="rank-one"), lambda n, N: n / N, lambda n, N: n - 1),
    ],
    ids=["independent", "shared"],
)
def test_the_variance_over_directions_and_data(rule, of_data, of_square, rng, key):
    """Ren et al., Table 1, with signs: pq/N V + (pq - 1)/N S, and (pq - 1) S for shared ones.

    Of every batch of three of four examples, so many times that data are sampled exactly; of each
    batch many estimates at once, as the gradients of copies that share nothing.
    """
    p, q, size, draws = 3, 2, 3, 1500
    x, targets = bounded(rng, 4, p), bounded(rng, 4, q)
    task = Task(Sequential((("output", Linear(q, bias=False)),)), mean_squared_error)
    params = {"output": {"w": rng.uniform(0.5, 1.5, (p, q))}}
    whole = Problem(task, params, {"output": {}}, x, targets)
    each = of_each(whole)
    data, square = each.var(0).mean(), np.square(each.mean(0)).mean()
    rows = []
    for i, batch in enumerate(map(list, itertools.product(range(4), repeat=size))):
        on = replace(whole, x=x[batch], labels=targets[batch])
        if rule.independent:  # copies of the batch have directions of their own
            on, many = (
                replace(on, x=np.tile(on.x, (draws, 1)), labels=np.tile(on.labels, (draws, 1))),
                rule,
            )
            v = np.reshape(drawn(on, rule, key.fold_in(i)), (draws, size, p * q))
            rows.append(np.mean(np.sum(v * each[batch], -1, keepdims=True) * v, axis=1))
        else:
            many = replace(rule, tangents=draws)
            v = directions_of(on, many, key.fold_in(i))
            rows.append((v @ each[batch].mean(0))[:, None] * v)
        # the rows are what the rule estimates
        got = flat(on.step(many, key.fold_in(i)).gradients)
        np.testing.assert_allclose(got, rows[-1].mean(0), rtol=1e-9, atol=1e-9)
    stated = of_data(p * q, size) * data + of_square(p * q, size) * square
    assert abs(np.concatenate(rows).var(0).mean() / stated - 1) < 0.03


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_the_variance_of_sums_of_outer_products(rank, rng, key):
    """(n + 1 - 2/R) ‖∇f‖² in all: n - 1 for one product, n + 1 in the limit."""
    task = Task(Sequential((("output", Linear(4, bias=False)),)), mean_squared_error)
    params = {"output": {"w": rng.uniform(0.5, 1.5, (3, 4))}}
    p = Problem(task, params, {"output": {}}, np.ones((1, 3)), np.ones((1, 4)))
    v = directions_of(p, WeightPerturbation(200_000, sampler=f"rank-one:{rank}"), key)
    g = rng.uniform(0.5, 1.5, 12)
    rows = (v @ g)[:, None] * v
    assert abs(rows.var(0).sum() / ((13 - 2 / rank) * g @ g) - 1) < 0.03


# --- draws ---------------------------------------------------------------------------------------


def test_every_direction_of_every_example_and_leaf_is_independent(rng, key):
    p = problem(rng, key, ("one", Linear(6)), ("two", Linear(6)), n=50)
    v = drawn(p, replace(OWN, tangents=40), key)
    assert v.shape == (40, 50, 84) and np.all(np.abs(v) == 1)
    bound = 6 / math.sqrt(2000)
    one, two = v[..., :42], v[..., 42:]
    assert abs((one * two).mean((0, 1))).max() < bound, "equal leaves share draws"
    assert abs((v[1:] * v[:-1]).mean((0, 1))).max() < bound, "tangents share draws"
    assert abs((v[:, 1:] * v[:, :-1]).mean((0, 1))).max() < bound, "examples share draws"
    rows = v.reshape(2000, 84)
    assert abs(rows.T @ rows / 2000 - np.eye(84)).max() < bound
    # 34 signs decide a row, so in one of 8,000 runs two are equal
    assert len(np.unique(rows, axis=0)) >= 1998


def test_draws_follow_the_example_and_the_tangent_alone(rng, key):
    p = problem(rng, key, n=7)
    v = drawn(p, OWN, key)
    for shards in (2, 3, 7):
        np.testing.assert_array_equal(drawn(p, OWN, key, shards), v)
    np.testing.assert_array_equal(drawn(p, replace(OWN, tangents=2), key), v[:2])
    fewer = replace(p, x=p.x[:4], labels=p.labels[:4])
    np.testing.assert_array_equal(drawn(fewer, OWN, key), v[:, :4])
    assert np.any(drawn(p, OWN, key.fold_in("another step")) != v)


@pytest.mark.parametrize("use", EVERY_USE)
def test_neither_shards_nor_chunks_matter(use, rng, key):
    p = of_use(use, rng, key, n=5)
    for rule in (OWN, GreedyWeightPerturbation(3, sampler="rank-one", independent=True)):
        whole = p.step(rule, key)
        for chunk, shards, threads in [(1, 1, 1), (2, 2, 1), (None, 3, 3), (2, 5, 2)]:
            pieces = p.step(replace(rule, tangent_chunk=chunk), key, NumpyBackend(threads), shards)
            assert_close(pieces.gradients, whole.gradients, 1e-12)
            assert np.isclose(pieces.loss, whole.loss, rtol=1e-12)


def test_no_direction_of_a_matrix_is_made_dense(rng, key, monkeypatch):
    monkeypatch.setattr(RankOne, "dense", None)
    for name in ("mlp", "convolution, group norm, residual", "mixer", "attention"):
        of_use(name, rng, key).step(OWN, key)


# --- what has no meaning -------------------------------------------------------------------------


def jvp_per_example(f, w, rng):
    n, k = 4, 2
    t = PerExample(rng.standard_normal((k * n, *w.shape)), n)
    return dn.jvp(f, (w,), (t,))[1], np.reshape(t.each, (k, n, *w.shape))


X = np.arange(12.0).reshape(4, 3) + 1
USES = {
    "x @ w": (lambda w: X @ w, lambda t: np.einsum("np,knpq->knq", X, t)),
    "x @ w.T.T": (lambda w: X @ w.T.T, lambda t: np.einsum("np,knpq->knq", X, t)),
    "a slice": (
        lambda w: X[:, :2] @ w[:2],
        lambda t: np.einsum("np,knpq->knq", X[:, :2], t[:, :, :2]),
    ),
    "two rows each": (
        lambda w: np.concatenate([X, X]) @ w,
        lambda t: np.einsum("nrp,knpq->knrq", np.reshape([*X, *X], (4, 2, 3)), t).reshape(2, 8, 2),
    ),
    "tokens": (
        lambda w: np.stack([X, 2 * X], 1) @ w,
        lambda t: np.einsum("ntp,knpq->kntq", np.stack([X, 2 * X], 1), t),
    ),
    "a sum with itself": (lambda w: X @ (w + 2 * w), lambda t: 3 * np.einsum("np,knpq->knq", X, t)),
    "divided": (lambda w: (w / 2) / X[:, :, None], lambda t: t / 2 / X[:, :, None]),
    "selected": (
        lambda w: np.where(X[:, :, None] > 4, w, 0.0),
        lambda t: np.where(X[:, :, None] > 4, t, 0.0),
    ),
    "broadcast": (
        lambda w: np.broadcast_to(w, (4, 5, 3, 2)),
        lambda t: np.repeat(t[:, :, None], 5, 2),
    ),
    "rows of a sum": (
        lambda w: np.zeros((8, 3, 2)) + w,
        lambda t: np.repeat(t, 2, axis=1),
    ),
}


@pytest.mark.parametrize("use", USES)
def test_where_a_parameter_meets_its_batch(use, rng):
    f, by_hand = USES[use]
    got, t = jvp_per_example(f, np.ones((3, 2)), rng)
    np.testing.assert_allclose(got, by_hand(t), atol=1e-12)


@pytest.mark.parametrize(
    ("f", "what"),
    [
        (lambda w: w, "a result in which it meets no batch"),
        (lambda w: w.sum(), "sum"),
        (lambda w: np.einsum("np,pq->nq", X, w), "contract"),
        (lambda w: np.concatenate([X, X[:1]]) @ w, "a batch of 5"),
        (lambda w: w[None] @ np.ones((1, 2, 3)), "matmul"),
        (lambda w: np.ones((3, 2, 4, 3)) @ np.reshape(w, (2, 3, 1)), "a product with a batch of"),
    ],
)
def test_other_uses_are_refused(f, what, rng):
    with pytest.raises(TangentError, match=rf"PerExample: 4 examples .* mean nothing in {what}"):
        jvp_per_example(f, np.ones((3, 2)), rng)


# --- how long estimates are ----------------------------------------------------------------------


def mean_relative_length(aggregate, k, n, rng, times):
    """Of the estimate relative to the gradient, and the standard error of that."""
    lengths = []
    for _ in range(times):
        v = rng.standard_normal((k, n))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        c = WEIGHT_AGGREGATIONS[aggregate](v[:, 0], lambda v=v: v @ v.T, n)
        lengths.append(np.linalg.norm(c @ v))
    return np.mean(lengths), np.std(lengths) / math.sqrt(times)


@pytest.mark.parametrize("k", [1, 2, 4, 16, 50, 70])
def test_the_corrected_projection_is_as_long_as_the_gradient(k, rng):
    length, error = mean_relative_length("corrected-projection", k, 50, rng, 1000)
    assert abs(length - 1) < 5.5 * error + 1e-9


@pytest.mark.parametrize(
    ("k", "published"), [(1, 1.0), (2, 1.085), (4, 1.051), (16, 1.015), (64, 1.004)]
)
def test_the_published_length_of_a_mean_is_too_small(k, published, rng):
    """What `corrected_mean` says of it, in so many dimensions that directions are orthogonal."""
    length, error = mean_relative_length("corrected-mean", k, 1000, rng, 500)
    assert abs(length - published) < 5.5 * error + 0.004
    if k > 1:
        chi = math.sqrt(2) * math.gamma((k + 1) / 2) / math.gamma(k / 2)
        assert np.isclose(published, chi / k * math.sqrt(1 + k), atol=1e-3)


def test_longer_directions_are_corrected_for_their_length(rng):
    v = rng.standard_normal((4, 30))
    d = v[:, 0]
    for a in (1.0, 7.0):
        c = WEIGHT_AGGREGATIONS["corrected-mean"](a * d, lambda a=a: a * a * v @ v.T, 30)
        np.testing.assert_allclose(
            a * c @ v, WEIGHT_AGGREGATIONS["corrected-mean"](d, lambda: v @ v.T, 30) @ v
        )
