"""Standard normal numbers on the host: few by NumPy's ziggurat, many by the Box-Muller transform.

NumPy draws normal numbers one after the other.  The transform makes two of two uniform ones

    r = √(-2 ln u),   θ uniform in a full turn  →  r cos θ, r sin θ

by functions that NumPy computes for many numbers at once, in less than half the time.  But calling
them costs as much as a thousand numbers do.  So in float32 a sequence begins with numbers by the
ziggurat, which are all that a small array needs.  After them come *runs*, whose first half are
cosines and whose second half are sines: in the first block of the sequence each is as long as all
numbers before it, and every further block is one run.  In float64, which is for checking, precision
counts more than time, and all numbers are drawn by the ziggurat.

Source: Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FEW = 1 << 13
"""How many numbers of a sequence of float32 are drawn by the ziggurat."""
_FLOAT32 = np.dtype(np.float32)
_BLOCK = 1 << 16
_BLOCK_OF_RUNS = 1 << 17
"""How many numbers one generator draws in float32: so many that threads, which may call NumPy only
one after the other, seldom wait for one another."""
_TO_SHARE, _HALF_A_STEP = np.float32(2.0**-32), np.float32(2.0**-33)
"""What makes u of 32 bits: from half a step, which gives r = 6.8, to 1, which gives r = 0."""
_TO_ANGLE = np.float32(math.pi * 2.0**-31)
_MINUS_TWO = np.float32(-2)
_IN_FLOAT32: dict[str, Any] = {"dtype": np.float32, "casting": "unsafe"}
"""How integers of 32 bits are multiplied; NumPy would choose float64."""


def block_of(dtype: np.dtype) -> int:
    """Return how many normal numbers a block has, all of which one generator draws."""
    return _BLOCK_OF_RUNS if dtype is _FLOAT32 else _BLOCK


def normal_block(generator: np.random.Generator, block: int, skip: int, out: np.ndarray) -> None:
    """Write some of the normal numbers of a block.

    The numbers are the same on every machine with the same version of NumPy, but for the rounding
    of its logarithm, sine and cosine in float32, which may depend on the processor.

    Args:
        generator: of the block, at its beginning.
        block: its number in the sequence, from 0 on.
        skip: how many numbers of the block come before those that are written.
        out: a vector, float32 or float64.

    Examples:
        >>> from dualnet.backends.normal_numbers import normal_block
        >>> whole, part = np.empty(20_000, np.float32), np.empty(2, np.float32)
        >>> normal_block(np.random.Generator(np.random.SFC64(0)), 0, 0, whole)
        >>> normal_block(np.random.Generator(np.random.SFC64(0)), 0, 15_000, part)
        >>> bool((part == whole[15_000:15_002]).all()), bool(abs(whole.std() - 1) < 0.05)
        (True, True)
    """
    count = skip + out.size
    few = count if out.dtype is not _FLOAT32 else min(count, FEW) if block == 0 else 0
    if skip and few:  # each of these takes a varying number of bits, so those before must be drawn
        generator.standard_normal(min(skip, few), dtype=out.dtype)
    if skip < few:
        generator.standard_normal(out=out[: few - skip], dtype=out.dtype)
    start = few
    while start < count:
        size = start if block == 0 else _BLOCK_OF_RUNS
        words = generator.bit_generator.random_raw(size // 2)
        first, stop = max(skip - start, 0), min(count - start, size)
        if first < stop:
            _write_run(words, first, stop, out[start + first - skip : start + stop - skip])
        start += size


def _write_run(words: np.ndarray, first: int, stop: int, out: np.ndarray) -> None:
    """Write the numbers from `first` to `stop` of a run, two of which come of each word.

    Args:
        words: n of 64 random bits; the run has n cosines and n sines.
        first, stop: from 0 to 2 n.
        out: for `stop - first` numbers.
    """
    n = len(words)
    bits = words.astype("<u8", copy=False).view("<u4")
    # The pairs whose cosines or sines are wanted; all of them, if some of both are.
    a, b = (first, stop) if stop <= n else (first - n, stop - n) if first >= n else (0, n)
    radius = np.empty(b - a, np.float32)
    np.multiply(bits[a:b], _TO_SHARE, out=radius, **_IN_FLOAT32)
    radius += _HALF_A_STEP
    np.log(radius, out=radius)
    radius *= _MINUS_TWO
    np.sqrt(radius, out=radius)
    angle = np.multiply(bits[n + a : n + b], _TO_ANGLE, **_IN_FLOAT32)
    middle = min(max(n - first, 0), stop - first)  # how many cosines are written
    for function, of_run, part in (
        (np.cos, first - a, out[:middle]),
        (np.sin, max(first - n, 0) - a, out[middle:]),
    ):
        if part.size:
            which = slice(of_run, of_run + part.size)
            function(angle[which], out=part)
            part *= radius[which]
