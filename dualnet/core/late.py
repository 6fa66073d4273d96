"""Rules for functions of packages that dualnet does not import.

Such a function arrives only where the user has imported its package.  Its rules are registered
then, when the first function without a rule is met.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType

WAITING: dict[str, Callable[[ModuleType], None]] = {}
"""By a module's name, the function that registers the rules of the functions in that module."""

_lock = threading.Lock()


def register_waiting() -> None:
    """Register the rules for all modules that have been imported by now."""
    with _lock:
        for name in [name for name in WAITING if name in sys.modules]:
            WAITING[name](sys.modules[name])
            del WAITING[name]
