"""Timing contenders against one another in one run.

The machines at hand are shared and noisy, so single times say little.  Contenders take turns,
round by round, and the median of each is compared.  A turn is one run that is not counted and one
that is: the first is still disturbed by what the contender before leaves behind (threads that
spin, memory on its way back to the system).  On two cores, a step of 80 ms that directly followed
one of JAX took 280.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def take_turns(contenders: dict[str, Callable], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of each contender.

    Args:
        contenders: functions that do the work once and return when it is done.
        rounds: turns of each that are counted; all have one before any has another.
        warm_up: rounds that are not counted (compilation, first allocations).
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warm_up + rounds):
        for name, work in contenders.items():
            work()
            began = time.perf_counter()
            work()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(s) for name, s in seconds.items()}
