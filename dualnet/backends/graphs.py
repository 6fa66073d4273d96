"""Record a pure function of arrays as a CUDA graph, and repeat the graph from then on.

A step of training is many short kernels, and the host has to start each of them.  A graph is
started as a whole.  It always works in the same memory: its arguments are copied to the arrays
`before`, and its results are copied from the arrays `after`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import cupy
import numpy as np

from dualnet import tree
from dualnet.backends import lazy
from dualnet.backends.placeholders import Now, PlaceholderKey, PlaceholderNumber, Slots
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

_PLAIN_CALLS = 2
"""How many plain calls come before a function is recorded.  In these, kernels are compiled and
libraries loaded, which is not allowed while a stream captures."""

_ALIGNMENT = 256
"""Bytes to a multiple of which the arrays of a piece of memory are aligned."""


class Recorded:
    """A function that is recorded once it has been called often enough with the same shapes.

    From then on, calls with these shapes repeat the recording.  Calls with other shapes run the
    function itself.  If the function cannot be recorded, all calls run the function itself, and a
    message on standard error says why.

    Args:
        function: `function(carried, batch, key, numbers) -> (carried, results)`, a pure function.
            `carried`, `batch` and `results` are trees of CuPy arrays, and `numbers` are numbers by
            name.  `carried` keeps its structure, shapes and dtypes.  Random numbers must be drawn
            by the backend with keys derived from `key`.  The numbers may be multiplied and given
            to an optimizer; the function does nothing else with them.

    Attributes:
        pool: the memory pool from which the recorded function takes its memory.
        refusal: why the function cannot be recorded; None if that is not known.
    """

    def __init__(self, function: Callable):
        self._function = function
        self._seen: Counter[tuple] = Counter()
        self._recording: _Recording | None = None
        self.pool = _pool()
        self.refusal: str | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether calls with the same shapes repeat a recording now."""
        return self._recording is not None

    def __call__(
        self, carried: Tree, batch: Tree, key: Key, numbers: dict[str, float]
    ) -> tuple[Tree, Tree]:
        """Return what the function returns.

        The arrays of `carried` that a repetition returns keep their values until the call after
        the next.
        """
        if self._recording is None and self.refusal is None and self._seen_often(carried, batch):
            self._record(carried, batch, list(numbers))
        if self._recording is None or not self._recording.fits(carried, batch):
            return lazy.force(lazy.run(self._function, carried, batch, key, numbers))
        return self._recording.repeat(carried, batch, Now(key, numbers))

    def _seen_often(self, carried: Tree, batch: Tree) -> bool:
        """Count calls with these shapes, and say whether there were enough of them."""
        outline = _outline((carried, batch))
        self._seen[outline] += 1
        return self._seen[outline] > _PLAIN_CALLS

    def _record(self, carried: Tree, batch: Tree, numbers: list[str]) -> None:
        """Record the function, or note and print why it cannot be recorded."""
        try:
            self._recording = _Recording(self._function, carried, batch, numbers, self.pool)
        except Exception as error:  # of any kind: what CuPy and CUDA's libraries do not allow
            # The error itself is not kept, because its traceback holds all arrays of the attempt.
            self.refusal = f"{type(error).__name__}: {error}"
        if self.refusal is not None:
            self.pool.free_all_blocks()
            print(
                f"--graph: this step cannot be recorded ({self.refusal}); it goes on without",
                file=sys.stderr,
            )


class _Recording:
    """A CUDA graph, and the memory that it reads and writes."""

    def __init__(
        self, function: Callable, carried: Tree, batch: Tree, numbers: list[str], pool: Any
    ):
        self._slots = Slots()
        self._before = _ArrayBlock(carried)
        self._batch = tree.map(cupy.empty_like, batch)
        placeholders = {name: PlaceholderNumber(self._slots, name) for name in numbers}
        self._before.copy_from(carried)  # loads the kernels by which `_after` will copy
        cupy.get_default_memory_pool().free_all_blocks()  # what plain calls left is needed now
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream, cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                new, results = lazy.run(
                    *(function, self._before.arrays, self._batch),
                    *(PlaceholderKey(self._slots), placeholders),
                )
                self._after = _ArrayBlock(new)
                lazy.store(tree.leaves(new), tree.leaves(self._after.arrays))
                self._results = lazy.force(results)
                _require_arrays(self._results)
            except BaseException:
                _abandon(stream)
                raise
            self._graph = stream.end_capture()
        if _outline(new) != _outline(carried):
            raise TypeError("what is carried from step to step does not keep its shapes")
        self._returned = [_ArrayBlock(carried), _ArrayBlock(carried)]  # the newest first

    def fits(self, carried: Tree, batch: Tree) -> bool:
        """Whether these arrays have the shapes and dtypes of those in the recording."""
        known = any(carried is block.arrays for block in self._returned)
        return _outline(batch) == _outline(self._batch) and (
            known or _outline(carried) == _outline(self._before.arrays)
        )

    def repeat(self, carried: Tree, batch: Tree, now: Now) -> tuple[Tree, Tree]:
        """Copy the arguments in, start the graph, and copy the results out."""
        self._before.copy_from(carried, self._returned)
        tree.map(cupy.copyto, self._batch, batch)
        self._slots.fill(now)
        self._graph.launch()
        self._returned.reverse()  # the older of two results is overwritten, the last one stays
        newest = self._returned[0]
        cupy.copyto(newest.memory, self._after.memory)
        return newest.arrays, tree.map(lambda x: x.copy(), self._results)


class _ArrayBlock:
    """Arrays that lie side by side in one piece of memory, so that one copy moves all of them.

    Args:
        like: a tree of arrays, which says the structure, shapes and dtypes.

    Attributes:
        memory: the piece of memory, as bytes.
        arrays: a tree like `like`, whose leaves are parts of the memory.
    """

    def __init__(self, like: Tree):
        sizes = [-(-x.nbytes // _ALIGNMENT) * _ALIGNMENT for x in tree.leaves(like)]
        self.memory = cupy.empty((sum(sizes),), np.uint8)
        starts = iter(np.cumsum([0, *sizes]).tolist())
        self.arrays = tree.map(lambda x: self._part(next(starts), x), like)

    def _part(self, start: int, x: Array) -> Array:
        """Return the memory from byte `start` on as an array of the shape and dtype of x."""
        return self.memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)

    def copy_from(self, values: Tree, blocks: Iterable[_ArrayBlock] = ()) -> None:
        """Copy a tree of arrays into this block.

        If the tree is the very one of one of `blocks`, a single copy moves all of it.
        """
        for block in blocks:
            if values is block.arrays:
                cupy.copyto(self.memory, block.memory)
                return
        tree.map(cupy.copyto, self.arrays, values)


def _pool() -> Any:
    """Make a memory pool for a recorded function.

    It keeps all memory that it took, also when there is no more memory.
    """

    def allocate(size: int) -> Any:
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            # After CUDA's own error, a pool would release its free blocks and try again.  But
            # recorded kernels will work in these blocks.
            raise MemoryError(f"no {size:,} bytes more for a recording") from error

    pool = cupy.cuda.MemoryPool(allocate)
    pool.set_limit(size=0)  # CUPY_GPU_MEMORY_LIMIT does not count: it would release free blocks too
    return pool


def _require_arrays(results: Tree) -> None:
    """Raise a TypeError unless all leaves are CuPy arrays."""
    for path, x in tree.items(results):
        if not isinstance(x, cupy.ndarray):
            raise TypeError(f"result {path or 'at the root'} is no array: {type(x).__name__}")


def _outline(arrays: Tree) -> tuple:
    """Return the path, shape and dtype of every leaf, to compare trees by."""
    return tuple((path, x.shape, x.dtype) for path, x in tree.items(arrays))


def _abandon(stream: Any) -> None:
    """End the capture of a recording that failed; the error that CUDA raises for it is ignored."""
    try:
        stream.end_capture()
    except Exception:
        return
