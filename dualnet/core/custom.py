"""`custom_jvp`: a function with a derivative rule of your own."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from dualnet import tree
from dualnet.core.arguments import parameters_of, positional_range, require_pair
from dualnet.core.dual import primitive
from dualnet.core.engine import aligned, linearizer, rule
from dualnet.core.linear import shape_of
from dualnet.errors import TangentError, UsageError
from dualnet.types import Array, Tangent

_EVERY_ARGUMENT = range(1 << 30)
"""A function of the user's may take lists of arrays anywhere, and gets them as they are."""


class custom_jvp:
    """Make a function of arrays whose derivative rule you state yourself (a decorator).

    You state it once, in one of two ways:

    * `f.defjvps(*rules)` takes for each argument a linear map `(t, out, *primals)` from its tangent
      stack t `(k, *S)` to the result's `(k, *out.shape)`, or None for an argument that cannot
      carry a tangent (to differentiate by it is an error).
    * `@f.deflinearizer` takes a function of the same arguments that returns `(out, maps)`, where
      the maps of t alone may share what was computed.

    Write the maps with operators, or with the functions of `dn.linear`, and count axes from the
    end: the same map then serves k directions, reverse mode and nested transforms.  Where an
    operator between t and an argument of more axes does not give the rank of the result, the map
    gets t once more with that rank, so that `t * y` is right for a t of fewer axes than y.  A map
    that does not give the shape of the result is refused with a TangentError.  Without a rule, the
    function is refused by a MissingRuleError where it is differentiated.

    Args:
        f: function of arrays (or lists of arrays) that returns one array of floats.

    Examples:
        >>> @dn.custom_jvp
        ... def softplus(x):
        ...     return np.logaddexp(x, 0.0)
        >>> softplus.defjvps(lambda t, out, x: t * (1.0 - np.exp(-out)))
        >>> float(dn.grad(softplus)(0.0))
        0.5
        >>> dn.check_jvp(softplus, (np.array([-1.0, 2.0]),)).first_order < 1e-7
        True
    """

    def __init__(self, f: Callable):
        self._f = primitive(f)
        vars(self._f)["own_rules"] = {}  # a rule in the table of all would be kept for ever
        self.__name__ = getattr(f, "__name__", "custom_jvp")
        self.__doc__ = f.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._f(*args, **kwargs)

    def defjvps(self, *rules: Callable | None) -> None:
        """Give the linear map of each argument.

        Args:
            rules: for each argument of f a function `(t, out, *primals)` that returns the tangent
                of the result, or None where the argument carries no tangent.

        Raises:
            UsageError: a rule is no function, or cannot be called with t, out and f's arguments.
        """
        fewest, most = positional_range(self._f)
        for position, r in enumerate(rules):
            needed, taken = positional_range(r) if callable(r) else (0, math.inf)
            unfit = taken < 2 + max(fewest, 1) or needed > 2 + most
            if unfit or not (r is None or callable(r)):
                got = f"takes {inspect.signature(r)}" if callable(r) else f"is {type(r).__name__}"
                expected = ", ".join(["t", "out", *map(str, parameters_of(self._f))])
                raise UsageError(
                    f"{self.__name__}.defjvps: the rule by argument {position} {got}, expected a "
                    f"function of ({expected}), or None where the argument carries no tangent"
                )
        maps = [None if r is None else _aligned_where_broadcast(r) for r in rules]
        rule(self._f, *maps, sequences=_EVERY_ARGUMENT)

    def deflinearizer(self, function: Callable) -> Callable:
        """Give the result and the maps in one function (a decorator).

        Args:
            function: takes f's arguments and returns `(out, maps)`; maps is a function of t, or a
                tuple with a function of t, or None, for each argument.

        Raises:
            TangentError: when f is differentiated, and the function returns something else.

        Examples:
            >>> @dn.custom_jvp
            ... def root(x):
            ...     return np.sqrt(x)
            >>> @root.deflinearizer
            ... def _(x):
            ...     out = np.sqrt(x)  # computed once, for the value and the map
            ...     return out, lambda t: t / (2.0 * out)
            >>> float(dn.grad(root)(4.0))
            0.25
        """

        @functools.wraps(function)
        def with_aligned_maps(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            name = f"{self.__name__}: the linearizer"
            out, maps = require_pair(name, "(out, maps)", function(*args, **kwargs))
            maps = (maps,) if callable(maps) else maps
            if not isinstance(maps, (tuple, list)) or not all(
                m is None or callable(m) for m in maps
            ):
                raise TangentError(
                    f"{name} must return (out, maps), where maps is a function of t, or a tuple "
                    f"with a function or None for each argument; got maps = {tree.describe(maps)}"
                )
            return out, [None if m is None else on_aligned(m, out, args) for m in maps]

        def on_aligned(linear_map: Callable, out: Array, args: tuple) -> Callable:
            of_rule = _aligned_where_broadcast(lambda t, _out, *_primals: linear_map(t))
            return lambda t: of_rule(t, out, *args)

        linearizer(self._f, sequences=_EVERY_ARGUMENT)(with_aligned_maps)
        return function


def _aligned_where_broadcast(linear_map: Callable) -> Callable:
    """Make a rule's map that may be written with operators also where the arguments broadcast.

    The map gets t as it is.  An operator between t and an argument of more axes pairs directions
    with rows; what it gives has too few axes to be a tangent of the result, or NumPy refuses it.
    There the map gets t once more, with the rank of the result.
    """
    of_aligned = aligned(linear_map)

    @functools.wraps(linear_map)
    def of_tangent(t: Tangent, out: Array, *primals: Any, **params: Any) -> Tangent:
        if isinstance(t, list) or len(shape_of(t)) >= out.ndim:
            return linear_map(t, out, *primals, **params)
        try:
            image = linear_map(t, out, *primals, **params)
        except ValueError:  # NumPy could not pair the shapes
            return of_aligned(t, out, *primals, **params)
        fits = hasattr(image, "shape") and len(shape_of(image)) == out.ndim
        return image if fits else of_aligned(t, out, *primals, **params)

    return of_tangent
