"""Whether a run that goes on has the network, the classes and the examples that it began with."""

from __future__ import annotations

import json
import math
from typing import Any

from dualnet.errors import DataError, UsageError
from dualnet.naming import resumed
from dualnet.training.json_files import read_json
from dualnet.training.run_folder import NETWORK, RunFolder
from dualnet.training.surroundings import surroundings, what_differs


def require_same_run(folder: RunFolder, network: dict[str, Any] | None, data: str) -> str:
    """Make sure that a run goes on with what it began with.

    Args:
        folder: of the run.
        network: what `network.json` would hold; None if a layer cannot be written as text.
        data: the fingerprint of the data set.

    Returns:
        What else is not as it was, see `surroundings.what_differs`; "" for nothing.

    Raises:
        UsageError: it is another network, or another data set.
        DataError: `config.json` is damaged.
    """
    require_same_network(folder, network)
    before = folder.began_with()
    if before.get("data", data) != data:  # earlier versions did not write it
        known = str(before.get("data"))[:12]
        raise UsageError(
            f"{resumed(folder.path)}: expected the data set that the run began with, "
            f"whose SHA-256 begins with {known!r}, got one with {data[:12]}; give the same files "
            "or arrays, or start the run anew in another folder"
        )
    return what_differs(before, surroundings())


def require_same_network(folder: RunFolder, now: dict[str, Any] | None) -> None:
    """Raise a UsageError if layers, classes or preparation are not as `network.json` has them.

    Another mean means other examples; that of another processor may be rounded otherwise.

    Args:
        folder: of the run.
        now: what `network.json` would hold; None if a layer cannot be written as text.
    """
    file = folder.path / NETWORK
    try:
        before = read_json(file, finite=False)
    except (DataError, UsageError):
        return  # it is written anew
    if now is None or before is None:
        return
    for name, is_now in json.loads(json.dumps(now)).items():
        if name == "versions" or name not in before or _alike(before[name], is_now):
            continue
        what = "examples that are prepared as" if name == "preparation" else f"the {name} that"
        raise UsageError(
            f"{resumed(folder.path)}: expected {what} {file} says, got others; give the "
            "examples and the network that the run began with, or start it anew in another folder"
        )


def _alike(before: Any, now: Any) -> bool:
    """Return whether two values of JSON are equal, but for the rounding of numbers."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_alike(before[k], now[k]) for k in now)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_alike, before, now))
    if type(before) is float and type(now) is float:
        return math.isclose(before, now, rel_tol=1e-6, abs_tol=1e-9)
    return bool(before == now)
