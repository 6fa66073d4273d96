"""Numbers that are not finite: where they are said to begin, and steps that leave them out."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from test_training import (
    SETTINGS,
    STEPS_PER_EPOCH,
    assert_same_run,
    interrupt_at,
    stored,
)

import dualnet.training.loop as loop_module
from dualnet import Key, data, tree
from dualnet.errors import DivergedError
from dualnet.models import MLP
from dualnet.nn import Activation, Flatten, Layer, Linear, Sequential
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder
from dualnet.training.seeds import run_seeds

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # networks here overflow on purpose
]

SKIP = replace(SETTINGS, on_nan="skip", epochs=3)
NETWORK = MLP(**SETTINGS.model_options).network((8, 8, 1), 10)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=100, limit_test=40)


def lost_in(patch, steps, seed=0, part="gradients"):
    """Let a number of these steps, counted from 0, be NaN, however often they are made."""
    real = loop_module.estimate_gradient
    keys = {Key(seed).fold_in("step").fold_in(number) for number in steps}

    def lost(*args):
        done = real(*args)
        if not keys & {a for a in args if isinstance(a, Key)}:
            return done
        if part == "loss":
            return done._replace(loss=np.float32(np.nan))
        broken = tree.leaves(getattr(done, part))
        broken[0] = np.full_like(broken[0], np.inf)
        return done._replace(**{part: tree.unflatten(getattr(done, part), broken)})

    patch.setattr(loop_module, "estimate_gradient", lost)


# --- steps that are left out -------------------------------------------------------------------


@pytest.mark.parametrize("part", ["gradients", "loss", "rule_state"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lars"])
def test_a_step_that_is_left_out_leaves_everything_as_it_was(part, optimizer, digits, monkeypatch):
    settings = replace(SKIP, rule="fdfa", optimizer=optimizer, batch_size=20)
    trainer = make_trainer(settings, NETWORK, digits)
    lost_in(monkeypatch, [2], part=part)
    states = [trainer.start(), *course(trainer, trainer.start(), [], True)]
    for before, after in pairwise(states[:5]):
        same = [
            np.array_equal(a, b)
            for a, b in zip(tree.leaves(before.carried), tree.leaves(after.carried), strict=True)
        ]
        assert all(same) == (before.position.tolist() == [0, 2])
    assert states[-1].skipped == 1
    # The figures of the epoch are those of the other four steps.
    monkeypatch.undo()
    plain = make_trainer(replace(settings, on_nan="stop"), NETWORK, digits)
    others = [s.sums for s in course(plain, plain.start(), [], True)][:2]
    np.testing.assert_array_equal(states[2].sums[:3], others[1][:3])
    assert states[3].sums[2] == 40 and states[5].sums[2] == 80


def test_a_run_without_such_steps_is_the_same(digits):
    run(SKIP, NETWORK, digits, RunFolder("skip"), quiet=True)
    run(replace(SKIP, on_nan="stop"), NETWORK, digits, RunFolder("stop"), quiet=True)
    skip, stop = stored_at("skip"), stored_at("stop")
    assert skip.pop("skipped:") == 0
    assert skip.keys() == stop.keys()
    for name in skip:
        np.testing.assert_array_equal(skip[name], stop[name], err_msg=name)


def stored_at(folder):
    return stored(RunFolder(folder).path)


@pytest.mark.parametrize("number", [2, 3, STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH - 1])
def test_an_interrupted_run_that_left_steps_out_goes_on_to_the_same(number, digits, monkeypatch):
    steps = (0, 2, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH)
    lost_in(monkeypatch, steps)
    summary = run(SKIP, NETWORK, digits, RunFolder("whole"), quiet=True).summary
    assert summary["skipped_steps"] == len(steps)
    with monkeypatch.context() as patch:
        interrupt_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            run(SKIP, NETWORK, digits, RunFolder("parts"), quiet=True)
    again = run(SKIP, NETWORK, digits, RunFolder("parts"), resume=True, quiet=True).summary
    assert again["skipped_steps"] == len(steps)
    assert_same_run(RunFolder("whole").path, RunFolder("parts").path)


def test_each_of_several_runs_leaves_its_own_steps_out(digits, monkeypatch):
    lost_in(monkeypatch, [3, 4], seed=5)
    summary = run_seeds(SKIP, NETWORK, digits, RunFolder("all"), (2, 5), quiet=True)
    assert [one["skipped_steps"] for one in summary["runs"]] == [0, 2]
    for seed in (2, 5):
        run(replace(SKIP, seed=seed), NETWORK, digits, RunFolder(str(seed)), quiet=True)
        assert_same_run(RunFolder(str(seed)).path, RunFolder(f"all/seed-{seed}").path)


def test_an_epoch_without_any_step_is_a_divergence(digits, monkeypatch):
    lost_in(monkeypatch, range(STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH))
    with pytest.raises(DivergedError, match=r"^diverged in epoch 2: all its steps were left out; "):
        run(SKIP, NETWORK, digits, RunFolder("run"), quiet=True)
    assert stored_at("run")["position:"].tolist() == [1, 0]


def test_the_command_says_how_many(ask, monkeypatch):
    lost_in(monkeypatch, [1, 2])
    flags = "--limit-train 100 --limit-test 40 --epochs 1 --width 8 --batch-size 20 --quiet"
    code, out, _ = ask(*flags.split(), "--on-nan", "skip", "--run-dir", "run")
    assert code == 0
    assert "left out      2 steps with numbers that are not finite\n" in out
    code, _, err = ask(*flags.split(), "--on-nan", "go")
    assert code == 2 and "--on-nan" in err


# --- where it began ------------------------------------------------------------------------------


def chain(*between, width=6):
    middle = [(name, Activation(f)) for name, f in between]
    return Sequential(
        (
            ("flat", Flatten()),
            ("hidden", Linear(width)),
            *middle,
            ("output", Linear(10)),
        )
    )


PLACES = {
    "in the first forward pass": (
        chain(("burst", lambda x: 1 / (x * 0)), ("after", np.tanh)),
        {},
        # Output weights that start at 0 hide it from the loss of step 1.
        r"diverged at step 2: the loss is nan; the first number that is not finite is in the "
        r"output of layer burst of step 1; lower lr \(now 0\.01\)",
    ),
    "in a gradient": (
        chain(("sign", lambda x: np.sqrt(np.maximum(x, 0)))),
        {},
        r"diverged at step 2: the loss is nan; the first number that is not finite is in the "
        r"gradient of parameter hidden/w, while the forward pass is finite, of step 1; lower",
    ),
    "in an update": (
        chain(("large", lambda x: 1000 * x)),
        {"lr": 3e38, "optimizer": "momentum", "dtype": "float32"},
        r"the first number that is not finite is in parameter \w+/w, after the update of step 1",
    ),
    "after a large step": (
        chain(("cube", lambda x: x * x * x)),
        {"lr": 1e9},
        r"diverged at step 2: .* is in the output of layer \w+ of step 2; lower",
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shards", [None, 3])
def test_the_error_says_where_it_began(place, shards, digits):
    network, changes, said = PLACES[place]
    settings = replace(SETTINGS, rule="bp", optimizer="sgd", shards=shards)
    settings = replace(settings, **changes)
    with pytest.raises(DivergedError, match=said):
        run(settings, network, digits, RunFolder("run"), quiet=True)


def test_it_is_said_of_each_of_several_runs(digits):
    network, changes, said = PLACES["in a gradient"]
    settings = replace(SETTINGS, rule="bp", optimizer="sgd", **changes)
    with pytest.raises(DivergedError, match=f"^2 of 2 seeds diverged .* seed 3 {said}"):
        run_seeds(settings, network, digits, RunFolder("all"), (3, 4), quiet=True)


def test_a_resumed_run_says_it_too(digits):
    """It has no step before the first that it makes."""
    network, changes, said = PLACES["in the first forward pass"]
    settings = replace(SETTINGS, rule="bp", optimizer="sgd", **changes)
    for resume in (False, True):
        with pytest.raises(DivergedError, match=said):
            run(settings, network, digits, RunFolder("run"), resume=resume, quiet=True)


class InfiniteInEvaluation(Layer):
    """As running statistics can make a norm's outputs."""

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return (x if context.train else x / np.zeros_like(x)), state


def test_a_number_that_is_lost_in_the_evaluation(digits):
    layers = (("flat", Flatten()), ("norm", InfiniteInEvaluation()), ("output", Linear(10)))
    said = "diverged in epoch 1: the test loss is nan; the first number that is not finite is in "
    with pytest.raises(DivergedError, match=f"^{said}the output of layer norm, in evaluation mod"):
        settings = replace(SETTINGS, rule="bp")
        run(settings, Sequential(layers), digits, RunFolder("run"), quiet=True)


def test_seeds_of_which_one_diverges_can_be_given_more_epochs(digits, monkeypatch):
    """It diverges again at the same step, and the others go on."""
    settings = replace(SETTINGS, epochs=2)
    lost_in(monkeypatch, [STEPS_PER_EPOCH + 1], seed=5, part="loss")
    first = run_seeds(settings, NETWORK, digits, RunFolder("all"), (2, 5), quiet=True)
    more = replace(settings, epochs=3)
    again = run_seeds(more, NETWORK, digits, RunFolder("all"), (2, 5), resume=True, quiet=True)
    assert (first["seed"], again["seed"]) == ([2], [2])
    assert first["diverged"] == again["diverged"] and list(again["diverged"]) == [5]
    run(replace(more, seed=2), NETWORK, digits, RunFolder("2"), quiet=True)
    assert_same_run(RunFolder("2").path, RunFolder("all/seed-2").path)
