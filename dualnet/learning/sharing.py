"""What processes may share of a batch: its examples, if its loss is a sum over them."""

from __future__ import annotations

from dualnet.backends.processes import ALONE, Processes
from dualnet.errors import UsageError
from dualnet.learning.task import Batch, Task
from dualnet.naming import assigned
from dualnet.nn.network import couples_examples, walk
from dualnet.nn.normalization import BatchNorm


def part_of_batch(processes: Processes, n: int) -> range:
    """Return which of the n examples of a batch this process measures.

    A process without any takes the first one for its shapes, and adds nothing.
    """
    whole = range(n)
    return whole if processes.shares == "tangents" else processes.part(whole) or whole[:1]


def require_own_part(batch: Batch, processes: Processes, examples: int) -> None:
    """Raise a UsageError unless a batch has the examples of this process, of so many in all."""
    own = len(part_of_batch(processes, examples))
    if len(batch.inputs) != own:
        raise UsageError(
            f"estimate_gradient: expected {own} of {examples} examples in process "
            f"{processes.rank}, got {len(batch.inputs)}; give it its own part, or leave out "
            "examples where the batch is whole"
        )


def normalizing_together(task: Task, processes: Processes, n: int) -> Processes:
    """Return the processes of whose examples batch norm takes its statistics.

    Raises:
        UsageError: another layer couples examples; or of n examples, one of these processes has
            none.
    """
    if processes.size == 1 or processes.statistics == "process" or not task.couples_examples:
        return ALONE
    require_batch_norm_alone(task)
    if n < processes.size:
        raise UsageError(
            f"estimate_gradient: batch norm takes its statistics of the examples of all "
            f"{processes.size} processes, and a batch has {n}; use larger batches, or "
            f"{assigned('statistics', 'process')}"
        )
    return processes


def require_sum_of_losses(task: Task) -> None:
    """Raise a UsageError if the loss of a batch cannot be shared by several processes."""
    if not task.losses_add_up:
        raise UsageError(
            "processes share a batch, whose loss must be a sum over examples; "
            f"{type(task.declared_loss).__name__} needs the whole batch; let them share directions "
            f"({assigned('share', 'tangents')}), or use one process"
        )


def require_batch_norm_alone(task: Task) -> None:
    """Raise a UsageError if a layer couples examples and is no batch norm.

    It would couple those of each process, and the estimate would not be that of one process.
    """
    for path, layer in walk(task.network, containers=True):
        around_one = any(couples_examples(child) for _, child in layer.layers)
        if layer.couples_examples and not isinstance(layer, BatchNorm) and not around_one:
            raise UsageError(
                f"{assigned('statistics', 'all')} is for batch norm, and the layer "
                f"{path or 'that is the network'}, of {type(layer).__name__}, couples examples in "
                f"another way; let processes share directions ({assigned('share', 'tangents')}), "
                f"or have it couple those of each process: {assigned('statistics', 'process')}"
            )
