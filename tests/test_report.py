"""What a run shows: its header, a line for each epoch, a bar that fits; nothing else in a log."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
from dualnet import nn
from dualnet.training.report import Report, duration

ROOT = Path(__file__).parent.parent
SHORT = "--epochs 3 --limit-train 96 --limit-test 40 --width 8 --run-dir run".split()
LINE = r" +(\d+)/3( +\d\.\d{4}){4} +\d\.\d s( +\d\.\d s)?"


def shown(out):
    """The header, the line above the epochs, and the lines of epochs."""
    header, _, rest = out.partition("\n\n")
    columns, *lines = rest.splitlines()
    return header, columns, lines


def test_a_header_then_a_line_for_each_epoch(elsewhere, ask):
    code, out, err = ask(*SHORT, "--rule", "fg-w", "--tangents", "4", "--clip-norm", "2")
    header, columns, lines = shown(out)
    assert (code, err) == (0, "")  # no bar where the output is no terminal
    assert "data       digits, 96 training and 40 test examples\n" in header
    assert "shapes     inputs 8×8×1, 10 classes\n" in header
    assert "network    mlp, 682 parameters\n" in header
    assert re.search(r"hidden1  Linear\(8\) +520  w 64×8, b 8\n", header)
    assert "rule       fg-w: tangents 4, sampler normal" in header
    assert "rate       0.0005, cosine: final 0, clip_norm 2\n" in header
    assert "epochs     3 epochs of 3 steps of 32 examples, seed 0\n" in header
    assert header.endswith("folder     run")
    assert columns.split() == "epoch train loss accuracy test loss accuracy time left".split()
    found = [re.fullmatch(LINE, line) for line in lines[:3]]
    assert [line and line[1] for line in found] == ["1", "2", "3"]
    assert [bool(line[3]) for line in found] == [True, True, False]  # at the end nothing is left
    assert lines[3].startswith("test accuracy") and len(lines) == 5
    assert max(map(len, out.splitlines())) <= 80
    metrics = np.genfromtxt("run/metrics.csv", delimiter=",", names=True)
    told = np.array([line.split()[1:5] for line in lines[:3]], float)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    np.testing.assert_allclose(told.T, [metrics[name] for name in names], atol=6e-5)


def test_lines_of_several_seeds_are_their_means(elsewhere, ask):
    code, out, err = ask(*SHORT, "--seeds", "3", "4")
    header, _, lines = shown(out)
    assert (code, err) == (0, "") and "32 examples, seeds 3 4\n" in header
    each = [np.genfromtxt(f"run/seed-{n}/metrics.csv", delimiter=",", names=True) for n in (3, 4)]
    mean = np.mean([one["test_loss"] for one in each], axis=0)
    told = [float(line.split()[3]) for line in lines[:3]]
    np.testing.assert_allclose(told, mean, atol=6e-5)


def test_a_run_that_goes_on_says_from_where(elsewhere, ask):
    assert ask(*SHORT)[0] == 0
    code, out, _ = ask("--resume", "run", "--epochs", "5")
    header, _, lines = shown(out)
    assert code == 0 and "goes on    after epoch 3\n" in header
    assert [line.split()[0] for line in lines[:2]] == ["4/5", "5/5"]


def test_validation_images_are_called_so(elsewhere, ask):
    flags = [flag for flag in SHORT if flag not in ("--limit-test", "40")]
    _, out, _ = ask(*flags, "--validation", "20")
    header, columns, _ = shown(out)
    assert "76 training and 20 validation examples" in header and "valid. loss" in columns


def test_json_has_standard_output_for_itself(elsewhere, ask):
    code, out, err = ask(*SHORT, "--json")
    assert code == 0 and out.startswith("{") and out.count("\n") == 1
    assert re.fullmatch(LINE, err.splitlines()[-1])


def test_fit_shows_the_same_and_nothing_if_quiet(capsys):
    x, y = np.eye(6, 3), np.arange(6.0)
    dn.fit("mlp", (x, y), rule="bp", epochs=3, width=4)
    out = capsys.readouterr().out
    header, columns, lines = shown(out)
    assert "data       arrays, 6 training examples, which are tested on\n" in header
    assert "shapes     inputs 3, 1 real target\n" in header and len(lines) == 3
    assert columns.split() == "epoch train loss after loss time left".split()
    dn.fit("mlp", (x, y), rule="bp", epochs=1, width=4, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_many_layers_are_left_out_in_the_middle(capsys):
    x, y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
    layers = [(f"hidden{i}", nn.Linear(2)) for i in range(40)]
    dn.fit(nn.Sequential((*layers, ("output", nn.Linear(2)))), (x, y), epochs=1)
    header = shown(capsys.readouterr().out)[0]
    assert "… 17 more …" in header and "hidden11" in header and "hidden12" not in header
    assert header.count("Linear(2)") == 24


def test_large_losses_keep_their_columns(capsys):
    x, y = np.eye(6, 3), 1e9 * np.arange(6.0)
    dn.fit("mlp", (x, y), rule="bp", epochs=2, width=4)
    lines = shown(capsys.readouterr().out)[2]
    assert re.fullmatch(r" +1/2( +\d\.\d{3}e\+\d\d){2} +.*", lines[0])


def test_one_bar_shows_the_progress_of_all_seeds(elsewhere):
    longer = "--epochs 1 --batch-size 8 --width 8 --run-dir run --seeds 3 4".split()
    text, status = in_a_terminal(80, *longer)
    assert status == 0, text
    bars = {re.sub(r" +\d+%.*", "", part) for part in text.split("\r") if "%|" in part}
    assert bars == {"epoch 1/1, seeds 3 4"}
    assert re.search(r"loss=\d\.\d{4}, accuracy=0\.\d{3}", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (5900, "98 min"),
        (6000, "1 h 40"),
        (360000, "100 h 00"),
    ],
)
def test_times_are_short(seconds, text):
    assert duration(seconds) == text


def in_a_terminal(columns, *argv):
    """What a program writes to a terminal of so many columns, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover: it becomes another program
        os.environ.pop("COLUMNS", None)
        os.execv(sys.executable, [sys.executable, str(ROOT / "train.py"), *argv])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    found = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so where the other side is closed
            break
        if not part:
            break
        found += part
    _, status = os.waitpid(child, 0)
    return found.decode(), status


def test_the_bar_fits_names_the_seed_and_leaves_nothing(elsewhere):
    text, status = in_a_terminal(80, *SHORT, "--seed", "7")
    assert status == 0, text
    on_screen = [line for part in text.split("\r\n") for line in part.split("\r")]
    assert max(map(len, on_screen)) <= 80
    assert re.search(r"\repoch 1/3, seed 7 +\d+%\|", text)
    left = [part.split("\r")[-1] for part in text.split("\r\n")]
    assert not any("%|" in line for line in left)  # bars are wiped when their epoch is over
    assert sum(bool(re.fullmatch(LINE, line)) for line in left) == 3


def test_a_report_without_runs_says_nothing(capsys):
    """All runs of an epoch may have diverged."""
    digits = dn.data.load("digits", limit_train=8, limit_test=8)
    settings = dn.fit("mlp", digits, epochs=1, width=4, quiet=True).settings
    trainer = dn.training.assemble.make_trainer(
        settings, dn.training.assemble.network_of(settings, (8, 8, 1), 10), digits
    )
    Report(trainer, replace(settings, seed=1)).epoch([])
    assert capsys.readouterr().out == ""
