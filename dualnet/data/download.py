"""Download data files: from several mirrors, checked by SHA-256, and never half a file."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from dualnet.data.connection import Watch, opener
from dualnet.data.private import make_private
from dualnet.data.sources import SOURCES, RemoteFile
from dualnet.data.streams import digest
from dualnet.data.unfinished import unfinished
from dualnet.errors import DataError
from dualnet.files import OWNER_ALONE, make_names_durable
from dualnet.naming import assigned, printable, shortened
from dualnet.progress import progress_bar

UNFINISHED = ".download-"
"""With which the names of folders begin in which downloads are going on."""
_LONGEST = 200
"""How many characters of what a server says are repeated."""


class _Failed(Exception):
    """A mirror is of no use; the message says why."""


def fetch(name: str, file: RemoteFile, folder: Path, quiet: bool = False) -> Path:
    """Download one file of a data set into a folder, from the first mirror that has the right file.

    The file appears in the folder as a whole and after it is checked, or not at all.

    Args:
        name: the name of the data set, a key of `SOURCES`; its mirrors are tried in order.
        file: which of its files to download.
        folder: where to put the file; the folder is made if it is not there.
        quiet: show no progress bar on standard error.

    Returns:
        The path of the new file, `folder/<its name on the mirrors>`.

    Raises:
        DataError: the folder cannot be written, or no mirror works; the message says what each
            mirror answered.
    """
    failures = []
    try:
        make_private(folder)
        # It is inside `folder`, so os.replace stays on one file system and is atomic.
        with unfinished(folder, UNFINISHED) as temporary:
            partial = temporary / file.sent_name
            for mirror in SOURCES[name].mirrors:
                failure = _try_mirror(mirror + file.sent_name, file, partial, quiet)
                if failure is None:
                    os.replace(partial, folder / file.sent_name)
                    make_names_durable(folder)
                    return folder / file.sent_name
                failures.append(f"{mirror}: {failure}")
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder to download {name} into, found {_words(error)}; "
            f"{by_hand(name)}"
        ) from error
    raise DataError(
        f"{name}: expected to download {file.sent_name} into {folder}, but no mirror works "
        f"({', '.join(failures)}); {by_hand(name)}"
    )


def by_hand(name: str) -> str:
    """Say how to provide a data set without a download, to end an error message."""
    source = SOURCES[name]
    named = f"name it with {assigned('data_dir', 'DIR')} or the environment variable DUALNET_DATA"
    if source.kept == "folders":
        return f"get it from {source.page}, unpack it into a folder DIR and {named}"
    archives = [form.archive for form in source.forms if form.archive]
    files = ", ".join(source.forms[0].files)
    if archives:
        return f"put {' or '.join(archives)}, or {files}, into a folder DIR and {named}"
    return f"put {files} (.gz or not) into a folder DIR and {named}"


def _try_mirror(url: str, file: RemoteFile, partial: Path, quiet: bool) -> str | None:
    """Download a file to `partial` and check it; return None, or what is wrong with it."""
    try:
        with (
            open(partial, "wb", opener=lambda path, how: os.open(path, how, OWNER_ALONE)) as out,
            closing(_received(url, file, quiet)) as pieces,
        ):
            for piece in pieces:
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    except _Failed as failed:
        return str(failed)
    try:
        length, sha256 = digest(partial, file.size + 1, packed=file.packed)
    except DataError:
        return f"damaged or incomplete after {partial.stat().st_size} bytes"
    if length != file.size:
        found = "more" if length > file.size else str(length)
        unit = "bytes after decompression" if file.packed else "bytes"
        return f"expected {file.size} {unit}, found {found}"
    if sha256 != file.sha256:
        return f"expected SHA-256 {file.sha256[:12]}..., found {sha256[:12]}..."
    return None


def _received(url: str, file: RemoteFile, quiet: bool) -> Generator[bytes, None, None]:
    """Yield the answer of a server as it arrives, and stop where it cannot be the file any more.

    Raises:
        _Failed: the server does not answer, too slowly, or by something else than a file.
    """
    watch, left = Watch(), _most_bytes(file)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "dualnet"})
        with watch, opener(watch).open(request, timeout=watch.timeout) as response:
            promised = response.headers.get("Content-Length", "")
            with progress_bar(
                total=int(promised) if promised.isdecimal() and len(promised) < 16 else None,
                desc=file.sent_name,
                unit="B",
                unit_scale=True,
                quiet=quiet,
            ) as bar:
                # What is there is read, and not waited for more: `read` would wait for all of it.
                while left > 0 and (piece := response.read1(min(1 << 20, left))):
                    left -= len(piece)
                    watch.received += len(piece)
                    bar.update(len(piece))
                    yield piece
        if watch.gave_up:
            raise OSError  # it was cut between two pieces, which looks like the end
    except (OSError, http.client.HTTPException, ValueError) as error:
        # A ValueError comes from a header that makes no sense, such as a redirect's address.
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _Failed(watch.gave_up or _answered(error)) from error


def _answered(error: Exception) -> str:
    """Say what a mirror answered instead of a file."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return _words(getattr(error, "reason", error))


def _most_bytes(file: RemoteFile) -> int:
    """Return how many bytes a file can have on a mirror, packed or not."""
    # Gzip adds 5 bytes to each block that it cannot compress, and a few KB of header at most.
    return file.size + file.size // 100 + 4096


def _words(error: object) -> str:
    """Return an error's message in one short printable line; its type where it has no message."""
    words = " ".join(str(error).split()) or type(error).__name__
    return shortened(printable(words), _LONGEST)
