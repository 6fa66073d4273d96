"""`dualnet rates 1e-4 1e-3 1e-2 …`: short trainings over a grid of learning rates."""

from __future__ import annotations

from dualnet.command import train
from dualnet.errors import UsageError


def main(argv: list[str], program: str) -> None:
    """Do what `train --rates` does; the rates come first, the flags of `train` behind them.

    Raises:
        UsageError: there are no rates; and see `dualnet.command.train.main`.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("--help", "-h")):
        raise UsageError("expected learning rates first, as in dualnet rates 1e-4 1e-3 1e-2")
    train.main(argv if argv[0].startswith("-") else ["--rates", *argv], program)
