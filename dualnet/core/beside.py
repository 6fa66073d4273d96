"""Arrays made beside others: constants of a rule live where the rule's arguments do.

On a device, an array of the host's meeting one of the device's is an error, and a copy from the
host makes the host wait; so what a rule needs of indices it makes in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core.dual import primal_of


def arange(n: int, x: Any) -> Any:
    """The integers 0 … n-1 as an array of x's kind; x may be a Dual or a NumPy scalar."""
    x = primal_of(x)
    return np.arange(n, like=x) if hasattr(x, "__array_function__") else np.arange(n)


def beside(constant: Any, x: Any) -> Any:
    """A constant array of the host's as one of x's kind; itself where they are of one kind."""
    x = primal_of(x)
    return np.asarray(constant, like=x) if hasattr(x, "__array_function__") else constant


def as_array(x: Any) -> Any:
    """x, or the array of one entry and no axes that a NumPy scalar stands for."""
    return np.asarray(x) if isinstance(x, np.generic) else x
