"""Read the data in a pickle without Python's pickle machine, so that nothing in it can run.

A pickle is a program for a machine with a stack.  Python's machine calls whatever function the
program names.  The machine here knows only what the pickled version of CIFAR is made of, which
Python 2 wrote by protocol 2: dicts, lists, tuples, strings, whole numbers, and NumPy arrays of
bytes.  A pickle describes an array by calls of three functions.  They are not called here; what
they would make is noted in a `PickledArray`.  No length is believed before so many bytes are known
to be there.

Source: the opcodes are described in `pickletools` of the standard library; PEP 307.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dualnet.data.streams import FETCH_AGAIN, bad

MAX_OPCODES = 1 << 20
"""How many opcodes a pickle may have; the training set of CIFAR-100 has a quarter of that."""

_RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")
_NDARRAY = ("numpy", "ndarray")
_DTYPE = ("numpy", "dtype")
_MAX_AXES = 4
_MARK = object()
"""What the opcode MARK puts on the stack."""


class _Refused(Exception):
    """A pickle is refused; the message says what was found in it."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle mentions; it is never looked up."""

    module: str
    name: str


@dataclass
class PickledArray:
    """A NumPy array of bytes as a pickle describes it.

    Args:
        shape: its sizes, which have been checked against `content`; empty until they are known.
        content: its values.
        order: the order of the values, as in NumPy: `C` or `F`.
    """

    shape: tuple[int, ...] = ()
    content: bytes = b""
    order: Literal["C", "F"] = "C"

    def values(self) -> np.ndarray:
        """Return the array, uint8 and read-only."""
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order=self.order)


@dataclass
class _Dtype:
    """The dtype of an array's values; only that of bytes is accepted."""


def read_pickle(content: bytes, where: str | Path, remedy: str = FETCH_AGAIN) -> Any:
    """Read a pickle that is made of plain values and arrays of bytes.

    Args:
        content: the whole pickle.
        where: the file that it is from, for error messages.
        remedy: what to do about a bad file; it ends every error message.

    Returns:
        The value: a dict, list, tuple, bytes (for a string), int, bool, None or `PickledArray`.

    Raises:
        DataError: the pickle holds anything else, or is truncated or corrupted.
    """
    try:
        return _Machine(content).run()
    except (_Refused, IndexError, struct.error) as refused:
        # An IndexError comes from an empty stack.
        found = str(refused) if isinstance(refused, _Refused) else "a corrupted pickle"
        expected = "a pickle of plain values and arrays of bytes"
        raise bad(where, expected, found, remedy) from refused


class _Machine:
    """A pickle machine: the program, the stack, the memo, and a method for each known opcode."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Run the program and return the one value that it leaves on the stack."""
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)
            if opcode == b".":
                if self.at != len(self.content) or len(self.stack) != 1:
                    raise _Refused("more than one value")
                return self.stack.pop()
            if opcode not in _OPCODES:
                raise _Refused(f"opcode {opcode!r}, which CIFAR's files do not have")
            _OPCODES[opcode](self)
        raise _Refused(f"more than {MAX_OPCODES} opcodes")

    def take(self, count: int) -> bytes:
        """Take the next `count` bytes of the program."""
        taken = self.content[self.at : self.at + count]
        if count < 0 or len(taken) < count:
            raise _Refused("its end too early")
        self.at += count
        return taken

    def number(self, form: str) -> int:
        """Take the next number, in a format of `struct`."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def line(self) -> str:
        """Take the text before the next end of a line."""
        end = self.content.find(b"\n", self.at, self.at + 100)
        if end < 0:
            raise _Refused("a name that does not end")
        return self.take(end + 1 - self.at)[:-1].decode("latin-1")

    def top(self) -> Any:
        """Return the value on top of the stack."""
        if self.stack[-1] is _MARK:
            raise _Refused("a mark where a value should be")
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the value from the top of the stack."""
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take the values above the topmost mark, and the mark, from the stack."""
        values = []
        while self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def get(self, index: int) -> None:
        """Put a value of the memo on the stack."""
        if index not in self.memo:
            raise _Refused("a number that is not in its memo")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        """Keep the value on top of the stack in the memo."""
        self.memo[index] = self.top()

    def string(self, form: str) -> None:
        """Put the next string on the stack; its length is a number in a format of `struct`."""
        self.stack.append(self.take(self.number(form)))

    def make_tuple(self, count: int) -> None:
        """Replace the top `count` values by a tuple of them."""
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack."""
        if type(self.top()) is not list:
            raise _Refused("something added to what is no list")
        self.top().extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values, which alternate, to the dict on top of the stack."""
        keys = values[::2]
        if type(self.top()) is not dict or len(values) % 2:
            raise _Refused("something added to what is no dict")
        if not all(type(key) is bytes for key in keys):
            raise _Refused("a dict with keys that are no strings")
        self.top().update(zip(keys, values[1::2], strict=True))

    def mention(self) -> None:
        """Put the next name on the stack, if it is one of the three that are known."""
        name = (self.line(), self.line())
        if name not in (_RECONSTRUCT, _NDARRAY, _DTYPE):
            raise _Refused(f"the name {'.'.join(name)!r}, which CIFAR's files do not have")
        self.stack.append(Name(*name))

    def call(self) -> None:
        """Put what a call would make on the stack: an array or a dtype, whose state comes later."""
        arguments, name = self.pop(), self.pop()
        if name == Name(*_RECONSTRUCT) and arguments == (Name(*_NDARRAY), (0,), b"b"):
            self.stack.append(PickledArray())
        elif name == Name(*_DTYPE) and arguments == (b"u1", 0, 1):
            self.stack.append(_Dtype())
        else:
            raise _Refused("a call that does not make an array of bytes")

    def build(self) -> None:
        """Give the array or dtype on top of the stack its state."""
        state, made = self.pop(), self.top()
        if type(made) is _Dtype and state == (3, b"|", None, None, None, -1, -1, 0):
            return
        if type(made) is not PickledArray or type(state) is not tuple or len(state) != 5:
            raise _Refused("a state of what is no array of bytes")
        version, shape, dtype, fortran, content = state
        if version != 1 or type(fortran) is not bool or type(dtype) is not _Dtype:
            raise _Refused("an array that is not one of bytes")
        # Few axes are allowed, because the product of a million sizes would take very long.
        if type(shape) is not tuple or not 1 <= len(shape) <= _MAX_AXES:
            raise _Refused("an array without sizes")
        if not all(type(n) is int and n > 0 for n in shape):
            raise _Refused("an array without values")
        if type(content) is not bytes or math.prod(shape) != len(content):
            raise _Refused("an array whose sizes are not those of its content")
        made.shape, made.content, made.order = shape, content, "F" if fortran else "C"


_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: _expect_protocol_2(m.number("<B")),
    b"}": lambda m: m.stack.append({}),
    b"]": lambda m: m.stack.append([]),
    b")": lambda m: m.stack.append(()),
    b"(": lambda m: m.stack.append(_MARK),
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": lambda m: m.stack.append(m.number("<B")),
    b"M": lambda m: m.stack.append(m.number("<H")),
    b"J": lambda m: m.stack.append(m.number("<i")),
    b"U": lambda m: m.string("<B"),
    b"T": lambda m: m.string("<i"),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"t": lambda m: m.stack.append(tuple(m.pop_to_mark())),
    b"\x85": lambda m: m.make_tuple(1),
    b"\x86": lambda m: m.make_tuple(2),
    b"\x87": lambda m: m.make_tuple(3),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_to_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"c": lambda m: m.mention(),
    b"R": lambda m: m.call(),
    b"b": lambda m: m.build(),
}
"""Opcode → what it does: protocol, values, strings, memo, containers, and the three opcodes of
which calls are made."""


def _expect_protocol_2(protocol: int) -> None:
    """Refuse a pickle of another protocol."""
    if protocol != 2:
        raise _Refused(f"protocol {protocol}, not 2")
