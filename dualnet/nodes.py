"""The nodes of trees: what is a node, what its children are, and the walks to all leaves.

`dualnet.tree` has the functions that users call, and refuses what these walks cannot do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeAlias

from dualnet.errors import TreeError, UsageError
from dualnet.rebuilding import not_rebuilt, rebuilt

Tree: TypeAlias = Any
"""A leaf, or a dict, list, tuple or registered dataclass of trees."""

SEQUENCES = (list, tuple)
NODES: tuple[type, ...] = (dict, *SEQUENCES)
"""The types of nodes; everything else is a leaf.  `register_dataclass` adds to it."""
CHILDREN: dict[type, tuple[str, ...]] = {}
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

    Examples:
        >>> from dataclasses import dataclass
        >>> @dn.tree.register_dataclass
        ... @dataclass
        ... class Point:
        ...     x: float
        ...     y: float
        >>> gradient = dn.grad(lambda p: p.x * p.y)(Point(3.0, 4.0))
        >>> type(gradient).__name__, float(gradient.x), float(gradient.y)
        ('Point', 4.0, 3.0)
    """
    global NODES
    if not dataclasses.is_dataclass(cls) or issubclass(cls, (dict, *SEQUENCES)):
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
    CHILDREN[cls] = tuple(name for name in names if name not in static)
    if cls not in NODES:
        NODES = (*NODES, cls)
    return cls


def outline_of(tree: Tree, leaf: Callable[[Any], Hashable]) -> Hashable:
    """Return the type of each node, its keys or static fields, and what `leaf` makes of leaves."""
    if not isinstance(tree, NODES):
        return leaf(tree)
    if isinstance(tree, dict):
        named: tuple[Any, ...] = tuple(tree)
        children = list(tree.values())
    elif isinstance(tree, SEQUENCES):
        named, children = (), list(tree)
    else:
        fields = fields_of(tree)
        instance: Any = tree
        every = dataclasses.fields(instance)
        others = [f.name for f in every if f.init and f.name not in fields]
        named = tuple((name, getattr(tree, name)) for name in others)
        children = list(fields.values())
    inside = []
    for child in children:  # a comprehension may be one more call for each level
        inside.append(outline_of(child, leaf))
    return type(tree), named, tuple(inside)


def children_of(tree: Tree) -> list[tuple[Any, Tree]]:
    """The keys and children of a node; a named tuple's keys are its fields.  A leaf has none."""
    if not isinstance(tree, NODES):
        return []
    if isinstance(tree, dict):
        return list(tree.items())
    if not isinstance(tree, SEQUENCES):
        return list(fields_of(tree).items())
    return list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))


def fields_of(tree: Tree) -> dict[str, Tree]:
    """The children of a registered dataclass by their names."""
    if type(tree) not in CHILDREN:
        raise TreeError(
            f"{type(tree).__name__} is a subclass of a registered dataclass and not registered "
            "itself; decorate it by @dn.tree.register_dataclass"
        )
    return {name: getattr(tree, name) for name in CHILDREN[type(tree)]}


# The functions below visit each leaf without a call of their own: a step of training walks its
# trees some thirty times, and comprehensions, generators and recursion into leaves are calls too.


def map_one(f: Callable[..., Any], tree: Tree) -> Tree:
    """Apply `f` to the leaves of a node."""
    if isinstance(tree, SEQUENCES):
        built = []
        for child in tree:
            built.append(map_one(f, child) if isinstance(child, NODES) else f(child))
        return built if type(tree) is list else node_like(tree, built)
    mapped = {}
    for key, child in tree.items() if isinstance(tree, dict) else children_of(tree):
        mapped[key] = map_one(f, child) if isinstance(child, NODES) else f(child)
    return mapped if type(tree) is dict else node_like(tree, mapped)


def collect(tree: Tree, found: list[Any]) -> None:
    """Append the leaves of a node to `found`."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, SEQUENCES):
        tree = fields_of(tree).values()
    for child in tree:
        if isinstance(child, NODES):
            collect(child, found)
        else:
            found.append(child)


def collect_items(tree: Tree, prefix: str, found: list[tuple[str, Any]]) -> None:
    """Append the paths and leaves of a node to `found`."""
    for key, child in tree.items() if isinstance(tree, dict) else children_of(tree):
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(child, NODES):
            collect_items(child, path, found)
        else:
            found.append((path, child))


def rebuild(like: Tree, remaining: Iterator[Any]) -> Tree:
    """Build a node, or a leaf, from the leaves that remain."""
    if not isinstance(like, NODES):
        return next(remaining)
    if isinstance(like, SEQUENCES):
        built = []
        for child in like:
            built.append(rebuild(child, remaining) if isinstance(child, NODES) else next(remaining))
        return built if type(like) is list else node_like(like, built)
    by_key = {}
    for key, child in like.items() if isinstance(like, dict) else children_of(like):
        by_key[key] = rebuild(child, remaining) if isinstance(child, NODES) else next(remaining)
    return by_key if type(like) is dict else node_like(like, by_key)


def node_like(like: Tree, children: Any) -> Tree:
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
    kept = [child for _, child in children_of(node)]
    if len(kept) != len(wanted) or any(a is not b for a, b in zip(kept, wanted, strict=True)):
        raise not_rebuilt(like, "it changes what it is given")
    return node


def collect_like(like: Tree, tree: Tree, found: list[Any]) -> bool:
    """Append the leaves of `tree` to `found` in the order of those of `like`.

    Return False, with some of them appended, where the structures differ.
    """
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            return False
        for key, child in like.items():
            other = tree[key]
            if isinstance(child, NODES):
                if not collect_like(child, other, found):
                    return False
            elif isinstance(other, NODES):
                return False
            else:
                found.append(other)
        return True
    if not isinstance(like, NODES):
        found.append(tree)
        return not isinstance(tree, NODES)
    if not isinstance(like, SEQUENCES):
        same = type(tree) is type(like)
        return same and collect_like(fields_of(like), fields_of(tree), found)
    if type(tree) is not type(like) or len(tree) != len(like):
        return False
    for child, other in zip(like, tree, strict=True):
        if not collect_like(child, other, found):
            return False
    return True
