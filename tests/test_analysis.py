"""Alignment, bias and variance of gradients, by hand and by theory, and `--grad-stats`."""

import csv
import itertools
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    EVERY_RULE,
    NETWORKS,
    WITH_HEADS,
    Problem,
    bounded,
    flat,
    problem,
)

import dualnet.training.loop as loop_module
import dualnet.training.run as run_module
from dualnet import analysis, data, tree
from dualnet.analysis import Point, alignment, bias, compare, error_alignment, table, variance
from dualnet.command import train as train_py
from dualnet.errors import DataError, TreeError, UsageError
from dualnet.learning import (
    ActivityPerturbation,
    Backprop,
    ControlVariate,
    DirectFeedback,
    GreedyBackprop,
    LocalBackprop,
    Task,
    WeightPerturbation,
)
from dualnet.models import MLP
from dualnet.nn import Activation, Dropout, Linear, Sequential, mean_squared_error, tanh
from dualnet.training.assemble import make_trainer
from dualnet.training.history import last_cosine
from dualnet.training.run import run
from dualnet.training.run_folder import GRADIENT_COLUMNS, RunFolder
from dualnet.training.settings import Settings


def at(p, rule, rule_state=None):
    """The point of a problem, and its batch."""
    rule_state = p.rule_state(rule) if rule_state is None else rule_state
    return Point(rule, p.plan, p.learner(rule_state), BACKEND), p.x, p.labels


def by_layer(rows):
    return {row.layer: row for row in rows}


# --- alignment ---------------------------------------------------------------------------------


def test_angles_and_norms_of_known_vectors():
    estimate = {"a": np.float32([3, 0]), "b": [np.float32([[0, 4]]), np.zeros(2)]}
    exact = {"a": np.float32([1, 1]), "b": [np.float32([[0, -2]]), np.ones(2)]}
    a, b, zero, total = compare(estimate, exact)
    assert [row.layer for row in (a, b, zero, total)] == ["a", "b/0", "b/1", "total"]
    assert (a.angle, a.norm_ratio) == pytest.approx((45.0, 3 / math.sqrt(2)))
    assert (b.cosine, b.angle, b.norm_ratio) == pytest.approx((-1.0, 180.0, 2.0))
    assert zero.norm_ratio == 0 and math.isnan(zero.cosine) and math.isnan(zero.angle)
    assert total.cosine == pytest.approx((3 - 8) / (5 * math.sqrt(8)))
    assert total.norm_ratio == pytest.approx(5 / math.sqrt(8))
    assert math.isnan(by_layer(compare(exact, estimate))["b/1"].norm_ratio)


def test_trees_that_differ_are_refused():
    with pytest.raises(TreeError, match="trees differ at the root"):
        compare({"w": np.ones(2)}, {"v": np.ones(2)})


def assert_aligned(rows, tolerance):
    """Every row, but for heads that a rule ignores: those have no gradient at all."""
    seen = [row for row in rows if row.norm_ratio == row.norm_ratio]
    assert {row.layer for row in rows if row not in seen} <= {
        f"{head}/linear/{name}" for head in ("head1", "head2") for name in ("w", "b")
    }
    for row in seen:
        assert abs(row.cosine - 1) < tolerance and abs(row.norm_ratio - 1) < tolerance, row


@pytest.mark.parametrize("rule", [Backprop(), LocalBackprop(), GreedyBackprop()], ids=str)
def test_exact_rules_are_aligned_with_what_they_estimate(rule, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    assert_aligned(alignment(*at(p, rule), key, draws=3), 1e-12)
    for other in {Backprop, LocalBackprop, GreedyBackprop} - {type(rule)}:
        # else the three gradients would be one, and nothing be tested
        differ = compare(p.step(other(), key).gradients, p.step(rule, key).gradients)
        assert differ[-1].cosine < 0.999


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_every_rule_can_be_looked_at(rule, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    rows = alignment(*at(p, rule), key)
    assert [row.layer for row in rows] == [*(path for path, _ in tree.items(p.params)), "total"]
    assert math.isfinite(rows[-1].cosine)


def test_the_mean_of_many_draws_is_closer_than_one(rng, key):
    where = at(problem(rng, key), ActivityPerturbation(1))
    one, many = (alignment(*where, key, draws=draws)[-1] for draws in (1, 100))
    assert many.angle < one.angle


def test_the_error_that_feedback_sends_is_held_against_the_true_one(rng, key):
    """Before the last layer the true error is e Wᵀ."""
    p = problem(rng, key, *NETWORKS["mlp"][1][2:])  # hidden2, tanh2, output
    w = p.params["output"]["w"]
    for factor, cosine in ((1.0, 1.0), (-2.0, -1.0)):
        place, total = error_alignment(*at(p, DirectFeedback(), {"tanh2": factor * w.T}), key)
        assert place.layer == "tanh2"
        for row in (place, total):
            assert (row.cosine, row.norm_ratio) == pytest.approx((cosine, abs(factor)))
    place, _ = error_alignment(*at(p, DirectFeedback()), key)
    assert abs(place.cosine) < 0.999
    with pytest.raises(UsageError, match=r"error_alignment: rule: .*dkp, fdfa\), got Backprop"):
        error_alignment(*at(p, Backprop()), key)


# --- bias --------------------------------------------------------------------------------------

UNBIASED = [WeightPerturbation(4), ActivityPerturbation(2), ControlVariate(2)]


@pytest.mark.parametrize("rule", UNBIASED, ids=str)
def test_an_unbiased_rule_shows_no_bias(rule, rng, key):
    for row in bias(*at(problem(rng, key), rule), key, draws=100):
        assert row.deviations < 5, row
        assert row.standard_error < 1 or row.layer != "total", row


def test_shrinking_is_found_to_be_a_bias(rng, key):
    """With feedback 0 the mean of `fg-a-cv --shrink 0.1` is a tenth of the hidden gradients."""
    p = problem(rng, key)
    rule = ControlVariate(4, shrink=0.1)
    rule_state = tree.map(np.zeros_like, p.rule_state(rule))
    rows = by_layer(bias(*at(p, rule, rule_state), key, draws=100))
    for layer in ("hidden1/w", "hidden2/w", "total"):
        assert rows[layer].deviations > 5, rows[layer]
    for layer in ("hidden1/w", "hidden2/w"):
        assert abs(rows[layer].distance - 0.9) < 5 * rows[layer].standard_error, rows[layer]
    assert rows["output/w"].deviations < 1


def test_rules_without_randomness_are_exact_or_biased(rng, key):
    p = problem(rng, key, dtype=np.float32)
    assert all(row.deviations == 0 for row in bias(*at(p, Backprop()), key, draws=2))
    rows = by_layer(bias(*at(p, DirectFeedback()), key, draws=2))
    assert rows["hidden1/w"].deviations > 1000
    assert rows["output/w"].deviations < 1  # its true error


@dataclass(frozen=True)
class Scaled(Backprop):
    """A rule without randomness whose bias is known."""

    factor: float = 1.0

    def estimate(self, *args):
        gradients, rule_state = super().estimate(*args)
        return tree.map(lambda g: (self.factor * g).astype(g.dtype), gradients), rule_state


def test_rounding_is_no_bias_but_a_tenth_of_a_percent_is(rng, key):
    p = problem(rng, key, dtype=np.float32)
    assert all(
        0 < row.deviations < 1 for row in bias(*at(p, Scaled(factor=1 + 1e-6)), key, draws=2)
    )
    for row in bias(*at(p, Scaled(factor=1.001)), key, draws=2):
        assert row.distance == pytest.approx(1e-3, rel=1e-2) and row.deviations > 5


def test_dropout_is_no_bias(rng, key):
    layers = (("hidden", Linear(5)), ("drop", Dropout(0.5)), ("output", Linear(3)))
    where = at(problem(rng, key, *layers), Backprop())
    one, other = (flat(where[0].exact(*where[1:], k)) for k in key.split(2))
    assert not np.allclose(one, other)
    assert bias(*where, key, draws=5)[-1].distance == 0


# --- variance ----------------------------------------------------------------------------------

BATCH, K = 2, 8


def regression(rng, key, *layers, p):
    """Least squares of six examples through linear layers, all weights of one sign."""
    task = Task(Sequential(layers), mean_squared_error)
    params, state, (outputs,) = task.network.init(key, (p,))
    params = tree.map(lambda w: rng.uniform(0.5, 1.5, w.shape), params)
    return Problem(task, params, state, bounded(rng, 6, p), rng.uniform(-1, 1, (6, outputs)))


def data_variance_and_square(problem, layer):
    """V and S of Ren et al.'s Table 1, each times the layer's number of weights."""
    rows = []
    for i in range(6):
        one = replace(problem, x=problem.x[[i]], labels=problem.labels[[i]])
        rows.append(np.ravel(one.exact()[layer]["w"]))
    rows = np.array(rows)
    return rows.var(0).sum(), np.square(rows.mean(0)).sum()


def split(p, rule, layer, key, batches=600):
    point, x, targets = at(p, rule)
    return by_layer(variance(point, x, targets, BATCH, key, batches))[f"{layer}/w"]


@pytest.mark.parametrize("rule", ["fg-w", "fg-a"])
def test_the_parts_of_the_variance_are_those_of_the_theory(rule, rng, key):
    """Bacho and Chu, Prop. 1, and Ren et al., Table 1, for one linear layer.

    With one tangent `fg-w`, which shares it among the examples, has the total variance
    (n + 2)/N V + (n + 1) S, of which (n + 1) (V/N + S) is added for n weights; `fg-a`, each
    example its own of signs, q/N V + (q - 1)/N S, of which (q - 1)/N (V + S) is added for q units.
    The mean of k tangents adds a k-th of that.
    """
    if rule == "fg-w":
        p, q = 3, 2
        whole = regression(rng, key, ("output", Linear(q, bias=False)), p=p)
        v, s = data_variance_and_square(whole, "output")
        added = (p * q + 1) * (v / BATCH + s) / K
        found = split(whole, WeightPerturbation(K), "output", key)
    else:
        p, q = 2, 3
        layers = ("hidden", Linear(q, bias=False)), ("output", Linear(2))
        whole = regression(rng, key, *layers, p=p)
        v, s = data_variance_and_square(whole, "hidden")
        added = (q - 1) * (v + s) / BATCH / K
        found = split(whole, ActivityPerturbation(K), "hidden", key)
    assert_near(found.data, v / BATCH, found)
    assert_near(found.added, added, found)
    assert_near(found.total, v / BATCH + added, found)
    assert_near(found.total, found.data + found.added, found)


def assert_near(a, b, found):
    """Within about 5 standard errors of 600 batches."""
    assert abs(a / b - 1) < 0.4, (found, a, b)


def test_without_random_directions_nothing_is_added(rng, key):
    layers = ("hidden", Linear(3)), ("tanh", Activation(tanh)), ("output", Linear(2))
    whole = regression(rng, key, *layers, p=2)
    exact = split(whole, Backprop(), "hidden", key, batches=20)
    assert exact.added == 0 and exact.total == exact.data > 0
    direct = split(whole, DirectFeedback(), "hidden", key, batches=20)
    assert direct.added == 0 and direct.data == pytest.approx(exact.data)
    assert abs(direct.total / direct.data - 1) > 1e-9  # biased, so the parts need not add up


# --- mistakes, and the table -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w, key: alignment(*w, key, draws=0),
            "alignment: draws: expected at least 1, got 0",
        ),
        (lambda w, key: bias(*w, key, draws=1), "bias: draws: expected at least 2, got 1"),
        (lambda w, key: variance(*w, 0, key), "variance: batch_size: expected at least 1, got 0"),
        (lambda w, key: variance(*w, 1, key, 1), "variance: batches: expected at least 2, got 1"),
        (lambda w, key: variance(*w, 1, key, 2, 1), "variance: draws: expected at least 2, got 1"),
    ],
)
def test_too_few_draws_are_refused(call, message, rng, key):
    with pytest.raises(UsageError, match=message):
        call(at(problem(rng, key), Backprop()), key)


def test_rows_are_printed_in_columns():
    text = table([analysis.Bias("hidden/w", 0.5, 0.0625, 8.0), analysis.Bias("total", 1, 2, 0.5)])
    assert text.splitlines() == [
        "layer     distance  standard_error  deviations",
        "hidden/w       0.5          0.0625           8",
        "total            1               2         0.5",
    ]


# --- --grad-stats ------------------------------------------------------------------------------

STEPS_PER_EPOCH = 5
SETTINGS = Settings(
    dataset="digits",
    model="mlp",
    rule="fg-a",
    optimizer="adam",
    schedule="constant",
    lr=1e-2,
    epochs=3,
    batch_size=22,
    grad_stats=2,
    model_options={"width": 8, "depth": 2, "activation": "relu"},
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def train(digits, tmp_path, monkeypatch):
    """`train(name, **changes)`: one run on 100 digits in the folder of that name."""
    monkeypatch.setattr(run_module, "draw_curve", lambda *_: False)
    few = replace(
        digits,
        train_images=digits.train_images[:100],
        train_labels=digits.train_labels[:100],
        test_images=digits.test_images[:40],
        test_labels=digits.test_labels[:40],
    )

    def one(name, resume=False, **changes):
        settings = replace(SETTINGS, **changes)
        network = MLP(**settings.model_options).network((8, 8, 1), 10)
        folder = RunFolder(tmp_path / name)
        return run(settings, network, few, folder, resume=resume, quiet=True).summary

    return one


LAYERS = ["hidden1/w", "hidden1/b", "hidden2/w", "hidden2/b", "output/w", "output/b", "total"]


def rows_of(folder):
    with open(folder / "gradients.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def params_of(folder):
    with np.load(folder / "checkpoint.npz") as archive:
        return {n: archive[n] for n in archive.files if n.startswith("params:")}


def test_gradients_are_compared_every_n_steps(train, tmp_path):
    summary = train("run")
    rows = rows_of(tmp_path / "run")
    assert tuple(rows[0]) == GRADIENT_COLUMNS
    steps = range(0, SETTINGS.epochs * STEPS_PER_EPOCH, 2)
    assert [(int(r["step"]), r["layer"]) for r in rows] == list(itertools.product(steps, LAYERS))
    for row in rows:
        angle = math.degrees(math.acos(float(row["cosine"])))
        assert float(row["angle"]) == pytest.approx(angle, rel=1e-3, abs=0.1)
        if row["layer"].startswith("output"):  # `fg-a` gives it its true error
            assert float(row["cosine"]) == pytest.approx(1) == float(row["norm_ratio"])
    assert 0 < float(rows[0]["cosine"]) < 0.9
    assert summary["gradient_cosine"] == pytest.approx(float(rows[-1]["cosine"]), rel=1e-5)
    assert json.loads((tmp_path / "run/summary.json").read_text()) == summary


@pytest.mark.parametrize("threads", [1, 2])
def test_backprop_is_aligned_all_along(threads, train, tmp_path):
    train("run", rule="bp", threads=threads)
    for row in rows_of(tmp_path / "run"):
        assert float(row["cosine"]) == pytest.approx(1) == float(row["norm_ratio"]), row


def test_looking_changes_nothing_and_not_looking_costs_nothing(train, tmp_path, monkeypatch):
    train("with")
    monkeypatch.setattr(Point, "exact", None)  # whoever calls it fails
    summary = train("without", grad_stats=None)
    assert "gradient_cosine" not in summary
    assert not (tmp_path / "without" / "gradients.csv").exists()
    with np.load(tmp_path / "without" / "checkpoint.npz") as archive:
        assert not [name for name in archive.files if "comparisons" in name]
    looked_at, other = params_of(tmp_path / "with"), params_of(tmp_path / "without")
    for name in looked_at:
        np.testing.assert_array_equal(looked_at[name], other[name])


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 6, 14])
def test_an_interrupted_run_has_every_row_once(number, train, tmp_path, monkeypatch):
    train("whole")
    real, count = loop_module.estimate_gradient, iter(range(10**6))

    def step(*args):
        if next(count) == number:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "estimate_gradient", step)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    assert len(rows_of(tmp_path / "parts")) == len(LAYERS) * math.ceil(number / 2)
    summary = train("parts", resume=True)
    whole, parts = (tmp_path / name / "gradients.csv" for name in ("whole", "parts"))
    assert parts.read_text() == whole.read_text()
    assert summary["gradient_cosine"] == train("whole", resume=True)["gradient_cosine"]


def test_a_crash_before_the_rows_are_written_loses_none(train, tmp_path, monkeypatch):
    """The checkpoint has them: after a crash between the two the file is written anew."""
    train("whole")
    real, count = os.replace, iter(range(10**6))

    def broken(source, target):
        if str(target).endswith("gradients.csv") and next(count) == 2:
            raise OSError("no space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(UsageError, match=r"parts'?: no space"):
            train("parts")
    assert len(rows_of(tmp_path / "parts")) == 3 * len(LAYERS)  # the steps of the first epoch
    train("parts", resume=True)
    whole, parts = (tmp_path / name / "gradients.csv" for name in ("whole", "parts"))
    assert parts.read_text() == whole.read_text()


@pytest.mark.parametrize("array", [np.zeros((3, 5, 3)), np.zeros((3, 7, 3), np.float32)])
def test_comparisons_of_another_run_do_not_fit(array, train, tmp_path):
    train("run", epochs=1)
    file = tmp_path / "run" / "checkpoint.npz"
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(file, **{**arrays, "comparisons:": array})
    with pytest.raises(DataError, match=r"comparisons: is float.*, expected float64\(3, 7, 3\)"):
        train("run", epochs=1, resume=True)


def test_a_cosine_that_is_undefined_is_none():
    assert last_cosine(np.full((1, 7, 3), np.nan)) == {"gradient_cosine": None}
    assert last_cosine({}) == {}


def test_how_often_to_look_is_at_least_every_step():
    with pytest.raises(UsageError, match="grad_stats: expected an int of at least 1, got 0"):
        replace(SETTINGS, grad_stats=0)


def test_the_flag_is_a_setting_that_a_resumed_run_keeps():
    for flags, found in ((["--grad-stats", "7"], 7), ([], None)):
        settings = train_py.settings_of(train_py.parse(flags))
        assert settings.grad_stats == found
    with pytest.raises(UsageError, match="--grad-stats cannot be changed on --resume"):
        train_py.main(["--resume", "run", "--grad-stats", "7"])


# --- the papers' finding -----------------------------------------------------------------------


def late_angles(digits, rule, options, seed):
    """The mean angles of hidden1/w and hidden2/w in the second half of training."""
    settings = replace(
        SETTINGS,
        rule=rule,
        rule_options=options,
        optimizer="sgd",
        lr=0.03,
        epochs=10,
        batch_size=32,
        seed=seed,
        grad_stats=8,
    )
    trainer = make_trainer(settings, MLP(width=64, depth=2).network((8, 8, 1), 10), digits)
    ignore = lambda _: None  # noqa: E731
    state, _ = trainer.train(trainer.start(), ignore, ignore, quiet=True)
    half = state.comparisons[len(state.comparisons) // 2 :]
    return half[:, [LAYERS.index("hidden1/w"), LAYERS.index("hidden2/w")], 1].mean(0)


def test_learned_feedback_is_aligned_better_than_random_one(digits, rng):
    """Bacho and Chu, section 4.4: `fdfa` by far.  `dkp`, where B moves at the weights' rate, by
    some 3 degrees in the mean of both layers, over two seeds; in single runs not always in both.
    """
    seeds = [int(seed) for seed in rng.integers(2**31, size=2)]
    dfa = np.array([late_angles(digits, "dfa", {}, seed) for seed in seeds])
    dkp = np.array([late_angles(digits, "dkp", {"feedback_rate": 0.03}, seed) for seed in seeds])
    fdfa = late_angles(digits, "fdfa", {}, seeds[0])
    assert np.all(fdfa < np.minimum(dkp[0], dfa[0]) - 20), (fdfa, dkp, dfa)
    assert dkp.mean() < dfa.mean(), (dkp, dfa)


def test_the_table_of_the_page_is_the_committed_result():
    root = Path(__file__).parent.parent
    text = (root / "docs/rules/analysis.md").read_text(encoding="utf-8")
    for run_of_rule in json.loads((root / "benchmarks/results/alignment.json").read_text()):
        rule = run_of_rule["command"].partition("--rule ")[2]
        for layer, of_epochs in run_of_rule["degrees"].items():
            shown = " | ".join(f"{angle:.1f}" for angle in of_epochs)
            assert f"| `{rule}` | {layer} | {shown} |" in text
