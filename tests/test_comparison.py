"""Runs beside one another: figures over seeds, names, order, what is refused, the command."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peers import peer
from unsealed import unseal

from dualnet.command.compare import main
from dualnet.errors import DataError, DivergedError, UsageError
from dualnet.training.assemble import TABLES
from dualnet.training.comparison import compare_runs
from dualnet.training.history import best, outcome
from dualnet.training.resolve import resolve
from dualnet.training.run_folder import COLUMNS, RunFolder
from dualnet.training.seeds import combined, run_seeds

pytestmark = pytest.mark.usefixtures("elsewhere")

ACCURACY = COLUMNS.index("test_accuracy")


def history(*accuracies, loss=None):
    """Epochs of two seconds with these test accuracies; the loss falls with them, if not given."""
    epochs = np.arange(1, len(accuracies) + 1)
    rows = np.zeros((len(accuracies), len(COLUMNS)))
    rows[:, 0], rows[:, 1], rows[:, -1] = epochs, 0.5, 2.0
    rows[:, 2] = rows[:, ACCURACY] = accuracies
    rows[:, 3] = 1 - np.asarray(accuracies) if loss is None else loss
    return rows


def write(path, rows, finished=True, seed=0, tested_on="test", of="of these data", **given):
    """Write the folder of a run, and return its summary."""
    settings = resolve({"epochs": max(len(rows), 1), "rule": "bp", **given}, TABLES)
    folder = RunFolder(path)
    folder.make()
    folder.write_settings(replace(settings, seed=seed), of)
    if len(rows):
        folder.write_metrics(rows)
    if not finished:
        return None
    summary = {**outcome(rows), **best(rows), "tested_on": tested_on, "seed": seed}
    folder.write_json("summary.json", summary)
    return summary


def make_seeds(path, seeds):
    """Make a folder of several seeds, none of which has begun."""
    folder = RunFolder(path)
    folder.make()
    folder.write_seeds(resolve({"rule": "bp"}, TABLES), seeds)
    return folder


def write_seeds(path, rows_of, diverged=(), **given):
    """Write the folder of several seeds."""
    folder = make_seeds(path, list(rows_of))
    outcomes = {}
    for seed, rows in rows_of.items():
        lost = seed in diverged
        where = folder.of_seed(seed).path
        outcomes[seed] = write(where, rows, finished=not lost, seed=seed, **given)
        if lost:
            why = "diverged at step 7: the loss is nan; lower --lr"
            outcomes[seed] = DivergedError(why)
            folder.of_seed(seed).write_json("diverged.json", {"why": why})
    combined(outcomes, folder)


# --- figures ---


def test_figures_over_seeds_are_mean_and_sample_deviation():
    accuracies = {3: (0.5, 0.75, 0.625), 4: (0.25, 0.5, 0.75), 8: (0.5, 0.875, 1.0)}
    write_seeds("a", {seed: history(*row) for seed, row in accuracies.items()}, rule="fg-a")
    (run,) = compare_runs(["a"]).runs
    last = [row[-1] for row in accuracies.values()]
    got = run.last("test_accuracy")
    assert got.mean == pytest.approx(sum(last) / 3)
    assert got.std == pytest.approx(math.sqrt(sum((x - got.mean) ** 2 for x in last) / 2))
    assert run.best_epochs == [2, 3, 3] and run.epochs == [3, 3, 3] and run.tangents == 1
    assert (run.seconds, run.seconds_per_epoch) == (6.0, 2.0)
    mean, std = run.curve("test_accuracy")
    assert mean.tolist() == pytest.approx(np.mean(list(accuracies.values()), 0).tolist())
    assert std[0] == pytest.approx(statistics.stdev([0.5, 0.25, 0.5]))


def test_figures_are_those_of_the_runs_themselves():
    """A real run of two seeds: the table repeats what its summary says."""
    from test_training import SETTINGS

    from dualnet import data
    from dualnet.models import MLP

    digits = data.load("digits", limit_train=100, limit_test=40)
    network = MLP(**SETTINGS.model_options).network(digits.in_shape, 10)
    summary = run_seeds(SETTINGS, network, digits, RunFolder("run"), [0, 1], quiet=True)
    (run,) = compare_runs(["run"]).runs
    for name in ("test_accuracy", "test_loss", "train_loss"):
        assert run.last(name).mean == pytest.approx(summary[name], rel=1e-5)
        assert run.last(name).std == pytest.approx(summary[f"{name}_std"], rel=1e-3)
    assert run.best_epochs == summary["best_epoch"] and run.epochs == [SETTINGS.epochs] * 2
    assert all(one.finished for one in run.seeds)


def test_a_seed_that_diverged_is_counted_apart():
    write_seeds("a", {0: history(0.5, 0.75), 1: history(0.125), 2: history(0.5, 0.25)}, [1])
    comparison = compare_runs(["a"])
    (run,) = comparison.runs
    assert run.last("test_accuracy").mean == 0.5 and len(run.seeds) == 3
    assert comparison.notes == ("bp: seed 1 diverged at step 7: the loss is nan.",)
    heading, row = comparison.table().splitlines()[2:4]
    assert heading.split()[-1] == "diverged" and row.split()[-2:] == ["3", "1"]
    assert run.curve("test_accuracy")[0].tolist() == [0.5, 0.5]


def test_runs_that_are_not_finished():
    write("cut", history(0.5, 0.75), finished=False, epochs=9, seed=2)
    write("none", history(), finished=False, epochs=9, seed=3)
    make_seeds("seeds", [0, 1])
    write("seeds/seed-1", history(0.5), finished=False, epochs=9, seed=1)
    comparison = compare_runs(["cut", "none", "seeds"])
    assert comparison.notes == (
        "bp, cut is not finished: it has 2 of 9 epochs.",
        "bp, none is not finished: it has 0 of 9 epochs.",
        "bp, seeds: seed 0 is not finished: it has 0 of 9 epochs.",
        "bp, seeds: seed 1 is not finished: it has 1 of 9 epochs.",
    )
    assert [one.folder for one in comparison.runs] == ["cut", "seeds", "none"]
    assert comparison.runs[2].last("test_accuracy").mean is None


def test_a_run_that_was_given_more_epochs_is_not_finished():
    write("a", history(0.5, 0.75), epochs=2)
    RunFolder("a").write_metrics(history(0.5, 0.75, 0.8))
    (run,) = compare_runs(["a"]).runs
    assert not run.seeds[0].finished


def test_early_stop_leaves_seeds_with_unequal_numbers_of_epochs():
    write_seeds("a", {0: history(0.5, 0.75, 0.5), 1: history(0.25, 0.5)})
    (run,) = compare_runs(["a"]).runs
    assert run.last("test_accuracy").mean == 0.5 and run.epochs == [3, 2]
    assert run.curve("test_accuracy")[0].tolist() == [0.375, 0.625]
    assert " 2-3 " in compare_runs(["a"]).table()


def test_losses_that_are_not_finite_have_no_mean():
    make_seeds("a", [0, 1])
    write("a/seed-0", history(0.5, 0.75, loss=(1.0, math.inf)))
    write("a/seed-1", history(0.5, 0.5, loss=(3.0, 1.0)), seed=1)
    (run,) = compare_runs(["a"]).runs
    assert run.last("test_loss").mean is None
    mean, std = run.curve("test_loss")
    assert mean.tolist() == [2.0, math.inf] and math.isnan(std[1])
    json.dumps(compare_runs(["a"]).as_json(), allow_nan=False)


# --- names and order ---


def test_names_are_what_differs_and_the_rest_is_said_once():
    write("a", history(0.5), rule="fg-w", tangents=4)
    write("b", history(0.75), rule="fg-w", tangents=16, sampler="rank-one")
    write("c", history(0.25), rule="bp", width=16, lr=0.25)
    comparison = compare_runs(["a", "b", "c"])
    assert [one.name for one in comparison.runs] == [
        "fg-w, tangents=16, sampler=rank-one, width=128, lr=0.0005",
        "fg-w, tangents=4, sampler=normal, width=128, lr=0.0005",
        "bp, width=16, lr=0.25",
    ]
    assert comparison.table().splitlines()[0] == (
        "all: digits, mlp, adam, cosine, epochs=1, batch_size=32"
    )
    alone = compare_runs(["a", "b"])
    assert [one.name for one in alone.runs] == [
        "tangents=16, sampler=rank-one",
        "tangents=4, sampler=normal",
    ]
    assert alone.shared["rule"] == "fg-w" and alone.shared["lr"] == 0.0005


def test_options_that_are_no_default_are_said_of_a_single_rule():
    write("a", history(0.5), rule="fg-w", tangents=4)
    write("b", history(0.75), rule="fg-a", lr=5e-4)
    names = {one.folder: one.name for one in compare_runs(["a", "b"]).runs}
    assert names == {"a": "fg-w, tangents=4", "b": "fg-a"}


def test_runs_that_differ_by_seed_or_folder_alone():
    write("a", history(0.5), seed=1)
    write("b", history(0.75), seed=2)
    write("c", history(0.25), seed=2)
    assert [one.name for one in compare_runs(["a", "b"]).runs] == ["bp, seed=2", "bp, seed=1"]
    assert [one.name for one in compare_runs(["b", "c"]).runs] == ["bp, b", "bp, c"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": "mnist"}, "Not ranked: the data sets differ (digits, mnist)."),
        (
            {"of": "others"},
            "Not ranked: the runs learned from different data, as their fingerprints say.",
        ),
        ({"limit_test": 50}, "Not ranked: the runs were tested on different images."),
        ({"validation": 50}, "Not ranked: the runs were tested on different images."),
        ({"tested_on": "training"}, "Not ranked: the runs were tested on different images."),
        (
            {"objective": "regression"},
            "Not ranked: some learn classes, others real targets.",
        ),
    ],
)
def test_runs_that_cannot_be_ranked_keep_their_order(given, said):
    write("worse", history(0.25))
    write("better", history(0.75), **given)
    comparison = compare_runs(["worse", "better"])
    assert comparison.ranked_by is None and comparison.notes == (said,)
    assert [one.folder for one in comparison.runs] == ["worse", "better"]
    assert said in comparison.table() and "Best first" not in comparison.table()


def test_runs_with_less_to_learn_from_are_ranked():
    write("all", history(0.25))
    write("some", history(0.75), of="some of these data", limit_train=50)
    assert [one.folder for one in compare_runs(["all", "some"]).runs] == ["some", "all"]


def test_arrays_without_a_fingerprint_are_taken_to_be_the_same():
    """As are those of earlier versions."""
    for name, of in (("a", "these"), ("b", None)):
        write(name, history(0.5), dataset="arrays", of=of)
    (note,) = compare_runs(["a", "b"]).notes
    assert note == "The runs learned from arrays, which are taken to be the same for all."


def test_real_targets_are_ranked_by_their_loss():
    nan = (math.nan, math.nan)
    real = {"dataset": "arrays", "objective": "regression"}
    write("a", history(*nan, loss=(3.0, 2.0)), rule="bp", **real)
    write("b", history(*nan, loss=(3.0, 1.0)), rule="fg-a", **real)
    comparison = compare_runs(["a", "b"])
    assert [one.folder for one in comparison.runs] == ["b", "a"]
    assert comparison.ranked_by == "test_loss"
    heading, first = comparison.table().splitlines()[2:4]
    assert heading.split()[:3] == ["run", "test", "loss"] and first.split()[:2] == ["fg-a", "1"]
    assert comparison.notes == ()  # as fingerprints say, they learned from the same
    assert comparison.as_json()["runs"][0]["test_accuracy"] == {"mean": None, "std": None}


def test_a_table_fits_a_console_of_80_columns():
    options = {"tangents": 128, "sampler": "orthogonal-angle:45", "optimizer": "momentum"}
    rows = {seed: history(*np.linspace(0, 0.9, 100)) for seed in range(3)}
    write_seeds("many", rows, rule="fg-w", weight_decay=1e-4, width=512, depth=4, **options)
    write("one", history(0.5), rule="fdfa")
    text = compare_runs(["many", "one"]).table()
    assert max(map(len, text.splitlines())) <= 80
    assert "fg-w, tangents=128, sampler=orthogonal-angle:45" in text
    assert "0.9000 ± 0.0000" in text


# --- what is refused ---


def test_folders_without_a_run():
    cases = (
        ("found", "rates.json", "it is a search for a learning rate"),
        ("kept", "network.json", "it is a network that was saved without its figures"),
        ("runs", "one/config.json", f"there are 1 in it, such as {Path('runs/one')}"),
        ("others", "notes.txt", "no config.json"),
        ("nowhere", None, "there is no such folder"),
        (__file__, None, "it is a file; name the folder of the run"),
    )
    for name, file, said in cases:
        if file is not None:
            Path(name, file).parent.mkdir(parents=True)
            Path(name, file).write_text("{}")
        with pytest.raises(UsageError) as raised:
            compare_runs([name])
        assert str(raised.value) == f"{name}: no run there ({said})"
    write("a", history(0.5))
    with pytest.raises(UsageError, match="a is given twice"):
        compare_runs(["a", Path("a")])
    with pytest.raises(UsageError, match="compare_runs: runs: expected one folder or more"):
        compare_runs([])
    with pytest.raises(UsageError, match="expected a list of folders, got 'a' alone"):
        compare_runs("a")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "{", "config.json is damaged: Expecting"),
        ("config.json", "[]", "config.json is damaged: it holds no object"),
        ("config.json", "{}", "config.json is damaged: it holds no settings"),
        ("config.json", '{"settings": {"lr": 1}}', "config.json is damaged: settings: unknown"),
        ("config.json", "[" * 99999, "config.json is damaged: "),
        ("metrics.csv", "", "metrics.csv is damaged: expected epoch,train_loss,.* first, got ''"),
        ("metrics.csv", "{}1,2,3\n", "metrics.csv is damaged: line 2: expected 7 numbers"),
        ("metrics.csv", "{}2,1,1,1,1,1,1\n", "line 2: expected 7 numbers, the first of them 1, "),
        ("metrics.csv", "{}1,x,1,1,1,1,1\n", "line 2: expected 7 numbers"),
        ("summary.json", "nonsense", "summary.json is damaged: Expecting"),
        ("diverged.json", "{}", "diverged.json is damaged: it does not say why"),
    ],
)
def test_a_damaged_file_is_named(file, text, said):
    write("a", history(0.5))
    Path("a", file).write_text(text.replace("{}", ",".join(COLUMNS) + "\n", file[0] == "m"))
    with pytest.raises(DataError, match=said) as raised:
        compare_runs(["a"])
    assert str(Path("a", file)) in str(raised.value)


def test_bytes_that_are_no_text():
    write("a", history(0.5))
    Path("a/metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"metrics.csv is damaged: 'utf-8' codec"):
        compare_runs(["a"])


# --- the command ---


def test_the_command_prints_a_table_or_json(capsys):
    write("a", history(0.5))
    write("b", history(0.75), rule="fa")
    main(["a", "b"])
    assert capsys.readouterr().out == compare_runs(["a", "b"]).table() + "\n"
    main(["--json", "a", "b"])
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(compare_runs(["a", "b"]).as_json(), allow_nan=False))
    assert [one["name"] for one in told["runs"]] == ["fa", "bp"]
    assert told["runs"][0]["test_accuracy"] == {"mean": 0.75, "std": None}
    for argv, said in (
        (["a", "--pictures"], r"there is no flag --pictures.*did you mean --picture\?"),
        ([], "expected RUN, got nothing"),
        (["c"], "c: no run there"),
    ):
        with pytest.raises(UsageError, match=said):
            main(argv)


def test_the_command_draws_a_picture_and_says_where(capsys):
    peer("matplotlib", "plot")
    write("a", history(0.5))
    main(["a", "--picture", "seen.png"])
    assert Path("seen.png").read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out.endswith("\npicture: seen.png\n")


def test_runs_that_have_diverged_say_so(ask):
    far = "--rule bp --lr 1e30 --optimizer sgd --epochs 2 --limit-train 64 --limit-test 20"
    flags = f"{far} --width 8 --quiet --run-dir".split()
    assert ask(*flags, "one")[0] == 4
    assert ask(*flags, "all", "--seeds", "1", "2")[0] == 4
    comparison = compare_runs(["one", "all"])
    assert [len(one.diverged) for one in comparison.runs] == [1, 2]
    assert sum("diverged at step" in note for note in comparison.notes) == 3
    # A run that goes on has not diverged until it does so again.
    settings = unseal(Path("one/config.json"))
    settings["settings"]["lr"] = 1e-3
    Path("one/config.json").write_text(json.dumps(settings))
    assert ask("--resume", "one", "--quiet")[0] == 0
    (one,) = compare_runs(["one"]).runs
    assert not one.diverged and one.seeds[0].finished
