"""Options: what layers, optimizers, schedules and rules are made with, and what they refuse.

All of these are frozen dataclasses whose fields are options, and they derive from `Options`.  It
checks what a constructor is given against the names and the types of the fields, so that their
`__post_init__` looks at ranges alone.

The settings of a run are checked by the same functions.  Each says what is wrong as
`where: name: expected what, got value`; where the name says it all, `where` is empty.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from dualnet.errors import UsageError
from dualnet.naming import did_you_mean

__all__ = [
    "Options",
    "is_int",
    "is_number",
    "kinds_of",
    "make_tuples",
    "of_kind",
    "require_choice",
    "require_count",
    "require_depth",
    "require_share",
]

MOST_LAYERS = 10_000
"""How many layers, or blocks of them, a model has at most."""

_Made = TypeVar("_Made", bound="Options")
Known = TypeVar("Known")


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
        signature = _signature(cls)
        if signature is not None:
            by_place, by_name, kinds = signature
            if len(given) > len(by_place):
                raise _too_many(cls, given, by_place, by_name)
            for name, value in (*zip(by_place, given, strict=False), *named.items()):
                if name not in by_name:
                    has = f"it has {', '.join(by_name)}" if by_name else "it has none"
                    raise UsageError(f"{cls.__name__}: no option {name}; {has}{cls._hint}")
                of_kind(cls.__name__, name, value, kinds[name])
        return super().__new__(cls)


def make_tuples(made: Options, *names: str) -> None:
    """Turn lists that were given for some fields into tuples, which can be hashed and compared."""
    for name in names:
        value = getattr(made, name)
        if isinstance(value, list):
            sides = (tuple(side) if isinstance(side, list) else side for side in value)
            object.__setattr__(made, name, tuple(sides))


def of_kind(where: str, name: str, value: Any, kind: str) -> Any:
    """Return a value as its kind has it: a float for an int, a tuple for a list.

    Args:
        where: whose option it is, for the message.
        name: of the option.
        value: what was given for it.
        kind: the type as `kinds_of` writes it, such as `int | None`.  To Python a bool is an int,
            too; here it is none.  Values of types that are not in `_KINDS` are not checked.

    Raises:
        UsageError: the value is of another kind.
    """
    kinds = [_KINDS.get(part) for part in kind.split(" | ")]
    if None in kinds:
        return value
    for _, fits, made in filter(None, kinds):
        if fits(value):
            return made(value)
    if is_int(value) and not _fits_into_64_bits(value):
        _refuse(where, name, "an int of no more than 64 bits", value)
    _refuse(where, name, " or ".join(words for words, _, _ in filter(None, kinds)), value)


def require_count(where: str, name: str, value: object) -> None:
    """Raise a UsageError unless a value is an int of at least 1."""
    if not is_int(value) or value < 1:  # type: ignore[operator]
        _refuse(where, name, "an int of at least 1", value)


def require_depth(where: str, name: str, value: int) -> None:
    """Raise a UsageError if a model is to have more layers than can be made in minutes."""
    if value > MOST_LAYERS:
        _refuse(where, name, f"at most {MOST_LAYERS}", value)


def require_choice(where: str, name: str, value: object, choices: Iterable[str]) -> None:
    """Raise a UsageError unless a value is one of the choices; similar ones are suggested."""
    choices = tuple(choices)
    if value not in choices:
        expected = f"one of {', '.join(choices)}"
        _refuse(where, name, expected, value, did_you_mean(value, choices))


def require_share(where: str, name: str, value: float) -> None:
    """Raise a UsageError unless a number is from 0 to 1."""
    if not 0 <= value <= 1:
        _refuse(where, name, "a number from 0 to 1", value)


def is_int(value: object) -> bool:
    """Whether a value is an int of Python's or NumPy's, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python or NumPy, of a size for floats, and no bool."""
    if isinstance(value, bool) or (is_int(value) and not _fits_into_64_bits(value)):
        return False
    return isinstance(value, Real)


def is_text(value: object) -> bool:
    """Whether a value is a string that may name a file: not with NUL, nor with half a character."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_usual_int(value: object) -> bool:
    return is_int(value) and _fits_into_64_bits(value)


def _fits_into_64_bits(value: Any) -> bool:
    return -(2**63) <= value < 2**63


def _are(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return whether a value is a list or a tuple, each of whose items fits."""
    return lambda value: isinstance(value, (list, tuple)) and all(map(fits, value))


def _is(cls: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, cls)


def _same(value: Any) -> Any:
    return value


_KINDS: dict[str, tuple[str, Callable[[object], bool], Callable[[Any], Any]]] = {
    "bool": ("True or False", _is(bool), _same),
    "int": ("an int", _is_usual_int, int),
    "float": ("a number", is_number, float),
    "str": ("a string", is_text, _same),
    "None": ("None", _is(types.NoneType), _same),
    "tuple[float, ...]": ("a list of numbers", _are(is_number), lambda x: tuple(map(float, x))),
    "list[int]": ("a list of ints", _are(_is_usual_int), lambda x: list(map(int, x))),
    "list[str]": ("a list of strings", _are(is_text), list),
    "dict[str, Any]": ("a dict", _is(dict), _same),
}
"""A type as it is written → what a message calls it, whether a value is of it, and the value as it
is kept."""


def _once_a_class(function: Callable[[type], Known]) -> Callable[[type], Known]:
    """Keep what a function returns for a class, as long as there is the class (a decorator)."""
    known: WeakKeyDictionary[type, Known] = WeakKeyDictionary()

    @functools.wraps(function)
    def call(cls: type) -> Known:
        if cls not in known:
            known[cls] = function(cls)
        return known[cls]

    return call


def kinds_of(cls: type) -> Mapping[str, str]:
    """Return what each field of a dataclass holds, as `int | None` of `Optional[int]`.

    It does not matter whether the module of the class postpones the evaluation of annotations.

    Raises:
        UsageError: the class is no dataclass, or has fields that it does not know of as such.
    """
    decorated = "__dataclass_fields__" in getattr(cls, "__dict__", ())
    if not dataclasses.is_dataclass(cls) or (not decorated and inspect.get_annotations(cls)):
        name = getattr(cls, "__name__", repr(cls))
        raise UsageError(f"{name}: expected a dataclass; write @dataclass(frozen=True) before it")
    return _kinds_of_fields(cls)


@_once_a_class  # Types that are postponed are compiled anew each time, and flags ask for all.
def _kinds_of_fields(cls: type) -> Mapping[str, str]:
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # A name may be imported for type checkers alone.
        hints = {}
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    kinds = {f.name: _written(hints.get(f.name, f.type)) for f in fields if f.init}
    return types.MappingProxyType(kinds)


def _written(kind: Any) -> str:
    """Return a type as it is written in an annotation."""
    if kind in (None, types.NoneType):
        return "None"
    if kind is Any:
        return "Any"  # which is no class to Python 3.10
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join(sorted(map(_written, arguments), key=lambda one: one == "None"))
    if arguments and isinstance(outer := typing.get_origin(kind), type):
        inner = ("..." if one is ... else _written(one) for one in arguments)
        return f"{outer.__name__}[{', '.join(inner)}]"
    return kind.__name__ if isinstance(kind, type) else str(kind)


@_once_a_class
def _signature(cls: type) -> tuple[list[str], list[str], Mapping[str, str]] | None:
    """Return the names that a class takes by their place, all names, and their types as written.

    None stands for a constructor that takes any.
    """
    _, *parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    by_place = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    kinds = {**{p.name: "" for p in parameters}, **_kinds_of_fields(cls)}
    return by_place, [p.name for p in parameters], kinds


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


def _refuse(where: str, name: str, expected: str, value: object, hint: str = "") -> NoReturn:
    at = "".join(f"{part}: " for part in (where, name) if part)
    raise UsageError(f"{at}expected {expected}, got {_short(value)}{hint}")


def _short(value: Any) -> str:
    """Return a value for a message, in one line."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # Python writes no int of more than some thousand digits
        text = f"{type(value).__name__}(...)"
    return text if "\n" not in text else f"{type(value).__name__}(...)"
