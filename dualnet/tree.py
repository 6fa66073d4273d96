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
        return _map_one(f, tree)
    columns = [leaves_like(tree, other) for other in rest]
    return unflatten(tree, [f(*row) for row in zip(leaves(tree), *columns, strict=True)])


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Like `map`, but `f` gets the leaf's path first, as in `"hidden1/w"`."""
    columns = [leaves_like(tree, other) for other in rest]
    rows = zip(items(tree), *columns, strict=True)
    return unflatten(tree, [f(path, leaf, *others) for (path, leaf), *others in rows])


def items(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over `(path, leaf)` of every leaf, depth first; a path joins keys with `/`."""
    found: list[tuple[str, Any]] = []
    if isinstance(tree, _NODES):
        _collect_items(tree, prefix, found)
    else:
        found.append((prefix, tree))
    return iter(found)


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
    if not _collect_like(like, tree, found):
        _refuse(like, tree, ())
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


# The functions below visit each leaf without a call of their own: a step of training walks its
# trees some thirty times, and comprehensions, generators and recursion into leaves are calls too.


def _map_one(f: Callable[..., Any], tree: Tree) -> Tree:
    """Apply `f` to the leaves of a node."""
    if isinstance(tree, dict):
        mapped = {}
        for key, child in tree.items():
            mapped[key] = _map_one(f, child) if isinstance(child, _NODES) else f(child)
        return mapped
    built = []
    for child in tree:
        built.append(_map_one(f, child) if isinstance(child, _NODES) else f(child))
    return _like_sequence(tree, built)


def _collect_items(tree: Tree, prefix: str, found: list[tuple[str, Any]]) -> None:
    """Append the paths and leaves of a node to `found`."""
    for key, child in tree.items() if isinstance(tree, dict) else _children(tree):
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(child, _NODES):
            _collect_items(child, path, found)
        else:
            found.append((path, child))


def _rebuild(like: Tree, remaining: Iterator[Any]) -> Tree:
    if isinstance(like, dict):
        rebuilt = {}
        for key, child in like.items():
            rebuilt[key] = (
                _rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining)
            )
        return rebuilt
    if not isinstance(like, (list, tuple)):
        return next(remaining)
    built = []
    for child in like:
        built.append(_rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining))
    return _like_sequence(like, built)


def _like_sequence(like: Tree, built: list[Any]) -> Tree:
    """Return a list, tuple or named tuple of the type of `like`."""
    if type(like) is list:
        return built
    return type(like)(*built) if hasattr(like, "_fields") else type(like)(built)


def _collect_like(like: Tree, tree: Tree, found: list[Any]) -> bool:
    """Append the leaves of `tree` to `found` in the order of those of `like`.

    Return False, with some of them appended, where the structures differ.
    """
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            return False
        for key, child in like.items():
            other = tree[key]
            if isinstance(child, _NODES):
                if not _collect_like(child, other, found):
                    return False
            elif isinstance(other, _NODES):
                return False
            else:
                found.append(other)
        return True
    if not isinstance(like, _NODES):
        found.append(tree)
        return not isinstance(tree, _NODES)
    if type(tree) is not type(like) or len(tree) != len(like):
        return False
    for child, other in zip(like, tree, strict=True):
        if not _collect_like(child, other, found):
            return False
    return True


def _refuse(like: Tree, tree: Tree, path: tuple) -> None:
    """Raise the TreeError about the first place where two trees differ, if they do."""
    if isinstance(like, dict) and isinstance(tree, dict) and tree.keys() == like.keys():
        for key, child in like.items():
            _refuse(child, tree[key], (*path, key))
    elif isinstance(like, (list, tuple)) and type(tree) is type(like) and len(tree) == len(like):
        for key, (child, other) in enumerate(zip(like, tree, strict=True)):
            _refuse(child, other, (*path, key))
    elif isinstance(like, _NODES) or isinstance(tree, _NODES):
        raise _mismatch(like, tree, path)


def _mismatch(expected: Tree, got: Tree, path: tuple = ()) -> TreeError:
    place = "/".join(str(key) for key in path) or "the root"
    return TreeError(f"trees differ at {place}: expected {describe(expected)}, got {describe(got)}")


def _miscounted(like: Tree, new_leaves: list[Any]) -> TreeError:
    return TreeError(f"unflatten: the tree has {len(leaves(like))} leaves, got {len(new_leaves)}")
