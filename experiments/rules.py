"""Every learning rule on all of real MNIST, with the network of the FDFA paper's "2 layers".

    python -m experiments.rules [--data-dir DIR] [--out FILE] [--times]

The network is 784-800-10, trained for 5 epochs with batch 64, Adam and the cosine schedule.  The
rules of the paper's table have three seeds each, the others one; it takes an hour in all on two
cores.  Rows that FILE has already are not run again.  `--times` measures anew how many seconds a
step takes in every row, in short runs one after the other; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse

from experiments.runs import results_file, rows, run

NETWORK = "--dataset mnist --width 800 --depth 1 --epochs 5 "
PUBLISHED = {
    "--rule bp": 98.25,
    "--rule fg-w": 85.87,
    "--rule fg-a --sampler normal": 93.39,
    "--rule dfa": 98.04,
    "--rule dkp": 98.12,
    "--rule fdfa --sampler normal": 98.21,
}
"""Test accuracy in % after 100 epochs: Bacho and Chu, "Low-Variance Forward Gradients using Direct
Feedback Alignment and Momentum", Table 6 (2 layers)."""
SEEDS = " --seeds 0 1 2"
BESIDE = (
    "--rule l-bp",
    "--rule lg-bp",
    "--rule fa",
    "--rule l-fa",
    "--rule lg-fa",
    "--rule ffa",
    "--rule lg-fg-a --sampler normal",
    "--rule fg-a --sampler normal --tangents 8",
    "--rule fg-a --sampler normal --tangents 8 --aggregate projection",
    "--rule fg-a-cv --sampler normal",
    "--rule fg-a-cv --sampler normal --shrink 0.1",
    "--rule fg-a-cv --sampler normal --tangents 8 --aggregate projection",
    "--rule fg-w --tangents 16 --sampler rank-one",
    "--rule lg-fg-w --tangents 16 --sampler rank-one",
    "--rule wp",
)
COMMANDS = [NETWORK + rule + SEEDS for rule in PUBLISHED] + [NETWORK + rule for rule in BESIDE]
HEAD = """\
| `--rule …` | test accuracy | published, 100 epochs | ms a step |
| --- | --- | --- | --- |"""
SHORT = " --limit-train 6400 --limit-test 64"  # 100 steps in one epoch


def options_of(command: str) -> str:
    """Return the part of a command that tells its row from the others."""
    return command.removeprefix(NETWORK).removesuffix(SEEDS)


def as_line(row: dict) -> str:
    """Return a row of the table as text."""
    options = options_of(row["command"])
    spread = f" ± {100 * row['test_accuracy_std']:.2f}" if "test_accuracy_std" in row else ""
    published = f"{PUBLISHED[options]:.2f} %" if options in PUBLISHED else ""
    return (
        f"| `{options.removeprefix('--rule ')}` | {100 * row['test_accuracy']:.2f}{spread} % | "
        f"{published} | {1e3 * row['seconds_per_step']:.1f} |"
    )


def main() -> None:
    """Make the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="the folder of MNIST's files")
    parser.add_argument("--out", type=results_file, help="also write the summaries here, as JSON")
    parser.add_argument("--times", action="store_true", help="measure the seconds of a step anew")
    args = parser.parse_args()

    def timed(row: dict) -> dict:
        if not args.times:
            return row
        short = NETWORK.replace("--epochs 5", "--epochs 1") + options_of(row["command"]) + SHORT
        return {**row, "seconds_per_step": run(short, args.data_dir)["seconds_per_step"]}

    print(HEAD)
    for row in rows(COMMANDS, args.out, lambda command: run(command, args.data_dir), timed):
        print(as_line(row), flush=True)


if __name__ == "__main__":
    main()
