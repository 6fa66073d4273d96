"""Time training steps of every network of the papers, beside torch and JAX.

    python -m benchmarks.networks [--rounds N] [--networks WORD …] [--threads 1 2]
                                  [--sections backprop tangents] [--json FILE] [--picture FILE]

It needs Linux and the extra `bench`.  A step is a whole one: draw, measure, estimate, update.  In
section `backprop`, dualnet learns by `bp`, `fg-a`, `fdfa` and, on one thread, the rule of the
network's own paper, and torch (in both layouts of images) and jitted JAX by backpropagation.  In
section `tangents`, all make forward gradients of the weights with 16 tangents: the peers by `vmap`
of `jvp` with dense normal ones, dualnet with such ones and with outer products of signs.

A process of its own times the contenders of one network, which take turns.  It has so many cores,
and each contender so many threads, as `--threads` says.  Printed are medians, ratios (a peer's time
over ours, above 1 where dualnet is faster; and ours over that of our `bp`), the floor, which is the
time of torch's multiplications and additions at the rate of a large product in the same turns, and
the memory that a contender held beyond what it began with.  A contender that cannot take part is
named, with the reason.  `--json` keeps the rows that the file has of other networks, and is written
after each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import chosen
from benchmarks.network_turns import K, Work
from benchmarks.peers import require
from dualnet.training.surroundings import surroundings

SECTIONS = ("backprop", "tangents")
FORWARD = (f"fg-w --tangents {K} --sampler rank-one", f"fg-w --tangents {K}")
"""The rules of section `tangents`."""

_DENSE = "fg-w --tangents 4 --aggregate projection"  # FROG's


@dataclass(frozen=True)
class Network:
    """A network of a paper.

    Attributes:
        flags: of `train.py`, without a rule and the batch size.
        own: the rule of its own paper, with its flags.
        batch: examples of a step.
        batch_of_tangents: those of a step with 16 tangents, fewer where a round of turns would
            take minutes.
    """

    flags: str
    own: str
    batch: int
    batch_of_tangents: int | None = None

    def work(self, name: str, section: str, threads: int, args: argparse.Namespace) -> Work:
        """Return what is to be timed."""
        forward = section == "tangents"
        batch = self.batch_of_tangents or self.batch if forward else self.batch
        own = (self.own,) if threads == 1 else ()
        rules = FORWARD if forward else tuple(dict.fromkeys(("bp", "fg-a", "fdfa", *own)))
        flags = f"{self.flags} --batch-size {batch}"
        return Work(name, flags, rules, section, threads, args.rounds, args.seconds)


_CNN = "--model cnn --dataset mnist"
_FDFA = "fdfa --sampler normal"
"""As in the paper; our own default is signs."""
NETWORKS: dict[str, Network] = {
    "MLP 784-1024-1024-10": Network("--model mlp --width 1024 --dataset mnist", _DENSE, 128),
    "FDFA CNN": Network(_CNN, _FDFA, 128),
    "FDFA CNN, published code": Network(f"{_CNN} --plan 15C5-40C5-P2-128 --batch-norm", _FDFA, 32),
    "LeNet5": Network("--model lenet5 --dataset mnist", _DENSE, 128),
    "CNN4": Network("--model cnn4 --dataset mnist", "fg-w", 32),
    "DKH ResNet": Network("--model resnet --dataset mnist", "fg-a-cv", 32),
    "LocalMixer M/1/16": Network("--recipe ren-m-1-16-mnist-lg-fg-a", "lg-fg-a", 128),
    "ViT": Network("--model vit --dataset cifar10", _DENSE, 32, 8),
    "ResNet18, 3x3 stem": Network("--model resnet18 --dataset cifar10", _DENSE, 16, 4),
    "MLP-Mixer": Network("--model mlp-mixer --dataset cifar10", _DENSE, 8, 4),
    "AlexNet": Network("--model alexnet --dataset cifar100 --image-size 224", _FDFA, 8, 2),
}

_FEW = "--dataset digits"
SMALL: dict[str, Network] = {
    "MLP": Network(f"{_FEW} --width 16", "lg-fg-a", 4),
    "CNN": Network(f"{_FEW} --model cnn --plan 4C3-P2-8 --batch-norm", "fdfa", 4),
}
"""Likewise, to see that the code works."""


def in_a_process(work: Work, folder: Path) -> dict[str, Any]:
    """Return the figures of the contenders of one network, which are timed in a new process.

    Args:
        work: what is timed; the process has as many cores as contenders have threads.
        folder: for what JAX compiles, and the figures.
    """
    cores = sorted(os.sched_getaffinity(0))[-work.threads :]
    out = folder / "figures.json"
    out.unlink(missing_ok=True)
    # A number that is given there holds for networks of all sizes, so several threads have none.
    around = {
        name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")
    }
    limits = {"OPENBLAS_NUM_THREADS": "1"} if work.threads == 1 else {}
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.network_turns"),
            *(json.dumps(asdict(work)), str(folder / "compiled"), str(out)),
        ],
        env={**around, "PYTHONPATH": os.pathsep.join(sys.path), **limits},
        preexec_fn=partial(os.sched_setaffinity, 0, cores),
        capture_output=True,
        text=True,
    )
    if ended.returncode or not out.exists():
        why = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        return {**asdict(work), "seconds": {}, "failed": {"all": f"{why} ({ended.returncode})"}}
    return json.loads(out.read_text())


# --- what the figures say -------------------------------------------------------------------------


def fastest(row: dict[str, Any], who: str) -> str | None:
    """Return which of a row's contenders of a name is the fastest, such as a layout of torch.

    With several threads, those of dualnet are a rule, and the same with shards.
    """
    names = (n for n in row["seconds"] if n == who or n.startswith((f"{who}, sh", f"{who}, ch")))
    return min(names, key=row["seconds"].__getitem__, default=None)


def best(row: dict[str, Any], who: str) -> float | None:
    """Return the time of the fastest contender of a name; None if there is none."""
    name = fastest(row, who)
    return None if name is None else row["seconds"][name]


def ratio(over: float | None, under: float | None) -> float | None:
    """Return the quotient of two times; None where one is unknown."""
    return over / under if over and under else None


def ratios(row: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return for each rule each peer's time over ours, and for rules but `bp` ours over that."""
    peers, by_bp = {who: best(row, who) for who in ("torch", "jax")}, best(row, "dualnet bp")
    found: dict[str, dict[str, float | None]] = {}
    for rule in row["rules"]:
        ours = best(row, f"dualnet {rule}")
        found[rule] = {who: ratio(theirs, ours) for who, theirs in peers.items()}
        found[rule] |= {"bp": ratio(ours, by_bp)} if rule != "bp" else {}
    return found


def lines(row: dict[str, Any]) -> str:
    """Format what is printed of a row."""
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    head = f"{row['network']}, {row['section']}, {threads}"
    if not row["seconds"]:
        return f"{head} cannot: {row['failed']}"
    shown = [f"{head}, batch {row['batch']}, {row['turns']} turns, {row['took']:.0f} s"]
    shown += [f"    floor {1e3 * row['floor']:.1f} ms"] if row["floor"] else []
    of_rules = ratios(row)
    for name, seconds in row["seconds"].items():
        rule = name.removeprefix("dualnet ").removesuffix(", shards")
        found = of_rules.get(rule, {}) if name.startswith("dualnet") else {}
        said = "  ".join(f"{who} {x:.2f}" for who, x in found.items() if x is not None)
        mebibytes = row["memory"][name] / 2**20
        shown.append(f"    {name:56} {1e3 * seconds:9.1f} ms {mebibytes:7.0f} MiB   {said}")
    return "\n".join([*shown, *(f"    {n} cannot: {why}" for n, why in row["failed"].items())])


def kind(row: dict[str, Any]) -> tuple:
    """Return what tells a row from the others of a file."""
    return row["section"], row["threads"], row["network"]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order of sections, threads and networks."""
    names = [*NETWORKS, *SMALL]
    return sorted(
        rows, key=lambda r: (SECTIONS.index(r["section"]), r["threads"], names.index(r["network"]))
    )


# --- the command ----------------------------------------------------------------------------------


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each; default 9")
    parser.add_argument("--networks", nargs="+", default=[], metavar="WORD", help="in their names")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], choices=(1, 2))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="after which a network gets no more than three turns of each; default 60",
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--picture", type=Path, help="also draw them: a file .svg or .png")
    parser.add_argument("--small", action="store_true", help="small networks, to try the code")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure, print and write row by row, and return all rows that the file has."""
    rows = {}
    if args.json and args.json.exists():
        rows = {kind(row): row for row in json.loads(args.json.read_text())["rows"]}
    around = surroundings()
    told = {"machine": {**around["machine"], "name": processor()}}
    for section in args.sections:
        for threads in args.threads:
            for name, network in chosen((SMALL if args.small else NETWORKS).items(), args.networks):
                row = in_a_process(network.work(name, section, threads, args), folder)
                row |= {"when": time.strftime("%Y-%m-%d %H:%M"), "versions": versions(around)}
                print(lines(row), flush=True)
                rows[kind(row)] = row
                if args.json:
                    found = {**told, "rows": in_order(list(rows.values()))}
                    args.json.write_text(json.dumps(found, indent=2) + "\n")
    return in_order(list(rows.values()))


def processor() -> str:
    """Return the name of the processor."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown processor"


def versions(around: dict[str, Any]) -> dict[str, Any]:
    """Return the versions of all that is compared, and the commit."""
    from importlib.metadata import version

    return {**around["versions"], **{name: version(name) for name in ("torch", "jax")}}


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Read the command line and measure."""
    args = parsed(argv)
    require("benchmarks.networks", "torch", "jax")
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("benchmarks.networks needs Linux, which can hold a process to some cores")
    if max(args.threads) > len(os.sched_getaffinity(0)):
        raise SystemExit(
            f"benchmarks.networks: --threads {max(args.threads)}: there are fewer cores"
        )
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    if args.picture:
        from benchmarks.performance import draw

        draw(rows, args.picture)
    return rows


if __name__ == "__main__":
    main()
