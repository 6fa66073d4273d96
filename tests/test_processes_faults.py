"""Several processes of which one fails, is killed, or was given other things to do: all of them
end, the reason is said once, and a run goes on from its last checkpoint."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from mpi_runs import SHARED, kept

HAS_PROC = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="it looks for processes in /proc"
)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--rule", "nope"), 2, "--rule: expected one of"),
        (("--epochs", "x"), 2, "--epochs: expected an int, got 'x'"),
        (("--config", "nowhere.toml"), 2, "--config nowhere.toml: No such file"),
        (("--seeds", 1, 2), 2, "--seeds is of no use to --processes"),
        (("--rule", "bp", "--share", "tangents"), 2, "Backprop has no directions"),
        (("--threads", "auto"), 2, "several processes would choose differently"),
        (("--objective", "contrastive"), 2, "InfoNCE needs the whole batch"),
        (("--statistics", "all"), 2, "--statistics all is of no use to a network without batch"),
        (("--batch-norm", "--limit-train", 290), 2, "leaves a last batch of 2 of 290 images, and "),
        (("--rule", "bp", "--optimizer", "sgd", "--lr", 1e6), 4, "diverged"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_an_error_ends_all_processes_and_is_said_once(flags, code, says, mpiexec, tmp_path):
    done = mpiexec(3, *SHARED, *flags, "--run-dir", tmp_path / "run")
    assert done.returncode == code, done.stderr
    assert done.stderr.count(says) == 1


@pytest.mark.parametrize("flags", [("--describe",), ("--list",)], ids=str)
def test_what_the_command_only_tells_is_told_once(flags, mpiexec):
    done = mpiexec(2, *SHARED, *flags)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("^{|^recipe", done.stdout, re.M)) == 1


PROGRAM = """
import sys
import numpy as np
import dualnet as dn
from dualnet.backends import mpi

rank = mpi.world().rank
x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
y = (x[:, 0] > 0).astype(int)
{before}
run = dn.fit("mlp", (x, y), processes="mpi", width=8, lr=0.1, epochs=2, quiet=True, **settings)
best = float(np.sum(run.best.params["output"]["w"]))
print(f"best of {{rank}} {{best}}\\n", end="")  # in one piece, as all say it
"""


def raise_(what):
    return f"(_ for _ in ()).throw({what})"


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (f"settings = dict(callbacks=[lambda row: {raise_('ValueError(12)')}])", "ValueError: 12"),
        ("settings = dict(callbacks=[lambda row: sys.exit('leaving')])", "leaving"),
        ("settings = {}\nif rank: raise OSError('no disk')", "OSError: no disk"),
        ("settings = {}\nif rank: sys.exit(0)", "process 1 has ended, and process 0 waits for"),
        ("settings = dict(seed=rank)", "expected in process 1 the settings of the first one"),
        ("settings = dict(share=['batch', 'tangents'][rank], rule='fg-w')", "the settings of the"),
        ("settings = dict(profile=rank > 0)", "expected in process 1 the settings of the first"),
        ("settings = {}; x += rank", "expected in process 1 the examples of the first one"),
        ("settings = {}; x, y = x[rank:], y[rank:]", "give all processes the same examples"),
    ],
    ids=lambda text: text[:40],
)
def test_a_program_of_which_one_process_fails_ends(before, says, mpiexec, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(before=before))
    done = mpiexec(2, tmp_path / "program.py")
    assert done.returncode != 0
    assert says in done.stderr
    assert re.search("has (ended|met an error), and process", done.stderr)
    assert "best of" not in done.stdout


def test_a_program_goes_on_after_an_error_of_all_processes(mpiexec, tmp_path):
    refused = "try: dn.fit('mlp', (x, y), processes='mpi', rule='nope')\nexcept ValueError: pass"
    program = PROGRAM.format(before=f"settings = {{}}\n{refused}")
    (tmp_path / "program.py").write_text(program + refused)
    done = mpiexec(2, tmp_path / "program.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best of") == 2


def test_a_process_that_catches_an_error_of_its_own_does_not_go_on_alone(mpiexec, tmp_path):
    """Its next exchange would be taken for the one in which the others wait."""
    failing = f"callbacks=[lambda row: {raise_('ValueError')}]"
    caught = f"try: dn.fit('mlp', (x, y), processes='mpi', quiet=True, epochs=1, {failing})"
    program = PROGRAM.format(before=f"settings = {{}}\n{caught}\nexcept ValueError: pass")
    (tmp_path / "program.py").write_text(program)
    done = mpiexec(2, tmp_path / "program.py")
    assert done.returncode != 0
    assert "process 0 has met an error, and process 1 waits for its part" in done.stderr
    assert "process 0 has met an error that not all others have met" in done.stderr
    assert "best of" not in done.stdout


def test_all_processes_have_the_best_network_of_a_run_that_goes_on(mpiexec, tmp_path):
    folder = tmp_path / "run"
    settings = f"dict(run_dir={str(folder)!r}, resume=True, rule='bp', batch_size=4, validation=20)"
    labels = "y = np.random.default_rng(1).integers(2, size=60)"  # of which no epoch learns more
    program = PROGRAM.format(before=f"settings = {settings}; {labels}")
    (tmp_path / "program.py").write_text(program.replace("epochs=2", "epochs=int(sys.argv[1])"))
    for epochs in (10, 12):
        done = mpiexec(2, tmp_path / "program.py", epochs)
        assert done.returncode == 0, done.stderr
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] <= 10
    best = dict(re.findall(r"best of (\d) (.*)", done.stdout))
    assert best["0"] == best["1"]


def test_numbers_that_drift_apart_are_noticed(mpiexec, tmp_path):
    program = tmp_path / "drift.py"
    program.write_text(
        "import numpy as np\n"
        "from dualnet.backends import mpi\n"
        "from dualnet.training.shared_run import require_alike\n"
        "from dualnet.training.state import Carried\n"
        "world = mpi.world()\n"
        "state = {'mean': np.full(3, 1.0 + 1e-16 + world.rank * 2**-52), 'none': None}\n"
        "require_alike(Carried({}, state, {}, {}, {}), world)\n"
        "world.of_first(())\n"
    )
    done = mpiexec(2, program)
    assert done.returncode == 1
    assert "expected in process 1 the parameters and states of the first one" in done.stderr


def test_all_kinds_of_leaves_are_added_up(mpiexec, tmp_path):
    program = tmp_path / "sums.py"
    program.write_text(
        "import numpy as np\n"
        "from dualnet.backends import mpi\n"
        "world = mpi.world()\n"
        "for n in (3, 100_000):\n"
        "    for dtype in ('float16', 'float32', 'float64', 'bool', 'int8', 'int64'):\n"
        "        one = {'many': np.ones((2, n), dtype).T, 'one': 1, 'none': None, 'empty': []}\n"
        "        one['half'] = 0.5\n"
        "        two = world.add(one)\n"
        "        assert np.array_equal(two['many'], one['many'] + one['many']), (n, dtype)\n"
        "        assert two['many'].dtype == dtype and two['one'] == 2 and two['none'] is None\n"
        "        assert type(two['one']) is int and type(two['half']) is float, dtype\n"
        "        assert two['half'] == 1.0\n"
        "assert world.local_rank == world.rank\n"
    )
    done = mpiexec(2, program)
    assert done.returncode == 0, done.stderr


# --- killed ---------------------------------------------------------------------------------------

LONG = ("--rule", "fg-w", "--tangents", 4, "--epochs", 40, "--checkpoint-every", 5)


def pids_of(folder):
    """The processes of Python that have a folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            if str(folder).encode() in words and b"-n" not in words:
                found.append(int(entry.name))
    return sorted(found)


def wait_for(what, process):
    """Wait until something is so, as long as a process runs."""
    while not what():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def killed(process, folder, victim):
    """Kill one of the processes that train in a folder, and see all of them end at once."""
    os.kill(pids_of(folder)[victim], signal.SIGKILL)
    process.communicate(timeout=10)
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while pids_of(folder):  # mpiexec does not wait for them
        assert time.monotonic() < deadline
        time.sleep(0.05)


def go_on(mpiexec, size, folder):
    """Let a run go on to its end; one that has no checkpoint yet begins again."""
    if (folder / "checkpoint.npz").exists():
        flags = ("-m", "dualnet", "train", "--resume", folder, "--quiet", "--processes", "mpi")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        flags = (*SHARED, *LONG, "--run-dir", folder)
    done = mpiexec(size, *flags)
    assert done.returncode == 0, done.stderr


def assert_same_numbers(one, other):
    for path, x in kept(one).items():
        assert np.array_equal(x, kept(other)[path]), path


@pytest.fixture(scope="module")
def undisturbed(mpiexec, tmp_path_factory):
    """The folder of a run of two processes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert mpiexec(2, *SHARED, *LONG, "--run-dir", folder).returncode == 0
    return folder


@HAS_PROC
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_which_goes_on_to_the_same_numbers(
    victim, mpiexec, undisturbed, tmp_path
):
    folder = tmp_path / "run"
    process = mpiexec.started(2, *SHARED, *LONG, "--run-dir", folder)
    wait_for((folder / "metrics.csv").exists, process)
    killed(process, folder, victim)
    go_on(mpiexec, 2, folder)
    assert_same_numbers(folder, undisturbed)


@pytest.mark.slow
@HAS_PROC
@pytest.mark.parametrize("number", range(20))
def test_a_process_killed_at_any_moment_ends_the_run_which_goes_on_to_the_same_numbers(
    number, mpiexec, undisturbed, tmp_path, rng
):
    folder, metrics = tmp_path / "run", tmp_path / "run/metrics.csv"
    epoch = json.loads((undisturbed / "summary.json").read_text())["seconds"] / 40
    process = mpiexec.started(2, *SHARED, *LONG, "--run-dir", folder)
    wait_for(lambda: len(pids_of(folder)) == 2, process)
    if number % 4:  # most of them while it trains, some while it begins
        done = rng.integers(35)
        wait_for(lambda: metrics.exists() and len(metrics.read_text().split()) > done, process)
    time.sleep(rng.uniform(0.0, epoch if number % 4 else 1.0))
    killed(process, folder, number % 2)
    go_on(mpiexec, 2, folder)
    assert_same_numbers(folder, undisturbed)
