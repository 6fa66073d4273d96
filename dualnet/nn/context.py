"""What a layer is told beside its input, and how a container applies the layers in it.

A container calls `context.child` for each of its children.  There a learning rule that has a tap
gets to see every layer's output, and there an error in a layer gets to know where the layer is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dualnet.backends import Backend, NumpyBackend
from dualnet.backends.processes import ALONE, Processes
from dualnet.errors import UsageError
from dualnet.nn.located import locate
from dualnet.random import Key
from dualnet.tree import Tree, describe
from dualnet.types import Array

if TYPE_CHECKING:  # a layer's `apply` takes a context, so `network` imports this file
    from dualnet.nn.network import Layer

Tap = Callable[[str, Array], Array]
"""`tap(path, y) -> y`: gets the output of the layer at `path`, returns what flows on."""
Around = Callable[..., tuple[Array, Tree]]
"""`around(path, layer, params, state, x, context) -> (y, state)`: applies a layer in its place."""


@functools.cache
def _host() -> Backend:
    return NumpyBackend()


@dataclass(frozen=True)
class Context:
    """What a layer may need to know beyond its input.

    Attributes:
        train: training or evaluation; batch norm and dropout differ.
        key: randomness for this step, folded by path; None in evaluation.
        tap: sees and may replace the output of every layer; None lets every output flow on.
        around: applies every layer, and may do so in another way; None just applies it.
        path: names joined by `/`; it says where in the network we are.
        backend: draws the random numbers that layers need; NumPy's if not given.
        start: index in the batch of the first example, so that shards of a batch draw their
            parts of one mask.
        processes: that have the other examples of the batch, if batch norm is to take its
            statistics of them, too.

    Examples:
        >>> shapes = {}
        >>> def tap(path, y):
        ...     shapes[path] = y.shape
        ...     return y
        >>> network = dn.nn.Sequential({"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)})
        >>> params, state, _ = network.init(dn.Key(0), (3,))
        >>> _ = network.apply(params, state, np.ones((5, 3)), dn.nn.Context(tap=tap))
        >>> shapes
        {'hidden': (5, 4), 'output': (5, 2)}
    """

    train: bool = False
    key: Key | None = None
    tap: Tap | None = None
    around: Around | None = None
    path: str = ""
    backend: Backend = field(default_factory=_host)
    start: int = 0
    processes: Processes = ALONE

    def child(
        self, name: str, layer: Layer, params: Tree, state: Tree, x: Array
    ) -> tuple[Array, Tree]:
        """Apply a layer as the child `name` of the present one, and tap its output."""
        tap, around, key = self.tap, self.around, self.key
        path = f"{self.path}/{name}" if self.path else name
        if key is not None:
            key = key.fold_in(name)
        context = Context(
            self.train, key, tap, around, path, self.backend, self.start, self.processes
        )
        try:
            if around is None:
                result = layer.apply(params, state, x, context)
            else:
                result = around(path, layer, params, state, x, context)
        except Exception as error:
            locate(error, path, f"{type(layer).__name__}.apply", _applied(params, x))
            raise
        if not isinstance(result, tuple) or len(result) != 2:
            raise no_pair(path, layer, result)
        y, state = result
        if tap is None:
            return y, state
        try:
            return tap(path, y), state
        except Exception as error:
            locate(error, path, "the tap of its output", "tap(path, y) returns what flows on")
            raise


def _applied(params: Tree, x: Array) -> str:
    """Say what a layer's `apply` got, and what it should do."""
    return (
        f"apply(params, state, x, context) got params {describe(params)} and x {describe(x)}; it "
        "returns (y, new state) for a batch x (N, *in_shape)"
    )


def no_pair(path: str, layer: Layer, result: object) -> UsageError:
    """Describe that a layer's `apply` returned no pair; `path` is "" for the network itself."""
    where = f" at {path}" if path else ""
    return UsageError(
        f"{type(layer).__name__}.apply{where}: expected (output, new state), got "
        f"{describe(result)}; write return y, state"
    )
