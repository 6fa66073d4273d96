"""Learning rates of their own for local heads and for the read-out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualnet import Key, data, tree
from dualnet.errors import TreeError, UsageError
from dualnet.models import LocalMixer
from dualnet.nn import Activation, LayerNorm, Linear, LocalHead, Sequential, relu
from dualnet.optim import OPTIMIZERS, SGD
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.rates import rate_factors
from dualnet.training.settings import Settings

NETWORK = Sequential(
    (
        ("hidden", Linear(5)),
        ("relu", Activation(relu)),
        ("head", LocalHead(3)),
        ("output", Linear(3)),
    )
)
PARAMS, _, _ = NETWORK.init(Key(0), (4,))


def test_factors_are_by_what_a_layer_is_for():
    found = dict(tree.items(rate_factors(NETWORK, PARAMS, head_lr=2.0, output_lr=0.1)))
    assert found == {
        "hidden/w": 1.0,
        "hidden/b": 1.0,
        "head/linear/w": 2.0,
        "head/linear/b": 2.0,
        "output/w": 0.1,
        "output/b": 0.1,
    }
    assert rate_factors(NETWORK, PARAMS) is None


def test_norms_behind_the_last_layer_have_its_rate():
    network = Sequential((("hidden", Linear(5)), ("last", Linear(3)), ("norm", LayerNorm())))
    params, _, _ = network.init(Key(0), (4,))
    found = dict(tree.items(rate_factors(network, params, output_lr=0.1)))
    assert {path for path, factor in found.items() if factor == 0.1} == {
        *("last/w", "last/b", "norm/gain", "norm/bias"),
    }


def test_a_network_without_parameters_is_refused():
    network = Sequential((("relu", Activation(relu)),))
    params, _, _ = network.init(Key(0), (4,))
    with pytest.raises(UsageError, match="output_lr: no layer of the network has parameters"):
        rate_factors(network, params, output_lr=0.1)
    assert rate_factors(network, params) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_is_of_the_rate(name, rng):
    """As with a rate of its own in every update, whatever an optimizer makes of gradients."""
    params = {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal((3, 2))}
    optimizer = OPTIMIZERS[name](weight_decay=0.1)
    alone = {part: {part: params[part]} for part in params}
    state, states = optimizer.init(params), {p: optimizer.init(alone[p]) for p in alone}
    for _ in range(3):
        g = {part: rng.standard_normal((3, 2)) for part in params}
        factors = {"a": 1.0, "b": 0.25}
        params, state = optimizer.update(g, state, params, 0.1, factors)
        for part, factor in factors.items():
            alone[part], states[part] = optimizer.update(
                {part: g[part]}, states[part], alone[part], 0.1 * factor
            )
            np.testing.assert_allclose(params[part], alone[part][part], rtol=1e-12)
            assert not np.array_equal(params[part], params["a" if part == "b" else "b"])


def test_factors_must_fit():
    params = {"a": np.zeros(2), "b": np.zeros(3)}
    state = SGD().init(params)
    with pytest.raises(TreeError, match=r"SGD.update: factors: .*; give a number for every"):
        SGD().update(params, state, params, 0.1, {"a": 1.0})
    with pytest.raises(UsageError, match=r"SGD.update: expected factors at least 0 .*, got -1"):
        SGD().update(params, state, params, 0.1, {"a": 1.0, "b": -1})


SETTINGS = Settings(
    *("digits", "local-mixer", "lg-bp", "sgd", "constant", 1e-2, 1, 32),
    model_options={"width": 8, "patches": 2, "groups": 2, "depth": 2},
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_heads_and_output_by_their_rates(name):
    digits = data.load("digits", limit_train=32, limit_test=10)
    network = LocalMixer(width=8, patches=2, groups=2, depth=2).network(digits.in_shape, 10)

    def moved(**factors):
        chosen = replace(SETTINGS, optimizer=name, dtype="float64", **factors)
        trainer = make_trainer(chosen, network, digits)
        start = trainer.start()
        after = next(course(trainer, start, [], True))
        return tree.map(lambda a, b: a - b, after.carried.params, start.carried.params)

    plain = moved()
    scaled = moved(head_lr=3.0, output_lr=0.1)
    for (path, a), b in zip(tree.items(plain), tree.leaves(scaled), strict=True):
        factor = {"head": 3.0, "outp": 0.1}.get(path[:4], 1.0)
        assert np.any(a), path
        np.testing.assert_allclose(b, factor * a, rtol=1e-7, atol=1e-14, err_msg=path)


@pytest.mark.usefixtures("elsewhere")
def test_a_run_keeps_its_factors(ask):
    flags = (
        "--dataset digits --model local-mixer --rule lg-bp --width 8 --groups 2 --patches 2 "
        "--depth 2 --optimizer momentum --schedule constant --limit-train 96 --limit-test 50 "
        "--batch-size 32 --quiet"
    ).split()
    own = "--head-lr 0.5 --output-lr 0.1".split()
    for folder, epochs, factors in (("two", 2, own), ("one", 1, own), ("plain", 2, ())):
        code, _, err = ask(*flags, *factors, "--epochs", epochs, "--run-dir", folder)
        assert code == 0, err
    assert ask("--resume", "one", "--epochs", 2, "--quiet")[0] == 0
    settings = json.loads(Path("one/config.json").read_text())["settings"]
    assert (settings["head_lr"], settings["output_lr"]) == (0.5, 0.1)
    losses = [json.loads(Path(f"{x}/summary.json").read_text()) for x in ("one", "two", "plain")]
    resumed, whole, plain = (summary["test_loss"] for summary in losses)
    assert resumed == whole != plain


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--output-lr 0", "--output-lr: expected a positive number, got 0.0"),
        ("--rule lg-bp --head-lr -1", "--head-lr: expected a positive number, got -1.0"),
        ("--rule bp --head-lr 2", "--head-lr is of no use to --rule bp"),
    ],
)
def test_factors_that_make_no_sense(flags, says, ask):
    code, out, err = ask(*flags.split())
    assert (code, out) == (2, "") and says in err
