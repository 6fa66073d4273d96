"""The C library keeps freed memory where it is told to; each test is a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = """
import resource
import numpy as np
from dualnet.training.host_memory import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20, np.float32) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

asked_anew = pages()
if keep_freed_memory():
    pages()  # the first arrays get memory in any case
    print(asked_anew, pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="for Linux with the GNU C library alone")
def test_kept_memory_is_not_asked_for_anew():
    done = subprocess.run([sys.executable, "-c", PAGES], check=True, capture_output=True, text=True)
    if not done.stdout:
        pytest.skip("this C library cannot be told to keep memory; the GNU C library can")
    anew, kept = map(int, done.stdout.split())
    assert anew > 20 * 100 and kept < 20


def test_the_design_page_has_the_measured_ratios():
    root = Path(__file__).parent.parent
    rows = json.loads((root / "benchmarks/results/host_memory.json").read_text())
    text = (root / "docs/design.md").read_text(encoding="utf-8")
    said = re.search(
        r"is ([\d.]+) to ([\d.]+) times as quick \(`python -m benchmarks.host_mem", text
    )
    ratios = [row["ratio"] for row in rows]
    assert said.groups() == (f"{min(ratios):.1f}", f"{max(ratios):.1f}")
