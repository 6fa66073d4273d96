"""What the tests of the CuPy backend share: the same draws on both sides, and what is the same."""

from dataclasses import replace

import numpy as np
import pytest

from dualnet import backends, tree

HOST = backends.get("numpy")
ALLOWED = {np.float32: 1e-5, np.float64: 1e-12}
BOTH = pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))


class SameDraws:
    """A backend with NumPy's random numbers, so that both sides compute the same thing."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def normal(self, *args):
        return self._backend.asarray(HOST.normal(*args))

    def signs(self, *args):
        return self._backend.asarray(HOST.signs(*args))

    def uniform(self, *args):
        return self._backend.asarray(HOST.uniform(*args))


def moved(t, backend):
    return tree.map(backend.asarray, t)


def on(backend, p):
    """A problem with its arrays on a backend."""
    fields = ("params", "state", "x", "labels")
    return replace(p, **{name: moved(getattr(p, name), backend) for name in fields})


def moved_back(t, backend):
    return tree.map(backend.to_host, t)


def assert_same(got, expected, backend, allowed, what="", terms=None):
    """Leaf by leaf, relative to the largest entry of all leaves, or to what was summed.

    `terms`, shaped like `expected`, holds for each entry the sum of its terms' absolute values.
    Rounding is of the size of those, however much they cancel.
    """
    got = [backend.to_host(x) for x in tree.leaves(got)]
    expected = [np.asarray(x) for x in tree.leaves(expected)]
    largest = max((np.max(np.abs(e[np.isfinite(e)]), initial=0.0) for e in expected), default=0.0)
    sizes = [largest] * len(expected) if terms is None else tree.leaves(terms)
    for g, e, size in zip(got, expected, sizes, strict=True):
        assert g.shape == e.shape and g.dtype == e.dtype, (what, g.shape, g.dtype, e.shape, e.dtype)
        if terms is None:
            np.testing.assert_allclose(g, e, rtol=allowed, atol=allowed * size, err_msg=what)
        else:
            smallest = np.finfo(e.dtype).tiny  # below it digits are missing
            off = np.abs(g - e) / (size + smallest)
            np.testing.assert_array_less(off, allowed, err_msg=f"{what}: error by size of terms")


def assert_as_on_host(function, arrays, backend, allowed, *more, terms=None):
    """What a function gives for the device's arrays and for the same on the host."""
    got = function(*moved(arrays, backend), *more)
    assert_same(got, function(*arrays, *more), backend, allowed, function.__name__, terms)
