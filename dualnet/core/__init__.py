"""Dual numbers, tangent spaces, derivative rules and transforms.

Reading order: `dual` (a value and its tangent), `engine` (how functions are evaluated on duals),
`linear` (what may be done to tangents, and the transposes), `symbolic` (reverse mode), `spaces`
(what else tangents can be), `rules` (the derivatives), `transforms` and `derivatives` (jvp, vjp,
grad, ...), `custom`, `checking` and `comparison`; and, for images, `windows` and `convolution`.
"""

from dualnet.core import rules

__all__ = ["rules"]
