"""Time contenders against one another in one run.

Machines are shared and noisy, so single times say little.  Therefore contenders take turns, round
by round, and their medians are compared.  A turn is two runs, of which the second one counts.  The
first run is still disturbed by what the contender before left behind: threads that spin, memory
that is given back to the system.  On two cores, a step of 80 ms took 280 ms directly after a step
of JAX.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def take_turns(
    contenders: dict[str, Callable], rounds: int, warm_up: int = 1, limit: float | None = None
) -> dict[str, float]:
    """Return the median time of each contender, name → seconds; see `turns`."""
    seconds = turns(contenders, rounds, warm_up, limit)
    return {name: statistics.median(s) for name, s in seconds.items()}


def turns(
    contenders: dict[str, Callable],
    rounds: int,
    warm_up: int = 1,
    limit: float | None = None,
    pause: float = 0.0,
    settle: float = 0.0,
) -> dict[str, list[float]]:
    """Let contenders take turns, and return the times that count of each, name → seconds.

    Args:
        contenders: name → function that does the work once and returns when it is done.
        rounds: how many rounds count.  In a round, each contender has one turn.
        warm_up: how many rounds come first and do not count; in them, functions are compiled and
            memory is first allocated.
        limit: the seconds after which no further round begins if three rounds counted; None for
            no limit.
        pause: the seconds before each turn, in which the threads of others fall asleep.
        settle: for so many seconds a contender works in its turn before the run that counts, as in
            a training, where one step follows another.  On a processor of few cores, threads that
            were asleep have been seen to share one core for the first steps.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    last = dict.fromkeys(contenders, 0.0)
    began_all = time.perf_counter()
    for i in range(warm_up + rounds):
        late = limit is not None and time.perf_counter() - began_all > limit
        if late and i >= warm_up + 3:
            break
        for name, work in contenders.items():
            time.sleep(pause)
            begins = time.perf_counter() + settle
            while time.perf_counter() + last[name] / 2 < begins:
                work()
            began = time.perf_counter()
            work()
            last[name] = time.perf_counter() - began
            if i >= warm_up:
                seconds[name].append(last[name])
    return seconds
