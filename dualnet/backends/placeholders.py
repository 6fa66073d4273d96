"""Placeholders for the key and the numbers that change from one repetition of a step to the next.

A CUDA graph repeats kernels with the same arguments.  But each step has another key, another
learning rate and another step number.  So a step is recorded with placeholders for them.  A kernel
that would take a number made of a placeholder reads it from device memory instead, and `Slots.fill`
writes the numbers there before each repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from dualnet.backends.launching import Module
from dualnet.random import Key
from dualnet.types import Array

_WORDS_AT_ONCE = 128
"""How many words one launch takes among its arguments; the same as in cuda/placeholders.cu."""
_MOST_WORDS = 1 << 16
"""How many words all placeholders of a step may take together."""

_PLACEHOLDERS = Module("placeholders", threads=_WORDS_AT_ONCE)


@dataclass(frozen=True)
class Now:
    """The values that the placeholders stand for in one repetition.

    Attributes:
        key: this step's key.
        numbers: this step's numbers, by name.
    """

    key: Key
    numbers: dict[str, float]


class Slots:
    """Device memory for the values that change between repetitions, in words of 64 bits."""

    def __init__(self) -> None:
        self._memory = cupy.zeros(_MOST_WORDS, np.uint64)
        self._used = 0
        self._places: dict[Hashable, Array] = {}
        self._formulas: list[Callable[[Now, dict], np.ndarray]] = []

    def place(self, name: Hashable, dtype: DTypeLike, size: int, formula: Callable) -> Array:
        """Reserve memory for numbers, once for each name.

        Args:
            name: the name of these numbers.
            dtype: their dtype.
            size: how many there are.
            formula: `formula(now, keys)` computes them before each repetition; `keys` caches the
                keys that are derived from `now.key`, by their paths.

        Returns:
            The CuPy array `(size,)` in which kernels find the numbers.

        Raises:
            OverflowError: there is no room for them.
        """
        if name not in self._places:
            words = -(-size * np.dtype(dtype).itemsize // 8)
            if self._used + words > _MOST_WORDS:
                raise OverflowError(f"more than {_MOST_WORDS} words that differ between steps")
            here = self._memory[self._used : self._used + words]
            self._used += words
            self._places[name] = here.view(dtype)[:size]
            self._formulas.append(lambda now, keys: _words(formula(now, keys), dtype, words))
        return self._places[name]

    def fill(self, now: Now) -> None:
        """Compute the numbers of a repetition and write them to device memory.

        They go to the device as arguments of a kernel.  So nothing is copied from the host's
        memory, and the host need not wait.
        """
        keys: dict[tuple, Key] = {(): now.key}
        words = np.zeros(-(-self._used // _WORDS_AT_ONCE) * _WORDS_AT_ONCE, np.uint64)
        if self._used:
            words[: self._used] = np.concatenate([f(now, keys) for f in self._formulas])
        for start in range(0, len(words), _WORDS_AT_ONCE):
            some = words[start : start + _WORDS_AT_ONCE]
            by_value = some.view([("at", np.uint64, (_WORDS_AT_ONCE,))])
            _PLACEHOLDERS.launch("put", np.float32, 1, self._memory[start:], by_value)


def _words(numbers: ArrayLike, dtype: DTypeLike, words: int) -> np.ndarray:
    """Return the bytes of some numbers as `words` words, padded with zeros."""
    given = np.asarray(numbers, dtype)
    padded = np.zeros(words * 8 // given.dtype.itemsize, given.dtype)
    padded[: given.size] = given
    return padded.view(np.uint64)


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
    if not isinstance(key, PlaceholderKey):
        return (key.bits & (2**64 - 1), key.bits >> 64), None
    path = key.path

    def words(_now: Now, keys: dict[tuple, Key]) -> tuple[int, int]:
        return key_words(_derive_key(path, keys))[0]

    return (0, 0), key.slots.place(("key", path), np.uint64, 2, words)


def _derive_key(path: tuple, keys: dict[tuple, Key]) -> Key:
    """Return the key at a path from the step's key `keys[()]`, and keep it in `keys`."""
    if path not in keys:
        keys[path] = _derive_key(path[:-1], keys).fold_in(path[-1])
    return keys[path]


@dataclass(frozen=True, eq=False)
class PlaceholderNumber:
    """Stands for a number of a step, or for a multiple of it.

    Code that asks for its value gets a TypeError: what the code does then would be recorded, and
    would be wrong in later steps.

    Attributes:
        slots: where numbers made of it will be found.
        name: the name of the number in a step.
        factor: what the number is multiplied by.
    """

    slots: Slots
    name: str
    factor: float = 1.0

    def __mul__(self, factor: float) -> PlaceholderNumber:
        return replace(self, factor=self.factor * factor)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        raise TypeError(f"the number {self.name} is not known while a step is recorded")

    def __eq__(self, other: object) -> bool:
        raise TypeError(f"the number {self.name} is not known while a step is recorded")

    __hash__ = None  # type: ignore[assignment]

    def by_name(self) -> tuple[str, float]:
        """Return which multiple of which number it is, to name the numbers made of it."""
        return self.name, self.factor

    def at(self, now: Now) -> float:
        """Return the number that it stands for in one repetition."""
        return self.factor * now.numbers[self.name]


def placed(
    name: Hashable,
    formula: Callable[[Any, Any], tuple[float, ...]],
    size: int,
    dtype: DTypeLike,
    lr: float | PlaceholderNumber,
    step: int | PlaceholderNumber,
) -> tuple[tuple[float, ...], Array | None]:
    """Return the numbers that a kernel takes, made of the learning rate and the step's number.

    Args:
        name: the formula's name, unique among all formulas of a step.
        formula: `formula(lr, step)` computes the numbers.
        size: how many numbers there are.
        dtype: their dtype in device memory.
        lr, step: both numbers, or both placeholders.

    Returns:
        The numbers, and None.  With placeholders: zeros, and the CuPy array `(size,)` in which the
        kernel will find the numbers.
    """
    if not (isinstance(lr, PlaceholderNumber) and isinstance(step, PlaceholderNumber)):
        return formula(lr, step), None

    def values(now: Now, _keys: dict[tuple, Key]) -> tuple[float, ...]:
        return formula(lr.at(now), step.at(now))

    name = (name, lr.by_name(), step.by_name(), np.dtype(dtype).name)
    return (0.0,) * size, lr.slots.place(name, dtype, size, values)
