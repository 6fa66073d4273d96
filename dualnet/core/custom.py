"""`custom_jvp`: a function with a derivative rule of your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualnet.core.dispatch import primitive
from dualnet.core.engine import linearizer, rule


def custom_jvp(f: Callable) -> CustomJvp:
    """Decorator: a function of arrays whose derivative rule you state yourself.

    State it in one of two ways, once:

    * `f.defjvps(*rules)`: for each argument a linear map `(t, out, *primals)` from its tangent
      stack t `(k, *S)` to the result's; None for an argument that cannot
      carry a tangent (differentiating by it is an error).
    * `@f.deflinearizer`: a function of the same arguments that returns `(out, maps)`, where the
      maps may share what was computed.

    Write the maps with operators, or with the functions of `dn.linear`, and count axes from the
    end: the same map then serves k directions, reverse mode and nested transforms.

        @dn.custom_jvp
        def softplus(x):
            return np.logaddexp(x, 0.0)

        softplus.defjvps(lambda t, out, x: t * (1.0 - np.exp(-out)))
        dn.check_jvp(softplus, (x,))
    """
    return CustomJvp(f)


class CustomJvp:
    """What `custom_jvp` returns; call it like the function."""

    def __init__(self, f: Callable):
        self._f = primitive(f)
        self.__name__ = getattr(f, "__name__", "custom_jvp")
        self.__doc__ = f.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._f(*args, **kwargs)

    def defjvps(self, *rules: Callable | None) -> None:
        """Give the linear map of each argument."""
        rule(self._f, *rules)

    def deflinearizer(self, function: Callable) -> Callable:
        """Decorator that gives result and maps in one function."""
        return linearizer(self._f)(function)
