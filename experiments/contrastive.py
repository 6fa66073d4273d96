"""Contrastive learning without backpropagation: what a linear read-out makes of the features.

    python -m experiments.contrastive [--data-dir DIR] [--out FILE]

The first 5,000 training images of CIFAR-10, a small LocalMixer with two blocks and a projection
each, InfoNCE of two augmented views, batch 128; half an hour in all on two cores.  The network of
the first row stays as it was drawn, so its row is what the read-out makes of random features.
Rows that FILE has already are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.mnist import run

NETWORK = (
    "--dataset cifar10 --limit-train 5000 --objective contrastive "
    "--model local-mixer --width 128 --patches 4 --groups 4 --depth 2 --batch-size 128 "
)
FORWARD = "--rule lg-fg-a --sampler rademacher --tangents 8 --lr 3e-3"
ROWS = {
    "--epochs 15 --rule lg-bp --lr 1e-12": "random features",
    "--epochs 15 --rule lg-bp --lr 3e-3": "exact local gradients",
    f"--epochs 15 {FORWARD}": "forward gradients",
    f"--epochs 15 {FORWARD} --no-stop": "without the stop-gradient",
}
COMMANDS = [NETWORK + options for options in ROWS]


def as_line(row: dict) -> str:
    """A row of the table."""
    options = row["command"].removeprefix(NETWORK)
    first, last = row["losses"]
    return (
        f"| {ROWS[options]} | `{options}` | {first:.2f} → {last:.2f} | "
        f"{100 * row['test_accuracy']:.1f} % |"
    )


def losses(summary: dict) -> list[float]:
    """Training loss of the first and of the last epoch."""
    lines = (Path(summary["run_dir"]) / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train_loss")
    return [float(line.split(",")[column]) for line in (lines[1], lines[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="where the files of CIFAR-10 are")
    parser.add_argument("--out", type=Path, help="also write the summaries here, as JSON")
    args = parser.parse_args()
    known: dict[str, dict] = {}
    if args.out and args.out.exists():
        known = {row["command"]: row for row in json.loads(args.out.read_text())}
    print("| | `--rule …` | loss, first → last epoch | read-out |")
    print("| --- | --- | --- | --- |")
    for command in COMMANDS:
        if command not in known:
            summary = run(command, args.data_dir)
            known[command] = {"command": command, **summary, "losses": losses(summary)}
        if args.out:
            args.out.write_text(json.dumps(list(known.values()), indent=2) + "\n")
        print(as_line(known[command]), flush=True)


if __name__ == "__main__":
    main()
