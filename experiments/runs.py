"""Runs of `train.py`, and tables of them that go on where they stopped."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

TRAIN = Path(__file__).parent.parent / "train.py"


def run(command: str, data_dir: str | None) -> dict:
    """The summary of one run; ends with its exit code where it fails, as it has said why."""
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
    """A column of a run's `metrics.csv`: a number for each epoch."""
    head, *lines = (Path(summary["run_dir"]) / "metrics.csv").read_text().splitlines()
    place = head.split(",").index(name)
    return [float(line.split(",")[place]) for line in lines]


def rows(
    commands: Iterable[str],
    out: Path | None,
    make: Callable[[str], dict],
    amend: Callable[[dict], dict] = dict,
) -> Iterator[dict]:
    """A row for each command: the one in a file, or a new one, which the file then has too.

    Args:
        commands: what tells rows apart, their `command`.
        out: a JSON file of rows, which may be there already, and is written after each; None for
            none.
        make: a command's row, but for the command.
        amend: what to make of every row, an old one too, before it is written.
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
