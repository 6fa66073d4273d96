"""Images: sliding windows, convolution, and their derivative rules."""

from dualnet.images import rules

__all__ = ["rules"]
