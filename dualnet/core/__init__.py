"""Dual numbers, linear operations, derivative rules and transforms.

`README.md` in this folder gives the reading order and follows one call through it.
"""

from dualnet.core import tables

__all__ = ["tables"]
