"""Keys: randomness as a value, with no global generator.

A `Key` is a name for one random stream.  New keys are derived from it by hashing, so a
draw depends only on the path that led to it: `Key(seed).fold_in(step).fold_in("w")`.  The
numbers themselves are drawn by a backend (`dualnet.backends`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dualnet.errors import UsageError

_BYTES = 16


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
        """The child key named `data`; different data give independent streams."""
        kind = "name" if isinstance(data, str) else "index"
        child = object.__new__(Key)
        object.__setattr__(child, "bits", _hash(f"{self.bits} {kind} {data}"))
        return child

    def split(self, n: int) -> tuple[Key, ...]:
        """`n` independent child keys."""
        return tuple(self.fold_in(i) for i in range(n))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_BYTES).digest(), "little")
