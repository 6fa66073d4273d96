"""`fit`, what it returns, and networks kept in folders."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from unsealed import unseal

import dualnet as dn
from dualnet import data, nn
from dualnet.command import train
from dualnet.errors import DataError, UsageError
from dualnet.learning import RULES
from dualnet.models import MLP
from dualnet.training.fit import fit
from dualnet.training.scores import Scores
from dualnet.training.trained import load_run

SILENT = {"quiet": True}
FEW = {"epochs": 2, "batch_size": 16, "quiet": True}
SMALL = MLP(width=8, depth=1)


def flowers(rng, n=60, kinds=("rose", "tulip", "daisy")):
    """Features (n, 4) in float64, whose classes lie well apart, and the names of these."""
    numbers = np.arange(n) % len(kinds)
    places = 4.0 * np.eye(len(kinds), 4)
    return places[numbers] + 0.3 * rng.standard_normal((n, 4)), np.array(kinds)[numbers]


# --- what a user does ----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["fg-w", "fdfa"])
def test_own_arrays_are_learned(rule, rng):
    x, y = flowers(rng)
    run = fit("mlp", (x, y), rule=rule, epochs=40, width=16, lr=1e-2, batch_size=16, quiet=True)
    assert run.evaluate((x, y)).accuracy > (0.9 if rule == "fdfa" else 0.5)
    assert set(run.predict(x)) == {"rose", "tulip", "daisy"}
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_fits_arrays(rule, rng):
    x, y = flowers(rng)
    run = fit(SMALL, (x, y), rule=rule, **FEW)
    assert len(run.history) == 2 and np.isfinite([row["test_loss"] for row in run.history]).all()


def test_real_targets_are_learned(rng):
    x = rng.standard_normal((200, 3)).astype(np.float32)
    y = x @ [1.0, -2.0, 0.5] + 3.0
    run = fit("mlp", (x, y), rule="bp", epochs=60, width=32, lr=1e-2, quiet=True)
    assert run.predict(x).shape == (200, 1) and run.predict(x).dtype == np.float32
    assert run.evaluate((x, y)).loss < 0.05 * y.var()
    scores = run.evaluate((x, y))
    assert scores.accuracy is None and scores.confusion is None and str(scores).startswith("loss ")
    assert np.isnan(run.history[-1]["test_accuracy"])
    with pytest.raises(UsageError, match="probabilities: expected a network of classes"):
        run.probabilities(x)


def test_a_network_is_given_layer_by_layer(rng):
    x, y = flowers(rng)
    network = nn.Sequential((("hidden", nn.Linear(8)), ("out", nn.Linear(3))))
    run = fit(network, (x, y), rule="bp", **FEW)
    assert run.network == network
    assert run.probabilities(x).sum(axis=1) == pytest.approx(1.0)


def test_the_numbers_are_those_of_the_command_line(tmp_path, capsys):
    run = fit("mlp", "digits", rule="fg-a", epochs=1, width=8, depth=1, quiet=True)
    command = "--rule fg-a --epochs 1 --width 8 --depth 1 --quiet --run-dir"
    train.main([*command.split(), str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert run.history[-1][name] == summary[name]
    again = fit(SMALL, data.load("digits"), rule="fg-a", epochs=1, batch_size=32, quiet=True)
    assert run.history[0] | {"seconds": 0} == again.history[0] | {"seconds": 0}


# --- stopping and choosing -----------------------------------------------------------------------


def test_callbacks_see_each_epoch_and_can_end_the_training(rng):
    seen = []

    def enough(row):
        seen.append(row["epoch"])
        return row["epoch"] == 3

    run = fit(SMALL, flowers(rng), epochs=10, callbacks=[enough], quiet=True)
    assert seen == [1, 2, 3] == [row["epoch"] for row in run.history]


@pytest.mark.parametrize(("answer", "epochs"), [(np.True_, 1), (np.False_, 3), (1, 3), (None, 3)])
def test_a_comparison_of_numpy_ends_the_training(answer, epochs, rng):
    run = fit(SMALL, flowers(rng), epochs=3, callbacks=[lambda row: answer], quiet=True)
    assert len(run.history) == epochs


def test_a_callback_has_figures_of_its_own(rng):
    seen = []
    callbacks = [lambda row: row.clear(), lambda row: seen.append(row["epoch"])]
    fit(SMALL, flowers(rng), callbacks=callbacks, **FEW)
    assert seen == [1, 2]


def test_a_data_set_may_have_a_name_of_its_own():
    mine = replace(data.load("digits", limit_train=32, limit_test=16), name="mine")
    run = fit(SMALL, mine, **FEW)
    assert run.settings.dataset == "arrays" and run.summary["tested_on"] == "test"
    with pytest.raises(UsageError, match="validation: expected 1 to 31 of 32 examples, got 32"):
        fit(SMALL, mine, validation=32, **FEW)


def test_the_best_network_is_that_of_the_lowest_loss(rng):
    x, y = flowers(rng)
    run = fit(SMALL, (x, y), rule="bp", epochs=8, lr=0.5, optimizer="sgd", quiet=True)
    losses = [row["test_loss"] for row in run.history]
    assert run.best.evaluate((x, y)).loss == pytest.approx(min(losses), rel=1e-5)
    assert run.evaluate((x, y)).loss == pytest.approx(losses[-1], rel=1e-5)


# --- a run that is kept --------------------------------------------------------------------------


def test_a_run_is_kept_as_the_command_line_keeps_it(elsewhere):
    run = fit(
        "mlp", "digits", rule="fg-a", epochs=2, width=8, limit_train=64, run_dir="a", **SILENT
    )
    train.main("--rule fg-a --epochs 2 --width 8 --limit-train 64 --quiet --run-dir b".split())
    a, b = Path("a"), Path("b")
    assert {file.name for file in a.iterdir()} == {file.name for file in b.iterdir()}
    settings = [json.loads((one / "config.json").read_text())["settings"] for one in (a, b)]
    assert settings[0] == settings[1]
    for name in ("checkpoint.npz", "best.npz"):
        x, y = np.load(a / name), np.load(b / name)
        # the history holds seconds
        assert all((x[n] == y[n]).all() for n in x.files if n not in ("history:", "sums:"))
    assert run.summary == json.loads((a / "summary.json").read_text())
    digits = data.load("digits").test_images[:]
    np.testing.assert_array_equal(load_run(a).predict(digits), run.predict(digits))
    best = load_run(a, best=True).probabilities(digits)
    np.testing.assert_array_equal(best, run.best.probabilities(digits))


def test_a_run_goes_on_to_the_same_numbers(elsewhere, rng):
    flowers_ = flowers(rng)
    how = {"rule": "fdfa", "width": 8, "schedule": "constant", "augment": "none", **SILENT}
    whole = fit("mlp", flowers_, epochs=4, **how)

    class Crash(Exception):
        pass

    def crash(row):
        if row["epoch"] == 2:
            raise Crash

    with pytest.raises(Crash):
        fit("mlp", flowers_, epochs=4, run_dir="run", resume=True, callbacks=[crash], **how)
    parts = fit("mlp", flowers_, epochs=4, run_dir="run", resume=True, **how)
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    x = flowers_[0]
    np.testing.assert_array_equal(parts.outputs(x), whole.outputs(x))
    np.testing.assert_array_equal(parts.best.outputs(x), whole.best.outputs(x))
    # Once it is done, nothing is trained again.
    done = fit("mlp", flowers_, epochs=4, run_dir="run", resume=True, **how)
    assert done.summary == parts.summary and len(done.history) == 4
    np.testing.assert_array_equal(done.best.outputs(x), whole.best.outputs(x))


def test_a_run_that_a_callback_ends_has_its_outcome(elsewhere, rng):
    stop = [lambda row: True]
    run = fit(SMALL, flowers(rng), epochs=9, callbacks=stop, run_dir="run", **SILENT)
    kept = json.loads(Path("run/summary.json").read_text())
    assert len(run.history) == 1 == kept["epochs"] and kept == run.summary


def test_a_folder_is_not_trained_over(elsewhere, rng):
    x = flowers(rng)
    fit("mlp", x, width=8, run_dir="run", **FEW)
    with pytest.raises(UsageError, match="run_dir='run' holds a run already"):
        fit("mlp", x, width=8, run_dir="run", **FEW)
    with pytest.raises(UsageError, match=r"resume: the run in run has lr 0\.001, got 0\.002"):
        fit("mlp", x, width=8, run_dir="run", resume=True, lr=2e-3, **FEW)
    with pytest.raises(UsageError, match="resume: expected run_dir with it"):
        fit("mlp", x, resume=True, **FEW)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_run_does_not_go_on_with_something_else(epochs, elsewhere, rng):
    x, y = flowers(rng)

    def go(x, y, activation=nn.relu):
        layers = ("hidden", nn.Linear(4)), ("f", nn.Activation(activation)), ("out", nn.Linear(3))
        how = {**FEW, "epochs": epochs, "run_dir": "run", "resume": True}
        return fit(nn.Sequential(layers), (x, y), rule="bp", **how)

    fit(go(x, y).network, (x, y), rule="bp", run_dir="whole", **FEW)
    kept = {file: file.read_bytes() for file in Path("run").iterdir()}
    for given, words in (
        (
            (x + 1, y),
            "run_dir=.run., resume=True: expected examples that are prepared .*network.json says",
        ),
        (
            (x, np.char.upper(y)),
            "run_dir='run', resume=True: expected the labels that .*network.json says",
        ),
        (
            (x, y, nn.tanh),
            "run_dir='run', resume=True: expected the network that .*network.json says",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            go(*given)
    assert kept == {file: file.read_bytes() for file in Path("run").iterdir()}
    assert len(go(x, y).history) == epochs


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(elsewhere, rng, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    how = {"width": 8, "run_dir": "run", "resume": True, **FEW}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dualnet.training.run.KeptRun.save", killed)
        fit("mlp", flowers(rng), **how)
    assert Path("run/config.json").exists()
    assert len(fit("mlp", flowers(rng), **how).history) == 2


def test_a_network_that_was_saved_is_not_trained_over(elsewhere, rng):
    examples = flowers(rng)
    run = fit(SMALL, examples, **FEW)
    run.save("kept")
    with pytest.raises(UsageError, match="run_dir='kept' holds a network already"):
        fit(SMALL, examples, run_dir="kept", **FEW)
    np.testing.assert_array_equal(load_run("kept").outputs(examples[0]), run.outputs(examples[0]))


def test_a_network_is_not_saved_over_a_run(elsewhere, rng):
    examples = flowers(rng)
    # A run whose network cannot be written as text has no network.json.
    network = nn.Sequential({"f": nn.Activation(lambda x: x), "out": nn.Linear(3)})
    fit(network, examples, rule="bp", run_dir="run", **FEW)
    kept = {file: file.read_bytes() for file in Path("run").iterdir()}
    small = fit(SMALL, examples, **FEW)
    with pytest.raises(UsageError, match="save: run holds a run already; choose another folder"):
        small.save("run")
    assert kept == {file: file.read_bytes() for file in Path("run").iterdir()}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "seeds.json",
            "runs of several seeds already; go on with them by dualnet train --resume w",
        ),
        ("rates.json", "a search for a learning rate already; choose another folder"),
        ("checkpoint.npz", "a network already; choose another folder"),
        ("best.npz", "a network already; choose another folder"),
        ("metrics.csv", "figures already; choose another folder"),
        ("summary.json", "a summary already; choose another folder"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_something_else_has_is_not_used(file, words, resume, elsewhere, rng):
    examples = flowers(rng)
    small = fit(SMALL, examples, **FEW)
    Path("w").mkdir()
    Path("w", file).write_text("{}")
    with pytest.raises(UsageError, match=f"save: w holds {words.partition(';')[0]}"):
        small.save("w")
    # Of files that a run goes on from, it says that no run is there.
    if not resume or file not in ("checkpoint.npz", "metrics.csv"):
        with pytest.raises(UsageError, match=f"run_dir='w' holds {words}"):
            fit(SMALL, examples, run_dir="w", resume=resume, **FEW)
    assert Path("w", file).read_text() == "{}"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"network": ' + "[" * 600 + "]" * 600 + "}"])
def test_files_that_are_nested_deeply_are_damaged(text, elsewhere, rng):
    fit(SMALL, flowers(rng), run_dir="run", **FEW)
    Path("run/network.json").write_text(text)
    with pytest.raises(DataError):
        load_run("run")
    Path("run/config.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"config\.json is damaged"):
        fit(SMALL, flowers(rng), run_dir="run", resume=True, **FEW)


@pytest.mark.parametrize("run_dir", [3, "", b"run"])
def test_a_folder_is_a_path(run_dir, rng):
    with pytest.raises(UsageError, match="fit: run_dir: expected the path of a folder, got "):
        fit(SMALL, flowers(rng), run_dir=run_dir, **FEW)


def test_a_recipe_says_the_rest(monkeypatch):
    digits = data.load("digits", limit_train=32, limit_test=16)
    run = fit(examples=digits, recipe="fdfa-mlp2-mnist-fdfa", epochs=1, width=8, **SILENT)
    assert (run.settings.rule, run.settings.model, run.settings.dataset) == (
        "fdfa",
        "mlp",
        "digits",
    )
    assert "dataset" in run.summary["recipe"]["changed"]
    with pytest.raises(UsageError, match=r"^recipe: there is no 'fdfa-mlp2'; did you mean .*\?"):
        fit(examples=digits, recipe="fdfa-mlp2", **SILENT)


# --- networks in folders -------------------------------------------------------------------------


def test_a_saved_network_predicts_the_same(rng, tmp_path):
    x, y = flowers(rng)
    run = fit("mlp", (x, y), rule="fdfa", width=8, batch_norm=True, **FEW)
    run.save(tmp_path / "flowers")
    kept = load_run(tmp_path / "flowers")
    np.testing.assert_array_equal(kept.outputs(x), run.outputs(x))
    np.testing.assert_array_equal(kept.predict(x), run.predict(x))
    np.testing.assert_array_equal(kept.evaluate((x, y)).confusion, run.evaluate((x, y)).confusion)
    with pytest.raises(UsageError, match="holds a network already; choose another folder"):
        run.save(tmp_path / "flowers")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("cnn", {}),
        ("resnet", {"width": 4}),
        ("local-mixer", {"width": 16, "groups": 4}),
        ("vit", {"width": 8, "depth": 1, "heads": 2, "mlp_width": 12}),
        ("mlp-mixer", {"width": 8, "depth": 1, "token_width": 6, "mlp_width": 12}),
    ],
)
def test_networks_of_images_are_kept(model, options, tmp_path):
    digits = data.load("digits", limit_train=32, limit_test=16)
    rule = "lg-fg-a" if model == "local-mixer" else "fg-a"
    run = fit(model, digits, rule=rule, epochs=1, batch_size=16, quiet=True, **options)
    run.save(tmp_path / "run")
    kept = load_run(tmp_path / "run")
    np.testing.assert_array_equal(kept.predict(digits.test_images), run.predict(digits.test_images))
    assert kept.evaluate(digits).accuracy == run.history[-1]["test_accuracy"]
    assert kept.evaluate("digits").confusion.sum() == 257


@dataclass(frozen=True)
class Doubled(nn.Layer):
    """Twice what comes in."""

    times: int = 2

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return self.times * x, state


def cube(x):
    return x * x * x


def test_own_layers_and_functions_are_named_to_be_read(rng, tmp_path):
    x, y = flowers(rng)
    network = nn.Sequential(
        (
            ("hidden", nn.Linear(8)),
            ("twice", Doubled()),
            ("cube", nn.Activation(cube)),
            ("out", nn.Linear(3)),
        )
    )
    run = fit(network, (x, y), rule="bp", lr=1e-4, **FEW)
    run.save(tmp_path)
    with pytest.raises(UsageError, match=r"the layer 'Doubled', .* write own=\[Doubled\]"):
        load_run(tmp_path)
    with pytest.raises(UsageError, match=r"the function 'cube', .* write own=\[cube\]"):
        load_run(tmp_path, own=[Doubled])
    kept = load_run(tmp_path, own=[Doubled, cube])
    np.testing.assert_array_equal(kept.outputs(x), run.outputs(x))


def test_an_own_function_is_never_taken_for_ours(rng, tmp_path):
    def relu(x):
        return x * x

    network = nn.Sequential((("relu", nn.Activation(relu)), ("out", nn.Linear(3))))
    fit(network, flowers(rng), rule="bp", lr=1e-4, **FEW).save(tmp_path)
    with pytest.raises(UsageError, match="the function 'relu', which is not one of dualnet's"):
        load_run(tmp_path)


def test_examples_of_many_axes_are_loaded_again(rng, tmp_path):
    x, y = flowers(rng)
    fit(SMALL, (x.reshape(60, *[1] * 20, 4), y), rule="bp", run_dir=tmp_path, **FEW)
    assert load_run(tmp_path).preparation.shape == (*[1] * 20, 4)


@pytest.mark.parametrize("own", [Doubled, "x", [nn.Linear(3)], ["Doubled"], 3])
def test_own_parts_are_a_list_of_classes_and_functions(own, rng, tmp_path):
    fit(SMALL, flowers(rng), rule="bp", **FEW).save(tmp_path)
    with pytest.raises(UsageError, match="load_run: own: expected a list of classes of layers and"):
        load_run(tmp_path, own=own)


def test_a_network_that_was_saved_has_no_best_one(rng, tmp_path):
    fit(SMALL, flowers(rng), rule="bp", **FEW).save(tmp_path)
    with pytest.raises(UsageError, match=r"load_run: best: .* one network alone \(no best\.npz\);"):
        load_run(tmp_path, best=True)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (np.array([3, -5, 7], np.int8), np.int64),
        (np.array([3, 5, 7], np.uint64), np.int64),
        (np.array([12, 2**63 + 7, 2**63 + 8], np.uint64), np.uint64),
        (np.array([2**53, 2**53 + 1, 2**64 - 1], np.uint64), np.uint64),
    ],
)
def test_labels_are_kept_exactly(labels, dtype, rng, tmp_path):
    x, y = flowers(rng, kinds=labels)
    run = fit("mlp", (x, y), rule="bp", lr=0.1, epochs=20, batch_size=16, quiet=True)
    run.save(tmp_path)
    for one in (run, load_run(tmp_path)):
        found = one.predict(x)
        assert found.dtype == dtype and one.labels.tolist() == sorted(labels.tolist())
        assert (found == y).mean() == one.evaluate((x, y)).accuracy > 0.9
    few = slice(1, None, 3)  # a class alone, in the dtype that it has then
    assert run.evaluate((x[few], y[few])).accuracy == (run.predict(x[few]) == y[few]).mean()
    small = y < 2**62  # these are in int64
    if dtype == np.uint64 and small.any():
        assert run.evaluate((x[small], y[small])).accuracy == (found == y)[small].mean()


def test_what_cannot_be_written_is_refused(rng, tmp_path):
    network = nn.Sequential((("own", nn.Activation(lambda x: x)), ("out", nn.Linear(3))))
    run = fit(network, flowers(rng), rule="bp", **FEW)
    with pytest.raises(UsageError, match=r"save: network.layers\[0\]\[1\].function: expected"):
        run.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d.pop("labels"), "network.json is damaged: it has no 'labels'"),
        (
            lambda d: d.update(dtype="float33"),
            "network.json is damaged: its dtype cannot be .float33",
        ),
        (lambda d: d["network"].update(fields={"x": 1}), "layer Sequential"),
        (lambda d: d.update(network=3), "expected a layer"),
        (lambda d: d.update(classes=["rose"] * 3), "its classes cannot be ..rose', 'rose"),
        (lambda d: d.update(labels=[-1, 3, 2**63]), "network.json is damaged: "),
        (lambda d: d["preparation"].pop("mean"), "network.json is damaged: it has no 'mean'"),
        (lambda d: d["network"]["fields"]["layers"][1][1]["fields"].update(features=9), "expected"),
    ],
)
def test_damaged_descriptions_are_named(change, error, rng, tmp_path):
    fit(SMALL, flowers(rng), rule="bp", **FEW).save(tmp_path)
    file = tmp_path / "network.json"
    description = unseal(file)
    change(description)
    file.write_text(json.dumps(description))
    with pytest.raises(DataError, match=error):
        load_run(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no network there \(no network.json\)"):
        load_run(tmp_path)


# --- scores --------------------------------------------------------------------------------------


def test_scores_by_hand():
    answers, targets = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    scores = Scores.of(0.5, answers, targets, ("cat", "dog", "fish"))
    np.testing.assert_array_equal(scores.confusion, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    assert scores.accuracy == 3 / 5
    cat, dog, fish = scores.by_class
    assert cat == {"class": "cat", "examples": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert dog["precision"] == pytest.approx(2 / 3) and dog["examples"] == 3
    assert fish == {"class": "fish", "examples": 0, "precision": None, "recall": None, "f1": None}
    assert str(scores).splitlines() == [
        "loss 0.5000, accuracy 0.6000",
        "class  examples  precision  recall     f1",
        "cat           2      0.500   0.500  0.500",
        "dog           3      0.667   0.667  0.667",
        "fish          0          -       -      -",
    ]


def test_small_errors_of_large_targets_are_seen(rng):
    x = rng.standard_normal((64, 3)).astype(np.float32)
    layers = {"out": nn.Linear(1), "large": nn.Activation(lambda x: 1e12 + 0.0 * x)}
    run = fit(nn.Sequential(layers), (x, np.full(64, 1e12)), rule="bp", **FEW)
    predicted = run.predict(x)
    assert predicted.dtype == np.float32 and (predicted > 9e11).all()
    assert run.evaluate((x, predicted.astype(np.float64) + 1.0)).loss == 1.0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1e12), (1e-60, 0.0), (1e50, 0.0)])
def test_targets_that_would_be_rounded_away_are_refused(scale, shift, rng):
    x, target = rng.standard_normal((64, 3)), rng.standard_normal(64)
    with pytest.raises(UsageError, match=r"fit: targets: float32 rounds some by .* apart at"):
        fit(SMALL, (x, scale * target + shift), rule="bp", **FEW)
    fit(SMALL, (x, np.full(64, 1e12 + 1.0)), rule="bp", **FEW)  # nothing is told apart
    if scale == 1.0:
        fit(SMALL, (x, scale * target + shift), rule="bp", dtype="float64", **FEW)


@pytest.mark.parametrize("scale", [1e-300, 1e-165, 1e160, 1e307])
def test_features_of_any_size_are_standardized(scale, rng):
    x, y = flowers(rng)
    near_one = data.from_arrays(x, y).preparation()(x, np.float64)
    dataset = data.from_arrays(np.hstack([x * scale, x]), y)
    scaled = dataset.preparation()(dataset.train_images, np.float64)
    np.testing.assert_allclose(scaled[:, :4], near_one, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(scaled[:, 4:], near_one)  # others are as they were


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [list, tuple, lambda x: [list(x)], lambda x: [*map(list, x)]])
def test_masked_rows_are_refused(wrap):
    rows = np.ma.masked_greater(np.arange(12.0).reshape(4, 3), 9.5)
    with pytest.raises(UsageError, match="inputs: expected no masked numbers, got 2; leave"):
        data.from_arrays(wrap(rows), np.arange(4))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_whole_numbers_are_not_merged(dtype):
    large = (np.arange(4)[:, None] + 2**53).astype(dtype)
    with pytest.raises(UsageError, match=f"float64 has exactly, .* got {2**53 + 1}; subtract"):
        data.from_arrays(large, np.arange(4))
    even = large + np.arange(4, dtype=dtype)[:, None]  # these it has
    kept = data.from_arrays(even, np.arange(4)).train_images
    assert [int(n) for n in kept.ravel()] == even.ravel().tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: {"train_labels": d.train_labels[:9]},
            r"train_labels: expected int\(32,\), one ",
        ),
        (lambda d: {"test_labels": np.tile(d.test_labels, 2)}, r"test_labels: expected int\(16,\)"),
        (
            lambda d: {"train_labels": d.train_labels + 1},
            "train_labels: expected 0 to 9, .* 1 to 10",
        ),
        (lambda d: {"test_labels": d.test_labels - 1}, "test_labels: expected 0 to 9, .* -1 to "),
        (lambda d: {"train_labels": d.train_labels.tolist()}, "train_labels: expected an array"),
        (
            lambda d: {"train_images": d.train_images * 15},
            "train_images: expected pixels from 0 to",
        ),
        (
            lambda d: {"test_images": d.test_images * 15},
            "test_images: expected pixels from 0 to 16",
        ),
        (lambda d: {"test_images": d.test_images[:, 1:]}, r"expected one or more \('N', 8, 8, 1\)"),
        (
            lambda d: {"train_images": d.train_images / 16},
            r"expected uint8\('N', 8, 8, 1\), got fl",
        ),
        (lambda d: {"white": 256}, "white: expected a whole number from 1 to 255, got 256"),
        (lambda d: {"white": None}, r"train_images: expected floats\('N', 8, 8, 1\), got uint8"),
        (lambda d: {"classes": ("a", *d.classes[1:-1], "a")}, "classes: .*, got 'a' twice"),
        (lambda d: {"classes": d.classes[:-1]}, "train_labels: expected 0 to 8, "),
        (lambda d: {"classes": ()}, "train_labels: expected float"),
    ],
)
def test_a_data_set_must_fit_together(change, said):
    digits = data.load("digits", limit_train=32, limit_test=16)
    changed = replace(digits, **change(digits))
    with pytest.raises(UsageError, match=f"fit: examples: .*{said}"):
        fit(SMALL, changed, **FEW)
    if "test" in said:
        with pytest.raises(UsageError, match=f"evaluate: .*{said}"):
            fit(SMALL, digits, **FEW).evaluate(changed)


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (lambda x, y: x, r"expected the name of a data set, a data set, or \(inputs, targets\) or"),
        (lambda x, y: (x, y, x), "got tuple"),
        (lambda x, y: (x, y[:-1]), r"targets: expected one for each of 60 examples, got .*\(59,\)"),
        (lambda x, y: (x[:0], y[:0]), r"inputs: expected one example or more"),
        (lambda x, y: (x.astype(str), y), "inputs: expected numbers, got <U"),
        (lambda x, y: (np.where(x > x.min(), x, np.nan), y), "inputs: expected finite numbers"),
        (lambda x, y: (x, np.where(y == "rose", np.inf, 1.0)), "targets: expected finite"),
        (lambda x, y: (np.ma.array(x, mask=x > 4), y), r"inputs: expected no masked .*x\.filled"),
        (lambda x, y: (x, np.ma.array(y, mask=y == "rose")), "targets: expected no masked .* 20;"),
        (lambda x, y: ([[1.0], [2.0, 3.0]], y[:2]), "inputs: expected an array, got what makes"),
        (lambda x, y: (x, y.astype("S")), r"targets: expected strings, got bytes; .*astype\(str\)"),
        (lambda x, y: (x, x[:, :, None]), r"expected real targets \(N,\) or \(N, outputs\)"),
        (lambda x, y: (x, np.ones((60, 2), int)), r"expected classes \(N,\)"),
        (lambda x, y: (x, y, x[:, :3], y), "test inputs: expected .* as the inputs are"),
        (lambda x, y: (x, y, x, np.where(y == "rose", "oak", y)), "got 'oak'"),
        (lambda x, y: (x, y, x, np.ones(60)), "test targets: expected classes, got real targets"),
        (
            lambda x, y: (x, np.ones(60), x, y),
            "test targets: expected 1 real targets .* got classes",
        ),
    ],
)
def test_arrays_that_do_not_fit(examples, words, rng):
    with pytest.raises(UsageError, match=words):
        fit(SMALL, examples(*flowers(rng)), **FEW)


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (MLP, {}, r"fit: model: expected one of mlp, .*, a model such as MLP\(width=64\)"),
        ("mpl", {}, "mlp"),
        (SMALL, {"limit_train": 3}, "limit_train is of no use to arrays"),
        (SMALL, {"validation": 60}, "validation: expected 1 to 59 of 60 examples, got 60"),
        (SMALL, {"validation": "6"}, "validation: expected an int or None, got '6'"),
        (SMALL, {"validation": 2.5}, "validation: expected an int or None, got 2.5"),
        (SMALL, {"width": 9}, r"fit: width=9 is given beside MLP\(width=8.* to the model alone"),
        (SMALL, {"dataset": "digits"}, "fit: dataset='digits' is given beside examples"),
        (SMALL, {"data_dir": "x"}, "fit: data_dir is of no use to arrays"),
        (SMALL, {"callbacks": print}, r"callbacks: expected a list .* callbacks=\[f\], got <built"),
        (SMALL, {"callbacks": ["x"]}, "callbacks: expected a list of functions"),
        (nn.Linear(2), {}, r"outputs \(3,\), .* got \(2,\); let its last layer be Linear\(3\)"),
        (nn.Linear(4), {}, r"outputs \(3,\), .* got \(4,\); let its last layer be Linear\(3\)"),
        (SMALL, {"objective": "regression"}, "objective: regression is of no use to classes"),
        (SMALL, {"pixels": "symmetric"}, "symmetric is for pixels in uint8"),
        (SMALL, {"augment": "flip"}, "augment: expected images in uint8, got floats"),
    ],
)
def test_settings_that_do_not_fit(model, given, words, rng):
    with pytest.raises(UsageError, match=words):
        fit(model, flowers(rng), **{**FEW, **given})


def test_examples_of_another_shape_are_refused(rng):
    x, y = flowers(rng)
    run = fit(SMALL, (x, y), rule="bp", **FEW)
    with pytest.raises(
        UsageError, match=r"expected floats \(n, 4\), got float64\(4,\); .* x\[None\]"
    ):
        run.predict(x[0])
    with pytest.raises(UsageError, match=r"expected floats \(n, 4\), got float64\(60, 3\)"):
        run.predict(x[:, :3])
    with pytest.raises(UsageError, match="trained on, 'daisy' to 'tulip', got 'oak'"):
        run.evaluate((x, ["oak"] * 60))
    with pytest.raises(UsageError, match="expected classes, got real targets"):
        run.evaluate((x, np.ones(60)))
    digits = fit(SMALL, "digits", epochs=1, quiet=True)
    images = data.load("digits").test_images
    with pytest.raises(UsageError, match=r"expected pixels in uint8 from 0 to 16 \(n, 8, 8, 1\)"):
        digits.predict(images / 16.0)
    with pytest.raises(UsageError, match="expected pixels from 0 to 16, got 255"):
        digits.predict(np.full_like(images, 255))
    np.testing.assert_array_equal(digits.predict(images[..., 0]), digits.predict(images))
    with pytest.raises(UsageError, match="expected a data set of the 10 classes"):
        digits.evaluate(replace(data.load("digits"), classes=("a",) * 10))


# --- arrays --------------------------------------------------------------------------------------


def test_classes_keep_their_names(rng):
    x = rng.standard_normal((6, 2))
    for y in ([3, -1, 3, 7, 7, 7], np.array([True, False] * 3), ["b", "a", "b", "c", "c", "c"]):
        run = fit(SMALL, (x, y), rule="bp", **FEW)
        assert set(run.predict(x).tolist()) <= set(np.asarray(y).tolist())
        assert run.labels.tolist() == sorted(set(np.asarray(y).tolist()))


def test_validation_examples_are_not_trained_on(rng):
    x, y = flowers(rng)
    made = data.from_arrays(x, y, validation=20)
    assert made.tested_on == "validation" and len(made.train_images) == 40
    every = np.concatenate([made.train_images[:], made.test_images[:]])
    np.testing.assert_array_equal(np.sort(every, axis=0), np.sort(x, axis=0))
    mean, std = made.training_mean_and_std
    np.testing.assert_allclose(mean, made.train_images[:].mean(0))
    np.testing.assert_allclose(std, made.train_images[:].std(0))


def test_features_are_standardized_one_by_one(rng):
    x = rng.standard_normal((50, 3)) * [1.0, 100.0, 0.0] + [0.0, -7.0, 5.0]
    made = data.from_arrays(x, np.zeros(50, int))
    got = made.pixels(x, np.float64)
    np.testing.assert_allclose(got.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(got.std(0), [1.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_array_equal(made.pixels(x, np.float64, "none"), x)


@pytest.mark.parametrize("scale", [1e-42, 1.0, 1e40])
def test_features_far_from_zero_keep_their_differences(scale, rng):
    x = (1.7e9 + 10 * rng.standard_normal((50, 3))) * scale
    made = data.from_arrays(x, np.zeros(50, int))
    expected = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(made.pixels(x, np.float32), expected, rtol=1e-5, atol=1e-6)
    assert made.pixels(x, np.float32).dtype == np.float32


def test_a_constant_feature_leaves_other_numbers_as_far_from_it_as_they_are():
    x = np.full((49, 2), 0.1)
    assert x.std(0).min() > 0.0  # by rounding alone
    made = data.from_arrays(x, np.zeros(49, int))
    np.testing.assert_allclose(made.pixels(x + 0.2, np.float64), 0.2)


@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 5, 2), (20, 6, 5, 2), (20, 2, 2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, bool])
def test_inputs_of_any_shape(shape, dtype, rng):
    x = (rng.uniform(0, 200, shape)).astype(dtype)
    run = fit(SMALL, (x, np.arange(20) % 2), rule="fg-a", **FEW)
    assert run.predict(x).shape == (20,)
    assert dn.tree.leaves(run.params)[0].dtype == np.float32


# --- runs of the command line --------------------------------------------------------------------


def test_the_network_of_a_run_is_loaded(tmp_path, capsys):
    command = "--epochs 4 --width 8 --lr 0.1 --optimizer sgd --quiet --run-dir"
    train.main([*command.split(), str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    last, best = (load_run(tmp_path / "run", best=best) for best in (False, True))
    assert last.evaluate("digits").accuracy == summary["test_accuracy"]
    assert best.evaluate("digits").accuracy == summary["best_test_accuracy"]
    np.testing.assert_allclose(last.evaluate("digits").loss, summary["test_loss"], rtol=1e-6)
