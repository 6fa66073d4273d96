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
from dualnet.training.run import extended, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings, build
from models import MODELS

TABLES = {"model": MODELS, "rule": RULES, "optimizer": OPTIMIZERS}

DATASET_DEFAULTS = {
    "digits": {"epochs": 60, "batch_size": 32, "width": 128},
    "mnist": {"epochs": 10, "batch_size": 64, "width": 512},
    "fashion-mnist": {"epochs": 10, "batch_size": 64, "width": 512},
}
LR_DEFAULTS = {"fg-w": 5e-4, "lg-fg-w": 5e-4, "wp": 5e-4}  # 1e-3 for all others

OPTION_HELP = {
    "width": "units in each hidden layer",
    "depth": "hidden layers",
    "activation": "what follows each hidden layer: relu, tanh, gelu or sigmoid",
    "tangents": "k, random directions in one pass",
    "tangent_chunk": "at most so many tangents at once, to bound memory",
    "sampler": f"distribution of the directions: {', '.join(SAMPLERS)}",
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
    "weight_decay": "L2 penalty (adamw: decoupled decay)",
}


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
    what.add_argument("--dataset", choices=data.NAMES, default="digits")
    what.add_argument("--data-dir", metavar="DIR", help="where the data files are")
    what.add_argument("--limit-train", type=int, metavar="N", help="first N training images only")
    what.add_argument("--limit-test", type=int, metavar="N", help="first N test images only")
    what.add_argument("--pixels", choices=data.PIXEL_SCALES, default="standard", help="their scale")
    how = p.add_argument_group("how to learn it")
    how.add_argument("--model", choices=MODELS, default="mlp")
    how.add_argument("--rule", choices=RULES, default="fg-a")
    how.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    how.add_argument("--lr", type=float, metavar="X", help="base learning rate")
    how.add_argument("--schedule", choices=SCHEDULES, default="cosine")
    how.add_argument("--epochs", type=int, metavar="N", help="the schedule spans all of them")
    how.add_argument("--batch-size", type=int, metavar="N")
    how.add_argument("--seed", type=int, metavar="N", help="default 0")
    how.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one run for each seed")
    for title, table in TABLES.items():
        group = p.add_argument_group(f"{title} options")
        for name, (kind, users) in option_table(table).items():
            text = f"{OPTION_HELP.get(name, name)} ({', '.join(users)})"
            group.add_argument(flag(name), type=kind, dest=name, help=text, metavar=kind.__name__)
    where = p.add_argument_group("where and how to report")
    where.add_argument("--backend", choices=backends.NAMES, default="numpy")
    where.add_argument("--threads", type=int, default=1, metavar="N", help="shards of a batch")
    where.add_argument("--tf32", action="store_true", help="rounder float32 matrix products (cupy)")
    where.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    where.add_argument("--run-dir", metavar="DIR", help="default runs/DATASET-MODEL-RULE-TIME")
    where.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    where.add_argument("--json", action="store_true", help="print the summary as the last line")
    where.add_argument("--quiet", action="store_true", help="no progress bars")
    where.add_argument("--list", action="store_true", help="say what there is to choose from")
    where.add_argument("--describe", action="store_true", help="the model as JSON, no training")
    return p


def option_table(table: dict[str, type]) -> dict[str, tuple[type, list[str]]]:
    """Each option of a table's dataclasses: its type, and whose it is."""
    options: dict[str, tuple[type, list[str]]] = {}
    for owner, cls in table.items():
        for f in dataclasses.fields(cls):
            kind = {"int": int, "float": float, "str": str}[str(f.type).partition(" ")[0]]
            options.setdefault(f.name, (kind, []))[1].append(owner)
    return options


def flag(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


def resolve(args: argparse.Namespace) -> Settings:
    """Settings from flags and defaults; a flag that nothing uses is an error."""
    if args.data_dir is not None and not data.SOURCES[args.dataset].files:
        raise UsageError(f"--data-dir is of no use to --dataset {args.dataset}: it ships with us")
    defaults = DATASET_DEFAULTS[args.dataset]
    options = {}
    for kind, table in TABLES.items():
        chosen = getattr(args, kind)
        fields = {f.name: f.default for f in dataclasses.fields(table[chosen])}
        for name, (_, users) in option_table(table).items():
            if getattr(args, name) is not None and name not in fields:
                raise UsageError(
                    f"{flag(name)} is of no use to --{kind} {chosen}; it is for {', '.join(users)}"
                )
        given = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
        by_data = {name: defaults[name] for name in fields if name in defaults}
        options[kind] = {**fields, **by_data, **given}
    settings = Settings(
        dataset=args.dataset,
        model=args.model,
        rule=args.rule,
        optimizer=args.optimizer,
        schedule=args.schedule,
        lr=LR_DEFAULTS.get(args.rule, 1e-3) if args.lr is None else args.lr,
        epochs=defaults["epochs"] if args.epochs is None else args.epochs,
        batch_size=defaults["batch_size"] if args.batch_size is None else args.batch_size,
        seed=args.seed or 0,
        pixels=args.pixels,
        dtype=args.dtype,
        backend=args.backend,
        threads=args.threads,
        tf32=args.tf32,
        limit_train=args.limit_train,
        limit_test=args.limit_test,
        model_options=options["model"],
        rule_options=options["rule"],
        optimizer_options=options["optimizer"],
    )
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raise a UsageError unless everything that the settings name is there and can be made."""
    named = {
        "dataset": data.NAMES,
        "pixels": data.PIXEL_SCALES,
        "schedule": SCHEDULES,
        "backend": backends.NAMES,
    }
    for kind, names in named.items():
        if getattr(settings, kind) not in names:
            raise UsageError(
                f"{kind}: expected one of {', '.join(names)}, got {getattr(settings, kind)!r}"
            )
    for kind, table in TABLES.items():
        build(table, kind, getattr(settings, kind), getattr(settings, f"{kind}_options"))


def network_of(settings: Settings, in_shape: tuple[int, ...], classes: int) -> Any:
    """The model that the settings name, with local heads if the rule has local losses."""
    model = build(MODELS, "model", settings.model, settings.model_options)
    network = model.network(in_shape, classes)
    if getattr(RULES[settings.rule], "locality", "global") == "global" or has_local_heads(network):
        return network
    return with_local_heads(network, network.init(Key(0), in_shape)[0], classes)


def train(settings: Settings, folder: RunFolder, args: argparse.Namespace) -> dict[str, Any]:
    """Load the data and do one run."""
    # say at once if it cannot be used, and what `auto` is
    backend = backends.get(settings.backend, settings.threads, settings.tf32)
    settings = dataclasses.replace(settings, backend=backend.name)
    dataset = data.load(
        settings.dataset,
        args.data_dir,
        limit_train=settings.limit_train,
        limit_test=settings.limit_test,
        quiet=args.quiet,
    )
    network = network_of(settings, dataset.train_images.shape[1:], len(dataset.classes))
    resume = args.resume is not None
    try:
        return run(settings, network, dataset, folder, resume=resume, quiet=args.quiet)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; go on with --resume {folder.path}") from None


def describe(settings: Settings) -> dict[str, Any]:
    """What `--describe` prints."""
    source = data.SOURCES[settings.dataset]
    in_shape = (source.side, source.side, 1)
    network = network_of(settings, in_shape, len(source.classes))
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
        "classes": len(source.classes),
    }


def print_list() -> None:
    """What `--list` prints."""
    tables = {"rules": RULES, "models": MODELS, "optimizers": OPTIMIZERS, "schedules": SCHEDULES}
    for title, table in tables.items():
        print(f"{title}:")
        for name, cls in table.items():
            print(f"  {name:15}{cls.__doc__.partition(chr(10))[0]}")
    samplers = {name: sampler.mix or sampler.draw for name, sampler in SAMPLERS.items()}
    for title, functions in (("samplers", samplers), ("aggregations", AGGREGATIONS)):
        print(f"{title}:")
        for name, function in functions.items():
            print(f"  {name:16}{function.__doc__.partition(chr(10))[0]}")
    print("data sets:")
    for name, source in data.SOURCES.items():
        print(f"  {name:15}{source.description}")


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
        print(json.dumps(describe(settings)))
        return
    name = f"{settings.dataset}-{settings.model}-{settings.rule}-{time.strftime('%Y%m%d-%H%M%S')}"
    base = Path(args.run_dir) if args.run_dir else unused(Path("runs") / name)
    if args.seeds is None:
        report(train(settings, RunFolder(base), args), args)
        return
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
    print(f"test accuracy {summary['test_accuracy']:.4f}{spread} after {summary['epochs']} epochs")
    print(f"run folder    {summary['run_dir']}")


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
