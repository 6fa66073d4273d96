"""Trees that are deeper than Python can recurse, and how they are refused.

Recursion is faster than a stack of one's own, and deep trees are rare.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from dualnet.errors import TreeError

_MOST = 200_000
"""So many levels are counted; a tree that contains itself has no end."""
_FEW = 100
"""With so few levels, what recursed too far was something else."""


def too_deep(
    name: str,
    tree: Any,
    children: Callable[[Any], Sequence[tuple[Any, Any]]],
    error: RecursionError,
) -> Exception:
    """Refuse a tree for its depth, or return the error where the tree is not deep.

    Args:
        name: the function of `dualnet.tree` that recursed into the tree.
        tree: the tree.
        children: returns the keys and children of a node, none for a leaf.
        error: what Python raised.
    """
    levels, level = 0, [child for _, child in children(tree)]
    while level and levels < _MOST:
        levels += 1
        level = list({id(child): child for node in level for _, child in children(node)}.values())
    if levels < _FEW:
        return error
    has = (
        f"has {levels:,} levels"
        if levels < _MOST
        else f"has {_MOST:,} levels or more, or contains itself"
    )
    return TreeError(
        f"tree.{name}: the tree {has}, and a tree has fewer than Python can recurse "
        f"(sys.getrecursionlimit() is {sys.getrecursionlimit():,}); keep a list of the levels "
        "instead"
    )
