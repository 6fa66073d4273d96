"""A command of dualnet's, or a program, in a process of its own with the stand-in for CuPy.

    python tests/on_stand_in.py DEVICES train --backend cupy ...
    python tests/on_stand_in.py DEVICES program.py

At its end the process says on standard error which of so many devices it has used.
"""

import atexit
import runpy
import sys

import fake_cuda
import fake_cupy

from dualnet.command.main import script

fake_cuda.devices.count = int(sys.argv.pop(1))


def tell():
    """Say it in one piece, beside which other processes say the same."""
    used = " ".join(map(str, fake_cuda.devices.used))
    sys.stderr.write(f"devices used: {used}\n")


atexit.register(tell)
with fake_cupy.installed():
    if sys.argv[1].endswith(".py"):
        runpy.run_path(sys.argv[1], run_name="__main__")
    else:
        script()
