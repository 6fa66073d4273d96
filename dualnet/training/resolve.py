"""Turn flags into settings: a flag comes before the recipe, and the recipe before the default."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from dualnet import backends, data
from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.nn import READS
from dualnet.training.recipes import find_recipe
from dualnet.training.settings import Settings, Tables, build, flag, option_table

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
    "digits": {"epochs": 60, "batch_size": 32},
    "mnist": {"epochs": 10, "batch_size": 64},
    "fashion-mnist": {"epochs": 10, "batch_size": 64},
    "cifar10": {"epochs": 10, "batch_size": 128},
    "cifar100": {"epochs": 10, "batch_size": 128},
    "tiny-imagenet": {"epochs": 10, "batch_size": 128},
    "imagenet-folder": {"epochs": 10, "batch_size": 128},
}
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

LR_DEFAULTS = {"fg-w": 5e-4, "lg-fg-w": 5e-4, "wp": 5e-4}
"""Learning rates of the rules for which it is not 1e-3."""


def resolve(args: argparse.Namespace, tables: Tables) -> Settings:
    """Return the settings that the command line asks for.

    A flag comes before the recipe, the recipe before the defaults.

    Args:
        args: the command line as `flags.make_parser(tables, …)` read it.
        tables: what there is to choose from.

    Raises:
        UsageError: a flag that nothing uses, or a choice that cannot be made.
    """
    flags = {name: value for name, value in vars(args).items() if value is not None}
    recipe = {} if args.recipe is None else find_recipe(args.recipe).settings
    chosen = {**DEFAULTS, **recipe, **flags}
    dataset, rule = chosen["dataset"], chosen["rule"]
    if args.data_dir is not None and data.SOURCES[dataset].kept == "package":
        raise UsageError(f"--data-dir is of no use to --dataset {dataset}: it ships with us")
    if args.backend == "numpy" and not args.graph:
        raise UsageError("--no-graph is of no use to --backend numpy; it is for cupy")
    if locality(rule) == "global":
        for name in OF_LOCAL_HEADS:
            if name in flags:
                raise UsageError(
                    f"{flag(name)} is of no use to --rule {rule}; it is for rules with local losses"
                )
    options = {}
    for kind, table in tables.items():
        name = chosen[kind]
        fields = {f.name: f.default for f in dataclasses.fields(table[name])}
        for option, (_, users) in option_table(table).items():
            if option in flags and option not in fields:
                raise UsageError(
                    f"{flag(option)} is of no use to --{kind} {name}; it is for {', '.join(users)}"
                )
        # What a recipe says of one optimizer is of no use to another one.
        given = {**recipe, **flags} if recipe.get(kind) == name else flags
        fitting = fitting_options(tables["model"], name, dataset, rule) if kind == "model" else {}
        options[kind] = {**fields, **fitting, **{o: given[o] for o in fields if o in given}}
    chosen = {
        "lr": LR_DEFAULTS.get(rule, 1e-3),
        "augment": "contrastive" if chosen["objective"] == "contrastive" else "none",
        **DATASET_DEFAULTS[dataset],
        **chosen,
    }
    of_heads = (
        {}
        if locality(rule) == "global"
        else {name: chosen[name] for name in OF_LOCAL_HEADS if name in chosen}
    )
    settings = Settings(
        dataset=dataset,
        model=chosen["model"],
        rule=rule,
        optimizer=chosen["optimizer"],
        schedule=chosen["schedule"],
        lr=chosen["lr"],
        epochs=chosen["epochs"],
        batch_size=chosen["batch_size"],
        seed=args.seed or 0,
        pixels=chosen["pixels"],
        objective=chosen["objective"],
        augment=chosen["augment"],
        dtype=args.dtype,
        backend=args.backend,
        threads=args.threads,
        matmul_precision=args.matmul_precision,
        graph=args.graph,
        shards=args.shards,
        limit_train=args.limit_train,
        limit_test=args.limit_test,
        validation=chosen.get("validation"),
        early_stop=chosen.get("early_stop"),
        image_size=chosen.get("image_size"),
        grad_stats=args.grad_stats,
        output_lr=chosen.get("output_lr", 1.0),
        clip_norm=chosen.get("clip_norm"),
        on_nan=chosen.get("on_nan", "stop"),
        **of_heads,
        model_options=options["model"],
        rule_options=options["rule"],
        optimizer_options=options["optimizer"],
        objective_options=options["objective"],
        schedule_options=options["schedule"],
        recipe=args.recipe,
    )
    check(settings, tables)
    return settings


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
    named = {
        "dataset": data.NAMES,
        "pixels": data.PIXEL_SCALES,
        "augment": data.AUGMENTATIONS,
        "head_reads": READS,
        "backend": backends.NAMES,
        "matmul_precision": backends.MATMUL_PRECISIONS,
    }
    for kind, names in named.items():
        if getattr(settings, kind) not in names:
            raise UsageError(
                f"{kind}: expected one of {', '.join(names)}, got {getattr(settings, kind)!r}"
            )
    for kind, table in tables.items():
        build(table, kind, getattr(settings, kind), getattr(settings, f"{kind}_options"))
    if settings.recipe is not None:
        find_recipe(settings.recipe)
