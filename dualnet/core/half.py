"""float16 is too narrow to compute slopes in: squares overflow above 256, counts above 65504.

Rules therefore compute in float32 where the primals are float16, and the engine converts what they
return.  Reverse mode starts in float32, and the transform converts its answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import linear

_SINGLE = np.dtype(np.float32)


def in_single(x: Any) -> Any:
    """Convert a float16 array or tangent to float32; anything else is returned as it is."""
    dtype = getattr(x, "dtype", None)
    return linear.cast(x, _SINGLE) if dtype is not None and dtype.char == "e" else x
