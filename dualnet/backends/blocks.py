"""The memory in which recordings keep trees of arrays: blocks, and a state in two of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import cupy
import numpy as np

from dualnet import tree
from dualnet.backends import lazy
from dualnet.tree import Tree
from dualnet.types import Array

_ALIGNMENT = 256
"""Bytes to a multiple of which the arrays of a piece of memory are aligned."""

_ARRAY = object()
"""Stands for an array in a tree."""


class State:
    """What is carried from call to call: two blocks of memory that graphs read and write by turns.

    Args:
        like: a tree of arrays, as it is carried.

    Attributes:
        outline: the outline of the tree.
        blocks: the two blocks; only one if nothing is carried.
        newest: which block the last call returned; None if it returned none of them.
    """

    def __init__(self, like: Tree):
        self.outline = outline(like)
        self.blocks = [Block(like) for _ in range(2 if tree.leaves(like) else 1)]
        self.newest: int | None = None
        for block in self.blocks:  # which also loads the kernels that copy
            lazy.store(tree.leaves(like), block.leaves)

    def place_of(self, carried: Tree) -> int | None:
        """Return the number of a block that holds the values of `carried` and may be read now.

        The graph that reads it writes the other block.  So None is returned where the other one is
        what the last call returned, and still has to keep its values.
        """
        if self.newest is not None and self.blocks[self.newest].handed_out(carried):
            return self.newest
        leaves = tree.leaves(carried)
        if len(leaves) != len(self.blocks[0].leaves):
            return None
        if not leaves:
            return 0
        for place, block in enumerate(self.blocks):
            if all(map(operator.is_, leaves, block.leaves)):
                return place if self.newest in (place, None) else None
        if self.newest is not None or outline(carried) != self.outline:
            return None
        lazy.store(tree.leaves(self._apart(leaves)), self.blocks[0].leaves)
        return 0

    def after_plain(self, done: Tree) -> Tree:
        """Return what a plain call returned, apart from the blocks, which change again soon."""
        self.newest = None
        return self._apart(done)

    def _apart(self, arrays: Tree) -> Tree:
        """Return a tree of the same values, with copies of what lies in one of the blocks."""
        shared = [block.memory for block in self.blocks]
        return tree.map(lambda x: x.copy() if _is_in(x, shared) else x, arrays)

    def after(self, place: int) -> Tree:
        """Return what is carried by the repetition that read the block `place`."""
        self.newest = len(self.blocks) - 1 - place
        return self.blocks[self.newest].tree()


def _is_in(x: Any, memory: list[Array]) -> bool:
    """Return whether x is a CuPy array in one of some pieces of memory."""
    on_device = isinstance(x, cupy.ndarray)
    return on_device and any(cupy.may_share_memory(x, piece) for piece in memory)


class Layout:
    """How arrays lie side by side in a piece of memory, on the device or on the host.

    Args:
        like: arrays of any kind, which say the shapes and dtypes.

    Attributes:
        size: how many bytes the piece of memory has.
    """

    def __init__(self, like: Sequence[Any]):
        bytes_of_each = [math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in like]
        starts = np.cumsum([0, *(-(-n // _ALIGNMENT) * _ALIGNMENT for n in bytes_of_each)]).tolist()
        self.size: int = starts[-1]
        self._parts = [
            (slice(start, start + n), x.dtype, x.shape)
            for start, n, x in zip(starts[:-1], bytes_of_each, like, strict=True)
        ]

    def arrays_in(self, memory: Any) -> list[Any]:
        """Return the arrays that lie in a piece of memory, as parts of it.

        Args:
            memory: bytes, `(size,)`, of NumPy or of CuPy.
        """
        return [memory[part].view(dtype).reshape(shape) for part, dtype, shape in self._parts]


class Block:
    """Arrays that lie side by side in one piece of memory, so that one copy moves all of them.

    Args:
        like: a tree of arrays, which says the structure, shapes and dtypes.  Other leaves than
            arrays stay in the tree as they are.

    Attributes:
        memory: the piece of memory, as bytes.
        leaves: the arrays, parts of the memory.
    """

    def __init__(self, like: Tree):
        arrays = arrays_of(like)
        self._layout = Layout(arrays)
        self._like = tree.map(lambda x: _ARRAY if hasattr(x, "dtype") else x, like)
        self._others = None if len(arrays) == len(tree.leaves(like)) else tree.leaves(self._like)
        self.memory = cupy.empty((self._layout.size,), np.uint8)
        self.leaves = self._layout.arrays_in(self.memory)
        self._handed_out = _HandedOut(self._tree(self.leaves))

    def tree(self) -> Tree:
        """Return a tree of the arrays: the one that was handed out before, if it is as it was."""
        if not self._handed_out.unchanged():
            self._handed_out = _HandedOut(self._tree(self.leaves))
        return self._handed_out.tree

    def handed_out(self, arrays: Tree) -> bool:
        """Return whether this is the tree that was handed out last, as it was."""
        return arrays is self._handed_out.tree and self._handed_out.unchanged()

    def copied(self) -> Tree:
        """Return a tree of the arrays' present values, in memory of its own."""
        memory = cupy.empty(self.memory.shape, np.uint8)
        move(memory, self.memory)
        return self._tree(self._layout.arrays_in(memory))

    def _tree(self, arrays: list[Array]) -> Tree:
        """Return a new tree of such arrays as are in this block."""
        if self._others is not None:
            remaining = iter(arrays)
            arrays = [next(remaining) if x is _ARRAY else x for x in self._others]
        return tree.unflatten(self._like, arrays)


class _HandedOut:
    """A tree that others have, who may change its dicts and lists.

    To look through it in one go takes less time than to build another one for each step.

    Attributes:
        tree: the tree.
    """

    def __init__(self, tree_: Tree):
        self.tree = tree_
        self._parents: list[Any] = []
        self._keys: list[Any] = []
        self._children: list[Any] = []
        self._nodes: list[Any] = []
        self._is_plain = self._add(tree_)
        self._lengths = list(map(len, self._nodes))

    def _add(self, node: Tree) -> bool:
        """Note what lies where below a node; return False if a node has other parts than items."""
        if tree.is_leaf(node):
            return True
        if not isinstance(node, (dict, list, tuple)):
            return False
        self._nodes.append(node)
        inside = list(node.items() if isinstance(node, dict) else enumerate(node))
        for key, child in inside:
            self._parents.append(node)
            self._keys.append(key)
            self._children.append(child)
        return all([self._add(child) for _, child in inside])

    def unchanged(self) -> bool:
        """Return whether the tree is as it was when it was handed out."""
        try:
            found = map(operator.getitem, self._parents, self._keys)
            same = all(map(operator.is_, found, self._children))
        except LookupError:
            return False
        return self._is_plain and same and list(map(len, self._nodes)) == self._lengths


def move(there: Array, here: Array) -> None:
    """Copy an array to another one of the same shape and dtype.

    `cupy.copyto` takes several times as long to find out that a copy of memory is enough.
    """
    if there.flags.c_contiguous and here.flags.c_contiguous:
        there.data.copy_from_device_async(here.data, here.nbytes)
    else:
        cupy.copyto(there, here)


def arrays_of(results: Tree) -> list[Array]:
    """Return the leaves that are arrays."""
    return [x for x in tree.leaves(results) if hasattr(x, "dtype")]


def outline(arrays: Tree) -> Hashable:
    """Return the structure of a tree, and the shape and dtype of every leaf, to compare trees."""
    return tree.outline(arrays, lambda x: (x.shape, x.dtype))
