"""Freed memory of the host is kept for the next arrays, where the C library can be told to."""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES = 1 << 30
"""How much freed memory the process keeps at most."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of `malloc.h`
_LARGEST_IN_THE_HEAP = 32 << 20  # the library takes no more


def keep_freed_memory() -> bool:
    """Tell the GNU C library to keep freed memory, and return whether it does.

    By itself it returns the memory of an array of some hundred KiB to the system as soon as the
    array is dropped, and the next array gets it anew page by page.  A step of training drops
    hundreds of arrays, and the pages took longer than the arithmetic of Adam
    (`python -m benchmarks.host_memory`).  Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(
        mallopt(_MMAP_THRESHOLD, _LARGEST_IN_THE_HEAP) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    )
