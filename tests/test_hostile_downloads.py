"""Servers that do harm: each is refused in one printable line, and the next mirror is tried."""

import gzip
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import idx
from hostile_servers import BEFORE_TLS, after_tls, answer, sending, silent
from https_server import behaving, make_certificate, server_context

from dualnet.console import exit_code
from dualnet.data import SOURCES, connection, load
from dualnet.data.download import fetch
from dualnet.data.sources import RemoteFile
from dualnet.errors import DataError

pytestmark = pytest.mark.usefixtures("elsewhere")

CONTENT = idx(np.random.default_rng(3).integers(0, 256, 5000))
PACKED = gzip.compress(CONTENT, mtime=0)
FILE = RemoteFile("letters", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
AFTER_TLS = after_tls(PACKED, CONTENT)
GOOD = sending(answer(body=PACKED))
KINDS = (*BEFORE_TLS, *AFTER_TLS)
TIMEOUT = 5.0
"""Enough for a good server on a busy machine."""


def downloads(monkeypatch, mirrors):
    """Download from each list of mirrors, all at the same time.

    Args:
        mirrors: name → addresses.

    Returns:
        name → the path of the file, or the error.
    """
    for name, addresses in mirrors.items():
        source = replace(SOURCES["mnist"], mirrors=addresses, files=(FILE,))
        monkeypatch.setitem(SOURCES, name, source)

    def get(name):
        try:
            return fetch(name, FILE, Path("to", name.replace("/", "-")), quiet=True)
        except Exception as error:
            return error

    with ThreadPoolExecutor(64) as threads:
        return dict(zip(mirrors, threads.map(get, mirrors), strict=True))


def told(error, capsys):
    """The exit code of a command that ends by this error, and what it says."""

    def main(*_):
        raise error

    code = exit_code("dualnet", main, [])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def check(kinds, certificate, monkeypatch, capsys):
    """Hold downloads from such servers, alone and before a good one, to what is promised."""
    monkeypatch.setattr(connection, "TIMEOUT", TIMEOUT)
    secured, alone, before_a_good_one = server_context(certificate), {}, {}
    with ExitStack() as servers:
        good = servers.enter_context(behaving(GOOD, secured))
        for kind in kinds:
            how = (BEFORE_TLS[kind],) if kind in BEFORE_TLS else (AFTER_TLS[kind], secured)
            bad = servers.enter_context(behaving(*how))
            alone[f"alone: {kind}"] = (bad,)
            before_a_good_one[f"first: {kind}"] = (bad, good)
        found = downloads(monkeypatch, {**alone, **before_a_good_one})
    for name in alone:
        assert isinstance(found[name], Exception), f"{name}: it was taken for the file"
        assert str(found[name]).isprintable() and len(str(found[name])) < 1000, name
        code, said = told(found[name], capsys)
        assert code == 3, f"{name}: {found[name]!r}"
        assert said.count("\n") == 1 and said[:-1].isprintable() and len(said) < 1000, name
    for name in before_a_good_one:
        assert isinstance(found[name], Path), f"{name}: {found[name]}"
        assert found[name].read_bytes() == PACKED, name
        assert [path.name for path in found[name].parent.iterdir()] == ["letters.gz"], name
    files = {path for path in Path().rglob("*") if path.is_file()}
    assert files == {found[name] for name in before_a_good_one}
    return len(alone)


def test_some_hostile_servers(certificate, monkeypatch, capsys, rng):
    kinds = [str(kind) for kind in rng.choice(KINDS, 20, replace=False)]
    check(kinds, certificate, monkeypatch, capsys)


@pytest.mark.slow
def test_all_hostile_servers(certificate, monkeypatch, capsys):
    assert check(KINDS, certificate, monkeypatch, capsys) >= 100


def test_a_server_that_nobody_vouches_for(certificate, monkeypatch, tmp_path, capsys):
    other = make_certificate(tmp_path)
    with behaving(GOOD, server_context(other)) as address:
        (found,) = downloads(monkeypatch, {"stranger": (address,)}).values()
    code, said = told(found, capsys)
    assert code == 3 and "certificate verify failed" in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "file:///etc/", "ftp://127.0.0.1/", ""])
def test_a_mirror_must_be_of_https(monkeypatch, address, capsys):
    (found,) = downloads(monkeypatch, {"plain": (address,)}).values()
    code, said = told(found, capsys)
    assert code == 3 and "unknown url type" in said


def test_a_redirect_to_https_is_followed(certificate, monkeypatch):
    secured = server_context(certificate)
    with behaving(GOOD, secured) as good:
        moved = sending(answer(b"Location: " + good.encode() + b"x", status=b"302 Found"))
        with behaving(moved, secured) as address:
            (found,) = downloads(monkeypatch, {"moved": (address,)}).values()
    assert found.read_bytes() == PACKED


def test_what_comes_with_a_redirect_is_not_read(certificate, monkeypatch, capsys):
    """It would be read until the connection is found to be too slow."""
    began = time.monotonic()
    with behaving(AFTER_TLS["a redirect without end"], server_context(certificate)) as address:
        (found,) = downloads(monkeypatch, {"moved": (address,)}).values()
    assert told(found, capsys)[0] == 3
    assert time.monotonic() - began < connection.TIMEOUT / 2


def test_a_slow_mirror_is_left_for_the_next_one_and_says_why(certificate, monkeypatch, capsys):
    monkeypatch.setattr(connection, "TIMEOUT", 0.3)
    with behaving(AFTER_TLS["drips its body"], server_context(certificate)) as address:
        (found,) = downloads(monkeypatch, {"slow": (address,)}).values()
    assert "less than 10000 bytes a second in 0.3 seconds" in told(found, capsys)[1]
    with behaving(silent) as address:
        (found,) = downloads(monkeypatch, {"silent": (address,)}).values()
    assert told(found, capsys)[0] == 3


def test_a_download_is_for_its_owner_alone_and_leftovers_are_swept(certificate, monkeypatch):
    left = Path("cache/dualnet/mnist/.download-killed/letters.gz")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with pytest.raises(DataError, match="downloads are off"):
        load("mnist", download=False)
    assert not left.parent.exists()
    old = os.umask(0)
    try:
        with behaving(GOOD, server_context(certificate)) as address:
            (found,) = downloads(monkeypatch, {"good": (address,)}).values()
    finally:
        os.umask(old)
    if os.name != "nt":
        assert found.stat().st_mode & 0o777 == 0o600
        assert found.parent.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_is_no_fault_of_a_mirror(certificate, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with behaving(GOOD, server_context(certificate)) as address:
        (found,) = downloads(monkeypatch, {"full": (address,)}).values()
    code, said = told(found, capsys)
    assert (
        code == 3 and "expected a folder to download full into, found [Errno 28] No space" in said
    )
