"""The version of dualnet that is running."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

__all__ = ["checkout", "version"]

_ROOT = Path(__file__).parent.parent


def version() -> str:
    """Return the version: that of `pyproject.toml` in a checkout, of the installed package else.

    A checkout comes first, because another version may be installed beside it.
    """
    if found := _in_checkout():
        return found[1]
    try:
        return installed_version("dualnet")
    except PackageNotFoundError:
        return "unknown"


def checkout() -> Path | None:
    """Return the folder of the checkout that this package lies in; None if it is installed."""
    return _ROOT if _in_checkout() else None


def _in_checkout() -> re.Match[str] | None:
    project = _ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    return re.search(r'^name = "dualnet"\nversion = "(.+)"$', text, re.M)
