"""What the transforms ask of their arguments, and how they refuse what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core.dual import Dual, primal_of
from dualnet.core.linear import StructuredTangent
from dualnet.errors import TangentError
from dualnet.tree import Tree
from dualnet.types import Array, Tangent


def as_array(x: Any) -> Any:
    """Turn a Python number into an array; everything else is returned as it is."""
    return np.asarray(x) if isinstance(x, (int, float)) else x


def is_float(x: Any) -> bool:
    """Tell whether x can carry a tangent."""
    dtype = getattr(as_array(x), "dtype", None)
    return dtype is not None and dtype.kind == "f"


def require_float(name: str, x: Any) -> None:
    """Refuse what cannot carry a tangent; `name` is the function that asks."""
    if not is_float(x):
        raise TangentError(
            f"{name}: only float arrays can be differentiated by, got "
            f"{getattr(x, 'dtype', type(x).__name__)}; convert with x.astype(float), or close over "
            "the constant in the function"
        )


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
) -> tuple[list[Tangent], int | None]:
    """Check tangents against primals, and give single ones their k axis.

    Args:
        name: the function that asks, for messages.
        primals, tangents: trees of one structure.
        kind: what messages call a tangent.

    Returns:
        The leaves' stacks (None where there is no tangent), and k; None where single tangents came.
    """
    at = tree.leaves(primals)
    given = tree.leaves_like(primals, tangents)
    stacks: list[Tangent] = []
    counts: set[int | None] = set()
    for position, (x, t) in enumerate(zip(at, given, strict=True)):
        if t is None:
            stacks.append(None)
            continue
        x, t = as_array(x), as_array(t)
        k = _count(x, t)
        if k is _MISFIT or not is_float(x):
            raise _wrong_tangent(name, kind, primals, position, x, t)
        counts.add(k)
        stacks.append(t[None] if k is None else t)
    if len(counts) > 1:
        told = sorted("a single one" if k is None else f"k = {k}" for k in counts)
        raise TangentError(f"{name}: all {kind}s must agree on k, got {' and '.join(told)}")
    return stacks, counts.pop() if counts else None


_MISFIT = -1


def _count(x: Array, t: Tangent) -> int | None:
    """How many directions of x there are in t: None for a single one, `_MISFIT` if it is none."""
    shape, dtype = getattr(t, "shape", None), getattr(t, "dtype", None)
    if dtype is None or dtype != getattr(x, "dtype", None):
        return _MISFIT
    if isinstance(t, StructuredTangent):
        return t.k if shape == x.shape and t.k is not None else _MISFIT
    if shape == x.shape:
        return None
    return shape[0] if len(shape) == x.ndim + 1 and shape[1:] == x.shape else _MISFIT


def _wrong_tangent(
    name: str, kind: str, primals: Tree, position: int, x: Any, t: Any
) -> TangentError:
    path = [path for path, _ in tree.items(primals)][position] or "the only leaf"
    require_float(f"{name}, {kind} at {path}", x)
    shape, dtype = np.shape(x), np.result_type(primal_of(x))
    stacked = ", ".join(map(str, ("k", *shape))) + ("" if shape else ",")
    return TangentError(
        f"{name}: the {kind} at {path} must be {dtype} of shape {shape} or ({stacked}), got "
        f"{getattr(t, 'dtype', type(t).__name__)} of shape {_shape(t)}"
    )


def _shape(t: Any) -> Any:
    return t.shape if isinstance(t, (Dual, StructuredTangent)) else np.shape(t)


def require_sequence_of_primals(name: str, primals: Sequence) -> None:
    """Refuse leaves that cannot be differentiated by."""
    for x in tree.leaves(tuple(primals)):
        require_float(name, x)
