"""Commands in processes that are forked, watched and made to fail; see `fork_server.py`.

To start Python and import dualnet takes longer than all that a small run does.  So both are done
once, and each command is a fork: hundreds of crash points are a matter of seconds.
"""

import contextlib
import enum
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
COMPILER = shutil.which("gcc")
MISSING = None
"""Why commands cannot be watched here; None if they can."""
if sys.platform != "linux":
    MISSING = f"the watching library replaces functions as Linux does, and this is {sys.platform}"
elif COMPILER is None:
    MISSING = "gcc, which compiles the watching library, is not here; apt install gcc brings it"


class Fault(enum.IntEnum):
    """What happens at an operation, as in `file_operations.c`."""

    NONE = 0
    KILL = 1  # the process is killed before it
    TEAR = 2  # the process is killed when half of a write is done
    FAIL_ONCE = 3  # it fails
    FAIL_FROM = 4  # it fails, a write after its first half, and all that follow
    SHORT = 5  # half of a write is done, which is no error


@dataclass(frozen=True)
class Job:
    """A command and what happens to it.

    Attributes:
        argv: the words behind `dualnet`.
        folder: where it works, and below which its operations are counted.
        fault: what happens at operation `at`, counted from 1.
        error: with which error an operation fails.
        kill_after: after how many seconds it is killed; None for not at all.
        steps: the file that counts the steps of training; None for none.
        pictures: whether pictures are drawn, if matplotlib is installed.
    """

    argv: tuple[str, ...]
    folder: Path
    fault: Fault = Fault.NONE
    at: int = 0
    error: int = errno.EIO
    kill_after: float | None = None
    steps: Path | None = None
    pictures: bool = False


class Done(NamedTuple):
    """How a command ended.

    Attributes:
        code: the exit code; negative for a signal.
        out, err: what it printed.
        operations: the name and path of each file operation.
        seconds: from when it began to when it and all that ran beside it had ended.
    """

    code: int
    out: str
    err: str
    operations: list[str]
    seconds: float


class Server:
    """The Python that forks; it ends with the `with` block."""

    def __enter__(self):
        self._kept = contextlib.ExitStack()
        self._own = Path(self._kept.enter_context(tempfile.TemporaryDirectory()))
        shim = self._own / "file_operations.so"
        flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
        subprocess.run([COMPILER, *flags, "-o", shim, HERE / "file_operations.c"], check=True)
        paths = [str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OPENBLAS_NUM_THREADS": "1",  # threads of a library do not survive a fork
            "PATH": "",  # no git is asked for the commit, which takes longer than to train
            "DUALNET_CACHE": str(self._own / "cache"),
        }
        self._process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py", shim],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        self._process.communicate()
        self._kept.close()

    def run(self, *jobs):
        """Do jobs at the same time, and return how each of them ended."""
        told = []
        for i, job in enumerate(jobs):
            files = {name: self._own / f"{name}-{i}" for name in ("out", "err", "log")}
            told.append({**asdict(replace(job, folder=job.folder.resolve())), **files})
        began = time.monotonic()
        self._process.stdin.write(json.dumps(told, default=str) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        seconds = time.monotonic() - began
        return [
            Done(
                code,
                *(one[name].read_text() for name in ("out", "err")),
                one["log"].read_text(errors="surrogateescape").splitlines(),
                seconds,
            )
            for one, code in zip(told, codes, strict=True)
        ]
