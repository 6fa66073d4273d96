"""A step of training where the C library keeps freed memory, and where it returns it.

    python -m benchmarks.host_memory [--turns N] [--json FILE]

MLP 784-800-10, batches of 64, Adam, one thread.  The library is told at the start of a process, so
each turn is a process of its own: half a second of steps, of which the median counts.

Prediction, made before measuring: the arithmetic of an update by Adam is a quarter of what it takes
in an ordinary process, so a step by `bp` is 1.5 times as quick, and one by `fg-w`, which draws as
many random numbers as there are weights, 1.2 times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.small_steps import step_of
from dualnet.backends.freed_memory import keep_freed_memory
from dualnet.learning import RULES

NAMES = ("bp", "fdfa", "fg-a", "fg-w")
SECONDS = 0.5


def turn(name: str, kept: bool) -> float:
    """Return the median milliseconds of a step by a rule, in this process."""
    if keep_freed_memory() != kept:
        raise SystemExit("benchmarks.host_memory: this C library cannot be told to keep memory")
    step = step_of(RULES[name](), (800,), 64)
    step()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e3 * median(times)


def in_a_process(name: str, kept: bool) -> float:
    """Return what `turn` returns in a new process."""
    call = f"from benchmarks.host_memory import turn; print(turn({name!r}, {kept}))"
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if not kept:
        alone["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=7"  # the default; it says "set by me"
    done = subprocess.run(
        [sys.executable, "-c", call], check=True, capture_output=True, text=True, env=alone
    )
    return float(done.stdout)


def main() -> None:
    """Measure by turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9, help="default 9")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    found = []
    print("| rule | returned, ms | kept, ms | ratio |\n| --- | --- | --- | --- |")
    for name in NAMES:
        pairs = [(in_a_process(name, False), in_a_process(name, True)) for _ in range(args.turns)]
        returned, kept = (median(column) for column in zip(*pairs, strict=True))
        ratio = median(a / b for a, b in pairs)
        found.append({"rule": name, "returned_ms": returned, "kept_ms": kept, "ratio": ratio})
        print(f"| `{name}` | {returned:.1f} | {kept:.1f} | {ratio:.2f} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
