"""Reverse mode where slopes are infinite or NaN: what no cotangent reaches stays zero.

Forward mode sends each direction along the paths that it takes.  So a function of two results, of
which one has an infinite slope, has a finite row for the other.  Reverse mode sends zeros along all
other paths, and 0 · inf is NaN.  `ReachingCotangent` remembers which entries a given cotangent
reaches at all, and keeps the others at zero whatever they are multiplied by.  It takes twice the
work, so it is used only after the plain way has given NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dual import Dual, primal_of
from dualnet.core.linear import LinearMap, StructuredTangent
from dualnet.core.symbolic import Symbolic, transpose_all
from dualnet.core.tables import equal_values, kinks, linear_maps
from dualnet.types import Array, Cotangent, Stack

_MOVES = {
    *(linear.broadcast_to, linear.sum, linear.reshape, linear.transpose),
    *(linear_maps.index, linear_maps.place, linear_maps.gather, linear_maps.scatter_add),
    *(linear_maps.cumsum, linear_maps.select),
}
"""Maps that move and add entries."""
_FACTORS = {linear.scale, linear.divide, equal_values.scale_nonzero}
"""Maps that multiply each entry by a number of its own."""
_PRODUCTS = {linear.matmul, linear.matmul_from_left, linear_maps.contract}
"""Maps that multiply entries by numbers and add up."""
_OF_STACKS = {linear_maps.solve, equal_values.share_back}
"""Maps of the matrices of a stack, each by itself."""


class ReachingCotangent(StructuredTangent):
    """A stack of cotangents, and which of its entries the given cotangents reach.

    Args:
        values: array `(k, *S)`, zero where `reached` is False.
        reached: boolean array `(k, *S)`.
    """

    def __init__(self, values: Stack, reached: np.ndarray):
        self.values = values
        self.reached = reached
        self.k = values.shape[0]
        self.shape = values.shape[1:]
        self.dtype = values.dtype

    def dense(self) -> Stack:
        """Return the stack `(k, *S)`."""
        return self.values

    def add(self, other: ReachingCotangent) -> ReachingCotangent:
        return ReachingCotangent(self.values + other.values, self.reached | other.reached)

    def apply_map(self, linear_map: LinearMap, params: tuple) -> ReachingCotangent:
        image = linear_map(self.values, *params)
        if linear_map is linear.cast:
            return ReachingCotangent(image, self.reached)
        if linear_map in _MOVES:
            return ReachingCotangent(image, self._paths(linear_map, params))
        if linear_map in _FACTORS:
            reached = self._paths(linear_map, _with_factors(params, np.ones_like))
            return ReachingCotangent(np.where(reached, image, 0), reached)
        if linear_map in _PRODUCTS:
            reached = self._paths(linear_map, _with_factors(params, np.ones_like))
            wild = self._paths(linear_map, _with_factors(params, lambda c: ~np.isfinite(c)))
            tame = linear_map(self.values, *_with_factors(params, _finite_part, keep=True))
            return ReachingCotangent(np.where(wild, image, tame), reached)
        if linear_map in _OF_STACKS:
            matrices = np.any(self.reached, axis=(-2, -1), keepdims=True)
            reached = np.broadcast_to(matrices, image.shape)
            return ReachingCotangent(np.where(reached, image, 0), reached)
        if linear_map is kinks.nan_back:
            left = np.logical_and(params[0], self.reached)
            return ReachingCotangent(linear_map(self.values, left), np.any(left, axis=1))
        rows = np.any(self.reached, axis=tuple(range(1, self.reached.ndim)))
        rows = np.reshape(rows, (self.k, *(1,) * (image.ndim - 1)))
        return ReachingCotangent(np.where(rows, image, 0), np.broadcast_to(rows, image.shape))

    def _paths(self, linear_map: LinearMap, params: tuple) -> np.ndarray:
        """Find the entries of the image to which a path leads from a reached entry."""
        return np.not_equal(linear_map(self.reached.astype(np.float64), *params), 0)


def transpose_along_paths(
    outputs: Sequence[Symbolic | None],
    cotangents: Sequence[Stack | None],
    inputs: Sequence[Symbolic],
) -> list[Cotangent | None]:
    """Do what `symbolic.transpose_all` does, and keep zeros where no cotangent reaches.

    Raises:
        TypeError: a map's transpose does what only arrays know.
    """
    reaching = [
        None if ct is None else ReachingCotangent(ct, np.not_equal(primal_of(ct), 0))
        for ct in cotangents
    ]
    sums = transpose_all(outputs, reaching, inputs)
    return [None if total is None else total.dense() for total in sums]


def has_nan(x: Array) -> bool:
    """Tell whether an array of the host, or a Dual's primal or tangent, has NaN somewhere.

    An array of a device is not looked at, because the host would have to wait for it.
    """
    if isinstance(x, Dual):
        return has_nan(x.primal) or has_nan(x.tangent)
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fc":
        return False
    # NaN is the largest of what it is among, and one number is quicker to ask than a mask to fill
    return bool(np.isnan(np.maximum.reduce(x, axis=None, initial=-np.inf)))


def _with_factors(params: tuple, change: Callable, keep: bool = False) -> tuple:
    """Replace the numbers and arrays among a map's params by what `change` makes of them.

    Args:
        params: the params.
        change: a function of an array.
        keep: whether duals stay duals; otherwise their primals are meant.
    """
    return tuple(change(p if keep else primal_of(p)) if _is_factor(p) else p for p in params)


def _is_factor(param: Any) -> bool:
    kind = getattr(getattr(param, "dtype", None), "kind", " ")
    return isinstance(param, (int, float)) or kind in "fiub"


def _finite_part(c: Array) -> Array:
    return np.where(np.isfinite(c), c, 0)
