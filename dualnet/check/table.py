"""What a row of the table is, and where the entries of its arguments come from.

A row says what to call, on arrays of which shapes, and from where to draw the entries: away from
kinks and singularities, so that finite differences can judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.checking.comparison import FIRST_ORDER, STEP, central_difference, largest
from dualnet.core.dual import RULES
from dualnet.core.refusals import name_of
from dualnet.tree import Tree

Draw = Callable[[np.random.Generator], Tree]
_MOST_DRAWS = 1000


@dataclass(frozen=True)
class Row:
    """One way of calling one function, layer, loss, optimizer or model.

    Attributes:
        covers: whose rule it is about; a string for what is no function (a method, a model).
        note: what is particular about this way.
        family: of which kind it is.
        f: `f(xp, *primals)`, where xp is numpy (for operations also jax.numpy) and each primal
            is an array or a tree of arrays.
        draws: one function of a generator for each primal.
        exact: a central difference of step 1 is exact up to rounding: f is a polynomial of
            degree 2 at most.
        jax: JAX has it, and means the same by it.
        composed: the same as f, written with elementary functions of xp.
        layer: the layer that f applies to {"params": ..., "state": ..., "x": ...}, if it is one.
        train: whether that layer is applied in training.
        watch: there are maxima (ReLU) or roots inside, of which the draws know nothing.
        decreed: the derivative is not that of the value but, as with stop-gradient, what
            `composed` says, so that differences cannot judge it.
        other_primal: under jvp its value is computed by other functions than without, so that on a
            device the two are equal up to rounding only.  Where `covers` is a function, its rule
            says so itself; see `recomposed`.
    """

    covers: Callable | str
    note: str
    family: str
    f: Callable
    draws: tuple[Draw, ...]
    exact: bool = False
    jax: bool = False
    composed: Callable | None = None
    layer: Any = None
    train: bool = False
    watch: bool = False
    decreed: bool = False
    other_primal: bool = False

    @property
    def recomposed(self) -> bool:
        """Whether the value under jvp is that of other functions than the value without."""
        return self.other_primal or is_composed(self.covers)

    @property
    def name(self) -> str:
        covers = self.covers if isinstance(self.covers, str) else name_of(self.covers)
        return f"{covers}-{self.note}" if self.note else covers

    def __call__(self, *primals: Any) -> Any:
        return self.f(np, *primals)

    def by_composition(self, *primals: Any) -> Any:
        """What `f` should give."""
        assert self.composed is not None
        return self.composed(np, *primals)

    def arrays(self, rng: np.random.Generator, dtype: Any = np.float64) -> tuple:
        """Primals, drawn anew where `watch` finds differences unable to judge."""
        for _ in range(_MOST_DRAWS):
            drawn: tuple = tuple(draw(rng) for draw in self.draws)
            if not self.watch or is_judged(self, drawn, rng):
                return tree.map(lambda x: np.asarray(x, dtype), drawn)
        raise ValueError(
            f"{self.name}: none of {_MOST_DRAWS} points is far enough from all kinks; make the row "
            "smaller"
        )


def is_composed(fn: Any) -> bool:
    """Tell whether the rule of a function is a composition; False for what has no rule."""
    return callable(fn) and fn in RULES and RULES[fn].composed


def adder(rows: list[Row], family: str, **defaults: Any) -> Callable:
    """The function by which a file adds rows of a family to its list."""

    def row(covers: Callable | str, note: str, f: Callable, *args: Any, **how: Any) -> None:
        """Add a row; a tuple among args is a shape of entries from [-2, 2], all others draw."""
        draws = tuple(uniform(-2, 2, *a) if isinstance(a, tuple) else a for a in args)
        rows.append(Row(covers, note, family, f, draws, **{**defaults, **how}))

    return row


# --- where the entries come from -----------------------------------------------------------------


def uniform(low: float, high: float, *shape: int) -> Draw:
    return lambda rng: rng.uniform(low, high, shape)


def distinct(*shape: int, spacing: float = 0.5, offset: float = 0.0) -> Draw:
    """Magnitudes on a grid, in random order with random signs: far from one another, from 0,
    and from those with the offset 0.5."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        n = math.prod(shape)
        grid = rng.permutation(n) + 1 + offset + rng.uniform(-0.04, 0.04, n)
        return spacing * (grid * rng.choice([-1, 1], n)).reshape(shape)

    return draw


def far_apart(*shape: int, offset: float = 0.0) -> Draw:
    """Distinct numbers that stay in order when each moves by less than 10: a function with kinks
    only where two are equal, or one is 0, is linear between here and a step of 1."""
    return distinct(*shape, spacing=50.0, offset=offset)


def invertible(*shape: int) -> Draw:
    return lambda rng: rng.uniform(-1, 1, shape) + 3 * np.eye(shape[-1])


def positive_definite(*shape: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        a = rng.uniform(-1, 1, shape)
        return a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1])

    return draw


def given(values: Any) -> Draw:
    return lambda _rng: np.array(values, np.float64)


def constant(values: np.ndarray, x: Any) -> Any:
    """Return NumPy's array as one of x's kind; where x's library does not follow NumPy's protocols,
    as JAX's does not, it takes NumPy's arrays as they are."""
    return np.asarray(values, like=x) if hasattr(x, "__array_function__") else values


def named(fn: Callable) -> Callable:
    """The function of the same name in xp."""
    return lambda xp, *arrays: getattr(xp, fn.__name__)(*arrays)


SINCE_2_1 = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # some arguments are not older
MASK = np.array([[True, False, True], [False, False, True]])

# --- how far from where differences cannot judge -------------------------------------------------

_APART = 1e-3
"""Values that are compared differ by at least as much, so that rounding to float32 keeps their
order."""
_BY_STEPS = 12.0
"""They also differ by this many times what a step of a difference changes their distance by.  A
step along a random direction changes it by a random amount, which is measured `_PROBES` times."""
_PROBES = 4
_ROOTS_FROM = 0.1
"""Between a root's argument of this size and 0, its slope changes too fast for differences."""
_BENT = 0.1 * FIRST_ORDER
"""Doubling the step changes a difference by less than this share, three times the error of the
single step, along each of some directions.  Along others it may be ten times as large."""


class _Watched(np.ndarray):
    """An array that notes how far from 0 the argument of each root is that it meets, and how far
    from each other the operands of each maximum are."""

    notes: list[tuple[np.ufunc, np.ndarray]]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, _Watched) else x for x in inputs]
        if ufunc is np.sqrt:
            self.notes.append((ufunc, np.array(plain[0])))
        elif ufunc is np.maximum and method == "__call__":
            with np.errstate(invalid="ignore"):  # -inf against -inf, as in padding
                self.notes.append((ufunc, np.subtract(*plain)))
        elif ufunc is np.maximum and method == "reduce":
            ordered = np.sort(plain[0], axis=kwargs["axis"])
            first, second = (np.take(ordered, i, axis=kwargs["axis"]) for i in (-1, -2))
            self.notes.append((ufunc, first - second))
        if outs := kwargs.get("out"):
            kwargs["out"] = tuple(np.asarray(x) for x in outs)
        result = getattr(ufunc, method)(*plain, **kwargs)
        return watched(outs[0] if outs else result, self.notes)

    def __array_function__(self, fn: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # Before version 2.2, NumPy's arrays cannot be asked for functions that take `like`.
        known = hasattr(fn, "_implementation")
        call = super().__array_function__
        result = call(fn, types, args, kwargs) if known else fn(*args, **kwargs)
        if isinstance(result, np.ndarray):  # some functions, such as np.pad, make a plain one
            return watched(result, self.notes)
        return result

    def __array_finalize__(self, parent: Any) -> None:
        self.notes = getattr(parent, "notes", [])


def watched(x: Any, notes: list[tuple[np.ufunc, np.ndarray]]) -> Any:
    """Return x as an array that writes to the list."""
    view = np.asarray(x).view(_Watched)
    view.notes = notes
    return view


def met(f: Callable, primals: Tree) -> list[tuple[np.ufunc, np.ndarray]]:
    """Return the maxima and roots that f meets, each with how far from its kink it is."""
    notes: list[tuple[np.ufunc, np.ndarray]] = []
    f(*tree.map(lambda x: watched(x, notes), primals))
    return notes


def is_judged(f: Callable, primals: Tree, rng: np.random.Generator) -> bool:
    """Tell whether differences can judge f at `primals`: no kink is near, and f is not too bent.

    Whether a kink is near depends on how much a step moves what is compared, as `_BY_STEPS` says.
    """

    def drawn() -> Tree:
        return tree.map(lambda x: rng.standard_normal(x.shape), primals)

    here = met(f, primals)
    if not here:
        raise ValueError("is_judged: f meets no maximum and no root; leave out watch=True")
    if any(fn is np.sqrt and np.any(x < _ROOTS_FROM) for fn, x in here):
        return False
    moved = [met(f, tree.map(lambda x, v: x + STEP * v, primals, drawn())) for _ in range(_PROBES)]
    for i, (fn, distance) in enumerate(here):
        if fn is np.maximum:
            with np.errstate(invalid="ignore"):
                changes = np.stack([probe[i][1] - distance for probe in moved])
            typical = np.sqrt(np.mean(np.square(changes), axis=0))
            needed = np.maximum(_APART, _BY_STEPS * typical)
            always_tied = (distance == 0.0) & (typical == 0.0)  # such as units that are off
            if np.any(~always_tied & (np.abs(distance) < needed)):
                return False
    for along in (drawn(), drawn(), drawn()):
        single, double = (central_difference(f, primals, along, h) for h in (STEP, 2 * STEP))
        if largest(tree.map(np.subtract, double, single)) > _BENT * largest(single):
            return False
    return True
