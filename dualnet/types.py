"""Names for what functions take and return.

Arrays of several libraries answer NumPy's protocols, and a `Dual` stands wherever an array does, so
no Python class covers them: to a type checker each of these is `Any`.  The names tell the reader
what is meant.
"""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = [
    "Array",
    "Axes",
    "Cotangent",
    "Linearized",
    "Shape",
    "Stack",
    "Tangent",
]

Array: TypeAlias = Any
"""A NumPy or CuPy array, or a `Dual` that stands in for one."""

Shape: TypeAlias = tuple[int, ...]
"""The lengths of an array's axes."""

Axes: TypeAlias = tuple[int, ...]
"""Axes of an array, counted from the end: negative numbers."""

Stack: TypeAlias = Any
"""An array `(k, *S)`: k directions of an array of shape `S`, one after the other."""

Tangent: TypeAlias = Any
"""k directions of an array: a `Stack`, or a `StructuredTangent` that stands for one."""

Cotangent: TypeAlias = Any
"""A stack `(k, *S)` of derivatives of k scalars by an array of shape `S`."""

Linearized: TypeAlias = tuple[Any, Any]
"""What a linearizer returns: the value, and its linear map, or one for each argument in a tuple."""
