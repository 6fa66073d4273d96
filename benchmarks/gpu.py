"""Measure on a CUDA device, by one command and in under ten minutes, what only a device can tell.

    python -m benchmarks.gpu [--json FILE] [--minutes N] [--rounds N] [--host --small]
    python -m benchmarks.gpu --matmul-precision bf16   # or tf32; for all contenders

It times steps against torch (eager and compiled) and jitted JAX on the same card.  It runs the main
job (`python train.py --backend cupy`, with and without `--graph`), the verifier
(`python -m dualnet.check --backend cupy`), and the tests marked `gpu`.  All results go to one JSON
file, which is written anew after each part, so an interrupted run leaves what it had.  It needs the
extra `bench` with builds of torch and JAX for the card.

Each time is the median of rounds in which the contenders take turns; warm-up and compilation do not
count, and each turn waits for the device.  All contenders multiply in full float32, unless
`--matmul-precision` lets all of them round factors.  (Only dualnet rounds to bfloat16; torch rounds
to TF32 at most.)  `floor` is a time that no step can beat: that of its arithmetic at the rate of
the largest matrix product measured here, or that of its bytes at the rate of the largest copy,
whichever is longer.  `--host --small` runs the same code on the host, to see that it works.
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
from dualnet.backends import Backend
from dualnet.backends.overridable import matmul

TRAIN = str(Path(__file__).parent.parent / "train.py")
FILE = Path(__file__).parent / "results" / "gpu.json"


@dataclass(frozen=True)
class Outcome:
    """The figures of one workload.

    Attributes:
        what: its name.
        seconds: contender → its median time.
        ratios: dualnet's contender → the fastest peer's time over its time; above 1 where dualnet
            is faster.
        floor: seconds that dualnet's arithmetic and bytes take at least.
        share: `floor` over the time of dualnet's fastest contender.
        memory: contender → the most bytes of device memory that it held, if it can tell.
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
    """Rates measured on this machine.

    Attributes:
        flops: float32 operations per second.
        bytes: bytes moved per second.
    """

    flops: float
    bytes: float

    def floor(self, flops: float, moved: float) -> float:
        """Return the seconds that so many operations and bytes take at least."""
        return max(flops / self.flops, moved / self.bytes)


def measured_peaks(backend: Backend, size: int, rounds: int) -> Peaks:
    """Measure the rates of a product and of a copy of square matrices of that size."""
    a = backend.normal(Key(0).fold_in("peaks"), (size, size), np.float32)

    def waiting(work: Callable) -> Callable:
        """Return a function that does the work and waits until it is done."""

        def work_and_wait() -> None:
            work()
            backend.synchronize()

        return work_and_wait

    contenders = {
        "product": waiting(lambda: matmul(a, a)),
        "copy": waiting(lambda: a.copy()),
    }
    seconds = take_turns(contenders, rounds)
    return Peaks(2.0 * size**3 / seconds["product"], 2.0 * a.nbytes / seconds["copy"])


def measure(workload: Any, peaks: Peaks, rounds: int) -> Outcome:
    """Let the contenders of a workload take turns; those that cannot run are left out and named.

    Args:
        workload: a `Workload` of `benchmarks.gpu_workloads`, which is imported only where its
            peers are installed.
        peaks: the rates from which the floor follows.
        rounds: how many rounds count.
    """
    able, failed = {}, {}
    for name, work in workload.contenders.items():
        try:
            work()
            able[name] = work
        except Exception as error:  # of any kind, from a compiler or a library
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
    """Format the lines of the table for one workload."""
    times = "  ".join(f"{name} {1e3 * s:.3f}" for name, s in outcome.seconds.items())
    ratios = ", ".join(f"{name} {r:.2f}" for name, r in outcome.ratios.items())
    lines = [f"{outcome.what}\n    ms: {times}  (floor {1e3 * outcome.floor:.3f})"]
    lines += [f"    ratio: {ratios}"] if ratios else []
    lines += [f"    {name} cannot: {why}" for name, why in outcome.failed.items()]
    return "\n".join(lines)


def timings(
    backend: Backend, small: bool, matmul_precision: str, peaks: Peaks, rounds: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure and print each workload until the deadline.

    Yields:
        The figures of each workload as a dict for JSON; for one that failed, the reason.
    """
    try:
        from benchmarks.gpu_workloads import workloads

        makers = list(workloads(backend, small, matmul_precision))
    except Exception as error:  # a peer is not installed, or not built for this card
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
    """Print why something failed, and return the dict that takes the place of its figures."""
    why = f"{type(error).__name__}: {str(error).strip()[:300]}"
    print(f"{what} cannot: {why}", flush=True)
    return {"what": what, "failed": why}


def surroundings(backend: Backend) -> dict[str, Any]:
    """Return the card, the driver, and the versions of all that is compared."""
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
    """Run a Python command, stop it after so many seconds, and return its outcome."""
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
    parser.add_argument(
        "--host", action="store_true", help="run on the host: NumPy, and the peers' CPU builds"
    )
    parser.add_argument("--matmul-precision", choices=backends.MATMUL_PRECISIONS, default="full")
    parser.add_argument("--small", action="store_true", help="small sizes, no tests")
    args = parser.parse_args(argv)
    if args.host and args.matmul_precision != "full":
        parser.error(f"--matmul-precision {args.matmul_precision} is for a device")
    ending = "" if args.matmul_precision == "full" else f"-{args.matmul_precision}"
    file = args.json or FILE.with_stem(FILE.stem + ending)
    # This must be set before JAX is first imported: else JAX takes most of the card's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    deadline = time.perf_counter() + 60.0 * args.minutes
    name = "numpy" if args.host else "cupy"
    backend = backends.get(name, matmul_precision=args.matmul_precision)
    how = {"backend": name, "matmul_precision": args.matmul_precision, "small": args.small}
    result: dict[str, Any] = {**how, **surroundings(backend)}

    def write() -> None:
        """Write what is known so far."""
        file.write_text(json.dumps(result, indent=2) + "\n")

    peaks = measured_peaks(backend, 256 if args.small else 8192, args.rounds)
    result["peaks"] = asdict(peaks)
    result["timings"] = []
    half = deadline - 60.0 * args.minutes / 2  # the other half is for the checks
    for timing in timings(backend, args.small, args.matmul_precision, peaks, args.rounds, half):
        result["timings"].append(timing)
        write()
    if not args.small:
        runs = Path(tempfile.mkdtemp(prefix="dualnet-"))
        rounding = [] if args.matmul_precision == "full" else [f"--{args.matmul_precision}"]
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
