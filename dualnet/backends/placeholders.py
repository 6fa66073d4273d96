"""Keys and numbers that a recorded step does not know yet, and where they will stand.

What a CUDA graph repeats are its kernels and their arguments.  A step's key, its learning rate and
its number are other ones each time; so a step is recorded with stand-ins for them, and a kernel
that would take a number made of one reads it from device memory, into which `Slots.fill` writes
before each repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np

from dualnet.backends.launching import Module
from dualnet.random import Key

_WORDS_AT_ONCE = 128
"""As in cuda/placeholders.cu: what one launch takes along among its arguments."""
_MOST_WORDS = 1 << 16

_PLACEHOLDERS = Module("placeholders", threads=_WORDS_AT_ONCE)


@dataclass(frozen=True)
class Now:
    """What one repetition gives for the stand-ins.

    Attributes:
        key: of this step.
        numbers: of this step, by name.
    """

    key: Key
    numbers: dict[str, float]


class Slots:
    """Device memory for all that differs between repetitions, in words of 64 bits."""

    def __init__(self) -> None:
        self._memory = cupy.zeros(_MOST_WORDS, np.uint64)
        self._used = 0
        self._places: dict[Hashable, Any] = {}
        self._formulas: list[Callable[[Now, dict], np.ndarray]] = []

    def place(self, name: Hashable, dtype: Any, size: int, formula: Callable) -> Any:
        """Where numbers will stand: a CuPy array `(size,)`, the same for the same name.

        Args:
            name: of these numbers.
            dtype, size: of them.
            formula: `formula(now, keys)` gives them; keys caches those derived from `now.key`.
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
        """Write the numbers of a repetition: among the arguments of a kernel, so that nothing is
        copied from the host's memory and the host need not wait."""
        keys: dict[tuple, Key] = {(): now.key}
        words = np.zeros(-(-self._used // _WORDS_AT_ONCE) * _WORDS_AT_ONCE, np.uint64)
        if self._used:
            words[: self._used] = np.concatenate([f(now, keys) for f in self._formulas])
        for start in range(0, len(words), _WORDS_AT_ONCE):
            some = words[start : start + _WORDS_AT_ONCE]
            by_value = some.view([("at", np.uint64, (_WORDS_AT_ONCE,))])
            _PLACEHOLDERS.launch("put", np.float32, 1, self._memory[start:], by_value)


def _words(numbers: Any, dtype: Any, words: int) -> np.ndarray:
    given = np.asarray(numbers, dtype)
    padded = np.zeros(words * 8 // given.dtype.itemsize, given.dtype)
    padded[: given.size] = given
    return padded.view(np.uint64)


@dataclass(frozen=True)
class PlaceholderKey:
    """Stands for a key derived from that of a step: the path on which it will be."""

    slots: Slots
    path: tuple[int | str, ...] = ()

    def fold_in(self, data: int | str) -> PlaceholderKey:
        """As `Key.fold_in`."""
        return replace(self, path=(*self.path, data))

    def split(self, n: int) -> tuple[PlaceholderKey, ...]:
        """As `Key.split`."""
        return tuple(self.fold_in(i) for i in range(n))


def key_words(key: Key | PlaceholderKey) -> tuple[tuple[int, int], Any]:
    """A key's lower and upper 64 bits and None; or zeros and where those will stand, `(2,)`."""
    if not isinstance(key, PlaceholderKey):
        return (key.bits & (2**64 - 1), key.bits >> 64), None
    path = key.path
    words = lambda _now, keys: key_words(_derived(path, keys))[0]  # noqa: E731
    return (0, 0), key.slots.place(("key", path), np.uint64, 2, words)


def _derived(path: tuple, keys: dict[tuple, Key]) -> Key:
    if path not in keys:
        keys[path] = _derived(path[:-1], keys).fold_in(path[-1])
    return keys[path]


@dataclass(frozen=True, eq=False)
class PlaceholderNumber:
    """Stands for a number of a step, or a multiple of it; whatever asks what number it is meets a
    TypeError, as what it then did would be recorded for good."""

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
        """What it is, for the name of a place."""
        return self.name, self.factor

    def at(self, now: Now) -> float:
        """The number that it stands for."""
        return self.factor * now.numbers[self.name]


def placed(
    name: Hashable,
    formula: Callable[[Any, Any], tuple[float, ...]],
    size: int,
    dtype: Any,
    lr: float | PlaceholderNumber,
    step: int | PlaceholderNumber,
) -> tuple[tuple[float, ...], Any]:
    """What a kernel takes of a learning rate and a step's number: as it is, or where it will be.

    Args:
        name: of the formula, among all that are used in a step.
        formula: of `(lr, step)`.
        size, dtype: of what it returns.
        lr, step: either both known or both not.

    Returns:
        `(values, None)`, or zeros and the CuPy array `(size,)` to read from instead.
    """
    if not (isinstance(lr, PlaceholderNumber) and isinstance(step, PlaceholderNumber)):
        return formula(lr, step), None
    at = lambda now, _keys: formula(lr.at(now), step.at(now))  # noqa: E731
    name = (name, lr.by_name(), step.by_name(), np.dtype(dtype).name)
    place = lr.slots.place(name, dtype, size, at)
    return (0.0,) * size, place
