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

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeAlias

from dualnet.depth import too_deep
from dualnet.errors import TreeError, UsageError
from dualnet.rebuilding import not_rebuilt, rebuilt

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

Tree: TypeAlias = Any
"""A leaf, or a dict, list, tuple or registered dataclass of trees."""

_SEQUENCES = (list, tuple)
_NODES: tuple[type, ...] = (dict, *_SEQUENCES)
_CHILDREN: dict[type, tuple[str, ...]] = {}
"""The fields of each registered dataclass that are children; its other fields are static."""


def register_dataclass(cls: type, static: tuple[str, ...] = ()) -> type:
    """Make a dataclass a tree, whose children are its fields (a decorator).

    A tree of it is rebuilt by its constructor, which gets what leaves can be: arrays, tangents with
    one more axis, None.  A field with `init=False` is computed by the constructor and no child.

    Args:
        cls: the dataclass; a subclass of it is registered by itself.
        static: the fields that are no children (a name, a size); a new tree has those of the first.

    Raises:
        UsageError: `cls` is no dataclass, or has no such fields.
    """
    global _NODES
    if not dataclasses.is_dataclass(cls) or issubclass(cls, (dict, *_SEQUENCES)):
        raise UsageError(
            f"tree.register_dataclass: expected a dataclass, got {getattr(cls, '__name__', cls)}; "
            "decorate it by @dataclasses.dataclass first (dicts, lists and tuples are trees as "
            "they are)"
        )
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    if isinstance(static, str) or not set(static) <= set(names):
        raise UsageError(
            f"tree.register_dataclass: static must be a tuple of fields of {cls.__name__} "
            f"({', '.join(names)}), got {static!r}"
        )
    _CHILDREN[cls] = tuple(name for name in names if name not in static)
    if cls not in _NODES:
        _NODES = (*_NODES, cls)
    return cls


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
        try:
            return _map_one(f, tree)
        except RecursionError as error:
            raise too_deep("map", tree, _children, error) from None
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
    if not isinstance(tree, _NODES):
        return iter([(prefix, tree)])
    try:
        _collect_items(tree, prefix, found)
    except RecursionError as error:
        raise too_deep("items", tree, _children, error) from None
    return iter(found)


def is_leaf(tree: Tree) -> bool:
    """Return whether a tree is a leaf by itself."""
    return not isinstance(tree, _NODES)


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree, depth first."""
    if not isinstance(tree, _NODES):
        return [tree]
    found: list[Any] = []
    try:
        _collect(tree, found)
    except RecursionError as error:
        raise too_deep("leaves", tree, _children, error) from None
    return found


def leaves_like(like: Tree, tree: Tree) -> list[Any]:
    """List the leaves of `tree` in the order of those of `like`, which has the same structure.

    Raises:
        TreeError: the structures differ; the message names the place and shows both sides.
    """
    found: list[Any] = []
    try:
        if not _collect_like(like, tree, found):
            _refuse(like, tree, ())
    except RecursionError as error:
        raise too_deep("leaves_like", like, _children, error) from None
    return found


def unflatten(like: Tree, new_leaves: list[Any]) -> Tree:
    """Build a tree with the structure of `like` from leaves in the order of `leaves`."""
    remaining = iter(new_leaves)
    try:
        built = _rebuild(like, remaining)
    except StopIteration:
        raise _miscounted(like, new_leaves) from None
    except RecursionError as error:
        raise too_deep("unflatten", like, _children, error) from None
    if next(remaining, remaining) is not remaining:
        raise _miscounted(like, new_leaves)
    return built


def outline(tree: Tree, leaf: Callable[[Any], Hashable]) -> Hashable:
    """Return what is equal for trees of equal structure with leaves of which `leaf` is equal.

    Dicts are told apart by the order of their keys, and registered dataclasses by the static fields
    too, so that trees with equal outlines have their leaves in the same order.
    """
    try:
        return _outline(tree, leaf)
    except RecursionError as error:
        raise too_deep("outline", tree, _children, error) from None


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


def describe(tree: Tree, levels: int = 20) -> str:
    """Describe the structure in one line, arrays by dtype and shape: `{w: float32(3, 2)}`.

    What lies below so many levels is left out.
    """
    if not isinstance(tree, _NODES):
        if hasattr(tree, "shape") and hasattr(tree, "dtype"):
            return f"{tree.dtype}{tuple(tree.shape)}"
        return type(tree).__name__
    unnamed = isinstance(tree, _SEQUENCES)
    parts = [(key, describe(c, levels - 1)) for key, c in _children(tree)] if levels else []
    inside = [part if unnamed else f"{key}: {part}" for key, part in parts] if levels else ["…"]
    left, right = "{}" if isinstance(tree, dict) else "[]" if isinstance(tree, list) else "()"
    name = "" if type(tree) in (dict, list, tuple) else type(tree).__name__
    return name + left + ", ".join(inside) + right


def _outline(tree: Tree, leaf: Callable[[Any], Hashable]) -> Hashable:
    if not isinstance(tree, _NODES):
        return leaf(tree)
    if isinstance(tree, dict):
        named: tuple[Any, ...] = tuple(tree)
        children = list(tree.values())
    elif isinstance(tree, _SEQUENCES):
        named, children = (), list(tree)
    else:
        fields = _fields(tree)
        instance: Any = tree
        every = dataclasses.fields(instance)
        others = [f.name for f in every if f.init and f.name not in fields]
        named = tuple((name, getattr(tree, name)) for name in others)
        children = list(fields.values())
    inside = []
    for child in children:  # a comprehension may be one more call for each level
        inside.append(_outline(child, leaf))
    return type(tree), named, tuple(inside)


def _children(tree: Tree) -> list[tuple[Any, Tree]]:
    """The keys and children of a node; a named tuple's keys are its fields.  A leaf has none."""
    if not isinstance(tree, _NODES):
        return []
    if isinstance(tree, dict):
        return list(tree.items())
    if not isinstance(tree, _SEQUENCES):
        return list(_fields(tree).items())
    return list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))


def _fields(tree: Tree) -> dict[str, Tree]:
    """The children of a registered dataclass by their names."""
    if type(tree) not in _CHILDREN:
        raise TreeError(
            f"{type(tree).__name__} is a subclass of a registered dataclass and not registered "
            "itself; decorate it by @dn.tree.register_dataclass"
        )
    return {name: getattr(tree, name) for name in _CHILDREN[type(tree)]}


# The functions below visit each leaf without a call of their own: a step of training walks its
# trees some thirty times, and comprehensions, generators and recursion into leaves are calls too.


def _map_one(f: Callable[..., Any], tree: Tree) -> Tree:
    """Apply `f` to the leaves of a node."""
    if isinstance(tree, _SEQUENCES):
        built = []
        for child in tree:
            built.append(_map_one(f, child) if isinstance(child, _NODES) else f(child))
        return built if type(tree) is list else _like(tree, built)
    mapped = {}
    for key, child in tree.items() if isinstance(tree, dict) else _children(tree):
        mapped[key] = _map_one(f, child) if isinstance(child, _NODES) else f(child)
    return mapped if type(tree) is dict else _like(tree, mapped)


def _collect(tree: Tree, found: list[Any]) -> None:
    """Append the leaves of a node to `found`."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, _SEQUENCES):
        tree = _fields(tree).values()
    for child in tree:
        if isinstance(child, _NODES):
            _collect(child, found)
        else:
            found.append(child)


def _collect_items(tree: Tree, prefix: str, found: list[tuple[str, Any]]) -> None:
    """Append the paths and leaves of a node to `found`."""
    for key, child in tree.items() if isinstance(tree, dict) else _children(tree):
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(child, _NODES):
            _collect_items(child, path, found)
        else:
            found.append((path, child))


def _rebuild(like: Tree, remaining: Iterator[Any]) -> Tree:
    """Build a node, or a leaf, from the leaves that remain."""
    if not isinstance(like, _NODES):
        return next(remaining)
    if isinstance(like, _SEQUENCES):
        built = []
        for child in like:
            built.append(
                _rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining)
            )
        return built if type(like) is list else _like(like, built)
    rebuilt = {}
    for key, child in like.items() if isinstance(like, dict) else _children(like):
        rebuilt[key] = _rebuild(child, remaining) if isinstance(child, _NODES) else next(remaining)
    return rebuilt if type(like) is dict else _like(like, rebuilt)


def _like(like: Tree, children: Any) -> Tree:
    """Return a node of the type of `like` with other children: a list of them, or a dict by key.

    Raises:
        TreeError: the type cannot be built with these children, or does not keep them as they are.
    """
    if type(like) is tuple:
        return tuple(children)
    try:
        node = rebuilt(like, children)
    except Exception as error:
        raise not_rebuilt(like, f"{type(error).__name__}: {error}") from error
    wanted = list(children.values() if isinstance(children, dict) else children)
    kept = [child for _, child in _children(node)]
    if len(kept) != len(wanted) or any(a is not b for a, b in zip(kept, wanted, strict=True)):
        raise not_rebuilt(like, "it changes what it is given")
    return node


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
    if not isinstance(like, _SEQUENCES):
        same = type(tree) is type(like)
        return same and _collect_like(_fields(like), _fields(tree), found)
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
    elif type(like) in _CHILDREN and type(tree) is type(like):
        _refuse(_fields(like), _fields(tree), path)
    elif isinstance(like, _NODES) or isinstance(tree, _NODES):
        raise _mismatch(like, tree, path)


def _mismatch(expected: Tree, got: Tree, path: tuple = ()) -> TreeError:
    shown = path if len(path) <= 20 else (*path[:10], "…", *path[-10:])
    place = "/".join(str(key) for key in shown) or "the root"
    return TreeError(f"trees differ at {place}: expected {describe(expected)}, got {describe(got)}")


def _miscounted(like: Tree, new_leaves: list[Any]) -> TreeError:
    return TreeError(f"unflatten: the tree has {len(leaves(like))} leaves, got {len(new_leaves)}")
