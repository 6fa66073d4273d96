"""How long it takes until dualnet is there: its import, `train.py --help`, and a run with no flag.

    python -m benchmarks.start [--turns N] [--runs N] [--json FILE]

Each turn is a process of its own.  Printed are medians in seconds of wall-clock time.  Of imports,
what counts is the time over that of NumPy, which is imported first: that of `import dualnet`, which
imports what is asked for when it is asked for, and that of the first `dualnet.jvp`.  Runs are in a
folder that is removed again; they use the machine as `python train.py` does by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TRAIN = Path(__file__).parents[1] / "train.py"
_IMPORTS = """
import time
began = time.perf_counter()
import numpy
numpy_there = time.perf_counter()
import dualnet
dualnet_there = time.perf_counter()
dualnet.jvp
jvp_there = time.perf_counter()
print(numpy_there - began, dualnet_there - numpy_there, jvp_there - numpy_there)
"""
IMPORTED = ("import numpy", "import dualnet, over NumPy", "dualnet.jvp, over NumPy")


def imports() -> dict[str, float]:
    """Return the seconds of imports in a new process, by what is imported."""
    done = subprocess.run([sys.executable, "-c", _IMPORTS], check=True, capture_output=True)
    return dict(zip(IMPORTED, map(float, done.stdout.split()), strict=True))


def command(*flags: str) -> float:
    """Return the seconds of `train.py` with these flags, in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        call = [sys.executable, str(TRAIN), *flags]
        subprocess.run(call, check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - began


def measure(turns: int, runs: int) -> dict[str, float]:
    """Print and return the medians: of so many turns, and of so many runs with no flag."""
    all_imports = [imports() for _ in range(turns)]
    seconds = {what: median(found[what] for found in all_imports) for what in IMPORTED}
    seconds["train.py --help"] = median(command("--help") for _ in range(turns))
    if runs:
        seconds["train.py"] = median(command() for _ in range(runs))
    for what, number in seconds.items():
        print(f"{what:28} {number:7.3f} s", flush=True)
    return seconds


def main() -> None:
    """Measure, and write the figures where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9, help="default 9")
    parser.add_argument("--runs", type=int, default=3, help="runs with no flag; default 3")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    seconds = measure(args.turns, args.runs)
    if args.json:
        args.json.write_text(json.dumps({"seconds": seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
