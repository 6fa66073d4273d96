"""Fixtures shared by all tests: random numbers that can be replayed, and the `gpu` marker.

The seed is drawn afresh for every run, so that the suite does not test the same numbers for ever,
and shown with every failure; DUALNET_TEST_SEED=n repeats a run.  Each test has a stream of its
own, so a test repeats alone as it ran among the others.
"""

import functools
import os
import secrets

import numpy as np
import pytest

from dualnet import Key

SEED_VARIABLE = "DUALNET_TEST_SEED"
SEED = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))


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
    """The reason to skip GPU tests, or None where a CUDA device answers."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error})"
    try:
        cupy.zeros(1).sum().item()
    except Exception as error:  # whatever the driver says, there is no device to test on
        return f"no CUDA device answers ({error})"
    return None


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and (reason := _why_no_gpu()):
        pytest.skip(reason)


_worst: dict[str, tuple[float, str]] = {}


@pytest.fixture(scope="session")
def worst():
    """`worst(kind, error, where)` keeps the largest error of a kind for the summary at the end."""

    def record(kind, error, where):
        _worst[kind] = max(_worst.get(kind, (0.0, "nowhere")), (float(error), where))

    return record


def pytest_terminal_summary(terminalreporter):
    if _worst:
        terminalreporter.section("worst relative errors")
    for kind, (error, where) in _worst.items():
        terminalreporter.write_line(f"{error:.1e}  {kind} ({where})")
