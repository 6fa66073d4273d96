"""A pure function of arrays, recorded once as a CUDA graph and repeated from then on.

A step of training is many short kernels, for each of which the host has to ask.  A graph is asked
for as a whole.  It works in places of its own: `before`, into which its arguments are copied, and
`after`, from which its results are.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from dualnet import tree
from dualnet.backends.placeholders import Now, PlaceholderKey, PlaceholderNumber, Slots
from dualnet.random import Key
from dualnet.tree import Tree

_PLAIN_CALLS = 2
"""Before a function is recorded: kernels are compiled and libraries loaded when first used, which
a recording does not allow."""

_ALIGNMENT = 256


class Repeated:
    """A function whose work is recorded when it has been called often enough with arrays of the
    same shapes; calls with other shapes are plain ones, and so are all if it cannot be recorded,
    which is said on standard error.

    Args:
        function: `function(carried, batch, key, numbers) -> (carried, results)`, pure: trees of
            CuPy arrays, a key, numbers by name; `carried` comes back as it went in, in structure,
            shapes and dtypes.  What depends on the key it must draw on the backend, and of the
            numbers it may only make multiples and give them to an optimizer.

    Attributes:
        pool: where a recorded function's own memory comes from.
        refusal: why it cannot be recorded, if so.
    """

    def __init__(self, function: Callable):
        self._function = function
        self._seen: Counter[tuple] = Counter()
        self._recording: _Recording | None = None
        self.pool = _pool()
        self.refusal: str | None = None

    @property
    def recorded(self) -> bool:
        """Whether calls of the same shapes are repetitions now."""
        return self._recording is not None

    def __call__(
        self, carried: dict[str, Tree], batch: Tree, key: Key, numbers: dict[str, float]
    ) -> tuple[dict[str, Tree], Tree]:
        """As the function.  Of a repetition, the arrays of `carried` stay as they are until the
        call after the next."""
        if self._recording is None and self.refusal is None and self._seen_often(carried, batch):
            self._record(carried, batch, list(numbers))
        if self._recording is None or not self._recording.fits(carried, batch):
            return self._function(carried, batch, key, numbers)
        return self._recording.repeat(carried, batch, Now(key, numbers))

    def _seen_often(self, carried: Tree, batch: Tree) -> bool:
        outline = _outline((carried, batch))
        self._seen[outline] += 1
        return self._seen[outline] > _PLAIN_CALLS

    def _record(self, carried: Tree, batch: Tree, numbers: list[str]) -> None:
        try:
            self._recording = _Recording(self._function, carried, batch, numbers, self.pool)
        except Exception as error:  # whatever CUDA's libraries, or CuPy, do not allow meanwhile
            # not the error itself, whose traceback holds all arrays of the attempt
            self.refusal = f"{type(error).__name__}: {error}"
        if self.refusal is not None:
            self.pool.free_all_blocks()
            print(
                f"--graph: this step cannot be recorded ({self.refusal}); it goes on without",
                file=sys.stderr,
            )


class _Recording:
    """A CUDA graph, and the places that it reads and writes."""

    def __init__(
        self, function: Callable, carried: Tree, batch: Tree, numbers: list[str], pool: Any
    ):
        self._slots = Slots()
        self._before = _Places(carried)
        self._batch = tree.map(cupy.empty_like, batch)
        later = {name: PlaceholderNumber(self._slots, name) for name in numbers}
        self._before.take(carried)  # by the kernels that `_after` needs, which are loaded now
        cupy.get_default_memory_pool().free_all_blocks()  # what plain calls leave is needed now
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream, cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                new, self._results = function(
                    self._before.arrays, self._batch, PlaceholderKey(self._slots), later
                )
                _require_arrays(self._results)
                self._after = _Places(new)
                self._after.take(new)
            except BaseException:
                _abandon(stream)
                raise
            self._graph = stream.end_capture()
        if _outline(new) != _outline(carried):
            raise TypeError("what is carried from step to step does not keep its shapes")
        self._shelves = [_Places(carried), _Places(carried)]

    def fits(self, carried: Tree, batch: Tree) -> bool:
        """Whether these arrays are as those with which it was recorded."""
        known = any(_is(carried, shelf.arrays) for shelf in self._shelves)
        return _outline(batch) == _outline(self._batch) and (
            known or _outline(carried) == _outline(self._before.arrays)
        )

    def repeat(self, carried: Tree, batch: Tree, now: Now) -> tuple[dict[str, Tree], Tree]:
        self._before.take(carried, self._shelves)
        tree.map(cupy.copyto, self._batch, batch)
        self._slots.fill(now)
        self._graph.launch()
        self._shelves.reverse()  # the last state stays whole until this one is
        newest = self._shelves[0]
        cupy.copyto(newest.memory, self._after.memory)
        return newest.arrays, tree.map(lambda x: x.copy(), self._results)


class _Places:
    """Arrays side by side in one piece of memory, so that one copy takes all of them.

    Attributes:
        memory: bytes.
        arrays: a tree, whose leaves are parts of it.
    """

    def __init__(self, like: Tree):
        sizes = [-(-x.nbytes // _ALIGNMENT) * _ALIGNMENT for x in tree.leaves(like)]
        self.memory = cupy.empty((sum(sizes),), np.uint8)
        starts = iter(np.cumsum([0, *sizes]).tolist())
        self.arrays = tree.map(lambda x: self._part(next(starts), x), like)

    def _part(self, start: int, x: Any) -> Any:
        return self.memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)

    def take(self, values: Tree, shelves: list[_Places] | tuple = ()) -> None:
        """Copy a tree into its place, in one piece if it lies on one of the shelves."""
        for shelf in shelves:
            if _is(values, shelf.arrays):
                cupy.copyto(self.memory, shelf.memory)
                return
        tree.map(cupy.copyto, self.arrays, values)


def _pool() -> Any:
    """Memory for what is recorded: once taken it is kept, also when there is no more."""

    def take(size: int) -> Any:
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            # of CUDA's own error a pool makes another attempt, for which it gives away blocks that
            # are free now, but in which recorded kernels will work
            raise MemoryError(f"no {size:,} bytes more for a recording") from error

    pool = cupy.cuda.MemoryPool(take)
    pool.set_limit(size=0)  # CUPY_GPU_MEMORY_LIMIT, which ends in the same attempt
    return pool


def _require_arrays(results: Tree) -> None:
    for path, x in tree.items(results):
        if not isinstance(x, cupy.ndarray):
            raise TypeError(f"result {path or 'at the root'} is no array: {type(x).__name__}")


def _outline(arrays: Tree) -> tuple:
    return tuple((path, x.shape, x.dtype) for path, x in tree.items(arrays))


def _is(some: dict[str, Tree], others: dict[str, Tree]) -> bool:
    """Whether two trees are built of the very same ones."""
    return some.keys() == others.keys() and all(some[name] is others[name] for name in some)


def _abandon(stream: Any) -> None:
    """End a recording that failed; CUDA says so once more."""
    try:
        stream.end_capture()
    except Exception:
        return
