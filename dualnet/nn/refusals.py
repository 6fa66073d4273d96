"""What several layers refuse, and how they say it."""

from __future__ import annotations

from dualnet.errors import UsageError
from dualnet.nn.network import Context
from dualnet.types import Array


def named(layer: str, context: Context) -> str:
    """Return how a message calls a layer: by its kind, and its path where it has one."""
    return f"{layer} {context.path}" if context.path else layer


def require_inputs(layer: str, context: Context, x: Array, *expected: int | str) -> None:
    """Raise a UsageError unless x has the expected axes: ints are lengths, strings name axes of
    any length."""
    if x.ndim != len(expected) or any(
        n != length
        for n, length in zip(x.shape, expected, strict=True)
        if not isinstance(length, str)
    ):
        raise UsageError(
            f"{named(layer, context)}: expected inputs ({', '.join(map(str, expected))}), got "
            f"{x.shape}; init the layer for the shape that it gets"
        )
