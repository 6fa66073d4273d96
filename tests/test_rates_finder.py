"""The finder of learning rates: its figures are those of the run, its choice is explained."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peers import peer
from test_training import SETTINGS, STEPS_PER_EPOCH

from dualnet import data
from dualnet.errors import DivergedError, UsageError
from dualnet.models import MLP
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.pictures.rates import draw_rates
from dualnet.training.rates_finder import FoundRates, ShortRun, _choice, find_rates
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("elsewhere")

NETWORK = MLP(**SETTINGS.model_options).network((8, 8, 1), 10)
BP = replace(SETTINGS, rule="bp", schedule="cosine")
FLAGS = "--rule bp --limit-train 100 --limit-test 40 --batch-size 22 --epochs 4 --width 8 --quiet"
FLAGS = FLAGS.split()


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=100, limit_test=40)


@pytest.mark.parametrize("steps", [1, 3, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2])
def test_figures_are_those_of_the_first_steps_of_the_run(steps, digits):
    found = find_rates(BP, NETWORK, digits, [1e-2, 1e-3], rate_steps=steps, quiet=True)
    assert [one.lr for one in found.runs] == [1e-3, 1e-2] and found.steps == steps
    for one in found.runs:
        trainer = make_trainer(replace(BP, lr=one.lr), NETWORK, digits)
        states = course(trainer, trainer.start(), [], True)
        now = next(s for s in states if s.position.dot((STEPS_PER_EPOCH, 1)) == steps)
        states.close()
        assert (one.test_loss, one.test_accuracy) == trainer.evaluate(now)
        assert one.train_loss == now.sums[0] / now.sums[2] and one.diverged is None
    trainer = make_trainer(BP, NETWORK, digits)
    assert found.start_loss == trainer.evaluate(trainer.start())[0]


def test_one_epoch_is_what_a_run_says_of_it(digits):
    found = find_rates(BP, NETWORK, digits, [1e-3, 1e-2], quiet=True)
    run(replace(BP, lr=1e-2), NETWORK, digits, RunFolder("run"), quiet=True)
    first = Path("run/metrics.csv").read_text().splitlines()[1].split(",")
    _, best = found.runs
    for got, written in zip((best.train_loss, best.test_loss), (first[1], first[3]), strict=True):
        assert f"{got:.6g}" == written


def rates(*losses, diverged=()):
    return [
        ShortRun(10.0**i, diverged="diverged at step 2: the loss is nan")
        if i in diverged
        else ShortRun(10.0**i, loss, loss, 0.5)
        for i, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("runs", "tested_on", "lr", "why"),
    [
        (rates(3, 1, 2), "validation", 10.0, "take lr=10.0: .* on validation images after 7 ste"),
        (rates(3, 1, 2), "test", 10.0, "take lr=10.0: .*; test images have chosen it, so take v"),
        (rates(1, 2, 3), "validation", 1.0, "after 7 steps; it is the lowest of these .* lower o"),
        (rates(3, 2, 1), "validation", 100.0, "; it is the highest of these rates, so try higher"),
        (rates(3, 1, 0, diverged=[2]), "validation", 10.0, "; the next higher rate diverged, so"),
        (rates(6, 6, 7), "validation", None, "take none of these: .* was 5.0000 at the start and"),
        (rates(0, 0, diverged=[0, 1]), "validation", None, "all diverged; try lower rates"),
    ],
)
def test_the_choice_is_explained(runs, tested_on, lr, why):
    got, said = _choice(runs, 7, tested_on, 5.0)
    assert got == lr and re.search(why, said), said
    assert ("highest" in said) == (lr == 100.0)


def test_rates_that_diverge_are_told_apart(digits):
    sgd = replace(BP, optimizer="sgd")
    found = find_rates(sgd, NETWORK, digits, [1e-2, 1e38], rate_steps=4, quiet=True)
    good, lost = found.runs
    assert good.diverged is None and lost.diverged.startswith("diverged at step")
    assert ";" not in lost.diverged and lost.test_loss is None
    assert found.lr == 1e-2 and "the next higher rate diverged" in found.why
    headings, first, second = found.table().splitlines()
    assert headings.split() == ["rate", "train", "loss", "test", "loss", "accuracy"]
    assert first.split()[0] == "0.01" and first.endswith("<- lowest loss")
    assert re.fullmatch(r"1e\+38 +- +- +-  diverged at step \d: the loss is \w+", second)


@pytest.mark.parametrize(
    ("grid", "steps", "said"),
    [
        ([1e-3], None, "find_rates: rates: expected two or more positive numbers, got 0.001"),
        ([1e-3, 1e-3], None, "find_rates: rates: expected two or more"),
        (
            [1e-3, -1.0],
            None,
            "find_rates: rates: expected two or more positive numbers, got 0.001 -1",
        ),
        ([1e-3, np.inf], None, "find_rates: rates: expected two or more positive"),
        (
            [1e-3, 1e-2],
            0,
            "rate_steps: expected a number from 1 to 20, .*epochs=4, got 0",
        ),
        (
            [1e-3, 1e-2],
            21,
            "rate_steps: expected a number from 1 to 20, .*epochs=4, got 21",
        ),
    ],
)
def test_a_search_that_makes_no_sense(grid, steps, said, digits):
    with pytest.raises(UsageError, match=said):
        find_rates(BP, NETWORK, digits, grid, rate_steps=steps, quiet=True)


# --- the command and the picture -----------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_both(ask):
    code, out, err = ask(*FLAGS, "--rates", "1e-4", "1e-2", "1e-3", "--run-dir", "found")
    assert (code, err) == (0, "")
    _, *rows, where = out.splitlines()
    assert [row.split()[0] for row in rows[:3]] == ["0.0001", "0.001", "0.01"]
    assert max(map(len, rows)) <= 80
    why = " ".join(rows[3:])
    assert why.startswith("take --lr 0.01: ") and where == "folder        found"
    written = json.loads(Path("found/rates.json").read_text())
    assert written["lr"] == 0.01 and written["settings"]["rule"] == "bp"
    for flags in (["--rates", "1e-4", "1e-2"], []):  # neither a search nor a run replaces it
        code, _, err = ask(*FLAGS, *flags, "--run-dir", "found")
        assert code == 2 and "--run-dir found holds a search for a learning rate already" in err
    assert json.loads(Path("found/rates.json").read_text()) == written
    code, out, _ = ask(*FLAGS, "--rates", "1e-4", "1e-2", "--rate-steps", 2, "--json")
    assert code == 0 and json.loads(out)["steps"] == 2


def test_the_picture_is_there_or_is_asked_for(ask, monkeypatch):
    flags = [*FLAGS, "--rates", "1e-4", "1e-2", "--rate-steps", 1, "--run-dir"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        code, out, _ = ask(*flags, "without")
    assert code == 0 and not Path("without/rates.png").exists()
    assert out.endswith('no picture    matplotlib is not installed: pip install "dualnet[plot]"\n')
    peer("matplotlib", "plot")
    found = FoundRates((*rates(3, 2, 1, diverged=[2]),), 5, "test", 4.0, 10.0, "why")
    assert draw_rates(found, "title", Path("rates.png"))
    assert Path("rates.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--rate-steps 3", "--rate-steps is of no use without --rates"),
        ("--rates 1e-3 1e-2 --lr 1e-3", "--rates takes neither --lr nor --seeds"),
        ("--rates 1e-3 1e-2 --seeds 1 2", "--rates takes neither --lr nor --seeds"),
        ("--rates 1e-3", "--rates: expected two or more positive numbers"),
    ],
)
def test_flags_that_do_not_go_with_it(flags, said, ask):
    code, _, err = ask(*FLAGS, *flags.split())
    assert code == 2 and said in err
    assert not Path("runs").exists()


def test_all_rates_diverge(ask):
    code, out, err = ask(*FLAGS, "--optimizer", "sgd", "--rates", "1e37", "1e38")
    assert code == DivergedError.exit_code
    assert "all diverged; try lower rates" in err and "diverged at step" in out


def test_a_log_file_has_no_bar(elsewhere, ask):
    flags = [flag for flag in FLAGS if flag != "--quiet"]
    code, out, err = ask(*flags, "--rates", "1e-3", "1e-2", "--rate-steps", "2", "--run-dir", "run")
    assert (code, err) == (0, "") and "take --lr" in out
