"""`dualnet evaluate`, `dualnet predict` and `dualnet check --plugin`, as they are called."""

import json
import re
import signal
import statistics
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
from dualnet import data
from dualnet.command.main import COMMANDS, run_command
from dualnet.learning import RULES
from dualnet.models import MODELS
from dualnet.nn import Activation
from dualnet.optim import OPTIMIZERS
from dualnet.training import plugins
from dualnet.training.score_tables import mistakes_table
from dualnet.training.scores import Scores

TRAIN = "--epochs 2 --limit-train 300 --rule bp --width 16 --quiet --run-dir".split()


@pytest.fixture(autouse=True)
def as_before(elsewhere, monkeypatch):
    """An empty folder, tables without what a test registers, and signals as they were."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(plugins, "_loaded", {})
    tables = (MODELS, RULES, OPTIMIZERS, data.SOURCES)
    before = [dict(table) for table in tables]
    yield
    signal.signal(signal.SIGTERM, handler)
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.fixture
def ask(capsys):
    """`ask(command, *words)`: exit code, standard output and standard error of `dualnet`."""

    def ask(*words):
        code = run_command([str(word) for word in words])
        return code, *capsys.readouterr()

    return ask


@pytest.fixture
def answer(ask):
    """`answer(command, *words)`: standard output of a command that succeeds, of 80 columns."""

    def answer(*words):
        code, out, err = ask(*words)
        assert (code, err) == (0, ""), err
        assert "--json" in words or max(map(len, out.splitlines())) <= 80, out
        return out

    return answer


@pytest.fixture
def mistake(ask):
    """`mistake(code, pattern, *words)`: exit code, and one line that matches the pattern."""

    def mistake(code, pattern, *words):
        got, out, err = ask(*words)
        assert (got, out) == (code, ""), err
        assert re.fullmatch(rf"dualnet {words[0]}: [^\n]+\n", err), err
        assert re.search(pattern, err), err

    return mistake


@pytest.fixture
def digits():
    return data.load("digits")


@pytest.fixture
def run(ask):
    """The folder of a run."""
    assert ask("train", *TRAIN, "run")[0] == 0
    return Path("run")


def test_every_command_is_there_and_has_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command([]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^  (\w+) ", told, re.M) == list(COMMANDS)
    assert max(map(len, told.splitlines())) <= 80
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit) as end:
            run_command([name, "--help"])
        told = capsys.readouterr().out
        assert end.value.code == 0 and told.startswith(f"usage: dualnet {name} "), command
        if name in ("evaluate", "predict", "compare"):
            assert max(map(len, told.splitlines())) <= 80, told


# --- evaluate ------------------------------------------------------------------------------------


def test_a_run_is_evaluated_on_its_data_set(run, answer, digits):
    out = answer("evaluate", run)
    assert "data       digits, 257 test examples\n" in out
    told = json.loads(answer("evaluate", run, "--json"))
    summary = json.loads((run / "summary.json").read_text())
    assert told["accuracy"] == summary["test_accuracy"]
    assert told["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    confusion = np.array(told["confusion"])
    assert confusion.sum() == told["examples"] == 257
    assert np.trace(confusion) / 257 == told["accuracy"]
    assert f"loss {told['loss']:.4f}, accuracy {told['accuracy']:.4f}\n" in out
    rows = re.findall(r"^(\d) ((?:  +[\d.]+){10})$", out, re.M)
    printed = [[0 if n == "." else int(n) for n in counts.split()] for _, counts in rows]
    np.testing.assert_array_equal(printed, confusion)
    classes = re.findall(r"^(\d) +(\d+) +([\d.]+|-) +([\d.]+) +([\d.]+)$", out, re.M)
    assert [float(row[3]) for row in classes] == pytest.approx(
        [row["recall"] for row in told["by_class"]], abs=5e-4
    )


def test_the_best_network_is_another_one(run, answer, mistake):
    summary = json.loads((run / "summary.json").read_text())
    best = json.loads(answer("evaluate", run, "--best", "--json"))
    assert best["accuracy"] == summary["best_test_accuracy"] and best["network"] == "best"
    dn.load_run(run).save("saved")
    mistake(
        2, r"--best: saved has one network alone \(no best\.npz\)", "evaluate", "saved", "--best"
    )


def test_examples_come_from_a_file(run, answer, mistake, digits):
    np.savez("some.npz", x=digits.test_images[:40], y=digits.test_labels[:40])
    told = json.loads(answer("evaluate", run, "--data", "some.npz", "--json"))
    kept = dn.load_run(run).evaluate((digits.test_images[:40], digits.test_labels[:40]))
    assert (told["examples"], told["accuracy"]) == (40, kept.accuracy)
    np.savez("images.npz", images=digits.test_images)
    mistake(
        2, "expected the arrays x, .* got images; write", "evaluate", run, "--data", "images.npz"
    )
    np.savez("objects.npz", x=np.array([{}], object), y=np.zeros(1))
    objects = "objects.npz: expected an intact file of plain arrays: it holds Python objects"
    mistake(3, objects, "evaluate", run, "--data", "objects.npz")
    Path("words.npz").write_text("words and no arrays")
    words = "words.npz: expected an intact file of plain arrays: it is neither .npy nor .npz"
    mistake(3, words, "evaluate", run, "--data", "words.npz")
    Path("damaged.npz").write_bytes(Path("some.npz").read_bytes()[:200])
    mistake(3, "damaged.npz: expected an intact", "evaluate", run, "--data", "damaged.npz")
    mistake(2, "nowhere.npz: expected a file", "evaluate", run, "--data", "nowhere.npz")
    mistake(2, "--data-dir is of no use", "evaluate", run, "--data", "some.npz", "--data-dir", ".")


def test_several_seeds_have_a_mean_and_a_deviation(ask, answer):
    assert ask("train", *TRAIN, "all", "--seeds", 0, 1, 2)[0] == 0
    told = json.loads(answer("evaluate", "all", "--json"))
    of_each = [json.loads(answer("evaluate", f"all/seed-{s}", "--json")) for s in range(3)]
    for figure in ("loss", "accuracy"):
        values = [one[figure] for one in of_each]
        assert [one[figure] for one in told["runs"]] == values
        assert told[figure] == pytest.approx(statistics.fmean(values))
        assert told[f"{figure}_std"] == pytest.approx(statistics.stdev(values))
    out = answer("evaluate", "all")
    assert f"accuracy {told['accuracy']:.4f} ± {told['accuracy_std']:.4f}\n" in out
    recall = statistics.fmean(one["by_class"][4]["recall"] for one in of_each)
    assert re.search(rf"^4 +25 +\S+ +{recall:.3f} ", out, re.M), out


def test_a_seed_that_diverged_is_left_out(ask, answer):
    assert ask("train", *TRAIN, "all", "--seeds", 0, 1, 2)[0] == 0
    Path("all/seed-1/diverged.json").write_text('{"why": "diverged at step 3"}')
    out = answer("evaluate", "all")
    assert "left out   seed 1: diverged\n" in out and "deviation of 2 seeds" in out


def test_a_sheet_of_images_is_drawn(run, ask, answer, mistake):
    pytest.importorskip("matplotlib", reason='pip install -e ".[plot]"')
    assert answer("evaluate", run, "--sheet", "sheet.png").endswith("\n\nsheet      sheet.png\n")
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    assert ask("train", *TRAIN, "all", "--seeds", 4, 5)[0] == 0
    mistake(2, "--sheet: .*such as all/seed-4", "evaluate", "all", "--sheet", "sheet.png")


def test_real_targets_have_a_loss_alone(answer, mistake, rng):
    x = rng.standard_normal((50, 3))
    dn.fit("mlp", (x, x[:, :2]), rule="bp", epochs=1, width=4, quiet=True).save("real")
    np.savez("real.npz", x=x, y=x[:, :2])
    assert re.search(r"\n\nloss [\d.]+\n$", answer("evaluate", "real", "--data", "real.npz"))
    mistake(2, "does not say what it was trained on", "evaluate", "real")
    assert answer("predict", "real", "real.npz").count("\n") == 50
    mistake(2, r"d\.png: expected examples \(3,\)", "predict", "real", "d.png")


def test_other_folders_and_names_are_refused(run, mistake):
    mistake(2, "nowhere: expected the folder of a run, found none", "evaluate", "nowhere")
    Path("empty").mkdir()
    mistake(2, r"empty: expected .* got one without network\.json", "evaluate", "empty")
    mistake(2, "--data: .*got 'digit'; did you mean digits", "evaluate", run, "--data", "digit")
    mistake(2, "of no use to the data set digits: it ships", "evaluate", run, "--data-dir", ".")
    mistake(2, "there is no flag --bes", "evaluate", run, "--bes")
    mistake(2, "expected RUN, got nothing", "evaluate")


def test_a_data_set_of_other_classes_is_refused(run, mistake, rng):
    x = rng.standard_normal((50, 3))
    for y, of in ((np.arange(50), "the 50 classes 0, 1, 2, …"), (x[:, :2], "real targets")):
        dn.fit("mlp", (x, y), rule="bp", epochs=1, width=4, quiet=True).save(of[4:6])
        mistake(
            2, f"{of}, got digits, which has the 10 cl", "evaluate", of[4:6], "--data", "digits"
        )


def test_long_names_and_many_classes_fit(rng):
    for n, name in ((10, "a rather long name of a class, number {}"), (100, "class {}")):
        classes = tuple(name.format(i) for i in range(n))
        y = rng.integers(0, n, 5000)
        scores = Scores.of(1.0, np.where(rng.random(5000) < 0.5, y, 0), y, classes)
        told = f"{scores}\n{mistakes_table(classes, scores.confusion)}".splitlines()
        assert max(map(len, told)) <= 80 and len(told) < 40
    assert any("the most frequent mistakes" in line for line in told)


# --- predict -------------------------------------------------------------------------------------


def test_images_and_arrays_get_classes(run, answer, digits):
    image = pytest.importorskip("PIL.Image", reason='pip install -e ".[images]"')
    np.save("some.npy", digits.test_images[:3])
    np.save("one.npy", digits.test_images[0, ..., 0])
    np.savez("named.npz", x=digits.test_images[:2], y=digits.test_labels[:2])
    pixels = np.rint(digits.test_images[0, ..., 0] * (255 / 16)).astype(np.uint8)
    image.fromarray(pixels).save("gray.png")
    clear = np.dstack([pixels] * 3 + [np.full((8, 8), 255, np.uint8)])
    image.fromarray(clear).save("clear.png")
    files = "gray.png some.npy one.npy named.npz clear.png".split()
    told = json.loads(answer("predict", run, *files, "--json"))
    names = [row["file"] for row in told["examples"]]
    several = [f"some.npy[{i}]" for i in range(3)]
    assert names == ["gray.png", *several, "one.npy", "named.npz[0]", "named.npz[1]", "clear.png"]
    kept = dn.load_run(run).probabilities(digits.test_images[:3])
    for row, expected in zip(told["examples"], kept[[0, 0, 1, 2, 0, 0, 1, 0]], strict=True):
        found = [row["probabilities"][name] for name in "0123456789"]
        assert found == pytest.approx(expected, abs=1e-6)
        assert row["class"] == str(expected.argmax())
    out = answer("predict", run, *files)
    assert out.startswith("images scaled and cut to 8 x 8, gray, from 0 to 16\n\ngray.png ")
    first = list(told["examples"][0]["probabilities"].items())[:3]
    assert ", ".join(f"{name} {p:.3f}" for name, p in first) in out.splitlines()[2]


def test_images_are_laid_on_white_cut_and_scaled(run, digits, rng):
    image = pytest.importorskip("PIL.Image", reason='pip install -e ".[images]"')
    from dualnet.data.image_files import read_fitted

    color, gray = (
        data.Preparation("none", np.zeros(c), np.ones(c), (8, 8, c), 255) for c in (3, 1)
    )
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255  # black above, nothing below
    image.fromarray(clear).save("half.png")
    found = read_fitted(Path("half.png"), color)
    assert (found[:4] == 0).all() and (found[4:] == 255).all()
    assert read_fitted(Path("half.png"), gray).shape == (8, 8, 1)
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 200, 100, 50  # the middle of an image is what is left
    image.fromarray(wide).save("wide.bmp")
    middle = read_fitted(Path("wide.bmp"), color)
    assert (middle[:, 2:6] == (200, 100, 50)).all()
    same = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    image.fromarray(same).save("same.png")
    np.testing.assert_array_equal(read_fitted(Path("same.png"), color), same)


def test_files_that_are_damaged_are_named(run, mistake, digits):
    image = pytest.importorskip("PIL.Image", reason='pip install -e ".[images]"')
    image.fromarray(np.zeros((30, 30), np.uint8)).save("good.png")
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:45])
    Path("text.png").write_text("no image")
    np.save("objects.npy", np.array([{}], object))
    np.save("wide.npy", np.zeros((3, 9, 9), np.uint8))
    Path("cut.npy").write_bytes(Path("wide.npy").read_bytes()[:-9])
    np.savez("other.npz", images=np.zeros(3))
    for file in ("cut.png", "text.png", "objects.npy", "cut.npy"):
        mistake(3, rf"{file}: expected an intact", "predict", run, "good.png", file)
    mistake(2, r"nowhere\.jpg: expected an image file, found none", "predict", run, "nowhere.jpg")
    mistake(2, r"wide\.npy: .*got uint8\(3, 9, 9\)", "predict", run, "wide.npy")
    mistake(2, r"other\.npz: expected an array x, got images", "predict", run, "other.npz")
    mistake(2, "expected FILE, got nothing", "predict", run)


def test_a_missing_pillow_is_named(run, mistake, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    mistake(3, r'd\.png: expected Pillow.*pip install "dualnet\[images\]"', "predict", run, "d.png")


def test_one_of_several_seeds_predicts(ask, mistake):
    assert ask("train", *TRAIN, "all", "--seeds", 4, 5)[0] == 0
    mistake(2, "choose one, such as all/seed-4", "predict", "all", "d.png")


OWN_LAYER = """
from dataclasses import dataclass
from dualnet import nn

@dataclass(frozen=True)
class Doubled(nn.Layer):
    times: float = 2.0

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return self.times * x, state

def cube(x):
    return x * x * x
"""


def test_own_layers_come_from_a_file(answer, mistake, rng):
    Path("mine.py").write_text(OWN_LAYER)
    names = {"__name__": "mine"}
    exec(OWN_LAYER, names)
    layers = names["Doubled"](), Activation(names["cube"]), dn.nn.Linear(2)
    network = dn.nn.Sequential(tuple(zip("abc", layers, strict=True)))
    x = rng.standard_normal((20, 3))
    dn.fit(network, (x, np.arange(20) % 2), rule="bp", epochs=1, quiet=True).save("own")
    np.savez("own.npz", x=x, y=np.arange(20) % 2)
    asked = "evaluate", "own", "--data", "own.npz"
    mistake(2, "the layer 'Doubled', which .*; name its file with --plugin", *asked)
    assert "accuracy" in answer(*asked, "--plugin", "mine.py")
    assert answer("predict", "own", "own.npz", "--plugin", "mine.py").count("\n") == 20


# --- check ---------------------------------------------------------------------------------------

OWN_MODEL = """
from dataclasses import dataclass

import numpy as np

import dualnet as dn
from dualnet import nn
from dualnet.models import MODELS
from dualnet.optim import OPTIMIZERS, Optimizer


@dn.custom_jvp
def squared(x):
    return x**2

squared.defjvps(lambda t, out, x: 2 * t * x)


@dataclass(frozen=True)
class Squares(nn.Layer):
    def init(self, key, in_shape):
        return {"gain": np.ones(in_shape, np.float32)}, {}, in_shape

    def apply(self, params, state, x, context):
        return squared(x) * params["gain"], state


@dataclass(frozen=True)
class Times(nn.Layer):
    times: float

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return self.times * x, state


@dataclass(frozen=True)
class Own:
    hidden: int = 5

    def network(self, in_shape, classes):
        layers = nn.Flatten(), nn.Linear(self.hidden), nn.Activation(nn.relu), Squares()
        layers += Times(0.5), nn.Dropout(0.5), nn.Linear(classes)
        return nn.Sequential(tuple(zip("abcdefg", layers)))


MODELS["own"] = Own


@dataclass(frozen=True)
class Signed(Optimizer):
    decay: float = 0.5

    def update_leaf(self, g, s, p, lr, step):
        return p - lr * (g + self.decay * p), {}


OPTIMIZERS["signed"] = Signed
"""
FORMULA = """
from dualnet.check.optimizers import FORMULAS, LR

FORMULAS[Signed] = lambda p, g, memory, o: (p - LR * (g + o.decay * p), memory)
"""


def verified(answer):
    """The names of the rows that a check has printed, and whether each passed."""
    answer = answer.replace(f"\n{'':16} ", "  ")  # long names have a line of their own
    rows = re.findall(r"^(\S.*?) +(?:(?:[\d.]+e[+-]\d+|-) +){7}([\d.]+|FAILED)$", answer, re.M)
    return {name: last != "FAILED" for name, last in rows}


def test_what_a_file_registers_is_verified(ask):
    Path("mine.py").write_text(OWN_MODEL)
    code, out, err = ask("check", "--plugin", "mine.py")
    assert code == 0, out + err
    layers = [f"layer Squares-{shape}" for shape in ("(4,)", "(3, 4)", "(4, 4, 2)")]
    assert verified(out) == dict.fromkeys(["model own", *layers], True), out
    told = " ".join(out.split())
    assert "not verified: layer Times: for inputs (4, 4, 2), TypeError" in told
    assert "not verified: optimizer signed: its formula is not in dualnet.check.optim" in told
    assert max(map(len, out.splitlines())) <= 80


def test_an_optimizer_is_held_to_its_formula(ask):
    for decay, failed in ((0.5, 0), (0.25, 1)):
        formula = FORMULA.replace("o.decay", f"{decay}")
        Path(f"mine{failed}.py").write_text(OWN_MODEL.replace('"signed"', f'"s{failed}"') + formula)
        plugins._loaded.clear()
        code, out, _ = ask("check", "--plugin", f"mine{failed}.py", "--only", "optimizers")
        assert code == failed and verified(out) == {"Signed": not failed}, out
        MODELS.pop("own")


def test_a_wrong_rule_in_a_file_is_found(ask):
    Path("mine.py").write_text(OWN_MODEL.replace("2 * t * x", "2.001 * t * x"))
    code, out, _ = ask("check", "--plugin", "mine.py", "--json")
    told = json.loads(out)
    assert code == 1 and "model own" in told["failed"] and len(told["failed"]) == 4


def test_a_model_that_cannot_be_made_fails(ask):
    Path("mine.py").write_text(OWN_MODEL.replace("nn.Flatten()", "nn.Flat()"))
    code, out, _ = ask("check", "--plugin", "mine.py")
    assert code == 1 and "FAILED model own: draw: UsageError: it has no network for any" in out


def test_a_file_without_anything_to_verify_is_refused(mistake):
    Path("empty.py").write_text("x = 3\n")
    mistake(2, "empty.py: it registers nothing", "check", "--plugin", "empty.py")
    Path("function.py").write_text("def cube(x):\n    return x * x * x\n")
    mistake(2, "nothing can be verified: there is no model", "check", "--plugin", "function.py")
    mistake(2, "no flag --plugins.*; did you mean --plugin", "check", "--plugins", "function.py")
