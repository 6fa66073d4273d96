"""NumPy's functions that write into their first argument, which may be a Dual.

What such a function does to an array of numbers is asked of NumPy: it writes the positions of the
values instead of the values.  Then the Dual takes the values at these positions, as it does with
`x[i] = v`.  A plain array cannot hold a tangent, so there the function is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import aliasing, refusals
from dualnet.core.arrays import asarray_like, operand
from dualnet.core.dual import Dual, astype
from dualnet.core.engine import composed
from dualnet.core.tables.shaping import positions_of


def _writes(fn: Callable, position: int) -> None:
    """Register a function that writes; `position` is that of the values among its arguments."""
    names = list(inspect.signature(fn).parameters)

    @composed(fn, anywhere=True)
    def write(x: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(x, Dual):
            raise refusals.missing_rule(fn)
        given = dict(zip(names[1:], args, strict=False)) | kwargs
        name = names[position]
        values = operand(given[name])
        if not hasattr(values, "dtype"):
            values = asarray_like(np.asarray(values), x)
        source = positions_of(x) * 0 - 1
        fn(source, **{**given, name: positions_of(values)})
        written = source >= 0
        chosen = np.take(np.ravel(values), np.where(written, source, 0))
        aliasing.write(x, np.where(written, astype(chosen, x.dtype), x), fn)


WRITES: dict[Callable, int] = {
    np.put: 2,
    np.place: 2,
    np.putmask: 2,
    np.copyto: 1,
    np.fill_diagonal: 1,
    np.put_along_axis: 2,
}
"""Function → the position of the values among its arguments."""

for _fn, _position in WRITES.items():
    _writes(_fn, _position)
