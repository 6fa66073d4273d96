"""Fixtures shared by all tests: random numbers that can be replayed, and the `gpu` marker.

Thousands of tests are marked `gpu`.  Without a device they are left out at collection, and one line
at the end says how many and why, so that `pytest -rs` shows the reasons of all others.

The seed is drawn afresh for every run, so that the suite does not test the same numbers forever,
and shown with every failure; DUALNET_TEST_SEED=n repeats a run.  Each test has a stream of its
own, so a test repeats alone as it ran among the others.

What is asserted of random numbers is to hold for all but one of 100,000 seeds or so, as the suite
has thousands of tests: within 7 standard errors, not 3; at entries apart from kinks; by the size of
what is summed, where a sum may cancel.
"""

import functools
import importlib
import os
import secrets
from dataclasses import replace

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from data_files import DEAD
from https_server import make_certificate
from mpi_runs import Mpiexec

from dualnet import Key, backends
from dualnet.command import train
from dualnet.console import exit_code
from dualnet.data import SOURCES

SEED_VARIABLE = "DUALNET_TEST_SEED"
SEED = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))
os.environ[SEED_VARIABLE] = str(SEED)  # for the workers of pytest-xdist


def pytest_configure(config):
    """Keep the kernels of the stand-in in pytest's cache: to compile them takes longer than all
    that they do."""
    if hasattr(config, "cache"):  # not so with `-p no:cacheprovider`
        cuda_on_cpu.keep_in(config.cache.mkdir("cuda-on-cpu"))


class SeededGenerator(np.random.Generator):
    """A generator whose repr, which pytest shows on failure, says how to get it again."""

    def __repr__(self):
        return f"<generator of this test with {SEED_VARIABLE}={SEED}>"


@pytest.fixture(scope="session")
def root_key():
    """The dualnet Key that all others come from, for what several tests share."""
    return Key(SEED)


@pytest.fixture
def key(request, root_key):
    """A dualnet Key for this test."""
    return root_key.fold_in(request.node.name)


@pytest.fixture
def rng(key):
    """A NumPy generator for this test."""
    return SeededGenerator(np.random.PCG64(key.bits))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and "root_key" in getattr(item, "fixturenames", ()):
        report.sections.append(("random numbers", f"repeat with {SEED_VARIABLE}={SEED}"))
    return report


@functools.cache
def _why_no_gpu():
    """The reason to leave GPU tests out, or None where a CUDA device answers."""
    try:
        import cupy
    except ImportError as error:
        return f'CuPy cannot be imported ({error}); pip install -e ".[cuda12]" brings it'
    try:
        cupy.zeros(1).sum().item()
    except Exception as error:  # whatever the driver says, there is no device to test on
        return f"no CUDA device answers ({error}); they need one, and its driver"
    return None


_left_out: dict[str, int] = {}
"""Why tests were left out at collection → how many."""


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config, items):
    """Leave GPU tests out before any test has put a stand-in in CuPy's place."""
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if for_gpu and (reason := _why_no_gpu()):
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=for_gpu)
        _left_out[reason] = len(for_gpu)


@pytest.fixture(scope="module", params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def cupy_backend(request):
    """The CuPy backend: on a device where one answers, and on the stand-in everywhere."""
    if request.param == "device":
        yield backends.get("cupy")
        return
    if cuda_on_cpu.COMPILER is None:
        pytest.skip(cuda_on_cpu.NO_COMPILER)
    with fake_cupy.installed():
        backend = backends.get("cupy")
        kernels = importlib.import_module("dualnet.backends.kernels")
        kernels._SYMMETRIC.threads = 64  # which take turns here
        yield backend


@pytest.fixture(scope="session")
def mpiexec():
    """What starts several processes; the test skips where the extra `mpi` is not installed."""
    return Mpiexec()


@pytest.fixture(autouse=True)
def slow_machines(monkeypatch):
    """On a busy machine commands may take so long that they say so, which tests do not expect."""
    monkeypatch.setattr("dualnet.console.SILENCE", 3600.0)


@pytest.fixture
def no_outside(monkeypatch, tmp_path):
    """An empty cache, no folder of the user's, and mirrors that refuse to connect."""
    monkeypatch.delenv("DUALNET_DATA", raising=False)
    monkeypatch.setattr("dualnet.data.locate._beside_checkout", lambda: None)
    monkeypatch.delenv("DUALNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    for name, source in list(SOURCES.items()):
        mirrors = (DEAD,) if source.mirrors else ()
        monkeypatch.setitem(SOURCES, name, replace(source, mirrors=mirrors))


@pytest.fixture(scope="session")
def _certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def certificate(_certificate, monkeypatch):
    """A certificate with its key for a server of https on 127.0.0.1; this process trusts it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(_certificate))
    return _certificate


@pytest.fixture
def no_curve(monkeypatch):
    """Curves take longer to draw than the runs of tests to train."""
    monkeypatch.setattr("dualnet.training.run.draw_curve", lambda *_: False)
    monkeypatch.setattr("dualnet.training.run.draw_gradients", lambda *_: False)


@pytest.fixture
def elsewhere(no_outside, no_curve, monkeypatch, tmp_path):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ask(capsys):
    """`ask(*argv)`: exit code, standard output and standard error of `train.py *argv`."""

    def ask(*argv):
        code = exit_code("train.py", train.main, [str(a) for a in argv])
        return code, *capsys.readouterr()

    return ask


@pytest.fixture
def stand_in(cupy_backend):
    """The CuPy backend where it is the stand-in, which counts and can be watched."""
    if not fake_cupy.is_stand_in(cupy_backend):
        pytest.skip("only the stand-in can be watched")
    return cupy_backend


_worst: dict[str, tuple[float, str]] = {}


@pytest.fixture(scope="session")
def worst():
    """`worst(kind, error, where)` keeps the largest error of a kind for the summary at the end."""
    return _record


def _record(kind, error, where):
    _worst[kind] = max(_worst.get(kind, (0.0, "nowhere")), (float(error), where))


def pytest_sessionfinish(session):
    """Hand what a worker of pytest-xdist found over to where the summary is written."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["worst"] = list(_worst.items())
        session.config.workeroutput["left out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    output = getattr(node, "workeroutput", {})
    for kind, found in output.get("worst", ()):
        _record(kind, *found)
    _left_out.update(output.get("left out", {}))  # every worker collects all tests


def pytest_terminal_summary(terminalreporter):
    for reason, count in _left_out.items():
        terminalreporter.write_line(f"{count} tests marked gpu left out: {reason}")
    if _worst:
        terminalreporter.section("worst relative errors")
    for kind, (error, where) in _worst.items():
        terminalreporter.write_line(f"{error:.1e}  {kind} ({where})")
