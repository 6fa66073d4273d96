"""Runs of many kinds that are killed at any moment, again and again, lose at most the interval."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from crash.forked import Job
from crash.run_states import contents, leftovers

EVERY = 3
"""Steps from one checkpoint to the next."""
PER_EPOCH = 8
DIGITS = (
    *("train", "--dataset", "digits", "--limit-train", "150", "--quiet"),
    *("--batch-size", "20", "--checkpoint-every", str(EVERY), "--run-dir", "run"),
)
KINDS = {
    "activities, gradient statistics": "--rule fg-a --width 8 --grad-stats 3 --epochs 4",
    "weights, rank-one, projection": (
        "--rule fg-w --tangents 4 --sampler rank-one --aggregate projection --width 8 "
        "--optimizer momentum --schedule linear --epochs 5"
    ),
    "batch norm, residual": "--rule bp --model resnet --depth 2 --width 4 --epochs 3",
    "augmentation, steps left out": (
        "--rule bp --width 8 --augment flip-crop --optimizer adam --on-nan skip --epochs 5"
    ),
    "contrastive, local heads": (
        "--rule lg-fg-a --model local-mixer --patches 2 --width 8 --depth 1 --groups 2 "
        "--objective contrastive --augment flip-crop --epochs 3"
    ),
    "mixer": "--rule dfa --model mlp-mixer --patch 4 --width 8 --depth 1 --epochs 3",
    "attention": "--rule bp --model vit --patch 4 --width 8 --depth 1 --heads 2 --epochs 3",
    "feedback that learns": "--rule fdfa --width 8 --optimizer lars --schedule cosine --epochs 5",
    "early stop": (
        "--rule bp --width 8 --lr 0.5 --limit-train 200 --validation 50 --early-stop 2 --epochs 9"
    ),
    "several seeds": "--rule fg-a --width 8 --seeds 0 1 --epochs 4",
}
"""What is special → the flags."""


@dataclass(frozen=True)
class Whole:
    """A run that nothing happens to."""

    argv: tuple[str, ...]
    after: dict
    seconds: float


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


_wholes: dict[str, Whole] = {}


def whole(kind, server, place):
    """The undisturbed run of a kind, made once."""
    if kind not in _wholes:
        folder = place / kind
        folder.mkdir()
        argv = (*DIGITS, *KINDS[kind].split())
        (done,) = server.run(Job(argv, folder))
        assert done.code == 0, done.err
        again = place / f"{kind}, again"  # the first of a kind takes longer
        again.mkdir()
        (timed,) = server.run(Job(argv, again))
        assert contents(again) == contents(folder)
        _wholes[kind] = Whole(argv, contents(folder), min(done.seconds, timed.seconds))
    return _wholes[kind]


def last_step(folder):
    """The number of steps that are in the checkpoint with the fewest, or None without any."""
    found = []
    for file in folder.glob("run/**/checkpoint.npz"):
        with np.load(file) as archive:
            epoch, step = archive["position:"]
        found.append(epoch * PER_EPOCH + step)
    return min(found, default=None)


def killed_again_and_again(kind, server, place, rng):
    """Kill a run up to three times, and compare what it ends with; return how often it was."""
    one = whole(kind, server, place)
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        folder, steps = Path(temporary) / "work", Path(temporary) / "steps"
        folder.mkdir()
        argv, kills = one.argv, 0
        for moment in (*rng.uniform(0, one.seconds, size=rng.integers(1, 4)), None):
            before = last_step(folder) or 0
            steps.unlink(missing_ok=True)
            (done,) = server.run(Job(argv, folder, kill_after=moment, steps=steps))
            if done.code == -9:
                kills += 1
                made = int(np.fromfile(steps, np.int64).sum()) if steps.exists() else 0
                made //= 2 if "--seeds" in one.argv else 1  # one count for both
                lost = before + made - (last_step(folder) or 0)
                assert lost <= EVERY, f"{lost} steps lost"
            else:
                assert done.code == 0, done.err
            begun = [f for f in ("config.json", "seeds.json") if (folder / "run" / f).exists()]
            argv = ("train", "--resume", "run", "--quiet") if begun else one.argv
        assert contents(folder) == one.after
        assert not leftovers(folder)
    return kills


def test_a_run_that_is_killed_ends_with_the_same_numbers(server, place, rng):
    kind = str(rng.choice(list(KINDS)))
    print(kind)
    killed_again_and_again(kind, server, place, rng)


@pytest.mark.slow
def test_a_hundred_runs_that_are_killed_end_with_the_same_numbers(server, place, rng):
    ended = kills = 0
    for i in range(100):
        kind = list(KINDS)[i % len(KINDS)]
        try:
            kills += killed_again_and_again(kind, server, place, rng)
            ended += 1
        except AssertionError as error:
            print(f"{kind}: {str(error)[:500]}")
    print(f"{ended} of 100 runs of {len(KINDS)} kinds, which were killed {kills} times")
    assert ended == 100
