"""Decompress gzip data as they are read.

Python's own `gzip` looks at the names in headers, and at zeros behind the data, byte by byte: a
file of many zeros, which may take no room on a disk, keeps it busy for hours.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

MAGIC = b"\x1f\x8b"
"""The first two bytes of gzip data."""

_GZIP = 31
"""What zlib is to expect: gzip's header and checksum, and the largest window."""
_MOST_MEMBERS = 1 << 16
_CHUNK = 1 << 16


class Gunzipped(io.RawIOBase):
    """The content of gzip data: one member or more, and perhaps zeros behind them.

    Args:
        packed: the data.

    Raises:
        EOFError: in reading: the data end too early.
        zlib.error: in reading: they are damaged, or something else follows them.
    """

    def __init__(self, packed: BinaryIO):
        self._packed, self._given, self._members = packed, b"", 0
        self._member: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the beginning of a buffer; return how many bytes that are, 0 at the end."""
        content = b""
        while not content:
            self._given = self._given or self._packed.read(_CHUNK)
            if not self._given:
                if self._member is not None or not self._members:
                    raise EOFError("they end too early")
                return 0
            if self._member is None:
                self._next_member()
            else:
                content = self._member.decompress(self._given, len(buffer))
                self._given = self._member.unconsumed_tail
                if self._member.eof:
                    self._given, self._member = self._member.unused_data, None
        buffer[: len(content)] = content
        return len(content)

    def _next_member(self) -> None:
        """Begin the next member, if what is given is not zeros behind the last one."""
        if self._members:
            self._given = self._given.lstrip(b"\0")
        if self._given:
            self._members += 1
            self._member = zlib.decompressobj(_GZIP)
            if self._members > _MOST_MEMBERS:
                raise zlib.error(f"they have more than {_MOST_MEMBERS} members")
