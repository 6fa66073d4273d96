"""Runs of `train.py`, and tables of runs that go on where they stopped."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dualnet.errors import UsageError

TRAIN = Path(__file__).parent.parent / "train.py"


def run(command: str, data_dir: str | None) -> dict:
    """Do one run and return its summary.

    If the run fails, it has said why, and this process ends with its exit code.

    Args:
        command: the flags of `train.py`.
        data_dir: for `--data-dir`; None for no such flag.
    """
    where = ["--data-dir", data_dir] if data_dir else []
    done = subprocess.run(
        [sys.executable, str(TRAIN), *shlex.split(command), *where, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def column(summary: dict, name: str) -> list[float]:
    """Return a column of a run's `metrics.csv`: a number for each epoch."""
    head, *lines = (Path(summary["run_dir"]) / "metrics.csv").read_text().splitlines()
    place = head.split(",").index(name)
    return [float(line.split(",")[place]) for line in lines]


def require_writable(folder: Path) -> None:
    """Raise a UsageError unless files can be written to a folder; make it if it is not there.

    It is asked before anything is measured, which would be lost.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{folder}: no results can be written there ({error.strerror}); choose another --out"
        ) from error


def results_file(text: str) -> Path:
    """Return the file of `--out`, which can be written; a type for `argparse`."""
    path = Path(text)
    try:
        require_writable(path.parent)
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: expected a file of results, found something else")
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def rows(
    commands: Iterable[str],
    out: Path | None,
    make: Callable[[str], dict],
    amend: Callable[[dict], dict] = dict,
) -> Iterator[dict]:
    """Yield a row for each command: the one in a file, or a new one, which is written to it.

    Args:
        commands: what tells rows apart; a row has its command under `command`.
        out: a JSON file of rows, which may exist already and is written after each row; None for
            no file.
        make: returns a new row for a command, without the command itself.
        amend: changes every row, an old one too, before it is written.
    """
    known: dict[str, dict] = {}
    if out is not None and out.exists():
        known = {row["command"]: row for row in json.loads(out.read_text())}
    for command in commands:
        row = known.get(command) or {"command": command, **make(command)}
        known[command] = amend(row)
        if out is not None:
            out.write_text(json.dumps(list(known.values()), indent=2) + "\n")
        yield known[command]
