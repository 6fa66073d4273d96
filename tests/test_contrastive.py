"""Contrastive learning: the loss, what it couples, and the training of projections and read-out."""

from dataclasses import replace

import numpy as np
import pytest
from learning_problems import assert_close, assert_unbiased, estimates, largest_sum, problem

import dualnet as dn
from dualnet import data
from dualnet.errors import UsageError
from dualnet.learning import GreedyActivityPerturbation, GreedyBackprop, Task
from dualnet.learning.independence import independence_of_each
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
from dualnet.training.epoch import course
from dualnet.training.objective import Contrastive
from dualnet.training.run import make_trainer
from dualnet.training.settings import Settings
from models import MODELS

N, D = 3, 4


def jacobian_by_view(loss, rng):
    """|∂ loss_i / ∂ f_j| summed over f_j's entries, `(2N, 2N)`."""
    f = rng.standard_normal((2 * N, D))
    return np.abs(dn.jacfwd(lambda f: loss(f, None))(f)).sum(-1)


def test_with_a_stop_gradient_a_projection_moves_its_own_loss_alone(rng):
    moves = jacobian_by_view(InfoNCE(0.5), rng)
    assert np.all(np.diagonal(moves) > 0) and not np.any(moves - np.diag(np.diagonal(moves)))
    both_ways = jacobian_by_view(InfoNCE(0.5, stop=False), rng)
    assert np.all(both_ways[:N, N:] > 0) and np.all(both_ways[N:, :N] > 0)


def test_the_loss_is_small_where_views_agree_and_pairs_differ():
    f = np.concatenate([np.eye(N, D), 3.0 * np.eye(N, D)])  # length does not count
    agree = InfoNCE(0.1)(f, None)
    assert np.max(agree) < 1e-3
    np.testing.assert_allclose(InfoNCE(0.1)(np.ones((2 * N, D)), None), np.log(N))
    assert np.min(InfoNCE(0.1)(np.concatenate([f[:N], f[N:][::-1]]), None)[[0, 2]]) > 5


def test_a_projection_of_zeros_moves_nothing(rng):
    """Nor does a view without any content blow up what is learned from the others."""
    f = rng.standard_normal((2 * N, D)).astype(np.float32)
    f /= np.linalg.norm(f, axis=1, keepdims=True)  # what is short is moved far
    f[1] = 0
    losses, slopes = dn.jvp(lambda f: InfoNCE()(f, None), (f,), (np.ones_like(f),))
    assert np.all(np.isfinite(losses)) and losses.dtype == slopes.dtype == np.float32
    gradient = dn.grad(lambda f: InfoNCE()(f, None).sum())(f)
    assert not np.any(gradient[1]) and np.max(np.abs(gradient)) < 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InfoNCE(0.0), "InfoNCE: --temperature must be a number above 0, got 0.0"),
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
    loss = lambda f: InfoNCE(0.5)(f @ w, None)  # noqa: E731
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
    ("groups", GroupedLinear(8, 2)),
    ("tanh2", Activation(tanh)),
    ("head2", LocalHead(D, groups=2, weights="kaiming")),
    ("output", Linear(D)),
)


def contrastive_problem(rng, key, loss):
    p = problem(rng, key, *NETWORK, n=2 * N)
    return replace(p, task=Task(p.task.network, loss))


@pytest.mark.parametrize("stop", [True, False])
def test_lg_fg_a_is_unbiased(stop, rng, key):
    """Without the stop-gradient all examples answer to the batch's total."""
    p = contrastive_problem(rng, key, InfoNCE(0.5, stop))
    assert independence_of_each(p.task, greedy=True)["norm"].examples == stop
    exact = p.step(GreedyBackprop(), key).gradients
    assert_unbiased(p, GreedyActivityPerturbation(30), key, 300, exact)


def test_a_batch_is_not_cut(rng, key):
    p = contrastive_problem(rng, key, InfoNCE(0.5))
    whole = p.step(GreedyBackprop(), key).gradients
    assert_close(p.step(GreedyBackprop(), key, shards=3).gradients, whole, 1e-15)


def test_the_stop_gradient_takes_noise_away(rng, key):
    variances = [
        estimates(
            contrastive_problem(np.random.default_rng(1), key, InfoNCE(0.5, stop)),
            GreedyActivityPerturbation(4),
            key,
            100,
        )
        .var(0)
        .sum()
        for stop in (True, False)
    ]
    assert variances[0] < 0.5 * variances[1]


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
