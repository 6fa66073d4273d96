"""What `--profile` tells: the time of a step in each process, and which process is slow."""

import json
import re
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mpi_runs import SHARED, kept
from test_processes import together

import dualnet as dn
from dualnet import tree
from dualnet.backends import mpi
from dualnet.backends.timed_processes import TimedProcesses
from dualnet.command import train
from dualnet.console import exit_code
from dualnet.errors import UsageError
from dualnet.learning import Backprop
from dualnet.training import run
from dualnet.training.measured import measured_in
from dualnet.training.step_times import StepTimes, is_slow, told

PAGE = Path(__file__).parent.parent / "docs/scale.md"
COMMUNICATION = 0.00041


class OnClocks:
    """Processes that threads stand for, each with a clock of its own, which only the test moves.

    They meet at the latest of their times, and an exchange takes all of them equally long.
    """

    def __init__(self, pretended):
        self._pretended = pretended
        self.now, self.bytes_given = 0.0, 0

    def __getattr__(self, name):
        return getattr(self._pretended, name)

    def wait_for_all(self):
        times = np.zeros(self.size)
        times[self.rank] = self.now
        self.now = float(self._pretended.add(times).max())

    def add(self, one):
        self.bytes_given += sum(np.asarray(leaf).nbytes for leaf in tree.leaves(one))
        self.now += COMMUNICATION
        return self._pretended.add(one)


def profiled(compute):
    """The line and the summary after an epoch of processes that compute so long in each step.

    Args:
        compute: seconds, (processes, steps).
    """

    def one(pretended):
        processes = OnClocks(pretended)
        timed = TimedProcesses(processes, clock=lambda: processes.now)
        times = StepTimes(timed)
        for seconds in compute[processes.rank]:
            processes.now += seconds
            timed.add(np.zeros(3))
            times.step()
        processes.now += processes.rank + 3.0  # an evaluation and what comes after it are no steps
        timed.add(np.zeros(2))
        line = times.epoch()
        assert times.bytes_given == 8 * 4 * processes.size
        processes.now += 7.0
        times.begin()
        return line, times.summary()["profile"]

    answers = together(len(compute), one)
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def test_the_slow_process_is_named():
    compute = np.full((4, 20), [[0.012], [0.0128], [0.031], [0.0125]])
    line, profile = profiled(compute)
    assert line == "process 2 is slow: compute 31 ms, the others 12 to 13; they wait 18 to 19"
    assert line in PAGE.read_text(encoding="utf-8")
    for row, seconds in zip(profile, compute[:, 0], strict=True):
        expected = {"compute": seconds, "wait": 0.031 - seconds, "communication": COMMUNICATION}
        assert row == pytest.approx(expected, abs=1e-9)


def test_the_other_one_of_two_waits():
    line, _ = profiled(np.full((2, 5), [[0.4], [0.2]]))
    assert line == "process 0 is slow: compute 400 ms, the other 200; it waits 200"


def test_processes_that_are_about_equal_are_not_named():
    line, _ = profiled(np.full((3, 20), [[0.0124], [0.012], [0.0131]]))
    assert line == "none stands out: compute 12 to 13 ms, wait up to 1.1, communication up to 0.41"
    assert line in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("held_up", "slow"),
    [(slice(0, 1), False), (slice(0, 40, 10), False), (slice(None, None, 7), True)],
    ids=["one step", "four steps", "each seventh step"],
)
def test_who_is_held_up_again_and_again_is_slow_and_who_is_once_is_not(held_up, slow):
    compute = np.full((3, 420), 0.01)
    compute[1, held_up] += 0.04 if slow else 2.0
    line, profile = profiled(compute)
    assert line.startswith("process 1 is slow" if slow else "none stands out")
    assert profile[1]["compute"] == pytest.approx(compute[1].mean())
    assert profile[1]["compute"] > 1.25 * profile[0]["compute"]


def test_few_steps_name_nobody():
    assert profiled(np.full((2, 4), [[0.01], [0.03]]))[0].startswith("none")
    assert profiled(np.full((2, 5), [[0.01], [0.03]]))[0].startswith("process 1 is slow")


def test_by_chance_nobody_is_slow(rng):
    """As the comment on `SURE` says; six of these happen less than once in a million times."""
    steps = rng.lognormal(0.0, 0.3, (20_000, 2, 10))
    errors = steps.std(2, ddof=1) / 10**0.5
    assert sum(map(is_slow, steps.mean(2), errors)) < 6


def test_an_epoch_that_goes_on_after_its_last_step_tells_nothing():
    times = StepTimes(TimedProcesses(dn.backends.processes.ALONE))
    assert times.epoch() == "" and times.summary() == {}


def test_the_line_is_short(rng):
    for size in (1, 2, 10_000):
        for scale in (1e-5, 1e-2, 1e2):
            seconds = scale * rng.lognormal(0.0, 1.0, (size, 3))
            for errors in (np.zeros(size), np.full(size, np.inf)):
                assert max(map(len, told(seconds, errors).splitlines())) <= 80


def test_a_run_is_profiled_step_by_step(monkeypatch, rng, capsys):
    """By threads: 8 steps in each of 2 epochs of 60 examples, and what their clocks say of them."""
    x = rng.normal(size=(60, 5)).astype(np.float32)
    examples = x, (x[:, 0] > 0).astype(int)
    here = threading.local()
    monkeypatch.setattr(mpi, "world", lambda *_: here.processes)
    how = {"width": 8, "rule": "bp", "epochs": 2, "batch_size": 8, "seed": 3}

    def one(pretended):
        here.processes = OnClocks(pretended)
        of_first = {"callbacks": [look]} if pretended.rank == 0 else {}
        return dn.fit("mlp", examples, **how, **of_first, processes="mpi", profile=True)

    def look(row):  # between epochs
        here.processes.now += 1000.0

    def measure(self, *args):
        here.processes.now += 0.25 * (1 + here.processes.rank)
        return measured(self, *args)

    measured = Backprop.measure
    monkeypatch.setattr(Backprop, "measure", measure)
    by_its_clock = lambda one: TimedProcesses(one, lambda: one.now)  # noqa: E731
    monkeypatch.setattr(run, "TimedProcesses", by_its_clock)
    ran = together(2, one)
    assert capsys.readouterr().out.count("process 1 is slow: compute 500 ms, the other 250") == 2
    assert ran[0].summary["profile"] == ran[1].summary["profile"]
    assert [row["compute"] for row in ran[0].summary["profile"]] == pytest.approx([0.25, 0.5])


def test_a_profile_that_cannot_be_one_is_not_kept():
    row = {"compute": 0.1, "wait": 0.0, "communication": 0.01}
    assert measured_in({"profile": [row, row]}) == {"profile": [row, row]}
    for wrong in (None, [], {}, [1.0], "x", [{}], [row, {**row, "wait": -1.0}]):
        assert measured_in({"profile": wrong}) == {}
    for x in (float("nan"), float("inf"), "0", True, None):
        assert measured_in({"profile": [{**row, "wait": x}]}) == {}


@pytest.mark.parametrize("flags", [(), ("--describe",), ("--seeds", "1", "2"), ("--rates", "0.1")])
def test_one_process_has_no_profile(flags, capsys):
    assert exit_code("dualnet train", train.main, ["--profile", *flags]) == 2
    says = "--profile is of no use to one process; add --processes mpi"
    assert says in capsys.readouterr().err
    with pytest.raises(UsageError, match="profile=True is of no use to one process; add processes"):
        dn.fit("mlp", "digits", profile=True)


# --- by MPI ---------------------------------------------------------------------------------------

PLUGIN = """
import time
from dualnet.backends import mpi
from dualnet.learning import RULES, Backprop

class Sleeps(Backprop):
    def measure(self, plan, learner, directions, shard):
        time.sleep({seconds})
        return super().measure(plan, learner, directions, shard)

RULES["sleeps"] = Sleeps
"""
LINE = re.compile(r"^(?:process (\d) is slow|none stands out): compute", re.M)


@pytest.fixture
def sleeping(mpiexec, tmp_path):
    """`sleeping(size, seconds, *flags)`: a run of processes whose steps sleep so long, each."""

    def start(size, seconds, *flags):
        plugin = tmp_path / "sleeps.py"
        plugin.write_text(PLUGIN.format(seconds=seconds))
        loud = [word for word in SHARED if word != "--quiet"]
        done = mpiexec(size, *loud, "--plugin", plugin, "--rule", "sleeps", "--profile", *flags)
        assert done.returncode == 0, done.stderr
        return done

    return start


def test_a_process_that_sleeps_is_named_and_waited_for(sleeping, tmp_path):
    """Ten steps of 200 ms against steps of one or two; the machine would have to hold another
    process up for a second and more in each of two epochs."""
    done = sleeping(3, "0.2 * (mpi.world().rank == 1)", "--json", "--run-dir", tmp_path / "run")
    assert LINE.findall(done.stderr) == ["1", "1"]  # standard output is for the JSON alone
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())
    first, slow, last = summary["profile"]
    for other in (first, last):
        assert other["wait"] > 0.1 > other["compute"]
    assert slow["compute"] > 0.2 > slow["wait"]
    sums = [sum(row.values()) for row in summary["profile"]]
    np.testing.assert_allclose(sums, sums[0], rtol=0.1)  # all make the same steps


def test_processes_that_sleep_equally_long_are_not_named(sleeping, tmp_path):
    """Of ten steps of 50 ms the machine would have to hold up most, by 12 ms, in one process."""
    done = sleeping(2, 0.05, "--run-dir", tmp_path / "run")
    assert LINE.findall(done.stdout) == ["", ""]


def test_a_profile_changes_no_numbers_and_no_count_of_bytes(mpiexec, tmp_path):
    flags = ("--rule", "fg-a", "--schedule", "constant", "--json")
    plain = json.loads(mpiexec(2, *SHARED, *flags, "--run-dir", tmp_path / "plain").stdout)
    folder = tmp_path / "profiled"
    done = mpiexec(2, *SHARED, *flags, "--run-dir", folder, "--profile")
    profiled = json.loads(done.stdout)
    assert not LINE.search(done.stderr)  # --quiet
    assert len(profiled.pop("profile")) == 2 and "profile" not in plain
    assert profiled["bytes_per_step"] == plain["bytes_per_step"]
    resume = partial(mpiexec, 2, "-m", "dualnet", "train", "--json", "--quiet", "--resume")
    together = ("--processes", "mpi")
    again = json.loads(resume(folder, *together).stdout)  # it has reached its end
    assert len(again["profile"]) == 2
    resume(tmp_path / "plain", *together, "--epochs", 3)
    more = json.loads(resume(folder, *together, "--epochs", 3, "--profile").stdout)
    assert len(more["profile"]) == 2 and more["epochs"] == 3
    for path, x in kept(folder).items():
        assert np.array_equal(x, kept(tmp_path / "plain")[path]), path
