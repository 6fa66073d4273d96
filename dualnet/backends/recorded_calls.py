"""`dualnet.recorded` for CuPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import cupy
import numpy as np

from dualnet import tree
from dualnet.backends.graphs import CAPTURING, Recorded, plain
from dualnet.console import say
from dualnet.tree import Tree
from dualnet.types import Array


def call(
    leaves: list[Any], function: Callable, args: tuple, kwargs: dict, kept: dict[str, Any]
) -> Any:
    """Call a function, or repeat a recording of it; see `dualnet.recording.call_recorded`."""
    if CAPTURING.get():  # what calls the function is being recorded
        return function(*args, **kwargs)
    if "cupy" not in kept:
        kept["cupy"] = _RecordedCalls(function)
    return kept["cupy"](leaves, args, kwargs)


class _Plain(Exception):
    """Raised where an argument belongs to calls that are not recorded."""


class _RecordedCalls:
    """A function of any arguments, as a `Recorded` function of their arrays."""

    def __init__(self, function: Callable):
        self._function = function
        self._recorded = Recorded(function, "function")
        self._warned = False

    def __call__(self, leaves: list[Any], args: tuple, kwargs: dict) -> Any:
        """Call the function, or repeat a recording of it."""
        arguments = (args, kwargs)
        try:
            kind = tree.outline(arguments, self._kind_of)
            known = self._recorded.given(kind) is not None
        except (_Plain, TypeError):  # a TypeError: an argument cannot be hashed
            return self._function(*args, **kwargs)
        arrays = [x for x in leaves if isinstance(x, cupy.ndarray)]

        def of_arrays(_carried: Tree, arrays: list[Array], _key: None, _numbers: dict) -> tuple:
            remaining = iter(arrays)
            given = [next(remaining) if isinstance(x, cupy.ndarray) else x for x in leaves]
            args, kwargs = tree.unflatten(arguments, given)
            return (), self._function(*args, **kwargs)

        _, results = self._recorded.call(of_arrays, kind, (), arrays, None, {})
        given = None if known else self._recorded.given(kind)
        return results if given is None else self._checked(of_arrays, kind, arrays, given, results)

    def _kind_of(self, x: Any) -> Hashable:
        """Return what calls with the leaf x as an argument have in common, to tell them apart.

        Raises:
            _Plain: the call is not recorded, because x is an array of another kind.
        """
        if isinstance(x, cupy.ndarray):
            return x.shape, x.dtype
        if isinstance(x, np.ndarray) and not self._warned:
            self._warned = True
            say(
                "recorded: an argument is an array on the host, so the function is not recorded; "
                "make it a CuPy array",
                aside=True,
            )
        if hasattr(x, "__array_function__"):
            raise _Plain
        # -0.0 equals 0.0 and NaN does not equal itself, so numbers are told apart by their digits
        return type(x), repr(x) if isinstance(x, (float, complex, np.inexact)) else x

    def _checked(
        self,
        of_arrays: Callable,
        kind: Hashable,
        arrays: list[Array],
        given: list[Array],
        results: Tree,
    ) -> Tree:
        """Return the results of a first repetition if a plain call gives the same ones.

        If not, the recording is given up.

        Args:
            of_arrays: the function of arrays.
            kind: the kind of call.
            arrays: the arguments that are arrays.
            given: these arguments as the repetition left them.
            results: what the repetition returned.
        """
        changed = not _same(given, arrays)
        _, expected = plain(of_arrays, (), arrays, None, {})
        if changed:
            self._recorded.forget(kind, "it changes an argument in place")
        elif not _same(results, expected):
            self._recorded.forget(kind, "a repetition gives other results than a plain call")
        else:
            return results
        return expected


def _same(got: Tree, expected: Tree) -> bool:
    """Return whether two trees have the same numbers in the same places; NaN is a number here."""
    if tree.outline(got, _no_array) != tree.outline(expected, _no_array):
        return False
    pairs = zip(tree.leaves(got), tree.leaves(expected), strict=True)
    return all(
        bool(((a == b) | ((a != a) & (b != b))).all())
        for a, b in pairs
        if isinstance(a, cupy.ndarray)
    )


def _no_array(x: Any) -> Hashable:
    """Return what must be equal of two leaves without a look at arrays' numbers."""
    if isinstance(x, cupy.ndarray):
        return x.shape, x.dtype
    return type(x), repr(x)
