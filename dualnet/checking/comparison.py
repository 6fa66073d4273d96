"""Compare a derivative with what it should be: central differences, errors, and likely causes.

The central difference along a direction v is (f(x + hv) − f(x − hv)) / 2h.  Its error is about
h²|f'''|/6 + eps/h, which h = eps^(1/3) makes smallest: near 1e-10 in double precision.  For a
polynomial of degree 2 at most the first term is zero, so with h = 1 only rounding is left.

Errors are relative to the largest expected entry, and do not depend on how many there are.  Those
of derivatives are relative to the largest entry of each array of a result by itself.  Where an
error is too large, the message names the worst element and says what was found out about the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dualnet import tree
from dualnet.core.transforms import jvp
from dualnet.errors import DualnetError
from dualnet.tree import Tree
from dualnet.types import Array

_EPSILON = float(np.finfo(np.float64).eps)
STEP = _EPSILON ** (1 / 3)
"""The step h of central differences."""
ROUNDING = 100.0 * _EPSILON
"""What is so small beside the numbers that it is made of may be nothing but rounding."""
FIRST_ORDER, SECOND_ORDER = 1e-7, 1e-5
"""Allowed errors of first and second derivatives, compared with central differences."""
AGAINST_SAME = 1e-12
"""Allowed error between two ways to compute the same number."""


class DerivativeError(DualnetError, AssertionError):
    """A derivative differs from what it should be by more than the allowed error.

    It is an AssertionError too, so that a test that calls a check fails and is no error.

    Examples:
        >>> @dn.custom_jvp
        ... def cube(x):
        ...     return x**3
        >>> cube.defjvps(lambda t, out, x: t * (2.0 * x**2))  # 3 is right
        >>> dn.check_jvp(cube, (np.array([1.0, 2.0]),))
        Traceback (most recent call last):
        dualnet.checking.comparison.DerivativeError: jvp[1] is -3.92209658, expected -5.88314487
        (central difference, ...): ... All entries are off by the factor 0.666667
    """


# --- differences ---------------------------------------------------------------------------------


def _moved(primals: Tree, v: Tree, h: float) -> Tree:
    """Return x + h v leaf by leaf; where the leaf of v is None, the leaf of x."""

    def moved(x: Array, d: Array | None) -> Array:
        if d is None:
            return x
        x = np.copy(x, order="K")  # x + h d may be in another memory order, which f may look at
        x += h * d
        return x

    return tree.map(moved, primals, v)


def central_difference(f: Callable, primals: Tree, v: Tree, step: float) -> Tree:
    """Return the difference quotient of f along v.

    Args:
        f: called as `f(*primals)`.
        primals: a tuple of trees.
        v: the direction, a tree like `primals`; leaves that are None do not move.
        step: h.

    Returns:
        A tree like f's result.
    """
    after, before = f(*_moved(primals, v, step)), f(*_moved(primals, v, -step))
    # rounding moves the two points a little; the spacing differs from 2·step by rounding of x only
    return tree.map(lambda b, a: (b - a) / (2.0 * step), after, before)


# --- comparisons ---------------------------------------------------------------------------------


def largest(t: Tree, to_host: Callable = np.asarray) -> float:
    """Return the largest finite absolute entry of all leaves; 0 if there is none."""
    return max(sizes(t, to_host), default=0.0)


def sizes(t: Tree, to_host: Callable = np.asarray) -> list[float]:
    """Return the largest finite absolute entry of each leaf; 0 if it has none."""
    entries = (np.abs(to_host(x)) for x in tree.leaves(t))
    return [float(np.max(x, where=np.isfinite(x), initial=0.0)) for x in entries]


def largest_moving(values: Sequence[float], slopes: Sequence[float]) -> float:
    """Return the largest of the values whose slopes are more than rounding; 0 if there is none."""
    pairs = zip(values, slopes, strict=True)
    return max((v for v, slope in pairs if slope > ROUNDING * v), default=0.0)


def is_rounding(
    quotient: float, derivative: float, value: float, step: float, grown: float = 1.0
) -> bool:
    """Tell whether two slopes of a function with such values are no larger than rounding, as those
    of a constant are: then nothing can be said of them.  It may have `grown` by a long program."""
    value = grown * value
    return quotient <= 3.0 * _EPSILON * value / step and derivative <= ROUNDING * value


def compare(
    what: str,
    got: Tree,
    expected: Tree,
    tolerance: float,
    to_host: Callable = np.asarray,
    floor: float = 0.0,
    culprit: Culprit | None = None,
    scales: Sequence[float] | None = None,
) -> float:
    """Return the worst difference over all leaves, relative to the largest expected entry of all.

    Args:
        what: what is compared, for the error message.
        got, expected: trees of arrays of the same structure.
        tolerance: the allowed error.
        to_host: makes a NumPy array of a leaf.
        floor: errors are relative to this number where it is larger than the largest expected
            entry.
        culprit: finds out more about the cause of an error; None for no such search.
        scales: a number for each leaf, to which its errors are relative instead.

    Raises:
        DerivativeError: the error is larger than `tolerance`, or two shapes differ.
    """
    pairs = [
        (path, np.asarray(to_host(g), np.float64), np.asarray(to_host(e), np.float64))
        for (path, g), e in zip(tree.items(got), tree.leaves(expected), strict=True)
    ]
    if scales is None:
        scales = [max(floor, largest([e for _, _, e in pairs]))] * len(pairs)
    worst, found = 0.0, None
    for (path, g, e), of_leaf in zip(pairs, scales, strict=True):
        scale = of_leaf or 1.0
        if g.shape != e.shape:
            raise DerivativeError(f"{what}{_at(path)} has shape {g.shape}, expected {e.shape}")
        if e.size:
            errors = np.abs(g - e) / scale
            errors = np.where(np.isnan(errors), np.inf, errors)
            at = np.unravel_index(int(np.argmax(errors)), errors.shape)
            if errors[at] > worst:
                worst, found = float(errors[at]), (path, at, g, e, scale)
    if found is None or worst <= tolerance:
        return worst
    path, at, g, e, scale = found
    by = "" if culprit is None else f" (central difference, step {culprit.step:.1e})"
    raise DerivativeError(
        f"{what}{_at(path)}{_spot(at)} is {g[at]:.9g}, expected {e[at]:.9g}{by}: relative error "
        f"{worst:.2e}, allowed {tolerance:.0e}. {_likely_cause(g, e, scale * tolerance)}"
        + ("" if culprit is None else culprit.evidence(path, at))
    )


def _at(path: str) -> str:
    """Format the path of a leaf for a message."""
    return f" at {path}" if path else ""


def _spot(at: tuple) -> str:
    """Format the index of an entry for a message."""
    return f"[{', '.join(str(int(i)) for i in at)}]" if at else ""


# --- causes --------------------------------------------------------------------------------------


def _likely_cause(got: np.ndarray, expected: np.ndarray, allowed: float) -> str:
    """Guess the cause of an error from the numbers of one leaf.

    Args:
        got, expected: the leaf's arrays.
        allowed: absolute errors up to this size count as none.
    """
    if not np.all(np.isfinite(expected)):
        return "What is expected is not finite: f is not, or is not defined a step off the point"
    if not np.all(np.isfinite(got)):
        return "Not finite: a division by zero, or 0 · inf in a branch not taken"
    ratio = float(np.vdot(got, expected) / (np.vdot(expected, expected) or 1.0))
    left = np.max(np.abs(got - ratio * expected), initial=0.0)
    if left <= 1e-5 * np.max(np.abs(expected), initial=1e-300):
        if abs(ratio + 1) < 1e-4:
            return "All entries have the wrong sign"
        if abs(ratio) < 1e-6:
            return "The tangent is lost: a zero derivative, or stop_gradient on the way"
        if abs(ratio - 1) > 1e-4:
            return f"All entries are off by the factor {ratio:.6g}"
    wrong = int(np.sum(np.abs(got - expected) > allowed))
    return (
        f"{wrong} of {got.size} entries differ: likely a rule that is wrong for some arguments or "
        "leaves out a term or an axis"
    )


@dataclass(frozen=True)
class Culprit:
    """Finds out why a derivative and a central difference disagree, by further differences.

    Attributes:
        f, primals, v, step: the function, and the point, direction and step of the difference.
        to_host: makes a NumPy array of a leaf of f's result.
    """

    f: Callable
    primals: tuple
    v: Tree
    step: float
    to_host: Callable

    def evidence(self, path: str, at: tuple) -> str:
        """Say what was found out about the worst entry, at `path` and index `at` of f's result."""
        return self._bend(path, at) + self._kink(path, at) + self._argument(path, at)

    def _entry(self, result: Tree, path: str, at: tuple) -> float:
        """Return one entry of a tree like f's result."""
        return float(self.to_host(dict(tree.items(result))[path])[at])

    def _bend(self, path: str, at: tuple) -> str:
        """Test whether the step is too large: halving it changes the quotient about as much."""
        halved, whole = (
            self._entry(central_difference(self.f, self.primals, self.v, step), path, at)
            for step in (self.step / 2, self.step)
        )
        slope = self._entry(jvp(self.f, self.primals, self.v)[1], path, at)
        if self.step < 1.0 and abs(halved - whole) > 0.3 * abs(slope - whole):
            return "; or f bends too much here for a difference of this step: try another point"
        return ""

    def _kink(self, path: str, at: tuple) -> str:
        """Test for a kink: f's slopes just before and after the point differ far too much."""
        if self.step == 1.0:
            return "; or linear=True is wrong, and f no polynomial of degree 2 at most"
        before, here, after = (
            self._entry(self.f(*_moved(self.primals, self.v, h)), path, at)
            for h in (-self.step, 0.0, self.step)
        )
        if abs(after - 2.0 * here + before) > 1e-2 * max(abs(after - here), abs(here - before)):
            return "; or a kink (relu, abs, max, a rounding) within a step of the point"
        return ""

    def _argument(self, path: str, at: tuple) -> str:
        """Name the leaf of the arguments whose tangent causes the error, if there are several."""
        paths = [p for p, d in tree.items(self.v) if d is not None]
        if len(paths) < 2:
            return ""

        def error(leaf: str) -> float:
            alone = tree.map_with_path(lambda p, d: d if p == leaf else None, self.v)
            quotient = central_difference(self.f, self.primals, alone, self.step)
            slope = jvp(self.f, self.primals, alone)[1]
            return abs(self._entry(slope, path, at) - self._entry(quotient, path, at))

        return f". It comes with the tangent at {max(paths, key=error)} of the arguments"
