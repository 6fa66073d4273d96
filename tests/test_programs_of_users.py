"""The five programs of docs/programs.md, run as a user runs them, and how long they are."""

import contextlib
import io
import json
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest

from dualnet import data
from dualnet.command.main import run_command
from dualnet.learning import RULES
from dualnet.models import MODELS
from dualnet.training import plugins

PAGE = (Path(__file__).parent.parent / "docs" / "programs.md").read_text("utf-8")
ARRAYS, LAYER, RULE, KEPT, DERIVATIVES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
RULES_COMPARED, OWN_USED, KEPT_USED = (
    block.splitlines() for block in re.findall(r"```\n(dualnet .*?)\n```", PAGE, re.S)
)
SHORT = "--epochs 2 --limit-train 200 --quiet".split()


def length(program):
    """How many lines a program has, without those that are blank or a comment."""
    return len([x for x in program.splitlines() if x.strip() and not x.startswith("#")])


@pytest.fixture(autouse=True)
def as_before(elsewhere, monkeypatch):
    """An empty folder, tables without what a program registers, and signals as they were."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(plugins, "_loaded", {})
    before = dict(MODELS), dict(RULES)
    yield
    signal.signal(signal.SIGTERM, handler)
    for table, entries in zip((MODELS, RULES), before, strict=True):
        table.clear()
        table.update(entries)


@pytest.fixture
def told(capsys):
    """`told(line, *more)`: what a command of the page prints."""

    def told(line, *more):
        name, *words = shlex.split(line)
        assert name == "dualnet"
        code = run_command([*words, *more])
        out, err = capsys.readouterr()
        assert (code, err) == (0, ""), err
        return out

    return told


def test_arrays_of_ones_own_are_learned_and_kept(capsys):
    assert length(ARRAYS) <= 8 and length(KEPT) <= 5
    names = {}
    exec(ARRAYS, names)
    printed = capsys.readouterr().out
    reached = dict(re.findall(r"^(fg-w|fdfa) ([\d.]+)$", printed, re.M))
    assert float(reached["fg-w"]) > 0.6 and float(reached["fdfa"]) > 0.9, printed
    exec(KEPT, names)
    kept, x, y = names["kept"], names["x"], names["y"]
    assert (kept.predict(x) == names["run"].predict(x)).all()
    assert names["scores"].accuracy == np.mean(kept.predict(x) == y)
    assert names["scores"].confusion.sum() == 500
    assert f"accuracy {names['scores'].accuracy:.4f}" in capsys.readouterr().out


def test_two_rules_over_three_seeds_are_compared(told):
    pytest.importorskip("matplotlib", reason='pip install -e ".[plot]"')
    assert len(RULES_COMPARED) <= 3
    *trainings, comparison = RULES_COMPARED
    for training in trainings:
        told(training, *SHORT)
    printed = told(comparison)
    assert "±" in printed and "fdfa" in printed and "fg-a" in printed
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_layer_and_a_rule_of_ones_own_are_used(told):
    assert length(LAYER) <= 20 and length(RULE) <= 20
    Path("smooth.py").write_text(LAYER)
    Path("signs.py").write_text(RULE)
    train, check, evaluate = OWN_USED
    assert "test accuracy" in told(train, *SHORT)
    summary = json.loads(Path("runs/own/summary.json").read_text())
    assert (summary["model"], summary["rule"]) == ("smooth", "signs")
    checked = told(check)
    assert "model smooth" in checked and "layer Swish" in checked and " 0 failed" in checked
    assert f"accuracy {summary['test_accuracy']:.4f}" in told(evaluate)
    plugins._loaded.clear()
    for table in (MODELS, RULES):
        table.popitem()
    learned = told(f"{train}-longer", "--epochs", "8", "--quiet", "--json")
    assert json.loads(learned)["test_accuracy"] > 0.2  # of 10 classes


def test_a_kept_network_is_asked_on_the_command_line(told):
    image = pytest.importorskip("PIL.Image", reason='pip install -e ".[images]"')
    told(RULES_COMPARED[1], *SHORT)
    evaluate, predict = KEPT_USED
    assert "rows: classes; columns: what they were taken for" in told(evaluate)
    for name in ("digit.png", "photo.jpg"):
        pixels = data.load("digits").test_images[0, ..., 0] * 15
        image.fromarray(pixels).resize((80, 120)).save(name)
    assert re.search(r"^digit.png +\d \d\.\d+, .*\nphoto.jpg +\d ", told(predict), re.M)


def test_derivatives_are_checked():
    with contextlib.redirect_stdout(io.StringIO()):
        exec(DERIVATIVES, names := {})
    assert np.abs(names["product"]).max() > 0.01
    wrong = DERIVATIVES.replace("(v,))", "(2 * v,))")
    assert wrong != DERIVATIVES
    with pytest.raises(AssertionError):
        exec(wrong, {})
