"""Images: sliding windows, convolution, and the derivative rules of both.

The functions are in `windows` and `convolution`; importing this package registers their rules.
"""

from dualnet.images import rules

__all__ = ["rules"]
