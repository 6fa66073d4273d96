"""Three rules on all of real MNIST, one training run a row.

    python -m experiments.mnist [--data-dir DIR] [--out FILE]

It takes about ten minutes on two cores.  Each row is a plain `train.py` command, which is printed
with its result.
"""

from __future__ import annotations

import argparse
import json

from experiments.runs import results_file, run

COMMANDS = (
    "--dataset mnist --rule bp --epochs 5",
    "--dataset mnist --rule fg-a --sampler normal --epochs 10",
    "--dataset mnist --rule fg-a --sampler normal --epochs 10 --pixels symmetric",
    "--dataset mnist --rule fg-w --tangents 64 --sampler rank-one --epochs 10",
)
HEAD = "| `python train.py …` | test accuracy | ms a step | minutes |\n| --- | --- | --- | --- |"


def as_line(row: dict) -> str:
    """Return a row of the table as text."""
    return (
        f"| `{row['command'].removeprefix('python train.py ')}` | "
        f"{100 * row['test_accuracy']:.2f} % | {1e3 * row['seconds_per_step']:.1f} | "
        f"{row['seconds'] / 60:.1f} |"
    )


def main() -> None:
    """Run the commands and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder of MNIST's files")
    parser.add_argument("--out", type=results_file, help="also write the summaries here, as JSON")
    args = parser.parse_args()
    rows = []
    print(HEAD)
    for command in COMMANDS:
        summary = run(command, args.data_dir)
        rows.append({"command": f"python train.py {command}", **summary})
        print(as_line(rows[-1]), flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
