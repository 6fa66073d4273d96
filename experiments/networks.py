"""The papers' networks on real data: LocalMixer on MNIST and CIFAR-10, the FDFA CNN on
Fashion-MNIST.

    python -m experiments.networks [--data-dir DIR] [--out FILE] [--only TEXT]

One `train.py` run a row; about two hours in all on two cores, most of it for the last.  Rows that
FILE has already are not run again.  DIR, or DUALNET_DATA, holds the data sets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.mnist import run

MIXER = "--model local-mixer --batch-size 128 "
PUBLISHED = {  # test accuracy in %, and after how many epochs, where the paper says it
    "--dataset mnist " + MIXER + "--rule lg-fg-a --sampler rademacher --epochs 20": (97.45, None),
    "--dataset mnist " + MIXER + "--rule bp --epochs 20": (97.59, None),
    "--dataset fashion-mnist --model cnn --rule fdfa --epochs 3": (91.54, 100),
    "--dataset fashion-mnist --model cnn --rule bp --epochs 3": (92.10, 100),
    "--dataset cifar10 " + MIXER + "--rule lg-fg-a --sampler rademacher --epochs 6 --threads 2": (
        69.32,
        None,
    ),
}
"""Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Tables 2 and 3; Bacho and Chu,
"Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum", Table 2."""


COMMANDS = list(PUBLISHED)


def as_line(row: dict) -> str:
    """A row of the table."""
    accuracy, epochs = PUBLISHED[row["command"]]
    after = f", {epochs} epochs" if epochs else ""
    return (
        f"| `{row['command']}` | {100 * row['test_accuracy']:.2f} % | {accuracy:.2f} %{after} | "
        f"{row['seconds'] / 60:.0f} |"
    )


def curve(summary: dict) -> list[float]:
    """Test accuracy after each epoch."""
    lines = (Path(summary["run_dir"]) / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("test_accuracy")
    return [float(line.split(",")[column]) for line in lines[1:]]


def curve_line(row: dict) -> str:
    """The test accuracies of all epochs."""
    return " ".join(f"{100 * accuracy:.1f}" for accuracy in row["curve"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="where the data sets are")
    parser.add_argument("--out", type=Path, help="also write the summaries here, as JSON")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose command has it")
    args = parser.parse_args()
    known: dict[str, dict] = {}
    if args.out and args.out.exists():
        known = {row["command"]: row for row in json.loads(args.out.read_text())}
    print("| `python train.py …` | test accuracy | published | minutes |")
    print("| --- | --- | --- | --- |")
    for command in PUBLISHED:
        if args.only not in command:
            continue
        if command not in known:
            summary = run(command, args.data_dir)
            known[command] = {"command": command, **summary, "curve": curve(summary)}
        row = known[command]
        if args.out:
            args.out.write_text(json.dumps(list(known.values()), indent=2) + "\n")
        print(as_line(row), flush=True)
    for row in known.values():
        if "curve" in row:
            print(f"`{row['command']}`, %, epoch by epoch: {curve_line(row)}")


if __name__ == "__main__":
    main()
