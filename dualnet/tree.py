"""Trees: parameters, states and tangents are nested dicts, lists and tuples of leaves.

A leaf is everything that is not a dict, list or tuple; `None` is a leaf too (it stands
for an absent tangent).  Dicts are walked in insertion order of the *first* tree given, and
must have the same keys in all others.  Nothing is changed in place: `map` builds a new tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dualnet.errors import TreeError

Tree = Any
"""A leaf, or a dict, list or tuple of trees."""


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `f` to corresponding leaves of one or more trees.

    Args:
        f: takes one leaf of each tree and returns a leaf.
        tree: gives the structure of the result.
        rest: trees of the same structure.

    Returns:
        A new tree.

    Raises:
        TreeError: if the structures differ; names the place and what stands on both sides.
    """
    return _map(f, "", tree, *rest)


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Like `map`, but `f` gets the leaf's path first, as in `"hidden1/w"`."""
    paths = iter([path for path, _ in items(tree)])
    return _map(lambda *leaves: f(next(paths), *leaves), "", tree, *rest)


def items(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(path, leaf)` for every leaf, depth first; a path joins keys with `/`."""
    children = _children(tree)
    if children is None:
        yield prefix, tree
        return
    for key, child in children:
        yield from items(child, f"{prefix}/{key}" if prefix else str(key))


def leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree, depth first."""
    return [leaf for _, leaf in items(tree)]


def unflatten(like: Tree, new_leaves: list[Any]) -> Tree:
    """A tree with the structure of `like` and the given leaves, in the order of `leaves`."""
    expected = len(leaves(like))
    if len(new_leaves) != expected:
        raise TreeError(f"unflatten: the tree has {expected} leaves, got {len(new_leaves)}")
    remaining = iter(new_leaves)
    return map(lambda _: next(remaining), like)


def add(a: Tree, b: Tree) -> Tree:
    """The leaf-wise sum of two trees of equal structure."""
    return map(lambda x, y: x + y, a, b)


def size(tree: Tree) -> int:
    """How many numbers a tree of arrays holds in all, as for a parameter count."""
    return sum(leaf.size for leaf in leaves(tree))


def describe(tree: Tree) -> str:
    """The structure in one line, arrays shown as dtype and shape: `{w: float32(3, 2)}`."""
    children = _children(tree)
    if children is None:
        if hasattr(tree, "shape") and hasattr(tree, "dtype"):
            return f"{tree.dtype}{tuple(tree.shape)}"
        return type(tree).__name__
    inside = [f"{k}: {describe(c)}" if isinstance(tree, dict) else describe(c) for k, c in children]
    left, right = "{}" if isinstance(tree, dict) else "[]" if isinstance(tree, list) else "()"
    return left + ", ".join(inside) + right


def _children(tree: Tree) -> list[tuple[Any, Tree]] | None:
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, (list, tuple)):
        return list(enumerate(tree))
    return None


def _map(f: Callable[..., Any], path: str, tree: Tree, *rest: Tree) -> Tree:
    if isinstance(tree, dict):
        for other in rest:
            if not isinstance(other, dict) or other.keys() != tree.keys():
                raise _mismatch(path, tree, other)
        return {k: _map(f, f"{path}/{k}", tree[k], *(o[k] for o in rest)) for k in tree}
    if isinstance(tree, (list, tuple)):
        for other in rest:
            if type(other) is not type(tree) or len(other) != len(tree):
                raise _mismatch(path, tree, other)
        rows = enumerate(zip(tree, *rest, strict=True))
        mapped = [_map(f, f"{path}/{i}", *row) for i, row in rows]
        if hasattr(tree, "_fields"):
            return type(tree)(*mapped)
        return type(tree)(mapped)
    for other in rest:
        if isinstance(other, (dict, list, tuple)):
            raise _mismatch(path, tree, other)
    return f(tree, *rest)


def _mismatch(path: str, expected: Tree, got: Tree) -> TreeError:
    place = path.lstrip("/") or "the root"
    return TreeError(f"trees differ at {place}: expected {describe(expected)}, got {describe(got)}")
