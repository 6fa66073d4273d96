"""One small network with every layer of the house: its Jacobian both ways, and under every rule."""

import inspect

import numpy as np
import pytest

import dualnet as dn
from dualnet import backends, nn, tree
from dualnet.learning import (
    RULES,
    Batch,
    LearnerState,
    Plan,
    Task,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.nn import (
    Activation,
    AdaptiveAveragePool,
    AveragePool,
    AverageTokens,
    BatchNorm,
    ClassToken,
    Context,
    Conv2d,
    Dropout,
    Flatten,
    GroupedLinear,
    GroupNorm,
    LayerNorm,
    Linear,
    LocalHead,
    MaxPool,
    MultiHeadAttention,
    Patches,
    Positions,
    Residual,
    SelectToken,
    Sequential,
    StopGradient,
    TokenMixing,
    gelu,
    softmax_cross_entropy,
    tanh,
)

IN_SHAPE = (8, 8, 2)


def chain(*layers):
    return Sequential(tuple((f"{i}", layer) for i, layer in enumerate(layers)))


def network(stop, pool):
    return chain(
        Conv2d(4, 3, padding=1),
        BatchNorm(),
        Activation(tanh),
        Residual(
            (
                ("block", chain(Conv2d(4, 3, 1, 1, groups=2), GroupNorm(2))),
                ("shortcut", Conv2d(4, 1)),
            )
        ),
        pool,
        AveragePool(3, 1, 1),
        Dropout(0.25),
        Residual((("block", chain(Conv2d(4, 2, padding=((0, 1), (1, 0))), stop)),)),
        AdaptiveAveragePool((4, 2)),
        Patches(2),
        ClassToken(),
        Positions(),
        Residual((("block", chain(LayerNorm(), MultiHeadAttention(2))),)),
        TokenMixing((("mix", chain(Linear(4), Activation(gelu))),)),
        GroupedLinear(16, 2),
        LayerNorm(groups=2),
        LocalHead(3),
        Residual((("block", chain(AverageTokens(), Linear(16))), ("shortcut", SelectToken()))),
        Flatten(),
        Linear(3),
    )


NETWORK = network(StopGradient(), MaxPool(2))


def started(key, rng):
    params, state, out_shape = NETWORK.init(key, IN_SHAPE)
    assert out_shape == (3,)
    params = tree.map(lambda p: p + rng.uniform(-0.5, 0.5, p.shape), params)  # float64
    return params, state, rng.standard_normal((3, *IN_SHAPE))


@pytest.fixture
def start(key, rng):
    return started(key, rng)


def layers_in(layer):
    yield type(layer)
    for _, child in getattr(layer, "layers", ()):
        yield from layers_in(child)


def test_no_layer_of_the_house_is_missing():
    of_the_house = {
        value
        for value in vars(nn).values()
        if inspect.isclass(value) and hasattr(value, "apply") and value is not nn.Layer
    }
    assert set(layers_in(NETWORK)) == of_the_house


@pytest.mark.parametrize("train", [True, False])
def test_the_jacobian_forward_and_reverse(start, key, train, worst):
    params, state, x = start
    context = Context(train=train, key=key)

    def f(params, x):
        return NETWORK.apply(params, state, x, context)[0]

    forward = dn.jacfwd(f, (0, 1), tangent_chunk=64)(params, x)
    reverse = dn.jacrev(f, (0, 1))(params, x)
    largest = max(np.max(np.abs(block)) for block in tree.leaves(forward))
    for (path, a), b in zip(tree.items(forward), tree.leaves(reverse), strict=True):
        assert a.shape == b.shape
        error = np.max(np.abs(a - b), initial=0) / largest
        worst("Jacobian, forward against reverse", error, path)
        assert error < 1e-10, path


def test_its_derivatives_against_differences(worst):
    """By a five-point formula at a point where it is good to 1e-10: a network this deep curves too
    much for a central difference, and at one point in a hundred for any.

    Differences do not stop at a stop-gradient, and must not cross kinks: both are left out here.
    """
    key, rng = dn.Key(0), np.random.default_rng(0)
    params, state, x = started(key, rng)
    smooth = network(Activation(tanh), AveragePool(2))
    v = tree.map(lambda a: rng.standard_normal(a.shape), (params, x))

    def f(params, x):
        return smooth.apply(params, state, x, Context(train=True, key=key))[0]

    def moved(h):
        return f(*tree.map(lambda a, d: a + h * d, (params, x), v))

    h = 3e-5
    quotient = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    _, t = dn.jvp(f, (params, x), v)
    error = np.max(np.abs(t - quotient)) / np.max(np.abs(quotient))
    worst("jvp of every layer in a row against a five-point difference", error, "")
    assert error < 1e-8
    dn.check_vjp(f, (params, x), key=key)


@pytest.mark.parametrize("name", RULES)
def test_a_step_under_every_rule(start, key, name):
    params, state, x = start
    task = Task(NETWORK, softmax_cross_entropy)
    rule, labels = RULES[name](), np.array([0, 2, 1])
    plan = Plan.of(task, params, state, x)
    learner = LearnerState(params, state, rule.init(key, plan, params))
    backend = backends.get("numpy")
    done = estimate_gradient(rule, plan, learner, Batch(x, labels), key, backend)
    for (path, g), p in zip(tree.items(done.gradients), tree.leaves(params), strict=True):
        assert g.shape == p.shape and np.all(np.isfinite(g)), path
    pairs = zip(tree.leaves(done.model_state), tree.leaves(state), strict=True)
    moved = [np.any(a != b) for a, b in pairs]
    assert moved and all(moved)  # the running statistics


def test_rank_one_directions_through_every_layer(start, key):
    """The derivative along them is that along the same directions as dense stacks."""
    params, state, x = start
    rule = WeightPerturbation(tangents=3, sampler="rank-one")
    plan = Plan.of(Task(NETWORK, softmax_cross_entropy), params, state, x)
    (directions,) = rule.sample(key, plan, params, backends.get("numpy"), len(x)).chunks()

    def f(params):
        return NETWORK.apply(params, state, x, Context(train=True, key=key))[0]

    dense = tree.map(lambda t: t.dense() if isinstance(t, dn.RankOne) else t, directions)
    assert any(isinstance(t, dn.RankOne) for t in tree.leaves(directions))
    _, thin = dn.jvp(f, (params,), (directions,))
    np.testing.assert_allclose(thin, dn.jvp(f, (params,), (dense,))[1], rtol=1e-9, atol=1e-9)
