"""Arrays that are not computed yet: what they are made of, and the C text of each function.

An expression is a graph of nodes.  A node is known, which means that its array is there, or it is a
function of other nodes, entry by entry, or it shows another node with its axes rearranged, or it is
a reduction of another node over some axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet.types import Array, Shape

C_TYPES = {
    **{"float32": "float", "float64": "double", "bool": "bool", "uint8": "u8", "uint16": "u16"},
    **{"uint32": "u32", "int32": "int", "int64": "i64"},
}
"""Name of a dtype → the C type of an entry.  Arrays of other dtypes are left to CuPy."""


@functools.cache  # NumPy works a dtype's name out anew each time, which takes longer than all else.
def c_type(dtype: np.dtype) -> str | None:
    """Return the C type of an entry; None where `C_TYPES` has none."""
    return C_TYPES.get(dtype.name)


FORMULAS: dict[Callable, str] = {
    np.add: "{0} + {1}",
    np.subtract: "{0} - {1}",
    np.multiply: "{0} * {1}",
    np.divide: "{0} / {1}",
    np.negative: "-{0}",
    np.positive: "{0}",
    np.absolute: "{0} < 0 ? -{0} : {0} + 0",
    np.square: "{0} * {0}",
    np.reciprocal: "1 / {0}",
    np.sqrt: "sqrt({0})",
    np.exp: "exp({0})",
    np.log: "log({0})",
    np.tanh: "tanh({0})",
    # A NaN in either place is the result.
    np.maximum: "({0} > {1} || {0} != {0}) ? {0} : {1}",
    np.minimum: "({0} < {1} || {0} != {0}) ? {0} : {1}",
    np.greater: "{0} > {1}",
    np.greater_equal: "{0} >= {1}",
    np.less: "{0} < {1}",
    np.less_equal: "{0} <= {1}",
    np.equal: "{0} == {1}",
    np.not_equal: "{0} != {1}",
    np.logical_and: "{0} && {1}",
    np.logical_or: "{0} || {1}",
    np.logical_not: "!{0}",
}
"""A function of NumPy that works entry by entry → its value in C, of arguments {0}, {1}."""

_ALSO_OF_BOOL = {np.logical_and, np.logical_or, np.logical_not, np.equal, np.not_equal}
"""The functions whose C text means the same for bool.  (NumPy's `True + True` is True.)"""
_ALSO_OF_INTEGERS = {
    *(np.add, np.subtract, np.multiply, np.negative, np.positive, np.square, np.maximum),
    *(np.minimum, np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal),
}
"""The functions whose C text means the same for integers of 32 bits and more."""

_MAY_OVERFLOW = {np.add, np.subtract, np.multiply, np.negative, np.square}
"""The functions whose result may be no integer of its dtype; it is then the one that is left over
modulo 2 to the number of bits, as in NumPy and in CuPy's kernels of one function each."""
_UNSIGNED = {"int32": "u32", "int64": "u64"}
"""Name of an integer dtype → the C type in which such functions are computed.  Signed integers must
not overflow in C: of `x + 1 > x` in one kernel, a compiler may make `true`."""

WHERE = "{0} ? {1} : {2}"
"""The C text of `np.where`."""

MOST_FUNCTIONS = 64
"""An expression of more functions than this is computed before it becomes a part of another."""


class Node:
    """An array that is known or can be computed.

    Attributes:
        shape, dtype: those of the array.
        array: the CuPy array, once it is known.
        inputs: the nodes, and the `Number`s, that it is a function of.
        formula: the C text of a function, of arguments {0}, {1}, …; else None.
        types: the dtypes to which the function's arguments are converted first.
        axes: for a rearranged node: which axis of this node each axis of the input is; None for an
            axis of length 1 that is left out.  None for other nodes.
        reduction: for a reduction: its kind, its axes, and by what the result is divided.  None for
            other nodes.
        holder: a weak reference to the lazy array that stands for this node, if there is one.
        functions: how many functions the expression has.
        users: how many nodes were made of this one.
    """

    __slots__ = (
        *("shape", "dtype", "array", "inputs", "formula", "types", "axes"),
        *("reduction", "holder"),
        *("functions", "users", "__weakref__"),
    )

    def __init__(
        self,
        shape: Shape,
        dtype: np.dtype,
        array: Array | None = None,
        inputs: tuple = (),
        formula: str | None = None,
        types: tuple = (),
        axes: tuple[int | None, ...] | None = None,
        reduction: tuple[str, tuple[int, ...], int] | None = None,
    ):
        self.shape, self.dtype, self.array = shape, dtype, array
        self.inputs, self.formula, self.types = inputs, formula, types
        self.axes: Any = axes
        self.reduction: Any = reduction
        self.holder: Any = None
        self.users = 0
        for x in inputs:
            x.users += 1
        self.functions = (
            sum([x.functions for x in inputs]) + (formula is not None) if array is None else 0
        )

    @property
    def is_held(self) -> bool:
        """Whether a lazy array stands for this node, so that its entries may be asked for."""
        return self.holder is not None and self.holder() is not None

    @property
    def is_copy(self) -> bool:
        """Whether the entries are those of the only input."""
        return self.formula == "{0}" and self.inputs[0].dtype == self.dtype

    @property
    def shown(self) -> Node:
        """The node that a rearranged node shows, through others that are not known either."""
        node = self
        while node.array is None and node.axes is not None:
            (node,) = node.inputs
        return node

    @property
    def shares_memory(self) -> bool:
        """Whether this node shows entries that are, or can be, asked for in another way too.

        Then it has to be a view, so that a change in place of one is a change of both.
        """
        node = self
        while node.array is None and node.axes is not None:
            (node,) = node.inputs
            if node.array is not None or node.is_held or node.users > 1:
                return True
        return False

    def become(self, array: Array) -> None:
        """Make the node known; what it was made of is let go."""
        self.array, self.inputs, self.functions = array, (), 0


class Number:
    """A number among the arguments of a function.

    Attributes:
        value: a number, or a placeholder for one.
        functions: 0, because it is known.
        users: as for a node.
    """

    __slots__ = ("users", "value")
    shape: Shape = ()
    functions = 0

    def __init__(self, value: Any):
        self.value = value
        self.users = 0


@functools.cache
def formula(function: np.ufunc, dtype: np.dtype) -> str:
    """Return the C text of a function whose result has a dtype.

    Args:
        function: a key of `FORMULAS`.
        dtype: the result's, as `resolved` gives it.
    """
    text = FORMULAS[function]
    if function not in _MAY_OVERFLOW or dtype.name not in _UNSIGNED:
        return text
    arguments = (f"({_UNSIGNED[dtype.name]}){{{i}}}" for i in range(function.nin))
    return f"({C_TYPES[dtype.name]})({text.format(*arguments)})"


@functools.cache
def resolved(function: np.ufunc, kinds: tuple) -> tuple[np.dtype, ...] | None:
    """Return the dtypes of a function's arguments and of its result.

    Args:
        function: a key of `FORMULAS`.
        kinds: the dtype of each argument; `int` or `float` for Python's numbers.

    Returns:
        The dtypes, the result's last; None where there is no C text for them.
    """
    try:
        dtypes = function.resolve_dtypes((*kinds, None))
    except TypeError:
        return None
    names = {dtype.name for dtype in dtypes}
    if not names <= C_TYPES.keys() or any(kind not in "fbi" for kind in (d.kind for d in dtypes)):
        return None
    arguments = dtypes[:-1]
    if any(d.kind == "b" for d in arguments) and function not in _ALSO_OF_BOOL:
        return None
    if any(d.kind == "i" for d in arguments) and function not in _ALSO_OF_INTEGERS:
        return None
    return dtypes


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape to which all of these are stretched."""
    some = {shape for shape in shapes if shape}
    return some.pop() if len(some) == 1 else np.broadcast_shapes(*some)


def shown_by(shape: Shape, key: Any) -> tuple[Shape, tuple[int | None, ...]] | None:
    """Return the shape and the axes that an index shows, as `lazy_array.rearranged` takes them.

    It is None for an index that does more than to add and to drop axes of length 1.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if not all(k is None or k is Ellipsis or type(k) is int or _is_whole(k) for k in keys):
        return None
    given = sum(k is not None and k is not Ellipsis for k in keys)
    if keys.count(Ellipsis) > 1 or given > len(shape):
        return None
    at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[at : at + 1] = [slice(None)] * (len(shape) - given)
    new_shape: list[int] = []
    axes: list[int | None] = []
    for k in keys:
        n = 1 if k is None else shape[len(axes)]
        if type(k) is int:
            if n != 1 or k not in (0, -1):
                return None
            axes.append(None)
            continue
        if k is not None:
            axes.append(len(new_shape))
        new_shape.append(n)
    return tuple(new_shape), tuple(axes)


def _is_whole(key: Any) -> bool:
    """Whether an index takes the whole of an axis."""
    return type(key) is slice and key == slice(None)
