"""Which functions have a derivative rule: the registry, and functions of our own that use it.

NumPy asks a foreign array what to do when one of its functions meets it (NEP 13 and NEP 18);
`Dual` answers by looking the function up here.  Functions that NumPy does not have join the
same mechanism with `@primitive`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from dualnet.errors import MissingRuleError

RULES: dict[Callable, Callable] = {}
"""function → `rule(level, args, kwargs)`, which evaluates it where `level` is the innermost
transform among the arguments.  Filled by the registration functions of `core.engine`."""


class Traced:
    """Base of `Dual`: a value that wants to handle the functions it meets."""

    __slots__ = ()

    def handle(self, fn: Callable, args: tuple, kwargs: dict) -> Any:
        raise NotImplementedError


def register(fn: Callable, rule: Callable) -> None:
    """Give `fn` its rule.  A second rule for the same function is an error, not a change."""
    if fn in RULES:
        raise ValueError(f"{name_of(fn)} has a derivative rule already; two would hide a mistake")
    RULES[fn] = rule


def rule_of(fn: Callable) -> Callable:
    """The rule of `fn`.

    Raises:
        MissingRuleError: names the function and shows how to add a rule.
    """
    try:
        return RULES[fn]
    except KeyError:
        raise MissingRuleError(
            f"{name_of(fn)} has no derivative rule. Write it with functions that have one "
            "(listed in docs/functions.md), call it on dn.stop_gradient(x) if its derivative is "
            "zero, or wrap it: `f = dn.custom_jvp(f)` and `f.defjvps(lambda t, out, x: ...)` "
            "gives the tangent of the result from the tangent t of x, written with operators or "
            "dn.linear; try it with dn.check_jvp and dn.check_vjp"
        ) from None


def primitive(fn: Callable) -> Callable:
    """Decorator: let a function of arrays take duals too, once a rule is registered for it."""

    @functools.wraps(fn)
    def dispatching(*args: Any, **kwargs: Any) -> Any:
        for arg in (*args, *kwargs.values()):
            for x in arg if isinstance(arg, (list, tuple)) else (arg,):
                if isinstance(x, Traced):
                    return x.handle(dispatching, args, kwargs)
        return fn(*args, **kwargs)

    return dispatching


def name_of(fn: Callable) -> str:
    """A function's name for messages: `np.linalg.inv`."""
    module = getattr(fn, "__module__", None) or "numpy"
    name = str(getattr(fn, "__qualname__", None) or getattr(fn, "__name__", repr(fn)))
    return f"{module}.{name}".replace("numpy.", "np.", 1) if module.startswith("numpy") else name
