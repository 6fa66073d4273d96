"""Keys: randomness is a value that is passed on; there is no global generator.

A `Key` is the name of one random stream.  New keys are derived from a key by hashing, so a draw
depends only on the path that led to its key: `Key(seed).fold_in(step).fold_in("w")`.  A backend
draws the numbers themselves (`dualnet.backends`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dualnet.errors import UsageError

_BYTES = 16
"""Length of a key: 128 bits."""


@dataclass(frozen=True, init=False)
class Key:
    """The name of a random stream: 128 bits.

    Args:
        seed: any integer; equal seeds give equal keys on every machine.
    """

    bits: int

    def __init__(self, seed: int):
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise UsageError(f"Key: expected an integer seed, got {seed!r}")
        object.__setattr__(self, "bits", _hash(f"seed {seed.__index__()}"))

    def fold_in(self, data: int | str) -> Key:
        """Return the child key that is named `data`.  Different data give independent streams."""
        kind = "name" if isinstance(data, str) else "index"
        child = object.__new__(Key)
        object.__setattr__(child, "bits", _hash(f"{self.bits} {kind} {data}"))
        return child

    def split(self, n: int) -> tuple[Key, ...]:
        """Return `n` independent child keys."""
        return tuple(self.fold_in(i) for i in range(n))


def _hash(text: str) -> int:
    """Hash a text to a number of 128 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_BYTES).digest(), "little")
