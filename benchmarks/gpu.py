"""Everything there is to find out on a CUDA device, by one command, in under ten minutes.

    python -m benchmarks.gpu [--json FILE] [--minutes N] [--rounds N] [--host --small]
    python -m benchmarks.gpu --products bf16   # or tf32; of all contenders

Timed steps beside torch (eager and compiled) and jitted JAX on the same card, the main job
(`python train.py --backend cupy`, with and without `--graph`), the verifier
(`python -m dualnet.check --backend cupy`), and the tests marked `gpu`; one JSON file with all of
it, written anew after each part, so that a run cut short leaves what it had.  Needs the extra
`bench` with builds of torch and JAX for the card.

Each time is the median of rounds in which the contenders take turns, warm-up and compilation
apart, and each turn waits for the device.  All multiply in full float32, unless `--products` lets
all of them round factors (to bfloat16 only dualnet does, as torch offers TF32 at most).  `floor`
is what a step cannot beat: its arithmetic at the rate of the largest matrix product measured here,
or its bytes at the rate of the largest copy, whichever is more.  `--host --small` runs the same
code on the host, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import take_turns
from dualnet import Key, backends
from dualnet.backends.overridable import matrix_product

TRAIN = str(Path(__file__).parent.parent / "train.py")
FILE = Path(__file__).parent / "results" / "gpu.json"


@dataclass(frozen=True)
class Outcome:
    """One workload's figures.

    Attributes:
        what: its name.
        seconds: contender → median.
        ratios: ours → the fastest peer's time over ours; above 1 where ours is faster.
        floor: seconds that no contender can beat, counted from arithmetic and bytes of ours.
        share: floor over our fastest time.
        memory: contender → most bytes of device memory held, where it tells.
        failed: contender → why it could not run.
    """

    what: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    floor: float
    share: float | None
    memory: dict[str, int]
    failed: dict[str, str]


@dataclass(frozen=True)
class Peaks:
    """Rates measured on this machine: float32 operations, and bytes moved, a second."""

    flops: float
    bytes: float

    def floor(self, flops: float, moved: float) -> float:
        """Seconds for so many operations and bytes."""
        return max(flops / self.flops, moved / self.bytes)


def measured_peaks(backend: Any, size: int, rounds: int) -> Peaks:
    """From a square matrix product and a copy of matrices of that size."""
    a = backend.normal(Key(0).fold_in("peaks"), (size, size), np.float32)

    def waiting(work: Callable) -> Callable:
        def whole() -> None:
            work()
            backend.synchronize()

        return whole

    contenders = {
        "product": waiting(lambda: matrix_product(a, a)),
        "copy": waiting(lambda: a.copy()),
    }
    seconds = take_turns(contenders, rounds)
    return Peaks(2.0 * size**3 / seconds["product"], 2.0 * a.nbytes / seconds["copy"])


def measure(workload: Any, peaks: Peaks, rounds: int) -> Outcome:
    """Let a workload's contenders take turns; those that cannot run are left out and named.

    Args:
        workload: of `benchmarks.gpu_workloads`: `what`, `contenders`, `flops`, `bytes`, and
            `memory`, which tells each contender's most bytes.
        peaks: for the floor.
        rounds: turns of each that count.
    """
    able, failed = {}, {}
    for name, work in workload.contenders.items():
        try:
            work()
            able[name] = work
        except Exception as error:  # a compiler's or a library's, of whatever kind
            failed[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
    seconds = take_turns(able, rounds) if able else {}
    ours = {name: s for name, s in seconds.items() if name.startswith("dualnet")}
    peers = [s for name, s in seconds.items() if name not in ours]
    ratios = {name: min(peers) / s for name, s in ours.items()} if peers else {}
    floor = peaks.floor(workload.flops, workload.bytes)
    return Outcome(
        what=workload.what,
        seconds=seconds,
        ratios=ratios,
        floor=floor,
        share=floor / min(ours.values()) if ours else None,
        memory={name: tell() for name, tell in workload.memory.items() if name in able},
        failed=failed,
    )


def line(outcome: Outcome) -> str:
    """One line of the table."""
    times = "  ".join(f"{name} {1e3 * s:.3f}" for name, s in outcome.seconds.items())
    ratios = ", ".join(f"{name} {r:.2f}" for name, r in outcome.ratios.items())
    lines = [f"{outcome.what}\n    ms: {times}  (floor {1e3 * outcome.floor:.3f})"]
    lines += [f"    ratio: {ratios}"] if ratios else []
    lines += [f"    {name} cannot: {why}" for name, why in outcome.failed.items()]
    return "\n".join(lines)


def timings(
    backend: Any, small: bool, matmul_precision: str, peaks: Peaks, rounds: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure and print each workload, until the deadline; a failure is one of the results."""
    try:
        from benchmarks.gpu_workloads import workloads

        makers = list(workloads(backend, small, matmul_precision))
    except Exception as error:  # a peer that is not installed, or not for this card
        yield failure("all workloads", error)
        return
    for i, make in enumerate(makers):
        if time.perf_counter() > deadline:
            yield {"what": f"out of time for {len(makers) - i} more"}
            return
        try:
            outcome = measure(make(), peaks, rounds)
        except Exception as error:
            yield failure(f"workload {i + 1}", error)
            continue
        print(line(outcome), flush=True)
        yield asdict(outcome)


def failure(what: str, error: Exception) -> dict[str, Any]:
    """What stands in the place of an outcome; printed too."""
    why = f"{type(error).__name__}: {str(error).strip()[:300]}"
    print(f"{what} cannot: {why}", flush=True)
    return {"what": what, "failed": why}


def surroundings(backend: Any) -> dict[str, Any]:
    """The card, the driver, and the versions of everything that is compared."""
    versions = {}
    for package in ("dualnet", "numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    card = None
    if backend.name == "cupy":
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(0)
        card = {
            "name": properties["name"].decode(),
            "memory_bytes": properties["totalGlobalMem"],
            "multiprocessors": properties["multiProcessorCount"],
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        }
    return {"card": card, "versions": versions, "python": platform.python_version()}


def command(arguments: list[str], seconds: float) -> dict[str, Any]:
    """The outcome of a Python command, stopped after so many seconds."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=max(1.0, seconds)
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = (
            None,
            *(
                (text or b"").decode() if isinstance(text, bytes) else (text or "")
                for text in (late.stdout, late.stderr)
            ),
        )
    return {
        "command": " ".join(arguments),
        "exit_code": code,  # None: it ran out of time
        "seconds": time.perf_counter() - began,
        "last_line": (out.strip().splitlines() or [""])[-1],
        "output": out.strip()[-8000:],  # names what failed
        "errors": err.strip()[-2000:],
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run all parts and return what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="default results/gpu.json, or gpu-tf32.json …")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--host", action="store_true", help="on the host: NumPy, and peers' CPU")
    parser.add_argument("--products", choices=backends.MATMUL_PRECISIONS, default="full")
    parser.add_argument("--small", action="store_true", help="small sizes, no tests")
    args = parser.parse_args(argv)
    if args.host and args.products != "full":
        parser.error(f"--products {args.matmul_precision} is for a device")
    ending = "" if args.products == "full" else f"-{args.matmul_precision}"
    file = args.json or FILE.with_stem(FILE.stem + ending)
    # before JAX is first imported: else it takes most of the card's memory for itself
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    deadline = time.perf_counter() + 60.0 * args.minutes
    name = "numpy" if args.host else "cupy"
    backend = backends.get(name, matmul_precision=args.matmul_precision)
    how = {"backend": name, "matmul_precision": args.matmul_precision, "small": args.small}
    result: dict[str, Any] = {**how, **surroundings(backend)}

    def write() -> None:
        file.write_text(json.dumps(result, indent=2) + "\n")

    peaks = measured_peaks(backend, 256 if args.small else 8192, args.rounds)
    result["peaks"] = asdict(peaks)
    result["timings"] = []
    half = deadline - 60.0 * args.minutes / 2  # the other is for the checks, which come anyway
    for timing in timings(backend, args.small, args.matmul_precision, peaks, args.rounds, half):
        result["timings"].append(timing)
        write()
    if not args.small:
        runs = Path(tempfile.mkdtemp(prefix="dualnet-"))
        rounding = [] if args.products == "full" else [f"--{args.matmul_precision}"]
        train = [TRAIN, "--backend", name, *rounding, "--json", "--quiet", "--run-dir"]
        recorded = {"training, recorded": [*train, str(runs / "recorded"), "--graph"]}
        for part, arguments in {
            "training": [*train, str(runs / "plain")],
            **({} if args.host else recorded),
            "check": ["-m", "dualnet.check", "--backend", name, "--json"],
            "tests": ["-m", "pytest", "-m", "gpu", "-q", "--tb=line"],
        }.items():
            result[part] = command(arguments, deadline - time.perf_counter())
            print(f"{part}: exit code {result[part]['exit_code']}", flush=True)
            write()
    write()
    return result


if __name__ == "__main__":
    main()
