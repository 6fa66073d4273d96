"""`lg-fg-w` with a loss for every group of channels, and the exact gradient of output layers."""

from dataclasses import replace

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    WITH_BATCH_NORM,
    WITH_GROUPS,
    WITH_HEADS,
    assert_close,
    block,
    distance,
    flat,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.core.spaces import dense
from dualnet.core.transforms import stop_gradient
from dualnet.errors import UsageError
from dualnet.learning import (
    FiniteDifferences,
    GreedyBackprop,
    GreedyWeightPerturbation,
    WeightPerturbation,
    split_batch,
)
from dualnet.learning.directions.algebra import combine_parts, inner_products_of_parts
from dualnet.learning.directions.samplers import sampler_of
from dualnet.models.local_mixer import LocalMixer
from dualnet.nn import (
    AverageTokens,
    Context,
    Conv2d,
    Flatten,
    LayerNorm,
    Linear,
    softmax_cross_entropy,
)

GROUPS = 2
MIXER = LocalMixer(width=8, patches=2, groups=GROUPS, depth=2)
IMAGES = (4, 6, 1)

WHOLE, OWN = None, "own"
BY_LOSSES = {
    # what stands between a layer and the head that couples groups: norms of all channels, or more
    "block1/linear": {"replicated": WHOLE, "through-norms": OWN, "one": WHOLE},
    "block1/groups": {"replicated": OWN, "through-norms": OWN, "one": WHOLE},
    "tokens/mix/linear": {"replicated": WHOLE, "through-norms": WHOLE, "one": WHOLE},
    "channels/linear": {"replicated": WHOLE, "through-norms": OWN, "one": WHOLE},
    "groups/linear": {"replicated": OWN, "through-norms": OWN, "one": WHOLE},
    "head": dict.fromkeys(("replicated", "through-norms", "one"), WHOLE),
    "output": dict.fromkeys(("replicated", "through-norms", "one"), WHOLE),
}
"""A layer of LocalMixer, by a part of its path → whether its channels answer to their own group."""


def a_mixer(rng, key, n=3, **how):
    return problem(rng, key, *MIXER.network(IMAGES, 3).layers, in_shape=IMAGES, n=n, **how)


def losses_of_groups(p, params, x, labels):
    """The losses `(n,)` of head 1's groups, of head 2's, and of the outputs, by their definition.

    The features of a group's loss are under a stop-gradient but for its own channels; what the
    heads' weights do is shared out among the groups.
    """
    losses = []

    def of_groups(path, features):
        w, b = params[path]["linear"]["w"], params[path]["linear"]["b"]
        width = features.shape[-1] // GROUPS
        for g in range(GROUPS):
            parts = [
                stop_gradient(features[..., i * width : (i + 1) * width]) for i in range(GROUPS)
            ]
            parts[g] = features[..., g * width : (g + 1) * width]
            means = [np.mean(part, axis=-1, keepdims=True) for part in parts]
            parts = [
                (part - mean) / np.sqrt(np.mean((part - mean) ** 2, axis=-1, keepdims=True) + 1e-5)
                for part, mean in zip(parts, means, strict=True)
            ]  # the head's norm
            averaged = np.mean(np.concatenate(parts, axis=-1), axis=1)
            still = stop_gradient(w), stop_gradient(b)
            by_features = softmax_cross_entropy(averaged @ still[0] + still[1], labels)
            by_weights = softmax_cross_entropy(stop_gradient(averaged) @ w + b, labels)
            losses.append(by_features + (by_weights - stop_gradient(by_weights)) / GROUPS)

    def tap(path, y):
        if path in ("head1", "head2"):
            of_groups(path, y)
            return stop_gradient(y)
        return y

    outputs, _ = p.task.network.apply(params, p.state, x, Context(train=True, tap=tap))
    return [*losses, softmax_cross_entropy(outputs, labels)]


def segment(path):
    return next(
        i
        for i, names in enumerate((("block1", "head1"), ("block2", "head2"), ("output",)))
        if path.split("/")[0] in names
    )


def parts_of(path, parameter, losses):
    """Masks of a parameter's parts, each with the places of the losses that it answers to."""
    by_losses = next(which for name, which in BY_LOSSES.items() if name in path)
    first = GROUPS * segment(path)
    every = range(first, first + (1 if "output" in path else GROUPS))
    if by_losses[losses] is WHOLE:
        yield np.ones(parameter.shape, bool), every
        return
    for g in range(GROUPS):
        mask = np.zeros(parameter.shape, bool)
        if parameter.ndim == 3:  # weights of a grouped map, a matrix for each group
            mask[g] = True
        else:
            width = parameter.shape[-1] // GROUPS
            mask[..., g * width : (g + 1) * width] = True
        yield mask, (first + g,)


def is_output(path):
    return "head" in path or "output" in path


def by_hand(p, losses, directions, output_layers, k):
    """Σ_i d_i v_i / k, where every part of a parameter takes the derivative of its own loss."""
    exact = p.step(GreedyBackprop(), dn.Key(0)).gradients if output_layers == "exact" else None
    sums = {path: np.zeros_like(w) for path, w in tree.items(p.params)}
    for j, each in directions:  # examples, and k directions for these alone
        for i in range(k):
            v = tree.map_with_path(
                lambda path, w: each[path][i] if path in each else np.zeros_like(w),  # noqa: B023
                p.params,
            )
            f = lambda params: losses_of_groups(p, params, p.x[j], p.labels[j])  # noqa: B023, E731
            d = [np.sum(t) for t in dn.jvp(f, (p.params,), (v,))[1]]
            for path, t in tree.items(v):
                for mask, answers in parts_of(path, t, losses):
                    sums[path] += mask * sum(d[a] for a in answers) * t / k / len(p.x)
    if exact is not None:
        sums |= {path: g for path, g in tree.items(exact) if is_output(path)}
    return tree.unflatten(p.params, [sums[path] for path, _ in tree.items(p.params)])


def drawn(p, rule, key):
    """Pairs of examples and the directions that these have: parameter path → dense stack."""
    directions = rule.sample(key, p.plan, p.params, BACKEND, len(p.x))
    (shard,) = split_batch(p.batch, 1)
    (tangents,) = directions.passes(rule.tangents, shard)
    if not rule.independent:
        return [(slice(None), {path: dense(t) for path, t in tree.items(tangents)})]
    each = {path: dense(t.each) for path, t in tree.items(tangents)}
    return [([j], {path: t[j :: len(p.x)] for path, t in each.items()}) for j in range(len(p.x))]


@pytest.mark.parametrize("output_layers", ["exact", "perturbed"])
@pytest.mark.parametrize("losses", ["replicated", "through-norms", "one"])
@pytest.mark.parametrize(
    ("sampler", "independent"),
    [("normal", False), ("rank-one", False), ("rank-one:2", False), ("rank-one", True)],
)
def test_every_group_answers_to_its_own_loss(sampler, independent, losses, output_layers, rng, key):
    p = a_mixer(rng, key)
    rule = GreedyWeightPerturbation(
        3, sampler=sampler, independent=independent, losses=losses, output_layers=output_layers
    )
    expected = by_hand(p, losses, drawn(p, rule, key), output_layers, 3)
    assert_close(p.step(rule, key).gradients, expected, 1e-10)
    for chunk, shards in ((1, 1), (2, 2), (None, 3)):
        pieces = p.step(replace(rule, tangent_chunk=chunk), key, shards=shards)
        assert_close(pieces.gradients, expected, 1e-10)


def expectation(p, losses, output_layers="exact"):
    """Σ_i d_i e_i over all basis vectors is the mean of d v over all v with E[v vᵀ] = I."""
    n = sum(w.size for w in tree.leaves(p.params))
    rule = GreedyWeightPerturbation(
        n, sampler="basis", aggregate="sum", losses=losses, output_layers=output_layers
    )
    return p.step(rule, dn.Key(0)).gradients


def test_replicas_are_unbiased_and_those_through_norms_lack_what_norms_carry_over(rng, key):
    p = a_mixer(rng, key)
    exact = p.step(GreedyBackprop(), key).gradients
    for losses, output_layers in (
        ("replicated", "exact"),
        ("replicated", "perturbed"),
        ("one", "exact"),
    ):
        assert_close(expectation(p, losses, output_layers), exact, 1e-10)
    biased = expectation(p, "through-norms")
    of_group = dn.jacrev(
        lambda params: [np.sum(loss) for loss in losses_of_groups(p, params, p.x, p.labels)]
    )(p.params)
    expected = {
        path: sum(
            mask * sum(dict(tree.items(of_group[a]))[path] for a in answers) / len(p.x)
            for mask, answers in parts_of(path, w, "through-norms")
        )
        for path, w in tree.items(p.params)
    }
    assert_close(biased, expected, 1e-9)
    of_exact, length = dict(tree.items(exact)), np.linalg.norm(flat(exact))
    off = {
        path.rpartition("/")[0]
        for path, g in tree.items(biased)
        if np.linalg.norm(g - of_exact[path]) > 1e-6 * length
    }
    # token mixing answers to all groups, and grouped maps stand behind the norms of all channels
    assert off and off <= {"block1/linear", "block2/residual/block/channels/linear"}


@pytest.mark.parametrize("chunk", [None, 100])
@pytest.mark.parametrize("sampler", ["normal", "rank-one", "rank-one:2"])
@pytest.mark.parametrize("output_layers", ["exact", "perturbed"])
def test_as_many_directions_as_parameters_project_onto_the_gradient(
    output_layers, sampler, chunk, rng, key
):
    """With groups, too: inner products are over the parameters that a group's loss depends on."""
    p = problem(rng, key, *WITH_GROUPS, in_shape=(3, 4))
    assert tree.size(p.params) <= 120
    rule = GreedyWeightPerturbation(
        120,
        sampler=sampler,
        aggregate="projection",
        tangent_chunk=chunk,
        output_layers=output_layers,
    )
    exact = p.step(GreedyBackprop(), key).gradients
    assert_close(p.step(rule, key).gradients, exact, 1e-6)
    of = p.plan.answers(p.params, "replicated").of
    behind = {"all/gain", "grouped/w", "grouped/b", "norm/gain", "norm/bias", "positions/positions"}
    assert {path for path, answer in of.items() if answer.axis is not None} == behind


def test_mixtures_of_directions_have_the_same_span(rng, key):
    p = problem(rng, key, *WITH_GROUPS, in_shape=(3, 4))
    rule = GreedyWeightPerturbation(20, sampler="normal", aggregate="projection")
    projected = p.step(rule, key).gradients
    mixed = p.step(replace(rule, sampler="orthogonal"), key).gradients
    assert_close(mixed, projected, 1e-8)
    assert distance(projected, p.step(GreedyBackprop(), key).gradients) > 1e-2


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("sampler", ["normal", "rank-one", "rank-one:2"])
@pytest.mark.parametrize("shape", [(4, 3, 8), (4, 2, 3, 8), (8,)])
def test_parts_of_directions(shape, sampler, axis, rng, key):
    groups = 4
    params = {"w": np.zeros(shape)}
    draw = sampler_of(sampler).draw
    t, u = draw(BACKEND, key, params, 0, 5)["w"], draw(BACKEND, key, params, 5, 8)["w"]
    rows = [np.split(dense(each), groups, axis % len(shape) + 1) for each in (t, u)]
    products = [
        np.reshape(a, (5, -1)) @ np.reshape(b, (3, -1)).T for a, b in zip(*rows, strict=True)
    ]
    got = inner_products_of_parts(t, u, axis, groups)
    np.testing.assert_allclose(got, products, atol=1e-12)
    c = rng.standard_normal((5, groups))
    sums = [np.einsum("k,k...->...", c[:, g], rows[0][g]) for g in range(groups)]
    got = combine_parts(c, t, axis)
    np.testing.assert_allclose(got, np.concatenate(sums, axis), atol=1e-12)


def test_other_aggregations_do_not_go_through_norms():
    with pytest.raises(UsageError, match=r"losses: expected one of replicated, .*, got 'x'"):
        GreedyWeightPerturbation(losses="x")
    message = r"lg-fg-w: aggregate must be mean or sum where groups .* through norms, got 'largest'"
    with pytest.raises(UsageError, match=message):
        GreedyWeightPerturbation(2, aggregate="largest", losses="through-norms")
    with pytest.raises(UsageError, match="fg-w: output_layers: expected one of exact, perturbed"):
        WeightPerturbation(output_layers="x")


# --- output layers -------------------------------------------------------------------------------

NETWORKS = {
    "heads": ((6,), WITH_HEADS, {"output", "head1/linear", "head2/linear"}),
    "batch norm": ((6,), WITH_BATCH_NORM, {"output"}),
    "norm at the end": (
        (4, 4, 2),
        (("conv", Conv2d(3, 2)), ("flat", Flatten()), ("last", Linear(3)), ("norm", LayerNorm())),
        {"last", "norm"},
    ),
    "inside a block": (
        (3, 4),
        (("in", Linear(4)), ("mean", AverageTokens()), ("end", block(Linear(3)))),
        {"end/0"},
    ),
}
"""name → shape of an example, layers, paths of those that make outputs"""


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "rule",
    [
        WeightPerturbation(3, output_layers="exact"),
        WeightPerturbation(3, output_layers="exact", tangent_chunk=1),
        WeightPerturbation(2, sampler="rank-one", output_layers="exact", independent=True),
        WeightPerturbation(2, sampler="orthogonal", aggregate="projection", output_layers="exact"),
        GreedyWeightPerturbation(3),
        FiniteDifferences(2, output_layers="exact"),
    ],
    ids=str,
)
def test_output_layers_have_the_gradient_of_backpropagation(rule, name, shards, rng, key):
    shape, layers, names = NETWORKS[name]
    p = problem(rng, key, *layers, in_shape=shape)
    greedy = isinstance(rule, GreedyWeightPerturbation)
    exact = dict(tree.items(p.step(GreedyBackprop(), key).gradients if greedy else p.exact()))
    step = p.step(rule, key, shards=shards)
    for path, g in tree.items(step.gradients):
        if path.rpartition("/")[0] in names:
            np.testing.assert_allclose(g, exact[path], rtol=1e-9, atol=1e-12, err_msg=path)
        else:
            # The exact gradient of a bias before a norm is 0, to rounding or to the last bit.
            assert np.linalg.norm(g - exact[path]) > 1e-3 * np.linalg.norm(exact[path]), path
    single = replace(p, params=tree.map(np.float32, p.params), x=p.x.astype(np.float32))
    gradients = single.step(rule, key).gradients
    assert {g.dtype for g in tree.leaves(gradients)} == {np.dtype(np.float32)}
    assert np.isclose(step.loss, p.step(GreedyBackprop(), key).loss)


def test_exact_output_layers_are_no_noise_to_the_others(rng, key):
    """d is the derivative along the directions of the others alone."""
    p = problem(rng, key)
    rule = WeightPerturbation(1, output_layers="exact")
    ((_, v),) = drawn(p, rule, key)
    assert {path.partition("/")[0] for path in v} == {"hidden1", "hidden2"}
    along = {path: t[0] for path, t in v.items()}
    d = sum(np.sum(g * along[path]) for path, g in tree.items(p.exact()) if path in along)
    got = dict(tree.items(p.step(rule, key).gradients))
    for path, t in along.items():
        assert_close(got[path], d * t, 1e-11, path)


def test_output_layers_are_perturbed_unless_the_rule_is_lg_fg_w():
    assert GreedyWeightPerturbation().output_layers == "exact"
    for rule in (WeightPerturbation(), FiniteDifferences()):
        assert rule.output_layers == "perturbed"
