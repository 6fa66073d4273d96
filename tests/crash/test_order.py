"""What must last after a failure of power is on the disk before its name is, and then its name."""

from pathlib import PurePath

import pytest

from crash.scenarios import scenarios

DERIVED = {"metrics.csv", "gradients.csv", "curve.png", "gradients.png"}
"""What is written anew from the checkpoint when a run goes on."""


def split(operation):
    """What an operation does, and where."""
    return operation.split(" ", 1)


@pytest.mark.parametrize("name", ["a run", "more epochs", "seeds"])
def test_a_file_is_on_the_disk_before_its_name(name, server, tmp_path):
    one = scenarios(server, tmp_path)[name]
    _, log = one.undisturbed
    operations = [(what, PurePath(f"/{path.lstrip('/')}")) for what, path in map(split, log)]
    made = {path for what, path in operations if what == "mkdir"}
    for path in made:
        first = operations.index(("mkdir", path))
        there = (one.start / path.relative_to("/")).exists()
        assert there or ("fsync", path.parent) in operations[first:], path
    lasting = 0
    for at, (what, path) in enumerate(operations):
        if what != "rename" or path.name in DERIVED:
            continue
        of_file = [
            (earlier, partial)
            for earlier, partial in operations[:at]
            if partial.parent == path.parent and partial.name.startswith(f".{path.name}.")
        ]
        assert of_file[-1][0] == "fsync", path
        after = [later for later, other in operations[at + 1 :] if other == path.parent]
        assert after and after[0] == "fsync", path
        lasting += 1
    assert lasting > 5
