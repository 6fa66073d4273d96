"""What every optimizer shares: it lifts an update rule for one array to trees of arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends.freed_memory import keep_freed_memory
from dualnet.backends.host import are_of_host
from dualnet.core.arrays import as_array
from dualnet.errors import TreeError, UsageError
from dualnet.optim.clipping import clip_to_norm
from dualnet.options import Options
from dualnet.tree import Tree
from dualnet.types import Array

_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "momentum": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    "beta1": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    "beta2": ("at least 0 and below 1", lambda x: 0.0 <= x < 1.0),
    # With epsilon 0, an entry whose gradients were all zero would become 0 / 0.
    "epsilon": ("above 0 and finite", lambda x: 0.0 < x < math.inf),
    "trust": ("above 0 and finite", lambda x: 0.0 < x < math.inf),
    "weight_decay": ("at least 0 and finite", lambda x: 0.0 <= x < math.inf),
    "lr": ("at least 0 and finite", lambda x: 0.0 <= x < math.inf),
    "factors": ("at least 0 and finite", lambda x: 0.0 <= x < math.inf),
    # Beyond these, float32 arrays would be scaled by 0 or by infinity.
    "clip_norm": ("from 1e-30 to 1e30", lambda x: 1e-30 <= x <= 1e30),
}


@dataclass(frozen=True)
class Optimizer(Options):
    """An update rule for one array, lifted to trees of arrays.

    A family is a frozen dataclass that derives from this class, sets `state_names`, writes
    `update_leaf`, and overrides `init_leaf` if its state does not start at zero.  Fields whose
    names are in `_RANGES` are made Python floats and checked here; a family with other fields
    checks those in a `__post_init__` of its own.

    There are two ways to use an optimizer.  `init` and `update` count the updates and check
    everything at every call.  `init_opt_state` and `apply` are for a loop that counts by itself,
    and that asks for the checks once, when a run starts.

    Raises:
        UsageError: an option is out of its range; see `init` and `update` for the others.

    Examples:
        >>> class Signs(dn.optim.Optimizer):
        ...     def update_leaf(self, g, s, p, lr, step):
        ...         return p - lr * np.sign(g), {}
        >>> params, grads = {"w": np.array([1.0, 1.0])}, {"w": np.array([-7.0, 0.2])}
        >>> Signs().update(grads, Signs().init(params), params, lr=0.5)
        ({'w': array([1.5, 0.5])}, {'step': array(1)})
    """

    _hint: ClassVar[str] = "; the learning rate is an argument of update"
    state_names: ClassVar[tuple[str, ...]] = ()
    """The names of the arrays that the rule remembers for each parameter."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in _RANGES:
                value = _checked(type(self).__name__, field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    def init(self, params: Tree) -> dict[str, Tree]:
        """Make the state that precedes the first update.

        Args:
            params: tree of floating-point arrays.

        Returns:
            `{"step": 0, name: tree like params, ...}` for every name in `state_names`; the
            step is a 0-d int64 NumPy array on the host, whatever library holds the rest.

        Raises:
            UsageError: if a leaf is not a floating-point array.
        """
        return _with_count(0, self.init_opt_state(params))

    def init_opt_state(self, params: Tree) -> dict[str, Tree]:
        """Make what `init` makes, without the count of updates.

        Args:
            params: tree of floating-point arrays.

        Returns:
            `{name: tree like params, ...}` for every name in `state_names`.

        Raises:
            UsageError: if a leaf is not a floating-point array.
        """
        keep_freed_memory()  # an update makes the arrays anew that the last one made
        for path, p in tree.items(params):
            _check_parameter(f"{type(self).__name__}.init", path, p)
        return self._opt_state_like(params, [self.init_leaf(p) for p in tree.leaves(params)])

    def update(
        self,
        grads: Tree,
        state: dict[str, Tree],
        params: Tree,
        lr: float,
        factors: Tree | None = None,
        clip_norm: float | None = None,
    ) -> tuple[Tree, dict[str, Tree]]:
        """Make one update, leaving everything passed in as it was.

        Args:
            grads: tree like `params`, every leaf of the shape and dtype of its parameter.
            state: as `init` or the last `update` returned it.
            params: tree of floating-point arrays.
            lr: learning rate of this update, at least 0.
            factors: tree like `params` of numbers, what `lr` is multiplied by for each parameter;
                None for 1.
            clip_norm: the norm of all gradients as one vector to which they are scaled down where
                it is larger; None to leave them as they are.  See `clipping.clip_to_norm`.

        Returns:
            The new parameters and the new state, in new arrays of the same dtypes.

        Raises:
            TreeError: if `grads` or `state` is built differently from `params`; names the
                place and shows both sides.
            UsageError: if a leaf has another shape or dtype than its parameter, if the
                parameter is not a floating-point array, if `lr`, a factor or `clip_norm` is out of
                range, or if `update_leaf` returns anything but arrays like its parameter.
        """
        where = f"{type(self).__name__}.update"
        rate = _checked(where, "lr", lr)
        if not isinstance(state, dict) or state.keys() != {"step", *self.state_names}:
            got = f"the keys {list(state)}" if isinstance(state, dict) else tree.describe(state)
            raise TreeError(
                f"{where}: state: expected the keys {['step', *self.state_names]}, got {got}; "
                f"make one with {type(self).__name__}().init(params)"
            )
        opt_state = {name: state[name] for name in self.state_names}
        step = int(state["step"]) + 1
        new_params, opt_state = self.apply(
            grads, opt_state, params, rate, step, check=True, factors=factors, clip_norm=clip_norm
        )
        return new_params, _with_count(step, opt_state)

    def _check(self, grads: Tree, opt_state: dict[str, Tree], params: Tree) -> None:
        """Raise as `update` does unless gradients and optimizer's state fit the parameters."""
        where, others = f"{type(self).__name__}.update", {"gradient": grads, **opt_state}
        for what, other in others.items():
            try:
                tree.map(lambda *_: None, params, other)
            except TreeError as error:
                raise TreeError(
                    f"{where}: {what}: {error}; give one array for every parameter"
                ) from None
            for (path, p), leaf in zip(
                tree.items(params), tree.leaves_like(params, other), strict=True
            ):
                _check_parameter(where, path, p)
                _check_leaf(where, f"{what} of {path or 'the root'}", leaf, p)

    def apply(
        self,
        grads: Tree,
        opt_state: dict[str, Tree],
        params: Tree,
        lr: float,
        step: int,
        check: bool = False,
        factors: Tree | None = None,
        clip_norm: float | None = None,
    ) -> tuple[Tree, dict[str, Tree]]:
        """Make one update.

        Args:
            grads: tree like `params`.
            opt_state: a tree like `params` for every name in `state_names`.
            params: tree of floating-point arrays.
            lr: learning rate, at least 0.
            step: the number of this update, from 1.
            check: whether to make sure, as `update` does, that all of this fits, and that so does
                what `update_leaf` returns.  To do so once, when a run starts, is enough.
            factors, clip_norm: as for `update`.

        Returns:
            The new parameters and the new `opt_state`.

        Raises:
            TreeError, UsageError: as `update`, if `check`.
        """
        if check:
            self._check(grads, opt_state, params)
        if clip_norm is not None:
            norm = _checked(f"{type(self).__name__}.update", "clip_norm", clip_norm)
            grads = clip_to_norm(grads, norm)
        names = self.state_names
        trees = (grads, *[opt_state[name] for name in names])
        columns = [tree.leaves_like(params, t) for t in trees]
        leaves = tree.leaves(params)
        rows = zip(leaves, self._rates(lr, factors, params), *columns, strict=True)
        updated = [
            self.update_leaf(g, dict(zip(names, s, strict=True)), p, rate, step)
            for p, rate, g, *s in rows
        ]
        if check:
            self._check_updated(params, updated)
        new_params = tree.unflatten(params, _arrays([new_p for new_p, _ in updated]))
        return new_params, self._opt_state_like(params, [new_s for _, new_s in updated])

    def _rates(self, lr: float, factors: Tree | None, params: Tree) -> list[float]:
        """Return the learning rate of each parameter, in order; see `update`."""
        if factors is None:
            return [lr] * len(tree.leaves(params))
        where = f"{type(self).__name__}.update"
        try:
            of_leaves = tree.leaves_like(params, factors)
        except TreeError as error:
            raise TreeError(
                f"{where}: factors: {error}; give a number for every parameter"
            ) from None
        numbers = [_checked(where, "factors", factor) for factor in of_leaves]
        return [lr if factor == 1.0 else lr * factor for factor in numbers]

    def _check_updated(self, params: Tree, updated: list[Any]) -> None:
        """Raise a UsageError unless `update_leaf` returned what it should for every parameter."""
        where, names = f"{type(self).__name__}.update_leaf", sorted(self.state_names)
        wanted = ", ".join(f"{name!r}: ..." for name in names)
        for (path, p), new in zip(tree.items(params), updated, strict=True):
            if (
                not isinstance(new, tuple)
                or len(new) != 2
                or not isinstance(new[1], dict)
                or sorted(new[1]) != names
            ):
                raise UsageError(
                    f"{where}: expected (new parameter, {{{wanted}}}), got {tree.describe(new)}"
                )
            for what, leaf in {"the new parameter": new[0], **new[1]}.items():
                _check_leaf(where, f"{what} of {path or 'the root'}", leaf, p, _NARROWER)

    def init_leaf(self, p: Array) -> dict[str, Array]:
        """Return the state of one parameter before the first update: zeros like p."""
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

    def _opt_state_like(self, params: Tree, leaves: list[dict[str, Array]]) -> dict[str, Tree]:
        """Turn the states of single parameters into one tree like `params` for each name."""
        return {
            name: tree.unflatten(params, _arrays([leaf[name] for leaf in leaves]))
            for name in self.state_names
        }


def _arrays(leaves: list[Array]) -> list[Array]:
    """Return arrays of no axes in the place of NumPy's scalars, which operators make of them."""
    return [x if type(x) is np.ndarray else as_array(x) for x in leaves]


def add_decay(g: Array, weight_decay: float, p: Array) -> Array:
    """Return g + wd p, the gradient with that of the penalty wd/2 |p|^2; g itself if wd is 0."""
    return g + weight_decay * p if weight_decay else g


def descended(p: Array, lr: float, direction: Array) -> Array:
    """Return p - lr direction; NumPy arrays of one shape and dtype need one new array for it."""
    if are_of_host(p, direction) and p.shape == direction.shape != ():
        new_p = np.multiply(direction, lr, out=np.empty_like(p))
        return np.subtract(p, new_p, out=new_p)
    return p - lr * direction


def square_root(x: float) -> float:
    """Return the square root of a Python number, or of the placeholder of a recorded step for one.

    NumPy's root of a Python number is a float64 of NumPy's, which would widen float32 arrays.
    """
    return math.sqrt(x) if isinstance(x, float) else np.sqrt(x)


def _with_count(step: int, opt_state: dict[str, Tree]) -> dict[str, Tree]:
    return {"step": np.array(step, dtype=np.int64), **opt_state}


def _checked(where: str, name: str, value: Any) -> float:
    """Return a hyperparameter as a Python float if it lies in its range; raise if not."""
    requirement, fits = _RANGES[name]
    try:  # A float64 scalar of NumPy would widen float32 arrays.
        number = math.nan if isinstance(value, (bool, str)) else float(value)
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


_NARROWER = "a number of NumPy's widens float32 arrays, so write float(number) instead"


def _check_leaf(
    where: str, what: str, leaf: Any, p: Array, advice: str = "convert it before the update"
) -> None:
    if getattr(leaf, "shape", None) != p.shape or getattr(leaf, "dtype", None) != p.dtype:
        raise UsageError(
            f"{where}: {what}: expected {tree.describe(p)}, as its parameter, got "
            f"{tree.describe(leaf)}; {advice}"
        )
