"""One kernel for a whole expression: its text is generated, compiled once, and launched.

All arrays of an expression are read once, and what is computed on the way stays in registers.  So a
chain of functions costs the memory traffic of its ends.  Entries that somebody may still ask for
are written in the same pass.

Each thread computes `_AT_ONCE` neighboring entries of the result where sizes allow it, so that it
accesses memory by as many bytes at once as a device can.  Multiplications and additions are not
contracted, so that every entry has the very bits that CuPy's own kernels give, one function at a
time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from dualnet.backends import reductions
from dualnet.backends.expressions import Node
from dualnet.backends.fused_text import (
    THREADS,
    Expression,
    Layout,
    elementwise_text,
    reduction_text,
    sizes_of,
)
from dualnet.types import Array

_AT_ONCE = 4
_MOST_JOBS = 24
"""How many jobs one launch serves at most; the addresses of their arrays are arguments."""


class Job:
    """Roots that are computed by one kernel, with all that its launch takes.

    Args:
        roots: nodes of one shape.
        wanted: node → the contiguous array to write it to, or None for a new one.
        writes_held: whether other nodes are written too, if somebody holds them.
    """

    def __init__(
        self, roots: Sequence[Node], wanted: dict[Node, Array | None], writes_held: bool = True
    ):
        self.expression = Expression(roots)
        held = [n for n in self.expression.names if writes_held and _has_own_memory(n)]
        self.nodes = [*wanted, *(n for n in held if n not in wanted)]
        self.written = []
        for node in self.nodes:
            target = wanted.get(node)
            self.written.append(cupy.empty(node.shape, node.dtype) if target is None else target)
        self.read = [array for array, _ in self.expression.arrays]
        self.layout = Layout(self.expression.shape, [steps for _, steps in self.expression.arrays])
        self.size = math.prod(self.expression.shape)

    def width(self) -> int:
        """Return how many neighboring entries a thread computes."""
        aligned = not any(a.data.ptr % (_AT_ONCE * a.itemsize) for a in self.written)
        divides = self.layout.is_flat or self.layout.sizes[-1] % _AT_ONCE == 0
        return _AT_ONCE if aligned and divides else 1

    def finish(self) -> None:
        """Note that the nodes are known now."""
        for node, array in zip(self.nodes, self.written, strict=True):
            node.become(array)


def _has_own_memory(node: Node) -> bool:
    """Whether somebody may ask for a node's entries, which lie nowhere yet and will be no view."""
    return node.is_held and node.array is None and not node.shares_memory


def launch(jobs: Sequence[Job]) -> None:
    """Compute jobs, those of one kind by one launch; their nodes become known."""
    groups: dict[tuple, list[tuple[Job, int]]] = {}
    for job in jobs:
        if job.size:
            width = job.width()
            key = (job if not job.layout.is_flat else None, width, *_kind(job, width))
            groups.setdefault(key, []).append((job, width))
    for alike in groups.values():
        for start in range(0, len(alike), _MOST_JOBS):
            some = [job for job, _ in alike[start : start + _MOST_JOBS]]
            _launch(some, alike[0][1])
    for job in jobs:
        job.finish()


def _kind(job: Job, width: int) -> tuple:
    """Return what jobs that one launch can serve have in common."""
    dtypes = tuple(a.dtype.char for a in (*job.read, *job.written))
    numbers = tuple((repr(value), dtype.char) for value, dtype in job.expression.numbers)
    at_once = tuple(job.layout.is_read_at_once(k, a, width) for k, a in enumerate(job.read))
    single = tuple(steps[-1] for steps in job.layout.steps)
    results = tuple(job.expression.names[node] for node in job.nodes)  # which value goes where
    lines = tuple(job.expression.lines)
    return lines, results, dtypes, numbers, at_once, single, job.layout.index


def _launch(jobs: Sequence[Job], width: int) -> None:
    """Launch one kernel for jobs of one kind."""
    job = jobs[0]
    blocks = [-(-j.size // (THREADS * width)) for j in jobs]
    firsts = np.cumsum([0, *blocks]).tolist()
    sizes = [*(j.size for j in jobs), *firsts[:-1], *sizes_of(job.layout)]
    text = elementwise_text(job, len(jobs), width)
    _compiled(text)((firsts[-1],), (THREADS,), _arguments(jobs, sizes))


def _arguments(jobs: Sequence[Job], sizes: Sequence[int]) -> tuple:
    """Return the arguments that stand for the parameters of `_parameters`."""
    addresses = [a.data.ptr for job in jobs for a in (*job.read, *job.written)]
    numbers = [
        value.place(dtype) if hasattr(value, "place") else dtype.type(value)
        for value, dtype in jobs[0].expression.numbers
    ]
    return _by_value(addresses, np.uint64), _by_value(sizes, np.int64), *numbers


def _by_value(numbers: Sequence[int], dtype: Any) -> np.ndarray:
    """Return numbers as a struct that a kernel takes by value; it has at least one."""
    numbers = list(numbers) or [0]
    return np.array(numbers, dtype).view([("at", dtype, (len(numbers),))])


@functools.cache
def _compiled(text: str) -> Any:
    """Compile the text of a kernel."""
    module = cupy.RawModule(code=text, options=("--std=c++17", "--fmad=false"))
    return module.get_function("elementwise")


# --- reductions ----------------------------------------------------------------------------------


def reduce(node: Node) -> None:
    """Compute a node that is a reduction of an expression, which need not be stored for it."""
    (inner,) = node.inputs
    kind, axes, divisor = node.reduction
    job = Job([inner], {}, writes_held=kind == "sum")  # others may read entries more than once
    plan = reductions.reduction_plan(kind, inner.dtype, inner.shape, axes)
    out = cupy.empty(plan.shape, plan.result_dtype)
    prelude, parameters, names = reduction_text(job, plan.width, inner)
    code = reductions.source_with(prelude, ", ".join(parameters), ", ".join(names))
    module = _compiled_reduction(code, (*reductions.options(plan), "--fmad=false"))
    operands = _arguments([job], sizes_of(job.layout))
    reductions.launch(plan, module, operands, out, divisor)
    job.finish()
    node.become(out.reshape(node.shape))


@functools.cache
def _compiled_reduction(code: str, options: tuple[str, ...]) -> Any:
    """Compile the source of a reduction."""
    return cupy.RawModule(code=code, options=options)
