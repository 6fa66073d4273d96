"""The settings of a run: what the command line resolves to, and `config.json` holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dualnet.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Every choice that the numbers of a run depend on.

    Attributes:
        dataset, limit_train, limit_test: which examples; None for all of them.
        validation: test on so many of the training examples; None for the test set.
        image_size: pixels along each side of an image; None for those that the set has.
        model, model_options: a name, and the fields of the model's dataclass.
        rule, rule_options: likewise for the learning rule.
        optimizer, optimizer_options, schedule, schedule_options: likewise.
        lr: base learning rate.
        epochs, batch_size, seed: as they say.
        pixels: how images become numbers, a name in `data.PIXEL_SCALES`.
        augment: how training images are changed at random, a name in `data.AUGMENTATIONS`.
        dtype: float32 or float64.
        objective, objective_options: a name, and the fields of the objective's dataclass.
        backend, threads: where it runs.
        matmul_precision: how the factors of float32 matrix products are rounded, on CuPy: a name in
            `backends.MATMUL_PRECISIONS`.
        graph: on CuPy, a step is recorded as a CUDA graph and repeated.
        shards: pieces that a batch is cut into; None for one a thread.
        grad_stats: gradients are compared with the exact ones every so many steps; None for
            never.
        recipe: the published row that the settings started from, a name in `RECIPES`.
    """

    dataset: str
    model: str
    rule: str
    optimizer: str
    schedule: str
    lr: float
    epochs: int
    batch_size: int
    seed: int = 0
    pixels: str = "standard"
    objective: str = "supervised"
    augment: str = "none"
    dtype: str = "float32"
    backend: str = "numpy"
    threads: int = 1
    matmul_precision: str = "full"
    graph: bool = False
    shards: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    validation: int | None = None
    image_size: int | None = None
    grad_stats: int | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    rule_options: dict[str, Any] = field(default_factory=dict)
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    objective_options: dict[str, Any] = field(default_factory=dict)
    schedule_options: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{flag(name)} must be at least 1, got {getattr(self, name)}")
        for name in ("grad_stats", "shards", "limit_train", "limit_test", "validation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{flag(name)} must be at least 1, got {value}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"--lr must be a positive number, got {self.lr}")
        if self.dtype not in ("float32", "float64"):
            raise UsageError(f"--dtype must be float32 or float64, got {self.dtype}")
        if self.matmul_precision != "full" and self.dtype != "float32":
            raise UsageError(
                f"--{self.matmul_precision} is of no use to --dtype {self.dtype}; it is for float32"
            )
        if self.matmul_precision != "full" and self.backend == "numpy":
            raise UsageError(
                f"--{self.matmul_precision} is of no use to --backend numpy; it is for cupy"
            )
        if self.graph and self.backend == "numpy":
            raise UsageError("--graph is of no use to --backend numpy; it is for cupy")

    def as_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """The settings in a dict.

        Raises:
            UsageError: names that are missing or unknown.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(known))
        missing = sorted(
            name
            for name, f in known.items()
            if name not in data
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        )
        if unknown or missing:
            raise UsageError(
                f"settings: unknown {unknown or 'none'}, missing {missing or 'none'}; was this "
                "config.json written by another version of dualnet?"
            )
        for name, value in data.items():
            _check_kind(f"settings: {name}", known[name], value)
        return cls(**data)


Tables = Mapping[str, Mapping[str, type]]
"""Kind of choice (`model`, `rule`, …) → name → dataclass, whose fields are its options."""


def option_table(table: Mapping[str, type]) -> dict[str, tuple[type, list[str]]]:
    """Each option of a table's dataclasses: its type, and whose it is."""
    options: dict[str, tuple[type, list[str]]] = {}
    kinds = {"int": int, "float": float, "str": str, "bool": bool, "tuple[float,": tuple}
    for owner, cls in table.items():
        for f in dataclasses.fields(cls):
            kind = kinds[str(f.type).partition(" ")[0]]
            options.setdefault(f.name, (kind, []))[1].append(owner)
    return options


def flag(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


def build(table: Mapping[str, Any], kind: str, name: str, options: dict[str, Any]) -> Any:
    """Make the dataclass that a table has under a name.

    Args:
        table: of dataclasses.
        kind: what they are, for messages: `rule`, `model`, `optimizer`.
        name: which one.
        options: its fields.

    Raises:
        UsageError: there is none of that name, or an option does not fit.
    """
    if name not in table:
        raise UsageError(f"{kind}: expected one of {', '.join(table)}, got {name!r}")
    known = {f.name: f for f in dataclasses.fields(table[name])}
    for option, value in options.items():
        if option not in known:
            raise UsageError(f"{kind} {name}: it has no option {option!r}")
        _check_kind(f"{kind} {name}: {option}", known[option], value)
    return table[name](**options)


_KINDS: dict[str, Any] = {
    "bool": bool,
    "str": str,
    "int": int,
    "float": (int, float),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "dict[str, Any]": dict,
}


def _check_kind(where: str, field: dataclasses.Field, value: Any) -> None:
    kind = str(field.type)
    known = kind in _KINDS
    unlike = isinstance(value, bool) != (kind == "bool")  # to Python a bool is an int, too
    if known and (unlike or not isinstance(value, _KINDS[kind])):
        raise UsageError(f"{where}: expected {kind}, got {value!r}")
