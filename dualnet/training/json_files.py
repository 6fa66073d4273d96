"""JSON files of run folders, which may be damaged or have come from anybody, are read here alone.

`config.json`, `seeds.json` and `network.json` are sealed: a digest in them tells whether all that
numbers depend on is as it was written.  Without it a wrong digit would be another learning rate,
without a word.  Whoever changes such a file on purpose deletes the line of the digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from dualnet.files import read_file
from dualnet.naming import shortened
from dualnet.training.bad_files import damaged, unreadable

MOST_BYTES, MOST_VALUES = 48 << 20, 1_500_000
"""How many bytes and values a file may have, so that reading takes less than 500 MB.  In
`network.json` each feature that is standardized has two numbers of some 27 bytes."""
DEEPEST = 256
"""How many lists and objects may lie inside one another; a layer inside another makes five."""
SEALED = ("config.json", "seeds.json", "network.json")
"""The files that are sealed."""
SEAL = "sha256"
"""The name of the digest in a sealed file."""
_NOT_SEALED = ("data", "where", "versions", "machine", "blas_threads", "command")
"""What may be otherwise when a run goes on, and is compared then."""

_MOST_DIGITS = 40
"""Of a whole number; seeds may have 128 bits."""
_MOST_CHARACTERS = 100
"""Of another number."""


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a file is to hold, with a digest of it."""
    return {**data, SEAL: _digest(json.loads(json.dumps(data)))}


def read_json(file: Path, remedy: str = "", finite: bool = True) -> dict[str, Any] | None:
    """Return the object in a file without its digest; None if there is no such file.

    Args:
        file: the path of the file.
        remedy: what to do if it is damaged; for the error message.
        finite: whether NaN and infinities, which JSON does not have, are refused.

    Raises:
        DataError: the file is damaged, too large, or no regular file.
        UsageError: it cannot be read.
    """
    try:
        content = read_file(file, MOST_BYTES)
        if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES} values")
        data = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_doubles,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_refused if finite else float,
        )
        if not isinstance(data, dict):
            raise ValueError("it holds no object")
        if _depth(data) > DEEPEST:
            raise RecursionError
        if SEAL in data and data.pop(SEAL) != _digest(data):
            raise ValueError(
                f"it is not as it was written; if you have changed it, delete its line {SEAL!r}"
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(file, error) from error
    except RecursionError:
        raise damaged(file, f"it is nested more than {DEEPEST} deep", remedy) from None
    except ValueError as error:  # also of UTF-8
        raise damaged(file, error, remedy) from error
    return data


def _digest(data: dict[str, Any]) -> str:
    kept = {name: value for name, value in data.items() if name not in _NOT_SEALED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _depth(value: Any) -> int:
    """Return how many lists and dicts lie inside one another at most."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [x for one in level for x in (one.values() if isinstance(one, dict) else one)]
    return depth


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {shortened(name, 60)!r} twice")
        found[name] = value
    return found


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    if len(text) > _MOST_CHARACTERS or not math.isfinite(value := float(text)):
        raise ValueError(f"it has the number {shortened(text, 60)}, which is too large or too long")
    return value


def _refused(name: str) -> float:
    raise ValueError(f"it has the number {name}, which JSON does not have")
