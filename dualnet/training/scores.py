"""How good a network's answers are: loss, accuracy, and which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualnet.training.score_tables import class_table


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a network on some examples.

    Attributes:
        loss: the mean loss: cross-entropy in nats; for real targets the mean squared error.
        classes: the name of each class; () for real targets.
        confusion: int64 `(classes, classes)`, how many examples of a class (row) were taken for a
            class (column); None for real targets.
    """

    loss: float
    classes: tuple[str, ...] = ()
    confusion: np.ndarray | None = None

    @classmethod
    def of(cls, loss: float, answers: np.ndarray, targets: np.ndarray, classes: tuple) -> Scores:
        """Count the answers `(n,)` to targets `(n,)`, both numbers of classes."""
        n = len(classes)
        counts = np.bincount(targets * n + answers, minlength=n * n).reshape(n, n)
        return cls(loss, tuple(classes), counts)

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose class was found; None for real targets."""
        if self.confusion is None:
            return None
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def by_class(self) -> list[dict[str, str | int | float | None]]:
        """For each class its name, how many `examples` it has, `precision`, `recall` and `f1`.

        A figure is None where it is undefined: precision if no example was taken for the class,
        recall if none is of it.
        """
        if self.confusion is None:
            return []
        rows: list[dict[str, str | int | float | None]] = []
        for i, name in enumerate(self.classes):
            right = int(self.confusion[i, i])
            taken, there = int(self.confusion[:, i].sum()), int(self.confusion[i].sum())
            rows.append(
                {
                    "class": name,
                    "examples": there,
                    "precision": right / taken if taken else None,
                    "recall": right / there if there else None,
                    "f1": 2 * right / (taken + there) if taken + there else None,
                }
            )
        return rows

    @property
    def in_a_line(self) -> str:
        """Loss and accuracy as text."""
        loss = f"loss {self.loss:.4f}"
        return loss if self.accuracy is None else f"{loss}, accuracy {self.accuracy:.4f}"

    def __str__(self) -> str:
        if self.confusion is None:
            return self.in_a_line
        return f"{self.in_a_line}\n{class_table(self.by_class)}"
