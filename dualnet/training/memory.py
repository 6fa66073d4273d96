"""How much memory a run takes, and what would fit where it does not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dualnet.errors import BackendError
from dualnet.naming import assigned, named
from dualnet.training.settings import Settings


@contextmanager
def out_of_memory_explained(settings: Settings, seeds: int = 1) -> Iterator[None]:
    """Turn a MemoryError into a BackendError that says which settings would make the work fit.

    Args:
        settings: of the work.
        seeds: how many runs with these settings are side by side.
    """
    try:
        yield
    except MemoryError as error:
        options = settings.rule_options
        k = f", k = {options['tangents']}" if "tangents" in options else ""
        lower = [named("batch_size")]
        if "tangent_chunk" in options:
            chunk = options["tangent_chunk"]
            none = f"no {named('tangent_chunk')}"
            k += f", {none if chunk is None else assigned('tangent_chunk', chunk)}"
            lower.insert(0, named("tangent_chunk"))
        elif "tangents" in options:
            lower.insert(0, named("tangents"))
        if seeds > 1:
            k += f", {seeds} seeds at once"
            lower.insert(0, f"the number of {named('seeds')}")
        raise BackendError(
            f"backend {settings.backend}: out of memory with batch size {settings.batch_size}{k}: "
            f"{str(error).rstrip('.')}{_what_would_fit(error, settings)}; lower "
            f"{' or '.join(lower)}, raise {named('shards')}, or take a smaller model; what was "
            "checkpointed is kept"
        ) from error


def _what_would_fit(error: MemoryError, settings: Settings) -> str:
    """Say what a device has, and how large a batch may be at most; nothing for the host.

    A step that fails had taken some bytes and asked for more.  In proportion to these, the largest
    batch is overestimated: the rest of the step would have asked for more still, and parameters
    take the same bytes for a smaller batch.
    """
    if settings.backend != "cupy":
        return ""
    from dualnet.backends.cupy_backend import device_memory  # which is not needed on the host

    free, total = device_memory()
    text = f"; the device has {total:,} bytes, {free:,} of them free"
    sizes = re.search(r"allocating ([\d,]+) bytes \(allocated so far: ([\d,]+) bytes", str(error))
    if sizes is None:
        return text
    asked, taken = (int(size.replace(",", "")) for size in sizes.groups())
    most = settings.batch_size * total // (asked + taken)
    if most >= settings.batch_size:
        return text  # others hold the rest, or it is in pieces
    return f"{text}; of such a batch, no more than {most} would fit"


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
