"""The rows that need a device, the most valuable first, for as many minutes as there are.

    python -m experiments.device [--minutes M] [--list] [--backend NAME] [--data-dir DIR]
                                 [--out DIR]

Rows that the folder's files have are not measured again.  When the minutes are over, the training
that runs writes a checkpoint, and the next call goes on there.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dualnet.console import answer, exit_code, say
from dualnet.errors import Interrupted
from experiments.__main__ import EXPERIMENTS
from experiments.experiment import BACKENDS, Form, missing_rows, run_experiment


class Part(NamedTuple):
    """Some rows of an experiment.

    Attributes:
        name: of the experiment.
        only: what their settings contain.
        seeds: which seeds of them, side by side.
    """

    name: str
    only: str
    seeds: tuple[int, ...] = (0,)


THREE = (0, 1, 2)
QUEUE = (
    Part("fdfa-mlp", "mlp2-mnist-"),
    Part("fdfa-mlp", "mlp4-mnist-"),
    Part("fdfa-mlp", "mlp2-fashion-"),
    Part("fdfa-mlp", "mlp4-fashion-"),
    Part("fdfa-mlp", "code-mnist-fg-w"),
    Part("fdfa-mlp", "code-fashion-mnist-fg-w"),
    Part("beyond-bp", "=mnist", THREE),
    Part("beyond-bp", "=fashion-mnist", THREE),
    Part("ren-mnist", "ren-"),
    Part("fdfa-cnn", "code-mnist-"),
    Part("fdfa-cnn", "code-fashion-"),
    Part("frog-networks", "fc256-", THREE),
    Part("ren-cifar", "ren-"),
    Part("fdfa-mlp", "mlp3-mnist-"),
    Part("fdfa-mlp", "mlp3-fashion-"),
    Part("beyond-bp", "=cifar10", THREE),
    *(Part("fdfa-mlp", f"mlp{depth}-cifar10-") for depth in (2, 4, 3)),
    Part("fdfa-cnn", "cifar10"),
    *(Part("fdfa-mlp", f"mlp{depth}-mnist-", THREE) for depth in (2, 4, 3)),
    *(Part("fdfa-mlp", f"mlp{depth}-fashion-", THREE) for depth in (2, 4, 3)),
    Part("fdfa-cnn", "mnist", THREE),
    Part("ren-mnist", "ren-", THREE),
    Part("fdfa-mlp", "code-"),
)
"""What is measured, in this order."""


def main(
    arguments: Sequence[str] | None = None, program: str = "python -m experiments.device"
) -> int:
    """Measure what is missing until the time is over, and return the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="default 4")
    parser.add_argument("--backend", choices=BACKENDS, default="cupy", help="default cupy")
    parser.add_argument("--data-dir", help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--list", action="store_true", help="only say how many rows are missing")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    if not args.list:
        signal.setitimer(signal.ITIMER_REAL, 60 * args.minutes)
    try:
        for part in QUEUE:
            measure(part, args)
    except (KeyboardInterrupt, Interrupted):
        say("interrupted; the same command goes on", aside=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def measure(part: Part, args: argparse.Namespace) -> None:
    """Measure the rows of a part that are missing, or only say how many they are."""
    experiment = EXPERIMENTS[part.name]
    work = args.out / part.name
    form = Form(False, part.seeds, args.backend, part.only, args.data_dir, work)
    missing = len(missing_rows(experiment, form, args.out))
    seeds = f"seed{'s' if len(part.seeds) > 1 else ''} {', '.join(map(str, part.seeds))}"
    answer(f"{part.name} --only {part.only}, {seeds}: {missing} rows are missing")
    if missing and not args.list:
        run_experiment(experiment, form, args.out)


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments.device", main, sys.argv[1:]))
