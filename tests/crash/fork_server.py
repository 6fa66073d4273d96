"""A Python that has imported the commands once, and forks a child for each command that it is told.

A line on standard input is a list of jobs, as `forked.Job` makes them; their children begin at the
same moment.  A line on standard output is the list of their exit codes, negative for signals.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time

import numpy as np

from dualnet.command.main import script
from dualnet.training import loop

for module in ("dualnet.command.train", "matplotlib.backends.backend_agg"):
    with contextlib.suppress(ImportError):  # pictures are drawn only where matplotlib is
        importlib.import_module(module)

SECONDS = 100
"""After how long a child that does not end is killed."""


def serve(shim):
    """Answer every line of standard input.

    Args:
        shim: the compiled `file_operations.c`, which is loaded already.
    """
    watch = ctypes.CDLL(shim).watch
    for line in sys.stdin:
        jobs = json.loads(line)
        ready, go = os.pipe()
        children = []
        for job in jobs:
            child = os.fork()
            if not child:
                os.close(go)
                os.read(ready, 1)  # nothing comes, but the end once `go` is closed
                be(job, watch)
            children.append(child)
        os.close(ready)
        os.close(go)
        began = time.monotonic()
        for job, child in sorted(zip(jobs, children, strict=True), key=lambda one: _end(one[0])):
            if job["kill_after"] is not None:
                time.sleep(max(0.0, began + job["kill_after"] - time.monotonic()))
                os.kill(child, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


def _end(job):
    """When a job is killed."""
    return float("inf") if job["kill_after"] is None else job["kill_after"]


def be(job, watch):
    """Be the child that does a job, and end."""
    code = 1
    try:
        signal.alarm(SECONDS)
        for number, file in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(job["folder"])
        sys.argv = ["dualnet", *job["argv"]]
        if not job["pictures"]:
            leave_out_pictures()
        if job["steps"] is not None:
            count_steps(job["steps"])
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        watch(job["folder"].encode(), job["fault"], ctypes.c_long(job["at"]), job["error"], log)
        script()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def leave_out_pictures():
    """Let no picture be drawn, as where matplotlib is not installed."""
    sys.modules["matplotlib.backends.backend_agg"] = None


def count_steps(file):
    """Keep in a file, which outlives the process, how many steps of training were made."""
    counter, step = np.memmap(file, np.int64, "w+", shape=1), loop.estimate_gradient

    def counted(*args):
        done = step(*args)
        counter[0] += 1
        return done

    loop.estimate_gradient = counted


if __name__ == "__main__":
    serve(*sys.argv[1:])
