"""Check that derivatives are right: `check_jvp` and `check_vjp`.

This file says what is checked.  How differences are formed and judged, and what a failure says, is
in `comparison`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dualnet import tree
from dualnet.checking.comparison import (
    AGAINST_SAME,
    FIRST_ORDER,
    ROUNDING,
    SECOND_ORDER,
    STEP,
    Culprit,
    DerivativeError,
    central_difference,
    compare,
    is_rounding,
    largest_moving,
    sizes,
)
from dualnet.checking.directions import as_array, long_enough, one_of, random_directions
from dualnet.checking.own_dtype import as_float64, check_own_dtype, linearized, require_same
from dualnet.core.arguments import float_array, require_sequences
from dualnet.core.derivatives import jacfwd
from dualnet.core.transforms import jvp, vjp
from dualnet.errors import UsageError
from dualnet.options import is_int
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array


@dataclass(frozen=True)
class Report:
    """The outcome of a check that passed: the worst error of each kind, None for what the check did
    not measure.

    Errors are relative to the largest expected entry, those of derivatives to that of each array of
    f's result by itself; those of `adjoint` are relative to the sum of the absolute terms of the
    inner products.

    Attributes:
        first_order: of the jvp, compared with central differences.
        second_order: of the derivative of the jvp or vjp, compared with central differences.
        k_against_single: of k directions in one pass, compared with k single passes.
        adjoint: of ⟨u, J v⟩ = ⟨Jᵀ u, v⟩.

    Examples:
        >>> report = dn.check_vjp(np.sin, (np.array([1.0, 2.0]),))
        >>> report.adjoint < 1e-10, report.first_order
        (True, None)
    """

    first_order: float | None = None
    second_order: float | None = None
    k_against_single: float | None = None
    adjoint: float | None = None


def check_jvp(
    f: Callable,
    primals: Sequence,
    *,
    order: int = 1,
    k: int = 3,
    linear: bool = False,
    tolerance: float = FIRST_ORDER,
    rounding: float = 0.0,
    key: Key | None = None,
    to_host: Callable = np.asarray,
) -> Report:
    """Check the jvp of `f` at `primals` against central differences.

    It is also checked that the primal under jvp equals f's own result (bit for bit, unless
    `rounding` allows more) and has its dtype, that k directions in one pass give the same as k
    single passes, and that `linearize` does too when it is applied after f was evaluated elsewhere
    and its arguments were changed.
    Differences are formed in float64; where primals are narrower, the jvp in their own dtype is
    compared with that in float64, so that what overflows there or widens the dtype is found.

    Args:
        f: function of trees of float64 arrays, or of the primals' dtypes if they are narrower;
            smooth within about 1e-5 of the primals, and within 1e-8 of the size of large ones.
        primals: one tree for each argument.
        order: 1, or 2 to check the derivative of the jvp too, by nesting.
        k: how many directions.
        linear: f is a polynomial of degree 2 at most.  Then the step is 1, and the only error is
            rounding.
        tolerance: allowed error in each array of f's result, relative to the largest entry of its
            difference quotients, or to a hundredth of its own largest entry if that is more; second
            derivatives may have a hundred times this error.
        rounding: by how much the primal under jvp may differ from f's own result, relative to the
            largest entry of the result; 0 if they must be equal bit for bit.
        key: names the random directions; `Key(0)` if not given.
        to_host: makes a NumPy array of one of f's results; a backend's `to_host` serves its arrays.

    Returns:
        The worst errors found.

    Raises:
        DerivativeError: an error is too large; the message names the worst element, both values,
            the step, and a likely cause.
        UsageError: there is no primal of floats, or `order` or `k` does not fit.

    Examples:
        >>> report = dn.check_jvp(lambda x: np.exp(x).sum(), (np.array([0.5, -1.0]),), order=2)
        >>> report.first_order < 1e-7, report.second_order < 1e-5
        (True, True)
    """
    _require_arguments("check_jvp", primals, order, k)
    given = tuple(tree.map(as_array, p) for p in primals)
    primals = tuple(tree.map(as_float64, p) for p in given)
    directions = long_enough(random_directions(key or Key(0), primals, k), primals)
    if all(d is None for d in tree.leaves(directions)):
        raise UsageError(
            "check_jvp: expected an array of floats among the primals, got "
            f"{tree.describe(given)}; convert one by astype(float)"
        )
    step = 1.0 if linear else STEP

    plain = f(*primals)
    out, stacked = jvp(f, primals, directions)
    require_same("the primal under jvp", plain, out, to_host, rounding)
    along = [one_of(directions, i) for i in range(k)]
    singles = [jvp(f, primals, v)[1] for v in along]
    quotients = [central_difference(f, primals, v, step) for v in along]
    values = sizes(plain, to_host)
    slopes = [max(of) for of in zip(*(sizes(q, to_host) for q in quotients), strict=True)]
    own = [max(of) for of in zip(*(sizes(t, to_host) for t in singles), strict=True)]
    of_all = largest_moving(values, own)
    scales = [
        _scale(slope, derivative, value, of_all, step, tolerance)
        for slope, derivative, value in zip(slopes, own, values, strict=True)
    ]
    first_order = 0.0
    for v, single, quotient in zip(along, singles, quotients, strict=True):
        culprit = Culprit(f, primals, v, step, to_host)
        error = compare("jvp", single, quotient, tolerance, to_host, 0.0, culprit, scales)
        first_order = max(first_order, error)
    together = tree.map(lambda *leaves: np.stack(leaves), *singles)
    against_single = compare(
        f"{k} directions in one pass", stacked, together, AGAINST_SAME, to_host
    )
    later = linearized(f, primals, along[0], step)
    compare("linearize, applied after other calls,", later, singles[0], AGAINST_SAME, to_host)
    check_own_dtype(f, given, directions, to_host, rounding)

    second_order = None
    if order > 1:
        v, u = along[0], along[-1]
        allowed = tolerance * SECOND_ORDER / FIRST_ORDER
        _, second_order = _check_slope(
            "the jvp of the jvp",
            lambda *args: jvp(f, args, v)[1],
            primals,
            u,
            step,
            allowed,
            to_host,
            of_all,
        )
    return Report(
        first_order=first_order, second_order=second_order, k_against_single=against_single
    )


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
        order: 1, or 2 to compare the derivative of the vjp with central differences, and to check
            its transpose too.
        tolerance: allowed error, relative to the sum of the absolute terms of ⟨u, J v⟩.

    Returns:
        The worst errors found.

    Raises:
        DerivativeError: an error is too large; the message names both numbers, the worst element,
            and a likely cause.
        UsageError: there are no primals, or `order` or `k` does not fit.
        TangentError: a primal is no float.

    Examples:
        >>> @dn.linear.LinearMap
        ... def shifted(t):
        ...     return np.roll(t, 1, axis=-1)
        >>> shifted.transposed(lambda ct, shape: shifted(ct))  # it should shift to the left
        >>> shift = dn.custom_jvp(lambda x: np.roll(x, 1))
        >>> shift.defjvps(lambda t, out, x: shifted(t))
        >>> dn.check_vjp(shift, (np.array([1.0, 2.0, 3.0]),))
        Traceback (most recent call last):
        dualnet.checking.comparison.DerivativeError: check_vjp: ⟨u, J v⟩ = ... but ⟨Jᵀ u, v⟩ = ...
    """
    _require_arguments("check_vjp", primals, order, k)
    primals = tree.map(lambda x: as_float64(float_array("check_vjp", x)), tuple(primals))
    key = key or Key(0)
    directions = random_directions(key, primals, k)
    out, pushed = jvp(f, primals, directions)
    plain, f_vjp = vjp(f, *primals)
    require_same("the primal under vjp", out, plain, to_host)
    cotangents = random_directions(key.fold_in("cotangents"), out, k)
    pulled = f_vjp(cotangents)
    _require_same_shapes("the vjp", pulled, directions)
    adjoint = against_single = 0.0
    second_order = None
    for i in range(k):
        v, u, jvp_v, vjp_u = (one_of(t, i) for t in (directions, cotangents, pushed, pulled))
        error = _check_adjoint(
            "check_vjp", (f, primals), (v, jvp_v), (u, vjp_u), tolerance, to_host
        )
        adjoint = max(adjoint, error)
        what = f"{k} cotangents in one pass"
        against_single = max(against_single, compare(what, vjp_u, f_vjp(u), AGAINST_SAME, to_host))
    if order > 1:
        # the vjp is linear in the cotangents, so it must have a transpose by them too
        u = one_of(cotangents, 0)
        given = [c for c in tree.leaves(u) if c is not None]

        def pull(chosen: list, *args: Tree) -> Tree:
            """Return the vjp at `args`, as a function of the cotangents' leaves that are given."""
            rest = iter(chosen)
            whole = [c if c is None else next(rest) for c in tree.leaves(u)]
            return vjp(f, *args)[1](tree.unflatten(u, whole))

        at = (given, *primals)
        v, w = one_of(random_directions(key.fold_in("nested"), (at, primals), 1), 0)
        v = long_enough(v, at)
        of_all = largest_moving(sizes(out, to_host), sizes(pushed, to_host))
        jvp_v, second_order = _check_slope(
            "the jvp of the vjp", pull, at, v, STEP, SECOND_ORDER, to_host, of_all
        )
        vjp_w = vjp(pull, *at)[1](w)
        error = _check_adjoint(
            "the vjp of the vjp", (pull, at), (v, jvp_v), (w, vjp_w), tolerance, to_host
        )
        adjoint = max(adjoint, error)
    return Report(second_order=second_order, k_against_single=against_single, adjoint=adjoint)


def _require_arguments(name: str, primals: Sequence, order: int, k: int) -> None:
    """Raise a UsageError unless the arguments of the check `name` fit."""
    require_sequences(name, primals=primals)
    if not primals or order not in (1, 2) or not is_int(k) or k < 1:
        raise UsageError(
            f"{name}: expected at least one primal, order 1 or 2 and an int k >= 1, got "
            f"{len(primals)} primals, order {order!r} and k = {k!r}"
        )


def _scale(
    quotient: float, derivative: float, value: float, of_all: float, step: float, tolerance: float
) -> float:
    """Return what the errors of an array of f's result are relative to.

    Args:
        quotient, derivative: the largest slopes by differences and by the jvp.
        value: the largest entry of the array.  Slopes that are rounding beside it are let through.
        of_all: that of all arrays that move, beside which this one may be rounding itself.
        step, tolerance: of the check.

    Raises:
        DerivativeError: a difference of large values has no digits left for the small slope, so any
            slope would pass the check.
    """
    around = value if value > ROUNDING * of_all else of_all
    if is_rounding(quotient, derivative, around, step):
        return around
    slope, scale = max(quotient, derivative), max(quotient, 1e-2 * value)
    if scale * tolerance > 1e-3 * slope:
        raise DerivativeError(
            f"check_jvp: differences cannot judge a slope of {slope:.1e} beside values of "
            f"{value:.1e}; subtract a constant from f, or scale its parts apart"
        )
    return scale


def _check_slope(
    what: str,
    slope: Callable,
    primals: tuple,
    u: Tree,
    step: float,
    tolerance: float,
    to_host: Callable,
    beside: float,
) -> tuple[Tree, float]:
    """Return the derivative of `slope`, a first derivative, along u by nesting, and its error.

    `beside` is the largest entry of what moves in the result of the function whose slope it is.
    """
    value, nested = jvp(slope, primals, u)
    quotient = central_difference(slope, primals, u, step)
    culprit = Culprit(slope, primals, u, step, to_host)
    of_all = max([beside, *sizes(value, to_host)])
    rows = zip(*(sizes(t, to_host) for t in (value, quotient, nested)), strict=True)
    scales = [of_all if is_rounding(q, n, of_all, step, 50.0) else max(v, q) for v, q, n in rows]
    return nested, compare(what, nested, quotient, tolerance, to_host, 0.0, culprit, scales)


def _check_adjoint(
    what: str, point: tuple, forward: tuple, backward: tuple, tolerance: float, to_host: Callable
) -> float:
    """Return the relative error of ⟨u, J v⟩ = ⟨Jᵀ u, v⟩.

    Args:
        what: the check's name, for the error message.
        point: f and its primals.
        forward: v and J v.
        backward: u and Jᵀ u.
        tolerance: the allowed error.
        to_host: makes a NumPy array of a leaf.

    Raises:
        DerivativeError: the error is too large.
    """
    (f, primals), (v, jvp_v), (u, vjp_u) = point, forward, backward
    left, left_size = _inner(u, jvp_v, to_host)
    right, right_size = _inner(vjp_u, v, to_host)
    error = abs(left - right) / (max(left_size, right_size) or 1.0)
    if error <= tolerance:
        return error
    raise DerivativeError(
        f"{what}: ⟨u, J v⟩ = {left:.12g} but ⟨Jᵀ u, v⟩ = {right:.12g}, relative error {error:.2e} "
        f"(allowed {tolerance:.0e}): the transpose of a linear map does not fit the map"
        + _describe_worst_of_vjp(f, primals, u, vjp_u, to_host)
    )


def _inner(a: Tree, b: Tree, to_host: Callable) -> tuple[float, float]:
    """Return ⟨a, b⟩ over all leaves, and the sum of its absolute terms, to measure errors by."""
    total = size = 0.0
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if x is not None and y is not None:
            terms = np.multiply(to_host(x), to_host(y))
            total += float(np.sum(terms))
            size += float(np.sum(np.abs(terms)))
    return total, size


def _require_same_shapes(what: str, a: Tree, b: Tree) -> None:
    """Raise a DerivativeError where leaves of `a` and `b` differ in shape; None fits any."""
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        if y is not None and np.shape(x) != np.shape(y):
            raise DerivativeError(f"{what} at {path} has shape {np.shape(x)}, not {np.shape(y)}")


def _describe_worst_of_vjp(
    f: Callable, primals: tuple, u: Tree, pulled: Tree, to_host: Callable
) -> str:
    """Say which entry of the vjp is the worst, by forward mode along every unit vector."""

    def paired(*args: Tree) -> Array:
        """Return ⟨u, f(args)⟩, whose gradient the vjp of u is."""
        pairs = zip(tree.leaves(u), tree.leaves(f(*args)), strict=True)
        return sum(np.sum(c * y) for c, y in pairs if c is not None)

    expected = jacfwd(paired, tuple(range(len(primals))), tangent_chunk=64)(*primals)
    try:
        compare("The vjp", pulled, expected, AGAINST_SAME, to_host)
    except DerivativeError as error:
        return f". {error}"
    return ""
