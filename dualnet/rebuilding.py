"""A node of a tree with other children: its type and its attributes are kept."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from dualnet.errors import TreeError


def rebuilt(like: Any, children: Any) -> Any:
    """Return an object like a tuple, list, dict or registered dataclass with other children.

    Args:
        like: the object; its own children, whatever they are, are not looked at.
        children: a list of them, or for a dict or dataclass a dict by key.

    Raises:
        Exception: whatever the object's constructor or copy raises.
    """
    if isinstance(like, tuple):
        node: Any = tuple.__new__(type(like), children)
        if hasattr(like, "__dict__"):
            node.__dict__.update(like.__dict__)
        return node
    if not isinstance(like, (dict, list)):
        names = [field.name for field in dataclasses.fields(like) if field.init]
        return type(like)(**{name: getattr(like, name) for name in names} | children)
    node = copy.copy(like)
    if isinstance(like, list):
        node[:] = children
        return node
    for key, child in children.items():
        node[key] = child
    if getattr(like, "__dict__", None) is like:  # its keys are its attributes
        node.__dict__ = node
    elif any(
        like[key] is value for key, value in getattr(like, "__dict__", {}).items() if key in like
    ):
        raise TreeError("its attributes repeat its values")
    return node


def not_rebuilt(like: Any, reason: str) -> TreeError:
    """Say that an object cannot be rebuilt with other children, and what to use instead."""
    name = type(like).__name__
    return TreeError(
        f"a tree of type {name} cannot be rebuilt with other leaves ({reason}); its constructor or "
        "copy must take arrays, Duals and None and keep them as they are. Use a dict, a named "
        "tuple, or a dataclass registered by dn.tree.register_dataclass"
    )
