"""Functions on the plain values of their arguments.

A composition takes its arguments another way than NumPy's own function, so what is wrong with them
may show as an IndexError or a division by zero somewhere inside.  NumPy has a better word for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualnet.core.aliasing import own
from dualnet.core.dual import innermost_level, primal_of
from dualnet.errors import DualnetError


def plain(x: Any) -> Any:
    """Find the plain value under all levels, in lists and tuples too."""
    if isinstance(x, (list, tuple)) and innermost_level(x) is not None:
        return [plain(item) for item in x]
    return primal_of(x)


def require_accepted(fn: Callable, args: tuple, kwargs: dict, error: Exception) -> None:
    """Refuse a call that failed as `fn` itself does, if it refuses the plain values, too.

    An error of the same class, or of dualnet's, has words that are good enough.
    """
    if isinstance(error, DualnetError):
        return
    try:
        fn(*(own(plain(x)) for x in args), **{name: plain(x) for name, x in kwargs.items()})
    except Exception as refusal:
        if not isinstance(error, type(refusal)):
            raise refusal from None
