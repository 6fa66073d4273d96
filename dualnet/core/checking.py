"""Checks of derivatives against what they claim: `check_jvp` and `check_vjp`.

A central difference along a random direction v, (f(x + hv) − f(x − hv)) / 2h, is off by about
h²|f'''|/6 + eps/h; h = eps^(1/3) makes that smallest, near 1e-10 in double precision.  For a
linear function the first term is absent, so h = 1 leaves rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core.dual import primal_of
from dualnet.core.transforms import jvp, require_sequences, vjp
from dualnet.errors import DualnetError
from dualnet.random import Key
from dualnet.tree import Tree


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
    tolerance: float = 1e-7,
    key: Key | None = None,
) -> Report:
    """Check the jvp of `f` at `primals` against central differences.

    Also checked: the primal under jvp equals f's own result bit for bit, tangents have the
    primal's dtype, and k directions in one pass equal k single passes.

    Args:
        f: function of trees of float64 arrays; smooth within about 1e-5 of the primals.
        primals: one tree for each argument.
        order: 2 also checks the derivative of the jvp, by nesting.
        k: how many directions.
        linear: f is linear, so a step of 1 may be used and the error is rounding alone.
        tolerance: allowed error, relative to the largest entry of the difference quotient (or a
            hundredth of f's own largest, if that is more).
        key: names the random directions; `Key(0)` if not given.

    Returns:
        The worst errors found.

    Raises:
        DerivativeError: names the worst element, both values, the step, and a likely cause.
    """
    require_sequences("check_jvp", primals=primals)
    primals = tuple(tree.map(_as_float64, p) for p in primals)
    directions = _directions(key or Key(0), primals, k)
    step = 1.0 if linear else float(np.finfo(np.float64).eps) ** (1 / 3)

    plain = f(*primals)
    out, stacked = jvp(f, primals, directions)
    _require_same("the primal under jvp", plain, out)
    singles = []
    first_order = 0.0
    for i in range(k):
        v = _one_of(directions, i)
        _, single = jvp(f, primals, v)
        singles.append(single)
        quotient = _central_difference(f, primals, v, step)
        error = _compare("jvp", single, quotient, tolerance, step, floor=1e-2 * _largest(plain))
        first_order = max(first_order, error)
    against_single = _compare(
        f"{k} directions in one pass", stacked, _stack(singles), 1e-12, step=None
    )

    second_order = 0.0
    if order > 1:
        v, u = _one_of(directions, 0), _one_of(directions, -1)
        second_order = _check_second_order(f, primals, v, u, step, tolerance)
    return Report(first_order, second_order, against_single)


def _check_second_order(
    f: Callable, primals: Tree, v: Tree, u: Tree, step: float, tolerance: float
) -> float:
    """The error of the derivative along u of the derivative along v, by nesting."""

    def along_v(*args: Any) -> Any:
        return jvp(f, args, v)[1]

    slope, nested = jvp(along_v, primals, u)
    quotient = _central_difference(along_v, primals, u, step)
    return _compare("the jvp of the jvp", nested, quotient, tolerance, step, floor=_largest(slope))


def check_vjp(
    f: Callable,
    primals: Sequence,
    *,
    k: int = 3,
    tolerance: float = 1e-10,
    key: Key | None = None,
) -> Report:
    """Check that the vjp of `f` is the transpose of its jvp: ⟨u, J v⟩ = ⟨Jᵀ u, v⟩.

    Args, Returns, Raises: as `check_jvp`.
    """
    require_sequences("check_vjp", primals=primals)
    primals = tuple(tree.map(_as_float64, p) for p in primals)
    key = key or Key(0)
    directions = _directions(key, primals, k)
    out, pushed = jvp(f, primals, directions)
    plain, f_vjp = vjp(f, *primals)
    _require_same("the primal under vjp", out, plain)
    cotangents = _directions(key.fold_in("cotangents"), out, k)
    pulled = f_vjp(cotangents)
    _require_same_shapes("the vjp", pulled, directions)
    worst = 0.0
    for i in range(k):
        forward, forward_size = _inner(cotangents, pushed, i)
        backward, backward_size = _inner(pulled, directions, i)
        error = abs(forward - backward) / (max(forward_size, backward_size) or 1.0)
        if not error <= tolerance:
            raise DerivativeError(
                f"check_vjp: ⟨u, J v⟩ = {forward:.12g} but ⟨Jᵀ u, v⟩ = {backward:.12g}, relative "
                f"error {error:.2e} (allowed {tolerance:.0e}): the transpose of a linear map "
                "does not fit the map"
            )
        worst = max(worst, error)
        single = f_vjp(_one_of(cotangents, i))
        _compare(f"{k} cotangents in one pass", _one_of(pulled, i), single, 1e-12, step=None)
    return Report(adjoint=worst)


def _as_float64(x: Any) -> Any:
    x = np.asarray(x)
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x


def _directions(key: Key, like: Tree, k: int) -> Tree:
    """k normal directions for every float leaf, None for the others."""

    def draw(path: str, x: Any) -> Any:
        x = np.asarray(x)
        if not np.issubdtype(x.dtype, np.floating):
            return None
        return np.random.default_rng(key.fold_in(path).bits).standard_normal((k, *x.shape))

    return tree.map_with_path(draw, like)


def _one_of(stacks: Tree, i: int) -> Tree:
    return tree.map(lambda t: None if t is None else t[i], stacks)


def _central_difference(f: Callable, primals: Tree, v: Tree, step: float) -> Tree:
    def moved(h: float) -> Tree:
        return f(*tree.map(lambda x, d: x if d is None else x + h * d, primals, v))

    # the spacing that was really used, after rounding, is 2·step to within rounding of x
    return tree.map(lambda b, a: (b - a) / (2.0 * step), moved(step), moved(-step))


def _stack(trees: list) -> Tree:
    return tree.map(lambda *leaves: np.stack(leaves), *trees)


def _inner(a: Tree, b: Tree, i: int) -> tuple[float, float]:
    """⟨a_i, b_i⟩ over all leaves, and the sum of absolute terms to measure errors by."""
    total = size = 0.0
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if x is not None and y is not None:
            terms = np.multiply(x[i], y[i])
            total += float(np.sum(terms))
            size += float(np.sum(np.abs(terms)))
    return total, size


def _require_same(what: str, a: Tree, b: Tree) -> None:
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        x, y = primal_of(x), primal_of(y)
        if not (
            np.array_equal(x, y, equal_nan=True) and np.asarray(x).dtype == np.asarray(y).dtype
        ):
            raise DerivativeError(f"{what} differs from f's own result at {path or 'its result'}")


def _require_same_shapes(what: str, a: Tree, b: Tree) -> None:
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        if y is not None and np.shape(x) != np.shape(y):
            raise DerivativeError(f"{what} at {path} has shape {np.shape(x)}, not {np.shape(y)}")


def _compare(
    what: str, got: Tree, expected: Tree, tolerance: float, step: float | None, floor: float = 0.0
) -> float:
    """The worst difference over all leaves, relative to the largest entry expected, or to `floor`
    if larger: the size below which rounding leaves a difference quotient no digits."""
    pairs = [
        (path, np.asarray(g, np.float64), np.asarray(e, np.float64))
        for (path, g), e in zip(tree.items(got), tree.leaves(expected), strict=True)
    ]
    largest = max(floor, _largest([e for _, _, e in pairs])) or 1.0
    worst = 0.0
    for path, g, e in pairs:
        if g.shape != e.shape:
            raise DerivativeError(f"{what}{_at(path)} has shape {g.shape}, expected {e.shape}")
        if not e.size:
            continue
        errors = np.abs(g - e) / largest
        errors = np.where(np.isnan(errors), np.inf, errors)
        at = np.unravel_index(int(np.argmax(errors)), errors.shape)
        error = float(errors[at])
        worst = max(worst, error)
        if error > tolerance:
            spot = f"[{', '.join(str(int(i)) for i in at)}]" if at else ""
            with_step = "" if step is None else f" (central difference, step {step:.1e})"
            raise DerivativeError(
                f"{what}{_at(path)}{spot} is {g[at]:.9g}, expected {e[at]:.9g}{with_step}: "
                f"relative error {error:.2e}, allowed {tolerance:.0e}. {_likely_cause(g, e)}"
            )
    return worst


def _largest(t: Tree) -> float:
    return max((float(np.max(np.abs(x), initial=0.0)) for x in tree.leaves(t)), default=0.0)


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _likely_cause(got: np.ndarray, expected: np.ndarray) -> str:
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
    return (
        "Likely a rule that is wrong for some arguments, or a kink (relu, abs, max, a rounding) "
        "within a step of the point"
    )
