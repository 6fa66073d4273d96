"""`dfa` where tokens share a matrix, and where what it sends is a layer's own error."""

import numpy as np
import pytest
from learning_problems import assert_close, problem

import dualnet as dn
from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.nn import (
    Activation,
    AverageTokens,
    Linear,
    Sequential,
    TokenMixing,
    softmax_cross_entropy,
    tanh,
)

P, C = 5, 4
MIX = Sequential((("linear", Linear(P)), ("tanh", Activation(tanh))))
NETWORK = (
    ("embed", Linear(C)),
    ("tanh", Activation(tanh)),
    ("tokens", TokenMixing((("mix", MIX),))),
    ("average", AverageTokens()),
    ("output", Linear(3)),
)
SITES = {"tanh": (P, C), "tokens/mix/tanh": (C, P)}


def by_local_losses(p, matrices, tokens, error):
    """The gradient of a sum of losses, each of which answers for one layer."""

    def layers(params):
        """Every activity, from constant inputs, and the outputs."""
        one, mix, out = params["embed"], params["tokens"]["mix"]["linear"], params["output"]
        h = np.tanh(p.x @ one["w"] + one["b"])
        swapped = np.swapaxes(dn.stop_gradient(h), 1, 2)
        mixed = np.tanh(swapped @ mix["w"] + mix["b"])
        last = np.mean(dn.stop_gradient(mixed), axis=2)
        return {"tanh": h, "tokens/mix/tanh": mixed}, last @ out["w"] + out["b"]

    def loss(params):
        activities, outputs = layers(params)
        losses = softmax_cross_entropy(outputs, p.labels)
        e = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True) - np.eye(3)[p.labels]
        for path, h in activities.items():
            read = h.mean(1) if tokens == "shared" else h.reshape(len(h), P * C)
            y = read @ matrices[path].reshape(3, -1).T
            if error == "own":
                losses = losses + softmax_cross_entropy(y, p.labels)
            else:
                losses = losses + (dn.stop_gradient(e) * y).sum(1)
        return losses.mean()

    return dn.grad(loss)(p.params)


@pytest.mark.parametrize("error", ["outputs", "own"])
@pytest.mark.parametrize("tokens", ["own", "shared"])
def test_dfa_on_tokens_is_its_definition(tokens, error, rng, key):
    p = problem(rng, key, *NETWORK, in_shape=(P, 6))
    rule = RULES["dfa"](feedback_tokens=tokens, feedback_error=error)
    matrices = p.rule_state(rule)
    shapes = {path: (3, *(s if tokens == "own" else s[-1:])) for path, s in SITES.items()}
    assert {path: b.shape for path, b in matrices.items()} == shapes
    step = p.step(rule, key, rule_state=matrices)
    assert_close(step.gradients, by_local_losses(p, matrices, tokens, error), 1e-12)
    in_shards = p.step(rule, key, rule_state=matrices, shards=3)
    assert_close(in_shards.gradients, step.gradients, 1e-12)
    assert step.rule_state == matrices


def test_matrices_may_start_as_ren_et_al_start_layers(rng, key):
    p = problem(rng, key, *NETWORK, in_shape=(P, 6))
    wide = problem(rng, key, ("a", Linear(10_000)), *NETWORK[1:2], ("output", Linear(3)))
    start = RULES["dfa"](feedback_start="scaled-normal")
    for at, deviation in ((p, 0.1), (wide, 0.02)):
        drawn = start.init(key, at.plan, at.params)
        entries = np.concatenate([b.ravel() for b in drawn.values()])
        assert abs(entries.std() / deviation - 1) < 5 / np.sqrt(2 * entries.size)


@pytest.mark.parametrize("option", ["feedback_tokens", "feedback_error"])
def test_other_choices_are_refused(option):
    with pytest.raises(UsageError, match=f"dfa: {option}: expected one of .*, got 'all'"):
        RULES["dfa"](**{option: "all"})
