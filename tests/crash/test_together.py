"""Runs that begin at the same moment: each has a folder of its own, or one of them goes on."""

import shutil

import pytest

from crash.forked import Fault, Job
from crash.run_states import contents

ARGV = ("train", "--quiet", "--limit-train", "60", "--limit-test", "20", "--width", "6")
SHORT = (*ARGV, "--epochs", "1")
LONG = (*ARGV, "--epochs", "40", "--batch-size", "10")
"""It takes so long that the other begins before it ends."""
TOGETHER = 8


@pytest.fixture
def begun(server, tmp_path):
    """A folder with a run that was killed."""
    folder = tmp_path / "begun"
    folder.mkdir()
    server.run(Job((*LONG, "--run-dir", "run"), folder, Fault.KILL, 150))
    return folder


def each_has_its_own(server, folder):
    """Begin eight runs that are told no folder."""
    folder.mkdir()
    done = server.run(*[Job((*SHORT, "--seed", str(i)), folder) for i in range(TOGETHER)])
    assert [(one.code, one.err) for one in done] == [(0, "")] * TOGETHER
    runs = [contents(path) for path in (folder / "runs").iterdir()]
    assert len(runs) == TOGETHER
    assert {run["config.json"]["seed"] for run in runs} == set(range(TOGETHER))
    for run in runs:
        assert run["summary.json"]["seed"] == run["config.json"]["seed"]
        assert len(run["metrics.csv"]) == 1


def one_of_two_goes_on(server, folder, argv):
    """Do a command twice at once."""
    done = sorted(server.run(Job(argv, folder), Job(argv, folder)))
    assert [one.code for one in done] == [0, 2], [one.err for one in done]
    (said,) = done[1].err.splitlines()
    assert "process" in said and "has it" in said, said
    assert contents(folder)["run/summary.json"]["epochs"] == 40


def test_runs_of_the_same_second_have_folders_of_their_own(server, tmp_path):
    each_has_its_own(server, tmp_path / "work")


def test_one_of_two_new_runs_in_a_folder_goes_on(server, tmp_path):
    one_of_two_goes_on(server, tmp_path, (*LONG, "--run-dir", "run"))


def test_one_of_two_resumes_goes_on(server, begun):
    one_of_two_goes_on(server, begun, ("train", "--resume", "run", "--quiet"))


@pytest.mark.slow
def test_a_hundred_rounds_of_the_same_second(server, tmp_path):
    for i in range(100):
        each_has_its_own(server, tmp_path / str(i))


@pytest.mark.slow
def test_fifty_rounds_of_two_in_one_folder(server, tmp_path, begun):
    for i in range(50):
        folder = tmp_path / str(i)
        folder.mkdir()
        one_of_two_goes_on(server, folder, (*LONG, "--run-dir", "run"))
        again = tmp_path / f"{i}, again"
        shutil.copytree(begun, again)
        one_of_two_goes_on(server, again, ("train", "--resume", "run", "--quiet"))
