"""Short runs of every rule and every network, to see whether they still give the same numbers.

    python -m experiments.same_numbers --out benchmarks/results/same_numbers.json   # records
    python -m experiments.same_numbers --against benchmarks/results/same_numbers.json

A change that should leave all results as they are is compared with the record of the commit before
it.  On the machine that made the record, results can be equal bit for bit; other processors sum in
another order.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dualnet.command.train import main as train
from dualnet.learning import RULES

NETWORKS = {
    "mlp": "--width 16 --depth 2",
    "mlp, batch norm": "--model mlp --width 16 --depth 2 --batch-norm",
    "cnn": "--model cnn --plan 4C3-P2-4C3-16",
    "cnn4": "--model cnn4 --plan 4C3-4C3-P2-4C3-4C3-P2-16 --image-size 16",
    "lenet5": "--model lenet5 --image-size 16",
    "alexnet": "--model alexnet --channels 3 --width 16 --image-size 64",
    "resnet": "--model resnet --width 3",
    "resnet18": "--model resnet18 --width 2 --image-size 16",
    "vit": "--model vit --width 8 --depth 2 --heads 2 --mlp-width 12",
    "mlp-mixer": "--model mlp-mixer --width 8 --depth 2 --token-width 6 --mlp-width 12",
    "local-mixer": "--model local-mixer --width 16 --patches 2 --groups 4 --depth 2",
}
_NORMAL = "--sampler normal"
OPTIONS = {
    "fg-w": ("--tangents 3 --sampler rank-one", "--tangents 3 --aggregate projection"),
    "fg-a": (
        f"{_NORMAL} --tangents 2",
        f"{_NORMAL} --tangents 2 --aggregate projection --perturb after",
    ),
    "fg-a-cv": (f"{_NORMAL} --guess fdfa", f"{_NORMAL} --guess last"),
    **dict.fromkeys(("lg-fg-a", "ap", "fdfa"), (_NORMAL,)),
}
BATCHES = "--limit-train 12 --limit-test 10 --batch-size 4 --epochs 1 --quiet"


def commands() -> Iterator[str]:
    """Yield the flags of every run."""
    for dtype in ("float32", "float64"):
        for network in NETWORKS.values():
            for rule in RULES:
                for options in OPTIONS.get(rule, ("",)):
                    yield " ".join(f"{network} --rule {rule} {options} --dtype {dtype}".split())
        yield (
            "--objective contrastive --model local-mixer --width 16 --patches 2 --groups 4 "
            f"--depth 2 --rule lg-fg-a {_NORMAL} --dtype {dtype}"
        )


def outcome(flags: str) -> dict:
    """Return how a run ends: its losses, and a digest and the sum of squares of its parameters."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):  # which is for differences alone
            train([*flags.split(), *BATCHES.split(), "--run-dir", folder])
        summary = json.loads((Path(folder) / "summary.json").read_text())
        with np.load(Path(folder) / "checkpoint.npz", allow_pickle=False) as archive:
            params = {n: archive[n] for n in sorted(archive.files) if n.startswith("params:")}
    digest = hashlib.blake2b(digest_size=8)
    for array in params.values():
        digest.update(array.tobytes())
    squares = sum(float(np.square(a, dtype=np.float64).sum()) for a in params.values())
    return {
        "command": flags,
        "train_loss": summary["train_loss"],
        "test_loss": summary["test_loss"],
        "squares": squares,
        "digest": digest.hexdigest(),
    }


def differences(old: dict, new: dict) -> float:
    """Return the largest relative difference of a run's figures; 0 if parameters agree in bits."""
    if old["digest"] == new["digest"]:
        return 0.0
    figures = ("train_loss", "test_loss", "squares")
    return max(abs(new[f] - old[f]) / abs(old[f]) for f in figures) or np.nextafter(0.0, 1.0)


def main() -> None:
    """Record or compare; the exit code is 1 if a run differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the record here")
    parser.add_argument("--against", type=Path, help="compare with this record")
    parser.add_argument("--only", default="", help="only runs whose flags contain this")
    args = parser.parse_args()
    recorded = json.loads(args.against.read_text()) if args.against else []
    known = {row["command"]: row for row in recorded}
    rows, same, off = [], 0, 0
    for flags in commands():
        if args.only not in flags:
            continue
        rows.append(outcome(flags))
        if flags not in known:
            continue
        difference = differences(known[flags], rows[-1])
        allowed = 1e-5 if "float32" in flags else 1e-12
        same += difference == 0.0
        off += difference > allowed
        if difference:
            print(f"{difference:.1e}{' FAILED' if difference > allowed else ''}  {flags}")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{len(rows)} runs; {same} of {len(known)} recorded ones the same bit for bit, {off} off")
    sys.exit(off > 0)


if __name__ == "__main__":
    main()
