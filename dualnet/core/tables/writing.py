"""NumPy's functions that write into their first argument, which may be a Dual.

What such a function does to an array of numbers is asked of NumPy: it writes the positions of the
values instead of the values.  Then the Dual takes the values at these positions, as it does with
`x[i] = v`.  A plain array cannot hold a tangent, so there the function is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import aliasing, refusals
from dualnet.core.arrays import asarray_like, operand
from dualnet.core.dual import Dual, astype
from dualnet.core.engine import composed
from dualnet.core.tables.shaping import positions_of


def _writes(fn: Callable, names: tuple[str, ...], name: str) -> None:
    """Register a function that writes.

    Args:
        fn: the function.
        names: those of its arguments behind the array that it writes into.
        name: that of the values among them.
    """

    @composed(fn, anywhere=True)
    def write(x: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(x, Dual):
            raise refusals.missing_rule(fn)
        given = dict(zip(names, args, strict=False)) | kwargs
        values = operand(given[name])
        if not hasattr(values, "dtype"):
            values = asarray_like(np.asarray(values), x)
        source = positions_of(x) * 0 - 1
        fn(source, **{**given, name: positions_of(values)})
        if not values.size:
            return  # nothing was written
        written = source >= 0
        chosen = np.take(np.ravel(values), np.where(written, source, 0))
        aliasing.write(x, np.where(written, astype(chosen, x.dtype), x), fn)


WRITES: dict[Callable, tuple[tuple[str, ...], str]] = {
    np.put: (("ind", "v", "mode"), "v"),
    np.place: (("mask", "vals"), "vals"),
    np.putmask: (("mask", "values"), "values"),
    np.copyto: (("src", "casting", "where"), "src"),
    np.fill_diagonal: (("val", "wrap"), "val"),
    np.put_along_axis: (("indices", "values", "axis"), "values"),
}
"""Function → the names of its arguments behind the first, and that of the values.  Before version
2.4, NumPy does not tell the names of all of them."""

for _fn, _of in WRITES.items():
    _writes(_fn, *_of)
