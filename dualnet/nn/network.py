"""What a layer is, how layers stack, and how learning rules look inside.

A layer is a small frozen value with two pure functions:

    init(key, in_shape)              -> (params, state, out_shape)
    apply(params, state, x, context) -> (y, state)

Shapes leave out the batch: `in_shape` is that of one example, x has `(N, *in_shape)`.  `params`
and `state` are trees of arrays, {} where there is nothing: training moves the params, and the layer
itself carries the state along (running statistics).  `init` draws in float32 on the host; cast the
trees to train in another precision.

A container applies its children through `Context.child`, which passes every child's output
through `context.tap`.  A learning rule that wants to read, perturb or cut the flow at some
site gives a tap; layers know nothing of it.  The rule finds the sites with `walk`.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dualnet.errors import UsageError
from dualnet.nn.context import Context
from dualnet.nn.initial import is_too_large
from dualnet.nn.located import locate, locate_below
from dualnet.options import Options, is_int
from dualnet.random import Key, require_key
from dualnet.tree import Tree, describe, items, size, subtree
from dualnet.types import Array, Shape

Layers: TypeAlias = "tuple[tuple[str, Layer], ...]"
"""A container's children: pairs of a name and a layer."""


def _checked(init: Callable[..., Any]) -> Callable[..., tuple[Tree, Tree, Shape]]:
    """Let a layer's `init` refuse what is no key and no shape of an example."""

    @functools.wraps(init)
    def checked(self: Layer, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        where = f"{type(self).__name__}.init"
        require_key(where, key)
        if isinstance(in_shape, list):
            in_shape = tuple(in_shape)
        if not isinstance(in_shape, tuple) or not all(map(is_int, in_shape)):
            write = f"({in_shape},)" if is_int(in_shape) else "x.shape[1:]"
            raise UsageError(
                f"{where}: expected the shape of one example, a tuple of ints, got "
                f"{in_shape if is_int(in_shape) else describe(in_shape)}; write {write}"
            )
        result = init(self, key, in_shape)
        if not isinstance(result, tuple) or len(result) != 3:
            raise UsageError(
                f"{where}: expected (params, state, out_shape), got {describe(result)}; a layer "
                "without params or state returns {} for it"
            )
        if is_too_large(result[2]):
            raise UsageError(f"{where}: an output of shape {result[2]} is too large")
        return result

    return checked


class Layer(Options, ABC):
    """Two pure functions, `init` and `apply`, and what learning rules must know of them.

        init(key, in_shape)              -> (params, state, out_shape)
        apply(params, state, x, context) -> (y, state)

    `in_shape` and `out_shape` are those of one example; x is a batch `(N, *in_shape)`.  `params`
    and `state` are trees of arrays, {} where there is nothing.  The attributes tell learning rules
    what a layer does.

    A layer for which a default is not true has a class attribute of that name; where it depends on
    the layer's fields, `__post_init__` sets it.

    Attributes:
        layers: a container's children, pairs of a name and a layer; () for a layer without.
        couples_examples: whether the training output for one example depends on the others.
        normalizes: whether the layer is a norm, which belongs to the layer before it.
        row_groups: None unless the layer maps `(N, ..., p)` to `(N, ..., q)`, each row to the
            same row alone.  Then it is the number of runs of neighbors into which the last axis
            falls that do not reach one another; 0 if every entry goes to the same entry alone.

    Raises:
        UsageError: `init` gets what is no key or no shape of an example, or returns anything but
            (params, state, out_shape).

    Examples:
        >>> class Doubled(dn.nn.Layer):
        ...     def init(self, key, in_shape):
        ...         return {}, {}, in_shape
        ...     def apply(self, params, state, x, context):
        ...         return 2 * x, state
        >>> Doubled().apply({}, {}, np.array([[1.0, 2.0]]), dn.nn.Context())[0].tolist()
        [[2.0, 4.0]]
    """

    _hint = "; how many features come in is no option, as init(key, in_shape) gets to know it"

    layers: Layers = ()
    couples_examples: bool = False
    normalizes: bool = False
    row_groups: int | None = None

    def __init_subclass__(cls, **named: Any) -> None:
        """Let the `init` that a layer writes check what it gets and what it returns."""
        super().__init_subclass__(**named)
        if "init" in vars(cls):
            cls.init = _checked(cls.init)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Return a layer as one writes it, and a container as a table; see `table`.

        A dataclass has it with `repr=False`.
        """
        if self.layers:
            return f"{type(self).__name__}:\n  " + table(self).replace("\n", "\n  ")
        return as_written(self)

    @abstractmethod
    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        """Return the params and the state at the start, and the shape of an example's output."""

    def init_child(
        self, name: str, layer: Layer, key: Key, in_shape: Shape
    ) -> tuple[Tree, Tree, Shape]:
        """Call the `init` of a child, with a key of its own; an error in it says where it was."""
        try:
            return layer.init(key.fold_in(name), in_shape)
        except Exception as error:
            locate_below(error, name)
            contract = f"init(key, in_shape) got {in_shape}; it returns (params, state, out_shape)"
            locate(error, name, f"{type(layer).__name__}.init", contract)
            raise

    @abstractmethod
    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        """Return the output for a batch x `(N, *in_shape)`, and the new state."""


@dataclass(frozen=True, repr=False)
class Sequential(Layer):
    """Layers one after the other; data that can be walked, not a closure.

    Args:
        layers: pairs of a name and a layer; names differ and hold no `/`.  A list or a dict
            becomes a tuple of pairs.

    Raises:
        UsageError: what is given are no pairs of a name and a layer, two names are equal, or a name
            is empty or holds a `/`; `apply` gets params or state without an entry for a layer.

    Examples:
        >>> network = dn.nn.Sequential({"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)})
        >>> params, _, out_shape = network.init(dn.Key(0), (3,))
        >>> dn.tree.map(np.shape, params)
        {'hidden': {'w': (3, 4), 'b': (4,)}, 'output': {'w': (4, 2), 'b': (2,)}}
        >>> out_shape
        (2,)
    """

    layers: Layers

    _hint = """; write Sequential((("name", layer), ...))"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", named_layers("Sequential", self.layers))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        params, state, shape = {}, {}, in_shape
        for name, layer in self.layers:
            params[name], state[name], shape = self.init_child(name, layer, key, shape)
        return params, state, shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        new_state = {}
        for name, layer in self.layers:
            try:
                own, before = params[name], state[name]
            except (LookupError, TypeError):
                raise UsageError(
                    f"Sequential: expected params and state with an entry for layer {name}, got "
                    f"{describe(params)} and {describe(state)}; its own init makes both"
                ) from None
            x, new_state[name] = context.child(name, layer, own, before, x)
        return x, new_state


def walk(layer: Layer, path: str = "", containers: bool = False) -> Iterator[tuple[str, Layer]]:
    """Yield `(path, layer)` for every layer inside a network, in the order of their outputs.

    Args:
        layer: the network; its own path is "".
        path: of `layer`, where it is a part of something larger.
        containers: whether to yield containers too, each after its children.

    Raises:
        UsageError: `layer` does not derive from `Layer`.

    Examples:
        >>> around = dn.nn.Residual({"block": dn.nn.Linear(3)})
        >>> network = dn.nn.Sequential({"mix": around, "output": dn.nn.Linear(2)})
        >>> [path for path, _ in dn.nn.walk(network)]
        ['mix/block', 'output']
        >>> [path for path, _ in dn.nn.walk(network, containers=True)]
        ['mix/block', 'mix', 'output', '']
    """
    require_layer("walk", path, layer)
    for name, child in layer.layers:
        yield from walk(child, f"{path}/{name}" if path else name, containers)
    if containers or not layer.layers:
        yield path, layer


def table(network: Layer, in_shape: Shape | None = None) -> str:
    """Format the layers of a network in aligned columns.

    They are path, kind and options, number of parameters, and the shape of each of these.

    Args:
        network: a layer, usually a `Sequential`.
        in_shape: of one example, on which parameters depend; None for a table without them.

    Returns:
        A line for each layer that is no container, in the order of their outputs, and with
        parameters a last one for all.

    Raises:
        UsageError: `network` is no layer, or does not fit `in_shape`.

    Examples:
        >>> network = dn.nn.Sequential({"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)})
        >>> print(dn.nn.table(network, (3,)))
        hidden  Linear(4)  16  w 3×4, b 4
        output  Linear(2)  10  w 4×2, b 2
        total              26
    """
    layers = list(walk(network))
    rows = [(path, as_written(layer), "", "") for path, layer in layers]
    if in_shape is not None:
        params, _, _ = network.init(Key(0), in_shape)
        own = [subtree(params, path) for path, _ in layers]
        rows = [
            (*row[:2], f"{size(part):,}", shapes_of(part))
            for row, part in zip(rows, own, strict=True)
        ]
        rows.append(("total", "", f"{size(params):,}", ""))
    first, second, third = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:3])
    return "\n".join(
        f"{path:{first}}  {kind:{second}}  {count:>{third or 1}}  {shapes}".rstrip()
        for path, kind, count, shapes in rows
    )


def shapes_of(params: Tree) -> str:
    """Return the shape of each parameter of a layer, as in `w 64×10, b 10`."""
    return ", ".join(f"{path} {'×'.join(map(str, leaf.shape))}" for path, leaf in items(params))


def as_written(layer: Layer) -> str:
    """Return a layer as one writes it, without the options that have their default."""
    fields: tuple[dataclasses.Field, ...] = ()
    if dataclasses.is_dataclass(layer):
        fields = dataclasses.fields(layer)
    given = [(f, getattr(layer, f.name)) for f in fields]
    written = [
        ("" if not f.kw_only else f"{f.name}=") + getattr(value, "__name__", repr(value))
        for f, value in given
        if not f.kw_only or value != f.default
    ]
    return f"{type(layer).__name__}({', '.join(written)})"


def couples_examples(network: Layer) -> bool:
    """Whether a layer in the network, containers included, mixes the examples of a batch.

    Such a batch is not split into shards, and forward gradients of activities then answer to the
    loss of the whole batch.

    Args:
        network: a layer, usually a `Sequential`.

    Raises:
        UsageError: `network` does not derive from `Layer`.

    Examples:
        >>> dn.nn.couples_examples(dn.nn.Sequential({"norm": dn.nn.BatchNorm()}))
        True
        >>> dn.nn.couples_examples(dn.nn.Sequential({"norm": dn.nn.LayerNorm()}))
        False
    """
    return any(layer.couples_examples for _, layer in walk(network, containers=True))


def named_layers(container: str, layers: object) -> Layers:
    """Return what a container was given as pairs of a name and a layer.

    Args:
        container: its kind, for the error message.
        layers: pairs in a tuple or a list, or a dict.

    Raises:
        UsageError: it is anything else, or two have one name, or a name is empty or holds a `/`.
    """
    if isinstance(layers, Mapping):
        layers = tuple(layers.items())
    pairs = tuple(layers) if isinstance(layers, (tuple, list)) else (layers,)
    for i, pair in enumerate(pairs, start=1):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            kind = type(pair).__name__
            example = f'("{kind.lower()}{i}", {kind}(...))' if isinstance(pair, Layer) else "..."
            raise UsageError(
                f"{container}: expected pairs of a name and a layer, got {describe(pair)} at "
                f"position {i}; write {container}(({example}, ...))"
            )
        require_layer(container, *pair)
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names) or any("/" in name or not name for name in names):
        raise UsageError(f"{container}: names must differ and hold no '/', got {names}")
    return tuple((name, layer) for name, layer in pairs)


def require_layer(where: str, name: str, layer: object) -> None:
    """Raise a UsageError unless a layer derives from `Layer`, which holds the defaults."""
    if not isinstance(layer, Layer):
        kind = (layer if isinstance(layer, type) else type(layer)).__name__
        hint = (
            f"write {kind}(...), an instance"
            if isinstance(layer, type) and issubclass(layer, Layer)
            else f"write class {kind}(Layer): with Layer from dualnet.nn"
        )
        raise UsageError(
            f"{where}: expected layers that derive from Layer, got {layer!r} for {name!r}; {hint}"
        )
