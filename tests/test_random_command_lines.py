"""Random command lines end in a word and a documented code; absurd sizes are refused before work.

`tests/random_command_lines.py` makes the lines and says what must hold of each.
"""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import random_command_lines as lines

import dualnet as dn
from dualnet.errors import BackendError
from dualnet.learning import RULES
from dualnet.training import memory
from dualnet.training.settings import options_of

ROOT = Path(__file__).parent.parent
unix = pytest.mark.skipif(os.name == "nt", reason="lines are run by fork, which Windows lacks")


def failures(seed, first, last):
    """What `python tests/random_command_lines.py` prints of lines that failed, and its summary."""
    done = subprocess.run(
        [sys.executable, lines.__file__, *map(str, (seed, first, last))],
        env=lines.environment(ROOT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *failed, summary = map(json.loads, done.stdout.splitlines())
    return failed, summary


@unix
def test_random_command_lines_are_answered_in_a_line_that_names_the_flag():
    """Always the same lines: of any lines, a few in ten thousand find something new."""
    failed, summary = failures(0, 0, 150)
    print(summary)
    assert not failed and summary["lines"] == 150


@unix
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_more_random_command_lines(part, root_key):
    failed, summary = failures(root_key.bits, 500 * part, 500 * part + 500)
    print(summary)
    assert not failed and summary["lines"] == 500


# --- absurd sizes --------------------------------------------------------------------------------


TINY = {"limit_train": 32, "limit_test": 5, "batch_size": 32, "epochs": 1, "quiet": True}
ABSURD = [
    ("--tangents 1000000", 5, "--tangents 1000000: a step takes 32.8 GB at least, .* 10 GB; take"),
    ("--rule fg-w --tangents 1000000 --tangent-chunk 1000000", 5, "--tangent-chunk 1000000: a "),
    ("--width 10000000", 5, "--model mlp --width 10000000 .*take 800 TB at least, this machine "),
    ("--width 10000000000000", 5, "out of memory .*no array of shape"),
    ("--width 10000000000000000000", 2, "--width: expected an int of no more than 64 bits, got 1"),
    ("--model vit --width 100000 --depth 2", 5, "--model vit .* parameters and their gradient"),
    ("--depth 10001", 2, "--depth: mlp: depth: expected at most 10000, got 10001"),
    ("--model cnn --plan 9999999999C3", 5, "C3 --weights kaiming: 3,699,999,999,640 p"),
    ("--shards 100000000", 2, "--shards: expected at most 32, --batch-size 32, got 100000000"),
    ("--threads 100000000", 2, "--threads: expected at most 1024, got 100000000"),
    ("--image-size 1000000", 2, "--image-size: expected a whole number from 1 to 1024, got 1000"),
    ("--objective contrastive --projection 1000000000", 5, "129,000,024,832 parameters and their"),
    ("--describe --width 100000", 5, "10,007,600,010 parameters and their gradient take 80.1 GB"),
    ("--rates 1 2 --rate-steps 1000000000", 2, "--rate-steps: expected a number from 1 to 2940"),
]


@pytest.mark.parametrize(("flags", "code", "message"), ABSURD)
def test_absurd_sizes_are_refused_before_any_work(
    flags, code, message, elsewhere, ask, monkeypatch
):
    monkeypatch.setattr(memory, "machine_memory", lambda backend: 10**10)
    tracemalloc.start()
    try:
        got, out, err = ask(*flags.split())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (got, out) == (code, ""), err
    assert re.search(message, err) and err.count("\n") == 1, err
    assert peak < 100e6
    assert not list(Path().glob("runs/*/*.npz"))


WITH_TANGENTS = [name for name, cls in RULES.items() if "tangents" in options_of(cls)]
MIXER = {"model": "local-mixer", "patches": 2, "width": 32, "groups": 4}


@pytest.mark.parametrize("rule", WITH_TANGENTS)
@pytest.mark.parametrize("model", [{"width": 64}, MIXER, {"model": "cnn"}])
def test_nothing_is_refused_that_fits(rule, model, monkeypatch):
    """What a run takes at its peak is more than the estimate; a machine that has it may run it."""
    how = {"rule": rule, "tangents": 64, **model, **TINY}
    if "tangent_chunk" in options_of(RULES[rule]):
        how["tangent_chunk"] = 64
    dn.fit(**how)  # what is kept for all runs is not counted
    tracemalloc.start()
    try:
        dn.fit(**how)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(memory, "machine_memory", lambda backend: peak)
    dn.fit(**how)
    monkeypatch.setattr(memory, "machine_memory", lambda backend: peak // 100)
    with pytest.raises(BackendError, match="at least, this machine has"):
        dn.fit(**how)
