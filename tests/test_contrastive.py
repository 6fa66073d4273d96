"""Contrastive learning: the loss, what it couples, and the training of projections and read-out."""

from dataclasses import replace

import numpy as np
import pytest
from learning_problems import assert_close, assert_unbiased, estimates, largest_sum, problem
from peers import peer

import dualnet as dn
from dualnet import data
from dualnet.errors import UsageError
from dualnet.learning import GreedyActivityPerturbation, GreedyBackprop, Task
from dualnet.learning.independence import independence_of_each
from dualnet.models import MODELS
from dualnet.nn import (
    Activation,
    GroupedLinear,
    InfoNCE,
    LayerNorm,
    Linear,
    LocalHead,
    average,
    replicated,
    replicated_by_copies,
    tanh,
)
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.objective import Contrastive, TrainedNetwork
from dualnet.training.settings import Settings

N, D = 3, 4
every_kind = pytest.mark.parametrize("negatives", ["one-view", "both-views"])


def by_loops(f, temperature, negatives, answering=None):
    """The losses by their definition; what answers is f itself if it is not given."""
    length = np.linalg.norm(f, axis=1, keepdims=True)
    asking, answering = f / length, f / length if answering is None else answering
    losses = []
    for i in range(2 * N):
        own = (i + N) % (2 * N)
        kinds = [j for j in range(2 * N) if (j < N) != (i < N) or negatives == "both-views"]
        answers = [j for j in kinds if j != i]
        assert len(answers) == (N if negatives == "one-view" else 2 * N - 1)  # negatives and own
        each = {j: np.exp(asking[i] @ answering[j] / temperature) for j in answers}
        losses.append(-np.log(each[own] / sum(each.values())))
    return np.array(losses)


@every_kind
def test_the_loss_is_its_definition(negatives, rng):
    f = rng.standard_normal((2 * N, D))
    loss = InfoNCE(temperature=0.5, negatives=negatives)
    np.testing.assert_allclose(loss(f, None), by_loops(f, 0.5, negatives), rtol=1e-12)
    # With the stop-gradient, what answers stays where it is.
    still = f / np.linalg.norm(f, axis=1, keepdims=True)
    step, moved = 1e-6, rng.standard_normal((2 * N, D))
    _, slope = dn.jvp(lambda f: loss(f, None), (f,), (moved,))
    ahead, behind = (by_loops(f + s * moved, 0.5, negatives, still) for s in (step, -step))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@every_kind
def test_the_loss_is_that_of_torch(negatives, rng):
    torch = peer("torch")
    f = rng.standard_normal((2 * N, D))
    unit = torch.nn.functional.normalize(torch.tensor(f), dim=1)
    logits = unit @ unit.T / 0.2
    other = torch.arange(2 * N)[:, None] // N != torch.arange(2 * N) // N
    answers = other if negatives == "one-view" else ~torch.eye(2 * N, dtype=torch.bool)
    own = (torch.arange(2 * N) + N) % (2 * N)
    expected = torch.nn.functional.cross_entropy(
        logits.masked_fill(~answers, -torch.inf), own, reduction="none"
    )
    np.testing.assert_allclose(
        InfoNCE(temperature=0.2, negatives=negatives)(f, None), expected, rtol=1e-10
    )


def jacobian_by_view(loss, rng):
    """|∂ loss_i / ∂ f_j| summed over f_j's entries, `(2N, 2N)`."""
    f = rng.standard_normal((2 * N, D))
    return np.abs(dn.jacfwd(lambda f: loss(f, None))(f)).sum(-1)


@every_kind
def test_with_a_stop_gradient_a_projection_moves_its_own_loss_alone(negatives, rng):
    moves = jacobian_by_view(InfoNCE(temperature=0.5, negatives=negatives), rng)
    assert np.all(np.diagonal(moves) > 0) and not np.any(moves - np.diag(np.diagonal(moves)))
    both_ways = jacobian_by_view(InfoNCE(temperature=0.5, stop=False, negatives=negatives), rng)
    assert np.all(both_ways[:N, N:] > 0) and np.all(both_ways[N:, :N] > 0)
    alike = both_ways[:N, :N][~np.eye(N, dtype=bool)]
    assert np.all(alike > 0) if negatives == "both-views" else not np.any(alike)


def test_the_loss_is_small_where_views_agree_and_pairs_differ():
    f = np.concatenate([np.eye(N, D), 3.0 * np.eye(N, D)])  # length does not count
    agree = InfoNCE(temperature=0.1)(f, None)
    assert np.max(agree) < 1e-3
    np.testing.assert_allclose(InfoNCE(temperature=0.1)(np.ones((2 * N, D)), None), np.log(N))
    assert np.min(InfoNCE(temperature=0.1)(np.concatenate([f[:N], f[N:][::-1]]), None)[[0, 2]]) > 5


@every_kind
def test_a_projection_of_zeros_moves_nothing(negatives, rng):
    """Nor does a view without any content blow up what is learned from the others."""
    f = rng.standard_normal((2 * N, D)).astype(np.float32)
    f /= np.linalg.norm(f, axis=1, keepdims=True)  # what is short is moved far
    f[1] = 0
    loss = InfoNCE(negatives=negatives)
    losses, slopes = dn.jvp(lambda f: loss(f, None), (f,), (np.ones_like(f),))
    assert np.all(np.isfinite(losses)) and losses.dtype == slopes.dtype == np.float32
    gradient = dn.grad(lambda f: loss(f, None).sum())(f)
    assert not np.any(gradient[1]) and np.max(np.abs(gradient)) < 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: InfoNCE(temperature=0.0),
            "InfoNCE: temperature: expected a number above 0, got 0.0",
        ),
        (
            lambda: InfoNCE(negatives="all"),
            "negatives: expected one of one-view, both-views",
        ),
        (
            lambda: Contrastive(negatives="all"),
            "negatives: expected one of one-view, both",
        ),
        (lambda: InfoNCE()(np.ones((3, 2)), None), r"InfoNCE: expected projections .2N, D."),
        (lambda: InfoNCE()(np.ones((2, 2, 2)), None), r"InfoNCE: expected projections .2N, D."),
    ],
)
def test_what_the_loss_refuses(call, message):
    with pytest.raises(UsageError, match=message):
        call()


# short projections magnify rounding errors
@pytest.mark.parametrize(("dtype", "allowed"), [(np.float64, 1e-12), (np.float32, 5e-6)])
def test_replicated_losses_equal_their_definition(dtype, allowed, rng):
    x = rng.standard_normal((2 * N, 5, 4)).astype(dtype)
    w, t = rng.standard_normal((4, D)).astype(dtype), rng.standard_normal((2, *x.shape))
    t = t.astype(dtype)
    loss = lambda f: InfoNCE(temperature=0.5)(f @ w, None)  # noqa: E731
    (value, moved), (slow_value, slow_moved) = (
        dn.jvp(lambda x: form(loss, x, 2), (x,), (t,))  # noqa: B023
        for form in (replicated, replicated_by_copies)
    )
    assert np.max(np.abs(value - slow_value)) <= allowed * np.max(slow_value)
    scale = largest_sum(lambda x: loss(average(x)), (x,), (t,))
    assert np.max(np.abs(moved - slow_moved)) <= allowed * scale


NETWORK = (
    ("embed", Linear(8)),
    ("norm", LayerNorm()),
    ("tanh", Activation(tanh)),
    ("head1", LocalHead(D, groups=2, weights="kaiming")),
    ("groups", GroupedLinear(8, groups=2)),
    ("tanh2", Activation(tanh)),
    ("head2", LocalHead(D, groups=2, weights="kaiming")),
    ("output", Linear(D)),
)


def contrastive_problem(rng, key, loss):
    p = problem(rng, key, *NETWORK, n=2 * N)
    return replace(p, task=Task(p.task.network, loss))


@every_kind
@pytest.mark.parametrize("stop", [True, False])
def test_lg_fg_a_is_unbiased(stop, negatives, rng, key):
    """Without the stop-gradient all examples answer to the batch's total."""
    p = contrastive_problem(rng, key, InfoNCE(temperature=0.5, stop=stop, negatives=negatives))
    assert independence_of_each(p.task, greedy=True)["norm"].examples == stop
    exact = p.step(GreedyBackprop(), key).gradients
    assert_unbiased(p, GreedyActivityPerturbation(30), key, 300, exact)


def test_a_batch_is_not_cut(rng, key):
    p = contrastive_problem(rng, key, InfoNCE(temperature=0.5))
    whole = p.step(GreedyBackprop(), key).gradients
    assert_close(p.step(GreedyBackprop(), key, shards=3).gradients, whole, 1e-15)


def test_the_stop_gradient_takes_noise_away(rng, key):
    variances = [
        estimates(
            contrastive_problem(np.random.default_rng(1), key, InfoNCE(temperature=0.5, stop=stop)),
            GreedyActivityPerturbation(4),
            key,
            100,
        )
        .var(0)
        .sum()
        for stop in (True, False)
    ]
    assert variances[0] < 0.5 * variances[1]


def test_a_read_out_may_get_normalized_features(rng):
    network = Contrastive(8).network(
        lambda outputs: MODELS["mlp"](width=7, depth=1).network((5,), outputs), 3
    )
    params, state, _ = network.init(dn.Key(0), (5,))
    trained = TrainedNetwork(network, params, state)
    x = rng.standard_normal((4, 5))
    features = np.maximum(x @ params["hidden1"]["w"], 0)
    w = rng.standard_normal((7, 3))
    readout = {"params": {"w": w, "b": np.zeros(3)}}
    np.testing.assert_allclose(
        Contrastive().logits(readout, trained, x), features @ w, rtol=1e-5, atol=1e-5
    )
    still = features - features.mean(1, keepdims=True)
    normal = still / np.sqrt((still**2).mean(1, keepdims=True) + 1e-5)
    logits = Contrastive(readout_norm=True).logits(readout, trained, x)
    np.testing.assert_allclose(logits, normal @ w, rtol=1e-5, atol=1e-5)


def test_accuracy_is_of_images_not_of_views():
    """A batch has two views of each image, and the read-out names the class of both."""
    digits = data.load("digits", limit_train=40, limit_test=10)
    chosen = Settings(
        *("digits", "mlp", "bp", "sgd", "constant", 1e-3, 1, 40),
        objective="contrastive",
        augment="contrastive",
    )
    outline = MODELS["mlp"](width=8, depth=1)
    network = Contrastive().network(lambda outputs: outline.network(digits.in_shape, outputs), 10)
    trainer = make_trainer(chosen, network, digits)
    now = next(course(trainer, trainer.start(), [], True))
    assert now.sums[2] == 40
    # before its first step the read-out is all zeros and names the first class
    assert now.sums[1] == np.count_nonzero(digits.train_labels == 0) > 0
