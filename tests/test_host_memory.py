"""The C library keeps freed memory where it is told to; each test is a process of its own."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = """
import resource
import numpy as np
from dualnet import backends

backends.get("numpy")

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20, np.float32) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages()  # the first arrays get memory in any case
print(pages())
"""


def pages(**environment):
    """Return how many pages arrays ask the system for that others were freed before."""
    command = [sys.executable, "-c", PAGES]
    around = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    env = {**around, "OPENBLAS_NUM_THREADS": "1", **environment}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told to keep memory"
)
def test_kept_memory_is_not_asked_for_anew_unless_the_user_said_how_it_is_handled():
    assert pages() < 20
    assert pages(MALLOC_MMAP_THRESHOLD_="65536") > 20 * 100


def test_the_page_on_runs_has_the_measured_ratios():
    root = Path(__file__).parent.parent
    rows = json.loads((root / "benchmarks/results/host_memory.json").read_text())
    text = (root / "docs/how-runs-work.md").read_text(encoding="utf-8")
    said = re.search(
        r"is ([\d.]+) to ([\d.]+) times as quick \(`python -m benchmarks.host_mem", text
    )
    ratios = [row["ratio"] for row in rows]
    assert said.groups() == (f"{min(ratios):.1f}", f"{max(ratios):.1f}")
