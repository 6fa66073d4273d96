"""What every optimizer shares: from a rule for one array to an update of a tree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends.overridable import dispatch_kernel
from dualnet.errors import TreeError, UsageError

Array = Any
"""A NumPy or CuPy array: the rules use only functions that NumPy dispatches to its owner."""

_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "momentum": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    "beta1": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    "beta2": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    # With 0, an entry whose gradients were all zero would become 0 / 0.
    "epsilon": ("above 0 and finite", lambda x: 0.0 < x < math.inf),
    "trust": ("above 0 and finite", lambda x: 0.0 < x < math.inf),
    "weight_decay": ("at least 0 and finite", lambda x: 0.0 <= x < math.inf),
    "lr": ("at least 0 and finite", lambda x: 0.0 <= x < math.inf),
}


@dataclass(frozen=True)
class Optimizer:
    """An update rule for one array, lifted to trees of arrays.

    A family is a frozen dataclass that derives from this class, sets `state_names`, writes
    `update_leaf`, and overrides `init_leaf` if its state does not start at zero.  Fields with
    the names used in this module are made Python floats and checked here; a family with
    other fields checks those in a `__post_init__` of its own.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    """The arrays that the rule remembers for each parameter."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in _RANGES:
                value = _checked(type(self).__name__, field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    def init(self, params: tree.Tree) -> dict[str, Any]:
        """Make the state that precedes the first update.

        Args:
            params: tree of floating-point arrays.

        Returns:
            `{"step": 0, name: tree like params, ...}` for every name in `state_names`; the
            step is a 0-d int64 NumPy array on the host, whatever library holds the rest.

        Raises:
            UsageError: if a leaf is not a floating-point array.
        """
        return _state(0, self.memories(params))

    def memories(self, params: tree.Tree) -> dict[str, tree.Tree]:
        """What `init` makes without the count, for a caller that counts and uses `apply`."""
        where = f"{type(self).__name__}.init"
        columns: dict[str, list[Array]] = {name: [] for name in self.state_names}
        for path, p in tree.items(params):
            _check_parameter(where, path, p)
            fresh = self.init_leaf(p)
            for name in self.state_names:
                columns[name].append(fresh[name])
        return _by_name(params, columns)

    def update(
        self, grads: tree.Tree, state: dict[str, Any], params: tree.Tree, lr: float
    ) -> tuple[tree.Tree, dict[str, Any]]:
        """Make one update, leaving everything passed in as it was.

        Args:
            grads: tree like `params`, every leaf of the shape and dtype of its parameter.
            state: as `init` or the last `update` returned it.
            params: tree of floating-point arrays.
            lr: learning rate of this update, at least 0.

        Returns:
            The new parameters and the new state, in new arrays of the same dtypes.

        Raises:
            TreeError: if `grads` or `state` is built differently from `params`; names the
                place and shows both sides.
            UsageError: if a leaf has another shape or dtype than its parameter, if the
                parameter is not a floating-point array, or if `lr` is out of range.
        """
        where = f"{type(self).__name__}.update"
        rate = _checked(where, "lr", lr)
        if not isinstance(state, dict) or state.keys() != {"step", *self.state_names}:
            got = f"the keys {list(state)}" if isinstance(state, dict) else tree.describe(state)
            raise TreeError(
                f"{where}: state: expected the keys {['step', *self.state_names]}, got {got}; "
                f"make one with {type(self).__name__}().init(params)"
            )
        memories = {name: state[name] for name in self.state_names}
        step = int(state["step"]) + 1
        new_params, memories = self.apply(grads, memories, params, rate, step)
        return new_params, _state(step, memories)

    def apply(
        self,
        grads: tree.Tree,
        memories: dict[str, tree.Tree],
        params: tree.Tree,
        lr: float,
        step: int,
    ) -> tuple[tree.Tree, dict[str, tree.Tree]]:
        """The update alone: the caller counts, and sees to it that lr is at least 0.

        Args:
            grads: tree like `params`.
            memories: for every name in `state_names`, a tree like `params`.
            params: tree of floating-point arrays.
            lr: learning rate.
            step: the number of this update, from 1.

        Returns:
            The new parameters and the new memories.

        Raises:
            TreeError, UsageError: as `update`, but for lr.
        """
        _check_alike(f"{type(self).__name__}.update", params, {"gradient": grads, **memories})
        columns: dict[str, list[Array]] = {name: [] for name in self.state_names}

        def update_one(p: Array, g: Array, *memory: Array) -> Array:
            old = dict(zip(self.state_names, memory, strict=True))
            new_p, new = dispatch_kernel(type(self).update_leaf, self, g, old, p, lr, step)
            for name in self.state_names:
                columns[name].append(new[name])
            return new_p

        new_params = tree.map(update_one, params, grads, *memories.values())
        return new_params, _by_name(params, columns)

    def init_leaf(self, p: Array) -> dict[str, Array]:
        """The state of one parameter before the first update: zeros of its shape and dtype."""
        return {name: np.zeros_like(p) for name in self.state_names}

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        """Update one array by the family's rule, changing no argument in place.

        Args:
            g: gradient, of the shape and dtype of `p`.
            s: state by name (`state_names`), each of the shape and dtype of `p`.
            p: parameter, floating-point.
            lr: learning rate.
            step: the number of this update, from 1.

        Returns:
            The new parameter and its new state by name.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update_leaf")


def scaled(x: Array, factor: float) -> Array:
    # A new array.  `x * factor` would turn a 0-d array into a scalar, which has no `out=`.
    return np.multiply(x, factor, out=np.empty_like(x))


def plus_decay(g: Array, weight_decay: float, p: Array) -> Array:
    decayed = scaled(p, weight_decay)
    decayed += g
    return decayed


def _by_name(params: tree.Tree, columns: dict[str, list[Array]]) -> dict[str, tree.Tree]:
    return {name: tree.unflatten(params, column) for name, column in columns.items()}


def _state(step: int, memories: dict[str, tree.Tree]) -> dict[str, Any]:
    return {"step": np.array(step, dtype=np.int64), **memories}


def _checked(where: str, name: str, value: Any) -> float:
    requirement, fits = _RANGES[name]
    try:
        number = float(value)  # NumPy's float64 scalars widen float32 arrays, this does not.
    except (TypeError, ValueError):
        number = math.nan
    if not fits(number):
        raise UsageError(f"{where}: expected {name} {requirement}, got {value!r}")
    return number


def _check_parameter(where: str, path: str, p: Any) -> None:
    if not hasattr(p, "shape") or not hasattr(p, "dtype") or p.dtype.kind != "f":
        raise UsageError(
            f"{where}: parameter {path or 'at the root'}: expected a floating-point array, got "
            f"{tree.describe(p)}; keep what is not trained out of the parameters"
        )


def _check_alike(where: str, params: tree.Tree, others: dict[str, tree.Tree]) -> None:
    def check(path: str, p: Array, *leaves: Any) -> None:
        _check_parameter(where, path, p)
        for what, leaf in zip(others, leaves, strict=True):
            if getattr(leaf, "shape", None) != p.shape or getattr(leaf, "dtype", None) != p.dtype:
                raise UsageError(
                    f"{where}: {what} of {path or 'the root'}: expected {tree.describe(p)}, as "
                    f"its parameter, got {tree.describe(leaf)}; convert it before the update"
                )

    try:
        tree.map_with_path(check, params, *others.values())
    except TreeError:
        # One walk over all trees is quicker; only now does it matter which of them differs.
        for what, other in others.items():
            try:
                tree.map(lambda *_: None, params, other)
            except TreeError as error:
                raise TreeError(
                    f"{where}: {what}: {error}; give one array for every parameter"
                ) from None
        raise
