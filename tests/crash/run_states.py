"""What is in a run folder, without what no two runs share; and what may be there after a crash."""

import csv
import io
import json
import re

import numpy as np

LOCK = ".lock"
PARTIAL = re.compile(r"\..*\.partial")
_OF_ITS_OWN = re.compile(r"seconds|.*_bytes|seconds_per_step|run_dir")
"""Entries of a summary that differ between runs of the same numbers."""


def contents(folder):
    """The content of each file below a folder, by its path; all of it, but for times and places.

    Files that `write_file` has not finished and locks are left out.
    """
    return {
        str(path.relative_to(folder)): _READERS[path.suffix](path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK and not PARTIAL.fullmatch(path.name)
    }


def leftovers(folder):
    """The files that were not finished."""
    return [path.name for path in folder.rglob("*") if PARTIAL.fullmatch(path.name)]


def _arrays(data):
    """The arrays of an archive, as bytes, without the seconds of the history and of the epoch."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if "history:" in arrays:
        arrays["history:"] = arrays["history:"][:, :-1]
        arrays["sums:"] = arrays["sums:"][:-1]
    return {name: (x.dtype.str, x.shape, x.tobytes()) for name, x in arrays.items()}


def _table(data):
    """The rows of a table, without seconds."""
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert all(None not in row and None not in row.values() for row in rows), data
    return [{name: x for name, x in row.items() if name != "seconds"} for row in rows]


def _json(data):
    """The settings of a configuration, and all of another file but times and places."""
    data = json.loads(data)
    return _without_own(data.get("settings", data))


def _without_own(data):
    if isinstance(data, list):
        return [_without_own(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {name: _without_own(x) for name, x in data.items() if not _OF_ITS_OWN.fullmatch(name)}


_READERS = {".npz": _arrays, ".csv": _table, ".json": _json, ".png": lambda data: data}


def require_old_or_new(folder, before, after):
    """Assert that every file below a folder is whole, and that what they say may be true together.

    Args:
        folder: where a command was killed or failed.
        before: `contents` before the command.
        after: `contents` after an undisturbed one.
    """
    found = {n: x for n, x in contents(folder).items() if not n.endswith(".png")}
    assert found.keys() <= before.keys() | after.keys()
    for name, content in found.items():
        if name.endswith(("config.json", "network.json", "seeds.json", "summary.json")):
            assert content in (before.get(name), after.get(name)), name
        elif name.endswith(".csv"):
            assert content == after[name][: len(content)], name
        elif name.endswith("checkpoint.npz"):
            _require_history(name, content, found, after)


def _require_history(name, checkpoint, found, after):
    """Assert that a checkpoint, the table of its epochs and the best network are of one course."""
    epochs, columns = checkpoint["history:"][1]
    begun = checkpoint["history:"][2]
    assert begun == after[name]["history:"][2][: len(begun)]
    rows = found.get(name.replace("checkpoint.npz", "metrics.csv"), [])
    assert epochs - 1 <= len(rows) <= epochs
    best = found.get(name.replace("checkpoint.npz", "best.npz"))
    if best is not None:
        # it is written before or after the checkpoint
        whole = np.frombuffer(after[name]["history:"][2]).reshape(-1, columns)
        last = np.frombuffer(best["epoch:"][2], np.int64)[0]
        losses = whole[:, 3]
        expected = [1 + int(np.argmin(losses[:n])) for n in range(1, len(whole) + 1)]
        near = expected[max(0, epochs - 2) : epochs + 1]
        assert last in near, (last, near)
