"""What `network.json` says of a network, each part of which is checked.

It may be damaged or have come from anybody: no size that it asks for takes memory before one knows
that the file of parameters has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dualnet import tree
from dualnet.data import Preparation
from dualnet.errors import DataError, UsageError
from dualnet.nn import Layer
from dualnet.nn.initial import shapes_alone
from dualnet.nn.written import read_network
from dualnet.options import is_int
from dualnet.random import Key
from dualnet.training.bad_files import damaged, in_message
from dualnet.training.checkpoint import Stored
from dualnet.training.objective import OBJECTIVES
from dualnet.training.settings import DTYPES, build
from dualnet.tree import Tree
from dualnet.types import Shape

MOST_NUMBERS = 1 << 26
"""Of an example, and of what a layer makes of it: an image of 4,096 by 4,096 pixels has so many in
four channels."""
_MOST_AXES = 30
"""Of an example: NumPy has 32 or more, and examples and directions have one each."""
_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What constructors raise that get what nobody can have meant."""


def described(file: Path, data: dict[str, Any], own: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a `Trained` that `network.json` has.

    Args:
        file: its path.
        data: what it holds.
        own: as of `load_run`.

    Raises:
        UsageError: it has layers that are neither dualnet's nor `own`.
        DataError: it holds what no network can be.
    """
    try:
        network = read_network(data.get("network"), own)
    except UsageError as error:
        raise UsageError(f"{in_message(file)}: {in_message(error)}") from error
    except (DataError, *_FAULTS) as error:
        raise damaged(file, error) from error
    try:
        options = dict(data["objective"])
        of_objective = {name: value for name, value in options.items() if name != "name"}
        return {
            "network": network,
            "objective": build(OBJECTIVES, "objective", options["name"], of_objective),
            "objective_options": options,
            "preparation": _preparation(data["preparation"]),
            **_targets(data["labels"], data["classes"], data["real_targets"]),
            "dtype": _dtype(data["dtype"]),
        }
    except KeyError as error:
        raise damaged(file, f"it has no {error}") from error
    except _FAULTS as error:
        raise damaged(file, error) from error


def shapes_of(
    network: Layer, in_shape: Shape, dtype: DTypeLike, most: float = math.inf
) -> dict[str, Tree]:
    """Return what a file of a network's parameters and state must hold: trees of `Stored`.

    Args:
        network: whose.
        in_shape: of an example as the network gets it.
        dtype: of all numbers.
        most: how many numbers a layer's output for one example may have.
    """
    with shapes_alone(most):
        params, model_state, _ = network.init(Key(0), in_shape)
    params, model_state = (
        tree.map(lambda leaf: Stored(leaf.shape, np.dtype(dtype)), one)
        for one in (params, model_state)
    )
    return {"params": params, "model_state": model_state}


@contextmanager
def refused_if_unfit(file: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what layers raise that do not fit one another into a DataError that names the file.

    Args:
        file: the path of `network.json`.
        more: errors that tell the same.
    """
    try:
        yield
    except _FAULTS + more as error:  # among them UsageError
        raise damaged(file, error) from error


def _preparation(data: dict[str, Any]) -> Preparation:
    """Return how examples become numbers; raise an error for what is no preparation."""
    found = dict(data)
    shape = tuple(found.pop("shape"))
    _require(
        "shape", shape, all(is_int(n) and n > 0 for n in shape) and 0 < len(shape) <= _MOST_AXES
    )
    white, size = found.get("white"), found.get("image_size")
    _require("white", white, white is None or (is_int(white) and 0 < white <= 255))
    images = len(shape) == 3
    _require("image_size", size, size is None or (images and is_int(size) and size > 0))
    mean, std = (np.asarray(found.pop(name), np.float64) for name in ("mean", "std"))
    for name, array in (("mean", mean), ("std", std)):
        fits = array.shape in ((1,), shape[-1:]) and bool(np.isfinite(array).all())
        _require(name, array.tolist(), fits and (name == "mean" or array.min() > 0.0))
    made = Preparation(mean=mean, std=std, shape=shape, **found)
    _require("shape", made.in_shape, math.prod(made.in_shape) <= MOST_NUMBERS)
    return made


def _targets(labels: Any, classes: Any, outputs: Any) -> dict[str, Any]:
    """Return what targets are called, or how many real ones an example has."""
    _require("labels", labels, isinstance(labels, list) and len({*map(type, labels)}) <= 1)
    _require("classes", classes, isinstance(classes, list) and {*map(type, classes)} <= {str})
    _require("classes", classes, len(set(classes)) == len(classes))
    # NumPy would take whole numbers of which some are too large for int64 for float64.
    large = {*map(type, labels)} == {int} and max(labels) > np.iinfo(np.int64).max
    names = np.asarray(labels, np.uint64 if large else None) if labels else np.zeros(0, np.int64)
    plain = names.dtype.kind in "biuU" and len(np.unique(names)) == len(labels)
    _require("labels", labels, plain and len(labels) == len(classes))
    if outputs is None:
        _require("classes", classes, len(classes) > 0)
    else:
        _require("real_targets", outputs, is_int(outputs) and outputs > 0 and not labels)
    return {"labels": names, "classes": tuple(classes), "real_targets": outputs}


def _require(name: str, value: object, fits: bool) -> None:
    if not fits:
        raise ValueError(f"its {name} cannot be {value!r}")


def _dtype(name: object) -> np.dtype:
    _require("dtype", name, name in DTYPES)
    return np.dtype(str(name))
