"""Rules for functions of packages that dualnet does not import.

Such a function arrives only where the user has imported its package.  Its rules are registered
then, when the first function without a rule is met.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module

WAITING = {"scipy.special": "dualnet.special"}
"""By a module's name, ours that has `register(module)`, which gives its functions their rules."""

_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a fork waits for other threads: the child could not
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def register_waiting() -> None:
    """Register the rules for all modules that have been imported by now."""
    with _lock:
        for name in [name for name in WAITING if name in sys.modules]:
            import_module(WAITING[name]).register(sys.modules[name])
            del WAITING[name]
