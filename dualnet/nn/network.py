"""What a layer is, how layers stack, and how learning rules look inside.

A layer is a small frozen value with two pure functions:

    init(key, in_shape)              -> (params, state, out_shape)
    apply(params, state, x, context) -> (y, state)

Shapes leave out the batch: `in_shape` is that of one example, x has `(N, *in_shape)`.  params
and state are trees of arrays ({} where there is nothing); params are what training moves, state
what a layer carries along (running statistics).  `init` draws in float32 on the host; cast the
trees to train in another precision.

A container applies its children through `Context.child`, which passes every child's output
through `context.tap`.  A learning rule that wants to read, perturb or cut the flow at some
place gives a tap; layers know nothing of it.  (The rule finds the places with `walk`.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dualnet.backends import Backend, NumpyBackend
from dualnet.errors import UsageError
from dualnet.random import Key
from dualnet.tree import Tree

Shape = tuple[int, ...]
Tap = Callable[[str, Any], Any]
"""`tap(path, y) -> y`: gets the output of the layer at `path`, returns what flows on."""
Around = Callable[..., tuple[Any, Tree]]
"""`around(path, layer, params, state, x, context) -> (y, state)`: applies a layer in its place."""


def no_tap(_path: str, y: Any) -> Any:
    """The tap that changes nothing."""
    return y


def plainly(
    _path: str, layer: Layer, params: Tree, state: Tree, x: Any, context: Context
) -> tuple[Any, Tree]:
    """The `around` that just applies the layer."""
    return layer.apply(params, state, x, context)


@functools.cache
def _host() -> Backend:
    return NumpyBackend()


@dataclass(frozen=True)
class Context:
    """What a layer may need to know beyond its input.

    Attributes:
        train: training or evaluation; batch norm and dropout differ.
        key: randomness for this step, folded by path; None in evaluation.
        tap: sees and may replace the output of every layer.
        around: applies every layer, and may do so in another way.
        path: names joined by `/`, where in the network we are.
        backend: draws what layers need of randomness; NumPy's if not given.
        start: index in the batch of the first example, so that shards of a batch draw their
            parts of one mask.
    """

    train: bool = False
    key: Key | None = None
    tap: Tap = no_tap
    around: Around = plainly
    path: str = ""
    backend: Backend = field(default_factory=_host)
    start: int = 0

    def child(self, name: str, layer: Layer, params: Tree, state: Tree, x: Any) -> tuple[Any, Tree]:
        """Apply a layer as the child `name` of the present one, and tap its output."""
        path = f"{self.path}/{name}" if self.path else name
        key = self.key.fold_in(name) if self.key else None
        context = replace(self, path=path, key=key)
        y, state = self.around(path, layer, params, state, x, context)
        return self.tap(path, y), state


@dataclass(frozen=True)
class Apart:
    """What a layer keeps apart: `(N, ..., p)` to `(N, ..., q)`, each row to the same row alone.

    Attributes:
        groups: into how many runs of neighbors the last axis falls that do not reach one another;
            0 if every entry goes to the same entry alone.
    """

    groups: int


class Layer(Protocol):
    """See the head of this file.

    A layer whose training output for one example depends on the other examples says so by a class
    attribute `couples_examples = True`; one that keeps rows apart by an attribute `apart`, an
    `Apart`.
    """

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]: ...

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]: ...


@dataclass(frozen=True)
class Sequential:
    """Layers one after the other; data that can be walked, not a closure.

    Args:
        layers: pairs of a name and a layer; names differ and hold no `/`.
    """

    layers: tuple[tuple[str, Layer], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.layers]
        if len(set(names)) != len(names) or any("/" in name or not name for name in names):
            raise UsageError(f"Sequential: names must differ and hold no '/', got {names}")

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        params, state, shape = {}, {}, in_shape
        for name, layer in self.layers:
            params[name], state[name], shape = layer.init(key.fold_in(name), shape)
        return params, state, shape

    def apply(self, params: Tree, state: Tree, x: Any, context: Context) -> tuple[Any, Tree]:
        new_state = {}
        for name, layer in self.layers:
            x, new_state[name] = context.child(name, layer, params[name], state[name], x)
        return x, new_state


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield `(path, layer)` for every layer inside a network that is not a container itself."""
    children = getattr(layer, "layers", None)
    if children is None:
        yield path, layer
        return
    for name, child in children:
        yield from walk(child, f"{path}/{name}" if path else name)


def couples_examples(layer: Layer) -> bool:
    """Whether a layer in the network, containers included, mixes the examples of a batch."""
    children = (child for _, child in getattr(layer, "layers", ()))
    return getattr(layer, "couples_examples", False) or any(map(couples_examples, children))
