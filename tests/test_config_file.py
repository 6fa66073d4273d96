"""`--config FILE.toml`: settings in a file, which flags overrule and mistakes do not pass."""

import json
import re
from pathlib import Path

import pytest

from dualnet.command import train
from dualnet.errors import UsageError
from dualnet.training.resolve import resolve

SETTINGS = """
rule = "fg-w"
tangents = 4
batch-size = 16
lr = 1
schedule = "step"
times = [0.25, 0.5]
batch_norm = true
"""


@pytest.fixture(autouse=True)
def file(elsewhere):
    """`file(text)` writes FILE.toml into an empty folder."""
    return lambda text, name="FILE.toml": Path(name).write_text(text, "utf-8")


def settings(*flags):
    return train.settings_of(train.parse(["--config", "FILE.toml", *map(str, flags)]))


def test_a_file_says_what_flags_would(file):
    file(SETTINGS)
    flags = "--rule fg-w --tangents 4 --batch-size 16 --lr 1 --schedule step --times 0.25 0.5"
    assert settings() == train.settings_of(train.parse([*flags.split(), "--batch-norm"]))


def test_flags_win(file):
    file(SETTINGS)
    both = settings("--tangents", 2, "--no-batch-norm", "--lr", 0.5)
    assert (both.rule_options["tangents"], both.lr, both.batch_size) == (2, 0.5, 16)
    assert both.model_options["batch_norm"] is False
    # Another rule does away with the options of the one in the file, and leaves the rest.
    other = settings("--rule", "bp")
    assert (other.rule, other.batch_size) == ("bp", 16) and "tangents" not in other.rule_options
    with pytest.raises(UsageError, match="--tangents is of no use to --rule bp"):
        settings("--rule", "bp", "--tangents", 2)


def test_a_file_wins_over_its_recipe(file):
    file('recipe = "fdfa-mlp4-mnist-fdfa"\nlr = 0.25\n')
    found, recipe = settings(), resolve({"recipe": "fdfa-mlp4-mnist-fdfa"}, train.TABLES)
    assert (found.lr, found.epochs, found.dataset) == (0.25, recipe.epochs, "mnist")


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("seeds = [1, 2]", [], (None, [1, 2])),
        ("seeds = [1, 2]", ["--seed", "3"], (3, None)),
        ("seed = 3", ["--seeds", "4"], (None, [4])),
    ],
)
def test_seed_and_seeds_replace_each_other(text, flags, expected, file):
    file(text)
    args = train.parse(["--config", "FILE.toml", *flags])
    assert (args.seed, args.seeds) == expected


def test_rounded_products_replace_each_other(file):
    file('backend = "cupy"\ntf32 = true')
    assert settings().matmul_precision == "tf32"
    assert settings("--bf16").matmul_precision == "bf16"
    file('backend = "cupy"\ngraph = false')
    assert settings().graph is False and settings("--threads", 1).graph is False


def test_what_describe_prints_is_a_file(file, ask):
    """Every setting of the one is a setting of the other, but for those that are none."""
    flags = "--rule lg-fg-a --tangents 3 --schedule step --seeds 1 2 --run-dir here"
    code, out, err = ask("--describe", *flags.split())
    assert code == 0, err
    described = {n: v for n, v in json.loads(out)["settings"].items() if v is not None}
    file("".join(f"{name} = {json.dumps(value)}\n" for name, value in described.items()))
    code, again, err = ask("--describe", "--config", "FILE.toml")
    assert code == 0 and json.loads(again)["settings"] == json.loads(out)["settings"], err
    assert described["seeds"] == [1, 2] and "seed" not in described


def test_a_run_by_a_file(file, ask):
    file(
        "epochs = 1\nlimit_train = 64\nlimit_test = 20\nwidth = 8\nquiet = true\nseeds = [1, 2]\n"
        'run-dir = "both"\njson = true\n'
    )
    code, out, err = ask("--config", "FILE.toml")
    assert (code, err) == (0, "")
    assert json.loads(out)["seed"] == [1, 2] and Path("both/seed-2/summary.json").exists()


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("epoch = 3", r"FILE\.toml: there is no setting 'epoch'; did you mean epochs"),
        ("Batch_Size = 3", r"FILE\.toml: there is no setting 'Batch_Size'; did you mean batch_s"),
        ("resume = 'run'", "there is no setting 'resume'"),
        ("[rule]\nname = 'bp'", r"FILE\.toml: rule: expected a string, got {'name': 'bp'}"),
        ("epochs = 'ten'", r"FILE\.toml: epochs: expected an int, got 'ten'"),
        ("epochs = 1.5", r"FILE\.toml: epochs: expected an int, got 1\.5"),
        ("epochs = true", r"FILE\.toml: epochs: expected an int, got True"),
        ("batch-norm = 1", r"FILE\.toml: batch_norm: expected True or False, got 1"),
        ("seeds = 3", r"FILE\.toml: seeds: expected a list of ints, got 3"),
        ("seeds = [1, 'x']", r"FILE\.toml: seeds: expected a list of ints, got \[1, 'x'"),
        ("plugin = 'a.py'", r"FILE\.toml: plugin: expected a list of strings, got 'a\.py'"),
        ("times = [0.1, 'x']", r"FILE\.toml: times: expected a list of numbers, got \[0.1, 'x'"),
        ("lr = 2020-01-01", r"FILE\.toml: lr: expected a number, got datetime"),
        ("lr = 1\nlr = 2", r"--config FILE\.toml: expected a TOML file, got Cannot overwrite"),
        ("lr", r"--config FILE\.toml: expected a TOML file, got "),
        ("batch-size = 1\nbatch_size = 2", r"FILE\.toml: batch_size is there twice"),
        ("epochs = 0", "--epochs: expected an int of at least 1, got 0"),
        ("rule = 'fgw'", "--rule: expected one of .*, got 'fgw'; did you mean fg-w"),
        ("rule = 'bp'\ntangents = 2", "--tangents is of no use to --rule bp"),
        ("seed = 1\nseeds = [2]", "give --seed or --seeds, not both"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, pattern, file, ask):
    file(text)
    code, out, err = ask("--config", "FILE.toml", "--quiet")
    assert (code, out) == (2, ""), err
    assert re.fullmatch(r"train\.py: [^\n]+\n", err) and re.search(pattern, err), err


def test_a_file_that_cannot_be_read(ask):
    Path("bytes.toml").write_bytes(b"\xff\xfe")
    Path("folder.toml").mkdir()
    for name, pattern in {
        "nowhere.toml": "No such file",
        "folder.toml": "it is no regular file|denied",
        "bytes.toml": "expected a TOML file, got 'utf-8' codec",
    }.items():
        code, _, err = ask("--config", name)
        assert code == 2 and re.search(rf"train\.py: --config {name}: ({pattern})", err), err
