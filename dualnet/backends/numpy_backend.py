"""The NumPy backend: arrays in host memory, random numbers by SFC64, work on threads."""

from __future__ import annotations

import contextvars
import functools
import math
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dualnet.backends.blas import one_thread
from dualnet.backends.freed_memory import keep_freed_memory
from dualnet.backends.normal_numbers import block_of, normal_block
from dualnet.backends.threads import Threads, cores
from dualnet.naming import named
from dualnet.options import require_count
from dualnet.random import Key
from dualnet.types import Array, Shape

_BLOCK = 1 << 16
"""How many uniform numbers of a sequence one generator draws."""
_BLOCK_OF_SIGNS = 1 << 20
"""How many signs: those of a smaller block would be drawn sooner than its generator is made."""

_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int8) * 2 - 1
"""Byte → the eight signs that its bits stand for, `(256, 8)`."""


class NumpyBackend:
    """Keeps arrays in host memory and spreads work over threads.

    Threads help because NumPy releases the interpreter's lock.

    Args:
        threads: how many pieces of work `map` runs at once.  While it does, BLAS is limited to one
            thread, because it would spread each piece over all cores again (see `blas`).

    Raises:
        UsageError: threads is no count.

    Examples:
        >>> backend = dn.backends.NumpyBackend(threads=2)
        >>> backend.map(np.sum, [np.ones(3), np.ones(4)])
        [np.float64(3.0), np.float64(4.0)]
        >>> signs = backend.signs(dn.Key(0), (1000,), np.float32)
        >>> np.unique(signs).tolist(), bool(abs(signs.mean()) < 0.2)
        ([-1.0, 1.0], True)
    """

    name = "numpy"
    device = ""
    read_every = 1

    def __init__(self, threads: int = 1):
        require_count("", named("threads"), threads)
        keep_freed_memory()
        self.threads = threads
        self._draws = Threads(cores())
        self._work = Threads(threads)

    def asarray(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """Convert to a NumPy array."""
        return np.asarray(x, dtype)

    def to_host(self, x: Array) -> np.ndarray:
        """Return the array as a NumPy array, which it is."""
        return np.asarray(x)

    def keep_on_device(self, x: Array) -> Array:
        """Return x itself, which is in host memory."""
        return x

    def synchronize(self) -> None:
        """Return at once: NumPy's functions return when their work is done."""

    def memory(self) -> dict[str, int]:
        """Return no figures: there is no memory but the host's."""
        return {}

    def recorded(self, function: Callable, record: bool = True, what: str = "step") -> Callable:
        """Return the function itself: on the host, a recording would save nothing."""
        return function

    def side_by_side(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`, one after the other: there is nothing to overlap."""
        return [f(x) for x in items]

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """Yield the batches as they are: nothing must be moved."""
        yield from batches

    def map(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`, computed on the backend's threads."""
        if self.threads == 1:
            return [f(x) for x in items]
        here = contextvars.copy_context()  # so that np.errstate holds on the threads too
        with one_thread():  # each
            return self._work.map(lambda x: here.copy().run(f, x), items)

    def normal(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> np.ndarray:
        """Draw independent standard normal numbers; see `Backend.normal` and `normal_block`."""
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, normal_block, block_of(out.dtype))
        return out.reshape(shape)

    def signs(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> np.ndarray:
        """Draw random signs, +1 or -1, one from each random bit; see `Backend.signs`."""
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, _sign_block, _BLOCK_OF_SIGNS, on_threads=False)
        return out.reshape(shape)

    def uniform(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> np.ndarray:
        """Draw independent numbers, uniform in [0, 1); see `Backend.uniform`."""
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, _uniform_block)
        return out.reshape(shape)

    def _in_blocks(
        self,
        key: Key,
        start: int,
        out: np.ndarray,
        fill: Callable,
        size: int = _BLOCK,
        on_threads: bool = True,
    ) -> None:
        """Fill `out` with the entries [start, start + size) of a sequence, block by block.

        Args:
            key: names the sequence; each block has a generator seeded by a child key.
            start: the index of the first entry.
            out: a vector.
            fill: `fill(generator, block, skip, out)` writes entries [skip, skip + out.size) of a
                block, given its number.
            size: of a block.
            on_threads: whether blocks take longer to fill than to hand to a thread.
        """
        stop = start + out.size

        def fill_block(block: int) -> None:
            first = block * size
            a, b = max(start, first), min(stop, first + size)
            generator = np.random.Generator(np.random.SFC64(key.fold_in(block).bits))
            fill(generator, block, a - first, out[a - start : b - start])

        blocks = range(start // size, -(-stop // size))
        if on_threads and len(blocks) > 1:
            self._draws.map(fill_block, blocks)
        else:
            for block in blocks:
                fill_block(block)


def _sign_block(generator: np.random.Generator, _: int, skip: int, out: np.ndarray) -> None:
    """Fill `out` with the signs of a block from entry `skip` on."""
    count = skip + out.size
    words = generator.integers(0, 2**64, size=-(-count // 64), dtype=np.uint64)
    octets = words.astype("<u8", copy=False).view(np.uint8)
    signs = _signs_as(out.dtype)
    if skip % 8 or out.size % 8:
        out[:] = signs.take(octets, axis=0, mode="clip").reshape(-1)[skip:count]
    else:  # whole bytes: their signs are written where they belong
        octets = octets[skip // 8 : count // 8]
        signs.take(octets, axis=0, out=out.reshape(-1, 8), mode="clip")


@functools.cache
def _signs_as(dtype: np.dtype) -> np.ndarray:
    """Return `_SIGNS` in a dtype."""
    return _SIGNS.astype(dtype)


def _uniform_block(generator: np.random.Generator, _: int, skip: int, out: np.ndarray) -> None:
    """Fill `out` with the uniform numbers of a block from entry `skip` on."""
    generator.random(skip, dtype=out.dtype)
    generator.random(out=out, dtype=out.dtype)
