"""Write the tables of docs/results.md from the committed results.

    python -m experiments.page

It measures nothing.  A test holds the page to the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.pages import Tables, filled
from experiments import contrastive, mnist, networks, rules
from experiments.__main__ import EXPERIMENTS
from experiments.experiment import ROOT, Experiment

PAGE = ROOT / "docs/results.md"
_OLDER: dict[str, tuple[str, Callable[[dict], str], list[str]]] = {
    "mnist": (mnist.HEAD, mnist.as_line, [f"python train.py {c}" for c in mnist.COMMANDS]),
    "rules": (rules.HEAD, rules.as_line, rules.COMMANDS),
    "networks": (networks.HEAD, networks.as_line, networks.COMMANDS),
    "contrastive": (contrastive.HEAD, contrastive.as_line, contrastive.COMMANDS),
}
"""Name → head of its table, what makes a line of a row, and the commands of its rows in order."""


def results(name: str) -> Any:
    """Return what the committed file of an experiment holds."""
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def of_older(name: str) -> str:
    """Return the table of an experiment that is a command of its own."""
    head, as_line, commands = _OLDER[name]
    rows = {row["command"]: row for row in results(name)}
    return "\n".join([head, *(as_line(rows[c]) for c in commands if c in rows)])


def of(experiment: Experiment) -> str:
    """Return the table of an experiment."""
    return experiment.table(results(experiment.name)["rows"])


TABLES: Tables = {
    **{name: partial(of_older, name) for name in _OLDER},
    **{name: partial(of, experiment) for name, experiment in EXPERIMENTS.items()},
}


def main() -> None:
    """Write the page's tables."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")


if __name__ == "__main__":
    main()
