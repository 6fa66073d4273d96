"""Other frameworks as oracles: absent, a test skips; unless they are required."""

import importlib
import os

import pytest

REQUIRED = "DUALNET_REQUIRE_PEERS"
"""Set this variable where the peers are installed, so that nothing can skip unseen."""


def peer(name):
    """The module, or a skipped test."""
    if os.environ.get(REQUIRED):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")
