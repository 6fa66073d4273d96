"""One Python that forks serves all tests of a session, or of a worker of pytest-xdist."""

import pytest

from crash.forked import MISSING, Server


@pytest.fixture(scope="session")
def server():
    """Runs commands; see `forked.Server`."""
    if MISSING is not None:
        pytest.skip(MISSING)
    with Server() as server:
        yield server
