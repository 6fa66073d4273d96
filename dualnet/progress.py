"""Progress bars: of at most 79 characters in a terminal, a notebook's own there, none in a log."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress_bar(over: Iterable[Any] | None = None, *, quiet: bool = False, **how: Any) -> tqdm:
    """Return a progress bar, which is written to standard error.

    Args:
        over: what the bar goes over, if it is to be gone over.
        quiet: whether nothing is shown.
        **how: what else tqdm takes, such as `total` and `desc`.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    width = min(79, shutil.get_terminal_size().columns - 1) if terminal else None
    # With None, tqdm shows nothing where standard error is no terminal, but for notebooks.
    return tqdm(over, ncols=width, disable=quiet or None, **how)
