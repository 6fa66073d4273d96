"""Updates of arrays at an index: what `x[key] = value` and `x[key] += value` are for duals.

A Dual can be written to in place, but a plain array cannot hold duals.  So both functions return
the changed array, which is a Dual where the values are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core import dual
from dualnet.core.arrays import as_array, asarray_like, pad_zeros, scatter_add_zeros
from dualnet.core.dual import Dual, astype, primal_of
from dualnet.core.tables.indexing import is_basic
from dualnet.core.tables.shaping import positions_of
from dualnet.numpy.lists import stacked
from dualnet.numpy.making import asarray
from dualnet.types import Array


def put_at(x: Any, key: Any, value: Any) -> Array:
    """Return x with `value` at an index, which is what x is after `x[key] = value`.

    Write `x = put_at(x, i, f(x[i - 1]))` where a loop fills a buffer.

    Args:
        x: array, or what `asarray` makes one of; its dtype is that of the result.
        key: every kind of index that NumPy knows.  Where it names an entry more than once, the last
            value counts.
        value: array that broadcasts to the shape of `x[key]`.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: the value would be cut, as floats are in an array of integers.
        ValueError: the value does not broadcast to the shape of `x[key]`.
        IndexError: x has no such entry.

    Examples:
        >>> def powers(x):
        ...     buffer = np.ones(4)
        ...     for i in range(1, 4):
        ...         buffer = dn.numpy.put_at(buffer, i, buffer[i - 1] * x)
        ...     return buffer
        >>> dn.jvp(powers, (2.0,), (1.0,))[1].tolist()  # the slopes of 1, x, x², x³
        [0.0, 1.0, 4.0, 12.0]
    """
    return dual.put_at(*_array_and_value("put_at", x, key, value))


def add_at(x: Any, key: Any, value: Any) -> Array:
    """Return x with `value` added at an index; where entries are named repeatedly, all are added.

    This is what x is after `np.add.at(x, key, value)`, up to rounding, and after `x[key] += value`
    where no entry is named twice.

    Args:
        x: array, or what `asarray` makes one of; its dtype is that of the result.
        key: every kind of index that NumPy knows.
        value: array that broadcasts to the shape of `x[key]`.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError, ValueError, IndexError: as for `put_at`.

    Examples:
        >>> dn.numpy.add_at(np.zeros(3), [0, 0, 2], np.array([1.0, 10.0, 100.0])).tolist()
        [11.0, 0.0, 100.0]
    """
    x, _, value = _array_and_value("add_at", x, key, value)
    if is_basic(_as_tuple(key)):
        return x + pad_zeros(value, _as_tuple(key), x.shape)
    positions = as_array(positions_of(primal_of(x))[key])
    return x + scatter_add_zeros(value[None], positions, x.shape)[0]


# --- parts ---------------------------------------------------------------------------------------


def _array_and_value(name: str, x: Any, key: Any, value: Any) -> tuple[Array, Any, Array]:
    """Return x as an array, the key, and the value in the shape of `x[key]` and of x's dtype."""
    x, value = x if hasattr(x, "dtype") else asarray(x), stacked(value)
    if not hasattr(value, "dtype"):
        value = asarray_like(np.asarray(value), x)
    serves = x.dtype.kind == "f" or not isinstance(value, Dual)
    if not serves or not np.can_cast(value.dtype, x.dtype, "same_kind"):
        raise TypeError(
            f"{name}: expected an array x that can hold {value.dtype}, got {x.dtype}; make the "
            "buffer of floats, as in np.zeros(n), or convert it by astype"
        )
    shape = np.shape(primal_of(x)[key])
    extra = value.ndim - len(shape)
    if extra > 0 and value.shape[:extra] == (1,) * extra:  # NumPy ignores such axes here
        value = np.reshape(value, value.shape[extra:])
    try:
        return x, key, astype(np.broadcast_to(value, shape), x.dtype)
    except ValueError:
        raise ValueError(
            f"{name}: expected a value that broadcasts to x[key], of shape {shape}, got one of "
            f"shape {value.shape}"
        ) from None


def _as_tuple(key: Any) -> tuple:
    return key if isinstance(key, tuple) else (key,)
