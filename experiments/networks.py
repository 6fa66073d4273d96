"""The papers' networks on real data: LocalMixer on MNIST and CIFAR-10, the FDFA CNN on
Fashion-MNIST.

    python -m experiments.networks [--data-dir DIR] [--out FILE] [--only TEXT]

Each row is one `train.py` run; it takes about two hours in all on two cores, most of them for the
last row.  Rows that FILE has already are not run again.  DIR, or DUALNET_DATA, holds the data sets.
"""

from __future__ import annotations

import argparse

from experiments.runs import column, results_file, rows, run

MIXER = "--model local-mixer --batch-size 128 "
PUBLISHED = {
    "--dataset mnist " + MIXER + "--rule lg-fg-a --sampler rademacher --epochs 20": (97.45, None),
    "--dataset mnist " + MIXER + "--rule bp --epochs 20": (97.59, None),
    "--dataset fashion-mnist --model cnn --rule fdfa --sampler normal --epochs 3": (91.54, 100),
    "--dataset fashion-mnist --model cnn --rule bp --epochs 3": (92.10, 100),
    "--dataset cifar10 " + MIXER + "--rule lg-fg-a --sampler rademacher --epochs 6 --threads 2": (
        69.32,
        None,
    ),
}
"""Flags → published test accuracy in %, and after how many epochs where the paper says it.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Tables 2 and 3; Bacho and
Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum", Table 2.
"""


COMMANDS = list(PUBLISHED)
HEAD = "| `python train.py …` | test accuracy | published | minutes |\n| --- | --- | --- | --- |"


def as_line(row: dict) -> str:
    """Return a row of the table as text."""
    accuracy, epochs = PUBLISHED[row["command"]]
    after = f", {epochs} epochs" if epochs else ""
    return (
        f"| `{row['command']}` | {100 * row['test_accuracy']:.2f} % | {accuracy:.2f} %{after} | "
        f"{row['seconds'] / 60:.0f} |"
    )


def curve_line(row: dict) -> str:
    """Return the test accuracies of all epochs as text."""
    return " ".join(f"{100 * accuracy:.1f}" for accuracy in row["curve"])


def main() -> None:
    """Make the rows that are missing and print the table, then the curves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder of the data sets")
    parser.add_argument("--out", type=results_file, help="also write the summaries here, as JSON")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only rows whose command contains this"
    )
    args = parser.parse_args()

    def make(command: str) -> dict:
        summary = run(command, args.data_dir)
        return {**summary, "curve": column(summary, "test_accuracy")}

    print(HEAD)
    made = []
    for row in rows((c for c in COMMANDS if args.only in c), args.out, make):
        made.append(row)
        print(as_line(row), flush=True)
    for row in made:
        if "curve" in row:
            print(f"`{row['command']}`, %, epoch by epoch: {curve_line(row)}")


if __name__ == "__main__":
    main()
