"""What is said of a file of a run that is of no use: that it is damaged, or why it cannot be read.

To start anew helps against damage alone.  Files may have come from anybody, so that what they hold
is shortened and cleaned before it is shown.
"""

from __future__ import annotations

import errno
from pathlib import Path

from dualnet.errors import DataError, UsageError
from dualnet.naming import printable, shortened

_MOST = 300
"""How many characters of a reason are shown."""
_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "; ask for the permission to read it"),
    errno.EIO: "; its disk fails: copy what can still be read to another one",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "; let fewer files be open at a time"),
}


def damaged(file: Path, why: object, remedy: str = "") -> DataError:
    """Return the error for a file whose content is not what was written.

    Args:
        file: the path of the file.
        why: how one sees it.
        remedy: what to do.
    """
    text = f"{in_message(file)} is damaged: {in_message(why)}"
    return DataError(f"{text}; {remedy}" if remedy else text)


def unreadable(file: Path, error: OSError) -> DataError | UsageError:
    """Return the error for a file that the system does not let us read; nothing is lost by it."""
    if error.errno is None:  # `files.open_regular` refuses folders, pipes and devices
        return DataError(f"{in_message(file)}: expected a file, got a folder, a pipe or a device")
    kind = DataError if error.errno == errno.EIO else UsageError
    why = f"cannot be read: {in_message(error.strerror)}"
    return kind(f"{in_message(file)} {why}{_REMEDIES.get(error.errno, '')}")


def in_message(what: object) -> str:
    """Return something as it stands in a message: in one line that is not too long."""
    return shortened(printable(shortened(str(what), 4 * _MOST)), _MOST)
