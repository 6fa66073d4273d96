"""`numpy.linalg`, whose functions take lists that hold duals, as in `dualnet.numpy`."""

from __future__ import annotations

from typing import Any

import numpy

from dualnet.numpy.lists import passed

__all__ = numpy.linalg.__all__


def __getattr__(name: str) -> Any:
    return globals().setdefault(name, passed(numpy.linalg, name))


def __dir__() -> list[str]:
    return dir(numpy.linalg)
