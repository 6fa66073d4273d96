"""Read files out of a tar archive into memory, without writing any file."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dualnet.data.streams import FETCH_AGAIN, bad, unpacked
from dualnet.errors import DataError
from dualnet.naming import shortened

_MOST_MEMBERS = 100
"""How many members an archive may have."""
_LONGEST_NAME = 200
"""How many characters of a member's name are repeated."""
_OVERHEAD_BYTES = 1 << 20
"""How many bytes an archive may hold besides the wanted files: headers, read-me files."""


def read_members(
    path: Path, wanted: Collection[str], most: int, remedy: str = FETCH_AGAIN
) -> Iterator[tuple[str, bytes]]:
    """Read the wanted files of a tar archive, packed with gzip or not, one after the other.

    The whole archive is read.  It is refused if a member is no plain file or folder, such as a
    link or a device, or if its path would leave the folder into which the archive is unpacked.

    Args:
        path: the archive.
        wanted: the names of the files.
        most: how many bytes all wanted files may have together.
        remedy: what to do about a bad archive; it ends every error message.

    Yields:
        `(name, content)` in the archive's order.

    Raises:
        DataError: the archive is damaged, holds more than it may, or lacks a wanted file.
    """
    missing = set(wanted)
    try:
        with unpacked(path, remedy) as stream:
            limited = _Limited(stream, most + _OVERHEAD_BYTES, path, remedy)
            # "r|" reads forward only, so no header can send the reader back.
            with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
                for count, member in enumerate(archive):
                    _check(member, count, path, remedy)
                    if member.name not in missing:
                        continue
                    if not member.isfile() or member.size > most:
                        found = f"{member.name!r} of {member.size} bytes"
                        raise bad(path, f"files of at most {most} bytes", found, remedy)
                    missing.remove(member.name)
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    yield member.name, content.read()
            while limited.read(1 << 20):
                pass  # read to the end, where gzip has its checksum
    except DataError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        # A RecursionError comes from a long chain of extended headers.
        raise bad(path, "an intact tar archive", str(error), remedy) from error
    if missing:
        raise bad(path, f"{min(missing)} in it", "none", remedy)


def _check(member: tarfile.TarInfo, count: int, path: Path, remedy: str) -> None:
    """Raise a DataError unless member number `count` is harmless."""
    parts, name = PurePosixPath(member.name), shortened(repr(member.name), _LONGEST_NAME)
    if count >= _MOST_MEMBERS:
        raise bad(path, f"at most {_MOST_MEMBERS} members", "more", remedy)
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise bad(path, "files and folders alone", f"{name} of another kind", remedy)
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name or ":" in member.name:
        raise bad(path, "members that stay in their folder", name, remedy)


class _Limited:
    """A stream that raises a DataError after `most` bytes, as a guard against archive bombs."""

    def __init__(self, stream: BinaryIO, most: int, path: Path, remedy: str) -> None:
        self.stream, self.left = stream, most
        self.error = bad(path, f"at most {most} bytes after decompression", "more", remedy)

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise self.error
        return content
