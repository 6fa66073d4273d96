"""Placeholders for the key and the numbers that change from one repetition of a step to the next.

A CUDA graph repeats kernels with the same arguments.  But each step has another key, another
learning rate and another step number.  So a step is recorded with placeholders for them.  A kernel
that would take a number made of a placeholder reads it from device memory instead, and `Slots.fill`
writes the numbers there before each repetition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

from dualnet.backends.launching import Module
from dualnet.random import Key, descendants, name_of_child
from dualnet.types import Array

_WORDS_AT_ONCE = 480
"""How many words one launch takes among its arguments, of which there may be 4,096 bytes; the same
as in cuda/placeholders.cu."""
_MOST_WORDS = 1 << 16
"""How many words all placeholders of a step may take together."""

_PLACEHOLDERS = Module("placeholders", threads=_WORDS_AT_ONCE)


class Slots:
    """Device memory for the values that change between repetitions, in words of 64 bits."""

    def __init__(self) -> None:
        launches = -(-_MOST_WORDS // _WORDS_AT_ONCE)
        self._on_device = cupy.zeros(launches * _WORDS_AT_ONCE, np.uint64)
        self._on_host = np.zeros(launches * _WORDS_AT_ONCE, np.uint64)
        self._used = 0
        self._launches: list[tuple[Array, np.ndarray]] = []
        self._keys = _Keys()
        self._numbers: dict[np.dtype, _Numbers] = {}

    def key_words(self, path: tuple[int | str, ...]) -> Array:
        """Return the CuPy array `(2,)` in which kernels find the words of a derived key.

        Args:
            path: the data that are folded into the step's key, first to last.

        Raises:
            OverflowError: there is no room for them.
        """
        if path not in self._keys.places:
            start, here = self._reserve(2)
            self._keys.add(path, start, here)
        return self._keys.places[path]

    def numbers(self, formulas: tuple[str, ...], dtype: DTypeLike) -> Array:
        """Return the CuPy array in which kernels find numbers, one after the other.

        Args:
            formulas: what the numbers are, each as a Python expression in the step's numbers.
            dtype: their dtype.

        Raises:
            OverflowError: there is no room for them.
        """
        kind = np.dtype(dtype)
        of_dtype = self._numbers.setdefault(kind, _Numbers(kind))
        if formulas not in of_dtype.places:
            start, here = self._reserve(-(-len(formulas) * kind.itemsize // 8))
            of_dtype.add(formulas, start, here)
        return of_dtype.places[formulas]

    def _reserve(self, words: int) -> tuple[int, Array]:
        """Return the first of so many free words, and the CuPy array of all of them."""
        start = self._used
        if start + words > _MOST_WORDS:
            raise OverflowError(f"more than {_MOST_WORDS} words that differ between steps")
        self._used += words
        first = len(self._launches) * _WORDS_AT_ONCE
        if self._used > first:
            part = slice(first, first + _WORDS_AT_ONCE)
            by_value = self._on_host[part].view([("at", np.uint64, (_WORDS_AT_ONCE,))])
            self._launches.append((self._on_device[part], by_value))
        return start, self._on_device[start : self._used]

    def fill(self, key: Key | None, numbers: dict[str, float]) -> None:
        """Compute the numbers of a repetition and write them to device memory.

        Args:
            key: this step's key; None if the function takes none.
            numbers: this step's numbers, by name.

        They go to the device as arguments of a kernel.  So nothing is copied from the host's
        memory, and the host need not wait.
        """
        if key is not None:
            self._keys.write(key, self._on_host)
        for of_dtype in self._numbers.values():
            of_dtype.write(numbers, self._on_host)
        for place, by_value in self._launches:
            _PLACEHOLDERS.launch("put", np.float32, 1, place, by_value)


class _Keys:
    """The keys that a step derives from its own, and where the words of some of them stand.

    Attributes:
        places: the path of a key whose words a kernel reads → where it reads them.
    """

    def __init__(self) -> None:
        self.places: dict[tuple, Array] = {}
        self._order: dict[tuple, int] = {(): 0}
        self._derivations: list[tuple[int, bytes]] = []
        self._read: list[int] = []
        self._words = np.zeros(0, np.intp)

    def add(self, path: tuple, start: int, here: Array) -> None:
        """Let the words of the key at `path` be written from word `start` on, which is `here`."""
        self.places[path] = here
        self._read.append(self._number(path))
        self._words = np.append(self._words, [start, start + 1])

    def _number(self, path: tuple) -> int:
        """Return the number of the key at a path; the keys on the way to it are derived first."""
        if path not in self._order:
            parent = self._number(path[:-1])
            self._derivations.append((parent, name_of_child(path[-1])))
            self._order[path] = len(self._derivations)
        return self._order[path]

    def write(self, key: Key, words: np.ndarray) -> None:
        """Write the words of all keys that follow from a step's key; each is derived once."""
        if not self._read:
            return
        keys = descendants(key, self._derivations)
        read = b"".join([keys[number] for number in self._read])
        words[self._words] = np.frombuffer(read, "<u8")


class _Numbers:
    """The numbers of one dtype that follow from a step's numbers.

    Attributes:
        places: the formulas of numbers → where kernels read them.
    """

    def __init__(self, dtype: np.dtype):
        self.places: dict[tuple[str, ...], Array] = {}
        self._dtype = dtype
        self._formulas: list[str] = []
        self._entries = np.zeros(0, np.intp)
        self._compute: Callable | None = None

    def add(self, formulas: tuple[str, ...], start: int, here: Array) -> None:
        """Let numbers be written from word `start` on, which is `here`."""
        self.places[formulas] = here.view(self._dtype)[: len(formulas)]
        first = start * 8 // self._dtype.itemsize
        self._entries = np.append(self._entries, np.arange(first, first + len(formulas)))
        self._formulas += formulas
        self._compute = None

    def write(self, numbers: dict[str, float], words: np.ndarray) -> None:
        """Compute all of them from a step's numbers, and write them."""
        if self._compute is None:
            # The texts are made of repr(number), operators and names by `PlaceholderNumber` alone.
            text = f"lambda {', '.join(numbers)}: [{', '.join(self._formulas)}]"
            self._compute = eval(text, {"sqrt": math.sqrt, "inf": math.inf, "nan": math.nan})
        compute: Any = self._compute
        words.view(self._dtype)[self._entries] = compute(**numbers)


@dataclass(frozen=True)
class PlaceholderKey:
    """Stands for a key that is derived from a step's key.

    Attributes:
        slots: where the key's words will be found.
        path: the data that were folded into the step's key, first to last.
    """

    slots: Slots
    path: tuple[int | str, ...] = ()

    def fold_in(self, data: int | str) -> PlaceholderKey:
        """Return the placeholder of a child key, as `Key.fold_in` returns the key."""
        return replace(self, path=(*self.path, data))

    def split(self, n: int) -> tuple[PlaceholderKey, ...]:
        """Return the placeholders of n child keys, as `Key.split` returns the keys."""
        return tuple(self.fold_in(i) for i in range(n))


def key_words(key: Key | PlaceholderKey) -> tuple[tuple[int, int], Array | None]:
    """Return what the kernels in cuda/draws.cu take of a key.

    Returns:
        The key's lower and upper 64 bits, and None.  For a placeholder: zeros, and the CuPy array
        `(2,)` in which the words will be found.
    """
    if isinstance(key, PlaceholderKey):
        return (0, 0), key.slots.key_words(key.path)
    return (key.bits & (2**64 - 1), key.bits >> 64), None


@dataclass(frozen=True, eq=False)
class PlaceholderNumber:
    """Stands for a number of a step, or for one that follows from such numbers by arithmetic.

    Python's `+ - * / **` with Python numbers and with other placeholders, and `np.sqrt`, give
    another placeholder: its formula is computed on the host before each repetition, by the very
    operations of a plain step.  Code that asks for the value gets a TypeError, because what it does
    then would be recorded, and would be wrong in later steps.

    Attributes:
        slots: where numbers made of it will be found.
        formula: what it is, as a Python expression in the names of the step's numbers.
    """

    slots: Slots
    formula: str

    def place(self, dtype: DTypeLike) -> Array:
        """Return the CuPy array `(1,)` in which kernels will find the number.

        Raises:
            OverflowError: the step has more such numbers than there is room for.
        """
        return self.slots.numbers((self.formula,), dtype)

    def __neg__(self) -> PlaceholderNumber:
        return replace(self, formula=f"(-{self.formula})")

    def __pos__(self) -> PlaceholderNumber:
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        """Return a placeholder of the result; NotImplemented where one of `inputs` is no number.

        Where others are CuPy arrays of floating-point numbers, the numbers are read from device
        memory in the dtype of the arrays.
        """
        if method != "__call__" or how:
            return NotImplemented
        texts = [_formula(x) for x in inputs]
        if None not in texts:
            written = _WRITTEN.get(ufunc)
            if written is None:
                return NotImplemented
            return replace(self, formula=written.format(*texts))
        arrays = [x for x, text in zip(inputs, texts, strict=True) if text is None]
        if not all(isinstance(x, cupy.ndarray) and x.dtype.kind == "f" for x in arrays):
            return NotImplemented
        dtype = np.result_type(*(x.dtype for x in arrays))
        return ufunc(
            *(x.place(dtype).reshape(()) if isinstance(x, PlaceholderNumber) else x for x in inputs)
        )

    def _refuse(self, *_: object) -> Any:
        raise TypeError(f"the number {self.formula} is not known while a step is recorded")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __round__ = __abs__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = None  # type: ignore[assignment]


_WRITTEN: dict[np.ufunc, str] = {
    np.add: "({} + {})",
    np.subtract: "({} - {})",
    np.multiply: "({} * {})",
    np.divide: "({} / {})",
    np.power: "({} ** {})",
    np.sqrt: "sqrt({})",
}
"""What a placeholder can be computed by → how that is written in Python."""


def _formula(x: Any) -> str | None:
    """Return a placeholder or a Python number as a Python expression; None for anything else."""
    if isinstance(x, PlaceholderNumber):
        return x.formula
    return f"({x!r})" if type(x) in (int, float) else None


def _operator(ufunc: np.ufunc) -> tuple[Callable, Callable]:
    """Return the methods by which Python's operator computes a ufunc, from either side."""

    def forward(self: PlaceholderNumber, other: Any) -> Any:
        return self.__array_ufunc__(ufunc, "__call__", self, other)

    def reflected(self: PlaceholderNumber, other: Any) -> Any:
        return self.__array_ufunc__(ufunc, "__call__", other, self)

    return forward, reflected


for _name, _ufunc in {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply},
    **{"truediv": np.divide, "pow": np.power},
}.items():
    for _kind, _method in zip(("", "r"), _operator(_ufunc), strict=True):
        setattr(PlaceholderNumber, f"__{_kind}{_name}__", _method)
