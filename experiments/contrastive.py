"""Contrastive learning without backpropagation: how well a linear read-out does on the features.

    python -m experiments.contrastive [--data-dir DIR] [--out FILE]

A small LocalMixer with two blocks, each with a projection of its own, learns InfoNCE of two
augmented views from the first 5,000 training images of CIFAR-10, with batch 128; half an hour in
all on two cores.  The network of the first row stays as it was drawn, so this row shows how well
the read-out does on random features.  Rows that FILE has already are not run again.
"""

from __future__ import annotations

import argparse

from experiments.runs import column, results_file, rows, run

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
HEAD = "| | `--rule …` | loss, first → last epoch | read-out |\n| --- | --- | --- | --- |"


def as_line(row: dict) -> str:
    """Return a row of the table as text."""
    options = row["command"].removeprefix(NETWORK)
    first, last = row["losses"]
    return (
        f"| {ROWS[options]} | `{options}` | {first:.2f} → {last:.2f} | "
        f"{100 * row['test_accuracy']:.1f} % |"
    )


def main() -> None:
    """Make the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder of CIFAR-10's files")
    parser.add_argument("--out", type=results_file, help="also write the summaries here, as JSON")
    args = parser.parse_args()

    def make(command: str) -> dict:
        summary = run(command, args.data_dir)
        first, *_, last = column(summary, "train_loss")
        return {**summary, "losses": [first, last]}

    print(HEAD)
    for row in rows(COMMANDS, args.out, make):
        print(as_line(row), flush=True)


if __name__ == "__main__":
    main()
