"""Trees: parameters, states and tangents are nested dicts, lists and tuples of leaves.

A leaf is everything that is not a dict, list, tuple or registered dataclass; `None` is a leaf too
(it stands for an absent tangent).  Dicts are walked in insertion order of the *first* tree given,
and must have the same keys in all others.  Nothing is changed in place: `map` builds a new tree.

A subclass of dict, list or tuple keeps its type, and the attributes of an object of it are those of
the first tree: `OrderedDict`, `defaultdict` with its factory, named tuples.  An object that cannot
be rebuilt with other leaves is refused by a TreeError.  So is a tree of more levels than Python can
recurse, some nine hundred, and one that contains itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from dualnet import nodes
from dualnet.depth import too_deep
from dualnet.errors import TreeError
from dualnet.nodes import Tree, register_dataclass

__all__ = [
    "Tree",
    "add",
    "describe",
    "is_leaf",
    "items",
    "leaves",
    "leaves_like",
    "map",
    "map_with_path",
    "outline",
    "register_dataclass",
    "size",
    "subtree",
    "unflatten",
]


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

    Examples:
        >>> params, gradient = {"w": 1.0, "b": [2.0, 3.0]}, {"w": 10.0, "b": [20.0, 30.0]}
        >>> dn.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        {'w': 0.0, 'b': [0.0, 0.0]}
        >>> dn.tree.map(abs, {"b": [-1.0, 2.0]}, {"b": 3.0})
        Traceback (most recent call last):
        dualnet.errors.TreeError: trees differ at b: expected [float, float], got float
    """
    if not isinstance(tree, nodes.NODES):
        for other in rest:
            if isinstance(other, nodes.NODES):
                raise _mismatch(tree, other)
        return f(tree, *rest)
    if not rest:
        try:
            return nodes.map_one(f, tree)
        except RecursionError as error:
            raise too_deep("map", tree, nodes.children_of, error) from None
    columns = [leaves_like(tree, other) for other in rest]
    return unflatten(tree, [f(*row) for row in zip(leaves(tree), *columns, strict=True)])


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Like `map`, but `f` gets the leaf's path first, as in `"hidden1/w"`.

    Args:
        f: takes a path and one leaf of each tree, and returns a leaf.
        tree, rest: as for `map`.

    Raises:
        TreeError: the structures differ.

    Examples:
        >>> decays = lambda path, leaf: path.endswith("/w")
        >>> dn.tree.map_with_path(decays, {"out": {"w": 1.0, "b": 2.0}})
        {'out': {'w': True, 'b': False}}
    """
    columns = [leaves_like(tree, other) for other in rest]
    rows = zip(items(tree), *columns, strict=True)
    return unflatten(tree, [f(path, leaf, *others) for (path, leaf), *others in rows])


def items(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over `(path, leaf)` of every leaf, depth first; a path joins keys with `/`.

    Args:
        tree: the tree.
        prefix: what all paths begin with, before a `/`.

    Raises:
        TreeError: two leaves have the same path; or the tree has more levels than Python can
            recurse, or contains itself.

    Examples:
        >>> list(dn.tree.items({"hidden": {"w": 1.0}, "scales": [2.0, 3.0]}))
        [('hidden/w', 1.0), ('scales/0', 2.0), ('scales/1', 3.0)]
    """
    found: list[tuple[str, Any]] = []
    if not isinstance(tree, nodes.NODES):
        return iter([(prefix, tree)])
    try:
        nodes.collect_items(tree, prefix, found)
    except RecursionError as error:
        raise too_deep("items", tree, nodes.children_of, error) from None
    if len(dict(found)) < len(found):
        raise _ambiguous([path for path, _ in found])
    return iter(found)


def is_leaf(tree: Tree) -> bool:
    """Return whether a tree is a leaf by itself.

    Examples:
        >>> [dn.tree.is_leaf(tree) for tree in (np.ones(3), None, [], {"w": 1.0})]
        [True, True, False, False]
    """
    return not isinstance(tree, nodes.NODES)


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree, depth first.

    Raises:
        TreeError: the tree has more levels than Python can recurse, or contains itself.

    Examples:
        >>> dn.tree.leaves({"w": 1.0, "b": [2.0, None]})
        [1.0, 2.0, None]
    """
    if not isinstance(tree, nodes.NODES):
        return [tree]
    found: list[Any] = []
    try:
        nodes.collect(tree, found)
    except RecursionError as error:
        raise too_deep("leaves", tree, nodes.children_of, error) from None
    return found


def leaves_like(like: Tree, tree: Tree) -> list[Any]:
    """List the leaves of `tree` in the order of those of `like`, which has the same structure.

    Raises:
        TreeError: the structures differ; the message names the place and shows both sides.

    Examples:
        >>> dn.tree.leaves_like({"w": 0, "b": 0}, {"b": "second", "w": "first"})
        ['first', 'second']
    """
    found: list[Any] = []
    try:
        if not nodes.collect_like(like, tree, found):
            _refuse(like, tree, ())
    except RecursionError as error:
        raise too_deep("leaves_like", like, nodes.children_of, error) from None
    return found


def unflatten(like: Tree, new_leaves: list[Any]) -> Tree:
    """Build a tree with the structure of `like` from leaves in the order of `leaves`.

    Args:
        like: the tree; its own leaves do not matter.
        new_leaves: as many leaves as it has.

    Raises:
        TreeError: there are too few or too many leaves.

    Examples:
        >>> dn.tree.unflatten({"w": 0, "b": [0, 0]}, [1.0, 2.0, 3.0])
        {'w': 1.0, 'b': [2.0, 3.0]}
    """
    remaining = iter(new_leaves)
    try:
        built = nodes.rebuild(like, remaining)
    except StopIteration:
        raise _miscounted(like, new_leaves) from None
    except RecursionError as error:
        raise too_deep("unflatten", like, nodes.children_of, error) from None
    if next(remaining, remaining) is not remaining:
        raise _miscounted(like, new_leaves)
    return built


def outline(tree: Tree, leaf: Callable[[Any], Hashable]) -> Hashable:
    """Return what is equal for trees of equal structure with leaves of which `leaf` is equal.

    Dicts are told apart by the order of their keys, and registered dataclasses by the static fields
    too, so that trees with equal outlines have their leaves in the same order.

    Args:
        tree: the tree.
        leaf: makes a hashable value of a leaf, such as its shape.

    Raises:
        TreeError: the tree has more levels than Python can recurse, or contains itself.

    Examples:
        >>> a = {"w": np.ones((3, 2)), "b": np.ones(2)}
        >>> b = {"w": np.zeros((3, 2)), "b": np.zeros(2)}
        >>> dn.tree.outline(a, np.shape) == dn.tree.outline(b, np.shape)
        True
        >>> dn.tree.outline(a, np.shape) == dn.tree.outline({"b": b["b"], "w": b["w"]}, np.shape)
        False
    """
    try:
        return nodes.outline_of(tree, leaf)
    except RecursionError as error:
        raise too_deep("outline", tree, nodes.children_of, error) from None


def add(a: Tree, b: Tree) -> Tree:
    """Add two trees of equal structure leaf by leaf.

    Raises:
        TreeError: the structures differ.

    Examples:
        >>> dn.tree.add({"w": 1.0, "b": [2.0]}, {"w": 10.0, "b": [20.0]})
        {'w': 11.0, 'b': [22.0]}
    """
    return map(lambda x, y: x + y, a, b)


def size(tree: Tree) -> int:
    """Count the numbers that a tree of arrays holds in all, as for a parameter count.

    A Python number is one number, and None holds none.

    Raises:
        TreeError: a leaf is something else.

    Examples:
        >>> dn.tree.size({"w": np.ones((3, 2)), "b": np.ones(2)})
        8
    """
    total = 0
    for leaf in leaves(tree):
        if hasattr(leaf, "size"):
            total += leaf.size
        elif isinstance(leaf, (int, float, complex)):
            total += 1
        elif leaf is not None:
            got = type(leaf).__name__
            raise TreeError(f"size: expected arrays, numbers or None as leaves, got {got}")
    return total


def subtree(tree: Tree, path: str) -> Tree:
    """Return what lies at a path of names of dicts; the whole tree for "".

    Raises:
        KeyError: there is no such name.

    Examples:
        >>> dn.tree.subtree({"block": {"hidden": {"w": 1.0}}}, "block/hidden")
        {'w': 1.0}
    """
    part = tree
    for name in path.split("/") if path else ():
        if not isinstance(part, dict) or name not in part:
            raise KeyError(f"tree.subtree: {name!r} of {path!r} is not in {describe(part, 1)}")
        part = part[name]
    return part


def describe(tree: Tree, levels: int = 20) -> str:
    """Describe the structure in one line, arrays by dtype and shape.

    Args:
        tree: the tree.
        levels: what lies below so many levels is left out.

    Examples:
        >>> params = {"hidden": {"w": np.ones((3, 2)), "b": np.ones(2)}, "steps": [1, None]}
        >>> dn.tree.describe(params)
        '{hidden: {w: float64(3, 2), b: float64(2,)}, steps: [int, NoneType]}'
        >>> dn.tree.describe(params, levels=1)
        '{hidden: {…}, steps: […]}'
    """
    if not isinstance(tree, nodes.NODES):
        if hasattr(tree, "shape") and hasattr(tree, "dtype"):
            return f"{tree.dtype}{tuple(tree.shape)}"
        return type(tree).__name__
    unnamed = isinstance(tree, nodes.SEQUENCES)
    parts = [(key, describe(c, levels - 1)) for key, c in nodes.children_of(tree)] if levels else []
    inside = [part if unnamed else f"{key}: {part}" for key, part in parts] if levels else ["…"]
    left, right = "{}" if isinstance(tree, dict) else "[]" if isinstance(tree, list) else "()"
    name = "" if type(tree) in (dict, list, tuple) else type(tree).__name__
    return name + left + ", ".join(inside) + right


def _refuse(like: Tree, tree: Tree, path: tuple) -> None:
    """Raise the TreeError about the first place where two trees differ, if they do."""
    if isinstance(like, dict) and isinstance(tree, dict) and tree.keys() == like.keys():
        for key, child in like.items():
            _refuse(child, tree[key], (*path, key))
    elif isinstance(like, (list, tuple)) and type(tree) is type(like) and len(tree) == len(like):
        for key, (child, other) in enumerate(zip(like, tree, strict=True)):
            _refuse(child, other, (*path, key))
    elif type(like) in nodes.CHILDREN and type(tree) is type(like):
        _refuse(nodes.fields_of(like), nodes.fields_of(tree), path)
    elif isinstance(like, nodes.NODES) or isinstance(tree, nodes.NODES):
        raise _mismatch(like, tree, path)


def _mismatch(expected: Tree, got: Tree, path: tuple = ()) -> TreeError:
    shown = path if len(path) <= 20 else (*path[:10], "…", *path[-10:])
    place = "/".join(str(key) for key in shown) or "the root"
    return TreeError(f"trees differ at {place}: expected {describe(expected)}, got {describe(got)}")


def _ambiguous(paths: list[str]) -> TreeError:
    twice = next(path for path in paths if paths.count(path) > 1)
    return TreeError(
        f"items: two leaves have the path {twice!r}; give one of the keys another name"
    )


def _miscounted(like: Tree, new_leaves: list[Any]) -> TreeError:
    return TreeError(f"unflatten: the tree has {len(leaves(like))} leaves, got {len(new_leaves)}")
