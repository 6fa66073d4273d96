"""NumPy's namespace, for programs that are differentiated: `import dualnet.numpy as np`.

A Dual is served by plain `import numpy as np` wherever NumPy asks its arguments what a function
means to them (its two protocols).  NumPy asks arrays alone, and not in three places, which are what
this package is for:

* **Lists.** `np.mean([loss(x), loss(y)])` shows NumPy a list, so nobody is asked.  Here every
  function of the namespace stacks a list, or nested lists, that holds a Dual before it calls
  NumPy's function, and puts a Dual by keyword into its position (`lists.py`).
* **Functions that make arrays.** `np.array`, `np.full`, `np.arange`, `np.r_`, `np.vectorize` and a
  few more ask nobody; `making.py` has them for Duals, and leaves everything else to NumPy.
* **Writing into arrays.** `buffer[i] = dual` cannot be served, because a plain array holds numbers
  alone.  `put_at(buffer, i, dual)` and `add_at` return the changed array (`updates.py`).

Everything else is NumPy's own: constants, dtypes, classes and submodules are the same objects, and
a function is NumPy's behind the check for lists.  Its attributes are there too (`np.add.reduce`).
`dualnet.numpy.linalg`, `.fft` and `.random` are modules made in the same way.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy

from dualnet.numpy.lists import passed
from dualnet.numpy.making import (
    arange,
    array,
    asanyarray,
    asarray,
    ascontiguousarray,
    asfortranarray,
    block,
    c_,
    fromiter,
    full,
    full_like,
    isscalar,
    iterable,
    ndenumerate,
    r_,
    require,
    row_stack,
    vectorize,
)
from dualnet.numpy.updates import add_at, put_at

__all__ = [
    "add_at",
    "arange",
    "array",
    "asanyarray",
    "asarray",
    "ascontiguousarray",
    "asfortranarray",
    "block",
    "c_",
    "fromiter",
    "full",
    "full_like",
    "isscalar",
    "iterable",
    "ndenumerate",
    "put_at",
    "r_",
    "require",
    "row_stack",
    "vectorize",
]  # what does not come from NumPy's module as it is
__all__ += numpy.__all__


def __getattr__(name: str) -> Any:
    """Find a name of NumPy's module, when it is asked for the first time."""
    if name in ("fft", "linalg", "random"):
        return importlib.import_module(f"dualnet.numpy.{name}")
    return globals().setdefault(name, passed(numpy, name))


def __dir__() -> list[str]:
    return sorted({*dir(numpy), *__all__})
