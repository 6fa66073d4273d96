"""Reading the data in a pickle without the pickle machine, so that nothing in it can run.

A pickle is a program for a machine with a stack.  The one of Python calls whatever the program
names; this one knows only what the pickled version of CIFAR is made of, which Python 2 wrote by
protocol 2: dicts, lists, tuples, strings, whole numbers, and NumPy arrays of bytes.  An array is
written as calls of three names, which are not called here but noted down, in an `Array`.  No
length is believed before that many bytes are seen to be there.

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
"""The longest program that is read: four times what the training set of CIFAR-100 takes."""

_RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")
_NDARRAY = ("numpy", "ndarray")
_DTYPE = ("numpy", "dtype")
_MAX_AXES = 4
_MARK = object()


class _Refused(Exception):
    """What is wrong with a pickle: what was found."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle mentions; it is never looked up."""

    module: str
    name: str


@dataclass
class Array:
    """A NumPy array of bytes as a pickle describes it.

    Args:
        shape: its sizes, which `content` has been seen to fit; none before they are known.
        content: its values.
        order: of the values, as in NumPy: `C` or `F`.
    """

    shape: tuple[int, ...] = ()
    content: bytes = b""
    order: Literal["C", "F"] = "C"

    def values(self) -> np.ndarray:
        """The array, uint8 and read-only."""
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order=self.order)


@dataclass
class _Dtype:
    """The type of an array's values; only bytes are let in."""


def read_pickle(content: bytes, where: str | Path, remedy: str = FETCH_AGAIN) -> Any:
    """Read a pickle that is made of plain values and arrays of bytes.

    Args:
        content: the whole pickle.
        where: for error messages, the file it is from.
        remedy: what to do about a bad file, the end of every error message.

    Returns:
        The value: dict, list, tuple, bytes (for a string), int, bool, None or `Array`.

    Raises:
        DataError: if there is anything else in it, or it is truncated or corrupted.
    """
    try:
        return _Machine(content).run()
    except (_Refused, IndexError, struct.error) as refused:
        # IndexError: of an empty stack or an unknown number in the memo.
        found = str(refused) if isinstance(refused, _Refused) else "a corrupted pickle"
        expected = "a pickle of plain values and arrays of bytes"
        raise bad(where, expected, found, remedy) from refused


class _Machine:
    """The stack, the memo, and a function for each opcode that is known."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
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
        """The next bytes of the program."""
        taken = self.content[self.at : self.at + count]
        if count < 0 or len(taken) < count:
            raise _Refused("its end too early")
        self.at += count
        return taken

    def number(self, form: str) -> int:
        """The next number, in a form of `struct`."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def line(self) -> str:
        """The bytes before the next end of a line."""
        end = self.content.find(b"\n", self.at, self.at + 100)
        if end < 0:
            raise _Refused("a name that does not end")
        return self.take(end + 1 - self.at)[:-1].decode("latin-1")

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise _Refused("a mark where a value should be")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        values = []
        while self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise _Refused("a number that is not in its memo")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def string(self, form: str) -> None:
        self.stack.append(self.take(self.number(form)))

    def make_tuple(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, values: list[Any]) -> None:
        if type(self.top()) is not list:
            raise _Refused("something added to what is no list")
        self.top().extend(values)

    def set_items(self, values: list[Any]) -> None:
        keys = values[::2]
        if type(self.top()) is not dict or len(values) % 2:
            raise _Refused("something added to what is no dict")
        if not all(type(key) is bytes for key in keys):
            raise _Refused("a dict with keys that are no strings")
        self.top().update(zip(keys, values[1::2], strict=True))

    def mention(self) -> None:
        name = (self.line(), self.line())
        if name not in (_RECONSTRUCT, _NDARRAY, _DTYPE):
            raise _Refused(f"the name {'.'.join(name)!r}, which CIFAR's files do not have")
        self.stack.append(Name(*name))

    def call(self) -> None:
        """Note a call down: an array or a dtype without its state, which comes later."""
        arguments, name = self.pop(), self.pop()
        if name == Name(*_RECONSTRUCT) and arguments == (Name(*_NDARRAY), (0,), b"b"):
            self.stack.append(Array())
        elif name == Name(*_DTYPE) and arguments == (b"u1", 0, 1):
            self.stack.append(_Dtype())
        else:
            raise _Refused("a call that does not make an array of bytes")

    def build(self) -> None:
        """Give an array or a dtype its state."""
        state, made = self.pop(), self.top()
        if type(made) is _Dtype and state == (3, b"|", None, None, None, -1, -1, 0):
            return
        if type(made) is not Array or type(state) is not tuple or len(state) != 5:
            raise _Refused("a state of what is no array of bytes")
        version, shape, dtype, fortran, content = state
        if version != 1 or type(fortran) is not bool or type(dtype) is not _Dtype:
            raise _Refused("an array that is not one of bytes")
        # Few axes: the product of a million sizes would take forever.
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
"""What stands for what, in the order of PEP 307's protocol 2: values, strings, memo, containers,
and the three opcodes that calls are made of."""


def _expect_protocol_2(protocol: int) -> None:
    if protocol != 2:
        raise _Refused(f"protocol {protocol}, not 2")
