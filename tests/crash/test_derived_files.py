"""What follows from the checkpoint is written anew when a run goes on, whatever became of it."""

import shutil

import pytest

from crash.forked import Fault, Job
from crash.run_states import contents
from crash.scenarios import RUN, SMALL

DERIVED = ("metrics.csv", "gradients.csv", "summary.json", "curve.png", "gradients.png")
HARMS = {
    "gone": lambda path, rng: path.unlink(missing_ok=True),
    "empty": lambda path, rng: path.write_bytes(b""),
    "cut": lambda path, rng: path.write_bytes(path.read_bytes()[:-20]),
    "noise": lambda path, rng: path.write_bytes(rng.bytes(200)),
    "of another run": lambda path, rng: path.write_bytes(b'{"epochs": 7}\n'),
}


@pytest.fixture(scope="module")
def folders(server, tmp_path_factory):
    """A folder with a finished run, and one with the same run, which was killed within it."""
    finished, stopped = (tmp_path_factory.mktemp(name) for name in ("finished", "stopped"))
    argv = (*SMALL, "--epochs", "2", "--run-dir", RUN)
    (done,) = server.run(Job(argv, finished, pictures=True))
    assert done.code == 0, done.err
    server.run(Job(argv, stopped, Fault.KILL, len(done.operations) * 3 // 4, pictures=True))
    return finished, stopped


def test_a_run_that_goes_on_writes_them_anew(server, folders, tmp_path, rng):
    right = contents(folders[0])
    for begun in folders:
        folder = tmp_path / begun.name
        shutil.copytree(begun, folder)
        for name in DERIVED:
            harm = rng.choice(list(HARMS))
            print(f"{begun.name}: {name} {harm}")
            if (folder / RUN / name).exists():
                HARMS[harm](folder / RUN / name, rng)
        argv = ("train", "--resume", RUN, "--quiet")
        (done,) = server.run(Job(argv, folder, pictures=True))
        assert (done.code, done.err) == (0, "")
        assert contents(folder) == right
