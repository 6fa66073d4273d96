"""The process keeps the memory of freed arrays: steps after the first ask the system for none."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from dualnet import backends

{start}

def work():
    for _ in range(5):
        np.ones(4 << 20) + 1.0

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(start, **environment):
    """Return how many pages a repeated computation asks the system for."""
    command = [sys.executable, "-c", FAULTS.format(start=start)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(out.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_freed_memory_is_kept_unless_the_user_said_how_it_is_handled():
    start = 'backends.get("numpy")'
    assert pages("") > 1000
    assert pages(start) < 100
    assert pages(start, MALLOC_MMAP_THRESHOLD_="65536") > 1000
