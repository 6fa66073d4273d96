"""`numpy.fft`, whose functions take lists that hold duals, as in `dualnet.numpy`."""

from __future__ import annotations

from typing import Any

import numpy

from dualnet.numpy.lists import passed

__all__ = numpy.fft.__all__


def __getattr__(name: str) -> Any:
    return globals().setdefault(name, passed(numpy.fft, name))


def __dir__() -> list[str]:
    return dir(numpy.fft)
