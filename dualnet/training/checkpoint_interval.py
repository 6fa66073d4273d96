"""How often a run writes a checkpoint within an epoch: every so many steps, or minutes."""

from __future__ import annotations

import math
import re
import time

from dualnet.errors import UsageError
from dualnet.naming import assigned

USUAL_INTERVAL = "5m"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
"""Unit of time → its seconds."""


class CheckpointInterval:
    """It says after each step whether a checkpoint is due.

    Args:
        every: a number of steps, as `100`, or a time with its unit, as `30s`, `5m` or `1.5h`.

    Raises:
        UsageError: it is neither.
    """

    def __init__(self, every: str):
        found = re.fullmatch(r"(\d{1,15})|(\d{1,9}(?:\.\d{1,9})?)([smh])", every, re.ASCII)
        if found is None or not float(found[1] or found[2]):
            raise UsageError(
                f"{assigned('checkpoint_every', every)}: expected a number of steps from 1 up, or "
                "a time such as 30s, 5m or 1h"
            )
        steps, time_, unit = found.groups()
        self._steps = int(steps) if steps else math.inf
        self._seconds = float(time_) * _SECONDS[unit] if time_ else math.inf
        self.begin()

    def begin(self) -> None:
        """Count from now on, after a checkpoint."""
        self._made, self._began = 0, time.monotonic()

    def is_due(self) -> bool:
        """Count a step, and return whether a checkpoint is due after it."""
        self._made += 1
        return self._made >= self._steps or time.monotonic() - self._began >= self._seconds
