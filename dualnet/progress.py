"""Progress bars: of at most 79 characters in a terminal, a notebook's own there, none in a log."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from dualnet.console import Patient, stay_silent


def progress_bar(over: Iterable[Any] | None = None, *, quiet: bool = False, **how: Any) -> tqdm:
    """Return a progress bar, which is written to standard error.

    Args:
        over: what the bar goes over, if it is to be gone over.
        quiet: whether nothing is shown.
        **how: what else tqdm takes, such as `total` and `desc`.
    """
    terminal = _is_terminal(sys.stderr)
    if terminal:
        how = {"ncols": min(79, shutil.get_terminal_size().columns - 1), **how}
        how["file"] = Patient(sys.stderr)  # a terminal may be closed
    # With None, tqdm shows nothing where standard error is no terminal, but for notebooks.
    hidden = quiet or terminal is None
    if terminal and not quiet:
        stay_silent()
    return tqdm(over, disable=hidden or None, **how)


def _is_terminal(stream: Any) -> bool | None:
    """Return whether a stream is a terminal; None if it is closed or not there."""
    try:
        return None if stream is None else stream.isatty()
    except ValueError:
        return None
