"""Which arrays are the host's own, for which NumPy has quicker ways than the general one."""

from __future__ import annotations

from typing import Any

import numpy as np


def are_of_host(*arrays: Any) -> bool:
    """Tell whether all are arrays of NumPy, of one dtype, float32 or float64.

    Those of a device, of a subclass, or differentiated by an outer transform are not.
    """
    first = arrays[0]
    return (
        type(first) is np.ndarray
        and first.dtype.char in "fd"
        and all(type(x) is np.ndarray and x.dtype == first.dtype for x in arrays[1:])
    )
