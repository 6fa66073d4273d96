"""Figures of epochs for TensorBoard, written by tensorboardX, the extra `tensorboard`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dualnet.errors import UsageError

TAGS = {
    "train_loss": "loss/training",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/training",
    "test_accuracy": "accuracy/test",
    "lr": "learning_rate",
    "seconds": "seconds",
}
"""Figure of an epoch → what TensorBoard calls it."""


class TensorBoard:
    """A callback of `fit` that writes the figures of each epoch where TensorBoard finds them.

    TensorBoard can show an epoch about a second after its end.  `close` ends the file, and so do
    a `with` statement, the end of the program, and the last use of the board::

        with TensorBoard("boards/first") as board:
            run = dn.fit("mlp", data, callbacks=[board])

    `tensorboard --logdir boards` shows all runs in folders below `boards`.

    Args:
        folder: of one run; it is made if it is not there.
        resume: whether it may hold the epochs of a run that goes on.  Those that are made again
            replace the old ones.

    Raises:
        UsageError: tensorboardX is not installed, or the folder holds a run already or cannot be
            written to.
    """

    def __init__(self, folder: str | Path, *, resume: bool = False):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageError(
                'TensorBoard: tensorboardX is not installed; pip install "dualnet[tensorboard]" '
                "brings it"
            ) from None
        self.folder, self._make_writer = Path(folder), SummaryWriter
        self._writer: Any = None
        self._closed, self._last = False, 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = next(self.folder.glob("events.out.tfevents.*"), None)
        except OSError as error:
            raise UsageError(f"TensorBoard: {folder}: {error.strerror or error}") from error
        if there is not None and not resume:
            raise UsageError(
                f"TensorBoard: {folder} holds the figures of a run already; choose another folder"
            )

    def __call__(self, epoch: Mapping[str, float]) -> None:
        """Write the figures of an epoch, a dict by the names in `TAGS`; NaN is left out.

        Raises:
            UsageError: the file was closed or cannot be written to, or the epoch is of another run.
        """
        number = int(epoch["epoch"])
        if self._closed or number <= self._last:
            what = "it was closed" if self._closed else f"epoch {number} came after {self._last}"
            raise UsageError(f"TensorBoard: {what}; make another one for another run")
        self._last = number
        try:
            if self._writer is None:
                # From the first epoch of a run that goes on, old figures do not count.
                # A file has the second of its beginning in its name, which two may share.
                self._writer = self._make_writer(
                    str(self.folder),
                    purge_step=number,
                    flush_secs=1,
                    filename_suffix=f".{number:05}",
                )
                # A board that nobody holds any more is closed, too.
                self._end = weakref.finalize(self, self._writer.close)
            for name, tag in TAGS.items():
                if not math.isnan(epoch[name]):
                    self._writer.add_scalar(tag, epoch[name], number)
        except OSError as error:
            raise UsageError(f"TensorBoard: {self.folder}: {error.strerror or error}") from error

    def close(self) -> None:
        """End the file."""
        self._closed = True
        if self._writer is not None:
            self._end()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
