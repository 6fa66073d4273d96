"""Every learning rule on all of real MNIST, with the network of the FDFA paper's "2 layers".

    python -m experiments.rules [--data-dir DIR] [--out FILE]

784-800-10, 5 epochs, batch 64, Adam, cosine schedule; one `train.py` run a row, a quarter of an
hour in all on two cores.  Rows that FILE has already are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.mnist import run

NETWORK = "--dataset mnist --width 800 --depth 1 --epochs 5 "
COMMANDS = [
    NETWORK + options
    for options in (
        "--rule bp",
        "--rule l-bp",
        "--rule lg-bp",
        "--rule fa",
        "--rule l-fa",
        "--rule lg-fa",
        "--rule ffa",
        "--rule dfa",
        "--rule dkp",
        "--rule fdfa",
        "--rule fg-a",
        "--rule fg-a --tangents 8",
        "--rule fg-a --tangents 8 --aggregate projection",
        "--rule lg-fg-a",
        "--rule fg-a-cv",
        "--rule fg-a-cv --shrink 0.1",
        "--rule fg-a-cv --tangents 8 --aggregate projection",
        "--rule fg-w",
        "--rule fg-w --tangents 16 --sampler rank-one",
        "--rule lg-fg-w --tangents 16 --sampler rank-one",
        "--rule wp",
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="where the files of MNIST are")
    parser.add_argument("--out", type=Path, help="also write the summaries here, as JSON")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    known = {row["command"]: row for row in rows}
    print("| `--rule …` | test accuracy |")
    print("| --- | --- |")
    for command in COMMANDS:
        row = known.get(command) or {"command": command, **run(command, args.data_dir)}
        if command not in known:
            rows.append(row)
            if args.out:
                args.out.write_text(json.dumps(rows, indent=2) + "\n")
        options = command.removeprefix(NETWORK + "--rule ")
        print(f"| `{options}` | {100 * row['test_accuracy']:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
