"""What a run has measured of itself, which no checkpoint tells."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from dualnet.options import is_number
from dualnet.training.step_times import profile_in

MEASURED = ("seconds", "seconds_per_step", "peak_memory_bytes", "processes", "bytes_per_step")
"""The numbers of a summary that are measured; beside them it may have `profile`."""

_WARM_UP_STEPS = 5


def seconds_per_step(step_seconds: list[float]) -> float | None:
    """Return the median of all steps but the first five; None if there were no more."""
    after = step_seconds[_WARM_UP_STEPS:]
    return statistics.median(after) if after else None


def measured_in(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements in a summary, but for those that cannot be any."""
    numbers = {name: summary[name] for name in MEASURED if is_number(summary.get(name))}
    return {name: x for name, x in numbers.items() if 0 <= x < np.inf} | profile_in(summary)
