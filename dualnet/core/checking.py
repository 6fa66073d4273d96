"""Checks of derivatives against what they claim: `check_jvp` and `check_vjp`.

A central difference along a random direction v, (f(x + hv) − f(x − hv)) / 2h, is off by about
h²|f'''|/6 + eps/h; h = eps^(1/3) makes that smallest, near 1e-10 in double precision.  For a
polynomial of degree 2 at most the first term is absent, so h = 1 leaves rounding alone.

Errors are relative to the largest entry of what something is compared with, and never to its
size.  A check that fails names the worst element, and says what it found out about the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core.derivatives import jacfwd
from dualnet.core.dual import primal_of
from dualnet.core.transforms import jvp, require_sequences, vjp
from dualnet.errors import DualnetError
from dualnet.random import Key
from dualnet.tree import Tree

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
AGAINST_DIFFERENCES = 1e-7
AGAINST_SAME = 1e-12
"""Allowed errors: against a central difference, and between two ways to the same number."""


class DerivativeError(DualnetError, AssertionError):
    """A derivative that is not what it claims to be."""


@dataclass(frozen=True)
class Report:
    """The outcome of a check that passed: the worst error of each kind, relative to the largest
    entry of what it was compared with."""

    first_order: float = 0.0
    second_order: float = 0.0
    k_against_single: float = 0.0
    adjoint: float = 0.0


def check_jvp(
    f: Callable,
    primals: Sequence,
    *,
    order: int = 1,
    k: int = 3,
    linear: bool = False,
    tolerance: float = AGAINST_DIFFERENCES,
    key: Key | None = None,
    to_host: Callable = np.asarray,
) -> Report:
    """Check the jvp of `f` at `primals` against central differences.

    Also checked: the primal under jvp equals f's own result bit for bit, tangents have the
    primal's dtype, and k directions in one pass equal k single passes.

    Args:
        f: function of trees of float64 arrays; smooth within about 1e-5 of the primals.
        primals: one tree for each argument.
        order: 2 also checks the derivative of the jvp, by nesting.
        k: how many directions.
        linear: f is a polynomial of degree 2 at most, so a step of 1 may be used and the error
            is rounding alone.
        tolerance: allowed error, relative to the largest entry of the difference quotient (or a
            hundredth of f's own largest, if that is more).
        key: names the random directions; `Key(0)` if not given.
        to_host: makes a NumPy array of f's results; a backend's `to_host` for other arrays.

    Returns:
        The worst errors found.

    Raises:
        DerivativeError: names the worst element, both values, the step, and a likely cause.
    """
    require_sequences("check_jvp", primals=primals)
    primals = tuple(tree.map(_as_float64, p) for p in primals)
    directions = random_directions(key or Key(0), primals, k)
    step = 1.0 if linear else STEP

    plain = f(*primals)
    out, stacked = jvp(f, primals, directions)
    _require_same("the primal under jvp", plain, out, to_host)
    floor = 1e-2 * largest(plain, to_host)
    singles, first_order = [], 0.0
    for i in range(k):
        v = one_of(directions, i)
        singles.append(jvp(f, primals, v)[1])
        quotient = _central_difference(f, primals, v, step)
        culprit = _Culprit(f, primals, v, step, to_host)
        error = compare("jvp", singles[-1], quotient, tolerance, to_host, floor, culprit)
        first_order = max(first_order, error)
    together = tree.map(lambda *leaves: np.stack(leaves), *singles)
    against_single = compare(
        f"{k} directions in one pass", stacked, together, AGAINST_SAME, to_host
    )

    second_order = 0.0
    if order > 1:
        v, u = one_of(directions, 0), one_of(directions, -1)
        second_order = _check_slope(
            "the jvp of the jvp",
            lambda *args: jvp(f, args, v)[1],
            (primals, u, step, tolerance, to_host),
        )
    return Report(first_order, second_order, against_single)


def check_vjp(
    f: Callable,
    primals: Sequence,
    *,
    order: int = 1,
    k: int = 3,
    tolerance: float = 1e-10,
    key: Key | None = None,
    to_host: Callable = np.asarray,
) -> Report:
    """Check that the vjp of `f` is the transpose of its jvp: ⟨u, J v⟩ = ⟨Jᵀ u, v⟩.

    Args:
        f, primals, k, key, to_host: as for `check_jvp`; all leaves of primals are floats.
        order: 2 also checks the derivative of the vjp, against central differences.
        tolerance: allowed error, relative to the sum of the absolute terms of ⟨u, J v⟩.

    Returns:
        The worst errors found.

    Raises:
        DerivativeError: names both numbers, the worst element, and a likely cause.
    """
    require_sequences("check_vjp", primals=primals)
    primals = tuple(tree.map(_as_float64, p) for p in primals)
    key = key or Key(0)
    directions = random_directions(key, primals, k)
    out, pushed = jvp(f, primals, directions)
    plain, f_vjp = vjp(f, *primals)
    _require_same("the primal under vjp", out, plain, to_host)
    cotangents = random_directions(key.fold_in("cotangents"), out, k)
    pulled = f_vjp(cotangents)
    _require_same_shapes("the vjp", pulled, directions)
    adjoint = against_single = 0.0
    for i in range(k):
        u, v = one_of(cotangents, i), one_of(directions, i)
        forward, forward_size = _inner(u, one_of(pushed, i), to_host)
        backward, backward_size = _inner(one_of(pulled, i), v, to_host)
        error = abs(forward - backward) / (max(forward_size, backward_size) or 1.0)
        if not error <= tolerance:
            raise DerivativeError(
                f"check_vjp: ⟨u, J v⟩ = {forward:.12g} but ⟨Jᵀ u, v⟩ = {backward:.12g}, relative "
                f"error {error:.2e} (allowed {tolerance:.0e}): the transpose of a linear map "
                f"does not fit the map{_worst_of_vjp(f, primals, u, one_of(pulled, i), to_host)}"
            )
        adjoint = max(adjoint, error)
        what = f"{k} cotangents in one pass"
        error = compare(what, one_of(pulled, i), f_vjp(u), AGAINST_SAME, to_host)
        against_single = max(against_single, error)

    second_order = 0.0
    if order > 1:
        u, v = one_of(cotangents, 0), one_of(directions, -1)
        second_order = _check_slope(
            "the jvp of the vjp",
            lambda *args: vjp(f, *args)[1](u),
            (primals, v, STEP, AGAINST_DIFFERENCES, to_host),
        )
    return Report(second_order=second_order, k_against_single=against_single, adjoint=adjoint)


def _check_slope(what: str, slope: Callable, at: tuple) -> float:
    """The error of the derivative of a first derivative, by nesting."""
    primals, u, step, tolerance, to_host = at
    value, nested = jvp(slope, primals, u)
    quotient = _central_difference(slope, primals, u, step)
    culprit = _Culprit(slope, primals, u, step, to_host)
    return compare(what, nested, quotient, tolerance, to_host, largest(value, to_host), culprit)


# --- directions and differences ------------------------------------------------------------------


def random_directions(key: Key, like: Tree, k: int) -> Tree:
    """k normal directions for every float leaf, of its dtype; None for the others."""

    def draw(path: str, x: Any) -> Any:
        if not np.issubdtype(np.result_type(x), np.floating):
            return None
        generator = np.random.default_rng(key.fold_in(path).bits)
        drawn = generator.standard_normal((k, *np.shape(x))).astype(np.result_type(x))
        return np.asarray(drawn, like=_as_array(x))

    return tree.map_with_path(draw, like)


def one_of(stacks: Tree, i: int) -> Tree:
    """Direction i of every stack."""
    return tree.map(lambda t: None if t is None else t[i], stacks)


def _as_array(x: Any) -> Any:
    return x if hasattr(x, "__array_function__") else np.asarray(x)


def _as_float64(x: Any) -> Any:
    x = _as_array(x)
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x


def _moved(primals: Tree, v: Tree, h: float) -> Tree:
    return tree.map(lambda x, d: x if d is None else x + h * d, primals, v)


def _central_difference(f: Callable, primals: Tree, v: Tree, step: float) -> Tree:
    after, before = f(*_moved(primals, v, step)), f(*_moved(primals, v, -step))
    # the spacing that was really used, after rounding, is 2·step to within rounding of x
    return tree.map(lambda b, a: (b - a) / (2.0 * step), after, before)


def _inner(a: Tree, b: Tree, to_host: Callable) -> tuple[float, float]:
    """⟨a, b⟩ over all leaves, and the sum of absolute terms to measure errors by."""
    total = size = 0.0
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if x is not None and y is not None:
            terms = np.multiply(to_host(x), to_host(y))
            total += float(np.sum(terms))
            size += float(np.sum(np.abs(terms)))
    return total, size


# --- comparisons ---------------------------------------------------------------------------------


def largest(t: Tree, to_host: Callable = np.asarray) -> float:
    """The largest absolute entry of all leaves."""
    sizes = (float(np.max(np.abs(to_host(x)), initial=0.0)) for x in tree.leaves(t))
    return max(sizes, default=0.0)


def compare(
    what: str,
    got: Tree,
    expected: Tree,
    tolerance: float,
    to_host: Callable = np.asarray,
    floor: float = 0.0,
    culprit: _Culprit | None = None,
) -> float:
    """The worst difference over all leaves, relative to the largest entry expected, or to `floor`
    if larger: the size below which rounding leaves a difference quotient no digits.

    Raises:
        DerivativeError: it is larger than `tolerance`; `what` says what was compared.
    """
    pairs = [
        (path, np.asarray(to_host(g), np.float64), np.asarray(to_host(e), np.float64))
        for (path, g), e in zip(tree.items(got), tree.leaves(expected), strict=True)
    ]
    scale = max(floor, largest([e for _, _, e in pairs])) or 1.0
    worst, found = 0.0, None
    for path, g, e in pairs:
        if g.shape != e.shape:
            raise DerivativeError(f"{what}{_at(path)} has shape {g.shape}, expected {e.shape}")
        if e.size:
            errors = np.abs(g - e) / scale
            errors = np.where(np.isnan(errors), np.inf, errors)
            at = np.unravel_index(int(np.argmax(errors)), errors.shape)
            if errors[at] > worst:
                worst, found = float(errors[at]), (path, at, g, e)
    if found is None or worst <= tolerance:
        return worst
    path, at, g, e = found
    by = "" if culprit is None else f" (central difference, step {culprit.step:.1e})"
    raise DerivativeError(
        f"{what}{_at(path)}{_spot(at)} is {g[at]:.9g}, expected {e[at]:.9g}{by}: relative error "
        f"{worst:.2e}, allowed {tolerance:.0e}. {_likely_cause(g, e, scale * tolerance)}"
        + ("" if culprit is None else culprit.evidence(path, at))
    )


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _spot(at: tuple) -> str:
    return f"[{', '.join(str(int(i)) for i in at)}]" if at else ""


def _require_same(what: str, a: Tree, b: Tree, to_host: Callable) -> None:
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        x, y = to_host(primal_of(x)), to_host(primal_of(y))
        if not (np.array_equal(x, y, equal_nan=True) and x.dtype == y.dtype):
            raise DerivativeError(f"{what} differs from f's own result at {path or 'its result'}")


def _require_same_shapes(what: str, a: Tree, b: Tree) -> None:
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        if y is not None and np.shape(x) != np.shape(y):
            raise DerivativeError(f"{what} at {path} has shape {np.shape(x)}, not {np.shape(y)}")


# --- causes --------------------------------------------------------------------------------------


def _likely_cause(got: np.ndarray, expected: np.ndarray, allowed: float) -> str:
    """What the numbers of one leaf say; `allowed` is the absolute error that counts as none."""
    if not np.all(np.isfinite(got)):
        return "Not finite: a division by zero, or 0 · inf in a branch not taken"
    ratio = float(np.vdot(got, expected) / (np.vdot(expected, expected) or 1.0))
    left = np.max(np.abs(got - ratio * expected), initial=0.0)
    if left <= 1e-5 * np.max(np.abs(expected), initial=1e-300):
        if abs(ratio + 1) < 1e-4:
            return "All entries have the wrong sign"
        if abs(ratio) < 1e-6:
            return "The tangent is lost: a zero derivative, or stop_gradient on the way"
        return f"All entries are off by the factor {ratio:.6g}"
    wrong = int(np.sum(np.abs(got - expected) > allowed))
    return (
        f"{wrong} of {got.size} entries differ: likely a rule that is wrong for some arguments or "
        "leaves out a term or an axis"
    )


@dataclass(frozen=True)
class _Culprit:
    """Where a derivative and a central difference disagree: what more differences tell."""

    f: Callable
    primals: tuple
    v: Tree
    step: float
    to_host: Callable

    def evidence(self, path: str, at: tuple) -> str:
        """About the worst element, at `path` and index `at` of f's result."""
        return self._kink(path, at) + self._argument(path, at)

    def _entry(self, result: Tree, path: str, at: tuple) -> float:
        return float(self.to_host(dict(tree.items(result))[path])[at])

    def _kink(self, path: str, at: tuple) -> str:
        """f's slopes just before and after differ far more than a smooth function's would."""
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
        """Which leaf of the arguments the error comes with, if there are several."""
        paths = [p for p, d in tree.items(self.v) if d is not None]
        if len(paths) < 2:
            return ""

        def error(leaf: str) -> float:
            alone = tree.map_with_path(lambda p, d: d if p == leaf else None, self.v)
            quotient = _central_difference(self.f, self.primals, alone, self.step)
            slope = jvp(self.f, self.primals, alone)[1]
            return abs(self._entry(slope, path, at) - self._entry(quotient, path, at))

        return f". It comes with the tangent at {max(paths, key=error)} of the arguments"


def _worst_of_vjp(f: Callable, primals: tuple, u: Tree, pulled: Tree, to_host: Callable) -> str:
    """Which entry of the vjp is wrong most, by forward mode along every unit vector."""

    def paired(*args: Any) -> Any:
        pairs = zip(tree.leaves(u), tree.leaves(f(*args)), strict=True)
        return sum(np.sum(c * y) for c, y in pairs if c is not None)

    expected = jacfwd(paired, tuple(range(len(primals))), tangent_chunk=64)(*primals)
    try:
        compare("The vjp", pulled, expected, AGAINST_SAME, to_host)
    except DerivativeError as error:
        return f". {error}"
    return ""
