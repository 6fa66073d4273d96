"""Train a network by forward gradients, or by any other learning rule.

With no flag: a small network on the digits that ship with the package, on NumPy, in seconds.
`python train.py --help` says what can be chosen, `--list` what there is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from dualnet import Key, backends, data, tree
from dualnet.errors import DualnetError, Interrupted, UsageError
from dualnet.learning import AGGREGATIONS, RULES, SAMPLERS
from dualnet.nn import has_local_heads, walk, with_local_heads
from dualnet.optim import OPTIMIZERS
from dualnet.schedules import SCHEDULES
from dualnet.training.objective import OBJECTIVES
from dualnet.training.recipes import RECIPES, find_recipe
from dualnet.training.run import extended, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings, build
from models import MODELS

TABLES: dict[str, dict[str, type]] = {
    "model": MODELS,
    "objective": OBJECTIVES,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

DEFAULTS: dict[str, Any] = {
    "dataset": "digits",
    "pixels": "standard",
    "model": "mlp",
    "objective": "supervised",
    "rule": "fg-a",
    "optimizer": "adam",
    "schedule": "cosine",
}

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
MODEL_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {  # where a model's own are for other data
    "mlp": {"digits": {"width": 128}, "cifar10": {"width": 1024}, "cifar100": {"width": 1024}},
    "cnn": {"digits": {"plan": "15C3-P2-40C3-128"}},
    "cnn4": {"digits": {"plan": "64C3-64C3-P2-64C1-64C1-P2-1024"}},
    "local-mixer": {"digits": _ONE_PATCH, "mnist": _ONE_PATCH, "fashion-mnist": _ONE_PATCH},
}
LR_DEFAULTS = {"fg-w": 5e-4, "lg-fg-w": 5e-4, "wp": 5e-4}  # 1e-3 for all others

OPTION_HELP = {
    "width": "units in each hidden layer, or channels",
    "depth": "hidden layers, or blocks",
    "activation": "what follows each hidden layer: relu, tanh, gelu or sigmoid",
    "plan": "such as 15C5-P2-128: convolutions (filters C size), max pools, linear layers",
    "batch_norm": "batch norm before each activation",
    "patches": "how many along each side of an image",
    "groups": "parts of the channels in the last layer of a block",
    "readout": "the output only reads, local losses train the rest (rules with local losses: yes)",
    "tangents": "k, random directions in one pass",
    "tangent_chunk": "at most so many tangents at once, to bound memory",
    "sampler": f"distribution of the directions: {', '.join(SAMPLERS)}",
    "independent": "each example has directions of its own",
    "place": "perturb before or after the non-linearity",
    "guess": "where the guess comes from: fdfa or dfa",
    "shrink": "factor of the correction; 1 is unbiased",
    "feedback_rate": "how fast feedback matrices learn",
    "feedback_decay": "weight decay of feedback matrices",
    "difference": "step of the finite difference",
    "aggregate": f"from k derivatives to one gradient: {', '.join(AGGREGATIONS)}",
    "momentum": "weight of the old velocity",
    "beta1": "decay of Adam's first moment",
    "beta2": "decay of Adam's second moment",
    "epsilon": "Adam's denominator offset",
    "projection": "numbers of a projection",
    "temperature": "of the contrastive loss",
    "stop": "stop-gradient on the view that answers",
    "trust": "share of its length that an array may move at --lr 1",
    "weight_decay": "L2 penalty (adamw: decoupled decay)",
    "factor": "what a drop multiplies the rate by",
    "times": "when to drop, in parts of the run",
    "every": "how often: epoch or step",
    "final": "part of the rate that is left at the end",
    "warmup": "length of the rise, as a part of the run",
}

COMPARABLE_ANYWAY = ("recipe", "seed", "backend", "threads", "shards", "grad_stats")
"""Settings that leave the expected score of a recipe what it is."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def make_parser() -> Parser:
    """The command line; model, rule and optimizer flags are their dataclasses' fields."""
    p = Parser(
        prog="train.py",
        description=__doc__.partition("\n")[0],
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    what = p.add_argument_group("what to learn")
    what.add_argument("--recipe", metavar="NAME", help="a published row, see --list; flags beat it")
    what.add_argument("--dataset", choices=data.NAMES, help=f"default {DEFAULTS['dataset']}")
    what.add_argument("--data-dir", metavar="DIR", help="where the data files are")
    what.add_argument("--limit-train", type=int, metavar="N", help="first N training images only")
    what.add_argument("--limit-test", type=int, metavar="N", help="first N test images only")
    what.add_argument(
        "--validation", type=int, metavar="N", help="test on N of the training images instead"
    )
    what.add_argument("--image-size", type=int, metavar="N", help="pixels (imagenet-folder: 64)")
    what.add_argument(
        "--pixels", choices=data.PIXEL_SCALES, help=f"their scale, default {DEFAULTS['pixels']}"
    )
    what.add_argument(
        "--augment",
        choices=data.AUGMENTATIONS,
        help="random changes of training images (contrastive: contrastive; else none)",
    )
    how = p.add_argument_group("how to learn it")
    for kind, choices in TABLES.items():
        how.add_argument(flag(kind), choices=choices, help=f"default {DEFAULTS[kind]}")
    how.add_argument("--lr", type=float, metavar="X", help="base learning rate")
    how.add_argument("--epochs", type=int, metavar="N", help="the schedule spans all of them")
    how.add_argument("--batch-size", type=int, metavar="N")
    how.add_argument("--seed", type=int, metavar="N", help="default 0")
    how.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one run for each seed")
    for title, table in TABLES.items():
        group = p.add_argument_group(f"{title} options")
        for name, (kind, users) in option_table(table).items():
            text = f"{OPTION_HELP.get(name, name)} ({', '.join(users)})"
            takes: dict[str, Any] = {"type": kind, "metavar": kind.__name__}
            if kind is bool:
                takes = {"action": argparse.BooleanOptionalAction}
            elif kind is tuple:
                takes = {"type": float, "metavar": "X", "nargs": "+"}
            group.add_argument(flag(name), dest=name, help=text, **takes)
    where = p.add_argument_group("where and how to report")
    where.add_argument("--backend", choices=backends.NAMES, default="numpy")
    where.add_argument("--threads", type=int, default=1, metavar="N", help="shards at a time")
    where.add_argument(
        "--shards", type=int, metavar="N", help="pieces of a batch that fit the cache (threads)"
    )
    where.add_argument("--tf32", action="store_true", help="rounder float32 matrix products (cupy)")
    where.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    where.add_argument("--run-dir", metavar="DIR", help="default runs/DATASET-MODEL-RULE-TIME")
    where.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    where.add_argument(
        "--grad-stats", type=int, metavar="N", help="every N steps, compare with exact gradients"
    )
    where.add_argument("--json", action="store_true", help="print the summary as the last line")
    where.add_argument("--quiet", action="store_true", help="no progress bars")
    where.add_argument("--list", action="store_true", help="say what there is to choose from")
    where.add_argument("--describe", action="store_true", help="the model as JSON, no training")
    return p


def option_table(table: dict[str, type]) -> dict[str, tuple[type, list[str]]]:
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


def resolve(args: argparse.Namespace) -> Settings:
    """Settings from flags, then the recipe, then defaults; a flag that nothing uses is an error."""
    flags = {name: value for name, value in vars(args).items() if value is not None}
    recipe = {} if args.recipe is None else find_recipe(args.recipe).settings
    chosen = {**DEFAULTS, **recipe, **flags}
    dataset, rule = chosen["dataset"], chosen["rule"]
    if args.data_dir is not None and data.SOURCES[dataset].kept == "package":
        raise UsageError(f"--data-dir is of no use to --dataset {dataset}: it ships with us")
    options = {}
    for kind, table in TABLES.items():
        name = chosen[kind]
        fields = {f.name: f.default for f in dataclasses.fields(table[name])}
        for option, (_, users) in option_table(table).items():
            if option in flags and option not in fields:
                raise UsageError(
                    f"{flag(option)} is of no use to --{kind} {name}; it is for {', '.join(users)}"
                )
        # What a recipe says of one optimizer is of no use to another.
        given = {**recipe, **flags} if recipe.get(kind) == name else flags
        fitting = fitting_options(name, dataset, rule) if kind == "model" else {}
        options[kind] = {**fields, **fitting, **{o: given[o] for o in fields if o in given}}
    chosen = {
        "lr": LR_DEFAULTS.get(rule, 1e-3),
        "augment": "contrastive" if chosen["objective"] == "contrastive" else "none",
        **DATASET_DEFAULTS[dataset],
        **chosen,
    }
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
        tf32=args.tf32,
        shards=args.shards,
        limit_train=args.limit_train,
        limit_test=args.limit_test,
        validation=args.validation,
        image_size=chosen.get("image_size"),
        grad_stats=args.grad_stats,
        model_options=options["model"],
        rule_options=options["rule"],
        optimizer_options=options["optimizer"],
        objective_options=options["objective"],
        schedule_options=options["schedule"],
        recipe=args.recipe,
    )
    if settings.objective == "contrastive" and settings.batch_size < 2:
        raise UsageError(
            "--batch-size must be at least 2 for --objective contrastive: an image is told apart "
            "from others, got 1"
        )
    check(settings)
    return settings


def fitting_options(model: str, dataset: str, rule: str) -> dict[str, Any]:
    """Options by which a model fits data and rule, where its own defaults do not."""
    options = dict(MODEL_DEFAULTS.get(model, {}).get(dataset, {}))
    if hasattr(MODELS[model], "readout"):
        options["readout"] = locality(rule) != "global"
    return options


def locality(rule: str) -> str:
    """Whether local heads count for a rule; those that do not say so ignore them."""
    return getattr(RULES[rule], "locality", "global")


def check(settings: Settings) -> None:
    """Raise a UsageError unless everything that the settings name is there and can be made."""
    named = {
        "dataset": data.NAMES,
        "pixels": data.PIXEL_SCALES,
        "augment": data.AUGMENTATIONS,
        "backend": backends.NAMES,
    }
    for kind, names in named.items():
        if getattr(settings, kind) not in names:
            raise UsageError(
                f"{kind}: expected one of {', '.join(names)}, got {getattr(settings, kind)!r}"
            )
    for kind, table in TABLES.items():
        build(table, kind, getattr(settings, kind), getattr(settings, f"{kind}_options"))
    if settings.recipe is not None:
        find_recipe(settings.recipe)


def published(settings: Settings) -> dict[str, Any]:
    """What a summary says of the recipe, if there is one: what to expect, and how far this run's
    settings are those of the source."""
    if settings.recipe is None:
        return {}
    recipe = find_recipe(settings.recipe)
    unchanged = by_name(resolve(make_parser().parse_args(["--recipe", settings.recipe])))
    changed = [
        name
        for name, value in by_name(settings).items()
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


def by_name(settings: Settings) -> dict[str, Any]:
    """Every setting and option under the name of its flag."""
    named = {**vars(settings)}
    for kind in TABLES:
        named |= named.pop(f"{kind}_options")
    return named


def network_of(settings: Settings, in_shape: tuple[int, ...], classes: int) -> Any:
    """The model that the settings name, with local heads if the rule has local losses."""
    model = build(MODELS, "model", settings.model, settings.model_options)
    objective = build(OBJECTIVES, "objective", settings.objective, settings.objective_options)
    network = objective.network(lambda outputs: model.network(in_shape, outputs), classes)
    if locality(settings.rule) == "global" or has_local_heads(network):
        return network
    params, _, (outputs,) = network.init(Key(0), in_shape)
    return objective.network(lambda _: with_local_heads(network, params, outputs), classes)


def train(settings: Settings, folder: RunFolder, args: argparse.Namespace) -> dict[str, Any]:
    """Load the data and do one run."""
    # say at once if it cannot be used, and what `auto` is
    backend = backends.get(settings.backend, settings.threads, settings.tf32)
    tf32 = settings.tf32 and backend.name == "cupy"  # `auto` drops what is of no use to its choice
    settings = dataclasses.replace(
        settings, backend=backend.name, threads=backend.threads, tf32=tf32
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
    network = network_of(settings, dataset.in_shape, len(dataset.classes))
    try:
        return run(
            settings,
            network,
            dataset,
            folder,
            resume=args.resume is not None,
            quiet=args.quiet,
            published=published(settings),
        )
    except KeyboardInterrupt:
        where = "" if args.data_dir is None else f" --data-dir {args.data_dir}"
        raise Interrupted(f"interrupted; go on with --resume {folder.path}{where}") from None


def describe(settings: Settings, data_dir: str | None) -> dict[str, Any]:
    """What `--describe` prints."""
    in_shape, classes = data.outline(settings.dataset, data_dir, settings.image_size)
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
        **published(settings),
    }


def print_list() -> None:
    """What `--list` prints."""
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
    samplers = {name: sampler.mix or sampler.draw for name, sampler in SAMPLERS.items()}
    described = {
        "samplers": samplers,
        "aggregations": AGGREGATIONS,
        "augmentations": data.AUGMENTATIONS,
    }
    for title, functions in described.items():
        print(f"{title}:")
        for name, function in functions.items():
            print(f"  {name:22}{function.__doc__.partition(chr(10))[0]}")
    print("data sets:")
    for name, source in data.SOURCES.items():
        print(f"  {name:17}{source.description}")
    print("recipes NAME-RULE, with the published test accuracy in %:")
    groups: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        rule = recipe.settings["rule"]
        row = f"{rule} {100 * recipe.accuracy:.2f}"
        groups.setdefault(name.removesuffix(f"-{rule}"), []).append(row)
    for name, rows in groups.items():
        print(f"  {name:27}{', '.join(rows)}")


def main(argv: list[str]) -> None:
    """Do what the command line says; errors are raised."""
    args = make_parser().parse_args(argv)
    if args.list:
        print_list()
        return
    if args.resume is not None:
        allowed = {"--resume", "--epochs", "--json", "--quiet", "--data-dir"}
        other = sorted({a.partition("=")[0] for a in argv if a.startswith("--")} - allowed)
        if other:
            raise UsageError(
                f"{other[0]} cannot be changed on --resume; a run keeps its settings, but for "
                "--epochs and --data-dir"
            )
        folder = RunFolder(args.resume)
        report(train(extended(folder.settings(check), args.epochs), folder, args), args)
        return
    if args.seed is not None and args.seeds is not None:
        raise UsageError("give --seed or --seeds, not both")
    if len(set(args.seeds or ())) < len(args.seeds or ()):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")
    settings = resolve(args)
    if args.describe:
        print(json.dumps(describe(settings, args.data_dir)))
        return
    name = f"{settings.dataset}-{settings.model}-{settings.rule}-{time.strftime('%Y%m%d-%H%M%S')}"
    base = Path(args.run_dir) if args.run_dir else unused(Path("runs") / name)
    if args.seeds is None:
        report(train(settings, RunFolder(base), args), args)
        return
    for folder in (base, *(base / f"seed-{s}" for s in args.seeds)):
        RunFolder(folder).require_unused()
    summaries = [
        train(dataclasses.replace(settings, seed=s), RunFolder(base / f"seed-{s}"), args)
        for s in args.seeds
    ]
    report(combined(summaries, base), args)


def combined(summaries: list[dict[str, Any]], base: Path) -> dict[str, Any]:
    """The summary of several seeds: means, and the spread of the accuracies."""
    accuracies = [s["test_accuracy"] for s in summaries]
    together = {
        **summaries[0],
        "test_accuracy": statistics.fmean(accuracies),
        "test_accuracy_std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "test_loss": statistics.fmean(s["test_loss"] for s in summaries),
        "seed": [s["seed"] for s in summaries],
        "runs": summaries,
        "run_dir": str(base),
    }
    RunFolder(base).write_json("summary.json", together)
    return together


def report(summary: dict[str, Any], args: argparse.Namespace) -> None:
    """The last words of a run, on standard output."""
    if args.json:
        print(json.dumps(summary))
        return
    spread = f" ± {summary['test_accuracy_std']:.4f}" if "test_accuracy_std" in summary else ""
    accuracy = f"{summary['tested_on']} accuracy {summary['test_accuracy']:.4f}{spread}"
    print(f"{accuracy} after {summary['epochs']} epochs")
    print(f"run folder    {summary['run_dir']}")
    if "recipe" in summary:
        recipe = summary["recipe"]
        print(
            f"recipe        reached {summary['test_accuracy']:.4f}, published "
            f"{recipe['test_accuracy']:.4f} ({recipe['source']}); "
            f"changed here: {', '.join(map(flag, recipe['changed'])) or 'nothing'}"
        )


def unused(path: Path) -> Path:
    """The path, or the path with a number if it is taken."""
    candidate, n = path, 1
    while candidate.exists():
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def exit_code(argv: list[str]) -> int:
    """`main` with errors turned into one line and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a checkpoint then, too
    try:
        main(argv)
        sys.stdout.flush()  # here, not at exit, so that a reader that has gone is met below
    except DualnetError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train.py: interrupted before training began", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(sys.argv[1:]))
