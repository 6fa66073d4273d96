"""Runs that `mpiexec` starts, for the tests of several processes."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import peers

ROOT = Path(__file__).parent.parent

SHORT = ("--epochs", 2, "--limit-train", 300, "--limit-test", 100, "--width", 16, "--quiet")
SHARED = ("-m", "dualnet", "train", "--processes", "mpi", *SHORT)


def kept(folder):
    """The arrays of a run's checkpoint, but for its times."""
    with np.load(folder / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["history"] = arrays.pop("history:")[:, :-1]  # the last column is seconds
    del arrays["sums:"]
    return arrays


class Mpiexec:
    """`mpiexec(size, *words)` starts so many processes of Python, and returns what they did."""

    def __init__(self):
        peers.peer("mpi4py", "mpi")
        beside = Path(sys.executable).with_name("mpiexec")
        self._program = str(beside) if beside.exists() else shutil.which("mpiexec")
        assert self._program, "mpi4py is here and mpiexec is not"

    def started(self, size, *words):
        """The processes, which run."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [self._program, "-n", str(size), sys.executable, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def __call__(self, size, *words):
        process = self.started(size, *words)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
