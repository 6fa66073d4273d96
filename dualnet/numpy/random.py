"""`numpy.random`, whose functions say what to write where they meet a Dual.

A draw has no derivative by the parameters of its distribution.  What has one is a function of
parameters and of a draw that does not depend on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from dualnet.errors import MissingRuleError
from dualnet.numpy.lists import dual_in

__all__ = numpy.random.__all__


def __getattr__(name: str) -> Any:
    value = getattr(numpy.random, name)
    if not callable(value) or isinstance(value, type):
        return value
    return globals().setdefault(name, _without_duals(value))


def __dir__() -> list[str]:
    return dir(numpy.random)


def _without_duals(draw: Callable) -> Callable:
    @functools.wraps(draw)
    def call(*args: Any, **kwargs: Any) -> Any:
        if dual_in((*args, *kwargs.values())) is not None:
            raise MissingRuleError(
                f"np.random.{draw.__name__}: a draw cannot be differentiated by its parameters. "
                "Draw without them and compute with the result, as in "
                "mean + deviation * np.random.standard_normal(shape) or "
                "x[np.random.permutation(len(x))]"
            )
        return draw(*args, **kwargs)

    return call
