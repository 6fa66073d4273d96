"""Perturbed activities by finite differences, and experiments on what estimates are worth."""

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    NETWORKS,
    WITH_BATCH_NORM,
    assert_close,
    problem,
)

from dualnet.errors import UsageError
from dualnet.learning import ActivityDifferences, ActivityPerturbation
from dualnet.nn import Activation, InfoNCE, Linear, StopGradient, relu, tanh

# --- perturbed activities by finite differences --------------------------------------------------

OPTIONS = (
    {"tangents": 3},
    {"perturb": "after", "sampler": "rademacher"},
    {"tangents": 3, "aggregate": "projection"},
)
APPLIED = {
    **NETWORKS,
    "batch norm": ((6,), WITH_BATCH_NORM),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", APPLIED)
def test_differences_of_activities_tend_to_derivatives(name, options, rng, key):
    """With the directions of `fg-a`, and so small an ε that no unit passes a kink."""
    in_shape, layers = APPLIED[name]
    p = problem(rng, key, *layers, in_shape=in_shape)
    exact = p.step(ActivityPerturbation(**options), key)
    small = p.step(ActivityDifferences(**options, difference=1e-8), key)
    assert_close(small.gradients, exact.gradients, 1e-3, name)
    assert np.isclose(small.loss, exact.loss, rtol=1e-12) and small.correct == exact.correct


def test_a_difference_is_that_of_the_losses_of_moved_activities(rng, key):
    """By hand, with a large ε, at which a derivative would be something else."""
    layers = (("hidden", Linear(5)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers)
    rule = ActivityDifferences(difference=2.0)
    done = p.step(rule, key)
    z = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    directions = rule.sample(key, p.plan, p.params, BACKEND, len(p.x))
    (u,) = directions.draw_array(
        directions.key.fold_in("hidden").fold_in(1).fold_in(0), z.shape, z.dtype, 0
    )[None]

    def losses(z):
        y = np.tanh(z) @ p.params["output"]["w"] + p.params["output"]["b"]
        return np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), p.labels]

    d = (losses(z + 2.0 * u) - losses(z)) / 2.0
    expected = p.x.T @ (d[:, None] * u) / len(p.x)
    np.testing.assert_allclose(done.gradients["hidden"]["w"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("difference", [0.0, -1.0, np.inf, np.nan])
def test_a_difference_must_be_a_number_above_0(difference):
    with pytest.raises(UsageError, match="ap: difference must be above 0 and finite, got"):
        ActivityDifferences(difference=difference)


def test_differences_are_refused_where_gradients_stop(rng, key):
    stopped = (("hidden", Linear(5)), ("relu", Activation(relu)), ("stop", StopGradient()))
    p = problem(rng, key, *stopped, ("output", Linear(3)))
    with pytest.raises(UsageError, match=r"ap: .* the stop-gradient at stop; use fg-a, or --no-re"):
        p.step(ActivityDifferences(), key)
    p = problem(rng, key)
    p = type(p)(type(p.task)(p.task.network, InfoNCE()), p.params, p.state, p.x, p.labels)
    with pytest.raises(UsageError, match=r"ap: .* of the contrastive loss; use fg-a, or --no-stop"):
        p.step(ActivityDifferences(), key, rule_state={})
