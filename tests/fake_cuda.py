"""A stand-in for the CUDA that CuPy shows: streams, graphs and pools of memory; and it counts.

`counts` says how often something went from host to device or back, or made the host wait.  While a
stream captures, whatever is done is also recorded, to be done again when its graph is launched; to
move anything or to wait is an error then.
"""

import contextlib
import itertools
import types
from collections import Counter

counts = Counter()
"""`to_device`, `to_host` and `waits`."""

recorder = types.SimpleNamespace(tape=None, malloc=None)
"""`tape`: what was done since a stream began to capture, with the stream; None while none does.
`malloc`: where memory comes from, if not from the default pool."""


def record(again):
    """Note what is to be done again when the graph is launched."""
    recorder.tape.append((streams.current[-1], again))


def count(kind, times=1):
    """Something moved, or the host waited."""
    if times and recorder.tape is not None:
        raise RuntimeError(f"the current stream is capturing, so {kind} is not allowed")
    counts[kind] += times


@contextlib.contextmanager
def counted():
    """A Counter of what happens inside."""
    before = Counter(counts)
    during = Counter()
    yield during
    during.update({kind: n - before[kind] for kind, n in counts.items() if n != before[kind]})


devices = types.SimpleNamespace(count=1, current=0, used=set())
"""`count`: how many there are; `used`: the numbers of those on which memory was taken."""


class Device:
    """CuPy's, of which one is current."""

    def __init__(self, number):
        assert 0 <= number < devices.count
        self.id = number

    def use(self):
        devices.current = self.id


def use_memory():
    """Something lies on the current device now, or asks for its memory."""
    devices.used.add(devices.current)


class Stream:
    """CuPy's, of which the null stream cannot capture.

    Work is done at once, whatever its stream; `streams.waited` holds for each wait the stream, the
    one whose work it waits for, and how many arrays that had moved till then.
    """

    def __init__(self, non_blocking=False):
        use_memory()
        self._can_capture = non_blocking
        self.ptr = id(self) if non_blocking else 0
        self.moved = 0

    def __enter__(self):
        streams.current.append(self)
        return self

    def __exit__(self, *_):
        streams.current.pop()

    def record(self):
        return self, self.moved

    def wait_event(self, event):
        streams.waited.append((self, *event))

    def synchronize(self):
        count("waits")

    def begin_capture(self):
        assert self._can_capture and recorder.tape is None
        # of blocks of the default pool nobody would know that a graph works there
        assert recorder.malloc is not None and recorder.malloc.__self__ is not DEFAULT_POOL
        recorder.tape = []

    def end_capture(self):
        tape, recorder.tape = recorder.tape, None
        if tape is None:
            raise RuntimeError("the stream is not capturing")
        return Graph(tape, self)


streams = types.SimpleNamespace(current=[Stream()], waited=[])
devices.used.clear()
"""`current`: the null stream, and those entered since."""


class Graph:
    """What was recorded, to be done again.

    What was recorded on other streams is branches between what the capturing stream was asked for
    before and after.  The branches take turns, the last one first, so that it shows if one needs
    what another makes.
    """

    def __init__(self, tape, stream):
        self._tape = []
        for on_stream, part in itertools.groupby(tape, lambda entry: entry[0] is stream):
            part = list(part)
            self._tape += [again for _, again in part] if on_stream else _in_turn(part)

    def launch(self):
        assert recorder.tape is None
        for again in self._tape:
            again()


def _in_turn(part):
    """Work of several streams, one of each at a time, the last stream first."""
    branches = {}
    for stream, again in part:
        branches.setdefault(stream, []).append(again)
    rows = itertools.zip_longest(*reversed(branches.values()))
    return [again for row in rows for again in row if again is not None]


class CUDARuntimeError(RuntimeError):
    """CuPy's."""


class MemoryPool:
    """Figures without memory, as arrays here are NumPy's."""

    def __init__(self, allocator=None):
        self.allocator = allocator

    def malloc(self, size):
        return self.allocator(size)

    def set_limit(self, *, size):
        assert size == 0

    def free_all_blocks(self):
        pass

    def total_bytes(self):
        return 1 << 20

    def used_bytes(self):
        return 1 << 19


DEFAULT_POOL = MemoryPool()


@contextlib.contextmanager
def using_allocator(malloc):
    recorder.malloc = malloc
    try:
        yield
    finally:
        recorder.malloc = None


class OutOfMemoryError(MemoryError):
    """CuPy's."""
