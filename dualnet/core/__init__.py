"""Dual numbers, tangent spaces, derivative rules and transforms.

Reading order: `dual` (a value and its tangent), `linear` (what may be done to tangents, and the
transposes), `spaces` (what tangents can be), `rules` (the derivatives), `transforms` (jvp, vjp,
grad, ...), `custom` and `checking`.
"""

from dualnet.core import rules

__all__ = ["rules"]
