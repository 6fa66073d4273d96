"""Replicated losses: the fused form against its definition, and who answers to which replica."""

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    WITH_BATCH_NORM,
    assert_close,
    assert_unbiased,
    block,
    estimates,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.errors import UsageError
from dualnet.learning import GreedyActivityPerturbation, GreedyBackprop, Task
from dualnet.learning.separation import Separation, separations
from dualnet.learning.sites import hidden_units, subtree
from dualnet.nn import (
    Activation,
    AverageTokens,
    BatchNorm,
    Context,
    Conv2d,
    Dropout,
    GroupedLinear,
    LayerNorm,
    Linear,
    LocalHead,
    Patches,
    Positions,
    Residual,
    Sequential,
    StopGradient,
    average,
    mixer_block,
    replicated,
    replicated_by_copies,
    softmax_cross_entropy,
    tanh,
    walk,
)

N, CLASSES, K = 4, 3, 2
SHAPES = [((), 6, 1), ((), 6, 3), ((5,), 4, 1), ((5,), 4, 2), ((2, 3), 4, 4)]


def a_loss(rng, tokens, channels, dtype):
    """x, head weights, tangents of both, and the loss of averaged features and head weights."""
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    x, w = draw(N, *tokens, channels), draw(channels, CLASSES)
    labels = rng.integers(0, CLASSES, N)
    loss = lambda features, w: softmax_cross_entropy(features @ w, labels)  # noqa: E731
    return (x, w), (draw(K, *x.shape), draw(K, *w.shape)), loss


@pytest.mark.parametrize(("tokens", "channels", "groups"), SHAPES)
@pytest.mark.parametrize(("dtype", "allowed"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_the_fused_form_equals_its_definition(tokens, channels, groups, dtype, allowed, rng):
    primals, tangents, loss = a_loss(rng, tokens, channels, dtype)
    forms = [
        dn.jvp(lambda x, w: form(lambda f: loss(f, w), x, groups), primals, tangents)  # noqa: B023
        for form in (replicated, replicated_by_copies)
    ]
    (value, moved), (slow_value, slow_moved) = forms
    assert value.shape == (N, int(np.prod(tokens)), groups) and value.dtype == dtype
    assert moved.shape == (K, *value.shape) and moved.dtype == dtype
    scale = np.max(np.abs(slow_moved))
    assert np.max(np.abs(value - slow_value)) <= allowed * np.max(slow_value)
    assert np.max(np.abs(moved - slow_moved)) <= allowed * scale


@pytest.mark.parametrize(("tokens", "channels", "groups"), SHAPES)
def test_the_shares_add_up_to_the_derivative(tokens, channels, groups, rng):
    primals, tangents, loss = a_loss(rng, tokens, channels, np.float64)
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
    (x, w), _, loss = a_loss(rng, (5,), 4, np.float64)
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
    GroupedLinear(8, 2),
    LayerNorm(),
    LayerNorm(groups=2),
    Activation(tanh),
    Dropout(0.3),
    Positions(),
    StopGradient(),
]


@pytest.mark.parametrize("layer", DECLARED, ids=str)
def test_layers_keep_apart_what_they_say(layer, key, rng):
    rows, channels = 3, 4
    params, state, (_, out) = layer.init(key, (rows, channels))
    context = Context(train=True, key=key)
    x = rng.standard_normal((1, rows, channels))
    f = lambda x: layer.apply(params, state, x, context)[0][0]  # noqa: E731
    moves = np.reshape(np.abs(dn.jacfwd(f)(x)), (rows, out, rows, channels))
    assert not np.any(moves * (1 - np.eye(rows))[:, None, :, None]), "rows meet"
    groups = layer.apart.groups or channels
    parts = np.reshape(moves, (rows, groups, out // groups, rows, groups, channels // groups))
    assert not np.any(parts * (1 - np.eye(groups))[:, None, None, :, None]), "groups meet"


def test_every_layer_that_keeps_something_apart_is_tested():
    from dualnet import nn

    of_package = {
        name for name, kind in vars(nn).items() if isinstance(kind, type) and hasattr(kind, "apart")
    }
    assert of_package == {type(layer).__name__ for layer in DECLARED}
    assert LayerNorm(axes=(-2, -1)).apart is None


PATCHES, GROUPS = 4, 2
MIXER = (
    ("patches", Patches(2)),
    ("embed", block(Linear(8), LayerNorm(gain=False, bias=False), Activation(tanh))),
    ("groups", block(GroupedLinear(8, GROUPS), LayerNorm(groups=GROUPS), Activation(tanh))),
    ("head0", LocalHead(CLASSES, GROUPS)),
    ("block", mixer_block(PATCHES, 8, GROUPS)),
    ("head1", LocalHead(CLASSES, GROUPS)),
    ("mean", AverageTokens()),
    ("stop", StopGradient()),
    ("output", Linear(CLASSES)),
)
IN_BLOCK = "block/residual/block/"


def a_task(*layers):
    return Task(Sequential(layers), softmax_cross_entropy)


def test_what_a_mixer_keeps_apart():
    kept = separations(a_task(*MIXER), greedy=True)
    assert kept["embed/1"] == Separation(True, True, GROUPS)
    assert kept["groups/1"] == Separation(True, True, GROUPS)
    assert kept["patches"] == Separation(True, True, 1)
    assert kept[IN_BLOCK + "tokens/mix/after"] == Separation(True, True, 1, swapped=True)
    assert kept[IN_BLOCK + "channels/after"] == Separation(True, True, GROUPS)
    assert kept[IN_BLOCK + "groups/after"] == Separation(True, True, GROUPS)
    assert kept["head0"] == Separation(True, False, 1)  # token mixing comes next
    assert kept["mean"] == Separation()
    assert all(not s.tokens for s in separations(a_task(*MIXER), greedy=False).values())


class Twice:
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


NETWORKS = {
    "mixer": ((4, 4, 2), MIXER),
    "convolution": (
        (4, 4, 2),
        (
            ("conv", Conv2d(4, 2)),
            ("relu", Activation(tanh)),
            ("mix", Residual((("block", block(Linear(4), LayerNorm())),))),
            ("head", LocalHead(CLASSES)),
            ("mean", AverageTokens()),
            ("output", Linear(CLASSES)),
        ),
    ),
    "unknown container": (
        (3, 4),
        (
            ("first", Linear(4)),
            ("twice", Twice(block(Linear(4), Activation(tanh)))),
            ("tanh", Activation(tanh)),
            ("head", LocalHead(CLASSES, 2)),
            ("mean", AverageTokens()),
            ("output", Linear(CLASSES)),
        ),
    ),
    "batch norm": (
        (3, 4),
        (
            ("first", Linear(4)),
            ("norm", BatchNorm()),
            ("tanh", Activation(tanh)),
            ("head", LocalHead(CLASSES, 2)),
            ("mean", AverageTokens()),
            ("output", Linear(CLASSES)),
        ),
    ),
}


def with_heads(name, rng, key, **options):
    shape, layers = NETWORKS[name]
    layers = tuple(
        (n, AverageTokens()) if isinstance(layer, AverageTokens) and len(shape) == 2 else (n, layer)
        for n, layer in layers
    )
    if name == "convolution":  # from (N, H, W, C) to one row an example
        from dualnet.nn import AdaptiveAveragePool, Flatten

        pool = block(AdaptiveAveragePool(1), Flatten())
        layers = tuple((n, pool if n == "mean" else layer) for n, layer in layers)
    return problem(rng, key, *layers, in_shape=shape, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_part_of_an_activity_reaches_more_than_separations_say(name, rng, key):
    """Each part of each activity is moved, and what moves under the next head is looked at."""
    p = with_heads(name, rng, key, n=2)
    network = p.task.network
    heads = {path: layer for path, layer in network.layers if isinstance(layer, LocalHead)}
    kept = separations(p.task, greedy=True)
    order = [path for path, _ in walk(network)]
    seen = {}

    def activities(path, moved=None):
        """The activity at a place, and the inputs of the heads, the place's moved by `moved`."""
        result = {}

        def tap(here, y):
            if here == path:
                y = y if moved is None else y + moved
                result[path] = y
            if here in heads:
                result[here] = y
                return dn.stop_gradient(y)
            return y

        network.apply(p.params, p.state, p.x, Context(train=True, tap=tap))
        return result

    for path in order:
        if path.startswith("head") or path in ("stop", "output", "mean"):
            continue
        start = activities(path)[path]
        following = [h for h in heads if order.index(f"{h}/linear") > order.index(path)]
        if not following:
            continue
        head, sep = following[0], kept[path]
        jacobian = dn.jacfwd(lambda m: activities(path, m)[head])(np.zeros_like(start))  # noqa: B023
        n = len(start)
        after = activities(path)[head]
        groups, channels = heads[head].groups, after.shape[-1]
        tokens = after[0].size // channels
        moves = np.reshape(
            np.abs(jacobian), (n, tokens, groups, channels // groups, n, start[0].size)
        ).sum(3)
        seen[path] = sep
        if sep.examples:
            assert not np.any(moves * (1 - np.eye(n))[:, None, None, :, None]), path
        own = np.swapaxes(start, 1, 2) if sep.swapped else start
        index = np.reshape(np.arange(start[0].size), start.shape[1:])
        index = (np.swapaxes(index, 0, 1) if sep.swapped else index).reshape(-1, own.shape[-1])
        if sep.tokens:
            for t in range(tokens):
                others = [i for i in range(tokens) if i != t]
                assert not np.any(moves[:, others][..., index[t]]), path
        if sep.groups > 1:
            width = own.shape[-1] // groups
            for g in range(groups):
                others = [i for i in range(groups) if i != g]
                of_group = index[:, g * width : (g + 1) * width].ravel()
                assert not np.any(moves[:, :, others][..., of_group]), path
    assert any(s.tokens for s in seen.values())


# --- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "losses"), [*((name, "replicated") for name in NETWORKS), ("unknown container", "one")]
)
def test_lg_fg_a_is_unbiased_with_replicated_losses(name, losses, rng, key):
    p = with_heads(name, rng, key)
    k = 1
    if name == "batch norm":
        k = 20  # copies of an example would change its batch
    else:
        p = p.repeated(20)
    exact = p.step(GreedyBackprop(), key).gradients
    rule = GreedyActivityPerturbation(k, losses=losses)
    assert_unbiased(estimates(p, rule, key, 200), exact)


def test_replicas_take_away_noise(rng, key):
    """Of P·G parts of an activity one disturbs the scalar instead of all."""
    p = with_heads("mixer", rng, key)
    variances = [
        estimates(p, GreedyActivityPerturbation(losses=losses), key, 60).var(0).sum()
        for losses in ("replicated", "one")
    ]
    assert variances[0] < 0.5 * variances[1]


def test_an_example_before_a_batch_norm_answers_to_the_whole_batch(key):
    before = separations(a_task(*WITH_BATCH_NORM), greedy=False)
    assert not before["hidden"].examples
    assert before["block/norm"].examples and before["block/tanh"].examples


def test_every_unit_has_a_separation(rng, key):
    p = with_heads("mixer", rng, key)
    kept = separations(p.task, greedy=True)
    units = hidden_units(p.task.network, p.params)
    assert len(units) == 5
    for unit in units:
        assert {unit.weights, unit.before, unit.after} <= set(kept)
        assert tree.leaves(subtree(p.params, unit.weights))


def test_lg_fg_a_draws_the_same_whole_and_in_shards(rng, key):
    p = with_heads("mixer", rng, key)
    rule = GreedyActivityPerturbation(3)
    whole = p.step(rule, key, BACKEND).gradients
    assert_close(p.step(rule, key, BACKEND, shards=3).gradients, whole, 1e-12)
