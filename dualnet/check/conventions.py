"""What derivatives are at kinks: one row for each convention, with a point where it holds.

`docs/functions.md` prints these numbers beside the functions, and `tests/test_docs.py` holds the
rules to them, in both modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Convention:
    """What the derivatives of a function are at a kink.

    Attributes:
        covers: the function.
        place: where the kink is, in words.
        f: the function of one vector whose derivative the numbers are; it returns one number.
        at: the vector, at the kink.
        slope: its gradient there.
        second: the diagonal of its Hessian there.
    """

    covers: Callable
    place: str
    f: Callable[[Any], Any]
    at: tuple[float, ...]
    slope: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def order(self) -> int:
        """How often the function can be differentiated there; 2 stands for twice at least."""
        return 0 if np.isnan(self.slope).any() else 1 if np.isnan(self.second).any() else 2

    def __str__(self) -> str:
        return f"{self.place}: {_numbers(self.slope)}, then {_numbers(self.second)}"


def _numbers(values: tuple[float, ...]) -> str:
    """Show the numbers of a vector, or the one number that all of them are."""
    if len({str(value) for value in values}) == 1:
        values = values[:1]
    shown = " and ".join(f"{value:.4g}" for value in values)
    return shown.replace("nan", "NaN").replace("inf", "∞")


CONVENTIONS: list[Convention] = []


def _add(fns: Any, place: str, make: Callable, at: tuple, slope: tuple, second: tuple) -> None:
    """Add a row for each function; `make(fn)` is the function of one vector."""
    for fn in fns if isinstance(fns, tuple) else (fns,):
        CONVENTIONS.append(Convention(fn, place, make(fn), at, slope, second))


def _of_pair(fn: Callable) -> Callable:
    return lambda x: fn(x[0], x[1])


def _of_entry(fn: Callable) -> Callable:
    return lambda x: fn(x[0])


_add((np.absolute, np.fabs), "x = 0", _of_entry, (0.0,), (0.0,), (NAN,))
_add(
    np.copysign,
    "x = 0",
    lambda fn: lambda x: fn(x[0], 1.0),
    (0.0,),
    (0.0,),
    (NAN,),
)
_CHOICES = (np.maximum, np.minimum, np.fmax, np.fmin)
_add(_CHOICES, "x = y", _of_pair, (1.0, 1.0), (0.5, 0.5), (NAN, NAN))
_add(
    _CHOICES,
    "x = a constant",
    lambda fn: lambda x: fn(x[0], 1.0),
    (1.0,),
    (0.5,),
    (0.0,),
)
_LARGEST: list[Any] = [np.max, np.min, np.amax, np.amin, np.nanmax, np.nanmin]
_EXTREMA = tuple(dict.fromkeys(_LARGEST))  # of which NumPy before 2.0 has two twice
_add(_EXTREMA, "two equal entries", lambda fn: fn, (1.0, 1.0), (0.5, 0.5), (NAN, NAN))
_add(np.ptp, "all entries equal", lambda fn: fn, (1.0, 1.0), (0.0, 0.0), (NAN, NAN))
_add((np.std, np.nanstd), "all entries equal", lambda fn: fn, (1.0, 1.0), (0.0, 0.0), (NAN, NAN))
_add(np.hypot, "x = y = 0", _of_pair, (0.0, 0.0), (0.0, 0.0), (NAN, NAN))
_LOG_SUMS = (np.logaddexp, np.logaddexp2)
_add(_LOG_SUMS, "x = y = ±∞", _of_pair, (-INF, -INF), (0.5, 0.5), (0.0, 0.0))
_add(np.arctan2, "x = y = 0", _of_pair, (0.0, 0.0), (NAN, NAN), (NAN, NAN))
_NORMS = (np.linalg.norm, np.linalg.vector_norm)
_add(_NORMS, "x = 0", lambda fn: fn, (0.0, 0.0), (0.0, 0.0), (NAN, NAN))
_add(
    _NORMS,
    "ord=inf, two largest entries",
    lambda fn: lambda x: fn(x, ord=np.inf),
    (2.0, 2.0),
    (0.5, 0.5),
    (NAN, NAN),
)
_add(
    np.clip,
    "x = a bound",
    lambda fn: lambda x: fn(x[0], 0.0, 1.0),
    (1.0,),
    (1.0,),
    (0.0,),
)
_add(np.sqrt, "x = 0", _of_entry, (0.0,), (INF,), (-INF,))
_add(np.cbrt, "x = 0", _of_entry, (0.0,), (INF,), (NAN,))
_add(
    (np.power, np.float_power),
    "x = 0, y = 0",
    lambda fn: lambda x: fn(x[0], 0.0),
    (0.0,),
    (0.0,),
    (0.0,),
)
_add(
    (np.power, np.float_power),
    "0 ** y",
    lambda fn: lambda y: fn(0.0, y[0]),
    (2.0,),
    (0.0,),
    (0.0,),
)
_add(
    (np.remainder, np.fmod),
    "at a jump",
    lambda fn: lambda x: fn(x[0], x[1]),
    (4.0, 2.0),
    (1.0, -2.0),
    (0.0, 0.0),
)
_add(
    np.interp,
    "at a knot",
    lambda fn: lambda x: fn(x[0], np.arange(3.0), np.array([0.0, 1.0, 5.0])),
    (1.0,),
    (4.0,),
    (0.0,),
)
_add(
    (np.sort, np.partition),
    "equal entries keep their order",
    lambda fn: lambda x: (fn(x) if fn is np.sort else fn(x, 0))[0],
    (1.0, 1.0),
    (1.0, 0.0),
    (0.0, 0.0),
)
_add(
    (np.median, np.nanmedian),
    "equal entries",
    lambda fn: fn,
    (1.0, 1.0, 1.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 0.0),
)
_add(np.nan_to_num, "x = ∞", _of_entry, (INF,), (0.0,), (0.0,))
_add(
    (np.nansum, np.nanmean),
    "an entry is NaN",
    lambda fn: fn,
    (1.0, NAN),
    (1.0, 0.0),
    (0.0, 0.0),
)


def _of_diagonal(values: Callable) -> Callable:
    return lambda x: values(x[:, None] * np.eye(2))


_add(
    np.linalg.eigvalsh,
    "the sum of equal eigenvalues",
    lambda fn: _of_diagonal(lambda a: np.sum(fn(a))),
    (2.0, 2.0),
    (1.0, 1.0),
    (NAN, NAN),
)
_add(
    np.linalg.eigh,
    "the sum of equal eigenvalues",
    lambda fn: _of_diagonal(lambda a: np.sum(fn(a)[0])),
    (2.0, 2.0),
    (1.0, 1.0),
    (NAN, NAN),
)
_add(
    np.linalg.eigvals,
    "equal eigenvalues",
    lambda fn: _of_diagonal(lambda a: fn(a)[0]),
    (2.0, 2.0),
    (NAN, NAN),
    (NAN, NAN),
)
_add(
    np.linalg.eig,
    "equal eigenvalues",
    lambda fn: _of_diagonal(lambda a: fn(a)[0][0]),
    (2.0, 2.0),
    (NAN, NAN),
    (NAN, NAN),
)
