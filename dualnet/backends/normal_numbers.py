"""Standard normal numbers on the host: a few by NumPy's ziggurat, many by the Box-Muller transform.

NumPy draws normal numbers one after the other.  The transform makes two of two uniform ones

    r = √(-2 ln u),   θ uniform in [0, 2π)  →  r cos θ, r sin θ

by functions that NumPy computes for many numbers at once.  In float32 it takes less than half the
time, but a dozen calls, so the first numbers of a block, which are all that a small array needs,
are drawn without it.  In float64, which is for checking, precision counts more than time.

Source: Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FEW = 2048
"""How many numbers of a block are drawn by the ziggurat."""
_PAIRS = 8192
"""How many pairs are made at once: so many that calls take little time, and fit into a cache."""
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
    if count > few:
        _write_pairs(generator, max(skip - few, 0), out[max(few - skip, 0) :])


def _write_pairs(generator: np.random.Generator, skip: int, out: np.ndarray) -> None:
    """Write normal numbers that are made in pairs, those after the first `skip` of a generator."""
    count, odd = skip + out.size, skip % 2
    words = generator.integers(0, 2**64, size=-(-count // 2), dtype=np.uint64)[skip // 2 :]
    whole = out if not odd and not count % 2 else np.empty(2 * len(words), np.float32)
    uniform = words.view(np.uint32).reshape(-1, 2)
    pairs = whole.reshape(-1, 2)
    for start in range(0, len(words), _PAIRS):
        _transform(uniform[start : start + _PAIRS], pairs[start : start + _PAIRS])
    if whole is not out:
        out[:] = whole[odd : odd + out.size]


def _transform(uniform: np.ndarray, pairs: np.ndarray) -> None:
    """Write the pairs of normal numbers `(m, 2)` that come of pairs of 32 random bits `(m, 2)`."""
    radius = np.empty(len(uniform), np.float32)
    np.multiply(uniform[:, 0], _TO_SHARE, out=radius, **_IN_FLOAT32)
    radius += _HALF_A_STEP
    np.log(radius, out=radius)
    radius *= _MINUS_TWO
    np.sqrt(radius, out=radius)
    angle = np.empty_like(radius)
    np.multiply(uniform[:, 1], _TO_ANGLE, out=angle, **_IN_FLOAT32)
    np.multiply(radius, np.cos(angle), out=pairs[:, 0])
    np.multiply(radius, np.sin(angle, out=angle), out=pairs[:, 1])
