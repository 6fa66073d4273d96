"""The derivative rules of SciPy's special functions: a table, read when SciPy was imported.

SciPy's ufuncs ask a Dual what they mean to it, as NumPy's do, so that `scipy.special.erf(x)` works
as it stands.  This module imports no SciPy: `core.late` calls `register` when one of
the functions of `scipy.special` first meets a Dual.  Functions of SciPy that are no ufuncs are in
`dualnet.scipy`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core.dual import primitive
from dualnet.core.engine import elementwise
from dualnet.core.tables.kinks import bends
from dualnet.types import Array

__all__ = [
    "register",
]

_SQRT_PI = math.sqrt(math.pi)
_SQRT_2PI = math.sqrt(2.0 * math.pi)


def register(special: Any) -> None:
    """Give the ufuncs of `scipy.special` their rules.

    Users do not call it: it is called once, when one of the functions first meets a Dual.

    Args:
        special: the module `scipy.special`.

    Raises:
        ValueError: it was called before.

    Examples:
        >>> from scipy.special import erf, gammaln  # the extra `scipy` installs it
        >>> round(float(dn.grad(erf)(0.0)), 4)  # 2 / √π
        1.1284
        >>> round(float(dn.grad(gammaln)(1.0)), 4)  # minus Euler's constant
        -0.5772
    """
    _error_functions(special)
    _logistic(special)
    _gamma_functions(special)
    _entropies(special)
    _bessel_functions(special)
    _powers(special)


def _bell(x: Array) -> Array:
    """Evaluate exp(-x²); beyond 30 it is 0, and x² is not formed there because it may overflow."""
    return np.exp(-np.square(np.clip(x, -30.0, 30.0)))


def _error_functions(special: Any) -> None:
    elementwise(special.erf, lambda t, out, x: t * (_bell(x) * (2.0 / _SQRT_PI)))
    elementwise(special.erfc, lambda t, out, x: t * (_bell(x) * (-2.0 / _SQRT_PI)))
    elementwise(special.erfinv, lambda t, out, x: t * (np.exp(np.square(out)) * (_SQRT_PI / 2.0)))
    elementwise(special.ndtr, lambda t, out, x: t * (_bell(x * math.sqrt(0.5)) / _SQRT_2PI))
    elementwise(special.ndtri, lambda t, out, p: t * (np.exp(np.square(out) * 0.5) * _SQRT_2PI))

    @primitive
    def ratio_of_tail(x: Array) -> Array:
        """Divide the normal density by its distribution function, without a quotient of zeros."""
        return math.sqrt(2.0 / math.pi) / special.erfcx(x * -math.sqrt(0.5))

    def slope_of_ratio(x: Array, ratio: Array) -> Array:
        # The slope is -ratio (x + ratio).  Far to the left the sum cancels, and its asymptotic
        # series in u = 1/x² takes its place; the first term left out is 110410 u⁶.
        far = np.less(x, -25.0)
        inverse = -1.0 / np.where(far, x, -25.0)
        u = np.square(inverse)
        series = 1.0 - u * (2.0 - u * (10.0 - u * (74.0 - u * (706.0 - u * 8162.0))))
        return -ratio * np.where(far, inverse * series, np.where(far, 0.0, x) + ratio)

    elementwise(ratio_of_tail, lambda t, out, x: t * slope_of_ratio(x, out))
    elementwise(special.log_ndtr, lambda t, out, x: t * ratio_of_tail(x))


def _logistic(special: Any) -> None:
    # 1 - expit(x) would be 0 for large x, where expit(-x) is not.
    elementwise(special.expit, lambda t, out, x: t * (out * special.expit(-x)))
    elementwise(special.log_expit, lambda t, out, x: t * special.expit(-x))
    elementwise(special.logit, lambda t, out, x: t / (x * (1.0 - x)))


def _gamma_functions(special: Any) -> None:
    for log_gamma in (special.gammaln, special.loggamma):
        elementwise(log_gamma, lambda t, out, x: t * special.digamma(x))
    elementwise(special.gamma, lambda t, out, x: t * (out * special.digamma(x)))

    @primitive
    def polygamma(n: int, x: Array) -> Array:
        """Evaluate the n-th derivative of digamma for n ≥ 1, in the dtype of x."""
        return special.zeta(n + 1.0, x) * float((-1) ** (n + 1) * math.factorial(n))

    elementwise(polygamma, None, lambda t, out, n, x: t * polygamma(n + 1, x))
    elementwise(special.digamma, lambda t, out, x: t * polygamma(1, x))

    def by_first(t: Any, out: Array, x: Array, y: Array) -> Any:
        return t * (special.digamma(x) - special.digamma(x + y))

    def by_second(t: Any, out: Array, x: Array, y: Array) -> Any:
        return by_first(t, out, y, x)

    elementwise(special.betaln, by_first, by_second)
    elementwise(
        special.beta,
        lambda t, out, x, y: by_first(t, out, x, y) * out,
        lambda t, out, x, y: by_second(t, out, x, y) * out,
    )


def _powers(special: Any) -> None:
    """Register what SciPy has under names of its own beside NumPy's functions."""
    elementwise(special.expm1, lambda t, out, x: t * np.exp(x))
    elementwise(special.log1p, lambda t, out, x: t / (x + 1.0))
    elementwise(special.exp2, lambda t, out, x: t * (out * math.log(2.0)))
    elementwise(special.exp10, lambda t, out, x: t * (out * math.log(10.0)))
    elementwise(special.cbrt, lambda t, out, x: t / (3.0 * np.square(out)))


def _quotient(x: Array, y: Array) -> Array:
    """Divide x by y; 0/0 counts as 0, and its own derivative is not finite."""
    both = np.logical_and(np.equal(x, 0), np.equal(y, 0))
    return np.where(both, np.cbrt(np.where(both, x, 1)), x / np.where(both, 1, y))


def _entropies(special: Any) -> None:
    # At x = 0 the slope by x is an infinite limit; the slope by y is 0, also at y = 0.
    elementwise(
        special.xlogy,
        lambda t, out, x, y: t * np.log(y),
        lambda t, out, x, y: t * _quotient(x, y),
    )
    elementwise(
        special.xlog1py,
        lambda t, out, x, y: t * np.log1p(1.0 * y),  # that of a boolean would be float16
        lambda t, out, x, y: t * _quotient(x, 1.0 + y),
    )
    elementwise(special.entr, lambda t, out, x: t * (-1.0 - np.log(x)))
    elementwise(
        special.kl_div,
        lambda t, out, x, y: t * (np.log(x) - np.log(y)),
        lambda t, out, x, y: t * (1.0 - _quotient(x, y)),
    )
    elementwise(
        special.rel_entr,
        lambda t, out, x, y: t * (np.log(x) - np.log(y) + 1.0),
        lambda t, out, x, y: t * -_quotient(x, y),
    )


def _bessel_functions(special: Any) -> None:
    def i1_over_x(i1: Any, x: Array, damping: Any) -> Array:
        # Near 0 the power series keeps all derivatives right: Σ (x²/4)^n / (2 n! (n+1)!).
        near = np.less(np.absolute(x), 1.0)
        inner = np.where(near, x, 0)
        u, series = np.square(inner) * 0.25, np.zeros_like(x)
        for n in range(10, -1, -1):
            series = series * u + 0.5 / (math.factorial(n) * math.factorial(n + 1))
        return np.where(near, series * damping(inner), i1(x) / np.where(near, 1, x))

    def slope_of_i1(x: Array) -> Array:
        return special.i0(x) - i1_over_x(special.i1, x, lambda _x: 1.0)

    def slope_of_i1e(x: Array) -> Array:
        damped = i1_over_x(special.i1e, x, lambda x: np.exp(-np.absolute(x)))
        return -gap(x) - damped

    def gap(x: Array) -> Array:
        """Return I₁ - I₀ of |x|, damped by exp(-|x|); far from 0 by its series, as it cancels."""
        a = np.absolute(x)
        far = np.greater(a, 300.0)
        u = np.where(far, 1.0 / np.where(far, a, 1.0), 0.0)
        series = u * (1 / 8 + u * (1 / 8 + u * (25 / 128 + u * (13 / 32 + u * (1073 / 1024)))))
        near = np.where(far, 0.0, a)
        exact = special.i1e(near) - special.i0e(near)
        return np.where(far, special.i0e(x) * (-u * (0.5 + series)), exact)

    elementwise(special.i0, lambda t, out, x: t * special.i1(x))
    elementwise(special.i1, lambda t, out, x: t * slope_of_i1(x))
    # The factor exp(-|x|) has a kink at 0, where the slope of |x| counts as 0.
    elementwise(special.i0e, lambda t, out, x: t * (np.sign(x) * gap(x)))
    bends(special.i0e, lambda out, x: (x, np.equal(x, 0), ()))
    elementwise(special.i1e, lambda t, out, x: t * slope_of_i1e(x))
