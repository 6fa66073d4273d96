"""The table of operations: one row for each way of calling a function that has a derivative rule.

A row says what to call, on arrays of which shapes, and from where to draw the entries: away from
kinks and singularities, so that finite differences can judge.  Rows take the array module as
their first argument, so that the same row runs on NumPy and on JAX.  `tests/test_operations.py`
checks that every differentiable function has a row, and every row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.core.dispatch import name_of
from dualnet.core.dual import astype, getitem
from dualnet.core.rules.elementwise import _to_float
from dualnet.core.rules.linalg import _logabsdet
from dualnet.core.scatter import zeros_plus, zeros_with


@dataclass(frozen=True)
class Row:
    """One way of calling one function.

    Attributes:
        covers: the function whose rule it is about; a string for a method of arrays.
        note: what is particular about this way.
        f: `f(xp, *arrays)`, where xp is numpy or jax.numpy.
        draws: one function of a generator for each array.
        exact: a central difference of step 1 is exact up to rounding: f is a polynomial of
            degree 2 at most.
        jax: JAX has it, and means the same by it.
    """

    covers: Callable | str
    note: str
    f: Callable
    draws: tuple[Callable, ...]
    exact: bool
    jax: bool

    @property
    def name(self) -> str:
        covers = self.covers if isinstance(self.covers, str) else name_of(self.covers)
        return f"{covers}-{self.note}" if self.note else covers

    def __call__(self, *arrays: Any) -> Any:
        return self.f(np, *arrays)

    def arrays(self, rng: np.random.Generator, dtype: Any = np.float64) -> tuple:
        return tuple(np.asarray(draw(rng), dtype) for draw in self.draws)


ROWS: list[Row] = []


def row(
    covers: Callable | str,
    note: str,
    f: Callable,
    *args: Any,
    exact: bool = False,
    jax: bool = True,
) -> None:
    """Add a row; a tuple among args is a shape of entries from [-2, 2]."""
    draws = tuple(uniform(-2, 2, *a) if isinstance(a, tuple) else a for a in args)
    ROWS.append(Row(covers, note, f, draws, exact, jax))


# --- where the entries come from ---------------------------------------------------------------


def uniform(low: float, high: float, *shape: int) -> Callable:
    return lambda rng: rng.uniform(low, high, shape)


def distinct(*shape: int, spacing: float = 0.5, offset: float = 0.0) -> Callable:
    """Magnitudes on a grid, in random order with random signs: far from one another, from 0,
    and from those with the offset 0.5."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        n = math.prod(shape)
        grid = rng.permutation(n) + 1 + offset + rng.uniform(-0.04, 0.04, n)
        return spacing * (grid * rng.choice([-1, 1], n)).reshape(shape)

    return draw


def far_apart(*shape: int, offset: float = 0.0) -> Callable:
    """Distinct numbers that stay in order when each moves by less than 10: a function with kinks
    only where two are equal, or one is 0, is linear between here and a step of 1."""
    return distinct(*shape, spacing=50.0, offset=offset)


def invertible(*shape: int) -> Callable:
    return lambda rng: rng.uniform(-1, 1, shape) + 3 * np.eye(shape[-1])


def positive_definite(*shape: int) -> Callable:
    def draw(rng: np.random.Generator) -> np.ndarray:
        a = rng.uniform(-1, 1, shape)
        return a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1])

    return draw


def given(values: Any) -> Callable:
    return lambda _rng: np.array(values, np.float64)


SINCE_2_1 = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # some arguments are not older
MASK = np.array([[True, False, True], [False, False, True]])


def named(fn: Callable) -> Callable:
    """The function of the same name in xp."""
    return lambda xp, *arrays: getattr(xp, fn.__name__)(*arrays)


# --- elementwise functions ---------------------------------------------------------------------

for _fn, _low, _high in (
    *((fn, -2, 2) for fn in (np.exp, np.exp2, np.expm1, np.sin, np.cos, np.arctan, np.sinh)),
    *((fn, -2, 2) for fn in (np.cosh, np.tanh, np.arcsinh, np.sinc)),
    *((fn, 0.3, 2) for fn in (np.sqrt, np.cbrt, np.reciprocal, np.log, np.log2, np.log10)),
    *((fn, -0.8, 0.8) for fn in (np.arcsin, np.arccos, np.arctanh)),
    *((np.log1p, -0.5, 2), (np.tan, -1, 1), (np.arccosh, 1.3, 3)),
):
    row(_fn, "", named(_fn), uniform(_low, _high, 2, 3))
    row(_fn, "0-d", named(_fn), uniform(_low, _high))
for _fn in (np.positive, np.negative, np.degrees, np.rad2deg, np.radians, np.deg2rad):
    row(_fn, "", named(_fn), (2, 3), exact=True)
row(np.square, "", named(np.square), (2, 3), exact=True)
row(np.sinc, "at 0", named(np.sinc), given([0.0, 0.5]))
row(np.absolute, "", named(np.absolute), far_apart(2, 3), exact=True)
row(np.fabs, "", named(np.fabs), far_apart(2, 3), exact=True)
row(np.nan_to_num, "", named(np.nan_to_num), (2, 3), exact=True)
row(
    np.nan_to_num,
    "NaN and inf inside",
    lambda xp, x: xp.nan_to_num(
        xp.where(MASK, x, xp.array([np.nan, np.inf, np.nan])), posinf=2.0, neginf=-2.0
    ),
    (2, 3),
    exact=True,
)
row(np.nan_to_num, "replaced by", lambda xp, x: xp.nan_to_num(x, nan=1.0), (3,), exact=True)

_PAIRS = (
    ("", (2, 3), (2, 3)),
    ("rank 1 and 2", (3,), (2, 3)),
    ("both stretch", (3, 1), (2, 1, 3)),
    ("rank 0", (2, 3), ()),
    ("unit axes", (1, 3), (3, 1)),
)
for _note, _s, _r in _PAIRS:
    for _fn in (np.add, np.subtract, np.multiply):
        row(_fn, _note, named(_fn), _s, _r, exact=True)
    for _fn in (np.logaddexp, np.logaddexp2):
        row(_fn, _note, named(_fn), _s, _r)
    for _fn in (np.divide, np.hypot, np.arctan2):
        row(_fn, _note, named(_fn), distinct(*_s), distinct(*_r))
    for _fn in (np.maximum, np.minimum, np.fmax, np.fmin, np.copysign):
        row(_fn, _note, named(_fn), far_apart(*_s), far_apart(*_r, offset=0.5), exact=True)
    for _fn in (np.power, np.float_power):
        row(_fn, _note, named(_fn), uniform(0.3, 2, *_s), uniform(-2, 2, *_r))
    for _fn in (np.remainder, np.fmod):
        row(_fn, _note, named(_fn), uniform(5, 5.5, *_s), uniform(1.9, 2.1, *_r))
        row(_fn, f"negative {_note}", named(_fn), uniform(-5.5, -5, *_s), uniform(1.9, 2.1, *_r))
row(np.fmax, "NaN ignored", lambda xp, x: xp.fmax(x, xp.array([np.nan, -9.0])), (3, 2), jax=False)

for _y in (2, 3, 1, 0, -2, 2.0, 0.5, -1.5):
    row(np.power, f"exponent {_y!r}", lambda xp, x, y=_y: xp.power(x, y), uniform(0.3, 2, 2, 3))
row(np.power, "negative base", lambda xp, x: xp.power(x, 3), distinct(2, 3))
row(np.power, "base 0", lambda xp, x: xp.power(x, 2), given([0.0, 1.0, -1.0]))
row(
    np.power,
    "exponents of an integer array",
    lambda xp, x: xp.power(x, xp.array([0, 1, 2])),
    distinct(2, 3),
)
row(np.power, "exponent, of 2", lambda xp, y: xp.power(2, y), (2, 3))
row(np.power, "exponent, of 0.5", lambda xp, y: xp.power(0.5, y), (2, 3))
row(
    np.power,
    "exponent, of an array",
    lambda xp, y: xp.power(xp.array([[0.5], [2.0]]), y),
    (2, 3),
)
row(np.power, "exponents at 0", named(np.power), uniform(0.5, 2, 3), given([0.0, 1.0, 2.0]))
row(np.float_power, "exponent 3", lambda xp, x: xp.float_power(x, 3), distinct(2, 3))

for _note, _f in {
    "": lambda xp, x: xp.clip(x, -125, 75),
    "no lower bound": lambda xp, x: xp.clip(x, None, 75.0),
    "no upper bound": lambda xp, x: xp.clip(x, -125.0, None),
    **(
        {
            "min and max": lambda xp, x: xp.clip(x, min=-125, max=75),
            "max": lambda xp, x: xp.clip(x, max=75.0),
        }
        if SINCE_2_1
        else {}
    ),
}.items():
    row(np.clip, _note, _f, far_apart(2, 3), exact=True)
row(
    np.clip,
    "a_min and a_max",
    lambda xp, x: xp.clip(x, a_min=-125, a_max=75),
    far_apart(2, 3),
    exact=True,
    jax=False,
)
row(
    np.clip,
    "array bounds",
    lambda xp, x, lower, upper: xp.clip(x, lower, upper),
    far_apart(2, 3),
    uniform(-126, -124, 3),
    uniform(124, 126, 2, 1),
    exact=True,
)
row(
    np.clip,
    "bounds of higher rank",
    lambda xp, x, lower: xp.clip(x, lower, 900.0),
    far_apart(3),
    far_apart(2, 1, offset=0.5),
    exact=True,
)

row(np.where, "", lambda xp, x, y: xp.where(MASK, x, y), (2, 3), (2, 3), exact=True)
row(np.where, "stretched", lambda xp, x, y: xp.where(MASK, x, y), (3,), (2, 1), exact=True)
row(np.where, "mask stretched", lambda xp, x, y: xp.where(MASK[0], x, y), (2, 3), (), exact=True)
row(np.where, "one number", lambda xp, x: xp.where(MASK, x, 0.5), (3,), exact=True)
row(
    np.where,
    "by its own value",
    lambda xp, x: xp.where(x > 0, x, 0.1 * x),
    far_apart(2, 3),
    exact=True,
)
row(
    np.where,
    "other branch infinite",
    lambda xp, x: xp.where(MASK, xp.log(xp.where(MASK, x, 1)), 0.0),
    uniform(0.5, 2, 2, 3),
)
row(astype, "", lambda xp, x: x.astype(np.float64), (2, 3), exact=True)
row(_to_float, "", lambda xp, x: _to_float(x, np.float64), (2, 3), exact=True, jax=False)
row(np.astype, "", lambda xp, x: xp.astype(x, np.float64), (2, 3), exact=True)

# --- reductions --------------------------------------------------------------------------------

_AXES: tuple = (None, 0, 1, -1, (0, 2), (-1, 0), ())
for _fn, _draw, _exact in (
    (np.sum, uniform(0.5, 2, 2, 3, 4), True),
    (np.mean, uniform(0.5, 2, 2, 3, 4), True),
    (np.var, uniform(-2, 2, 2, 3, 4), True),
    (np.std, distinct(2, 3, 4), False),
    (np.prod, uniform(0.7, 1.4, 2, 3, 2), False),
    (np.max, far_apart(2, 3, 4), True),
    (np.min, far_apart(2, 3, 4), True),
    (np.amax, far_apart(2, 3, 4), True),
    (np.amin, far_apart(2, 3, 4), True),
):
    for _axis in _AXES:
        if _axis == () and _fn is np.std:
            continue  # the deviation of a single number is 0, where it has no derivative
        for _keepdims in (False, True):
            row(
                _fn,
                f"axis={_axis}{', keepdims' if _keepdims else ''}",
                lambda xp, x, fn=_fn, axis=_axis, keepdims=_keepdims: getattr(xp, fn.__name__)(
                    x, axis=axis, keepdims=keepdims
                ),
                _draw,
                exact=_exact,
            )
    row(
        _fn,
        "axis by position",
        lambda xp, x, fn=_fn: getattr(xp, fn.__name__)(x, 1),
        _draw,
        exact=_exact,
    )
row(np.sum, "0-d", named(np.sum), (), exact=True)
for _fn in (np.var, np.std):
    for _name in ("ddof", "correction"):
        row(
            _fn,
            _name,
            lambda xp, x, fn=_fn, name=_name: getattr(xp, fn.__name__)(x, axis=0, **{name: 1}),
            distinct(3, 2),
            exact=_fn is np.var,
        )
row(np.prod, "a zero", lambda xp, x: xp.prod(x, axis=1), given([[0, 2, 3], [1, 2, -3]]))
row(
    np.prod, "two zeros", lambda xp, x: xp.prod(x, axis=1), given([[0, 2, 0], [0, 0, 0], [1, 2, 3]])
)

for _fn in (np.cumsum, np.cumprod):
    for _axis in (None, 0, 1, -1):
        row(
            _fn,
            f"axis={_axis}",
            lambda xp, x, fn=_fn, axis=_axis: getattr(xp, fn.__name__)(x, axis=axis),
            uniform(0.5, 1.5, 2, 3, 2),
            exact=_fn is np.cumsum,
        )
for _axis in (None, 0, -1):
    row(
        np.cumprod,
        f"zeros, axis={_axis}",
        lambda xp, x, axis=_axis: xp.cumprod(x, axis=axis),
        given([[1, 0, 3, 2], [0, 2, 0, 3], [1.5, 2, 1, -1]]),
    )

for _ord in (None, 1, 2, 3, 2.5, np.inf, -np.inf):
    row(
        np.linalg.norm,
        f"ord={_ord}",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord),
        distinct(4),
    )
    row(
        np.linalg.norm,
        f"ord={_ord}, axis=0",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord=ord, axis=0),
        distinct(3, 2),
    )
    row(
        np.linalg.norm,
        f"ord={_ord}, axis=-1, keepdims",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord=ord, axis=-1, keepdims=True),
        distinct(2, 3),
    )
row(np.linalg.norm, "of a matrix", lambda xp, x: xp.linalg.norm(x), (2, 3))
row(np.linalg.norm, "of a matrix, keepdims", lambda xp, x: xp.linalg.norm(x, keepdims=True), (2, 3))
row(np.linalg.norm, "fro", lambda xp, x: xp.linalg.norm(x, "fro", (0, -1)), (2, 3, 2))
row(np.linalg.norm, "of rank 3", lambda xp, x: xp.linalg.norm(x), (2, 3, 2), jax=False)

# --- products ----------------------------------------------------------------------------------

for _s, _r in (
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((3,), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 2, 3), (3, 4)),
    ((2, 3), (4, 3, 2)),
    ((3, 2, 2), (3, 2, 2)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((1, 2, 3), (4, 3, 2)),
    ((4, 2, 3), (1, 3, 2)),
):
    row(np.matmul, f"{_s}{_r}", named(np.matmul), _s, _r, exact=True)
    if 1 not in (_s + _r)[: max(len(_s), len(_r))]:
        _t = _r if len(_r) < 2 else (*_r[:-2], _s[-1], _r[-1])
        row(np.dot, f"{_s}{_t}", named(np.dot), _s, _t, exact=True)
    _u = (*_r[:-1], _s[-1])
    row(np.inner, f"{_s}{_u}", named(np.inner), _s, _u, exact=True)
for _fn in (np.dot, np.inner):
    row(_fn, "number first", named(_fn), (), (2, 3), exact=True)
    row(_fn, "number second", named(_fn), (2, 3), (), exact=True)
row(np.vdot, "", named(np.vdot), (3,), (3,), exact=True)
row(np.vdot, "matrices", named(np.vdot), (2, 3), (2, 3), exact=True)
row(np.outer, "", named(np.outer), (2,), (3,), exact=True)
row(np.outer, "matrices", named(np.outer), (2, 2), (3, 1), exact=True)
row(np.linalg.outer, "", lambda xp, x, y: xp.linalg.outer(x, y), (2,), (3,), exact=True)
row(np.kron, "", named(np.kron), (2, 2), (3, 2), exact=True)
row(np.kron, "rank 1 and 2", named(np.kron), (2,), (2, 3), exact=True)
row(np.kron, "rank 3 and 1", named(np.kron), (2, 1, 2), (3,), exact=True)

for _s, _r, _axes in (
    ((2, 3, 4), (3, 4, 2), 2),
    ((2, 3), (3, 2), 1),
    ((2, 3), (2,), 0),
    ((2, 3), (3, 2), (1, 0)),
    ((2, 3, 4), (4, 2, 3), ([0, 2], [1, 0])),
    ((2, 3, 4), (4, 2, 3), ((-2, 0), (-1, 1))),
    ((2, 3), (2, 3), (0, 0)),
):
    row(
        np.tensordot,
        f"axes={_axes}",
        lambda xp, x, y, axes=_axes: xp.tensordot(x, y, axes),
        _s,
        _r,
        exact=True,
    )
row(np.tensordot, "", lambda xp, x, y: xp.tensordot(x, y, axes=1), (2, 3), (3,), exact=True)

for _spec, *_shapes in (
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba,bc", (2, 3), (2, 4)),
    ("ij , jk -> ki", (2, 3), (3, 4)),
    ("...ij,...jk->...ik", (2, 2, 3), (3, 4)),
    ("...ij,...jk", (2, 3), (4, 3, 2)),
    ("...i,i->...", (2, 3, 4), (4,)),
    ("...,...->...", (2, 3), (3,)),
    ("i...,i->...", (3, 2), (3,)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ii,i->i", (3, 3), (3,)),
    ("iij,jk->ik", (3, 3, 2), (2, 3)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->j", (2, 3)),
    ("ij", (2, 3)),
    ("ba", (2, 3)),
    ("i->i", (3,)),
    ("i,j->ij", (2,), (3,)),
    ("ij,kl->il", (2, 3), (2, 3)),
    ("i,i->", (3,), (3,)),
    (",i->i", (), (3,)),
    ("ij,jk,kl->il", (2, 3), (3, 2), (2, 3)),
    ("ij,ij,ij->i", (2, 3), (2, 3), (2, 3)),
    ("i,j,k->ijk", (2,), (3,), (2,)),
    ("a,ab,b->", (2,), (2, 3), (3,)),
    ("kk->k", (3, 3)),
    ("...k,kA->...A", (2, 3), (3, 2)),
    ("bhqk,bkhd->bqhd", (2, 2, 3, 2), (2, 2, 2, 3)),
):
    row(
        np.einsum,
        _spec,
        lambda xp, *arrays, spec=_spec: xp.einsum(spec, *arrays),
        *_shapes,
        exact=len(_shapes) < 3,
    )
row(
    np.einsum,
    "optimize",
    lambda xp, *arrays: xp.einsum("ij,jk,kl->il", *arrays, optimize=True),
    *((2, 3), (3, 2), (2, 3)),
)
row(
    np.einsum,
    "only one differentiated",
    lambda xp, x: xp.einsum("ij,j,k->ik", x, xp.array([1.0, 2, 3]), xp.array([1.0, 2])),
    (2, 3),
    exact=True,
)

# --- linear systems ----------------------------------------------------------------------------

for _s, _r in (
    ((3, 3), (3,)),
    ((3, 3), (3, 2)),
    ((3, 3), (3, 1)),
    ((2, 3, 3), (2, 3, 4)),
    ((3, 3), (2, 3, 2)),
    ((2, 3, 3), (3, 2)),
    ((2, 1, 3, 3), (3, 3, 2)),
):
    row(np.linalg.solve, f"{_s}{_r}", lambda xp, a, b: xp.linalg.solve(a, b), invertible(*_s), _r)
row(
    np.linalg.solve,
    "batch of matrices and a vector",
    lambda xp, a, b: xp.linalg.solve(a, b),
    invertible(2, 3, 3),
    (3,),
)
for _s in ((3, 3), (2, 3, 3)):
    row(np.linalg.inv, f"{_s}", lambda xp, x: xp.linalg.inv(x), invertible(*_s))
    row(np.linalg.det, f"{_s}", lambda xp, x: xp.linalg.det(x), invertible(*_s))
    row(np.linalg.slogdet, f"{_s}", lambda xp, x: tuple(xp.linalg.slogdet(x)), invertible(*_s))
    row(
        np.linalg.cholesky,
        f"{_s}",
        lambda xp, x: xp.linalg.cholesky(x),
        positive_definite(*_s),
        jax=False,  # JAX symmetrizes first, NumPy reads the lower triangle
    )
    row(
        np.linalg.cholesky,
        f"{_s}, symmetrized",
        lambda xp, x: xp.linalg.cholesky((x + xp.swapaxes(x, -1, -2)) / 2),
        positive_definite(*_s),
    )
row(_logabsdet, "", lambda xp, x: xp.linalg.slogdet(x)[1], invertible(3, 3))
row(
    np.linalg.slogdet,
    "negative determinant",
    lambda xp, x: xp.linalg.slogdet(xp.flip(x, 0))[1],
    invertible(3, 3),
)

# --- the same entries in another shape -----------------------------------------------------------

for _note, _f in {
    "": lambda xp, x: xp.reshape(x, (3, 4)),
    "-1": lambda xp, x: xp.reshape(x, (2, -1)),
    "to one axis": lambda xp, x: xp.reshape(x, -1),
    **({"shape=": lambda xp, x: xp.reshape(x, shape=(4, 3))} if SINCE_2_1 else {}),
}.items():
    row(np.reshape, _note, _f, (2, 3, 2), exact=True)
for _axis in (0, -1, 1, (0, 2)):
    row(
        np.expand_dims,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.expand_dims(x, axis),
        (2, 3),
        exact=True,
    )
for _axis in (None, 0, -1, (0, -1)):
    row(
        np.squeeze,
        f"axis={_axis}",
        lambda xp, x, axis=_axis: xp.squeeze(x, axis=axis),
        (1, 3, 2, 1),
        exact=True,
    )
for _fn in (np.ravel, np.copy, np.real):
    row(_fn, "", named(_fn), (2, 3), exact=True)
for _fn in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    for _s in ((), (3,), (2, 3), (2, 3, 2)):
        row(_fn, f"{_s}", named(_fn), _s, exact=True)
    row(
        _fn,
        "of several",
        lambda xp, *xs, fn=_fn: list(getattr(xp, fn.__name__)(*xs)),
        (),
        (3,),
        exact=True,
    )
row(np.broadcast_to, "", lambda xp, x: xp.broadcast_to(x, (2, 3)), (3,), exact=True)
row(np.broadcast_to, "unit axes", lambda xp, x: xp.broadcast_to(x, (3, 2, 3)), (2, 1), exact=True)
row(np.broadcast_to, "rank 0", lambda xp, x: xp.broadcast_to(x, (2, 3)), (), exact=True)
row(
    np.broadcast_arrays,
    "",
    lambda xp, x, y: list(xp.broadcast_arrays(x, y)),
    (2, 1),
    (3,),
    exact=True,
)
row(np.full_like, "", lambda xp, x, v: xp.full_like(x, v), (2, 3), (), exact=True)
row(np.full_like, "stretched", lambda xp, x, v: xp.full_like(x, v), (2, 3), (3,), exact=True)
row(np.full_like, "of one number", lambda xp, x: x + xp.full_like(x, 0.5), (2, 3), exact=True)

# --- axes in another order -----------------------------------------------------------------------

row(np.transpose, "", named(np.transpose), (2, 3, 4), exact=True)
for _axes in ((1, 2, 0), (-1, 0, -2)):
    row(
        np.transpose,
        f"axes={_axes}",
        lambda xp, x, axes=_axes: xp.transpose(x, axes),
        (2, 3, 4),
        exact=True,
    )
row(np.swapaxes, "", lambda xp, x: xp.swapaxes(x, 0, -1), (2, 3, 4), exact=True)
row(np.matrix_transpose, "", named(np.matrix_transpose), (2, 3, 4), exact=True)
row(
    np.linalg.matrix_transpose,
    "",
    lambda xp, x: xp.linalg.matrix_transpose(x),
    (2, 3),
    exact=True,
)
row(np.moveaxis, "", lambda xp, x: xp.moveaxis(x, 0, -1), (2, 3, 4), exact=True)
row(np.moveaxis, "several", lambda xp, x: xp.moveaxis(x, (0, -1), (1, 0)), (2, 3, 4), exact=True)

# --- entries in another order, some repeated or left out -----------------------------------------

for _fn, _note, _f in (
    (np.flip, "", lambda xp, x: xp.flip(x)),
    (np.flip, "axis", lambda xp, x: xp.flip(x, 0)),
    (np.flip, "axes", lambda xp, x: xp.flip(x, (0, -1))),
    (np.fliplr, "", lambda xp, x: xp.fliplr(x)),
    (np.flipud, "", lambda xp, x: xp.flipud(x)),
    (np.rot90, "", lambda xp, x: xp.rot90(x)),
    (np.rot90, "k=2", lambda xp, x: xp.rot90(x, 2)),
    (np.rot90, "k=-1, axes", lambda xp, x: xp.rot90(x, -1, axes=(1, 0))),
    (np.roll, "", lambda xp, x: xp.roll(x, 2)),
    (np.roll, "axis", lambda xp, x: xp.roll(x, -1, axis=1)),
    (np.roll, "axes", lambda xp, x: xp.roll(x, (1, 2), axis=(0, 1))),
    (np.tile, "", lambda xp, x: xp.tile(x, 2)),
    (np.tile, "axes", lambda xp, x: xp.tile(x, (2, 1))),
    (np.tile, "new axis", lambda xp, x: xp.tile(x, (2, 1, 2))),
    (np.repeat, "", lambda xp, x: xp.repeat(x, 2)),
    (np.repeat, "axis", lambda xp, x: xp.repeat(x, 2, axis=0)),
    (np.repeat, "counts", lambda xp, x: xp.repeat(x, np.array([1, 0, 3]), axis=-1)),
    (np.take, "", lambda xp, x: xp.take(x, np.array([1, 0, 5, 1]))),
    (np.take, "axis", lambda xp, x: xp.take(x, np.array([[1, 0], [1, 1]]), axis=0)),
    (np.take, "negative", lambda xp, x: xp.take(x, np.array([-1, 0]), axis=-1)),
    (np.take, "one", lambda xp, x: xp.take(x, 1, axis=1)),
    (np.take_along_axis, "", lambda xp, x: xp.take_along_axis(x, np.array([[0], [2]]), 1)),
    (np.take_along_axis, "0", lambda xp, x: xp.take_along_axis(x, np.array([[0, 1, 0]]), axis=0)),
    (np.diagonal, "", lambda xp, x: xp.diagonal(x)),
    (np.diagonal, "offset", lambda xp, x: xp.diagonal(x, 1)),
    (np.linalg.diagonal, "", lambda xp, x: xp.linalg.diagonal(x)),
    (np.linalg.diagonal, "offset", lambda xp, x: xp.linalg.diagonal(x, offset=-1)),
    (np.delete, "", lambda xp, x: xp.delete(x, 1)),
    (np.delete, "axis", lambda xp, x: xp.delete(x, np.array([0, 2]), axis=1)),
    (np.diag, "of a matrix", lambda xp, x: xp.diag(x)),
    (np.diag, "of a matrix, k", lambda xp, x: xp.diag(x, k=-1)),
    (np.diagflat, "", lambda xp, x: xp.diagflat(x)),
    (np.diagflat, "k", lambda xp, x: xp.diagflat(x, 1)),
    (np.trace, "", lambda xp, x: xp.trace(x)),
    (np.trace, "offset", lambda xp, x: xp.trace(x, 1)),
    (np.linalg.trace, "", lambda xp, x: xp.linalg.trace(x)),
    (np.linalg.trace, "offset", lambda xp, x: xp.linalg.trace(x, offset=1)),
    (np.tril, "", lambda xp, x: xp.tril(x)),
    (np.tril, "k", lambda xp, x: xp.tril(x, -1)),
    (np.triu, "", lambda xp, x: xp.triu(x)),
    (np.triu, "k", lambda xp, x: xp.triu(x, k=1)),
):
    row(_fn, _note, _f, (2, 3), exact=True)
for _fn, _note, _f in (
    (np.rot90, "rank 3", lambda xp, x: xp.rot90(x, axes=(1, 2))),
    (np.diagonal, "axes", lambda xp, x: xp.diagonal(x, 0, 2, 0)),
    (np.linalg.diagonal, "rank 3", lambda xp, x: xp.linalg.diagonal(x)),
    (np.trace, "axes", lambda xp, x: xp.trace(x, axis1=-1, axis2=0)),
    (np.linalg.trace, "rank 3", lambda xp, x: xp.linalg.trace(x)),
    (np.tril, "rank 3", lambda xp, x: xp.tril(x)),
    (np.triu, "rank 3", lambda xp, x: xp.triu(x, -1)),
):
    row(_fn, _note, _f, (2, 3, 3), exact=True)
row(np.diag, "of a vector", lambda xp, x: xp.diag(x), (3,), exact=True)
row(np.diag, "of a vector, k", lambda xp, x: xp.diag(x, -1), (3,), exact=True)

row(np.sort, "", lambda xp, x: xp.sort(x), far_apart(2, 3), exact=True)
row(np.sort, "axis=0", lambda xp, x: xp.sort(x, axis=0), far_apart(3, 2), exact=True)
row(np.sort, "axis=None", lambda xp, x: xp.sort(x, axis=None), far_apart(2, 3), exact=True)
row(np.sort, "stable", lambda xp, x: xp.sort(x, stable=True), far_apart(4), exact=True)

for _note, _f in {
    "": lambda xp, x: xp.pad(x, 1),
    "pair": lambda xp, x: xp.pad(x, (1, 2)),
    "pairs": lambda xp, x: xp.pad(x, ((0, 1), (2, 0))),
    "of one number": lambda xp, x: xp.pad(x, 1, constant_values=3.0),
    "edge": lambda xp, x: xp.pad(x, 1, mode="edge"),
    "reflect": lambda xp, x: xp.pad(x, 1, mode="reflect"),
    "symmetric": lambda xp, x: xp.pad(x, ((1, 0), (2, 1)), mode="symmetric"),
    "wrap": lambda xp, x: xp.pad(x, ((0, 2), (1, 1)), mode="wrap"),
}.items():
    row(np.pad, _note, _f, (2, 3), exact=True)

# --- joining and cutting -------------------------------------------------------------------------

for _fn, _note, _f, *_shapes in (
    (np.concatenate, "", lambda xp, x, y: xp.concatenate([x, y]), (2, 3), (1, 3)),
    (np.concatenate, "axis", lambda xp, x, y: xp.concatenate((x, y), axis=-1), (2, 1), (2, 3)),
    (np.concatenate, "flat", lambda xp, x, y: xp.concatenate([x, y], None), (2, 2), (3,)),
    (np.concatenate, "same twice", lambda xp, x: xp.concatenate([x, x], 1), (2, 3)),
    (np.concatenate, "of one array", lambda xp, x: xp.concatenate(x), (2, 3)),
    (np.concatenate, "constants", lambda xp, x: xp.concatenate([MASK * 2.0, x], 0), (2, 3)),
    (np.stack, "", lambda xp, x, y: xp.stack([x, y]), (2, 3), (2, 3)),
    (np.stack, "axis", lambda xp, x, y: xp.stack([x, y], axis=-1), (2, 3), (2, 3)),
    (np.stack, "numbers", lambda xp, x, y: xp.stack([x, y]), (), ()),
    (np.vstack, "", lambda xp, x, y: xp.vstack([x, y]), (3,), (2, 3)),
    (np.hstack, "", lambda xp, x, y: xp.hstack([x, y]), (2, 1), (2, 3)),
    (np.hstack, "rank 1", lambda xp, x, y: xp.hstack([x, y]), (2,), (3,)),
    (np.dstack, "", lambda xp, x, y: xp.dstack([x, y]), (2, 3), (2, 3)),
    (np.column_stack, "", lambda xp, x, y: xp.column_stack([x, y]), (2,), (2, 3)),
    (np.append, "", lambda xp, x, y: xp.append(x, y), (2, 3), (2,)),
    (np.append, "axis", lambda xp, x, y: xp.append(x, y, axis=0), (2, 3), (1, 3)),
    (np.append, "number", lambda xp, x: xp.append(x, 3.0), (2,)),
    (np.append, "number to a matrix", lambda xp, x: xp.append(x, 3.0), (2, 2)),
    (np.split, "", lambda xp, x: xp.split(x, 2), (4, 3)),
    (np.split, "places", lambda xp, x: xp.split(x, [1, 3], axis=1), (2, 4)),
    (np.split, "axis", lambda xp, x: xp.split(x, 3, axis=-1), (2, 3)),
    (np.array_split, "", lambda xp, x: xp.array_split(x, 2), (3, 2)),
    (np.array_split, "places", lambda xp, x: xp.array_split(x, [1, 1], axis=1), (2, 3)),
    (np.vsplit, "", lambda xp, x: xp.vsplit(x, 2), (2, 3)),
    (np.hsplit, "", lambda xp, x: xp.hsplit(x, [1]), (2, 3)),
    (np.hsplit, "rank 1", lambda xp, x: xp.hsplit(x, 2), (4,)),
    (np.dsplit, "", lambda xp, x: xp.dsplit(x, 2), (2, 3, 2)),
    (np.diff, "", lambda xp, x: xp.diff(x), (2, 4)),
    (np.diff, "n=2", lambda xp, x: xp.diff(x, n=2, axis=0), (4, 2)),
    (np.diff, "n=0", lambda xp, x: xp.diff(x, 0), (3,)),
):
    row(_fn, _note, _f, *_shapes, exact=True)

# --- indexing ------------------------------------------------------------------------------------

for _note, _key in {
    "an integer": 1,
    "from the end": -1,
    "a NumPy integer": np.int64(1),
    "a slice": slice(1, None),
    "backwards": slice(None, None, -1),
    "every second from the end": (slice(None), slice(None, 0, -2)),
    "integer and slice": (0, slice(0, 2)),
    "integers": (1, 2, 0),
    "ellipsis": (..., 1),
    "ellipsis between": (0, ..., slice(1, None)),
    "new axis": (None, slice(None), None, 1),
    "nothing left": slice(2, 2),
    "a mask": MASK,
    "a mask of one axis": (slice(None), np.array([True, False, True])),
    "a list": [0, 1, 1],
    "an index array": np.array([[0, 1], [1, 1]]),
    "repeated": (slice(None), np.array([2, 2, 2])),
    "negative": np.array([-1, 0]),
    "index arrays": (np.array([0, 1, 1]), np.array([2, 2, 0])),
    "stretched": (np.array([[0], [1]]), np.array([0, 2])),
    "separated": (np.array([0, 1, 1]), slice(None), np.array([0, 1, 1])),
    "separated by an integer": (0, slice(None), np.array([0, 1, 1])),
    "with a new axis": (np.array([0, 1]), None, slice(1, 3)),
    "after an ellipsis": (..., np.array([1, 0, 1])),
}.items():
    row(
        getitem,
        _note,
        lambda xp, x, key=_key: x[np.array(key) if isinstance(key, list) else key],
        (2, 3, 2),
        exact=True,
    )
row(getitem, "a true list", lambda xp, x: x[[0, 1, 1]], (2, 3), exact=True, jax=False)
row(getitem, "True", lambda xp, x: x[True], (3,), exact=True)
row(getitem, "0-d", lambda xp, x: x[()] * x[...], (), exact=True)
row(
    zeros_with,
    "",
    lambda xp, x: zeros_with(x, (slice(None), 1), (2, 3)),
    (2,),
    exact=True,
    jax=False,
)
row(
    zeros_plus,
    "",
    lambda xp, x: zeros_plus(x, np.array([[0, 3], [3, 1]]), (2, 3)),
    (2, 2, 2),
    exact=True,
    jax=False,
)

# --- operators and methods -----------------------------------------------------------------------

_C = np.array([[1.5, -2.0, 0.5], [0.3, 2.0, -1.0]])
for _note, _f in {
    "x + c": lambda xp, x: (x + 2, 2 + x, x + _C, _C + x),
    "x - c": lambda xp, x: (x - 2, 2 - x, x - _C, _C - x),
    "x * c": lambda xp, x: (x * 2, 2 * x, x * _C, _C * x),
    "x / c": lambda xp, x: (x / 2, x / _C),
    "c / x": lambda xp, x: (2 / x, _C / x),
    "x ** c": lambda xp, x: (x**2, xp.abs(x) ** 1.5, abs(x) ** _C),
    "c ** x": lambda xp, x: (2**x, 0.5**x, abs(_C) ** x),
    "signs": lambda xp, x: (-x, +x, abs(x)),
    "x % c": lambda xp, x: (xp.sin(x) / 3 + 0.5) % 2,
    "c % x": lambda xp, x: (5.25 + 0 * x) % (2 + 0.01 * xp.sin(x)),
    "x @ c": lambda xp, x: (x @ _C.T, _C.T @ x),
}.items():
    row(f"operator {_note}", "", _f, distinct(2, 3))

METHODS = {
    "T": lambda xp, x: x.T,
    "mT": lambda xp, x: x.mT,
    "astype": lambda xp, x: x.astype(np.float64),
    "clip": lambda xp, x: (x.clip(-1.25, 0.75), x.clip(min=-1.25), x.clip(max=0.75)),
    "copy": lambda xp, x: x.copy(),
    "cumprod": lambda xp, x: (x.cumprod(), x.cumprod(axis=1)),
    "cumsum": lambda xp, x: (x.cumsum(), x.cumsum(axis=0)),
    "diagonal": lambda xp, x: x.diagonal(1),
    "dot": lambda xp, x: x.dot(_C.T),
    "flatten": lambda xp, x: x.flatten(),
    "max": lambda xp, x: (x.max(), x.max(axis=0)),
    "mean": lambda xp, x: (x.mean(), x.mean(axis=-1, keepdims=True)),
    "min": lambda xp, x: (x.min(), x.min(1)),
    "prod": lambda xp, x: (x.prod(), x.prod(axis=0)),
    "ravel": lambda xp, x: x.ravel(),
    "repeat": lambda xp, x: x.repeat(2, axis=0),
    "reshape": lambda xp, x: (x.reshape(3, 2), x.reshape((1, 6)), x.reshape(-1)),
    "squeeze": lambda xp, x: x[None].squeeze(axis=0),
    "std": lambda xp, x: (x.std(), x.std(axis=0)),
    "sum": lambda xp, x: (x.sum(), x.sum(axis=0), x.sum(axis=(0, 1), keepdims=True)),
    "swapaxes": lambda xp, x: x.swapaxes(0, 1),
    "take": lambda xp, x: x.take(np.array([2, 0]), axis=1),
    "trace": lambda xp, x: x.trace(),
    "transpose": lambda xp, x: (x.transpose(), x.transpose(1, 0), x.transpose((1, 0))),
    "var": lambda xp, x: (x.var(), x.var(axis=1, ddof=1)),
}
for _name, _f in METHODS.items():
    row(f"method {_name}", "", _f, distinct(2, 3))
row("iteration", "", lambda xp, x: [part * len(x) for part in x], (2, 3), exact=True)

# --- functions with a derivative of 0 ------------------------------------------------------------

ZERO: dict[Callable, Callable] = {
    **{
        fn: named(fn)
        for fn in (
            *(np.sign, np.floor, np.ceil, np.trunc, np.rint, np.round, np.around, np.isnan),
            *(
                np.isfinite,
                np.isinf,
                np.signbit,
                np.logical_not,
                np.argmax,
                np.argmin,
                np.argsort,
                np.nonzero,
            ),
            *(np.count_nonzero, np.any, np.all, np.shape, np.ndim, np.size, np.result_type),
            *(np.zeros_like, np.ones_like, np.iscomplexobj),
        )
    },
    np.empty_like: lambda xp, x: xp.empty_like(x).shape,
    **{
        fn: lambda xp, x, fn=fn: fn(x, 0.5)
        for fn in (
            *(np.floor_divide, np.heaviside, np.equal, np.not_equal, np.less, np.less_equal),
            *(np.greater, np.greater_equal, np.logical_and, np.logical_or, np.logical_xor),
            *(np.isclose, np.allclose, np.array_equal),
        )
    },
    np.searchsorted: lambda xp, x: xp.searchsorted(xp.sort(x.ravel()), x),
}
"""function → a way to call it, whose result is plain."""

ZERO_METHODS = {
    "all": lambda x: x.all(),
    "any": lambda x: x.any(axis=0),
    "argmax": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(axis=1),
    "argsort": lambda x: x.argsort(),
    "nonzero": lambda x: x.nonzero(),
    "round": lambda x: x.round(),
    "==": lambda x: x == 0.5,
    "!=": lambda x: x != x,
    "<": lambda x: 0.5 < x,
    "<=": lambda x: x <= 0.5,
    ">": lambda x: x > x,
    ">=": lambda x: 0.5 >= x,
    "//": lambda x: (x // 0.5, 2 // x),
    "shape": lambda x: (x.shape, x.ndim, x.size, len(x), str(x.dtype)),
}
"""method or operator → a way to use it, whose result is plain."""
