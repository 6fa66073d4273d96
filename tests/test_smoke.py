"""In seconds: a derivative, a gradient, a step of every rule, and a training that learns."""

import numpy as np
import pytest
from learning_problems import flat, problem

import dualnet as dn
from dualnet import data
from dualnet.learning import RULES
from dualnet.models import MLP
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings


def test_jvp():
    value, slope = dn.jvp(lambda x: np.sin(x) * x, (np.array(2.0),), (np.array(1.0),))
    assert np.isclose(value, np.sin(2) * 2)
    assert np.isclose(slope, np.cos(2) * 2 + np.sin(2))


def test_grad():
    gradient = dn.grad(lambda p: np.sum((p["a"] @ p["b"]) ** 2))(
        {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0], [4.0]])}
    )
    assert np.allclose(gradient["a"], [[66, 88]])  # 2 (1·3 + 2·4) b
    assert np.allclose(gradient["b"], [[22], [44]])


@pytest.mark.parametrize("rule", RULES)
def test_a_step(rule, rng, key):
    p = problem(rng, key, n=5)
    done = p.step(RULES[rule](), key)
    assert dn.tree.describe(done.gradients) == dn.tree.describe(p.params)
    assert np.isfinite(flat(done.gradients)).all()
    assert 0 < done.loss < 10 and 0 <= done.correct <= 5


@pytest.mark.parametrize(("rule", "accuracy"), [("bp", 0.85), ("fg-a", 0.5)])
def test_a_training(rule, accuracy, tmp_path):
    options = {"width": 32, "depth": 1, "activation": "relu"}
    settings = Settings(
        dataset="digits",
        model="mlp",
        rule=rule,
        optimizer="adam",
        schedule="cosine",
        lr=5e-3,
        epochs=4,
        batch_size=32,
        model_options=options,
    )
    network = MLP(**options).network((8, 8, 1), 10)
    dataset = data.load("digits", limit_train=800)
    summary = run(settings, network, dataset, RunFolder(tmp_path / "run"), quiet=True).summary
    assert summary["test_accuracy"] > accuracy
