"""A figure over several seeds: mean and sample deviation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds.

    Attributes:
        mean: of the seeds; None if there is no figure, or one is not finite.
        std: the sample deviation, with n - 1 in the denominator; None for one seed alone, too.
    """

    mean: float | None
    std: float | None

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Return mean and deviation; figures that are not finite have neither."""
        if not figures or not all(map(math.isfinite, figures)):
            return cls(None, None)
        std = statistics.stdev(figures) if len(figures) > 1 else None
        return cls(statistics.fmean(figures), std)

    def in_words(self, form: str) -> str:
        """Return `mean ± deviation`, both in this form."""
        if self.mean is None:
            return "-"
        return f"{self.mean:{form}}" + ("" if self.std is None else f" ± {self.std:{form}}")
