"""Other packages as oracles: absent, a test skips and says what to install; unless required."""

import importlib
import os

import pytest

REQUIRED = "DUALNET_REQUIRE_PEERS"
"""Set this variable where the peers are installed, so that nothing can skip unseen."""

QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""Options of `jax.jit`: what is compiled runs once."""


def peer(name, extra="bench"):
    """The module, or a skipped test that names the extra which brings it."""
    if os.environ.get(REQUIRED):
        return importlib.import_module(name)
    package = name.partition(".")[0]
    return pytest.importorskip(
        name, reason=f'{package} is not installed; pip install -e ".[{extra}]" brings it'
    )


def pair(value):
    """The two numbers that one stands for, of rows and columns."""
    return (value, value) if isinstance(value, int) else value


def sides(padding):
    """((top, bottom), (left, right))."""
    return tuple(pair(side) for side in pair(padding))


class JaxNumpy:
    """jax.numpy, with a stop-gradient, and maxima that select.

    JAX's derivative of a maximum asks which operand == it.  Compiled, an operand may be computed
    twice with different roundings; then the answer is none, and the derivative 0 or infinite.
    """

    def __init__(self, jax):
        self._numpy = jax.numpy
        self.stop_gradient = jax.lax.stop_gradient

    def __getattr__(self, name):
        return getattr(self._numpy, name)

    def maximum(self, x, y):
        return self.where(x > y, x, y)

    def minimum(self, x, y):
        return self.where(x < y, x, y)

    def max(self, x, axis=None, keepdims=False):
        chosen = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        last = self.moveaxis(x, tuple(chosen), tuple(range(-len(chosen), 0)))
        rows = self.reshape(last, (*last.shape[: x.ndim - len(chosen)], -1))
        y = self.sort(rows)[..., -1]
        return self.expand_dims(y, tuple(chosen)) if keepdims else y

    def min(self, x, axis=None, keepdims=False):
        return -self.max(-x, axis, keepdims)
