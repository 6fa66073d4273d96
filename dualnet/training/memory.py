"""How much memory a run takes, and what would fit where it does not."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.data.room import container_limits
from dualnet.errors import BackendError
from dualnet.learning import RULES
from dualnet.learning.differences import Differences
from dualnet.learning.directions.activities import DrawsActivities
from dualnet.learning.weight_perturbation import WeightPerturbation
from dualnet.naming import assigned, named
from dualnet.nn import Layer, Sequential
from dualnet.nn.initial import shapes_alone
from dualnet.random import Key
from dualnet.training.settings import Settings, build, chosen_model
from dualnet.types import Shape


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


def require_memory(
    settings: Settings, network: Layer, in_shape: Shape, images: int = 1, seeds: int = 1
) -> None:
    """Raise a BackendError if a run takes more memory than there is, before it takes any.

    What it takes is estimated from below, so nothing is refused that would fit.

    Args:
        settings: of the run.
        network: as `assemble.network_of` makes it.
        in_shape: of an example.
        images: how many training images there are.
        seeds: how many runs with these settings are side by side.
    """
    has = machine_memory(settings.backend)
    if has is None:
        return
    with out_of_memory_explained(settings, seeds), shapes_alone():
        params, _, _ = network.init(Key(0), in_shape)
        widest = _widest(network, in_shape)
    parameters, size = tree.size(params), np.dtype(settings.dtype).itemsize
    weights = (seeds + 1) * parameters * size  # of every run, and one gradient
    if weights > has:
        least = f"{parameters:,} parameters and their gradient take {_gigabytes(weights)} at least"
        together = f"{named('seeds')}: {seeds} runs at once, " if seeds > 1 else ""
        fewer = f" or fewer {named('seeds')}" if seeds > 1 else ""
        raise BackendError(
            f"{together}{chosen_model(settings)}: {least}, this machine has {_gigabytes(has)}; "
            f"take a smaller model{fewer}"
        )
    k = _tangents_at_once(settings)
    rows = -(-min(settings.batch_size, images) // (settings.shards or settings.threads_so_far))
    carried = rows * widest * size
    if weights + k * carried <= has:
        return
    fits = (has - weights) // carried
    if k > 1 and fits:
        what = "tangent_chunk" if settings.rule_options.get("tangent_chunk") == k else "tangents"
        given, remedy = assigned(what, k), f"take no more than {assigned(what, fits)}"
    else:
        given, remedy = assigned("batch_size", settings.batch_size), "take a smaller batch"
    raise BackendError(
        f"{given}: a step takes {_gigabytes(weights + k * carried)} at least, this machine has "
        f"{_gigabytes(has)}; {remedy}, raise {named('shards')}, or take a smaller model"
    )


def machine_memory(backend: str) -> int | None:
    """Return the bytes that a process may have on the host, or that a device has.

    None stands for unknown.
    """
    if backend == "cupy":
        from dualnet.backends.cupy_backend import device_memory  # which is not needed on the host

        return device_memory()[1]
    limits = []
    with suppress(OSError, ValueError):  # with what the system may move to the disk
        sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        limits = [sum(1024 * int(sizes[n].split()[0]) for n in ("MemTotal", "SwapTotal"))]
    limits += container_limits()
    with suppress(ImportError):
        import resource  # Windows has none

        allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [allowed] if allowed != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def _widest(network: Layer, in_shape: Shape) -> int:
    """Return the most numbers of an example that a layer reads and writes, both at once.

    Only layers behind the first with parameters count: to them all rules bring tangents.
    """
    widest, started, shape = 0, False, in_shape
    for _, layer in network.layers if isinstance(network, Sequential) else ():
        params, _, out = layer.init(Key(0), shape)
        if started:
            widest = max(widest, math.prod(shape) + math.prod(out))
        started = started or bool(tree.leaves(params))
        shape = out
    return widest


def _tangents_at_once(settings: Settings) -> int:
    """Return how many tangents of activities a step holds at least; 1 if there are none."""
    rule: Any = build(RULES, "rule", settings.rule, settings.rule_options)
    if isinstance(rule, DrawsActivities):
        return int(rule.tangents)
    if isinstance(rule, WeightPerturbation) and not isinstance(rule, Differences):
        # Without a chunk, as many are at once as fit.
        return min(rule.tangents, rule.tangent_chunk or 1)
    return 1


def _gigabytes(size: float) -> str:
    """Return a size in words."""
    for unit in ("MB", "GB", "TB", "PB"):
        size /= 1000 if unit != "MB" else 10**6
        if size < 1000:
            break
    return f"{size:.3g} {unit}"


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
