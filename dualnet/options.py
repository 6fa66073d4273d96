"""Options: what layers, optimizers, schedules and rules are made with, and what they refuse.

All of these are frozen dataclasses whose fields are options, and they derive from `Options`.  It
checks what a constructor is given against the names and the types of the fields, so that their
`__post_init__` looks at ranges alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from dualnet.errors import UsageError
from dualnet.naming import did_you_mean

__all__ = [
    "Options",
    "is_int",
    "make_tuples",
    "require_choice",
    "require_count",
    "require_kind",
    "require_share",
]

_Made = TypeVar("_Made", bound="Options")


class Options:
    """Base of what is made with options, which are given by name: `Linear(16, bias=False)`.

    A dataclass that derives from it marks them by `kw_only` or `KW_ONLY`.  What is wrong with a
    call is a `UsageError` that says what to write.

    Attributes:
        _hint: what the error for too many values or for an unknown name ends with; it says where
            the thing belongs that people look for here.
    """

    _hint: ClassVar[str] = ""

    def __new__(cls: type[_Made], *given: object, **named: object) -> _Made:
        signature = _signature(cls)  # type: ignore[arg-type]  # a class can be hashed
        if signature is not None:
            by_place, by_name, kinds = signature
            if len(given) > len(by_place):
                raise _too_many(cls, given, by_place, by_name)
            for name, value in (*zip(by_place, given, strict=False), *named.items()):
                if name not in by_name:
                    has = f"it has {', '.join(by_name)}" if by_name else "it has none"
                    raise UsageError(f"{cls.__name__}: no option {name}; {has}{cls._hint}")
                require_kind(cls.__name__, name, value, kinds[name])
        return super().__new__(cls)


def make_tuples(made: Options, *names: str) -> None:
    """Turn lists that were given for some fields into tuples, which can be hashed and compared."""
    for name in names:
        value = getattr(made, name)
        if isinstance(value, list):
            sides = (tuple(side) if isinstance(side, list) else side for side in value)
            object.__setattr__(made, name, tuple(sides))


def require_kind(where: str, name: str, value: object, kind: str) -> None:
    """Raise a UsageError unless a value is of a field's type.

    Args:
        where: whose field it is, for the message.
        name: of the field.
        value: what was given for it.
        kind: the type as it is written, such as `int | None`.  Types other than bool, int, float,
            str and None are not checked.  To Python a bool is an int too; here it is none.
    """
    kinds = [_KINDS.get(part) for part in kind.split(" | ")]
    if None in kinds or any(fits(value) for _, fits in filter(None, kinds)):
        return
    expected = " or ".join(words for words, _ in filter(None, kinds))
    raise UsageError(f"{where}: {name} must be {expected}, got {_short(value)}")


def require_count(where: str, name: str, value: object) -> None:
    """Raise a UsageError unless a value is an int of at least 1."""
    if not is_int(value) or value < 1:  # type: ignore[operator]
        raise UsageError(f"{where}: {name} must be an int of at least 1, got {_short(value)}")


def require_choice(where: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a UsageError unless a value is one of the choices."""
    if value not in choices:
        raise UsageError(
            f"{where}: {name} must be one of {', '.join(choices)}, got {value!r}"
            f"{did_you_mean(value, choices)}"
        )


def require_share(where: str, name: str, value: float) -> None:
    """Raise a UsageError unless a number is from 0 to 1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{where}: {name} must be from 0 to 1, got {value}")


def is_int(value: object) -> bool:
    """Whether a value is an int of Python's or NumPy's, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int": ("an int", is_int),
    "float": ("a number", _is_number),
    "str": ("a string", lambda value: isinstance(value, str)),
    "None": ("None", lambda value: value is None),
}
"""A type as it is written → what a message calls it, and whether a value is of it."""


@functools.cache
def _signature(cls: type) -> tuple[list[str], list[str], Mapping[str, str]] | None:
    """Return the names that a class takes by their place, all names, and their types as written.

    None stands for a constructor that takes any.
    """
    _, *parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    kinds = {
        f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type)
        for f in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())
    }
    by_place = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return by_place, [p.name for p in parameters], {p.name: "" for p in parameters} | kinds


def _too_many(
    cls: type[Options], given: tuple[object, ...], by_place: list[str], by_name: list[str]
) -> UsageError:
    """Describe that a class was given more values without a name than it takes."""
    takes = f"only {' and '.join(by_place)}" if by_place else "nothing"
    options = ", ".join(f"{name}=..." for name in by_name if name not in by_place)
    write = f"; write {options}" if options else ""
    values = ", ".join(map(_short, given))
    return UsageError(
        f"{cls.__name__}: takes {takes} without a name, got {values}{write}{cls._hint}"
    )


def _short(value: Any) -> str:
    """Return a value for a message, in one line."""
    text = reprlib.repr(value)
    return text if "\n" not in text else f"{type(value).__name__}(...)"
