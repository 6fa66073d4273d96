"""Functions without a slope: their results do not move with small changes of their arguments.

Nothing is to be verified about a derivative that is nowhere; that their results carry no
tangent is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dualnet.check.table import named

ZERO: dict[Callable, Callable] = {
    **{
        fn: named(fn)
        for fn in (
            *(np.sign, np.floor, np.ceil, np.trunc, np.rint, np.round, np.around, np.isnan),
            *(
                np.isfinite,
                np.isinf,
                np.signbit,
                np.logical_not,
                np.argmax,
                np.argmin,
                np.argsort,
                np.nonzero,
            ),
            *(np.count_nonzero, np.any, np.all, np.shape, np.ndim, np.size, np.result_type),
            *(
                np.zeros_like,
                np.ones_like,
                np.iscomplexobj,
                np.imag,
                np.angle,
                np.iscomplex,
                np.spacing,
            ),
        )
    },
    np.empty_like: lambda xp, x: xp.empty_like(x).shape,
    **{
        fn: lambda xp, x, fn=fn: fn(x, 0.5)
        for fn in (
            *(np.floor_divide, np.equal, np.not_equal, np.less, np.less_equal),
            *(np.greater, np.greater_equal, np.logical_and, np.logical_or, np.logical_xor),
            *(np.isclose, np.allclose, np.array_equal),
        )
    },
    np.linalg.matrix_rank: lambda xp, x: xp.linalg.matrix_rank(x),
    **{fn: named(fn) for fn in (np.nanargmax, np.nanargmin, np.flatnonzero, np.argwhere)},
    np.isreal: named(np.isreal),
    **{fn: named(fn) for fn in (np.array2string, np.array_repr, np.array_str, np.fix)},
    np.lexsort: lambda xp, x: xp.lexsort(x),
    np.einsum_path: lambda xp, x: np.einsum_path("ij,kj", x, x)[0],
    np.argpartition: lambda xp, x: xp.argpartition(x, 1),
    np.digitize: lambda xp, x: xp.digitize(x, np.array([-1.0, 0.5])),
    np.array_equiv: lambda xp, x: np.array_equiv(x, 0.5),
    np.isin: lambda xp, x: xp.isin(x, np.array([0.5, 1.05])),
    np.searchsorted: lambda xp, x: xp.searchsorted(xp.sort(x.ravel()), x),
}
"""function → a way to call it, `f(xp, x)`, whose result is plain."""

ZERO_METHODS = {
    "all": lambda x: x.all(),
    "any": lambda x: x.any(axis=0),
    "argmax": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(axis=1),
    "argsort": lambda x: x.argsort(),
    "nonzero": lambda x: x.nonzero(),
    "imag": lambda x: x.imag,
    "itemsize": lambda x: x.itemsize,
    "nbytes": lambda x: x.nbytes,
    "searchsorted": lambda x: np.sort(x.ravel()).searchsorted(x[0]),
    "numbers": lambda x: (
        round(x[0, 0]),
        math.floor(x[0, 0]),
        math.ceil(x[0, 0]),
        math.trunc(x[0, 0]),
    ),
    "format": lambda x: float(f"{x[0, 0]:.3f}"),
    "round": lambda x: x.round(),
    "==": lambda x: x == 0.5,
    "!=": lambda x: x != x,
    "<": lambda x: 0.5 < x,
    "<=": lambda x: x <= 0.5,
    ">": lambda x: x > x,
    ">=": lambda x: 0.5 >= x,
    "//": lambda x: (x // 0.5, 2 // x),
    "shape": lambda x: (x.shape, x.ndim, x.size, len(x), str(x.dtype)),
}
"""method or operator → a way to use it, whose result is plain."""
