"""benchmarks/results/README.md: every file is named, and the tables of devices are in the files."""

import json
import re
from pathlib import Path

import pytest

from experiments.__main__ import EXPERIMENTS

RESULTS = Path(__file__).parent.parent / "benchmarks/results"
TEXT = (RESULTS / "README.md").read_text(encoding="utf-8")


def test_every_file_is_named():
    named = {f"{name}.{kind}" for name in EXPERIMENTS for kind in ("json", "png")}
    named |= set(re.findall(r"`([\w.-]+\.\w+)`", TEXT))
    assert {path.name for path in RESULTS.iterdir()} - {"README.md"} <= named


def figures(name):
    """Return the times of a file in ms, and the numbers of kernels."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for row in found["timings"]:
        yield from (
            1e3 * s for s in (*row.get("seconds", {}).values(), *row.get("host", {}).values())
        )
        yield 1e3 * row.get("floor", 0)
    for row in found["kernels"]:
        yield from (1e3 * row["seconds"], row["kernels"])


@pytest.mark.parametrize(
    ("table", "names"),
    [("networks", ("gpu-networks", "gpu-kernels")), ("mlp", ("gpu",))],
)
def test_the_tables_of_devices_are_the_committed_results(table, names):
    known = [x for name in names for x in figures(name)]
    (lines,) = re.findall(f"<!-- device {table} -->(.*?)<!-- end", TEXT, re.S)
    head, _, *rows = (line.split("|")[2:] for line in lines.strip().splitlines())
    cells = re.sub(r"k = \d+", "", " ".join(" ".join(row) for row in rows))
    printed = re.findall(r"\d+(?:\.(\d+))?", cells)
    assert len(head) > 3 and len(printed) > 15
    for match in re.finditer(r"\d+(?:\.(\d+))?", cells):
        digits = len(match[1] or "")
        assert match[0] in {f"{x:.{digits}f}" for x in known}, match[0]
