"""Turn what is given into settings: it comes before the recipe, and the recipe before the default.

The command line, a file of settings and Python give the same thing: a dict of settings and options
by their names, those that `by_name` returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from dualnet import backends, data
from dualnet.data.arrays import NAME as ARRAYS
from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.naming import assigned, did_you_mean, named
from dualnet.nn import READS
from dualnet.options import kinds_of, of_kind, require_choice
from dualnet.training.recipes import find_recipe
from dualnet.training.settings import Settings, Tables, build, option_table, options_of

DEFAULTS: dict[str, Any] = {
    "dataset": "digits",
    "pixels": "standard",
    "model": "mlp",
    "objective": "supervised",
    "rule": "fg-a",
    "optimizer": "adam",
    "schedule": "cosine",
}
"""Choices that hold for every data set and rule."""

DATASET_DEFAULTS = {
    ARRAYS: {"epochs": 10, "batch_size": 64},
    "digits": {"epochs": 60, "batch_size": 32},
    "mnist": {"epochs": 10, "batch_size": 64},
    "fashion-mnist": {"epochs": 10, "batch_size": 64},
}
OTHER_DATA = {"epochs": 10, "batch_size": 128}
"""Defaults of the data sets that are not in `DATASET_DEFAULTS`."""
_ONE_PATCH = {"patches": 1, "depth": 1}  # LocalMixer M/1/16
MODEL_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": {"digits": {"width": 128}, "cifar10": {"width": 1024}, "cifar100": {"width": 1024}},
    "cnn": {"digits": {"plan": "15C3-P2-40C3-128"}},
    "cnn4": {"digits": {"plan": "64C3-64C3-P2-64C1-64C1-P2-1024"}},
    "local-mixer": {"digits": _ONE_PATCH, "mnist": _ONE_PATCH, "fashion-mnist": _ONE_PATCH},
}
"""Model → data set → options, where the model's own defaults are meant for other data."""

OF_LOCAL_HEADS = ("head_reads", "head_lr")
"""Settings that are of use to rules with local losses alone."""

LR = 1e-3
LR_DEFAULTS = {"fg-w": 5e-4, "lg-fg-w": 5e-4, "wp": 5e-4}
"""Learning rates of the rules for which it is not `LR`."""

ROUNDED = tuple(name for name in backends.MATMUL_PRECISIONS if name != "full")
"""Precisions of matrix products that are settings of their own, True or False, for users."""


def resolve(given: Mapping[str, Any], tables: Tables) -> Settings:
    """Return the settings that what is given asks for.

    What is given comes before the recipe, the recipe before the defaults.

    Args:
        given: settings and options by name, of those in `setting_kinds(tables)`; an int may stand
            for a float, and a list for a tuple.
        tables: what there is to choose from.

    Raises:
        UsageError: a name that there is not, a value of the wrong kind, a setting that nothing
            uses, or a choice that cannot be made.
    """
    kinds = setting_kinds(tables)
    for name in given:
        if name not in kinds:
            raise UsageError(f"there is no setting {name!r}{did_you_mean(name, kinds)}")
    given = {name: of_kind("", named(name), value, kinds[name]) for name, value in given.items()}
    recipe = find_recipe(given["recipe"]).settings if given.get("recipe") else {}
    chosen = {**DEFAULTS, **recipe, **given}
    require_choice("", named("dataset"), chosen["dataset"], (*data.SOURCES, ARRAYS))
    for kind, table in tables.items():
        require_choice("", named(kind), chosen[kind], table)
    dataset, rule = chosen["dataset"], chosen["rule"]
    if chosen.get("backend", "numpy") == "numpy" and chosen.get("graph") is False:
        raise UsageError(
            f"{assigned('graph', False)} is of no use to {assigned('backend', 'numpy')}; it is for "
            "cupy"
        )
    if locality(rule) == "global":
        for name in OF_LOCAL_HEADS:
            chosen.pop(name, None)  # what a recipe says of another rule
            if name in given:
                raise UsageError(
                    f"{named(name)} is of no use to {assigned('rule', rule)}; it is for rules "
                    "with local losses"
                )
    options: dict[str, Any] = {}
    for kind, table in tables.items():
        name = chosen[kind]
        defaults = options_of(table[name])
        for option, (_, users) in option_table(table).items():
            if option in given and option not in defaults:
                raise UsageError(
                    f"{named(option)} is of no use to {assigned(kind, name)}; it is for "
                    f"{', '.join(users)}"
                )
        # What a recipe says of one optimizer is of no use to another one.
        own = {**recipe, **given} if recipe.get(kind) == name else given
        fitting = fitting_options(tables["model"], name, dataset, rule) if kind == "model" else {}
        options[f"{kind}_options"] = {
            **defaults,
            **fitting,
            **{option: own[option] for option in defaults if option in own},
        }
    chosen = {
        "lr": LR_DEFAULTS.get(rule, LR),
        "augment": "contrastive" if chosen["objective"] == "contrastive" else "none",
        **DATASET_DEFAULTS.get(dataset, OTHER_DATA),
        **chosen,
        "matmul_precision": _precision(given),
    }
    fields = {f.name for f in dataclasses.fields(Settings)}
    settings = Settings(**{n: v for n, v in chosen.items() if n in fields}, **options)
    check(settings, tables)
    return settings


def setting_kinds(tables: Tables) -> dict[str, str]:
    """Return every setting and option that there is, each with what it holds, as `int | None`."""
    hidden = {"matmul_precision", *(f"{kind}_options" for kind in tables)}
    kinds = {name: kind for name, kind in kinds_of(Settings).items() if name not in hidden}
    kinds |= dict.fromkeys(ROUNDED, "bool")
    for table in tables.values():
        kinds |= {name: kind for name, (kind, _) in option_table(table).items()}
    return kinds


def by_name(settings: Settings, tables: Tables) -> dict[str, Any]:
    """Return every setting and every option of what is chosen, as `setting_kinds` has."""
    by_name = dict(vars(settings))
    precision = by_name.pop("matmul_precision")
    by_name |= {name: name == precision for name in ROUNDED}
    for kind in tables:
        by_name |= by_name.pop(f"{kind}_options")
    return by_name


def fitting_options(
    models: Mapping[str, type], model: str, dataset: str, rule: str
) -> dict[str, Any]:
    """Return the options by which a model fits data and rule where its own defaults do not."""
    options = dict(MODEL_DEFAULTS.get(model, {}).get(dataset, {}))
    if hasattr(models[model], "readout"):
        options["readout"] = locality(rule) != "global"
    return options


def locality(rule: str) -> str:
    """Return `global`, `local` or `greedy`: how a rule uses the losses of local heads."""
    return RULES[rule].locality


def check(settings: Settings, tables: Tables) -> None:
    """Raise a UsageError unless everything that the settings name exists and can be made."""
    choices: dict[str, Iterable[str]] = {
        "dataset": (*data.SOURCES, ARRAYS),
        "pixels": data.PIXEL_SCALES,
        "augment": data.AUGMENTATIONS,
        "head_reads": READS,
        "backend": backends.NAMES,
        "matmul_precision": backends.MATMUL_PRECISIONS,
    }
    for kind, names in choices.items():
        require_choice("", named(kind), getattr(settings, kind), names)
    for kind, table in tables.items():
        build(table, kind, getattr(settings, kind), getattr(settings, f"{kind}_options"))
    if settings.recipe is not None:
        find_recipe(settings.recipe)


def _precision(given: Mapping[str, Any]) -> str:
    """Return the precision of matrix products that is asked for."""
    asked = [name for name in ROUNDED if given.get(name)]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(map(named, asked))}: give one of them")
    return asked[0] if asked else "full"
