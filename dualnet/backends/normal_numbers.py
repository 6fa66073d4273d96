"""Standard normal numbers on the host: few by NumPy's ziggurat, many by the Box-Muller transform.

NumPy draws normal numbers one after the other.  The transform makes two of two uniform ones

    r = √(-2 ln u),   θ uniform in [0, 2π)  →  r cos θ, r sin θ

by functions that NumPy computes for many numbers at once.  In float32 it takes less than half the
time, but a dozen calls.  So the first numbers of a block, which are all that a small array needs,
are drawn by the ziggurat.  After them come runs, each as long as all numbers before it up to a
limit, whose first half are cosines and whose second half are sines.  In float64, which is for
checking, precision counts more than time, and all are drawn by the ziggurat.

Source: Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FEW = 2048
"""How many numbers of a block are drawn by the ziggurat."""
MOST = 1 << 17
"""How many numbers a run has at most: so many that threads seldom wait for one another between
calls, and that fit into a cache."""
_TO_SHARE, _HALF_A_STEP = np.float32(2.0**-32), np.float32(2.0**-33)
"""What makes 32 bits a number in (0, 1]; the steps between these are the smallest near 0."""
_TO_ANGLE = np.float32(math.pi * 2.0**-31)
_MINUS_TWO = np.float32(-2)
_IN_FLOAT32: dict[str, Any] = {"dtype": np.float32, "casting": "unsafe"}
"""How integers of 32 bits are multiplied; NumPy would choose float64."""


def normal_block(generator: np.random.Generator, skip: int, out: np.ndarray) -> None:
    """Write some of the normal numbers of a block.

    The numbers are the same on every machine with the same version of NumPy, but for the rounding
    of its logarithm, sine and cosine in float32, which depends on the processor.

    Args:
        generator: of the block, at its beginning.
        skip: how many numbers of the block come before those that are written.
        out: a vector, float32 or float64.

    Examples:
        >>> from dualnet.backends.normal_numbers import normal_block
        >>> whole, part = np.empty(5000, np.float32), np.empty(2, np.float32)
        >>> normal_block(np.random.Generator(np.random.SFC64(0)), 0, whole)
        >>> normal_block(np.random.Generator(np.random.SFC64(0)), 4000, part)
        >>> bool((part == whole[4000:4002]).all()), bool(abs(whole.std() - 1) < 0.05)
        (True, True)
    """
    count = skip + out.size
    few = count if out.dtype != np.float32 else min(count, FEW)
    if skip:  # each of these takes a varying number of bits, so those before must be drawn
        generator.standard_normal(min(skip, few), dtype=out.dtype)
    if skip < few:
        generator.standard_normal(out=out[: few - skip], dtype=out.dtype)
    start = few
    while start < count:
        size = min(start, MOST)  # each run is as long as all numbers before it
        words = generator.integers(0, 2**64, size=size // 2, dtype=np.uint64)
        a, b = max(skip, start), min(count, start + size)
        if b - a == size:
            _transform(words, out[a - skip : b - skip])
        elif a < b:
            run = np.empty(size, np.float32)
            _transform(words, run)
            out[a - skip : b - skip] = run[a - start : b - start]
        start += size


def _transform(words: np.ndarray, out: np.ndarray) -> None:
    """Write two normal numbers for each word of 64 random bits, cosines before sines."""
    count = len(words)
    bits, cosines, sines = words.view(np.uint32), out[:count], out[count:]
    radius = np.empty(count, np.float32)
    np.multiply(bits[:count], _TO_SHARE, out=radius, **_IN_FLOAT32)
    radius += _HALF_A_STEP
    np.log(radius, out=radius)
    radius *= _MINUS_TWO
    np.sqrt(radius, out=radius)
    np.multiply(bits[count:], _TO_ANGLE, out=sines, **_IN_FLOAT32)
    np.cos(sines, out=cosines)
    np.sin(sines, out=sines)
    cosines *= radius
    sines *= radius
