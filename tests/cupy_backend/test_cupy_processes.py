"""Several processes on the CuPy backend: the device of each, and what they exchange by way of the
host.

Runs are shared on the stand-in, and where a CUDA device answers, on that one, which all processes
then have in common.
"""

import contextlib
import json
import re
from pathlib import Path

import cuda_on_cpu
import fake_cuda
import fake_cupy
import numpy as np
import pytest
from mpi_runs import SHORT, kept

from dualnet import backends
from dualnet.backends.overridable import back_from_host, to_host
from dualnet.backends.processes import Alone
from dualnet.backends.timed_processes import TimedProcesses
from dualnet.errors import BackendError

STAND_IN = Path(__file__).parent.parent / "on_stand_in.py"


@contextlib.contextmanager
def devices(count):
    """A stand-in that has so many devices, none of which was used yet."""
    before = dict(vars(fake_cuda.devices))
    vars(fake_cuda.devices).update(count=count, current=0, used=set())
    try:
        with fake_cupy.installed():
            yield fake_cuda.devices
    finally:
        vars(fake_cuda.devices).update(before)


@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason=cuda_on_cpu.NO_COMPILER)
@pytest.mark.parametrize("name", ["cupy", "auto"])
@pytest.mark.parametrize(("local_rank", "expected"), [(0, 0), (2, 2), (3, 0), (7, 1)])
def test_a_process_uses_the_device_of_its_number_alone(name, local_rank, expected):
    with devices(3) as there:
        backend = backends.get(name, local_rank=local_rank)
        assert (backend.name, backend.device) == ("cupy", f"CUDA device {expected} of 3")
        assert (there.current, there.used) == (expected, {expected})


@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason=cuda_on_cpu.NO_COMPILER)
def test_a_process_alone_stays_on_the_device_that_is_current():
    with devices(3) as there:
        fake_cuda.Device(1).use()
        assert backends.get("cupy").device == ""
        assert there.used == {1}


def test_a_device_that_cannot_be_used_is_named(monkeypatch):
    def refuse(_self):
        raise fake_cuda.CUDARuntimeError("cudaErrorDevicesUnavailable")

    monkeypatch.setattr(fake_cuda.Device, "use", refuse)
    with devices(2), pytest.raises(BackendError, match="cannot use CUDA device 1 of 2 here"):
        backends.get("cupy", local_rank=3)


# --- to the host and back -------------------------------------------------------------------------


def mixed(backend, rng):
    """Leaves of all kinds: on the device and on the host, of several dtypes and layouts."""
    there = [
        rng.normal(size=(3, 4)).astype(np.float32),
        np.array(7),
        rng.normal(size=(2, 0)),
        rng.normal(size=5) > 0,
    ]
    matrix = backend.asarray(rng.normal(size=(4, 6)))
    on_host = [np.arange(3.0), np.float32(2.5), 3]
    return [*map(backend.asarray, there), matrix.T, matrix[::2], *on_host]


def test_arrays_of_a_device_go_to_the_host_and_come_back_at_once(cupy_backend, rng):
    leaves = mixed(cupy_backend, rng)
    expected = [cupy_backend.to_host(x) for x in leaves]
    with fake_cuda.counted() as happened:
        here = to_host(leaves)
        back = back_from_host([2 * x for x in here], leaves)
    if fake_cupy.is_stand_in(cupy_backend):
        assert happened == {"to_host": 1, "to_device": 1}
    for x, e in zip(here, expected, strict=True):
        assert isinstance(x, np.ndarray) and (x.dtype, x.shape) == (e.dtype, e.shape)
        np.testing.assert_array_equal(x, e)
    for x, leaf, e in zip(back, leaves, expected, strict=True):
        on_device = isinstance(leaf, type(cupy_backend.asarray(0)))
        assert isinstance(x, type(leaf) if on_device else (np.ndarray, np.generic))
        np.testing.assert_array_equal(cupy_backend.to_host(x), 2 * e)


def test_what_is_lazy_comes_back_so(cupy_backend, rng):
    kinds = []

    def exchanged(_carried, batch, _key, _numbers):
        leaves = [2 * batch, batch.sum(), 1]
        back = back_from_host(to_host(leaves), leaves)
        kinds.extend(type(x).__name__ for x in back)
        return (), back[0] + back[1]

    x = cupy_backend.asarray(rng.normal(size=3))
    step = cupy_backend.recorded(exchanged, record=False)
    found = cupy_backend.to_host(step((), x, None, {})[1])
    np.testing.assert_allclose(found, cupy_backend.to_host(2 * x + x.sum()), rtol=1e-12)
    assert kinds == ["LazyArray", "LazyArray", "ndarray"]


class Looks(Alone):
    """A process alone, which looks at an array when it waits for all."""

    def wait_for_all(self):
        self.computed = self.looks_at.node.array is not None
        self.waits = fake_cuda.counts["waits"]


def test_what_is_exchanged_is_computed_before_others_are_waited_for(cupy_backend, rng):
    looks = Looks()
    timed = TimedProcesses(looks)

    def exchanged(_carried, batch, _key, _numbers):
        looks.looks_at = 2 * batch + 1
        assert looks.looks_at.node.array is None
        return (), timed.add({"sum": looks.looks_at, "number": 1, "none": None})["sum"]

    x = cupy_backend.asarray(rng.normal(size=3))
    before = fake_cuda.counts["waits"]
    step = cupy_backend.recorded(exchanged, record=False)
    found = cupy_backend.to_host(step((), x, None, {})[1])
    np.testing.assert_array_equal(found, cupy_backend.to_host(2 * x + 1))
    assert looks.computed
    if fake_cupy.is_stand_in(cupy_backend):
        assert looks.waits == before + 1


# --- runs that processes share --------------------------------------------------------------------


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def words(request):
    """`words(devices)`: what Python is started with for a command on so many devices of a stand-in,
    or on those that there are."""
    if request.param == "device":
        return lambda _devices: ("-m", "dualnet")
    if cuda_on_cpu.COMPILER is None:
        pytest.skip(cuda_on_cpu.NO_COMPILER)
    return lambda devices: (STAND_IN, devices)


TRAIN = ("train", "--backend", "cupy", *SHORT)

RUNS = {
    "fg-w": ("--rule", "fg-w", "--tangents", 4, "--sampler", "rank-one"),
    "fdfa": ("--rule", "fdfa"),
    "bp, large sums": ("--rule", "bp", "--dtype", "float64", "--width", 128),
    "fg-w, shared tangents": (
        *("--rule", "fg-w", "--tangents", 3, "--batch-norm", "--dtype", "float64"),
        *("--aggregate", "projection", "--share", "tangents"),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_processes_share_is_that_of_one(name, words, mpiexec, tmp_path):
    """To rounding, which a whole run enlarges.  Few numbers are added as by shards: bit for bit."""
    flags = RUNS[name]
    of_one = flags[: flags.index("--share")] if "--share" in flags else flags
    one, shared = tmp_path / "one", tmp_path / "shared"
    alone = mpiexec(1, *words(1), *TRAIN, *of_one, "--shards", 2, "--run-dir", one)
    assert alone.returncode == 0, alone.stderr
    done = mpiexec(2, *words(3), *TRAIN, *flags, "--processes", "mpi", "--run-dir", shared)
    assert done.returncode == 0, done.stderr
    assert "cannot be recorded" not in done.stderr
    if words(3)[0] == STAND_IN:
        assert sorted(re.findall("devices used: (.*)", done.stderr)) == ["0", "1"]
    for path, x in kept(shared).items():
        expected = kept(one)[path]
        assert x.dtype == expected.dtype, path
        if name == "fg-w":
            assert np.array_equal(x, expected), path
        bound = 1e-9 if "float64" in flags else 1e-4
        np.testing.assert_allclose(x, expected, rtol=bound, atol=bound, err_msg=path)


def test_a_run_goes_on_to_the_same_numbers_and_says_which_device_it_has(words, mpiexec, tmp_path):
    half, whole = tmp_path / "half", tmp_path / "whole"
    loud = [flag for flag in TRAIN if flag != "--quiet"]
    how = ("--rule", "dkp", "--schedule", "constant", "--processes", "mpi")
    assert mpiexec(3, *words(2), *loud, *how, "--run-dir", half).returncode == 0
    resume = ("train", "--resume", half, "--epochs", 3, "--processes", "mpi")
    done = mpiexec(3, *words(2), *resume)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^on +cupy, CUDA device 0 of \d+, float32$", done.stdout, re.MULTILINE)
    if words(2)[0] == STAND_IN:  # the third process has the first device, too
        assert sorted(re.findall("devices used: (.*)", done.stderr)) == ["0", "0", "1"]
    undisturbed = mpiexec(3, *words(2), *loud, *how, "--epochs", 3, "--run-dir", whole)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for path, x in kept(half).items():
        assert np.array_equal(x, kept(whole)[path]), path


def test_a_profile_changes_no_numbers(words, mpiexec, tmp_path):
    how = (*TRAIN, "--rule", "fdfa", "--batch-norm", "--processes", "mpi", "--run-dir")
    for name, flags in (("plain", ()), ("profiled", ("--profile",))):
        done = mpiexec(2, *words(1), *how, tmp_path / name, *flags)
        assert done.returncode == 0, done.stderr
    profile = json.loads((tmp_path / "profiled/summary.json").read_text())["profile"]
    assert [min(row.values()) > 0 for row in profile] == [True, True]
    for path, x in kept(tmp_path / "profiled").items():
        assert np.array_equal(x, kept(tmp_path / "plain")[path]), path


PROGRAM = """
import numpy as np
import dualnet as dn

x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
how = dict(processes="mpi", backend="auto", width=8, lr=0.1, epochs=2, quiet=True)
run = dn.fit("mlp", (x, (x[:, 0] > 0).astype(int)), **how)
best = float(np.sum(run.predict(x)))
print(f"on {run.settings.backend} best {best}\\n", end="")  # in one piece, as two say it
"""


def test_arrays_are_learned_on_the_device_of_each_process(words, mpiexec, tmp_path):
    """Nothing else is used, though memory is asked for before a run is made."""
    (tmp_path / "program.py").write_text(PROGRAM)
    on_stand_in = words(3)[0] == STAND_IN
    done = mpiexec(2, *(words(3) if on_stand_in else ()), tmp_path / "program.py")
    assert done.returncode == 0, done.stderr
    first, second = re.findall("on cupy best .*", done.stdout)
    assert first == second
    if on_stand_in:
        assert sorted(re.findall("devices used: (.*)", done.stderr)) == ["0", "1"]


def test_a_process_that_finds_no_device_does_not_join_one_that_has_one(mpiexec, tmp_path):
    if cuda_on_cpu.COMPILER is None:
        pytest.skip(cuda_on_cpu.NO_COMPILER)
    uneven = "import fake_cuda\nfrom dualnet.backends import mpi\n"
    uneven += "fake_cuda.devices.count = 1 - mpi.world().rank\n"
    (tmp_path / "program.py").write_text(uneven + PROGRAM)
    done = mpiexec(2, STAND_IN, 1, tmp_path / "program.py")
    assert done.returncode != 0
    assert "backend auto: NumPy it is" in done.stderr
    assert "expected in process 1 the settings of the first one, got others" in done.stderr
