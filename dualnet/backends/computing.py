"""When what is noted is computed: together, by few kernels, and before memory changes.

A node that is asked for is computed with all others that are asked for at the same time.  Nodes of
one shape that have parts in common become one kernel (`fused`).  Reductions on which they depend
come first, and before these the random numbers that were noted.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import cupy

from dualnet.backends import draws, fused
from dualnet.backends.expressions import Node, Number
from dualnet.types import Array, Shape

PENDING: list[weakref.WeakKeyDictionary[Node, None]] = [weakref.WeakKeyDictionary()]
"""The nodes for which lazy arrays stood that were not computed, so that they can be before memory
is overwritten.  They are in the order in which they were noted, so that every step computes them by
the same kernels.  The last set belongs to the innermost `lane` that goes on now."""

UNDRAWN: list[tuple[Array, draws.Draw]] = []
"""The arrays that stand for random numbers that are not drawn yet."""


def draw_all() -> None:
    """Draw all that is noted and not drawn yet."""
    if UNDRAWN:
        noted = list(UNDRAWN)
        UNDRAWN.clear()
        draws.fill_many(*zip(*noted, strict=True))


@contextmanager
def lane() -> Generator[None]:
    """Keep apart what is noted on a stream of its own, beside which other streams work.

    What is noted inside is not computed on the stream of another lane.  Random numbers are drawn on
    the stream of the lane, at the latest when it ends.  All else may stay noted until the streams
    are joined, and arrays of all lanes can then be computed together.

    Arrays that several lanes read must be computed before the first one begins; see `compute_all`.
    """
    PENDING.append(weakref.WeakKeyDictionary())
    try:
        yield
        draw_all()
    finally:
        noted = PENDING.pop()
        PENDING[-1].update(noted)


def compute_all() -> None:
    """Compute every lazy array that was noted in the present lane, and outside of one all.

    That is needed before memory is overwritten that some of them read, and before other streams may
    use them.
    """
    pending = PENDING[-1]
    compute([node for node in list(pending) if node.array is None and node.is_held])
    pending.clear()


def compute(nodes: Sequence[Node], into: Sequence[Array] | None = None) -> None:
    """Compute nodes together, so that few kernels are launched.

    Args:
        nodes: the nodes; they are known afterwards.
        into: for each the contiguous CuPy array, of its shape and dtype, to write it to; None for
            new ones.
    """
    targets: list[Any] = [None] * len(nodes) if into is None else list(into)
    wanted: dict[Node, Any] = {}
    views = []
    for node, target in zip(nodes, targets, strict=True):
        if node.array is None:
            if target is None and node.shares_memory:
                views.append(node)
            else:
                wanted.setdefault(node, target)
    for view in views:
        if view not in wanted and view.shown.array is None:
            wanted.setdefault(view.shown, None)
    draw_all()
    for node in reductions_before(list(wanted)):
        fused.reduce(node)
    for node in wanted:
        _show(node)
    wanted = _still_wanted(wanted)
    jobs = [fused.Job(nodes, {n: wanted[n] for n in nodes}) for nodes in _clusters(list(wanted))]
    fused.launch(jobs)
    for view in views:
        _show(view)


def _show(node: Node) -> None:
    """Make a rearranged node known if what it shows is known: as a view, without a kernel."""
    if node.array is None and node.axes is not None:
        (inner,) = node.inputs
        _show(inner)
        if inner.array is not None:
            node.become(view_of(inner.array, node.shape, node.axes))


def _still_wanted(wanted: dict[Node, Any]) -> dict[Node, Any]:
    """Return the nodes that are not known yet, and copy those that are known to their targets."""
    for node, target in wanted.items():
        if node.array is not None and target is not None:
            cupy.copyto(target, node.array)
    return {node: target for node, target in wanted.items() if node.array is None}


def reductions_before(nodes: list[Node]) -> list[Node]:
    """Return the reductions on which nodes depend, in an order in which they can be computed."""
    order: list[Node] = []
    seen: set[Node] = set()

    def visit(node: Any) -> None:
        if isinstance(node, Number) or node.array is not None or node in seen:
            return
        seen.add(node)
        for x in node.inputs:
            visit(x)
        if node.reduction is not None:
            order.append(node)

    for node in nodes:
        visit(node)
    return order


def _clusters(nodes: list[Node]) -> list[list[Node]]:
    """Put nodes together that have one shape and parts in common; each cluster is one kernel."""
    clusters: list[tuple[list[Node], set[Node]]] = []
    for node in nodes:
        parts = _parts(node)
        apart = []
        together, all_parts = [node], parts
        for others, theirs in clusters:
            if others[0].shape == node.shape and not parts.isdisjoint(theirs):
                together, all_parts = [*others, *together], all_parts | theirs
            else:
                apart.append((others, theirs))
        clusters = [*apart, (together, all_parts)]
    return [nodes for nodes, _ in clusters]


def _parts(node: Node) -> set[Node]:
    """Return the nodes of an expression that are still to be computed."""
    parts, left = set(), [node]
    while left:
        here = left.pop()
        if isinstance(here, Node) and here.array is None and here not in parts:
            parts.add(here)
            left += here.inputs
    return parts


def view_of(array: Array, shape: Shape, axes: tuple[int | None, ...]) -> Array:
    """Return a view of a CuPy array with its axes rearranged as `lazy_array.rearranged` says."""
    steps = [0] * len(shape)
    for n, step, axis in zip(array.shape, array.strides, axes, strict=True):
        if axis is not None and n > 1:
            steps[axis] = step
    return cupy.lib.stride_tricks.as_strided(array, shape, tuple(steps))
