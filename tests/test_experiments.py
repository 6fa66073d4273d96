"""Experiments: what is known is not run again, what was run is not lost, and what they compute."""

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import REAL, write

import dualnet as dn
from dualnet.console import exit_code
from dualnet.errors import Interrupted, UsageError
from dualnet.learning import WEIGHT_AGGREGATIONS
from dualnet.training.run import KeptRun
from experiments import (
    contrastive,
    device,
    frog_functions,
    frog_quality,
    functions,
    networks,
    rules,
    runs,
)
from experiments.__main__ import EXPERIMENTS, main
from experiments.experiment import (
    Experiment,
    Form,
    file_of,
    missing_rows,
    named,
    read_rows,
    run_experiment,
)
from experiments.training import trained


def test_a_table_goes_on_where_it_stopped(tmp_path):
    out, made = tmp_path / "rows.json", []

    def make(command):
        if command == "broken":
            raise KeyboardInterrupt
        made.append(command)
        return {"accuracy": len(made)}

    with pytest.raises(KeyboardInterrupt):
        list(runs.rows(["a", "broken", "b"], out, make))
    assert json.loads(out.read_text()) == [{"command": "a", "accuracy": 1}]
    (first, second) = runs.rows(["a", "b"], out, make, lambda row: {**row, "seen": True})
    assert made == ["a", "b"]
    assert first == {"command": "a", "accuracy": 1, "seen": True}
    assert json.loads(out.read_text()) == [first, second]


@pytest.mark.parametrize("experiment", (contrastive, networks, rules))
def test_the_committed_rows_are_known(experiment, tmp_path, capsys, monkeypatch):
    """So that the command prints the table of docs/results.md, and runs nothing."""
    committed = runs.TRAIN.parent / "benchmarks/results" / f"{experiment.__name__[12:]}.json"
    out = tmp_path / "rows.json"
    out.write_text(committed.read_text())
    monkeypatch.setattr("sys.argv", ["experiment", "--out", str(out)])
    monkeypatch.setattr(experiment, "run", lambda *_: pytest.fail("it ran"))
    experiment.main()
    assert json.loads(out.read_text()) == json.loads(committed.read_text())
    # A line of a table, or a curve after the command that made it.
    lines = re.sub("(?m)^`.*by epoch: ", "", capsys.readouterr().out).splitlines()
    text = (runs.TRAIN.parent / "docs/results.md").read_text(encoding="utf-8")
    assert len(lines) > 2 and all(line in text for line in lines)


def test_a_run_that_fails_ends_with_its_exit_code(capfd):
    with pytest.raises(SystemExit) as ended:
        runs.run("--epochs 0", None)
    assert ended.value.code == 2
    assert "--epochs: expected an int of at least 1" in capfd.readouterr().err


# --- the runner ----------------------------------------------------------------------------------

RESULTS = runs.TRAIN.parent / "benchmarks/results"
FORM = Form(quick=False, seeds=(0, 1, 2))


def counting(measure):
    """An experiment of three rows."""
    return Experiment(
        name="counting",
        shows="numbers",
        source="none",
        settings=lambda form: [{"number": i} for i in (1, 2, 3)],
        measure=measure,
        table=lambda rows: "",
    )


def test_an_experiment_goes_on_where_it_was_interrupted(tmp_path):
    measured = []

    def measure(row, form):
        if row["number"] == 3 and not finished:
            raise KeyboardInterrupt
        measured.append(row["number"])
        return {"square": row["number"] ** 2}

    finished, experiment = False, counting(measure)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, FORM, tmp_path)
    kept = read_rows(experiment, tmp_path / "counting.json")
    assert [row["results"] for row in kept] == [{"square": 1}, {"square": 4}]
    finished = True
    rows = run_experiment(experiment, FORM, tmp_path)
    assert measured == [1, 2, 3] and rows[:2] == kept
    for row in rows:
        assert row["seeds"] == "0-2" and row["backend"] == "numpy" and row["seconds"] >= 0
        assert "cores" in row["machine"] and re.fullmatch(r"[0-9a-f]+\+?|unknown\+?", row["commit"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["date"])
    assert [path.name for path in tmp_path.iterdir()] == ["counting.json"]  # no draft is left

    # Other seeds are other rows; both stay in the file.
    others = run_experiment(experiment, replace(FORM, seeds=(7,)), tmp_path)
    assert measured == [1, 2, 3, 1, 2, 3] and [row["seeds"] for row in others] == ["7"] * 3
    assert len(read_rows(experiment, tmp_path / "counting.json")) == 6


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"experiment": "another", "rows": []}', "{}"),
        *(f'{{"experiment": "counting", "rows": {rows}}}' for rows in ("[{}]", "null", "3", "[3]")),
    ],
)
def test_a_file_of_something_else_is_left_alone(content, tmp_path):
    path = tmp_path / "counting.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"does not hold rows of counting; move it away or choose"):
        run_experiment(counting(lambda row, form: {}), FORM, tmp_path)
    assert path.read_text() == content


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere"])
def test_where_nothing_can_be_written_nothing_is_measured(out, elsewhere, capsys, monkeypatch):
    Path("file").write_text("of the user")
    with pytest.raises(UsageError, match=rf"{out}: no results can be written there \("):
        run_experiment(counting(lambda row, form: pytest.fail("measured")), FORM, Path(out))
    monkeypatch.setattr("sys.argv", ["rules", "--out", f"{out}/rows.json"])
    with pytest.raises(SystemExit):
        rules.main()
    assert f"argument --out: {out}: no results can be written there" in capsys.readouterr().err
    Path("counting.json").mkdir()
    with pytest.raises(UsageError, match=r"counting\.json: Is a directory"):
        run_experiment(counting(lambda row, form: {}), FORM, Path())


def test_names_of_seeds_tell_them_apart():
    assert named((0, 1, 2, 3)) == "0-3" and named((5,)) == "5" and named((0, 1)) == "0, 1"
    assert named((0, 2, 3)) == "0, 2, 3" and named((2, 1, 0)) == "2, 1, 0"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder of the real MNIST and Fashion-MNIST, unpacked as they are read again and again, and
    of noise in the form of CIFAR-10."""
    if not (REAL / "mnist").is_dir():
        pytest.skip(f"MNIST is not in {REAL}; set DUALNET_DATA to the folder that holds it")
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("mnist", "fashion-mnist"):
        for path in (REAL / name).glob("*.gz"):
            write(folder / name / path.stem, gzip.decompress(path.read_bytes()))
    noise = folder / "cifar10"
    noise.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (200, 3073), np.uint8)
        records[:, 0] %= 10
        (noise / f"{name}.bin").write_bytes(records.tobytes())
    return str(folder)


@pytest.mark.usefixtures("no_outside", "no_curve")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_quick_form_of_every_experiment_runs(name, tmp_path, capsys, data_dir, monkeypatch):
    command = [name, "--quick", "--out", str(tmp_path), "--data-dir", data_dir]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert table.startswith("| ") and "nan" not in table
    data, picture = tmp_path / f"{name}-quick.json", tmp_path / f"{name}-quick.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = data.read_bytes()
    assert "NaN" not in before.decode() and "Infinity" not in before.decode()
    # Nothing is left to measure; and the same rows are the same picture, which takes long to draw.
    drawn = []
    monkeypatch.setattr("experiments.__main__.save_picture", lambda *what: drawn.append(what))
    assert main(command) == 0
    assert data.read_bytes() == before and capsys.readouterr().out == table
    assert drawn == [(EXPERIMENTS[name], json.loads(before)["rows"], picture)]


def test_the_picture_shows_all_rows_of_the_file_whatever_only_names(tmp_path, monkeypatch):
    drawn = []
    counts = replace(counting(lambda settings, _: settings["number"]), table=str, picture=len)
    monkeypatch.setitem(EXPERIMENTS, "counting", counts)
    monkeypatch.setattr("experiments.__main__.save_picture", lambda _, rows, __: drawn.append(rows))
    for number in 1, 2:
        assert main(["counting", "--only", f"number={number}", "--out", str(tmp_path)]) == 0
    assert [[row["settings"]["number"] for row in rows] for rows in drawn] == [[1], [1, 2]]


def test_an_experiment_is_run_by_its_name():
    for name, experiment in EXPERIMENTS.items():
        assert sys.modules[experiment.module].EXPERIMENT is experiment, name
    command = [sys.executable, "-m", "experiments.fdfa_mlp", "--quick"]
    done = subprocess.run(command, cwd=runs.TRAIN.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "an experiment is run by its name: python -m experiments fdfa-mlp\n"


def test_the_experiments_are_listed(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name, experiment in EXPERIMENTS.items():
        assert name in listed and experiment.shows in listed and experiment.source in listed


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "NAME: expected one of frog-quality, .*, got None"),
        (["frog"], "NAME: expected one of frog-quality, .*, got 'frog'"),
        (["frog-angles", "--seeds", "1", "1"], "--seeds: each seed may occur once, got 1 1"),
        (["frog-angles", "--backend", "cupy"], "--backend: frog-angles runs on numpy, got 'cupy'"),
        (["frog-angles", "--only", "k=5"], "--only k=5: no row of frog-angles has that in its"),
    ],
)
def test_mistakes_on_the_command_line_are_named(command, message, capsys, tmp_path):
    assert exit_code("experiments", main, [*command, "--out", str(tmp_path)]) == 2
    assert re.match(f"experiments: {message}", capsys.readouterr().err)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_committed_results_are_those_of_the_page(name):
    """Whatever rows of the full form are there, the page has their table, and their picture."""
    experiment = EXPERIMENTS[name]
    form = experiment.form(quick=False, seeds=None, backend=experiment.backends[0])
    rows = read_rows(experiment, file_of(experiment, form, RESULTS))
    text = (runs.TRAIN.parent / "docs/results.md").read_text(encoding="utf-8")
    not_yet = re.search("(?m)^Not measured yet: (.*)$", text).group(1)
    assert (f"`{name}`" in not_yet) == (not rows)
    if not rows:
        return
    known = [json.dumps(settings) for settings in experiment.settings(form)]
    assert {json.dumps(row["settings"]) for row in rows} <= set(known)
    if not experiment.each_seed:
        places = [known.index(json.dumps(row["settings"])) for row in rows]
        assert places == sorted(places) and {row["seeds"] for row in rows} == {named(form.seeds)}
    assert experiment.table(rows) in text
    if experiment.picture is not None:
        assert f"(../benchmarks/results/{name}.png)" in text
        assert (RESULTS / f"{name}.png").exists()


# --- trainings as rows ---------------------------------------------------------------------------

TINY = "--model mlp --depth 1 --width 8 --rule fdfa --limit-train 64 --limit-test 32"


def training(work, seeds):
    return Form(quick=False, seeds=seeds, work=work)


def without_times(results):
    return [{n: v for n, v in r.items() if "seconds" not in n} for r in results]


@pytest.mark.usefixtures("elsewhere")
def test_an_interrupted_training_goes_on_and_has_the_same_results(tmp_path, monkeypatch):
    flags = f"{TINY} --epochs 4"
    whole = trained(flags, training(tmp_path / "whole", (3,)))
    (result,) = whole
    assert [len(curve) for curve in result["curves"].values()] == [4] * 4
    assert np.isclose(result["test_accuracy"], result["curves"]["test_accuracy"][-1], rtol=1e-4)
    assert result["epochs"] == 4 and result["parameters"] == 64 * 8 + 8 + 80 + 10

    save_epoch, saved = KeptRun.save_epoch, []

    def interrupting(self, state):
        save_epoch(self, state)
        saved.append(state)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeptRun, "save_epoch", interrupting)
    with pytest.raises(Interrupted):
        trained(flags, training(tmp_path / "parts", (3,)))
    assert without_times(trained(flags, training(tmp_path / "parts", (3,)))) == without_times(whole)
    assert len(saved) == 4


@pytest.mark.usefixtures("elsewhere")
def test_a_training_of_other_settings_does_not_go_on_with_that_one(tmp_path):
    """Neither the quick form, nor a recipe that has changed, nor another backend."""
    flags, form = f"{TINY} --epochs 3", training(tmp_path, (0,))
    (short,) = trained(flags, replace(form, quick=True))
    (whole,) = trained(flags, form)
    assert (short["epochs"], whole["epochs"]) == (2, 3)
    (other,) = trained(f"{flags} --lr 0.5", form)
    assert other["train_loss"] != whole["train_loss"]
    names = [folder.name for folder in tmp_path.iterdir()]
    assert len(names) == 3 and all(len(name) < 100 for name in names)


@pytest.mark.usefixtures("elsewhere")
def test_seeds_of_a_training_are_rows_and_a_seed_more_leaves_the_others(tmp_path):
    measured = []

    def measure(row, form):
        measured.append((row["number"], form.seeds))
        return [{"seed": seed} for seed in form.seeds]

    experiment = replace(counting(measure), each_seed=True, backends=("numpy", "cupy"))
    run_experiment(experiment, replace(FORM, seeds=(4,), only="number=2"), tmp_path)
    assert measured == [(2, (4,))]
    rows = run_experiment(experiment, replace(FORM, seeds=(4, 9)), tmp_path)
    assert measured[1:] == [(1, (4,)), (3, (4,)), (1, (9,)), (2, (9,)), (3, (9,))]
    assert [(row["settings"]["number"], row["seeds"], row["results"]["seed"]) for row in rows] == [
        (number, str(seed), seed) for seed in (4, 9) for number in (1, 2, 3)
    ]
    # A device measures all seeds that are missing at once, and what the host did counts.
    measured.clear()
    run_experiment(experiment, replace(FORM, seeds=(4, 5, 6), backend="cupy"), tmp_path)
    assert measured == [(1, (5, 6)), (2, (5, 6)), (3, (5, 6))]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="only Linux and macOS have alarms")
def test_what_needs_a_device_ends_in_time_and_goes_on(tmp_path, monkeypatch, capsys):
    def measure(row, form):
        if row["number"] == 2 and len(measured) == 1:
            measured.append("too long")
            time.sleep(60)
        measured.append(row["number"])
        return [{}] * len(form.seeds)

    measured, experiment = [], replace(counting(measure), each_seed=True, backends=("cupy",))
    monkeypatch.setitem(EXPERIMENTS, "counting", experiment)
    monkeypatch.setattr(
        device, "QUEUE", (device.Part("counting", "number", (0, 1)), device.Part("counting", "=3"))
    )
    command = ["--out", str(tmp_path), "--minutes", "0.02"]
    began = time.monotonic()
    assert device.main(command) == 0 and measured == [1, "too long"]
    assert time.monotonic() - began < 30 and "goes on" in capsys.readouterr().err
    assert device.main([*command, "--list"]) == 0 and measured == [1, "too long"]
    assert capsys.readouterr().out.splitlines() == [
        "counting --only number, seeds 0, 1: 4 rows are missing",
        "counting --only =3, seed 0: 1 rows are missing",
    ]
    assert device.main(command) == 0 and measured == [1, "too long", 2, 3]
    assert "counting --only =3, seed 0: 0 rows are missing" in capsys.readouterr().out


def test_every_part_that_needs_a_device_has_rows(tmp_path):
    for part in device.QUEUE:
        experiment = EXPERIMENTS[part.name]
        form = experiment.form(False, part.seeds, "cupy", only=part.only)
        assert missing_rows(experiment, form, tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_a_training_that_diverges_is_a_result(tmp_path):
    flags = f"{TINY} --epochs 3 --optimizer sgd --lr 1e30"
    (result,) = trained(flags, training(tmp_path, (0,)))
    assert "diverged" in result["diverged"] and "test_accuracy" not in result
    rows = [
        {"settings": {"recipe": "fdfa-mlp2-mnist-bp"}, "seeds": str(seed), "results": r}
        for seed, r in enumerate([result, {"test_accuracy": 0.98}, {"test_accuracy": 0.99}])
    ]
    table = EXPERIMENTS["fdfa-mlp"].table
    assert "| `bp` | 98.50 ± 0.71, 1 diverged (98.25) |" in table(rows)
    assert "| `bp` | 1 diverged (98.25) |" in table(rows[:1])


# --- functions and descent -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sphere", [0.0] * 5),
        ("rosenbrock", [1.0] * 5),
        ("styblinski-tang", [-2.903534027771177] * 5),
        ("beale", [3.0, 0.5]),
    ],
)
def test_functions_have_their_published_minima(name, place, rng):
    function, place = functions.FUNCTIONS[name], np.array(place)
    least = function.minimum(len(place))
    assert np.isclose(function.value(place), least, rtol=1e-12, atol=1e-12)
    around = place + 0.1 * rng.normal(size=(3, 50, len(place)))
    assert (function.value(around) > least).all() and function.value(around).shape == (3, 50)
    np.testing.assert_allclose(dn.grad(function.value)(place), 0, atol=1e-9)


def test_functions_at_other_points_by_hand():
    x = np.array([[2.0, -1.0, 3.0]])
    by_hand = {
        "sphere": 4 + 1 + 9,
        "rosenbrock": 100 * (-1 - 4) ** 2 + (1 - 2) ** 2 + 100 * (3 - 1) ** 2 + (1 + 1) ** 2,
        "styblinski-tang": (16 - 64 + 10 + 1 - 16 - 5 + 81 - 144 + 15) / 2,
        "beale": (1.5 - 2 - 2) ** 2 + (2.25 - 2 + 2) ** 2 + (2.625 - 2 - 2) ** 2,
    }
    for name, value in by_hand.items():
        assert np.isclose(functions.FUNCTIONS[name].value(x)[0], value), name
    assert functions.rosenbrock(np.array([[5.0]])) == 0.0


def test_descent_is_that_of_a_plain_loop_and_stops_where_it_does_not_get_lower():
    function = functions.FUNCTIONS["sphere"]
    rates = np.array([0.3, 1.0, 1.2])  # converges, jumps to and fro, diverges
    x = np.full((3, 2, 4), -1.0)
    found = functions.descend(function, functions.exact(function.value), x, rates, 200)
    for i, rate in enumerate(rates):
        at, best, last, failures, steps = np.full(4, -1.0), np.inf, np.inf, 0, 0
        for _ in range(201):
            value = (at**2).sum()
            failures = 0 if value < last else failures + 1
            last, best = value, min(best, value)
            if failures == 50 or steps == 200:
                break
            at, steps = at - rate * 2 * at, steps + 1
        assert (found.steps[i] == steps).all() and np.allclose(found.best[i], best, rtol=1e-12)
        assert np.allclose(found.last[i], last, rtol=1e-12)
    assert found.steps[1, 0] == 50 and found.steps[0, 0] == 200


def test_a_run_that_is_no_number_stops_and_keeps_its_best_value():
    function = functions.FUNCTIONS["styblinski-tang"]
    estimate = functions.exact(function.value)
    found = functions.descend(
        function, estimate, np.ones((1, 1, 2), np.float32), np.array([50.0]), 1000
    )
    assert found.steps[0, 0] < 20 and np.isfinite(found.best[0, 0])


def test_seeds_do_not_depend_on_the_seeds_beside_them():
    row = {"function": "styblinski-tang", "n": 4, "k": 4, "steps": 30}
    together = frog_functions.measure(row, Form(True, (3, 8)))
    alone = frog_functions.measure(row, Form(True, (8,)))
    for name, found in alone.items():
        assert np.allclose(together[name]["best"][1], found["best"][0], rtol=1e-5), name


@pytest.mark.parametrize(("k", "n"), [(1, 5), (4, 5), (5, 5), (16, 5), (16, 1)])
def test_batched_aggregations_are_those_of_the_learning_rules(k, n, rng):
    # Near the axes, as directions that are nearly dependent would magnify rounding.
    v, exact = np.eye(k, n) + 0.1 * rng.normal(size=(3, k, n)), rng.normal(size=(3, n))
    d = np.einsum("skn,sn->sk", v, exact)
    for name, aggregate in frog_functions.AGGREGATIONS.items():
        found = aggregate(d, v)
        for i in range(3):
            c = WEIGHT_AGGREGATIONS[name](d[i], lambda i=i: v[i] @ v[i].T, n)
            np.testing.assert_allclose(found[i], c @ v[i], rtol=1e-9, atol=1e-9)


def test_every_published_rate_is_there():
    places = {(f, 2**i) for f in ("sphere", "styblinski-tang", "rosenbrock") for i in range(11)}
    assert set(frog_functions.RATES) == places | {("beale", 2)}
    for rates in frog_functions.RATES.values():
        assert tuple(rates) == frog_functions.ESTIMATES and all(0 < r < 1 for r in rates.values())


def test_the_page_on_weights_has_the_committed_lengths_of_estimates():
    rows = read_rows(EXPERIMENTS["frog-quality"], RESULTS / "frog-quality.json")
    found = frog_quality.found_in(rows)["ones", "normal", 64]
    text = (runs.TRAIN.parent / "docs/rules/weights.md").read_text(encoding="utf-8")
    for name, digits in [("near-best", 2), ("better-half", 1), ("steepest", 1)]:
        assert f"{found[name]['ratio']['mean']:.{digits}f} (`{name}`)" in text
    assert f"{found['steepest-projection']['ratio']['mean']:.2f} (`steepest-projection`)" in text


def test_the_theory_of_quality_is_that_of_the_committed_means():
    """Each mean of 1,000 draws within 4.5 of its standard errors."""
    experiment = EXPERIMENTS["frog-quality"]
    compared = 0
    for row in read_rows(experiment, RESULTS / "frog-quality.json"):
        at = row["settings"]
        for aggregation, found in row["results"].items():
            expected = frog_quality.theory(at["sampler"], aggregation, at["k"])
            for figure, value in zip(("cosine", "ratio"), expected or (), strict=False):
                off = abs(found[figure]["mean"] - value)
                assert off <= 4.5 * found[figure]["error"] + 1e-9, (at, aggregation, figure)
                compared += 1
    assert compared > 150
