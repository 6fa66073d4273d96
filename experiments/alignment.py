"""The angle between a rule's gradients and the exact ones along training, on real MNIST.

    python -m experiments.alignment [--data-dir DIR] [--out FILE]

The network is 784-512-512-10, trained for 3 epochs with batch 64, Adam, constant rate 1e-3 and seed
0: one `train.py` run with `--grad-stats 10` for each rule, about three minutes in all on one core.
An angle is that of a single step's gradient, in degrees; shown is its mean over an epoch.

Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", section 4.4 and Figure 7, with a network of 5 layers and 100 epochs.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from experiments.runs import results_file, run

EPOCHS, BATCHES = 3, 938
NETWORK = f"--dataset mnist --epochs {EPOCHS} --schedule constant --grad-stats 10 --rule "
RULES = (
    *("dfa", "dkp", "fdfa --sampler normal", "fg-a --sampler normal"),
    *("fg-a-cv --sampler normal", "fg-a-cv --sampler normal --shrink 0.1"),
)
LAYERS = ("hidden1/w", "hidden2/w", "total")
FIRST = 10
"""The first step that counts: the feedback of `fdfa` starts at 0, where there is no angle."""


def angles(folder: Path) -> dict[str, list[float]]:
    """Return the mean angle of each epoch by layer, from a run's `gradients.csv`."""
    found: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(EPOCHS)])
    with open(folder / "gradients.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["layer"] in LAYERS and int(row["step"]) >= FIRST:
                found[row["layer"]][int(row["step"]) // BATCHES].append(float(row["angle"]))
    return {layer: [fmean(of_epoch) for of_epoch in found[layer]] for layer in LAYERS}


def main() -> None:
    """Train by every rule and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder of MNIST's files")
    parser.add_argument("--out", type=results_file, help="also write the angles here, as JSON")
    args = parser.parse_args()
    rows = []
    print("| `--rule …` | layer | " + " | ".join(f"epoch {i + 1}" for i in range(EPOCHS)) + " |")
    print("| --- | --- |" + " --- |" * EPOCHS)
    for rule in RULES:
        summary = run(NETWORK + rule, args.data_dir)
        degrees = angles(Path(summary["run_dir"]))
        rows.append(
            {
                "command": f"python train.py {NETWORK}{rule}",
                "test_accuracy": summary["test_accuracy"],
                "degrees": degrees,
            }
        )
        for layer, of_epochs in degrees.items():
            shown = " | ".join(f"{angle:.1f}" for angle in of_epochs)
            print(f"| `{rule}` | {layer} | {shown} |", flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
