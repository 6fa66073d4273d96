"""Train a network by forward gradients, or by any other learning rule.

With no flag it trains a small network on the digits that ship with the package, on NumPy, in
seconds.  `python train.py --help` shows the flags, and `--list` shows what there is to choose from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualnet import Key, backends, data, tree
from dualnet.console import make_readable
from dualnet.errors import DivergedError, DualnetError, Interrupted, UsageError
from dualnet.learning import RULES, WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.models import MODELS
from dualnet.naming import as_flags, flag
from dualnet.nn import walk
from dualnet.optim import OPTIMIZERS
from dualnet.schedules import SCHEDULES
from dualnet.training.assemble import TABLES, network_of
from dualnet.training.config_file import checked, overruled, plugins_in, read_toml
from dualnet.training.flags import files_named, given, make_parser
from dualnet.training.host_memory import keep_freed_memory
from dualnet.training.objective import OBJECTIVES
from dualnet.training.plugins import load_plugins
from dualnet.training.rates_finder import PICTURE, draw_rates, find_rates
from dualnet.training.recipes import RECIPES, find_recipe
from dualnet.training.resolve import by_name, check, resolve
from dualnet.training.run import out_of_memory_explained, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.seeds import run_seeds, settings_to_resume, words_for_diverged
from dualnet.training.settings import Settings

COMPARABLE_ANYWAY = ("recipe", "seed", "backend", "threads", "shards", "graph", "grad_stats")
"""Settings that do not change the expected score of a recipe."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags that the command line gives, and for others what `--config` says."""
    config, plugins = files_named(argv)
    file = {} if config is None else read_toml(config)
    load_plugins(plugins or plugins_in(file, config), {**TABLES, "dataset": data.SOURCES})
    parser = make_parser(TABLES, __doc__.partition("\n")[0])
    args = parser.parse_every(argv)
    if config is not None:
        flags = {n: v for n, v in vars(args).items() if v is not parser.get_default(n)}
        vars(args).update(overruled(checked(file, config, TABLES), flags, TABLES))
    return args


@as_flags()
def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that flags ask for."""
    return resolve(given(args, TABLES), TABLES)


def published(settings: Settings) -> dict[str, Any]:
    """Return what a summary says of the recipe, {} if there is none.

    That is the published accuracy, its source, and which settings of the run are not the source's.
    """
    if settings.recipe is None:
        return {}
    recipe = find_recipe(settings.recipe)
    unchanged = by_name(resolve({"recipe": settings.recipe}, TABLES), TABLES)
    changed = [
        name
        for name, value in by_name(settings, TABLES).items()
        if name not in COMPARABLE_ANYWAY and (name, value) not in unchanged.items()
    ]
    return {
        "recipe": {
            "name": settings.recipe,
            "test_accuracy": recipe.accuracy,
            "source": recipe.source,
            "ours": recipe.ours,
            "changed": changed,
        }
    }


def loaded(settings: Settings, args: argparse.Namespace) -> tuple[Settings, Any, Any]:
    """Return the settings with the backend that is there, the network, and the data."""
    keep_freed_memory()
    # The backend comes first, to say at once if it cannot be used, and what `auto` chooses.
    backend = backends.get(settings.backend, settings.threads, settings.matmul_precision)
    # Where `auto` chooses NumPy, settings for CuPy are dropped.
    dropped = {} if backend.name == "cupy" else {"matmul_precision": "full", "graph": True}
    settings = dataclasses.replace(
        settings, backend=backend.name, threads=backend.threads, **dropped
    )
    dataset = data.load(
        settings.dataset,
        args.data_dir,
        limit_train=settings.limit_train,
        limit_test=settings.limit_test,
        validation=settings.validation,
        image_size=settings.image_size,
        quiet=args.quiet,
    )
    with out_of_memory_explained(settings):
        network = network_of(settings, dataset.in_shape, len(dataset.classes))
    return settings, network, dataset


def train(
    settings: Settings,
    folder: RunFolder,
    args: argparse.Namespace,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Load the data, do one run or one for each of several seeds, and return the summary."""
    settings, network, dataset = loaded(settings, args)
    how: dict[str, Any] = {
        "resume": args.resume is not None,
        "quiet": args.quiet,
        "published": published(settings),
    }
    try:
        if seeds is None:
            return run(settings, network, dataset, folder, **how)
        return run_seeds(settings, network, dataset, folder, seeds, **how)
    except KeyboardInterrupt:
        again = {"--data-dir": [args.data_dir] * (args.data_dir is not None)}
        again |= {"--plugin": args.plugin or []}
        where = "".join(f" {name} {value}" for name, values in again.items() for value in values)
        raise Interrupted(f"interrupted; go on with --resume {folder.path}{where}") from None


def print_rates(settings: Settings, folder: RunFolder, args: argparse.Namespace) -> None:
    """Try the rates of `--rates`; print a table and a choice, and write both to the folder."""
    folder.require_unused()
    settings, network, dataset = loaded(settings, args)
    found = find_rates(
        settings, network, dataset, args.rates, rate_steps=args.rate_steps, quiet=args.quiet
    )
    folder.write_rates(found.as_json(), settings)
    title = f"{settings.dataset}, {settings.model}, {settings.rule}"
    drawn = draw_rates(found, title, folder.path / PICTURE)
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        print(f"{found.table()}\n{textwrap.fill(found.why, 80)}\nfolder        {folder.path}")
        if not drawn:
            print('no picture    matplotlib is not installed: pip install "dualnet[plot]"')
    if all(one.diverged for one in found.runs):
        sys.stdout.flush()
        raise DivergedError(found.why)


WITHOUT_FOLDER = {"package": "ships with us", "in-memory": "is made by a plugin"}
"""How a data set is kept that has no folder → what a message says of it."""


def require_use(data_dir: str | None, settings: Settings) -> None:
    """Raise a UsageError if a folder of data files is named for a set without any."""
    if data_dir is not None and data.SOURCES[settings.dataset].kept in WITHOUT_FOLDER:
        what = WITHOUT_FOLDER[data.SOURCES[settings.dataset].kept]
        raise UsageError(f"--data-dir is of no use to --dataset {settings.dataset}: it {what}")


def describe(settings: Settings, data_dir: str | None) -> dict[str, Any]:
    """Return what `--describe` prints: the network, every setting, and what a recipe says of it."""
    in_shape, classes = data.outline(settings.dataset, data_dir, settings.image_size)
    with out_of_memory_explained(settings):
        network = network_of(settings, in_shape, classes)
        params, _, _ = network.init(Key(settings.seed), in_shape)
    return {
        "model": settings.model,
        **settings.model_options,
        "parameters": tree.size(params),
        "layers": [
            {
                "name": path,
                "kind": type(layer).__name__,
                "parameters": {
                    p[len(path) + 1 :]: list(leaf.shape)
                    for p, leaf in tree.items(params)
                    if p.startswith(path + "/")
                },
            }
            for path, layer in walk(network)
        ],
        "input_shape": list(in_shape),
        "classes": classes,
        "settings": by_name(settings, TABLES),
        **describe_recipe(settings),
    }


def describe_recipe(settings: Settings) -> dict[str, Any]:
    """Return what a summary says of the recipe, and which of its settings are the source's."""
    described = published(settings)
    if settings.recipe is not None:
        recipe = find_recipe(settings.recipe)
        described["recipe"]["published"] = {
            name: value for name, value in recipe.settings.items() if name not in recipe.ours
        }
    return described


def print_list() -> None:
    """Print what `--list` shows."""
    tables = {
        "rules": RULES,
        "models": MODELS,
        "objectives": OBJECTIVES,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
    }
    for title, table in tables.items():
        print(f"{title}:")
        for name, cls in table.items():
            print(f"  {name:15}{cls.__doc__.partition(chr(10))[0]}")
    samplers = {name: sampler.mix or sampler.draw for name, sampler in WEIGHT_SAMPLERS.items()}
    described = {
        "samplers": samplers,
        "aggregations": WEIGHT_AGGREGATIONS,
        "augmentations": data.AUGMENTATIONS,
    }
    for title, functions in described.items():
        print(f"{title}:")
        for name, function in functions.items():
            print(f"  {name:22}{function.__doc__.partition(chr(10))[0]}")
    print("data sets:")
    for name, source in data.SOURCES.items():
        print(f"  {name:17}{source.description}")
    print("recipes NAME-RULE, with the published test accuracy in % where there is one:")
    groups: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        rule = recipe.settings["rule"]
        row = rule if recipe.accuracy is None else f"{rule} {100 * recipe.accuracy:.2f}"
        groups.setdefault(name.removesuffix(f"-{rule}"), []).append(row)
    longest = max(map(len, groups))
    for name, rows in groups.items():
        print(f"  {name:{longest}}  {', '.join(rows)}")


@as_flags()
def main(argv: list[str]) -> None:
    """Do what the command line asks for; errors are raised."""
    args = parse(argv)
    if args.list:
        print_list()
        return
    if args.resume is not None:
        conclude(resume(args, argv), args)
        return
    if args.seed is not None and args.seeds is not None:
        raise UsageError("give --seed or --seeds, not both")
    if len(set(args.seeds or ())) < len(args.seeds or ()):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")
    settings = settings_of(args)
    require_use(args.data_dir, settings)
    if args.describe:
        described = describe(settings, args.data_dir)
        beside = {name: getattr(args, name) for name in ("seeds", "data_dir", "run_dir", "plugin")}
        described["settings"] |= {n: value for n, value in beside.items() if value is not None}
        if args.seeds is not None:
            del described["settings"]["seed"]
        print(json.dumps(described))
        return
    if args.rates is None and args.rate_steps is not None:
        raise UsageError("--rate-steps is of no use without --rates")
    if args.rates is not None and (args.seeds is not None or args.lr is not None):
        raise UsageError("--rates takes neither --lr nor --seeds; it tries each rate with --seed")
    name = f"{settings.dataset}-{settings.model}-{settings.rule}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(args.run_dir or unused(Path("runs") / name))
    if args.rates is not None:
        print_rates(settings, folder, args)
        return
    if args.seeds is not None:  # before data are loaded
        for one in (folder, *map(folder.of_seed, args.seeds)):
            one.require_unused()
    conclude(train(settings, folder, args, args.seeds), args)


def resume(args: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    """Go on with the run in the folder `--resume`, and return its summary."""
    given = {argument.partition("=")[0] for argument in argv if argument.startswith("--")}
    refused = sorted(
        given - {"--resume", "--epochs", "--json", "--quiet", "--data-dir", "--plugin"}
    )
    if refused:
        raise UsageError(
            f"{refused[0]} cannot be changed on --resume; a run keeps its settings, but for "
            "--epochs, --data-dir and --plugin"
        )
    folder = RunFolder(args.resume)
    settings = settings_to_resume(folder, check_settings, args.epochs)
    return train(settings, folder, args, folder.seeds())


def check_settings(settings: Settings) -> None:
    """Raise a UsageError unless everything that the settings name exists and can be made."""
    try:
        check(settings, TABLES)
    except UsageError as error:
        known = {**TABLES, "dataset": data.SOURCES}
        if all(getattr(settings, kind) in names for kind, names in known.items()):
            raise
        raise UsageError(f"{error}; if it is your own, name its file with --plugin") from None


def conclude(summary: dict[str, Any], args: argparse.Namespace) -> None:
    """Report the outcome; then raise a DivergedError if some of several runs have diverged."""
    report(summary, args)
    if summary.get("diverged"):
        sys.stdout.flush()  # the outcome comes before the error
        raise DivergedError(
            words_for_diverged(summary["diverged"], len(summary["runs"]) + len(summary["diverged"]))
        )


def report(summary: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the outcome of a run on standard output."""
    if args.json:
        print(json.dumps(summary))
        return
    deviation = summary.get("test_accuracy_std")
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    accuracy = f"{summary['tested_on']} accuracy {summary['test_accuracy']:.4f}{spread}"
    runs = summary.get("runs", [summary])
    if "runs" in summary:
        for one in runs:
            print(f"seed {one['seed']:<8} {one['tested_on']} accuracy {one['test_accuracy']:.4f}")
    fewest, epochs = min(one["epochs"] for one in runs), summary["epochs"]
    after = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    after = after if fewest == epochs else f"{fewest} to {after}"
    of = "" if deviation is None else f" (mean ± sample deviation of {len(runs)} seeds)"
    print(f"{accuracy} after {after}{of}")
    # To choose by images that are tested on would promise more than others will give.
    for one in runs if summary["tested_on"] == "validation" else ():
        print(
            f"lowest loss   seed {one['seed']}: after epoch {one['best_epoch']}, with accuracy "
            f"{one['best_test_accuracy']:.4f}"
        )
    for one in runs:
        if one.get("skipped_steps"):
            print(f"left out      {one['skipped_steps']} steps with numbers that are not finite")
    print(f"run folder    {summary['run_dir']}")
    if "recipe" in summary:
        recipe = summary["recipe"]
        known = recipe["test_accuracy"]
        against = "without a published accuracy" if known is None else f"published {known:.4f}"
        print(
            f"recipe        reached {summary['test_accuracy']:.4f}, {against} "
            f"({recipe['source']}); "
            f"changed here: {', '.join(map(flag, recipe['changed'])) or 'nothing'}"
        )


def unused(path: Path) -> Path:
    """Return the path, with a number behind it if the path is taken."""
    candidate, n = path, 1
    while candidate.exists():
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def exit_code(argv: list[str]) -> int:
    """Run `main`, print an error as one line, and return the exit code."""
    make_readable()
    # After SIGTERM a checkpoint is written, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(argv)
        sys.stdout.flush()  # here and not at exit, so that a reader that has gone is noticed below
    except DualnetError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train.py: interrupted before training began", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(sys.argv[1:]))
