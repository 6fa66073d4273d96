"""Operators and methods of a `Dual`, which are functions of NumPy under another name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import Row, adder, constant, distinct, is_composed

ROWS: list[Row] = []

_C = np.array([[1.5, -2.0, 0.5], [0.3, 2.0, -1.0]])


def _c(x: Any) -> Any:
    return constant(_C, x)


for _note, _f in {
    "x + c": lambda xp, x: (x + 2, 2 + x, x + _c(x), _c(x) + x),
    "x - c": lambda xp, x: (x - 2, 2 - x, x - _c(x), _c(x) - x),
    "x * c": lambda xp, x: (x * 2, 2 * x, x * _c(x), _c(x) * x),
    "x / c": lambda xp, x: (x / 2, x / _c(x)),
    "c / x": lambda xp, x: (2 / x, _c(x) / x),
    "x ** c": lambda xp, x: (x**2, xp.abs(x) ** 1.5, abs(x) ** _c(x)),
    "c ** x": lambda xp, x: (2**x, 0.5**x, abs(_c(x)) ** x),
    "signs": lambda xp, x: (-x, +x, abs(x)),
    "x % c": lambda xp, x: (xp.sin(x) / 3 + 0.5) % 2,
    "c % x": lambda xp, x: (5.25 + 0 * x) % (2 + 0.01 * xp.sin(x)),
    "x @ c": lambda xp, x: (x @ _c(x).T, _c(x).T @ x),
}.items():
    adder(ROWS, "elementwise", jax=True)(f"operator {_note}", "", _f, distinct(2, 3))


def _written(*writes: Callable) -> Callable:
    """Make a way to use in-place operators: each write changes a copy of x, which is returned."""

    def f(xp: Any, x: Any) -> tuple:
        copies = [x * 1.0 for _ in writes]
        for write, a in zip(writes, copies, strict=True):
            write(a)
        return (*copies,)

    return f


def _same(x: Any) -> Any:
    return _c(x).astype(x.dtype)


for _note, _f in {
    "x += c": _written(lambda a: a.__iadd__(2), lambda a: a.__iadd__(_same(a))),
    "x -= c": _written(lambda a: a.__isub__(2), lambda a: a.__isub__(_same(a))),
    "x *= c": _written(lambda a: a.__imul__(2), lambda a: a.__imul__(_same(a))),
    "x /= c": _written(lambda a: a.__itruediv__(2), lambda a: a.__itruediv__(_same(a))),
    "x **= c": _written(lambda a: a.__ipow__(2), lambda a: a.__ipow__(3)),
    "x @= c": _written(lambda a: a.__imatmul__(_same(a).T @ _same(a))),
    "x += x": _written(lambda a: a.__iadd__(a)),
    "x *= x": _written(lambda a: a.__imul__(a[0])),
}.items():
    adder(ROWS, "elementwise")(
        f"operator {_note}",
        "",
        _f,
        distinct(2, 3),
        other_primal=_note == "x **= c",  # CuPy's is no x ** c
    )

_FEW = np.array([[0], [2]])
_MASK = np.array([[True, False, True], [False, True, False]])
for _fn, _write in {
    np.put: lambda a: np.put(a, constant(np.array([0, 4, -1]), a), a[0, :2]),
    np.place: lambda a: np.place(a, constant(_MASK, a), a[0, :2]),
    np.putmask: lambda a: np.putmask(a, constant(_MASK, a), a[::-1] * 2),
    np.copyto: lambda a: np.copyto(a, a[0], where=constant(_MASK, a)),
    np.fill_diagonal: lambda a: np.fill_diagonal(a, a[1, :2]),
    np.put_along_axis: lambda a: np.put_along_axis(a, constant(_FEW, a), a[:, 1:2], 1),
}.items():
    adder(ROWS, "indexing")(_fn, "", _written(_write), distinct(2, 3))

METHODS: dict[str, dict[str, Callable]] = {
    "elementwise": {
        "astype": lambda xp, x: x.astype(np.float64),
        "conj": lambda xp, x: x.conj(),
        "conjugate": lambda xp, x: x.conjugate(),
        "real": lambda xp, x: x.real,
        "clip": lambda xp, x: (x.clip(-1.25, 0.75), x.clip(min=-1.25), x.clip(max=0.75)),
    },
    "reductions": {
        "cumprod": lambda xp, x: (x.cumprod(), x.cumprod(axis=1)),
        "cumsum": lambda xp, x: (x.cumsum(), x.cumsum(axis=0)),
        "max": lambda xp, x: (x.max(), x.max(axis=0)),
        "mean": lambda xp, x: (x.mean(), x.mean(axis=-1, keepdims=True)),
        "min": lambda xp, x: (x.min(), x.min(1)),
        "prod": lambda xp, x: (x.prod(), x.prod(axis=0)),
        "std": lambda xp, x: (x.std(), x.std(axis=0)),
        "sum": lambda xp, x: (x.sum(), x.sum(axis=0), x.sum(axis=(0, 1), keepdims=True)),
        "var": lambda xp, x: (x.var(), x.var(axis=1, ddof=1)),
    },
    "linear algebra": {
        "dot": lambda xp, x: x.dot(_c(x).T),
    },
    "shaping": {
        "T": lambda xp, x: x.T,
        "mT": lambda xp, x: x.mT,
        "copy": lambda xp, x: x.copy(),
        "flatten": lambda xp, x: (x.flatten(), x.flatten("F")),
        "ravel": lambda xp, x: x.ravel(),
        "repeat": lambda xp, x: x.repeat(2, axis=0),
        "reshape": lambda xp, x: (x.reshape(3, 2), x.reshape((1, 6)), x.reshape(-1)),
        "sort": _written(lambda a: a.sort(), lambda a: a.sort(0), lambda a: a[:, 1:].sort()),
        "squeeze": lambda xp, x: x[None].squeeze(axis=0),
        "swapaxes": lambda xp, x: x.swapaxes(0, 1),
        "transpose": lambda xp, x: (x.transpose(), x.transpose(1, 0), x.transpose((1, 0))),
    },
    "indexing": {
        "fill": _written(lambda a: a.fill(2.0), lambda a: a[0].fill(a[1, 1])),
        "flat": lambda xp, x: [v * 2.0 for v in x.flat],
        "put": _written(lambda a: a.put([0, 4], a[0, :2])),
        "diagonal": lambda xp, x: x.diagonal(1),
        "take": lambda xp, x: x.take(np.array([2, 0]), axis=1),
        "trace": lambda xp, x: x.trace(),
    },
}
"""family → method or property → a way to use it."""
IN_PLACE = {"fill", "flat", "put", "sort"}
"""Methods that write, which JAX's arrays do not have."""
for _family, _methods in METHODS.items():
    for _name, _f in _methods.items():
        _jax = _name not in IN_PLACE
        _other = is_composed(getattr(np, _name, None))
        adder(ROWS, _family, jax=_jax)(
            f"method {_name}", "", _f, distinct(2, 3), other_primal=_other
        )
adder(ROWS, "shaping")(
    "copy.deepcopy", "", lambda xp, x: copy.deepcopy({"x": x})["x"], (2, 3), exact=True
)
adder(ROWS, "indexing", jax=True)(
    "iteration", "", lambda xp, x: [part * len(x) for part in x], (2, 3), exact=True
)
