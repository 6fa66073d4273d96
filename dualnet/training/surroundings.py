"""What a run's numbers may depend on beside its settings: versions, machine, threads.

The same settings give the same numbers, bit for bit, only in the same surroundings: another NumPy
or processor may round sums otherwise.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.backends.blas import threads_now
from dualnet.naming import printable
from dualnet.version import checkout, version


def surroundings() -> dict[str, Any]:
    """Return versions, machine and command, for `config.json`."""
    return {
        "versions": {
            "dualnet": version(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "commit": _commit(),
        },
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "blas_threads": threads_now(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Return the commit of the package's own checkout; None if it lies in no such thing.

    Installed into an environment within somebody's repository, it is not theirs.  Git is asked by
    the place of this file alone, whatever its variables say, and may not start other programs.
    """
    if (root := checkout()) is None:
        return None
    this = Path(__file__).relative_to(root).as_posix()
    if _git(root, "ls-files", "--full-name", "--error-unmatch", this) != this:
        return None
    return _git(root, "rev-parse", "--verify", "HEAD")


def _git(root: Path, *command: str) -> str | None:
    """Return what git says to a command that only reads; None where it fails."""
    safe = ("--no-optional-locks", "-c", "core.fsmonitor=false")
    try:
        done = subprocess.run(
            ["git", *safe, *command],
            cwd=root,
            env={k: value for k, value in os.environ.items() if not k.startswith("GIT_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def what_differs(before: Any, now: Mapping[str, Any]) -> str:
    """Say in what surroundings differ; "" if they do in nothing but the command.

    Args:
        before: what `surroundings` returned when a run began, as its folder has it.  It may have
            come from somebody else, so that it may be anything.
        now: what it returns now.
    """
    old, new = (_flat(one) for one in (before, now))
    differ = [name for name, value in new.items() if old.get(name) != value]
    return ", ".join(f"{name} {old.get(name, 'unknown')} → {new[name]}" for name in differ)


def _flat(found: Any) -> dict[str, str]:
    """Return versions, machine and threads as words by their names."""
    found = found if isinstance(found, Mapping) else {}
    words = {"blas threads": found.get("blas_threads", "unknown")}
    for part in ("versions", "machine"):
        inside = found.get(part)
        words |= inside if isinstance(inside, Mapping) else {}
    return {name: printable(str(value)[:60]) for name, value in words.items()}
