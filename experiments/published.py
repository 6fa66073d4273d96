"""Published rows by several seeds each, which a device trains side by side.

    python -m experiments.published --only TEXT [--seeds N …] [--backend NAME] [--data-dir DIR]
                                    [--out FILE]

Each row is a recipe (`python train.py --list` shows them).  Rows that FILE has already are not run
again.  DIR, or DUALNET_DATA, holds the data sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dualnet import backends
from dualnet.training.recipes import RECIPES
from experiments.runs import rows, run

COLUMNS = "| recipe | test accuracy | published | minutes |\n| --- | --- | --- | --- |"


def as_line(row: dict) -> str:
    """Return a row of the table as text."""
    recipe = row["recipe"]
    reached = f"{100 * row['test_accuracy']:.2f} ± {100 * row['test_accuracy_std']:.2f} %"
    known = recipe["test_accuracy"]
    published = "–" if known is None else f"{100 * known:.2f} %"
    minutes = max(one["seconds"] for one in row["runs"]) / 60
    return f"| `{recipe['name']}` | {reached} | {published} | {minutes:.1f} |"


def main() -> None:
    """Make the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", required=True, help="only recipes whose name contains this")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="default 0-9")
    parser.add_argument("--backend", choices=backends.NAMES, default="cupy", help="default cupy")
    parser.add_argument("--data-dir", help="the folder of the data sets")
    parser.add_argument("--out", type=Path, help="also write the summaries here, as JSON")
    args = parser.parse_args()
    how = f"--seeds {' '.join(map(str, args.seeds))} --backend {args.backend}"
    commands = [f"--recipe {name} {how}" for name in RECIPES if args.only in name]
    print(COLUMNS)
    for row in rows(commands, args.out, lambda command: run(command, args.data_dir)):
        print(as_line(row), flush=True)


if __name__ == "__main__":
    main()
