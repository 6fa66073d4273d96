"""Measure on a CUDA device, by one command and in bounded time, what only a device can tell.

    python -m benchmarks.gpu [--sections mlp networks …] [--only WORD …] [--seconds N] [--out FILE]
    python -m benchmarks.gpu --matmul-precision bf16   # or tf32; for all contenders

Its sections, in this order:

    mlp       an MLP's loss along tangents, and its steps, against torch (eager, compiled) and JAX
    networks  training steps of the papers' networks, against backpropagation by torch and JAX
    conv, norm, draws   layers along tangents, and random numbers
    kernels   the time by kernel of the same training steps, of dualnet and of torch
    train     the main job, `python train.py --backend cupy`, recorded and with --no-graph
    check     the verifier, `python -m dualnet.check --backend cupy`
    tests     the tests marked `gpu`

`--only` takes the workloads alone whose names hold one of the words.  All results go to one JSON
file, which is written anew after each workload, so an interrupted run leaves what it had.  It needs
the extra `bench` with builds of torch and JAX for the card.

Each time is the median of rounds in which the contenders take turns; warm-up and compilation do not
count, and each turn waits for the device.  All contenders multiply in full float32, unless
`--matmul-precision` lets all of them round factors.  (Only dualnet rounds to bfloat16; torch rounds
to TF32 at most.)  `floor` is a time that no step can beat whose arrays lie in the device's memory:
that of its arithmetic at the rate of the largest matrix product measured here, or that of its bytes
at the rate of the largest copy, whichever is longer.  `--host --small` runs the same code on the
host, to see that it works.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import take_turns
from dualnet import Key, backends
from dualnet.backends import Backend
from dualnet.backends.overridable import matmul
from dualnet.errors import DualnetError

TRAIN = str(Path(__file__).parent.parent / "train.py")
FILE = Path(__file__).parent / "results" / "gpu.json"

TIMED = ("mlp", "networks", "conv", "norm", "draws")
"""The sections of `benchmarks.gpu_workloads`."""

SECTIONS = (*TIMED, "kernels", "train", "check", "tests")
"""All sections, in the order in which they come."""

SECONDS_OF_A_WORKLOAD = 4.0
"""After these, a workload that was timed in three rounds gets no more of them."""


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
        host: contender → the seconds in which the host starts its work, if it can tell.
        failed: contender → why it could not run, or what it does instead of the same work.
    """

    what: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    floor: float
    share: float | None
    memory: dict[str, int]
    host: dict[str, float]
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
    copy = np.empty_like(a)  # once, as taking memory anew is no part of the rate

    def waiting(work: Callable) -> Callable:
        """Return a function that does the work and waits until it is done."""

        def work_and_wait() -> None:
            work()
            backend.synchronize()

        return work_and_wait

    contenders = {
        "product": waiting(lambda: matmul(a, a)),
        "copy": waiting(lambda: np.copyto(copy, a)),
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
    able, failed = {}, dict(workload.failed)
    for name, work in workload.contenders.items():
        try:
            work()
            able[name] = work
        except Exception as error:  # of any kind, from a compiler or a library
            failed[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
    turns = take_turns(able, rounds, limit=SECONDS_OF_A_WORKLOAD) if able else {}
    seconds = {name: s / workload.times for name, s in turns.items()}
    ours = {name: s for name, s in seconds.items() if name.startswith("dualnet")}
    peers = [s for name, s in seconds.items() if name not in ours and name not in failed]
    ratios = {name: min(peers) / s for name, s in ours.items()} if peers else {}
    floor = peaks.floor(workload.flops, workload.bytes)
    return Outcome(
        what=workload.what,
        seconds=seconds,
        ratios=ratios,
        floor=floor,
        share=floor / min(ours.values()) if ours else None,
        memory={name: tell() for name, tell in workload.memory.items()},
        host={name: tell() for name, tell in workload.host.items() if name in able},
        failed=failed,
    )


def line(outcome: Outcome) -> str:
    """Format the lines of the table for one workload."""
    times = "  ".join(f"{name} {1e3 * s:.3f}" for name, s in outcome.seconds.items())
    ratios = ", ".join(f"{name} {r:.2f}" for name, r in outcome.ratios.items())
    lines = [f"{outcome.what}\n    ms: {times}  (floor {1e3 * outcome.floor:.3f})"]
    lines += [f"    ratio: {ratios}"] if ratios else []
    host = "  ".join(f"{name} {1e3 * s:.3f}" for name, s in outcome.host.items())
    lines += [f"    ms of the host: {host}"] if host else []
    lines += [f"    {name} cannot: {why}" for name, why in outcome.failed.items()]
    return "\n".join(lines)


def chosen(names_and_makers: Iterable[tuple], words: list[str]) -> list[tuple]:
    """Return the entries whose name holds one of the words; all of them if there are no words."""
    return [
        entry
        for entry in names_and_makers
        if not words or any(word.lower() in entry[0].lower() for word in words)
    ]


def timings(
    section: str, backend: Backend, args: argparse.Namespace, peaks: Peaks, deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure and print each workload of a section until the deadline.

    Yields:
        The figures of each workload as a dict for JSON; for one that failed, the reason.
    """
    try:
        from benchmarks.gpu_workloads import workloads

        makers = chosen(
            workloads(section, backend, args.small, args.matmul_precision, args.compile), args.only
        )
    except Exception as error:  # a peer is not installed, or not built for this card
        yield failure(section, error)
        return
    for i, (name, make) in enumerate(makers):
        if time.perf_counter() > deadline:
            yield {"what": f"{section}: out of time for {len(makers) - i} more"}
            return
        began = time.perf_counter()
        try:
            outcome = measure(make(), peaks, args.rounds)
        except Exception as error:
            yield failure(name, error)
            continue
        print(line(outcome), flush=True)
        yield {"section": section, **asdict(outcome), "took": time.perf_counter() - began}


def kernels(
    backend: Backend, args: argparse.Namespace, deadline: float
) -> Iterator[dict[str, Any]]:
    """Watch the steps of the networks kernel by kernel until the deadline, and print the longest.

    Yields:
        For each contender of each network what `gpu_networks.by_kernel` returns.
    """
    try:
        from benchmarks import gpu_networks as networks
        from benchmarks.gpu_workloads import round_alike
        from benchmarks.network_steps import free

        round_alike(backend, args.matmul_precision)
    except Exception as error:  # a peer is not installed, or not built for this card
        yield failure("kernels", error)
        return
    table = networks.SMALL if args.small else networks.NETWORKS
    for name, (flags, own) in chosen(table.items(), args.only):
        free(backend)
        try:
            for contender, seen in networks.profiles(backend, flags, own):
                if time.perf_counter() > deadline:
                    yield {"what": f"kernels: out of time in {name}"}
                    return
                print(by_kernel(f"{name}, {contender}", seen), flush=True)
                yield {"section": "kernels", "what": name, "contender": contender, **seen}
        except Exception as error:
            yield failure(f"kernels of {name}", error)


def by_kernel(what: str, seen: dict[str, Any], count: int = 8) -> str:
    """Format the lines of the table for the kernels of one contender's step."""
    head = f"{what}: {seen['kernels']:.0f} kernels a step, {1e3 * seen['seconds']:.3f} ms of them"
    rows = [
        f"    {1e6 * kernel['seconds']:9.1f} us {kernel['calls']:7.1f} x  {kernel['name'][:80]}"
        for kernel in seen["longest"][:count]
    ]
    return "\n".join([head, *rows])


def failure(what: str, error: Exception) -> dict[str, Any]:
    """Print why something failed, and return the dict that takes the place of its figures."""
    why = f"{type(error).__name__}: {str(error).strip()[:300]}"
    if isinstance(error, ImportError):
        why += '; torch and JAX come with python -m pip install -e ".[bench]" in the checkout'
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


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="in workloads' names")
    parser.add_argument("--out", type=Path, help="default results/gpu.json, or gpu-tf32.json …")
    parser.add_argument("--seconds", type=float, default=570.0, help="for all sections together")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--host", action="store_true", help="run on the host: NumPy, and the peers' CPU builds"
    )
    parser.add_argument("--matmul-precision", choices=backends.MATMUL_PRECISIONS, default="full")
    parser.add_argument("--small", action="store_true", help="small sizes, no tests")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks, too")
    args = parser.parse_args(argv)
    if args.host and args.matmul_precision != "full":
        parser.error(f"--matmul-precision {args.matmul_precision} is for a device")
    if args.sections is None:
        args.sections = [*TIMED, "kernels"] if args.small else SECTIONS
    if args.out is None:
        ending = "" if args.matmul_precision == "full" else f"-{args.matmul_precision}"
        args.out = FILE.with_stem(FILE.stem + ending)
    return args


def commands(args: argparse.Namespace, runs: Path) -> dict[str, dict[str, list[str]]]:
    """Return for each section that is commands their names and arguments.

    Args:
        args: the flags of this command.
        runs: a folder for runs.
    """
    name = "numpy" if args.host else "cupy"
    rounding = [] if args.matmul_precision == "full" else [f"--{args.matmul_precision}"]
    train = [TRAIN, "--backend", name, *rounding, "--json", "--quiet", "--run-dir"]
    plain = {} if args.host else {"training, plain": [*train, str(runs / "plain"), "--no-graph"]}
    return {
        "train": {"training": [*train, str(runs / "recorded")], **plain},
        "check": {"check": ["-m", "dualnet.check", "--backend", name, "--json"]},
        "tests": {
            "tests": ["-m", "pytest", "-m", "gpu", "-q", "--tb=line", "-p", "no:cacheprovider"]
        },
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the chosen sections and return what the JSON file holds."""
    args = parsed(argv)
    # This must be set before JAX is first imported: else JAX takes most of the card's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    deadline = time.perf_counter() + args.seconds
    name = "numpy" if args.host else "cupy"
    backend = backends.get(name, matmul_precision=args.matmul_precision)
    how = {"backend": name, "matmul_precision": args.matmul_precision, "small": args.small}
    result: dict[str, Any] = {**how, **surroundings(backend)}

    def write() -> None:
        """Write what is known so far."""
        args.out.write_text(json.dumps(result, indent=2) + "\n")

    peaks = measured_peaks(backend, 256 if args.small else 8192, args.rounds)
    print(f"{1e-12 * peaks.flops:.1f} TFLOP/s, {1e-12 * peaks.bytes:.2f} TB/s", flush=True)
    result |= {"peaks": asdict(peaks), "timings": [], "kernels": []}
    write()
    by_command = commands(args, Path(tempfile.mkdtemp(prefix="dualnet-")))
    for section in (section for section in SECTIONS if section in args.sections):
        if section in TIMED:
            for timing in timings(section, backend, args, peaks, deadline):
                result["timings"].append(timing)
                write()
        elif section == "kernels":
            for seen in kernels(backend, args, deadline):
                result["kernels"].append(seen)
                write()
        for part, arguments in by_command.get(section, {}).items():
            result[part] = command(arguments, deadline - time.perf_counter())
            print(f"{part}: exit code {result[part]['exit_code']}", flush=True)
            write()
    return result


if __name__ == "__main__":
    try:
        main()
    except DualnetError as error:  # CuPy is missing, or has no device
        raise SystemExit(f"benchmarks.gpu: {error}") from None
