"""`recorded`: a function of arrays that a device repeats as a whole."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from dualnet import tree
from dualnet.backends.overridable import overridable
from dualnet.errors import UsageError

__all__ = [
    "call_recorded",
    "recorded",
]


def recorded(function: Callable) -> Callable:
    """Return the function in its fastest form for calls again and again with the same shapes.

    On NumPy arrays this is the function itself.  On CuPy arrays, the host needs longer to ask for
    many short kernels than the device to run them.  So the third call with the same shapes records
    all kernels as a CUDA graph, and from then on a call starts the graph as a whole.

    There is a recording for each set of shapes, dtypes and other arguments (numbers, strings, None,
    …), at most eight at a time.  A Python number that is another one in each call prevents
    recordings; make it an array.  Within derivatives of other functions, the function is called
    itself.

    A recording repeats kernels, and nothing of the Python code.  So the function must be pure:

    - It must not look at values of arrays (`if`, `float`, `print`, copies to the host).
    - It must not draw random numbers, unless by arguments; not even from a generator of CuPy's.
    - It must have no effects but its results: it changes no argument and no other array in place,
      and counts and stores nothing.
    - What it reads beside its arguments (closures, globals, attributes) must not change: arrays are
      read where they lay when the function was recorded, and numbers are those of that moment.

    Where such a thing is seen (what CUDA does not record; a first repetition with other results
    than those of a plain call; arguments that were changed), a message on standard error says so,
    and the function is called itself.  What the function changes elsewhere cannot be seen.

    Args:
        function: takes and returns trees of arrays, and other values.  Values that it returns
            beside arrays are None, Python numbers and strings.

    Returns:
        A function of the same arguments.  Its results on a device are new arrays, which later calls
        do not change.  Errors of the function come out of it as they are.

    Raises:
        UsageError: when it is called with CuPy arrays before CuPy's backend was made.

    Examples:
        >>> step = dn.recorded(lambda w, v: dn.jvp(np.sin, (w,), (v,)))
        >>> [float(part) for part in step(np.zeros(()), np.ones(()))]  # sin 0, cos 0
        [0.0, 1.0]
    """
    kept: dict[str, Any] = {}

    @functools.wraps(function)
    def repeated(*args: Any, **kwargs: Any) -> Any:
        return call_recorded(tree.leaves((args, kwargs)), function, args, kwargs, kept)

    return repeated


@overridable
def call_recorded(
    leaves: list[Any], function: Callable, args: tuple, kwargs: dict, kept: dict[str, Any]
) -> Any:
    """Call a function itself; a device repeats a recording of it.

    Args:
        leaves: the leaves of the arguments.
        function: the function.
        args, kwargs: its arguments.
        kept: what a backend keeps of the function from call to call, by the backend's name.
    """
    if any(type(x).__module__.partition(".")[0] == "cupy" for x in leaves):
        raise UsageError(
            "recorded: the arguments are CuPy arrays, but there is no backend for them yet; make "
            'it first, by dualnet.backends.get("cupy")'
        )
    return function(*args, **kwargs)
