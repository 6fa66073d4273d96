"""Keys: randomness is a value that is passed on; there is no global generator.

A `Key` is the name of one random stream.  New keys are derived from a key by hashing, so a draw
depends only on the path that led to its key: `Key(seed).fold_in(step).fold_in("w")`.  A backend
draws the numbers themselves (`dualnet.backends`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from dualnet.errors import UsageError
from dualnet.options import is_int, require_count

__all__ = [
    "Key",
    "Keys",
    "descendants",
    "name_of_child",
    "require_key",
]

_BYTES = 16
"""Length of a key: 128 bits."""


@dataclass(frozen=True, init=False)
class Key:
    """The name of a random stream: 128 bits.

    Args:
        seed: any integer; equal seeds give equal keys on every machine.

    Attributes:
        bits: the 128 bits, as an integer; a seed for a generator of NumPy's.

    Raises:
        UsageError: the seed is no integer.

    Examples:
        >>> key = dn.Key(0)
        >>> key.fold_in("w") == dn.Key(0).fold_in("w"), key.fold_in("w") == key.fold_in("b")
        (True, False)
        >>> generator = np.random.default_rng(key.fold_in("w").bits)
        >>> generator.normal(size=3).shape
        (3,)
    """

    bits: int

    def __init__(self, seed: int):
        if not is_int(seed):
            raise UsageError(f"Key: expected an integer seed, got {seed!r}")
        digest = blake2b(f"seed {int(seed)}".encode(), digest_size=_BYTES).digest()
        object.__setattr__(self, "bits", int.from_bytes(digest, "little"))

    def fold_in(self, data: int | str) -> Key:
        """Return the child key that is named `data`.  Different data give independent streams.

        Raises:
            UsageError: `data` is neither an int nor a string.
        """
        if type(data) not in (int, str) and not (isinstance(data, str) or is_int(data)):
            raise UsageError(f"Key.fold_in: expected an int or a string, got {data!r}")
        text = b"%d%b" % (self.bits, name_of_child(data))
        digest = blake2b(text, digest_size=_BYTES).digest()
        child = object.__new__(Key)
        object.__setattr__(child, "bits", int.from_bytes(digest, "little"))
        return child

    def split(self, n: int) -> tuple[Key, ...]:
        """Return `n` independent child keys, those that `fold_in` names 0 to n - 1.

        Raises:
            UsageError: n is less than 1.
        """
        require_count("Key.split", "n", n)
        return tuple(self.fold_in(i) for i in range(n))


@dataclass(frozen=True)
class Keys:
    """Several keys in the place of one; `fold_in(i)` returns the one with index i.

    Args:
        keys: the keys.

    Raises:
        IndexError: by `fold_in`, where there is no such key.

    Examples:
        >>> from dualnet.random import Keys
        >>> left, right = dn.Key(0).split(2)
        >>> Keys((left, right)).fold_in(1) == right
        True
    """

    keys: tuple[Key, ...]

    def fold_in(self, i: int) -> Key:
        """Return the key with index i."""
        return self.keys[i]


def require_key(where: str, key: object) -> None:
    """Raise a UsageError unless a key is one, or stands for one.

    Args:
        where: the function that asks, for the message.
        key: what should be a key.

    Raises:
        UsageError: it is none.

    Examples:
        >>> from dualnet.random import require_key
        >>> require_key("init", 7)
        Traceback (most recent call last):
        dualnet.errors.UsageError: init: expected a Key, got 7; write dn.Key(7)
    """
    if not hasattr(key, "fold_in"):
        seed = key if is_int(key) else 0
        raise UsageError(f"{where}: expected a Key, got {key!r}; write dn.Key({seed})")


def name_of_child(data: int | str) -> bytes:
    """Return what is hashed with a key to get the child that is named `data`.

    Examples:
        >>> from dualnet.random import name_of_child
        >>> name_of_child(3), name_of_child("w")
        (b' index 3', b' name w')
    """
    kind = "name" if isinstance(data, str) else "index"
    return f" {kind} {data}".encode()


def descendants(key: Key | Keys, derivations: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """Derive many keys at once, as `Key.fold_in` derives one.

    Args:
        key: the first key, number 0, or several, which are its children.
        derivations: for each further key the number of its parent, and its `name_of_child`.

    Returns:
        The 16 bytes of each key, the least significant one first.

    Examples:
        >>> from dualnet.random import descendants, name_of_child
        >>> names = [(0, name_of_child("w")), (1, name_of_child(2))]  # a child, and its child
        >>> keys = descendants(dn.Key(0), names)
        >>> int.from_bytes(keys[2], "little") == dn.Key(0).fold_in("w").fold_in(2).bits
        True
    """
    if isinstance(key, Keys):
        given = {name_of_child(i): _bytes(child) for i, child in enumerate(key.keys)}
        keys = [b""]
    else:
        given, keys = {}, [_bytes(key)]
    for parent, name in derivations:  # without calls of Python functions, as there may be many
        if given and parent == 0:
            keys.append(given[name])
            continue
        text = b"%d%b" % (int.from_bytes(keys[parent], "little"), name)
        keys.append(blake2b(text, digest_size=_BYTES).digest())
    return keys


def _bytes(key: Key) -> bytes:
    """Return the bytes of a key, the least significant one first."""
    return key.bits.to_bytes(_BYTES, "little")
