"""Normal numbers of the NumPy backend beside those of NumPy's generator, in float32.

    python -m benchmarks.normal_numbers [--rounds N]

Printed are medians in nanoseconds for a number, by how many are drawn.  Both draw in blocks of
their own, on as many threads as the process may use cores; run it under `taskset -c 0` for one.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.timing import take_turns
from dualnet import Key, backends
from dualnet.backends.threads import Threads, cores

COUNTS = (10, 2_048, 8_192, 8_193, 16_384, 20_000, 65_536, 627_200, 4_000_000, 30_000_000)
_BLOCK = 1 << 16


def by_numpy(threads: Threads, key: Key, count: int) -> np.ndarray:
    """Return normal numbers that NumPy's generators draw, one for each block."""
    out = np.empty(count, np.float32)

    def fill(block: int) -> None:
        part = out[block * _BLOCK : (block + 1) * _BLOCK]
        generator = np.random.Generator(np.random.SFC64(key.fold_in(block).bits))
        generator.standard_normal(out=part, dtype=np.float32)

    blocks = range(-(-count // _BLOCK))
    if len(blocks) > 1:
        threads.map(fill, blocks)
    else:
        fill(0)
    return out


def main() -> None:
    """Time both, and print a line for each count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each; default 9")
    args = parser.parse_args()
    backend, threads, key = backends.get("numpy"), Threads(cores()), Key(0)
    print(f"{cores()} threads, ns a number\n{'numbers':>12} {'dualnet':>9} {'NumPy':>9}")
    for count in COUNTS:
        contenders = {
            "dualnet": lambda count=count: backend.normal(key, (count,), np.float32),
            "NumPy": lambda count=count: by_numpy(threads, key, count),
        }
        seconds = take_turns(contenders, args.rounds)
        ours, its = (1e9 * seconds[name] / count for name in contenders)
        print(f"{count:12,} {ours:9.2f} {its:9.2f}", flush=True)


if __name__ == "__main__":
    main()
