"""The settings of a run: the command line resolves to them, and `config.json` holds them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dualnet.errors import UsageError
from dualnet.naming import assigned, did_you_mean, named
from dualnet.options import kinds_of, of_kind, require_choice, require_count

DTYPES = ("float32", "float64")
"""What pixels and parameters may be."""

ON_NAN = ("stop", "skip")
"""What a number that is not finite may do to a run."""

AUTO = "auto"
"""The number of threads that a run chooses when it begins."""

MOST_THREADS = 1024
"""More than the cores of any machine."""

_OLD_NAMES = {"patience": "early_stop"}
"""Name of a setting in run folders of earlier versions → its name."""


@dataclass(frozen=True)
class Settings:
    """Every choice that the numbers of a run depend on.

    Attributes:
        dataset: a name in `data.NAMES`.
        model, model_options: a name, and the fields of the model's dataclass.
        rule, rule_options: likewise for the learning rule.
        optimizer, optimizer_options: likewise for the optimizer.
        schedule, schedule_options: likewise for the schedule.
        objective, objective_options: likewise for the objective.
        lr: base learning rate.
        epochs: passes over the training images.
        batch_size: images of a step.
        seed: of all randomness.
        pixels: how images become numbers, a name in `data.PIXEL_SCALES`.
        augment: how training images are changed at random, a name in `data.AUGMENTATIONS`.
        dtype: float32 or float64, of pixels and parameters.
        backend: a name in `backends.NAMES`.
        threads: how many shards of a batch run at a time; `auto` until a run that begins has
            chosen, see `thread_choice`.
        matmul_precision: how CuPy rounds the factors of float32 matrix products: a name in
            `backends.MATMUL_PRECISIONS`.
        graph: whether CuPy records steps and evaluations as CUDA graphs and repeats them.
        shards: pieces that a batch is cut into; None for one for each thread.
        limit_train, limit_test: how many of the first images are used; None for all of them.
        validation: how many of the training images take the place of the test images; None for
            the test images themselves.
        early_stop: after how many epochs in a row without a lower loss on the validation images a
            run ends; None for never.
        image_size: pixels along each side of an image; None for those that the data set has.
        grad_stats: after how many steps gradients are compared with the exact ones again; None
            for never.
        head_reads: what the local heads read that a rule with local losses gets for a network
            without any, `average` or `all`; see `nn.LocalHead`.
        head_lr: factor of the learning rate of local heads.
        output_lr: factor of the learning rate of the network's last layer.
        clip_norm: the norm of all gradients as one vector to which they are scaled down where it is
            larger; None to leave them as they are.
        on_nan: what a number that is not finite does, a name in `ON_NAN`: `stop` ends the run,
            `skip` leaves out the update of its step.
        recipe: the published row that the settings started from, a name in `RECIPES`; None for
            none.
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
    threads: int | str = 1
    matmul_precision: str = "full"
    graph: bool = True
    shards: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    validation: int | None = None
    early_stop: int | None = None
    image_size: int | None = None
    grad_stats: int | None = None
    head_reads: str = "average"
    head_lr: float = 1.0
    output_lr: float = 1.0
    clip_norm: float | None = None
    on_nan: str = "stop"
    model_options: dict[str, Any] = field(default_factory=dict)
    rule_options: dict[str, Any] = field(default_factory=dict)
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    objective_options: dict[str, Any] = field(default_factory=dict)
    schedule_options: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None

    def __post_init__(self) -> None:
        of_auto = () if self.threads == AUTO else ("threads",)
        for name in ("epochs", "batch_size", *of_auto):
            require_count("", named(name), getattr(self, name))
        at_least_one = ("grad_stats", "shards", "limit_train", "limit_test", "validation")
        for name in (*at_least_one, "early_stop"):
            if getattr(self, name) is not None:
                require_count("", named(name), getattr(self, name))
        if self.early_stop is not None and self.validation is None:
            raise UsageError(
                f"{named('early_stop')} goes by the loss on validation images; say how many by "
                f"{named('validation')} N"
            )
        for name, most in (("threads", MOST_THREADS), ("shards", self.batch_size)):
            if getattr(self, name) not in (None, AUTO) and getattr(self, name) > most:
                of = f", {assigned('batch_size', most)}" if name == "shards" else ""
                raise UsageError(
                    f"{named(name)}: expected at most {most}{of}, got {getattr(self, name)}"
                )
        for name in ("lr", "head_lr", "output_lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{named(name)}: expected a positive number, got {value}")
        if self.clip_norm is not None and not 1e-30 <= self.clip_norm <= 1e30:
            raise UsageError(
                f"{named('clip_norm')}: expected a number from 1e-30 to 1e30, got {self.clip_norm}"
            )
        require_choice("", named("on_nan"), self.on_nan, ON_NAN)
        require_choice("", named("dtype"), self.dtype, DTYPES)
        if self.matmul_precision != "full" and self.dtype != "float32":
            raise UsageError(
                f"{named(self.matmul_precision)} is of no use to {assigned('dtype', self.dtype)}; "
                "it is for float32"
            )
        if self.matmul_precision != "full" and self.backend == "numpy":
            raise UsageError(
                f"{named(self.matmul_precision)} is of no use to {assigned('backend', 'numpy')}; "
                "it is for cupy"
            )

    @property
    def threads_so_far(self) -> int:
        """How many threads there are: one until `auto` has chosen."""
        return self.threads if isinstance(self.threads, int) else 1

    @property
    def title(self) -> str:
        """What stands above a picture of the run."""
        return f"{self.dataset}, {self.model}, {self.rule}"

    def as_json(self) -> dict[str, Any]:
        """Return the settings as a dict that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """Return the settings that a dict holds.

        Raises:
            UsageError: a name is missing or unknown, or a value is of the wrong kind.
        """
        for old, new in _OLD_NAMES.items():
            if old in data and new not in data:
                data = {new if name == old else name: value for name, value in data.items()}
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
        kinds = kinds_of(cls)
        for name, value in data.items():
            _require_showable(f"settings: {name}", value)
        return cls(**{n: of_kind("settings", n, value, kinds[n]) for n, value in data.items()})


_LONGEST = 1000
"""Characters of a setting that is text."""


def _require_showable(where: str, value: Any) -> None:
    """Raise a UsageError for texts, also inside of options, that cannot be shown."""
    inside: Iterable[Any] = ()
    if isinstance(value, str) and not (value.isprintable() and len(value) <= _LONGEST):
        raise UsageError(f"{where}: expected a text that can be shown, got {value[:60]!r}")
    if isinstance(value, dict):
        inside = (*value, *value.values())
    elif isinstance(value, (list, tuple)):
        inside = value
    for one in inside:
        _require_showable(where, one)


Tables = Mapping[str, Mapping[str, type]]
"""Kind of choice (`model`, `rule`, …) → name → dataclass, whose fields are its options."""


OPTION_KINDS = ("int", "float", "str", "bool", "tuple[float, ...]")
"""What the options of a dataclass may hold, beside None."""


def option_table(table: Mapping[str, type]) -> dict[str, tuple[str, list[str]]]:
    """Return each option of a table's dataclasses, with its kind and the names of its owners.

    Raises:
        UsageError: something in the table is no dataclass, or a field of it cannot be an option.
    """
    options: dict[str, tuple[str, list[str]]] = {}
    for owner, cls in table.items():
        kinds = kinds_of(cls)
        for name in options_of(cls):
            options.setdefault(name, (kinds[name], []))[1].append(owner)
    return options


def options_of(cls: type) -> dict[str, Any]:
    """Return the options of a dataclass with their defaults.

    Raises:
        UsageError: the class is no dataclass, has fields that it does not know of as such, or has
            an option without a default or of a kind that no flag can give.
    """
    kinds = kinds_of(cls)
    defaults: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        if not f.init:
            continue
        if kinds[f.name].removesuffix(" | None") not in OPTION_KINDS:
            raise UsageError(
                f"{cls.__name__}.{f.name}: expected an option of type int, float, str, bool or "
                f"tuple[float, ...], or one of them | None, got {kinds[f.name]}"
            )
        if f.default is not dataclasses.MISSING:
            defaults[f.name] = f.default
        elif f.default_factory is not dataclasses.MISSING:
            defaults[f.name] = f.default_factory()
        else:
            raise UsageError(
                f"{cls.__name__}.{f.name}: expected an option with a default, got none; write "
                f"{f.name}: {kinds[f.name]} = …"
            )
    return defaults


def build(table: Mapping[str, Any], kind: str, name: str, options: dict[str, Any]) -> Any:
    """Make the dataclass that a table has under a name.

    Args:
        table: the dataclasses by name.
        kind: what they are, for messages: `rule`, `model`, `optimizer`.
        name: of the dataclass that is made.
        options: its fields.

    Raises:
        UsageError: the table has no such name, or an option does not fit.
    """
    require_choice("", named(kind), name, table)
    kinds = kinds_of(table[name])
    given = {}
    for option, value in options.items():
        if option not in kinds:
            raise UsageError(
                f"{kind} {name}: it has no option {option!r}{did_you_mean(option, kinds)}"
            )
        given[option] = of_kind(f"{kind} {name}", named(option), value, kinds[option])
    try:
        return table[name](**given)
    except UsageError as error:
        raise UsageError(f"{_flags_of(kinds, str(error))}{error}") from error


def chosen_model(settings: Settings) -> str:
    """Return the model and its options that are numbers or texts, as their user writes them."""
    options = {
        name: value
        for name, value in settings.model_options.items()
        if isinstance(value, (int, str)) and not isinstance(value, bool)
    }
    return " ".join(assigned(n, v) for n, v in {"model": settings.model, **options}.items())


def _flags_of(options: Iterable[str], message: str) -> str:
    """Return the flags of the options that a message names otherwise, for its beginning."""
    words = set(re.findall(r"[\w-]+", message))
    spelled = {named(name): {name, name.replace("_", "-")} for name in options}
    flags = [f for f, others in spelled.items() if f not in others | words and others & words]
    return f"{', '.join(flags)}: " if flags else ""
