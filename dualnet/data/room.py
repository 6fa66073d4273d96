"""How much memory is left for what a file promises."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where the limit of a container stands, of both versions of control groups."""


def require_room(needed: int) -> None:
    """Raise a MemoryError where so many bytes are more than there is room for.

    Where the system does not say how much is left, as on Windows and macOS, nothing is refused.
    Asking for memory does not tell: Linux promises more than it has, and ends a process later.
    """
    room = _room()
    if room is not None and needed > room:
        raise MemoryError(f"it promises {needed:,} bytes, and memory has room for {room:,}")


def _room() -> int | None:
    """Return how many bytes of memory are left; None if that is not known."""
    known = []
    with suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text()):
            known.append(1024 * int(found[1]))
    return min([*known, *container_limits()], default=None)


def container_limits() -> list[int]:
    """Return how many bytes the container may have in which this process is, if it is in one."""
    limits = []
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # `max` is no number: there is no limit
            limits.append(int(limit.read_text()))
    return limits
