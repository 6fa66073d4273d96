"""Two ways in which a derivative can be wrong where differences in float64 are right.

A rule may overflow or widen in a narrow dtype, and a record may refer to arrays that change later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet import tree
from dualnet.checking.comparison import DerivativeError, compare, largest_moving, sizes
from dualnet.core.dual import primal_of
from dualnet.core.transforms import jvp, linearize
from dualnet.tree import Tree
from dualnet.types import Array


def linearized(f: Callable, primals: tuple, v: Tree, step: float) -> Tree:
    """Linearize f, spoil what a careless record would refer to, and only then apply it to v."""
    tangents = [t for t in tree.leaves(v) if t is not None]

    def of_floats(*floats: Array) -> Tree:
        rest = iter(floats)
        pairs = zip(tree.leaves(primals), tree.leaves(v), strict=True)
        return f(*tree.unflatten(primals, [x if t is None else next(rest) for x, t in pairs]))

    pairs = zip(tree.leaves(primals), tree.leaves(v), strict=True)
    copies = [np.array(x, like=x) for x, t in pairs if t is not None]
    _, f_jvp = linearize(of_floats, *copies)
    for x, t in zip(copies, tangents, strict=True):
        x[...] = x + step * t
    of_floats(*copies)
    return f_jvp(*tangents)


def check_own_dtype(
    f: Callable, primals: tuple, directions: Tree, to_host: Callable, rounding: float = 0.0
) -> None:
    """Compare the jvp in the dtype of the primals, where it is narrow, with that in float64.

    The function and its derivative are rounded, so only errors beyond the root of that are found.
    `rounding` is as for `check_jvp`, in units of float64; a narrow dtype rounds by so much more.
    """
    narrow = [x.dtype for x in tree.leaves(primals) if x.dtype.kind == "f" and x.dtype.itemsize < 8]
    if not narrow:
        return
    rounded = tree.map(lambda t, x: t if t is None else t.astype(x.dtype), directions, primals)
    wide = tuple(tree.map(as_float64, p) for p in primals)
    exact = jvp(f, wide, tree.map(lambda t: t if t is None else as_float64(t), rounded))[1]
    name = f"the jvp in {min(narrow, key=lambda d: d.itemsize)}"
    try:
        with np.errstate(over="raise", invalid="raise"):
            plain = f(*primals)
    except FloatingPointError:
        return  # f itself cannot be evaluated there
    try:
        with np.errstate(over="raise", invalid="raise"):
            out, pushed = jvp(f, primals, rounded)
    except FloatingPointError as error:
        raise DerivativeError(
            f"{name}: {error}, where f itself is finite; a rule squares or exponentiates what it "
            "should scale first"
        ) from error
    epsilon = max(float(np.finfo(d).eps) for d in narrow)
    allowed = rounding * epsilon / float(np.finfo(np.float64).eps)
    require_same(f"the primal of {name}", plain, out, to_host, allowed)
    for (path, x), t in zip(tree.items(plain), tree.leaves(pushed), strict=True):
        if np.result_type(x) != t.dtype:
            raise DerivativeError(
                f"{name} at {path or 'the only leaf'} has dtype {t.dtype}, not {np.result_type(x)}"
            )
    slopes, values = sizes(exact, to_host), sizes(plain, to_host)
    of_all = max(largest_moving(values, slopes), *slopes, 0.0)
    scales = [
        # an array may be nothing but the rounding of others, as the mean of what was normalized
        of_all if max(slope, value) <= 100.0 * epsilon * of_all else max(slope, 1e-2 * value)
        for slope, value in zip(slopes, values, strict=True)
    ]
    compare(name, pushed, exact, epsilon**0.5, to_host, scales=scales)


def as_float64(x: Array | float) -> Array:
    """Convert floats of any precision to float64; leave other dtypes as they are."""
    x = np.asarray(x) if isinstance(x, float) else x
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x


def require_same(what: str, a: Tree, b: Tree, to_host: Callable, rounding: float = 0.0) -> None:
    """Raise a DerivativeError unless all leaves are equal and of one dtype.

    They must be equal bit for bit, or up to `rounding`, relative to the largest entry of the leaf
    in `a`.  Entries that are not finite must be the same in any case.
    """
    for (path, x), y in zip(tree.items(a), tree.leaves(b), strict=True):
        x, y = to_host(primal_of(x)), to_host(primal_of(y))
        same = x.dtype == y.dtype and x.shape == y.shape
        if same and rounding and x.dtype.kind == "f":
            scale = float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))
            same = np.allclose(x, y, rtol=0.0, atol=rounding * scale, equal_nan=True)
        elif same:
            same = np.array_equal(x, y, equal_nan=True)
        if not same:
            raise DerivativeError(f"{what} differs from f's own result at {path or 'its result'}")
