"""Download data files: from several mirrors, checked by SHA-256, and never half a file."""

from __future__ import annotations

import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from dualnet.data.sources import SOURCES, RemoteFile
from dualnet.data.streams import chunks, digest
from dualnet.errors import DataError
from dualnet.naming import assigned
from dualnet.progress import progress_bar

TIMEOUT = 30.0
"""How long a mirror may stay silent, in seconds."""


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
        folder.mkdir(parents=True, exist_ok=True)
        # It is inside `folder`, so os.replace stays on one file system and is atomic.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            partial = Path(temporary) / file.sent_name
            for mirror in SOURCES[name].mirrors:
                failure = _try_mirror(mirror + file.sent_name, file, partial, quiet)
                if failure is None:
                    os.replace(partial, folder / file.sent_name)
                    return folder / file.sent_name
                failures.append(f"{mirror}: {failure}")
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder to download {name} into, found {_one_line(error)}; "
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
        _receive(url, partial, _most_bytes(file), quiet)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        # A ValueError comes from a header that makes no sense, such as a redirect's address.
        return _one_line(getattr(error, "reason", error))
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


def _receive(url: str, partial: Path, at_most: int, quiet: bool) -> None:
    """Write the answer of a server to a file, `at_most` bytes of it."""
    request = urllib.request.Request(url, headers={"User-Agent": "dualnet"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, open(partial, "wb") as out:
        total = response.headers.get("Content-Length", "")
        with progress_bar(
            total=int(total) if total.isdecimal() else None,
            desc=partial.name,
            unit="B",
            unit_scale=True,
            quiet=quiet,
        ) as bar:
            for chunk in chunks(response, at_most):
                out.write(chunk)
                bar.update(len(chunk))


def _most_bytes(file: RemoteFile) -> int:
    """Return how many bytes a file can have on a mirror, packed or not."""
    # Gzip adds 5 bytes to each block that it cannot compress, and a few KB of header at most.
    return file.size + file.size // 100 + 4096


def _one_line(error: object) -> str:
    """Return an error's message in one line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
