"""JAX under the names that NumPy programs use: `namespace()` is what their text runs in."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np


class _Jax:
    """A module of JAX's for programs written for NumPy: constants stay NumPy's, lists are taken."""

    def __init__(self, module: Any, plain: Any, **own: Any):
        self._module, self._plain, self._own = module, plain, own

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        value = getattr(self._module, name)
        if isinstance(value, types.ModuleType):
            return _Jax(value, getattr(self._plain, name))
        if not callable(value) or isinstance(getattr(self._plain, name, None), type):
            return value
        return _JaxFunction(value, getattr(self._plain, name, None), self._own)


_SEQUENCES = ("concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "block")
_SEQUENCES += ("select", "choose", "piecewise", "multi_dot", "meshgrid")


class _JaxFunction:
    """A function of JAX's: NumPy's own where nothing is traced, and with lists made arrays."""

    def __init__(self, function: Any, plain: Any, own: dict):
        self._function, self._plain, self._own = function, plain, own

    def __call__(self, *args: Any, **how: Any) -> Any:
        import jax

        def traced(x: Any) -> bool:
            return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(x))

        if self._plain is not None and not traced((args, how)):
            return self._plain(*args, **how)
        name = getattr(self._function, "__name__", "")
        if name not in _SEQUENCES:
            args = tuple(
                jax.numpy.asarray(x) if isinstance(x, list) and (traced(x) or _is_floats(x)) else x
                for x in args
            )
        elif name == "concatenate":
            args = (_as_arrays(args[0]), *args[1:])
        return self._function(*args, **how)

    def __getattr__(self, name: str) -> Any:
        return _JaxFunction(getattr(self._function, name), None, {})


def _is_floats(x: list) -> bool:
    return all(isinstance(item, float) for item in x)  # other lists are axes and places


def _as_arrays(parts: Any) -> list:
    import jax.numpy

    return [jax.numpy.asarray(x) if isinstance(x, list) else x for x in parts]


def namespace() -> dict:
    """Make the modules of a program, by the names that it gives them."""
    import jax
    import jax.scipy

    numpy = jax.numpy

    def put_at(x: Any, key: Any, value: Any) -> Any:
        return numpy.asarray(x).at[key].set(value)

    def add_at(x: Any, key: Any, value: Any) -> Any:
        return numpy.asarray(x).at[key].add(value)

    def windows(x: Any, size: int, axis: int | None = None) -> Any:
        along = x.ndim - 1 if axis is None else axis
        count = x.shape[along] - size + 1
        return numpy.moveaxis(
            numpy.stack(
                [numpy.take(x, np.arange(i, i + size), along) for i in range(count)], along
            ),
            along + 1,
            -1,
        )

    class Joining:
        def __init__(self, join: Callable):
            self._join = join

        def __getitem__(self, parts: Any) -> Any:
            return self._join([numpy.atleast_1d(part) for part in parts])

    def array(x: Any, *how: Any) -> Any:
        leaves = jax.tree_util.tree_leaves(x)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return numpy.asarray(x) if traced else np.array(x, *how)

    def insert(x: Any, where: Any, values: Any, axis: Any = None) -> Any:
        return numpy.insert(x, np.asarray(where), values, axis)

    def pad(x: Any, widths: Any, *mode: Any, **how: Any) -> Any:
        if isinstance(widths, dict):
            pairs = [(0, 0)] * x.ndim
            for axis, width in widths.items():
                pairs[axis] = width if isinstance(width, tuple) else (width, width)
            widths = pairs
        return numpy.pad(x, widths, *mode, **how)

    def bincount(x: np.ndarray, weights: Any, minlength: int) -> Any:
        return numpy.zeros(max(minlength, x.max() + 1)).at[x].add(weights)

    own = {
        "put_at": put_at,
        "add_at": add_at,
        "r_": Joining(numpy.concatenate),
        "c_": Joining(numpy.column_stack),
        "full": lambda shape, value: numpy.broadcast_to(value, shape),
        "vectorize": lambda f: f,  # of functions that broadcast
        "array": array,
        "asarray": array,
        "insert": insert,
        "pad": pad,
        "bincount": bincount,
        "fabs": numpy.abs,
        "partition": lambda x, k, axis=-1: numpy.sort(x, axis),
        "apply_over_axes": lambda f, x, axes: f(x, axis=tuple(axes), keepdims=True),
        "lib": types.SimpleNamespace(
            stride_tricks=types.SimpleNamespace(sliding_window_view=windows)
        ),
        "append": lambda x, y, axis=None: numpy.append(x, numpy.asarray(y), axis),
        "modf": lambda x: (numpy.fmod(x, 1.0), numpy.trunc(x)),
        "astype": lambda x, dtype: x.astype(dtype),
        "empty_like": numpy.zeros_like,
    }
    special, stats = jax.scipy.special, jax.scipy.stats
    own_scipy = {
        "logsumexp": lambda a, axis=None, b=None: special.logsumexp(a, axis, b),
        "softmax": lambda x, axis=None: jax.nn.softmax(x, axis),
        "log_softmax": lambda x, axis=None: jax.nn.log_softmax(x, axis),
        "solve_triangular": lambda a, b, lower: jax.scipy.linalg.solve_triangular(
            a, b, lower=lower
        ),
        "cho_solve": jax.scipy.linalg.cho_solve,
        "expm": jax.scipy.linalg.expm,
        "norm": stats.norm,
        "multivariate_normal": stats.multivariate_normal,
    }
    module = _Jax(numpy, np, **own)
    return {
        "np": module,
        "dnp": module,
        "dn": types.SimpleNamespace(stop_gradient=jax.lax.stop_gradient),
        "sp": types.SimpleNamespace(
            **vars(special), log_expit=jax.nn.log_sigmoid, psi=special.digamma
        ),
        "dsp": types.SimpleNamespace(**own_scipy),
        "reduceat": lambda u, x, at: numpy.stack([u.reduce(x[0:2]), x[2], u.reduce(x[1:])]),
    }
