"""Record a pure function of arrays as CUDA graphs, and repeat the graphs from then on.

A step of training is many short kernels, and the host has to start each of them.  A graph is
started as a whole.  It always works in the same memory.  So what a step carries on to the next one
lies in two blocks of memory by turns: one graph reads the first and writes the second, and another
graph goes the other way.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import cupy

from dualnet import tree
from dualnet.backends import lazy
from dualnet.backends.blocks import Block, State, arrays_of, move, outline
from dualnet.backends.placeholders import PlaceholderKey, PlaceholderNumber, Slots
from dualnet.console import say
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

_PLAIN_CALLS = 2
"""How many plain calls with the same shapes come before they are recorded.  In these, kernels are
compiled and libraries loaded, which is not allowed while a stream captures."""

_MOST_RECORDINGS = 8
"""How many recordings a function has at most.  For a further one, the one that was repeated the
longest time ago is given up, because a program that goes through many shapes often leaves the first
ones for good.  Shapes whose recording was given up are called plainly as often as new ones before
they are recorded again, so that recordings that replace each other in turns cost little."""

_MOST_SEEN = 1024
"""How many kinds of calls are counted at once."""

_NEVER = -(1 << 62)
"""Stands for the count of calls that cannot be recorded."""

_CONSTANTS = (type(None), bool, int, float, complex, str)
"""What may be among the results beside arrays."""

CAPTURING: ContextVar[bool] = ContextVar("CAPTURING", default=False)
"""Whether a function is being recorded."""

RECORDED: WeakSet[Recorded] = WeakSet()
"""All recorded functions, so that their memory can be counted."""


class Recorded:
    """A function that is recorded for each set of shapes with which it is called often enough.

    From then on, calls with these shapes repeat the recording.  Other calls run the function
    itself.  If calls with some shapes cannot be recorded, a message on standard error says why, and
    they run the function itself for good.

    Args:
        function: `function(carried, batch, key, numbers) -> (carried, results)`, a pure function.
            `carried`, `batch` and `results` are trees of CuPy arrays, and `numbers` are numbers by
            name.  `carried` keeps its structure, shapes and dtypes.  Among results there may also
            be Python numbers, strings and None, which are the same in all calls with the same
            shapes.  Random numbers must be drawn by the backend with keys derived from `key`.  With
            the numbers, the function may do arithmetic (see `PlaceholderNumber`); it does nothing
            else with them.
        what: what the function is, for the message.

    Attributes:
        pool: the memory pool from which the recorded function takes its memory.
        refusal: why calls could not be recorded the last time that they could not; None if they
            always could.
    """

    def __init__(self, function: Callable, what: str = "step"):
        self._function = function
        self._what = what
        self._seen: Counter[Hashable] = Counter()
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._state: State | None = None
        # All recordings are captured on one stream, because a pool gives memory that became free
        # on a stream to this stream alone.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self.pool = _pool()
        self.refusal: str | None = None
        RECORDED.add(self)

    @property
    def recordings(self) -> int:
        """For how many sets of shapes calls repeat a recording now."""
        return len(self._recordings)

    def __call__(
        self, carried: Tree, batch: Tree, key: Key | None, numbers: dict[str, float]
    ) -> tuple[Tree, Tree]:
        """Return what the function returns.

        The arrays of `carried` that a repetition returns keep their values until the call after
        the next.
        """
        return self.call(self._function, outline(batch), carried, batch, key, numbers)

    def call(
        self,
        function: Callable,
        kind: Hashable,
        carried: Tree,
        batch: Tree,
        key: Key | None,
        numbers: dict[str, float],
    ) -> tuple[Tree, Tree]:
        """Return what `function` returns, which computes the same in all calls of a kind."""
        recording = self._recordings.get(kind)
        if recording is None and self._seen[kind] >= _PLAIN_CALLS:
            recording = self._record(function, kind, carried, batch, list(numbers))
        place = None
        if recording is not None and self._state is not None:
            place = self._state.place_of(carried)
        if recording is None or place is None or self._state is None:
            done = plain(function, carried, batch, key, numbers)
            self._count(kind)  # not before the function has succeeded
            return done if self._state is None else self._state.after_plain(done)
        self._recordings.move_to_end(kind)
        results = recording.repeat(place, batch, key, numbers)
        return self._state.after(place), results

    def given(self, kind: Hashable) -> list[Array] | None:
        """Return the arrays of the batch as the last repetition left them; None if not recorded."""
        return self._recordings[kind].given if kind in self._recordings else None

    def forget(self, kind: Hashable, refusal: str) -> None:
        """Give the recording of a kind up for good, for a reason that is printed."""
        del self._recordings[kind]
        self._refuse(kind, refusal)

    def give_memory_back(self) -> None:
        """Give all recordings up for good, and their memory back."""
        kinds = list(self._recordings)
        self._recordings.clear()
        for kind in kinds:
            self._refuse(kind, "its recording was given up, because there was no more memory")

    def _count(self, kind: Hashable) -> None:
        """Count a plain call of a kind."""
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[kind] += 1

    def _record(
        self, function: Callable, kind: Hashable, carried: Tree, batch: Tree, numbers: list[str]
    ) -> _Recording | None:
        """Record calls of a kind and return the recording; print why if they cannot be recorded."""
        refusal, made = None, None
        try:
            state = self._state or State(carried)
            if state.outline != outline(carried):
                raise TypeError("what is carried has other shapes than before")
            made = _Recording(function, state, batch, numbers, self._stream, self.pool)
        except Exception as error:  # of any kind: what CuPy and CUDA's libraries do not allow
            # The error itself is not kept, because its traceback holds all arrays of the attempt.
            refusal = f"{type(error).__name__}: {error}"
        if made is None:
            self._refuse(kind, str(refusal))
            return None
        self._state = state
        self._recordings[kind] = made
        if len(self._recordings) > _MOST_RECORDINGS:
            given_up, _ = self._recordings.popitem(last=False)
            del self._seen[given_up]
        return made

    def _refuse(self, kind: Hashable, refusal: str) -> None:
        """Record no calls of a kind, and print why unless it was said before."""
        self._seen[kind] = _NEVER
        if not self._recordings:  # they would work in the blocks of the pool that are free
            self._state = None
            self.pool.free_all_blocks()
        if refusal != self.refusal:
            say(
                f"this {self._what} cannot be recorded ({refusal}); it goes on without",
                aside=True,
            )
        self.refusal = refusal


def plain(
    function: Callable, carried: Tree, batch: Tree, key: Key | None, numbers: dict[str, float]
) -> tuple[Tree, Tree]:
    """Call the function itself; its arrays are computed by the same kernels as in a recording.

    Recordings keep memory between their repetitions.  Where a plain call runs out of memory, all of
    them are given up, and the call is made once more.
    """
    try:
        return lazy.force(lazy.run(function, carried, batch, key, numbers))
    except MemoryError:
        recorded = [f for f in RECORDED if f.recordings]
        if not recorded:
            raise
    for f in recorded:  # not before the traceback has let go of the arrays of the attempt
        f.give_memory_back()
    return lazy.force(lazy.run(function, carried, batch, key, numbers))


class _Recording:
    """CUDA graphs of the calls of one kind, one for each block that is read, and their memory.

    Attributes:
        given: the arrays of the batch, from which the graphs read them.
    """

    def __init__(
        self,
        function: Callable,
        state: State,
        batch: Tree,
        numbers: list[str],
        stream: Any,
        pool: Any,
    ):
        self._slots = Slots()
        self._batch = tree.map(cupy.empty_like, batch)
        self.given = tree.leaves(self._batch)
        self._numbers = {name: PlaceholderNumber(self._slots, name) for name in numbers}
        self._results: Block | None = None
        lazy.store(tree.leaves(batch), self.given)
        cupy.get_default_memory_pool().free_all_blocks()  # what plain calls left is needed now
        blocks = state.blocks
        self._graphs = [
            self._capture(function, reads, writes, stream, pool)
            for reads, writes in zip(blocks, reversed(blocks), strict=True)
        ]

    def _capture(
        self, function: Callable, reads: Block, writes: Block, stream: Any, pool: Any
    ) -> Any:
        """Return the graph of a call whose `carried` lies in one block, and goes to another."""
        with stream, cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            outer = CAPTURING.set(True)
            try:
                key = PlaceholderKey(self._slots)
                given = reads.tree(), self._batch, key, self._numbers
                new, results = lazy.run(function, *given)
                if outline(new) != outline(reads.tree()):
                    raise TypeError("what is carried from step to step does not keep its shapes")
                _require_arrays(results)
                self._results = self._results or Block(results)
                if _outline_of_results(results) != _outline_of_results(self._results.tree()):
                    raise TypeError("the shapes of results are not the same in each call")
                targets = [*writes.leaves, *self._results.leaves]
                lazy.store([*tree.leaves(new), *arrays_of(results)], targets)
            except BaseException:
                _abandon(stream)
                raise
            finally:
                CAPTURING.reset(outer)
            return stream.end_capture()

    def repeat(self, place: int, batch: Tree, key: Key | None, numbers: dict[str, float]) -> Tree:
        """Copy the batch in, start the graph that reads the block `place`; return the results."""
        for here, x in zip(self.given, tree.leaves(batch), strict=True):
            move(here, x)
        self._slots.fill(key, numbers)
        self._graphs[place].launch()
        assert self._results is not None
        return self._results.copied()


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
    """Raise a TypeError unless all leaves are CuPy arrays, are computed later, or are constants."""
    for path, x in tree.items(results):
        ours = type(x).__module__.startswith("dualnet.backends.") and hasattr(x, "dtype")
        if not (ours or isinstance(x, cupy.ndarray) or type(x) in _CONSTANTS):
            raise TypeError(f"result {path or 'at the root'} is no array: {type(x).__name__}")


def _outline_of_results(results: Tree) -> Hashable:
    """Return the outline of arrays and constants."""
    return tree.outline(
        results, lambda x: (x.shape, x.dtype) if hasattr(x, "dtype") else (type(x), repr(x))
    )


def _abandon(stream: Any) -> None:
    """End the capture of a recording that failed; the error that CUDA raises for it is ignored."""
    try:
        stream.end_capture()
    except Exception:
        return
