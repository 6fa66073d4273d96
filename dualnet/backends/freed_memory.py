"""The process keeps the memory of arrays that were freed, for the arrays of the next step.

A training step makes the same arrays as the step before.  By default the C library gives the memory
of large arrays back to the system each time, and the system hands it out again page by page, filled
with zeros (`python -m benchmarks.host_memory`).
"""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h: from how many free bytes on memory is given back, and from how many
bytes on an array gets pages of its own, which are given back when it is freed."""
_KEPT_BYTES = 1 << 30
_LARGE, _LARGEST_OF_OLD_GLIBC = 64 << 20, 32 << 20
"""Arrays of more bytes, such as data sets, are still given back.  Older versions of glibc take no
larger number than the second one."""


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep the memory of freed arrays, and return whether it does.

    What is free at the end of the process's heap is still given back from 1 GiB on; what lies below
    an array in use is kept for others.  Arrays of more than 64 MiB are given back when freed.
    Where the user has set how memory is handled (MALLOC_… or GLIBC_TUNABLES in the environment),
    and where the C library is not glibc, all stays as it is.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    large = mallopt(_MMAP_THRESHOLD, _LARGE) or mallopt(_MMAP_THRESHOLD, _LARGEST_OF_OLD_GLIBC)
    return bool(large and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
