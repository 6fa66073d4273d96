"""What rules and transforms take and get back, and how transforms refuse what does not fit."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core import refusals, spaces
from dualnet.core.dual import primal_of
from dualnet.core.linear import StructuredTangent
from dualnet.errors import TangentError
from dualnet.tree import Tree
from dualnet.types import Array, Tangent


def is_float(x: Any) -> bool:
    """Tell whether x can carry a tangent."""
    return isinstance(x, float) or getattr(getattr(x, "dtype", None), "kind", None) == "f"


def float_array(name: str, x: Any) -> Array:
    """Turn x into an array that can carry a tangent, or refuse it; `name` is the function's."""
    if not is_float(x):
        fix = "convert with x.astype(float), or " if hasattr(x, "astype") else ""
        fix = f"write {float(x)}, or " if isinstance(x, int) else fix
        fix = "register it by dn.tree.register_dataclass, or " if is_dataclass(x) else fix
        raise TangentError(
            f"{name}: only float arrays can be differentiated by, got {_kind(x)}; {fix}close "
            "over the constant in the function"
        )
    refusals.require_no_subclass(x)
    return np.asarray(x) if isinstance(x, float) else x


def require_sequences(name: str, **arguments: Any) -> None:
    """Refuse an argument that is no tuple or list."""
    for argument, value in arguments.items():
        if not isinstance(value, (tuple, list)):
            raise TangentError(
                f"{name}: {argument} must be a tuple with one entry for each argument of f, got "
                f"{type(value).__name__}; write ({argument[:-1]},) for a single one"
            )


def require_pair(function: str, pair: str, result: Any) -> tuple[Any, Any]:
    """Take apart the pair that a function must return; both are named for the message."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TangentError(f"{function} must return {pair}, got {tree.describe(result)}")
    return result[0], result[1]


def require_arrays(name: str, out: Tree, values: Sequence) -> None:
    """Refuse leaves of a function's result that are no arrays of numbers.

    Args:
        name: the transform that asks, for messages.
        out: what the function returned.
        values: the leaves of it.
    """
    for i, x in enumerate(values):
        dtype = getattr(x, "dtype", None) if hasattr(x, "__array__") else None
        kind = getattr(dtype, "kind", None)
        if isinstance(x, (int, float, complex)) or kind in ("b", "i", "u", "f", "c"):
            continue
        path = list(tree.items(out))[i][0] or "the only leaf"
        got = _kind(x) if kind else type(x).__name__
        raise TangentError(
            f"{name}: the function returned {got} at {path}, expected "
            "arrays or numbers; return what is not to be differentiated as aux: `return out, aux` "
            "with has_aux=True"
        )


def argument_numbers(argnums: Any, count: int) -> tuple[list[int], bool]:
    """Find which of a function's arguments by position are meant.

    Args:
        argnums: an integer, or a sequence of them; negative ones count from the end.
        count: how many arguments there are.

    Returns:
        The numbers, all from 0 to count - 1; and whether it was a single integer.

    Raises:
        TangentError: there is no such argument, or it is named twice; nothing is named; or argnums
            is something else.
    """
    expected = f"argnums: expected an integer or a tuple of integers, got {argnums!r}"
    try:
        single = hasattr(argnums, "__index__") and not getattr(argnums, "ndim", 0)
        if not single and not isinstance(argnums, (tuple, list, range, np.ndarray)):
            raise TypeError  # such as a set, which has no order, or an iterator, which ends
        numbers = list(map(operator.index, (argnums,) if single else argnums))
    except TypeError:
        raise TangentError(f"{expected}; write argnums=0 for the first argument") from None
    if not numbers:
        raise TangentError(f"{expected}; name at least one argument to differentiate by")
    from_start: list[int] = []
    for n in numbers:
        if not -count <= n < count:
            raise TangentError(f"argnums: no argument {n} among the {count} by position")
        from_start.append(n % count)
        if from_start.count(n % count) > 1:
            raise TangentError(
                f"argnums: argument {n} is named more than once in {argnums!r}; name it once, and "
                "use its derivative twice"
            )
    return from_start, single


def tangent_stacks(
    name: str, primals: Tree, tangents: Tree, kind: str = "tangent"
) -> tuple[list[Array], list[Tangent], int | None]:
    """Check tangents against primals, and give single ones their k axis.

    Args:
        name: the function that asks, for messages.
        primals, tangents: trees of one structure.
        kind: what messages call a tangent.

    Returns:
        The leaves of the primals, where Python numbers are arrays now; their stacks, None where
        there is no tangent; and k, None where single tangents came.
    """
    leaves = tree.leaves(primals)
    stacks = tree.leaves_like(primals, tangents)
    counts: set[int | None] = set()
    for i, (x, t) in enumerate(zip(leaves, stacks, strict=True)):
        if t is None:
            continue
        if isinstance(x, (int, float)):
            leaves[i] = np.asarray(x)
        if isinstance(t, (int, float)):
            t = np.asarray(t)
        k = _count(leaves[i], t)
        if k is _MISFIT:
            path = list(tree.items(primals))[i][0] or "the only leaf"
            float_array(f"{name}, {kind} at {path}", x)
            refusals.require_no_subclass(t)
            shape, dtype = np.shape(x), leaves[i].dtype  # of which np.result_type is native
            stacked = ", ".join(map(str, ("k", *shape))) + ("" if shape else ",")
            raise TangentError(
                f"{name}: the {kind} at {path} must be {dtype} of shape {shape} or ({stacked}), "
                f"got {_kind(t)} of shape {t.shape if hasattr(t, 'shape') else np.shape(t)}"
            )
        counts.add(k)
        stacks[i] = t[None] if k is None else t
    if len(counts) > 1:
        told = sorted("a single one" if k is None else f"k = {k}" for k in counts)
        raise TangentError(f"{name}: all {kind}s must agree on k, got {' and '.join(told)}")
    return leaves, stacks, counts.pop() if counts else None


_MISFIT = -1


def _count(x: Array, t: Tangent) -> int | None:
    """Count the directions of x in t: None for a single one, `_MISFIT` if t is no tangent."""
    for array in (x, t):  # without a call, as jvp is counted by its calls
        if isinstance(array, np.ndarray) and type(array) not in refusals.PLAIN:
            return _MISFIT
    dtype, own = getattr(t, "dtype", None), getattr(x, "dtype", None)
    if dtype is None or own is None or dtype != own or dtype.kind != "f":
        return _MISFIT
    if isinstance(t, StructuredTangent):
        return t.k if t.shape == x.shape and t.k is not None else _MISFIT
    if t.shape == x.shape:
        return None
    return t.shape[0] if t.ndim == x.ndim + 1 and t.shape[1:] == x.shape else _MISFIT


def answers(like: Tree, leaves: list, tangents: Sequence[Tangent | None], k: int | None) -> Tree:
    """Return the tangents or cotangents of a tree's leaves in the form in which a caller gets them.

    They have zeros where nothing arrived, the dtypes of the leaves, and no k axis where single
    tangents were given; and they are arrays to write to, even where one was a number repeated.
    """
    converted = []
    for x, t in zip(leaves, tangents, strict=True):
        dtype = x.dtype if hasattr(x, "dtype") else np.result_type(x)
        if t is None:
            shape = (1 if k is None else k, *np.shape(x))
            t = np.zeros_like(primal_of(x), dtype, shape=shape)
        stack = spaces.dense(t)
        if stack.dtype != dtype:
            stack = stack.astype(dtype)
        if 0 in getattr(stack, "strides", ()):
            stack = stack.copy()
        converted.append(stack[0] if k is None else stack)
    return tree.unflatten(like, converted)


def _kind(x: Any) -> str:
    """Name the dtype of an array, or else the type, for messages."""
    return str(getattr(x, "dtype", type(x).__name__))


def known_arguments(parts: Iterable[Callable], leading: int) -> tuple[float, frozenset[str] | None]:
    """Find which arguments all the functions of which a rule is made take.

    Args:
        parts: the functions.
        leading: how many of their first parameters are no arguments (t and out).

    Returns:
        How many by position at the most, and which by keyword; None for any.
    """
    parts = list(parts)
    positional = min([positional_range(part)[1] for part in parts], default=math.inf)
    closed = [
        frozenset(p.name for p in parameters)
        for parameters in map(parameters_of, parts)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters)
    ]
    return positional - leading, frozenset.intersection(*closed) if closed else None


def parameters_of(function: Callable) -> list[inspect.Parameter]:
    """List the parameters of a function; any are taken to be its own where Python cannot tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # as of most built-in functions
        return parameters_of(lambda *_args, **_kwargs: None)


def positional_range(function: Callable) -> tuple[int, float]:
    """Count the arguments that a function needs, and those that it can take, by position."""
    parameters = parameters_of(function)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    endless = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return sum(p.default is p.empty for p in named), math.inf if endless else len(named)
