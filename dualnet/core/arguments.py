"""What rules and transforms take, and how transforms refuse what does not fit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core.dual import Dual, primal_of
from dualnet.core.linear import StructuredTangent
from dualnet.errors import TangentError
from dualnet.tree import Tree
from dualnet.types import Array, Tangent


def is_float(x: Any) -> bool:
    """Tell whether x can carry a tangent."""
    return isinstance(x, float) or getattr(getattr(x, "dtype", None), "kind", None) == "f"


def float_array(name: str, x: Any) -> Array:
    """Turn x into an array that can carry a tangent, or refuse it; `name` is the function's."""
    array = np.asarray(x) if isinstance(x, (int, float)) else x
    dtype = getattr(array, "dtype", None)
    if dtype is None or dtype.kind != "f":
        raise TangentError(
            f"{name}: only float arrays can be differentiated by, got "
            f"{getattr(x, 'dtype', type(x).__name__)}; convert with x.astype(float), or close over "
            "the constant in the function"
        )
    return array


def require_sequences(name: str, **arguments: Any) -> None:
    """Refuse an argument that is no tuple or list."""
    for argument, value in arguments.items():
        if not isinstance(value, (tuple, list)):
            raise TangentError(
                f"{name}: {argument} must be a tuple with one entry for each argument of f, got "
                f"{type(value).__name__}; write ({argument[:-1]},) for a single one"
            )


def require_pair(result: Any) -> tuple[Any, Any]:
    """Take `(out, aux)` apart, which a function must return under has_aux."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TangentError(
            f"has_aux=True: the function must return (out, aux), got {tree.describe(result)}"
        )
    return result[0], result[1]


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
            raise _wrong_tangent(name, kind, primals, i, x, t)
        counts.add(k)
        stacks[i] = t[None] if k is None else t
    if len(counts) > 1:
        told = sorted("a single one" if k is None else f"k = {k}" for k in counts)
        raise TangentError(f"{name}: all {kind}s must agree on k, got {' and '.join(told)}")
    return leaves, stacks, counts.pop() if counts else None


_MISFIT = -1


def _count(x: Array, t: Tangent) -> int | None:
    """Count the directions of x in t: None for a single one, `_MISFIT` if t is no tangent."""
    dtype, own = getattr(t, "dtype", None), getattr(x, "dtype", None)
    if dtype is None or own is None or dtype != own or dtype.kind != "f":
        return _MISFIT
    if isinstance(t, StructuredTangent):
        return t.k if t.shape == x.shape and t.k is not None else _MISFIT
    if t.shape == x.shape:
        return None
    return t.shape[0] if t.ndim == x.ndim + 1 and t.shape[1:] == x.shape else _MISFIT


def _wrong_tangent(
    name: str, kind: str, primals: Tree, position: int, x: Any, t: Any
) -> TangentError:
    path = [path for path, _ in tree.items(primals)][position] or "the only leaf"
    float_array(f"{name}, {kind} at {path}", x)
    shape, dtype = np.shape(x), np.result_type(primal_of(x))
    stacked = ", ".join(map(str, ("k", *shape))) + ("" if shape else ",")
    return TangentError(
        f"{name}: the {kind} at {path} must be {dtype} of shape {shape} or ({stacked}), got "
        f"{getattr(t, 'dtype', type(t).__name__)} of shape {_shape(t)}"
    )


def _shape(t: Any) -> Any:
    return t.shape if isinstance(t, (Dual, StructuredTangent)) else np.shape(t)


def known_arguments(parts: Iterable[Callable], leading: int) -> tuple[float, frozenset[str] | None]:
    """Find which arguments all the functions of which a rule is made take.

    Args:
        parts: the functions.
        leading: how many of their first parameters are no arguments (t and out).

    Returns:
        How many by position at the most, and which by keyword; None for any.
    """
    known: frozenset[str] | None = None
    positional = math.inf
    for part in parts:
        parameters = inspect.signature(part).parameters.values()
        kinds = [p.kind for p in parameters]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            names = frozenset(p.name for p in parameters)
            known = names if known is None else known & names
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            count = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) - leading
            positional = min(positional, count)
    return positional, known
