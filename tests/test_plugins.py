"""Files of a user's own on the command line: the ones of docs/own.md, and mistakes in others."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import put, small_set
from unsealed import unseal

import dualnet as dn
from dualnet import data
from dualnet.command import train
from dualnet.training import plugins

PAGE = Path(__file__).parent.parent / "docs" / "own.md"
WIDE, SIGNS, SHAPES, CHECKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
TINY = "--epochs 1 --limit-train 64 --limit-test 20 --quiet --json".split()
OWN = "--plugin wide.py --plugin signs.py".split()


@pytest.fixture(autouse=True)
def files(elsewhere, monkeypatch):
    """The page's files in an empty folder, and tables that are as before afterwards."""
    tables = {**train.TABLES, "dataset": data.SOURCES}
    before = {kind: dict(table) for kind, table in tables.items()}
    monkeypatch.setattr(plugins, "_loaded", {})
    for name, text in {"wide": WIDE, "signs": SIGNS, "shapes": SHAPES}.items():
        Path(f"{name}.py").write_text(text, "utf-8")
    yield
    for kind, table in tables.items():
        table.clear()
        table.update(before[kind])


def refused(ask, pattern, *argv):
    code, out, err = ask(*argv)
    assert (code, out) == (2, ""), err
    assert re.fullmatch(r"train\.py: [^\n]+\n", err) and re.search(pattern, err), err


def test_the_files_are_short():
    for text in (WIDE, SIGNS):
        code = re.sub(r'"""(.*?)"""', "", text, flags=re.S).splitlines()
        code = [line for line in code if line.strip() and not re.match("import |from ", line)]
        assert len(code) <= 20
        assert "__future__" not in text


def test_a_model_and_a_rule_of_ones_own_train(ask):
    flags = "--model wide --hidden 12 --rule signs --gain 0.5 --lr 0.001".split()
    code, out, err = ask(*TINY, *OWN, *flags, "--run-dir", "run")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["rule"], summary["rule_gain"], summary["model"]) == ("signs", 0.5, "wide")
    assert summary["parameters"] == 64 + 65 * 12 + 13 * 10
    code, out, err = ask("--describe", *OWN, *flags)
    described = json.loads(out)["settings"]
    assert code == 0 and (described["hidden"], described["gain"]) == (12, 0.5), err
    # It goes on with its plugins, and says so without them.
    code, out, err = ask("--resume", "run", *OWN, "--epochs", 2, "--quiet", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 2, err


def test_the_rule_of_ones_own_learns(ask):
    flags = "--rule signs --model wide --lr 0.01 --epochs 8 --quiet --json".split()
    code, out, err = ask(*OWN, *flags)
    assert code == 0, err
    assert json.loads(out)["test_accuracy"] > 0.2  # of 10 classes


def test_a_resumed_run_asks_for_its_plugins(ask):
    """A plugin is code, which must not run because a folder names it."""
    ran = "from pathlib import Path\nPath('ran').touch()\n"
    ask(*TINY, *OWN, "--rule", "signs", "--run-dir", "run")
    for name in ("wide", "signs"):
        Path(f"{name}.py").write_text(ran + Path(f"{name}.py").read_text("utf-8"), "utf-8")
    plugins._loaded.clear()  # as in another process
    del train.TABLES["rule"]["signs"], train.TABLES["model"]["wide"]
    again = (
        f"--resume run --plugin {Path('wide.py').resolve()} --plugin {Path('signs.py').resolve()}"
    )
    refused(ask, rf"--resume run: .*; go on with {re.escape(again)}\n", "--resume", "run")
    assert not Path("ran").exists()
    code, _, err = ask(*again.split(), "--epochs", 2, "--quiet")
    assert code == 0 and Path("ran").exists(), err
    Path("wide.py").unlink()
    refused(ask, r"--plugin .*, and name where .*wide\.py is now\n", "--resume", "run")


@pytest.mark.parametrize("seeds", [(), ("--seeds", 1, 2)])
def test_a_resumed_run_remembers_its_plugins_by_their_full_names(seeds, ask):
    assert ask(*TINY, *OWN, *seeds, "--rule", "signs", "--run-dir", "run")[0] == 0
    plugins = [str(Path(f).resolve()) for f in OWN[1::2]]
    expected = {"data_dir": None, "plugin": plugins, "checkpoint_every": "5m"}
    names = ["seeds.json", "seed-1/config.json", "seed-2/config.json"] if seeds else ["config.json"]
    for name in names:
        assert json.loads(Path("run", name).read_text("utf-8"))["where"] == expected


def test_a_run_of_before_names_what_is_missing(ask):
    ask(*TINY, *OWN, "--rule", "signs", "--run-dir", "run")
    config = Path("run/config.json")
    told = unseal(config)
    del told["where"], train.TABLES["rule"]["signs"]
    config.write_text(json.dumps(told), "utf-8")
    code, _, err = ask("--resume", "run", "--quiet")
    assert code == 3 and "got 'signs'; if it is your own, name its file with --plugin" in err


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"plugin": "wide.py"}, "where: plugin: expected a list of strings, got 'wide.py'"),
        ({"data_dir": 3}, "where: data_dir: expected a string or None, got 3"),
        (3, "where: expected a dict, got 3"),
    ],
)
def test_a_run_that_says_something_else(where, message, ask):
    ask(*TINY, "--run-dir", "run")
    config = Path("run/config.json")
    config.write_text(json.dumps(unseal(config) | {"where": where}), "utf-8")
    refused(ask, re.escape(message), "--resume", "run")


@pytest.mark.parametrize("seeds", [(), ("--seeds", 1, 2)])
def test_a_resumed_run_finds_its_data_again(seeds, ask, monkeypatch):
    put(Path("data/mnist"), small_set(n_train=70, n_test=20))
    flags = ["--dataset", "mnist", *TINY[:1], 1, "--width", 4, "--quiet", "--json"]
    code, _, err = ask(*flags, *seeds, "--data-dir", "data", "--run-dir", "run")
    assert code == 0, err
    run = Path("run").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    more = ["--resume", run, "--quiet", "--json", "--epochs"]
    code, out, err = ask(*more, 2)
    assert code == 0 and json.loads(out)["epochs"] == 2, err
    Path("../data").rename("moved")
    refused(
        ask, rf"its data were in {run.parent}/data, which is not there; .* --data-dir", *more, 3
    )
    assert ask(*more, 3, "--data-dir", "moved")[0] == 0
    assert ask(*more, 4)[0] == 0  # it remembers where they are now


def test_a_run_of_fit_is_resumed_with_its_data(ask, monkeypatch):
    put(Path("data/mnist"), small_set(n_train=70, n_test=20))
    dn.fit("mlp", "mnist", epochs=1, width=4, data_dir="data", run_dir="run", quiet=True)
    run = Path("run").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    code, out, err = ask("--resume", run, "--quiet", "--json", "--epochs", 2)
    assert code == 0 and json.loads(out)["epochs"] == 2, err


def test_they_are_in_help_and_list(ask, capsys):
    with pytest.raises(SystemExit):
        train.main(["--help", *OWN])
    told = " ".join(capsys.readouterr().out.split())
    assert "--hidden N units of the hidden layer (wide; default 64)" in told
    assert "--gain X factor of the gradient (signs; default 1)" in told
    code, out, _ = ask("--list", *OWN, "--plugin", "shapes.py")
    assert code == 0
    assert re.search("^  wide +A hidden layer behind a gain for each pixel", out, re.M)
    assert re.search("^  signs +A forward gradient along one direction of random signs", out, re.M)
    assert re.search("^  squares +noise, with a square or without", out, re.M)


def test_its_options_are_checked_as_others_are(ask):
    refused(
        ask,
        "--gain is of no use to --rule bp; it is for signs",
        *OWN,
        *"--rule bp --gain 1".split(),
    )
    refused(ask, "--gain: expected a number, got .x.", *OWN, *"--rule signs --gain x".split())
    refused(ask, "no flag --gian, .*; did you mean --gain", *OWN, *"--rule signs --gian 1".split())
    refused(ask, "got 'Sign'; did you mean signs", *OWN, "--rule", "Sign")


def test_a_data_set_of_ones_own_trains(ask):
    flags = "--plugin shapes.py --dataset squares --epochs 3 --rule bp --quiet --json".split()
    code, out, err = ask(*flags)
    assert code == 0, err
    assert json.loads(out)["test_accuracy"] > 0.9
    code, out, _ = ask("--describe", *flags)
    described = json.loads(out)
    assert (described["input_shape"], described["classes"]) == ([8, 8, 1], 2)
    refused(ask, "--data-dir is of no use to --dataset squares", *flags, "--data-dir", ".")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("astype(np.uint8)", "astype(np.float32)"),
        ("(300, 8, 8, 1)", "(300, 7, 8, 1)"),
        ("integers(0, 2, 300)", "integers(0, 3, 300)"),
        ("labels[:200])", "labels[:199])"),
        ("(images[:200], labels[:200])", "(images[:0], labels[:0])"),
        ("(images[200:], labels[200:])", "(images[:0], labels[:0])"),
    ],
)
def test_a_data_set_of_ones_own_is_checked(old, new, ask):
    refused_shapes(old, new, "expected images uint8 ('N', 8, 8, 1) and labels int", ask)


def refused_shapes(old, new, said, ask):
    """Train on squares made otherwise, and look for what is said of them."""
    assert old in SHAPES
    Path("shapes.py").write_text(SHAPES.replace(old, new), "utf-8")
    code, _, err = ask("--plugin", "shapes.py", "--dataset", "squares", "--quiet")
    assert code == 3 and err.startswith("train.py: squares: ") and said in err, err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("white=255", "white=300", "white: expected a whole number from 1 to 255, got 300"),
        ("white=255", "white=0", "white: expected a whole number from 1 to 255, got 0"),
        ("white=255", "white=16", "train_images: expected pixels from 0 to 16, which is white, "),
        ('"square"', '"none"', "classes: expected a name of its own for each, got 'none' twice"),
        ('"square"', "2", "classes: expected a tuple of names, got ('none', 2)"),
        (
            "return (",
            "return None and (",
            "expected make to return ((images, labels), (test images",
        ),
        ("return (", "return 1, 2, 3, (", "(test images, test labels)), got (int, int, int, ("),
    ],
)
def test_a_data_set_that_could_not_be_loaded_again_is_refused(old, new, said, ask):
    refused_shapes(old, new, said, ask)


def test_the_checks_of_the_page_pass():
    names = {}
    for text in (WIDE, CHECKS):
        exec(compile(text, "own.md", "exec"), names)
    assert np.isfinite(names["loss"](names["params"]))


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ('RULES["signs"] = Signs', "", r"it registers nothing; end it with .* RULES\[\"name\"\]"),
        ('RULES["signs"] = Signs', 'RULES["bp"] = Signs', "it replaces the rule 'bp'"),
        ('RULES["signs"] = Signs', 'RULES["a b"] = Signs', "a name without spaces, got 'a b'"),
        (
            'RULES["signs"] = Signs',
            'RULES["s"] = 3',
            "rule 's': expected a class that der.*, got 3",
        ),
        ("class Signs(Rule)", "class Signs", "expected a class that derives from Rule, got"),
        ("def measure", "def measured", "rule 'signs': Signs lacks measure"),
        ("@dataclass(frozen=True)\n", "", "Signs: expected a dataclass; write @dataclass"),
        ("gain: float = 1.0", "gain: float", r"Signs\.gain: expected an option with a default"),
        ("gain: float = 1.0", "gain: list = ()", r"Signs\.gain: expected an option of type int"),
        ("gain: float = 1.0", "width: float = 1.0", "--width is among model options and among"),
        ("import dualnet as dn", "import dualned as dn", "line 3: ModuleNotFoundError: No module"),
        ("Rule)", "Rule))", r"signs\.py: .*SyntaxError: unmatched"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(old, new, pattern, ask):
    assert old in SIGNS
    Path("signs.py").write_text(SIGNS.replace(old, new), "utf-8")
    refused(ask, pattern, "--plugin", "signs.py", "--list")


def test_a_file_that_is_not_there_is_named(ask):
    Path("folder.py").mkdir()
    for path in ("nowhere.py", "folder.py", "wide"):
        refused(ask, f"--plugin {path}: expected a Python file, FILE.py", "--plugin", path)


def test_a_file_runs_once_in_a_process(ask):
    with Path("wide.py").open("a", encoding="utf-8") as file:
        file.write("with open('count', 'a') as f:\n    f.write('x')\n")
    for _ in range(2):
        assert ask("--describe", *OWN)[0] == 0
    assert Path("count").read_text() == "x"
