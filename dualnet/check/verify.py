"""The verification of one row: all that should be true of a derivative, at one random point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import backends, tree
from dualnet.backends import Backend
from dualnet.check.table import Row
from dualnet.checking.checks import Report, check_jvp, check_vjp
from dualnet.checking.comparison import (
    AGAINST_SAME,
    FIRST_ORDER,
    SECOND_ORDER,
    DerivativeError,
    compare,
    largest,
)
from dualnet.checking.directions import random_directions
from dualnet.core.transforms import jvp, linearize, vjp
from dualnet.random import Key
from dualnet.tree import Tree

LIMITS = {
    "first order": FIRST_ORDER,
    "second order": SECOND_ORDER,
    "k at once": AGAINST_SAME,
    "replay": AGAINST_SAME,
    "adjoint": 1e-10,
    "float32": 1e-5,
    "composed": AGAINST_SAME,
}
"""kind of check → the error that is allowed, relative to the largest entry of the reference.
(In single precision that is the largest of value, jvp and vjp together: what cancels in one of
them is not to be had more exactly than its terms.)

first order, second order: against central differences; rows that are `exact` keep to 1e-12
    and 1e-10
k at once: k directions in one pass against k single passes
replay: derivatives recorded here and applied after a call elsewhere
adjoint: ⟨u, J v⟩ against ⟨Jᵀ u, v⟩
float32: value, jvp and vjp in single precision against double
composed: value, jvp and vjp against the same written with elementary functions
"""

ROUNDING = 32 * float(np.finfo(np.float64).eps)
"""Allowed difference, relative to the largest entry, between f's own result and the primal under
jvp where a device computes them by different kernels: of one sum or product of a few entries."""

_INSIDE = 30.0
"""Rounding inside a network changes its derivatives by at most so many times what rounding its
primals once changes them by: 1 to 3 times as a rule, and up to 20 times in 60 draws of each."""

K = 3


def _measured(report: Report) -> dict[str, float]:
    """Return the errors of a report by their kinds, without those that were not measured."""
    errors = {
        "first order": report.first_order,
        "second order": report.second_order,
        "k at once": report.k_against_single,
        "adjoint": report.adjoint,
    }
    return {kind: error for kind, error in errors.items() if error is not None}


@dataclass(frozen=True)
class Result:
    """What came of a row.

    Attributes:
        row: which.
        errors: kind → the worst error; kinds that do not apply or failed are absent.
        seconds: how long it took.
        failure: the first check that failed and why, beginning with the row's name; or None.
    """

    row: Row
    errors: dict[str, float]
    seconds: float
    failure: str | None


def verify(row: Row, key: Key | None = None, backend: Backend | None = None) -> Result:
    """Verify a row at a random point.

    Args:
        row: of the table, or your own.
        key: names the point and the directions; `Key(0)` if not given.
        backend: where the arrays are; NumPy's if not given.

    Returns:
        The worst errors, and the first failure if there is one.
    """
    began = time.perf_counter()
    c = _Checks(row, (key or Key(0)).fold_in(row.name), backend or backends.get("numpy"))
    errors: dict[str, float] = {}
    failure = None
    for check in (c.draw, c.forward, c.backward, c.replay, c.float32, c.composed):
        try:
            for kind, error in check().items():
                errors[kind] = max(error, errors.get(kind, 0.0))
        except Exception as error:  # whatever a wrong rule ends in, it is this row's failure
            what = "" if isinstance(error, DerivativeError) else f"{type(error).__name__}: "
            failure = failure or f"{row.name}: {check.__name__}: {what}{error}"
    return Result(row, errors, time.perf_counter() - began, failure)


class _Checks:
    """The checks of one row; each returns its errors by kind."""

    def __init__(self, row: Row, key: Key, backend: Backend):
        self.row = row
        self.key = key
        self.backend = backend
        self.to_host = backend.to_host
        self.here: tuple = ()
        self.elsewhere: tuple = ()

    def draw(self) -> dict[str, float]:
        """The point, and another."""
        rng = np.random.default_rng(self.key.bits)
        self.here = tree.map(self.backend.asarray, self.row.arrays(rng))
        self.elsewhere = tree.map(self.backend.asarray, self.row.arrays(rng))
        return {}

    def forward(self) -> dict[str, float]:
        """The jvp against differences, to the second order, and k at once."""
        if self.row.decreed:
            return {}
        # a rule that keeps what an earlier call left behind must have an earlier call
        self._derivatives(self.row, self.elsewhere)
        report = check_jvp(
            self.row,
            self.here,
            order=2,
            k=K,
            linear=self.row.exact,
            tolerance=AGAINST_SAME if self.row.exact else FIRST_ORDER,
            rounding=ROUNDING if self.row.recomposed and self.backend.name != "numpy" else 0.0,
            key=self.key,
            to_host=self.to_host,
        )
        return _measured(report)

    def backward(self) -> dict[str, float]:
        """The vjp against the jvp, and its own derivative against differences."""
        report = check_vjp(
            self.row,
            self.here,
            order=1 if self.row.decreed else 2,
            k=K,
            tolerance=LIMITS["adjoint"],
            key=self.key,
            to_host=self.to_host,
        )
        return _measured(report)

    def replay(self) -> dict[str, float]:
        """What linearize and vjp recorded holds after a call at another point."""
        v = random_directions(self.key, self.here, K)
        out, f_jvp = linearize(self.row, *self.here)
        _, f_vjp = vjp(self.row, *self.here)
        u = random_directions(self.key.fold_in("cotangents"), out, K)
        self._derivatives(self.row, self.elsewhere)
        recorded = out, f_jvp(*v), f_vjp(u)
        fresh = self._derivatives(self.row, self.here, v, u)
        return {"replay": self._compare_all("replay", recorded, fresh)}

    def float32(self) -> dict[str, float]:
        """Compare single precision with double at the same point and directions."""
        narrow = tree.map(lambda x: x.astype(np.float32), self.here)
        v = random_directions(self.key, narrow, K)
        out = self.row(*narrow)
        u = random_directions(self.key.fold_in("cotangents"), out, K)
        wide = tuple(tree.map(lambda x: x.astype(np.float64), t) for t in (narrow, v, u))
        got = self._derivatives(self.row, narrow, v, u)
        for what, result, like in zip(("value", "jvp", "vjp"), got, (out, out, v), strict=True):
            for (path, x), y in zip(tree.items(result), tree.leaves(like), strict=True):
                if x.dtype != y.dtype:
                    raise DerivativeError(
                        f"the {what} at {path or 'its result'} is {x.dtype}, expected {y.dtype}"
                    )
        expected = self._derivatives(self.row, *wide)
        magnitude = largest(expected, self.to_host)
        if self.row.watch:
            magnitude = max(magnitude, self._rounding(wide, expected) / LIMITS["float32"])
        return {"float32": self._compare_all("float32", got, expected, magnitude)}

    def _rounding(self, wide: tuple, expected: tuple) -> float:
        """What rounding alone may change in single precision: a network with a norm of few
        entries can magnify it.

        It is measured by rounding errors of the primals, which are as large as those inside.
        """
        primals, v, u = wide
        rng = np.random.default_rng(self.key.fold_in("rounding").bits)

        def rounded(x: Any) -> Any:
            return x * self.backend.asarray(1.0 + 2.0**-24 * rng.standard_normal(x.shape))

        moved = self._derivatives(self.row, tree.map(rounded, primals), v, u)
        change = tree.map(lambda a, b: a - b, moved, expected)
        return _INSIDE * largest(change, self.to_host)

    def composed(self) -> dict[str, float]:
        """The fused function against its composition."""
        if self.row.composed is None:
            return {}
        v = random_directions(self.key, self.here, K)
        u = random_directions(self.key.fold_in("cotangents"), self.row(*self.here), K)
        fused = self._derivatives(self.row, self.here, v, u)
        reference = self._derivatives(self.row.by_composition, self.here, v, u)
        return {"composed": self._compare_all("composed", fused, reference)}

    def _derivatives(self, f: Callable, primals: tuple, v: Tree = None, u: Tree = None) -> tuple:
        """The value, the jvp along v and the vjp of u (both random if not given)."""
        v = random_directions(self.key, primals, K) if v is None else v
        out, pushed = jvp(f, primals, v)
        _, f_vjp = vjp(f, *primals)
        u = random_directions(self.key, out, K) if u is None else u
        return out, pushed, f_vjp(u)

    def _compare_all(self, kind: str, got: tuple, expected: tuple, floor: float = 0.0) -> float:
        named = zip(("the value", "the jvp", "the vjp"), got, expected, strict=True)
        return max(compare(what, a, b, LIMITS[kind], self.to_host, floor) for what, a, b in named)


def worst(results: list[Result]) -> dict[str, tuple[float, str]]:
    """Return for each kind of check the worst error, and whose it is."""
    found: dict[str, tuple[float, str]] = {}
    for result in results:
        for kind, error in result.errors.items():
            if kind not in found or error > found[kind][0]:
                found[kind] = (error, result.row.name)
    return {kind: found[kind] for kind in LIMITS if kind in found}
