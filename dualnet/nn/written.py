"""A network as text: what its layers are and which options they have, without its parameters.

A layer is written as the name of its class and its fields, a function as its name.  What is read
are names of dualnet's own layers and activations, and of those that the caller gives; nothing else
is ever imported or run.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dualnet import nn
from dualnet.errors import DataError, UsageError
from dualnet.naming import command_line_calls
from dualnet.nn.network import Layer

_PLAIN = (type(None), bool, int, float, str)


def written_network(network: Layer) -> dict[str, Any]:
    """Return a network as what `json.dumps` takes.

    Raises:
        UsageError: a layer is no dataclass, or has a field that cannot be written.
    """
    return _written(network, "network")


def read_network(data: Any, own: Sequence[Any] = ()) -> Layer:
    """Return the network that `written_network` has written.

    Args:
        data: what `json.loads` returned.
        own: classes of layers, and functions of activations, that are not dualnet's own.

    Raises:
        UsageError: a layer or a function is neither dualnet's own nor among `own`.
        DataError: this is no network.
    """
    layer = _read(data, {each.__name__: each for each in own})
    if not isinstance(layer, Layer):
        raise DataError(f"network: expected a layer, got {type(layer).__name__}")
    return layer


def _written(value: Any, where: str) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (tuple, list)):
        return [_written(each, f"{where}[{i}]") for i, each in enumerate(value)]
    if isinstance(value, Layer) and dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        of_fields = {
            f.name: _written(getattr(value, f.name), f"{where}.{f.name}") for f in fields if f.init
        }
        return {_kind("layer", type(value)): type(value).__name__, "fields": of_fields}
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str) and name.isidentifier():
        return {_kind("function", value): name}
    raise UsageError(
        f"save: {where}: expected numbers, texts, named functions, or layers that are dataclasses, "
        f"got {value!r}"
    )


def _kind(kind: str, value: Any) -> str:
    """Return the kind, with `own ` before it if it is not dualnet's, whatever its name is."""
    return kind if _ours(kind).get(value.__name__) is value else f"own {kind}"


def _ours(kind: str) -> Mapping[str, Any]:
    """Return dualnet's own layers or activations by their names."""
    if kind == "function":
        return nn.ACTIVATIONS
    named = {name: getattr(nn, name) for name in nn.__all__}
    return {n: v for n, v in named.items() if isinstance(v, type) and issubclass(v, Layer)}


def _read(data: Any, own: Mapping[str, Any]) -> Any:
    if isinstance(data, _PLAIN):
        return data
    if isinstance(data, list):
        return tuple(_read(each, own) for each in data)
    kinds = [kind for kind in _KINDS if isinstance(data, dict) and kind in data]
    if len(kinds) != 1:
        raise DataError(f"network: expected a layer or an option of one, got {_short(data)}")
    found = _found(kinds[0], data[kinds[0]], own)
    if kinds[0].endswith("function"):
        return found
    fields = data.get("fields")
    if not isinstance(fields, dict):
        raise DataError(f"network: layer {found.__name__}: expected fields, got {_short(fields)}")
    options = {name: _read(value, own) for name, value in fields.items()}
    try:
        return found(**options)
    except (TypeError, UsageError) as error:
        raise DataError(f"network: layer {found.__name__}: {error}") from error


_KINDS = ("layer", "own layer", "function", "own function")


def _found(kind: str, name: Any, own: Mapping[str, Any]) -> Callable:
    """Return the class or the function of a kind that has a name."""
    if not isinstance(name, str):
        raise DataError(f"network: expected the name of a {kind}, got {_short(name)}")
    found = own.get(name) if kind.startswith("own ") else _ours(kind).get(name)
    if found is None and kind.startswith("own "):
        how = "name its file with --plugin" if command_line_calls() else f"write own=[{name}]"
        raise UsageError(
            f"the network has the {kind[4:]} {_short(name)}, which is not one of dualnet's; {how}"
        )
    if found is None:
        raise UsageError(f"dualnet has no {kind} {_short(name)}; another version may have")
    return found


def _short(value: Any) -> str:
    """Return a value for a message, in one line."""
    return " ".join(reprlib.repr(value).split())
