"""Random directions of activities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.backends import Backend
from dualnet.core.arrays import stack_arrays
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Draw
from dualnet.learning.task import Shard
from dualnet.random import Key

SAMPLERS = ("normal", "rademacher")


@dataclass(frozen=True)
class ActivityDirections:
    """Random directions of activities, a sequence for each place and tangent.

    Attributes:
        key: names all draws.
        draw_array: the backend's `normal` or `signs`.
        k: how many directions.
    """

    key: Key
    draw_array: Callable[..., Any]
    k: int

    @classmethod
    def of(cls, rule: Any, key: Key, backend: Backend) -> ActivityDirections:
        """As a rule with `tangents` and `sampler` asks for."""
        draw = backend.normal if rule.sampler == "normal" else backend.signs
        return cls(key, draw, rule.tangents)

    def drawer(self, shard: Shard) -> Draw:
        """`draw(path, visit, z, slope)` for a shard; 0 where the slope is, and the gradient with
        it."""

        def draw(path: str, visit: int, z: Any, slope: Any) -> Any:
            of_place = self.key.fold_in(path).fold_in(visit)
            first = shard.context.start * (z.size // max(1, len(z)))
            u = stack_arrays(
                [
                    self.draw_array(of_place.fold_in(i), z.shape, z.dtype, first)
                    for i in range(self.k)
                ]
            )
            return u if slope is None else np.where(np.equal(slope, 0), 0, u)

        return draw


def require_sampler(rule: str, tangents: int, sampler: str) -> None:
    """Raise a UsageError unless k and the sampler are what activities can be perturbed with."""
    if tangents < 1:
        raise UsageError(f"{rule}: tangents must be at least 1, got {tangents}")
    if sampler not in SAMPLERS:
        raise UsageError(
            f"{rule}: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r} "
            "(rank-one directions are for weights)"
        )


def require_choice(rule: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a UsageError that names the choices."""
    if value not in choices:
        raise UsageError(f"{rule}: {option} must be one of {', '.join(choices)}, got {value!r}")


def require_share(rule: str, option: str, value: float) -> None:
    """Raise a UsageError unless a number is from 0 to 1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{rule}: {option} must be from 0 to 1, got {value}")
