"""Where weights start: a table of distributions.

All are drawn on the host, in float32, from a key alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from dualnet.options import require_choice
from dualnet.random import Key
from dualnet.types import Shape

_ADDRESSABLE = 1 << 60
"""How many numbers of 8 bytes have an address."""
_MOST_NUMBERS: ContextVar[float] = ContextVar("most numbers of an output", default=-1)


@contextmanager
def shapes_alone(most: float = math.inf) -> Iterator[None]:
    """Let all that layers start with be zeros that take no memory, whatever their shape.

    So `init` says how large a network is before it is made.

    Args:
        most: how many numbers a layer's output for one example may have.
    """
    before = _MOST_NUMBERS.set(most)
    try:
        yield
    finally:
        _MOST_NUMBERS.reset(before)


def only_shapes() -> bool:
    """Whether `shapes_alone` is in force."""
    return _MOST_NUMBERS.get() >= 0


def is_too_large(shape: Shape) -> bool:
    """Whether `shapes_alone` is in force, and an output of this shape has too many numbers."""
    return only_shapes() and math.prod(shape) > _MOST_NUMBERS.get()


def filled(shape: Shape, value: float) -> np.ndarray:
    """Return an array in which all numbers are the same: what gains and biases start with."""
    if only_shapes():
        if math.prod(shape) >= _ADDRESSABLE:
            raise MemoryError(f"no array of shape {shape} can be made")
        return np.broadcast_to(np.float32(value), shape)
    return np.full(shape, value, np.float32)


TOKEN_DEVIATION = 0.02
"""Standard deviation at the start of learned tokens and positions.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", in their published code.
"""


def normal(key: Key, shape: Shape, deviation: float) -> np.ndarray:
    """Draw normal numbers of mean 0 and the given standard deviation."""
    if only_shapes():
        return filled(shape, 0.0)
    return _generator(key).standard_normal(shape, np.float32) * deviation


def kaiming(key: Key, shape: Shape, fan_in: int) -> np.ndarray:
    """Draw uniformly on ±sqrt(6 / fan-in), so that activities keep their size through ReLU layers.

    Source: He et al. 2015, "Delving Deep into Rectifiers", Eq. 10.
    """
    return _uniform(key, shape, math.sqrt(6.0 / fan_in))


def torch(key: Key, shape: Shape, fan_in: int) -> np.ndarray:
    """Draw uniformly on ±1 / sqrt(fan-in), √6 times less than `kaiming`.

    Linear layers and convolutions of PyTorch start so, the biases too.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6, with a third of its variance.
    """
    return _uniform(key, shape, 1.0 / math.sqrt(fan_in))


def zeros(_key: Key, shape: Shape, _fan_in: int) -> np.ndarray:
    """Return zeros: for heads, whose outputs are then all equal at the start."""
    return filled(shape, 0.0)


def scaled_normal(key: Key, shape: Shape, fan_in: int) -> np.ndarray:
    """Draw normal numbers of standard deviation min(2 / sqrt(fan-in), 0.1).

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", in their published code.
    """
    return normal(key, shape, min(2.0 / math.sqrt(fan_in), 0.1))


INITIALIZERS: dict[str, Callable[[Key, Shape, int], np.ndarray]] = {
    "kaiming": kaiming,
    "torch": torch,
    "zeros": zeros,
    "scaled-normal": scaled_normal,
}
"""Name → `f(key, shape, fan_in)`, a float32 array; fan-in is how many inputs one unit sums."""


def require_initializer(layer: str, name: str) -> None:
    """Raise a UsageError unless there are weights of this name."""
    require_choice(layer, "weights", name, INITIALIZERS)


def initial(name: str, key: Key, shape: Shape, fan_in: int) -> np.ndarray:
    """Return weights of `shape`, started as the table says under `name`."""
    return INITIALIZERS[name](key, shape, fan_in)


def initial_bias(name: str, key: Key, features: int, fan_in: int) -> np.ndarray:
    """Return the bias of a layer whose weights started under `name`: zeros, but for `torch`."""
    start = INITIALIZERS["torch"] if name == "torch" else zeros
    return start(key, (features,), fan_in)


def _uniform(key: Key, shape: Shape, bound: float) -> np.ndarray:
    if only_shapes():
        return filled(shape, 0.0)
    return _generator(key).random(shape, np.float32) * (2 * bound) - bound


def _generator(key: Key) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(key.bits))
