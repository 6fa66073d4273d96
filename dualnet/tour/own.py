"""The reader's own function: where it is, and the arguments at which it is looked at."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import DualnetError, UsageError
from dualnet.learning import Batch, Task
from dualnet.naming import did_you_mean, shortened
from dualnet.nn import Context, Layer
from dualnet.random import Key
from dualnet.tour.subject import Learning, Subject, moves
from dualnet.training.own_files import run_file
from dualnet.tree import Tree
from dualnet.types import Array, Shape

_EXAMPLE = '--at "[0.5, 1.0]"'


@contextmanager
def blamed(on: str) -> Iterator[None]:
    """Let every error that arises in the reader's code be a UsageError that begins with a text."""
    try:
        yield
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, DualnetError) else f"{type(error).__name__}: "
        raise UsageError(f"{on}{_line(error)}{kind}{error}".rstrip(": ")) from error


def _line(error: BaseException) -> str:
    """Say at which line of the reader's code an error arose; nothing if it was in none."""
    where, trace = "", error.__traceback__
    others = {Path(__file__).parent.parent, Path(os.__file__).parent}
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        of_others = others & set(file.parents) or "site-packages" in file.parts
        if file.is_file() and not of_others:
            where = f"line {trace.tb_lineno} of {file.name}: "
        trace = trace.tb_next
    return where


def _guarded(function: Callable) -> Callable:
    """Make the reader's function one whose errors are ours; mistakes of the tour stay as they
    are."""

    @functools.wraps(function)
    def guarded(*args: Any) -> Any:
        with blamed(""):
            return function(*args)

    return guarded


def load(text: str) -> Callable:
    """Return the function that `MODULE:function` or `FILE.py:function` names.

    Raises:
        UsageError: there is none.
    """
    where, colon, name = text.rpartition(":")
    if not colon or not where or not name:
        raise UsageError(
            f"FUNCTION: expected MODULE:function or FILE.py:function, got {shortened(text, 60)!r}"
        )
    of_file = where.endswith(".py")
    folder = Path(where).parent if of_file else Path()
    sys.path.insert(0, str(folder.absolute()))  # as Python has it for what it runs itself
    with blamed(f"FUNCTION {where}: "):
        module = _of_file(Path(where)) if of_file else importlib.import_module(where)
    functions = [n for n, x in vars(module).items() if callable(x) and not n.startswith("_")]
    if not callable(getattr(module, name, None)):
        got = f"{name!r}, which is none" if hasattr(module, name) else f"{name!r}"
        raise UsageError(
            f"FUNCTION: expected a function in {where}, got {got}{did_you_mean(name, functions)}"
        )
    return getattr(module, name)


def _of_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise UsageError("expected a Python file, found none")
    return run_file(file, f"dualnet_tour_{file.stem}")


def subject(text: str, at: Sequence[str]) -> Subject:
    """Make the reader's function a subject.

    Args:
        text: where it is.
        at: its arguments by position, as literals; the others have their defaults.

    Raises:
        UsageError: there is no such function, or the arguments do not fit it.
    """
    function = load(text)
    arguments = _arguments(text, function, [_literal(one) for one in at])
    if not any(map(moves, tree.leaves(arguments))):
        raise UsageError(
            f"FUNCTION {text}: expected an argument with a float or an array of floats, which can "
            f"move, got none; write for instance {_EXAMPLE}"
        )
    introduction = f"""Your function {text}. To a learning rule its arguments are parameters, here
        {", ".join(arguments)}, and its value is the loss."""
    return Subject(introduction, (), _guarded(function), arguments, _constants(function))


def _arguments(text: str, function: Callable, given: list[Any]) -> dict[str, Any]:
    """Pair the parameters of a function with what is given for them, or else their defaults."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise UsageError(
            f"FUNCTION {text}: expected a function written in Python, got one whose parameters "
            "are not known; wrap it by def f(x): return ..."
        ) from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(given) > len(named):
        names = ", ".join(p.name for p in named) or "none"
        raise UsageError(
            f"--at: expected at most {len(named)}, one for each argument of {text} ({names}), got "
            f"{len(given)}"
        )
    for p in parameters[len(given) :]:
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise UsageError(
                f"FUNCTION {text}: expected a value for its argument {p.name}, got none; write "
                f"{_EXAMPLE}, once for each argument, or give it a default"
            )
    values = [*given, *(tree.map(_of_default, p.default) for p in named[len(given) :])]
    while len(values) > len(given) and not any(map(moves, tree.leaves(values[-1]))):
        values.pop()  # a default that does not move may be anything
    return {p.name: x for p, x in zip(named, values, strict=False)}


def _of_default(x: Any) -> Any:
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    return np.asarray(x, np.float64) if kind == "f" or type(x) is float else x


def _literal(text: str) -> Any:
    """Read numbers, lists of numbers, or dicts of these; nothing is evaluated.

    Raises:
        UsageError: it is something else.
    """
    got = shortened(repr(text), 60)
    for read in (ast.literal_eval, json.loads):
        try:
            found = read(text.strip())
            break
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    else:
        raise UsageError(
            f"--at: expected a number, a list of numbers or a dict of these, got {got}; write for "
            f"instance {_EXAMPLE}"
        )
    return _with_arrays(found, got)


def _with_arrays(x: Any, got: str) -> Any:
    if isinstance(x, dict) and all(isinstance(name, str) for name in x):
        return {name: _with_arrays(value, got) for name, value in x.items()}
    try:
        array = np.array(x, np.float64)
        if not isinstance(x, (bool, str)) and np.all(np.isfinite(array)):
            return array
    except (ValueError, TypeError, OverflowError):
        pass
    raise UsageError(
        f"--at: expected finite numbers, rows of one length, got {got}; write for instance "
        f"{_EXAMPLE}, or {_EXAMPLE[:5]}\"{{'w': [1.0, 2.0], 'b': 0.5}}\" for a dict"
    )


def _constants(function: Callable) -> dict[str, Array]:
    """Return the arrays that a function finds around it, by their names."""
    try:
        found = inspect.getclosurevars(function)
    except TypeError:
        return {}
    around = {**found.globals, **found.nonlocals}
    return {name: x for name, x in around.items() if isinstance(x, np.ndarray)}


@dataclass(frozen=True)
class _OfParameters(Layer):
    """A layer whose output is a function of its parameters alone."""

    subject: Any

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return self.subject.named(), {}, ()

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return np.reshape(self.subject.value(params), (len(x),)), state


def learning(of: Subject) -> Learning:
    """Let the arguments of a function be the parameters that a rule learns, and its value the loss
    of one example, which nothing depends on."""
    network, example = _OfParameters(of), np.zeros((1, 1))
    task = Task(network, lambda outputs, targets: outputs)
    return Learning(task, of.named(), {}, Batch(example, example), {})
