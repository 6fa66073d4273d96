"""Watching: which calls of some functions happen while a block runs, without changing these."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any


@dataclass
class Call:
    """A call that was watched.

    Attributes:
        function: which function.
        arguments: by the names of its parameters, without those of `*args` and `**kwargs`.
        result: what it returned.
        inner: the watched calls that happened during this one.
    """

    function: Callable
    arguments: dict[str, Any]
    result: Any = None
    inner: list[Call] = field(default_factory=list)


@contextmanager
def watch(*functions: Callable, noted: Callable[[Any], Any] = lambda x: x) -> Iterator[list[Call]]:
    """List the calls of functions written in Python, in the order in which they begin.

    Python itself tells of every call (`sys.setprofile`), so the functions know nothing of it, and
    cost nothing more where nobody watches.  Another profiler rests meanwhile.

    Args:
        functions: which ones.
        noted: what is kept of the arguments of a call, a dict, and of its result: they may change
            afterwards.
    """
    by_code = {function.__code__: function for function in functions}
    calls: list[Call] = []
    open_calls: list[Call] = []

    def note(frame: FrameType, event: str, result: Any) -> None:
        if frame.f_code not in by_code:
            return
        if event == "call":
            names = inspect.getargs(frame.f_code)
            arguments = {name: frame.f_locals[name] for name in names.args}
            call = Call(by_code[frame.f_code], noted(arguments))
            (open_calls[-1].inner if open_calls else calls).append(call)
            open_calls.append(call)
        elif event == "return" and open_calls:
            open_calls.pop().result = noted(result)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
