"""float16 is too narrow to compute slopes in: squares overflow above 256, counts above 65504.

Rules therefore compute in float32 where the primals are float16, and the engine converts what they
return.  Reverse mode starts in float32, and the transform converts its answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dual import astype

_SINGLE = np.dtype(np.float32)


def in_single(x: Any) -> Any:
    """Convert a float16 array or tangent to float32; anything else is returned as it is."""
    dtype = getattr(x, "dtype", None)
    return linear.cast(x, _SINGLE) if dtype is not None and dtype.char == "e" else x


def wide_enough(t: Any, out: Any, *primals: Any) -> tuple:
    """Convert what a rule computes with to a dtype in which its slopes are as precise as `out`.

    The range of float16 is so small that slopes often leave it.  And a rule may take a function of
    one operand alone, as x ** y does of log(x), which of an array of int8 would be float16; so
    operands that are narrower than the result are widened.  Booleans, which are masks, stay.
    """
    if out.dtype.char == "e":
        return tuple(map(in_single, (t, out, *primals)))
    for i, x in enumerate(primals):
        dtype = getattr(x, "dtype", out.dtype)
        if dtype is not out.dtype and dtype.itemsize < out.dtype.itemsize and dtype.kind in "fiu":
            primals = (*primals[:i], astype(x, out.dtype), *primals[i + 1 :])
    return (t, out, *primals)
