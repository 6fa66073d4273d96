"""Arrays joined to one.

NumPy's own functions do, but CuPy's hand the device a list of addresses where there are many small
arrays: a transfer, which a recorded step cannot have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualnet.backends.replaceable import replaceable


def concatenated(arrays: Sequence[Any], axis: int = 0) -> Any:
    """As `np.concatenate`."""
    return _concatenated(axis, *arrays)


def stacked(arrays: Sequence[Any], axis: int = 0) -> Any:
    """As `np.stack`."""
    return _concatenated(axis, *(np.expand_dims(a, axis) for a in arrays))


@replaceable
def _concatenated(axis: int, *arrays: Any) -> Any:
    return np.concatenate(arrays, axis)
