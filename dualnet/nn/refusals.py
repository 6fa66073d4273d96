"""What several layers refuse, and how they say it."""

from __future__ import annotations

from dualnet.errors import UsageError
from dualnet.types import Array


def require_inputs(layer: str, x: Array, *expected: int | str) -> None:
    """Raise a UsageError unless x has the expected axes: ints are lengths, strings name axes of
    any length."""
    if x.ndim != len(expected) or any(
        n != length
        for n, length in zip(x.shape, expected, strict=True)
        if not isinstance(length, str)
    ):
        raise UsageError(
            f"{layer}: expected inputs ({', '.join(map(str, expected))}), got "
            f"{x.shape}; init the layer for the shape that it gets"
        )
