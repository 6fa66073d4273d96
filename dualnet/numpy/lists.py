"""Lists that hold duals become one Dual; every function of the namespace does so first.

NumPy turns a list of numbers into an array in each of its functions, but its protocols look for
arrays with a meaning of their own among the arguments, and not inside lists.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from dualnet.core.arrays import asarray_like
from dualnet.core.dual import Dual

SEQUENCES_OF_ARRAYS = {
    *("concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"),
    *("select", "choose", "piecewise", "multi_dot"),
}
"""Functions to which a list is a sequence of arrays of any shapes: its items are stacked instead.

For `piecewise` such an item may be a function, too.
"""


def passed(module: ModuleType, name: str) -> Any:
    """Return an attribute of a module of NumPy's; a function takes lists that hold duals."""
    value = getattr(module, name)
    if not callable(value) or isinstance(value, type):
        return value
    return taking_lists(value, f"dualnet.{module.__name__}")


@functools.cache
def taking_lists(fn: Callable, module: str) -> Callable:
    """Make the function that stacks lists which hold duals, and then calls `fn`.

    Args:
        fn: a function of NumPy's, or a method of a ufunc.
        module: where the result is found by its name, so that it can be pickled.
    """
    stack = _items_stacked if getattr(fn, "__name__", "") in SEQUENCES_OF_ARRAYS else stacked

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        for x in args:
            if isinstance(x, (list, tuple)) and dual_in(x) is not None:
                args = tuple(map(stack, args))
                break
        if kwargs and dual_in(tuple(kwargs.values())) is not None:
            named = {name: stack(x) for name, x in kwargs.items()}
            args, kwargs = _by_position(fn, args, named)
        return fn(*args, **kwargs)

    call.__module__ = module
    if isinstance(fn, np.ufunc):
        call.__qualname__ = fn.__name__
        for name in dir(fn):
            if not name.startswith("_"):
                value = getattr(fn, name)
                setattr(call, name, taking_lists(value, module) if callable(value) else value)
    return call


def _by_position(fn: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Put arguments by keyword into their positions, where rules look for tangents.

    Those behind an argument that is left out stay where they are, and are refused there.
    """
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except (TypeError, ValueError):  # arguments that do not fit, or a function that does not tell
        return args, kwargs
    return bound.args, bound.kwargs


def dual_in(x: Any) -> Dual | None:
    """Find a Dual, in nested lists and tuples too; None if there is none."""
    if isinstance(x, Dual):
        return x
    if not isinstance(x, (list, tuple)):
        return None
    kinds = set(map(type, x))  # of a long list of numbers, this is one and found fast
    if any([issubclass(kind, Dual) for kind in kinds]):
        return next(item for item in x if isinstance(item, Dual))
    for kind in kinds:
        if issubclass(kind, (list, tuple)):
            return next((found for item in x if (found := dual_in(item)) is not None), None)
    return None


def stacked(x: Any) -> Any:
    """Make one Dual of nested lists that hold duals; everything else is returned as it is.

    Raises:
        ValueError: the items of a list do not have one shape, which NumPy refuses too.
    """
    like = dual_in(x)
    return x if like is None or like is x else _stacked(x, like)


def _stacked(x: Any, like: Dual) -> Any:
    if not isinstance(x, (list, tuple)) or not x:
        return x if hasattr(x, "dtype") else asarray_like(np.asarray(x), like)
    items = [_stacked(item, like) for item in x]
    shapes = {np.shape(item): None for item in items}
    if len(shapes) > 1:
        raise ValueError(
            "a list that holds duals becomes one array, so its items must have one shape; got "
            f"{' and '.join(map(str, shapes))}. Reshape them, or join them by np.concatenate"
        )
    return np.stack(items)


def _items_stacked(x: Any) -> Any:
    return [stacked(item) for item in x] if isinstance(x, (list, tuple)) else x
