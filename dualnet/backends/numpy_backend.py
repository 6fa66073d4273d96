"""The NumPy backend."""

from __future__ import annotations

import contextvars
import math
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np

from dualnet.random import Key

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # the extra `threads`
    ThreadpoolController = None

_BLOCK = 1 << 16
"""Entries of a random sequence that come from one generator."""

_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int8) * 2 - 1
"""The eight signs that the bits of a byte stand for."""


class NumpyBackend:
    """Arrays in host memory, work on threads (NumPy releases the interpreter's lock).

    Args:
        threads: how many pieces of work `map` runs at once.  Meanwhile BLAS, which would spread
            each piece over all cores again, is held to one thread; that needs threadpoolctl
            (extra `threads`), or OPENBLAS_NUM_THREADS=1 in the environment.
    """

    name = "numpy"
    read_every = 1

    def __init__(self, threads: int = 1):
        self.threads = threads
        self._draws = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        self._work = ThreadPoolExecutor(max_workers=threads)
        self._libraries = ThreadpoolController() if ThreadpoolController else None

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """The array on this backend."""
        return np.asarray(x, dtype)

    def to_host(self, x: Any) -> np.ndarray:
        """The array as a NumPy array."""
        return np.asarray(x)

    def keep_on_device(self, x: Any) -> Any:
        """x itself, which is where it should be."""
        return x

    def synchronize(self) -> None:
        """Nothing: what was asked for is done."""

    def memory(self) -> dict[str, int]:
        """Nothing: the host's memory is all there is."""
        return {}

    def recorded(self, function: Callable) -> Callable:
        """The function itself: asking for work costs nothing here."""
        return function

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """The batches, which are where they should be."""
        yield from batches

    def map(self, f: Callable, items: Iterable) -> list:
        """`[f(x) for x in items]`, on threads if there are several."""
        if self.threads == 1:
            return [f(x) for x in items]
        here = contextvars.copy_context()  # what np.errstate set holds on the threads too
        one_thread_each = (
            self._libraries.limit(limits=1, user_api="blas") if self._libraries else nullcontext()
        )
        with one_thread_each:
            return list(self._work.map(lambda x: here.copy().run(f, x), items))

    def normal(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> np.ndarray:
        """Standard normal numbers.

        A key names one endless sequence; the result holds its entries from `start` on.  So any
        part of a draw can be made on its own: a chunk of tangents, a shard of a batch, a block
        on another thread.  The sequence is the same on every machine with the same NumPy.

        Args:
            key: names the sequence.
            shape: of the result.
            dtype: float32 or float64; drawn in that precision.
            start: index of the first entry.
        """
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, _normal_block)
        return out.reshape(shape)

    def signs(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> np.ndarray:
        """Independent random signs, +1 or -1, from single bits; arguments as `normal`."""
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, _sign_block)
        return out.reshape(shape)

    def uniform(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> np.ndarray:
        """Independent numbers, uniform in [0, 1); arguments as `normal`."""
        out = np.empty(math.prod(shape), dtype)
        self._in_blocks(key, start, out, _uniform_block)
        return out.reshape(shape)

    def _in_blocks(self, key: Key, start: int, out: np.ndarray, fill: Callable) -> None:
        """Fill `out` with entries [start, start + size) of the sequence, block by block."""
        stop = start + out.size

        def one(block: int) -> None:
            first = block * _BLOCK
            a, b = max(start, first), min(stop, first + _BLOCK)
            generator = np.random.Generator(np.random.SFC64(key.fold_in(block).bits))
            fill(generator, a - first, out[a - start : b - start])

        blocks = range(start // _BLOCK, -(-stop // _BLOCK))
        if len(blocks) > 1:
            list(self._draws.map(one, blocks))
        else:
            for block in blocks:
                one(block)


def _normal_block(generator: np.random.Generator, skip: int, out: np.ndarray) -> None:
    if skip:  # the method's appetite for bits varies, so what comes before must be drawn
        generator.standard_normal(skip, dtype=out.dtype)
    generator.standard_normal(out=out, dtype=out.dtype)


def _sign_block(generator: np.random.Generator, skip: int, out: np.ndarray) -> None:
    count = skip + out.size
    words = generator.integers(0, 2**64, size=-(-count // 64), dtype=np.uint64)
    signs = _SIGNS.astype(out.dtype)[words.astype("<u8", copy=False).view(np.uint8)].reshape(-1)
    out[:] = signs[skip:count]


def _uniform_block(generator: np.random.Generator, skip: int, out: np.ndarray) -> None:
    generator.random(skip, dtype=out.dtype)
    generator.random(out=out, dtype=out.dtype)
