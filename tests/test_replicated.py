"""Replicated losses: their shares, and who answers to which replica; rows check the fused form."""

from collections import Counter

import numpy as np
import pytest
from learning_problems import (
    WITH_BATCH_NORM,
    assert_close,
    block,
    estimates,
    problem,
)

import dualnet as dn
from dualnet import nn, tree
from dualnet.errors import UsageError
from dualnet.learning import (
    RULES,
    ActivityPerturbation,
    GreedyActivityPerturbation,
    GreedyBackprop,
    Task,
)
from dualnet.learning.directions.activities import ActivityDirections
from dualnet.learning.independence import Independence, independence_of_each
from dualnet.learning.sites import hidden_units
from dualnet.nn import (
    Activation,
    AdaptiveAveragePool,
    AverageTokens,
    BatchNorm,
    Context,
    Conv2d,
    Dropout,
    Flatten,
    GroupedLinear,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    LocalHead,
    Patches,
    Positions,
    Residual,
    Sequential,
    StopGradient,
    TokenMixing,
    average,
    mixer_block,
    replicated,
    replicated_by_copies,
    softmax_cross_entropy,
    tanh,
    transformer_block,
)

N, CLASSES, K = 4, 3, 2
SHAPES = [((), 6, 1), ((), 6, 3), ((5,), 4, 1), ((5,), 4, 2), ((2, 3), 4, 4)]


def a_loss(rng, tokens, channels):
    """x, head weights, tangents of both, and the loss of averaged features and head weights."""
    x, w = rng.standard_normal((N, *tokens, channels)), rng.standard_normal((channels, CLASSES))
    labels = rng.integers(0, CLASSES, N)
    loss = lambda features, w: softmax_cross_entropy(features @ w, labels)  # noqa: E731
    return (x, w), tuple(rng.standard_normal((K, *a.shape)) for a in (x, w)), loss


@pytest.mark.parametrize(("tokens", "channels", "groups"), SHAPES)
def test_the_shares_add_up_to_the_derivative(tokens, channels, groups, rng):
    primals, tangents, loss = a_loss(rng, tokens, channels)
    value, moved = dn.jvp(
        lambda x, w: replicated(lambda f: loss(f, w), x, groups), primals, tangents
    )
    plain, whole = dn.jvp(lambda x, w: loss(average(x), w), primals, tangents)
    np.testing.assert_allclose(moved.sum((2, 3)), whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(value, np.broadcast_to(plain[:, None, None], value.shape))
    by_share = dn.grad(lambda x, w: replicated(lambda f: loss(f, w), x, groups).sum(), (0, 1))
    exact = dn.grad(lambda x, w: loss(average(x), w).sum(), (0, 1))
    assert_close(by_share(*primals), exact(*primals), 1e-12)


def test_only_its_own_part_moves_a_replica(rng):
    (x, w), _, loss = a_loss(rng, (5,), 4)
    jacobian = dn.jacfwd(lambda x: replicated(lambda f: loss(f, w), x, 2))(x)
    moves = np.reshape(jacobian, (N, 5, 2, N, 5, 2, 2))
    for n, p, g in np.ndindex(N, 5, 2):
        others = moves[n, p, g].copy()
        assert np.all(others[n, p, g] != 0)
        others[n, p, g] = 0
        assert not np.any(others)


def test_groups_that_do_not_divide_are_refused():
    for form in (replicated, replicated_by_copies):
        with pytest.raises(UsageError, match=f"{form.__name__}: expected x .* got .2, 3, 4. and 3"):
            form(lambda f: f.sum(1), np.zeros((2, 3, 4)), 3)
    with pytest.raises(UsageError, match="LocalHead: groups must divide the channels, got 3"):
        LocalHead(2, groups=3).init(dn.Key(0), (5, 4))


# --- what layers keep apart --------------------------------------------------------------------

DECLARED = [
    Linear(6),
    GroupedLinear(8, groups=2),
    LayerNorm(),
    LayerNorm(groups=2),
    Activation(tanh),
    Dropout(0.3),
    Positions(),
    StopGradient(),
]


@pytest.mark.parametrize("layer", DECLARED, ids=lambda layer: type(layer).__name__)
def test_layers_keep_rows_and_groups_independent_as_they_say(layer, key, rng):
    rows, channels = 3, 4
    params, state, (_, out) = layer.init(key, (rows, channels))
    context = Context(train=True, key=key)
    x = rng.standard_normal((1, rows, channels))
    f = lambda x: layer.apply(params, state, x, context)[0][0]  # noqa: E731
    moves = np.reshape(np.abs(dn.jacfwd(f)(x)), (rows, out, rows, channels))
    assert not np.any(moves * (1 - np.eye(rows))[:, None, :, None]), "rows meet"
    groups = layer.row_groups or channels
    parts = np.reshape(moves, (rows, groups, out // groups, rows, groups, channels // groups))
    assert not np.any(parts * (1 - np.eye(groups))[:, None, None, :, None]), "groups meet"


def test_every_layer_with_row_groups_is_tested():
    of_package = {
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind.row_groups is not None
    }
    assert of_package == {type(layer).__name__ for layer in DECLARED}
    assert LayerNorm(axes=(-2, -1)).row_groups is None


PATCHES, GROUPS = 4, 2
MIXER = (
    ("patches", Patches(2)),
    ("embed", block(Linear(8), LayerNorm(gain=False, bias=False), Activation(tanh))),
    ("groups", block(GroupedLinear(8, groups=GROUPS), LayerNorm(groups=GROUPS), Activation(tanh))),
    ("head0", LocalHead(CLASSES, groups=GROUPS)),
    ("block", mixer_block(tokens=PATCHES, channels=8, groups=GROUPS)),
    ("head1", LocalHead(CLASSES, groups=GROUPS)),
    ("mean", AverageTokens()),
    ("stop", StopGradient()),
    ("output", Linear(CLASSES)),
)
IN_BLOCK = "block/residual/block/"


def a_task(*layers):
    return Task(Sequential(layers), softmax_cross_entropy)


def test_what_a_mixer_keeps_independent():
    kept = independence_of_each(a_task(*MIXER), greedy=True)
    assert kept["embed/1"] == Independence(True, True, GROUPS)
    assert kept["groups/1"] == Independence(True, True, GROUPS)
    assert kept["patches"] == Independence(True, True, 1)
    assert kept[IN_BLOCK + "tokens/mix/after"] == Independence(True, True, 1, swapped=True)
    assert kept[IN_BLOCK + "channels/after"] == Independence(True, True, GROUPS)
    assert kept[IN_BLOCK + "groups/after"] == Independence(True, True, GROUPS)
    assert kept["head0"] == Independence(True, False, 1)  # token mixing comes next
    assert kept["mean"] == Independence()
    assert all(not s.tokens for s in independence_of_each(a_task(*MIXER), greedy=False).values())


class Twice(Layer):
    """A container that nobody here knows: its layer is applied, and what came in is shifted."""

    def __init__(self, layer):
        self.layers = (("inner", layer),)

    def init(self, key, in_shape):
        params, state, shape = self.layers[0][1].init(key, in_shape)
        return {"inner": params}, {"inner": state}, shape

    def apply(self, params, state, x, context):
        ((name, layer),) = self.layers
        y, inner = context.child(name, layer, params[name], state[name], x)
        return y + np.roll(y, 1, axis=1), {name: inner}


POOL = block(AdaptiveAveragePool(1), Flatten())
ENDING = (("mean", AverageTokens()), ("output", Linear(CLASSES)))
WITH_TWO_GROUPS = (("tanh", Activation(tanh)), ("head", LocalHead(CLASSES, groups=2)), *ENDING)
NETWORKS = {
    "mixer": ((4, 4, 2), MIXER),
    "convolution": (
        (4, 4, 2),
        (
            ("conv", Conv2d(4, 2)),
            ("relu", Activation(tanh)),
            ("mix", Residual((("block", block(Linear(4), LayerNorm())),))),
            ("head", LocalHead(CLASSES)),
            ("mean", POOL),
            ("output", Linear(CLASSES)),
        ),
    ),
    "unknown container": (
        (3, 4),
        (
            ("first", Linear(4)),
            ("twice", Twice(block(Linear(4), Activation(tanh)))),
            *WITH_TWO_GROUPS,
        ),
    ),
    "batch norm": ((3, 4), (("first", Linear(4)), ("norm", BatchNorm()), *WITH_TWO_GROUPS)),
}


def with_heads(name, rng, key, **options):
    shape, layers = NETWORKS[name]
    return problem(rng, key, *layers, in_shape=shape, **options)


# --- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_expectation_on_whole_networks(name, rng, key, monkeypatch):
    p = with_heads(name, rng, key, n=3)
    exact = p.step(GreedyBackprop(), key).gradients
    assert_close(expectation(p, key, monkeypatch), exact, 1e-12)


def test_replicas_take_away_noise(rng, key):
    """Of P·G parts of an activity one disturbs the scalar instead of all."""

    def variance(p, losses):
        return estimates(p, GreedyActivityPerturbation(losses=losses), key, 40).var(0).sum()

    several = [with_heads("mixer", rng, key.fold_in(i)) for i in range(5)]
    left = [variance(p, "replicated") / variance(p, "one") for p in several]
    assert np.median(left) < 0.8  # of some problems it is more


def test_an_example_before_a_batch_norm_answers_to_the_whole_batch(key):
    before = independence_of_each(a_task(*WITH_BATCH_NORM), greedy=False)
    assert not before["hidden"].examples
    assert before["block/norm"].examples and before["block/tanh"].examples


def test_an_example_before_a_batch_norm_may_answer_to_its_own_loss(rng, key, monkeypatch):
    """The part of its gradient that is left out is its effect on the other losses, by J below."""
    p = problem(rng, key, *WITH_BATCH_NORM)
    network, context = p.task.network, Context(train=True)

    def losses(hidden):
        return softmax_cross_entropy(block_and_output(network, p, context)(hidden), p.labels)

    weights = p.params["hidden"]
    z = p.x @ weights["w"] + weights["b"]
    jacobian = dn.jacrev(losses)(z)  # (losses, examples, units)
    own = np.einsum("nnu->nu", jacobian)
    got = expectation(p, key, monkeypatch, ActivityPerturbation, batch_loss="own")
    assert_close(got["hidden"], {"w": p.x.T @ own / len(z), "b": own.mean(0)}, 1e-12)
    total = expectation(p, key, monkeypatch, ActivityPerturbation)
    assert_close(total["hidden"], p.exact()["hidden"], 1e-12)
    assert_close(got["output"], total["output"], 1e-12)


def block_and_output(network, p, context):
    """The network behind its first layer."""

    def apply(x):
        for name, layer in network.layers[1:]:
            x, _ = layer.apply(p.params[name], p.state[name], x, context)
        return x

    return apply


def test_own_losses_before_a_batch_norm_have_less_variance(rng, key):
    """The directions of the other examples are no noise then."""

    def variance(p, batch_loss):
        rule = ActivityPerturbation(batch_loss=batch_loss)
        return np.sum(estimates(p, rule, key, 40).var(0))

    several = [problem(rng, key.fold_in(i), *WITH_BATCH_NORM, n=12) for i in range(5)]
    assert np.median([variance(p, "own") / variance(p, "total") for p in several]) < 0.5


def test_every_unit_has_an_independence(rng, key):
    p = with_heads("mixer", rng, key)
    kept = independence_of_each(p.task, greedy=True)
    units = hidden_units(p.task.network, p.params)
    assert len(units) == 5
    for unit in units:
        assert {unit.weights, unit.before, unit.after} <= set(kept)
        assert tree.leaves(tree.subtree(p.params, unit.weights))


# --- exactly, without draws ----------------------------------------------------------------------


def expectation(p, key, monkeypatch, rule=GreedyActivityPerturbation, **options):
    """E of the rule's gradients: each direction moves one entry of one example's activity."""
    places = [getattr(u, options.get("perturb", "before")) for u in units_of(p)]
    sizes = Counter()

    def tap(path, y):
        if path in places:
            sizes[path] += y.size
        return y

    # the key that `step` gives the network, for the masks of dropout
    context = Context(train=True, key=key.fold_in("network"), tap=tap)
    p.task.network.apply(p.params, p.state, p.x, context)
    firsts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    k = sum(sizes.values())

    def drawer(_directions, _shard):
        def draw(path, visit, z, slope):
            assert visit == 1
            u = np.zeros((k, z.size))
            u[firsts[path] + np.arange(z.size), np.arange(z.size)] = np.sqrt(k)
            u = np.reshape(u, (k, *z.shape))
            return u if slope is None else np.where(slope == 0, 0, u)

        return draw

    monkeypatch.setattr(ActivityDirections, "drawer", drawer)
    return p.step(rule(k, **options), key).gradients


def units_of(p):
    return hidden_units(p.task.network, p.params)


def res(*ways):
    return Residual(tuple(zip(("block", "shortcut"), ways, strict=False)))


def mix(*layers):
    return TokenMixing((("mix", block(*layers)),))


TANH = Activation(tanh)
CHAINS = {
    "mixing in a residual with a shortcut": (
        (3, 4),
        (Linear(4), TANH, res(mix(Linear(3), TANH), Linear(4)), TANH, LocalHead(CLASSES, groups=2)),
    ),
    "a residual in mixing": (
        (3, 4),
        (
            Linear(4),
            TANH,
            mix(res(block(Linear(3), TANH), Linear(3))),
            TANH,
            LocalHead(CLASSES, groups=2),
        ),
    ),
    "nested mixing": (
        (3, 4),
        (Linear(4), TANH, mix(TANH, mix(Linear(4), TANH)), LocalHead(3, groups=2)),
    ),
    "a head in mixing": ((4, 4), (Linear(4), TANH, mix(LocalHead(3, groups=2), Linear(4), TANH))),
    "a head in mixing of another size": ((3, 4), (Linear(4), TANH, mix(LocalHead(3), Linear(3)))),
    "heads one behind the other": (
        (3, 4),
        (
            Linear(4),
            TANH,
            LocalHead(3, groups=2),
            LocalHead(3),
            GroupedLinear(4, groups=2),
            TANH,
            LocalHead(3, groups=4),
        ),
    ),
    "more groups than the layer has": (
        (3, 4),
        (
            Linear(4),
            TANH,
            GroupedLinear(8, groups=2),
            LayerNorm(groups=2),
            TANH,
            LocalHead(3, groups=4),
        ),
    ),
    "fewer groups than the layer has": (
        (3, 4),
        (
            Linear(4),
            TANH,
            GroupedLinear(8, groups=4),
            LayerNorm(groups=4),
            TANH,
            LocalHead(3, groups=2),
        ),
    ),
    "batch norm in a residual": (
        (3, 4),
        (Linear(4), TANH, res(block(BatchNorm(), Linear(4))), TANH, LocalHead(3, groups=2)),
    ),
    "positions and dropout": (
        (3, 4),
        (Linear(4), Positions(), TANH, Dropout(0.3), LocalHead(3), Linear(4), TANH),
    ),
    "images": (
        (4, 4, 2),
        (Conv2d(4, 2), LayerNorm(), TANH, LocalHead(3), Conv2d(4, 1), GroupNorm(2), TANH),
    ),
    "images normalized whole": (
        (2, 2, 2),
        (Linear(4), LayerNorm(axes=(-3, -2, -1)), TANH, LocalHead(3, groups=2), Linear(4), TANH),
    ),
    "a head of all pixels": (
        (4, 4, 2),
        (Conv2d(4, 2), TANH, LocalHead(3, reads="all"), Conv2d(4, 2), TANH, LocalHead(3)),
    ),
    "heads behind norms": (
        (3, 4),
        (
            *(Linear(6), TANH, LocalHead(3, groups=2, norm=True), Linear(4), TANH),
            LocalHead(3, reads="all", norm=True),
        ),
    ),
    "attention": (
        (3, 4),
        (transformer_block(width=4, heads=2, mlp_width=3), LocalHead(3, groups=2), Linear(4), TANH),
    ),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", CHAINS)
def test_the_expectation_is_the_gradient_of_lg_bp(name, place, rng, key, monkeypatch):
    shape, layers = CHAINS[name]
    ending = (Flatten(), Linear(CLASSES))
    named = tuple((f"layer{i}", layer) for i, layer in enumerate((*layers, *ending)))
    p = problem(rng, key, *named, in_shape=shape, n=2)
    exact = p.step(GreedyBackprop(), key).gradients
    assert_close(expectation(p, key, monkeypatch, perturb=place), exact, 1e-12)
    assert_close(expectation(p, key, monkeypatch, perturb=place, losses="one"), exact, 1e-12)


@pytest.mark.parametrize("rule", ["lg-bp", "lg-fg-a", "lg-fg-w", "lg-fa"])
def test_a_head_on_one_of_two_ways_is_refused(rule, rng, key):
    inside = res(block(Linear(4), LocalHead(3)))
    p = problem(rng, key, ("a", Linear(4)), ("way", inside), ("out", Linear(3)), in_shape=(4,))
    message = "local head way/block/1 is on one of two ways through the Residual way"
    with pytest.raises(UsageError, match=message):  # before a run starts
        RULES[rule]().init(key, p.plan, p.params)
    with pytest.raises(UsageError, match=message):
        p.step(RULES[rule](), key, rule_state={})
    p.step(RULES[rule.replace("lg-", "")](), key)


def test_nothing_after_the_last_head_is_no_problem(rng, key):
    layers = (("a", Linear(4)), ("head", LocalHead(4)), ("tanh", Activation(tanh)))
    p = problem(rng, key, *layers)
    for options in ({"sampler": "orthogonal"}, {"aggregate": "corrected-mean"}):
        p.step(RULES["lg-fg-w"](3, **options), key)
