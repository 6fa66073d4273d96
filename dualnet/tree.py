"""Trees: parameters, states and tangents are nested dicts, lists and tuples of leaves.

A leaf is everything that is not a dict, list or tuple; `None` is a leaf too (it stands for an
absent tangent).  Dicts are walked in insertion order of the *first* tree given, and must have the
same keys in all others.  Nothing is changed in place: `map` builds a new tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from dualnet.errors import TreeError

Tree: TypeAlias = Any
"""A leaf, or a dict, list or tuple of trees."""

_NODES = (dict, list, tuple)


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `f` to corresponding leaves of one or more trees.

    Args:
        f: takes one leaf of each tree and returns a leaf.
        tree: gives the structure of the result.
        rest: trees of the same structure.

    Returns:
        A new tree.

    Raises:
        TreeError: the structures differ; the message names the place and shows both sides.
    """
    if not isinstance(tree, _NODES):
        for other in rest:
            if isinstance(other, _NODES):
                raise _mismatch(tree, other)
        return f(tree, *rest)
    if not rest:
        return unflatten(tree, [f(leaf) for leaf in leaves(tree)])
    columns = [leaves_like(tree, other) for other in rest]
    return unflatten(tree, [f(*row) for row in zip(leaves(tree), *columns, strict=True)])


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Like `map`, but `f` gets the leaf's path first, as in `"hidden1/w"`."""
    columns = [leaves_like(tree, other) for other in rest]
    rows = zip(items(tree), *columns, strict=True)
    return unflatten(tree, [f(path, leaf, *others) for (path, leaf), *others in rows])


def items(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(path, leaf)` for every leaf, depth first; a path joins keys with `/`."""
    if not isinstance(tree, _NODES):
        yield prefix, tree
        return
    for key, child in _children(tree):
        yield from items(child, f"{prefix}/{key}" if prefix else str(key))


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree, depth first."""
    if not isinstance(tree, _NODES):
        return [tree]
    found: list[Any] = []
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, _NODES):
            found += leaves(child)
        else:
            found.append(child)
    return found


def leaves_like(like: Tree, tree: Tree) -> list[Any]:
    """List the leaves of `tree` in the order of those of `like`, which has the same structure.

    Raises:
        TreeError: the structures differ; the message names the place and shows both sides.
    """
    found: list[Any] = []
    _collect_like(like, tree, found, ())
    return found


def unflatten(like: Tree, new_leaves: list[Any]) -> Tree:
    """Build a tree with the structure of `like` from leaves in the order of `leaves`."""
    remaining = iter(new_leaves)
    try:
        built = _rebuild(like, remaining)
    except StopIteration:
        raise _miscounted(like, new_leaves) from None
    if next(remaining, remaining) is not remaining:
        raise _miscounted(like, new_leaves)
    return built


def add(a: Tree, b: Tree) -> Tree:
    """Add two trees of equal structure leaf by leaf."""
    return map(lambda x, y: x + y, a, b)


def size(tree: Tree) -> int:
    """Count the numbers that a tree of arrays holds in all, as for a parameter count."""
    return sum(leaf.size for leaf in leaves(tree))


def subtree(tree: Tree, path: str) -> Tree:
    """Return what lies at a path of names of dicts; the whole tree for ""."""
    for name in path.split("/") if path else ():
        tree = tree[name]
    return tree


def describe(tree: Tree) -> str:
    """Describe the structure in one line, arrays by dtype and shape: `{w: float32(3, 2)}`."""
    if not isinstance(tree, _NODES):
        if hasattr(tree, "shape") and hasattr(tree, "dtype"):
            return f"{tree.dtype}{tuple(tree.shape)}"
        return type(tree).__name__
    inside = [
        f"{k}: {describe(c)}" if isinstance(tree, dict) else describe(c) for k, c in _children(tree)
    ]
    left, right = "{}" if isinstance(tree, dict) else "[]" if isinstance(tree, list) else "()"
    return left + ", ".join(inside) + right


def _children(tree: Tree) -> list[tuple[Any, Tree]]:
    """The keys and children of a dict, list or tuple; a named tuple's keys are its fields."""
    if isinstance(tree, dict):
        return list(tree.items())
    return list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))


def _rebuild(like: Tree, remaining: Iterator[Any]) -> Tree:
    if isinstance(like, dict):
        return {
            key: _rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining)
            for key, child in like.items()
        }
    if not isinstance(like, (list, tuple)):
        return next(remaining)
    built = []
    for child in like:
        built.append(_rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining))
    if hasattr(like, "_fields"):
        return type(like)(*built)
    return built if type(like) is list else type(like)(built)


def _collect_like(like: Tree, tree: Tree, found: list[Any], path: tuple) -> None:
    """Append the leaves of `tree` to `found` in the order of those of `like`."""
    if not isinstance(like, _NODES):
        if isinstance(tree, _NODES):
            raise _mismatch(like, tree, path)
        found.append(tree)
        return
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            raise _mismatch(like, tree, path)
        for key, child in like.items():
            _collect_like(child, tree[key], found, (*path, key))
        return
    if type(tree) is not type(like) or len(tree) != len(like):
        raise _mismatch(like, tree, path)
    for key, (child, other) in enumerate(zip(like, tree, strict=True)):
        _collect_like(child, other, found, (*path, key))


def _mismatch(expected: Tree, got: Tree, path: tuple = ()) -> TreeError:
    place = "/".join(str(key) for key in path) or "the root"
    return TreeError(f"trees differ at {place}: expected {describe(expected)}, got {describe(got)}")


def _miscounted(like: Tree, new_leaves: list[Any]) -> TreeError:
    return TreeError(f"unflatten: the tree has {len(leaves(like))} leaves, got {len(new_leaves)}")
