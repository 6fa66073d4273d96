"""The flags of `dualnet train`, as tables: those of every run, and one for each option of a model,
an objective, a rule, an optimizer or a schedule."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from dualnet import backends, data
from dualnet.backends.processes import SHARES, STATISTICS
from dualnet.errors import UsageError
from dualnet.learning import WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.naming import flag, shown
from dualnet.nn import READS
from dualnet.training.checkpoint_interval import USUAL_INTERVAL
from dualnet.training.parser import Parser, number, whole, whole_or_auto
from dualnet.training.resolve import (
    DATASET_DEFAULTS,
    DEFAULTS,
    LR,
    LR_DEFAULTS,
    MODEL_DEFAULTS,
    OTHER_DATA,
    setting_kinds,
)
from dualnet.training.settings import DTYPES, ON_NAN, Tables, option_table, options_of

Flags: TypeAlias = dict[str, dict[str, Any]]
"""Flag → what `ArgumentParser.add_argument` is told of it."""

_INT: dict[str, Any] = {"type": whole, "metavar": "N"}
_FLOAT: dict[str, Any] = {"type": number, "metavar": "X"}
_SWITCH: dict[str, Any] = {"action": "store_true"}


def _one_of(names: Iterable[str]) -> dict[str, Any]:
    """Return the form of a flag that takes one of some names, which its help says at `{}`.

    `resolve` checks the name, as it also may come from a file or from Python.
    """
    return {"metavar": "NAME", "names": tuple(names)}


def _by_value(usual: Any, others: Mapping[str, Any]) -> str:
    """Return a default, and those of the names that have another, as `0.001 (wp: 0.0005)`."""
    values: dict[Any, list[str]] = {}
    for name, value in others.items():
        values.setdefault(value, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {shown(v)}" for v, names in values.items())
    return f"{shown(usual)} ({told})" if told else shown(usual)


def _of_data(name: str) -> str:
    """Return the default of a setting that depends on the data set."""
    own = {dataset: values[name] for dataset, values in DATASET_DEFAULTS.items()}
    usual = OTHER_DATA[name]
    return _by_value(usual, {dataset: v for dataset, v in own.items() if v != usual})


WHAT_TO_LEARN: Flags = {
    "--recipe": {"metavar": "NAME", "help": "a published row, see --list; other flags overrule it"},
    "--config": {"metavar": "FILE", "help": "settings in a file, FILE.toml; flags overrule it"},
    "--plugin": {
        "metavar": "FILE",
        "action": "append",
        "help": "a Python file, FILE.py, with rules, models, optimizers or data sets of your own",
    },
    "--dataset": {"metavar": "NAME", "help": f"see --list; default {DEFAULTS['dataset']}"},
    "--data-dir": {"metavar": "DIR", "help": "folder of the data files; default DUALNET_DATA"},
    "--limit-train": _INT | {"help": "use the first N training images only; default all"},
    "--limit-test": _INT | {"help": "use the first N test images only; default all"},
    "--validation": _INT
    | {"help": "test on N of the training images; default the test images themselves"},
    "--image-size": _INT
    | {"help": "height and width of an image; default those of the set (imagenet-folder: 64)"},
    "--pixels": _one_of(data.PIXEL_SCALES)
    | {"help": f"the scale of the pixels, {{}}; default {DEFAULTS['pixels']}"},
    "--augment": _one_of(data.AUGMENTATIONS)
    | {"help": "random changes of training images, {}; default none (contrastive: contrastive)"},
}

HOW_TO_LEARN: Flags = {
    "--lr": _FLOAT | {"help": f"base learning rate; default {_by_value(LR, LR_DEFAULTS)}"},
    "--output-lr": _FLOAT
    | {"help": "factor of the learning rate of the read-out, the last layer; default 1"},
    "--head-lr": _FLOAT | {"help": "factor of the learning rate of local heads; default 1"},
    "--head-reads": _one_of(READS)
    | {
        "help": "what local heads read in a network without heads of its own, {}: the average over "
        "pixels or tokens, or all; default average",
    },
    "--rates": _FLOAT
    | {"nargs": "+", "help": "train for a short time at each of these rates; say which to take"},
    "--rate-steps": _INT | {"help": "steps at each of the --rates; default one epoch"},
    "--epochs": _INT
    | {
        "help": "passes over the training images, all of which the schedule spans; default "
        f"{_of_data('epochs')}"
    },
    "--early-stop": _INT
    | {
        "help": "end after N epochs in a row without a lower loss on the --validation images; "
        "default never"
    },
    "--clip-norm": _FLOAT
    | {
        "help": "scale the gradient down to this norm, over all parameters, where it is larger; "
        "default never"
    },
    "--on-nan": _one_of(ON_NAN)
    | {
        "help": "what NaN and infinity do to the run or to the update of their step, {}; default "
        "stop"
    },
    "--batch-size": _INT | {"help": f"images of a step; default {_of_data('batch_size')}"},
    "--seed": _INT | {"help": "of all randomness; default 0"},
    "--seeds": _INT | {"nargs": "+", "help": "do one run for each of these seeds"},
}
"""Beside these there is a flag for each kind of choice: --model, --rule and so on."""

WHERE_AND_HOW_TO_REPORT: Flags = {
    "--backend": _one_of(backends.NAMES) | {"help": "{}; default numpy"},
    "--threads": {
        "type": whole_or_auto,
        "metavar": "N",
        "help": "how many shards run at a time; auto tries at the start whether a shard on each "
        "core is quicker than one piece; default 1",
    },
    "--shards": _INT
    | {
        "help": "pieces that a batch is cut into, to bound memory; default one for each thread, "
        "or one with --share tangents"
    },
    "--processes": {
        "metavar": "NAME",
        "help": "share every batch with the other processes that mpiexec has started, each with a "
        "device of its own on cupy: mpi; default this process alone",
    },
    "--share": _one_of(SHARES)
    | {
        "help": "what processes have a part of: batch, the examples of each batch; tangents, the "
        "directions; default batch"
    },
    "--statistics": _one_of(STATISTICS)
    | {
        "help": "of whose examples batch norm takes mean and variance, where processes share a "
        "batch: of each process's own, or of all; default process"
    },
    "--profile": _SWITCH
    | {"help": "after each epoch, tell what a step of the processes takes, and which one is slow"},
    "--no-graph": {
        "dest": "graph",
        "action": "store_false",
        "default": None,
        "help": "do not record steps and evaluations to repeat them as a whole (cupy); several "
        "processes never record steps",
    },
    "--dtype": _one_of(DTYPES) | {"help": "{}; default float32"},
    "--run-dir": {"metavar": "DIR", "help": "default runs/DATASET-MODEL-RULE-TIME"},
    "--resume": {"metavar": "RUN", "help": "go on with the run in this folder"},
    "--checkpoint-every": {
        "metavar": "N",
        "help": "write a checkpoint every N steps, or as often as 30s, 5m or 1h say; default "
        f"{USUAL_INTERVAL}",
    },
    "--grad-stats": _INT
    | {"help": "every N steps, compare gradients with the exact ones; default never"},
    "--tensorboard": _SWITCH
    | {"help": "also write the figures of epochs for TensorBoard, into the run folder"},
    "--json": _SWITCH | {"help": "print the summary as the last line"},
    "--quiet": _SWITCH | {"help": "show nothing on the way"},
    "--list": _SWITCH | {"help": "list what there is to choose from"},
    "--describe": _SWITCH | {"help": "print network and settings as JSON; nothing is trained"},
}

ROUNDED_BITS = {"tf32": 11, "bf16": 8}
"""Precision of matrix products, which has a flag → bits to which factors may be rounded."""

OPTION_HELP = {
    "checkpointing": "evaluate parts of the network again on the way back, to save memory",
    "width": "units of each hidden layer, or channels",
    "depth": "number of hidden layers, or of blocks",
    "activation": "what follows each hidden layer: relu, tanh, gelu or sigmoid",
    "plan": "such as 15C5-P2-128: convolutions (filters C size), max pools, linear layers",
    "batch_norm": "batch norm before each activation",
    "weights": "how weights start: kaiming (He, uniform), torch (as layers of PyTorch), "
    "scaled-normal or zeros",
    "stem": "first layers: large (7x7, stride 2, max pool), small (3x3), or auto by image size",
    "patches": "number of patches along each side of an image",
    "groups": "groups of channels in the last layer of a block",
    "channels": "channels of the first convolution; the others have multiples of it",
    "linear_norm": "batch norm after each hidden linear layer, too",
    "heads": "heads of each attention",
    "patch": "height and width of a patch in pixels",
    "mlp_width": "hidden units of the MLP over the channels of a token",
    "token_width": "hidden units of the MLP over the tokens of a channel",
    "losses": "at a local head: replicated (one for each token and group) or one; lg-fg-w also "
    "through-norms (for each group, as if norms kept groups apart)",
    "output_layers": "read-out and local heads: perturbed, or with their exact gradient",
    "readout": "the output only reads, local losses train the rest",
    "tangents": "k, the number of random directions in one pass",
    "tangent_chunk": "at most this many tangents at once, to bound memory",
    "sampler": f"distribution of the directions: {', '.join(WEIGHT_SAMPLERS)}, rank-one:R, "
    "varying:MAX, angle:DEG, orthogonal-angle:DEG; :unit behind any of them for length 1 (of "
    "activities: rademacher, the default there, or normal)",
    "independent": "each example has directions of its own",
    "perturb": "where activities are perturbed: before or after the activation function",
    "batch_loss": "before a batch norm, directions answer to the batch's total loss (unbiased) or "
    "to the example's own (less variance)",
    "guess": "where the guess comes from: fdfa, dfa or last (the last estimate)",
    "shrink": "factor of the correction; 1 is unbiased",
    "feedback_rate": "learning rate of feedback matrices",
    "feedback_start": "how feedback matrices start: kaiming, with the outputs as fan-in; "
    "kaiming-activities, as torch counts; scaled-normal; zeros (dkp)",
    "feedback_tokens": "own: tokens and pixels have feedback of their own; shared: one matrix",
    "feedback_error": "what feedback sends: the error of the outputs, or that of the layer's own "
    "random read-out",
    "feedback_optimizer": "what updates feedback matrices: sgd or adam",
    "feedback_decay": "weight decay of feedback matrices",
    "difference": "step of the finite difference",
    "aggregate": f"from k derivatives to one gradient: {', '.join(WEIGHT_AGGREGATIONS)}",
    "momentum": "share of the velocity that is kept",
    "beta1": "share of the first moment that is kept",
    "beta2": "share of the second moment that is kept",
    "epsilon": "is added to the denominator",
    "projection": "how many numbers a projection has",
    "temperature": "of the contrastive loss",
    "stop": "stop-gradient on the view that answers",
    "negatives": "one-view: a view is told apart from the other views of other images; both-views: "
    "from both of their views, as in SimCLR",
    "readout_norm": "layer norm before the linear read-out",
    "head_norm": "layer norm before each local head",
    "output_norm": "layer norm before the output",
    "trust": "share of its length by which an array may move at --lr 1",
    "weight_decay": "weight of the L2 penalty (adamw: decoupled decay)",
    "factor": "what a drop multiplies the rate by",
    "times": "when to drop, in fractions of the run",
    "every": "how often the rate drops: epoch or step",
    "final": "fraction of the rate that is left at the end",
    "warmup": "length of the rise, as a fraction of the run",
}
"""What the help says of an option; a help text for every option of a dataclass."""

_FORMS: dict[str, dict[str, Any]] = {
    "int": _INT,
    "float": _FLOAT,
    "str": {"metavar": "NAME"},
    "bool": {"action": argparse.BooleanOptionalAction},
    "tuple[float, ...]": _FLOAT | {"nargs": "+"},
}
"""What an option holds, beside None → the form of its flag."""


EPILOG = (
    "What no flag gives comes from --config, else from --recipe, else it is the default; some "
    "defaults depend on the data set, the model or the rule.  --describe prints every setting that "
    "a run would have."
)


class _Formatter(argparse.HelpFormatter):
    """A formatter that leaves names such as `fg-w` in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def files_named(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return what `--config` and `--plugin` name, on which the other flags depend."""
    parser = Parser(add_help=False, allow_abbrev=False)
    for name in ("--config", "--plugin"):
        parser.add_argument(name, **WHAT_TO_LEARN[name])
    args, _ = parser.parse_known_args(argv)
    return args.config, args.plugin or []


def processes_named(argv: Sequence[str]) -> tuple[str | None, str | None, str | None, bool]:
    """Return what `--processes`, `--share`, `--statistics` and `--profile` say.

    It is known before all other flags are.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    for name in ("--processes", "--share", "--statistics"):
        parser.add_argument(name, metavar="NAME")
    parser.add_argument("--profile", **_SWITCH)
    args, _ = parser.parse_known_args(argv)
    return args.processes, args.share, args.statistics, args.profile


def make_parser(tables: Tables, program: str) -> Parser:
    """Return the parser of the command line.

    Args:
        tables: what there is to choose from; the fields of a choice's dataclass are its flags.
        program: its name in messages.

    Raises:
        UsageError: something in the tables cannot have flags.
    """
    parser = Parser(
        prog=program,
        description="Train a network by forward gradients, or by any other learning rule.",
        usage="%(prog)s [FLAG …]",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=28),
    )
    choices: Flags = {
        flag(kind): _one_of(table) | {"help": f"{{}}; default {DEFAULTS[kind]}"}
        for kind, table in tables.items()
    }
    groups: dict[str, Flags] = {
        "what to learn": WHAT_TO_LEARN,
        "how to learn it": choices | HOW_TO_LEARN,
        **{f"{kind} options": option_flags(kind, table) for kind, table in tables.items()},
        "where and how to report": WHERE_AND_HOW_TO_REPORT,
    }
    owners: dict[str, str] = {}
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for name, form in flags.items():
            if owners.setdefault(name, title) != title:
                raise UsageError(
                    f"{name} is among {owners[name]} and among {title}; give the option of your "
                    "own another name"
                )
            names = ", ".join(form.get("names", ()))
            rest = {key: value for key, value in form.items() if key != "names"}
            group.add_argument(name, **{**rest, "help": form["help"].replace("{}", names)})
    for precision, bits in ROUNDED_BITS.items():
        group.add_argument(
            flag(precision),
            action="store_true",
            default=None,
            help=f"float32 matrix products may round their factors to {bits} bits (cupy)",
        )
    return parser


def option_flags(kind: str, table: Mapping[str, type]) -> Flags:
    """Return a flag for each option of the dataclasses in a table.

    The help of an option is in `OPTION_HELP`, else in the docstring of a class that has it.
    """
    return {
        flag(name): {
            "help": f"{_help(name, [table[user] for user in users])} "
            f"({_defaults_of(kind, name, {user: table[user] for user in users})})",
            **_FORMS[form.removesuffix(" | None")],
        }
        for name, (form, users) in option_table(table).items()
    }


def _help(name: str, classes: Iterable[type]) -> str:
    """Return what an option is, for the help; where nobody says it, the name."""
    told = OPTION_HELP.get(name)
    for cls in classes:
        if told is None and (found := re.search(rf"^ *{name}: *(.+)$", cls.__doc__ or "", re.M)):
            told = found[1].strip().removesuffix(".")
    return (told or name).replace("%", "%%")  # as argparse wants it


def _defaults_of(kind: str, name: str, users: Mapping[str, type]) -> str:
    """Return who has an option, and the default of each, also where it depends on the data set."""
    owners: dict[str, list[str]] = {}
    for user, cls in users.items():
        of_data = {
            dataset: options[name]
            for dataset, options in (
                MODEL_DEFAULTS.get(user, {}) if kind == "model" else {}
            ).items()
            if name in options
        }
        default = _by_value(options_of(cls)[name], of_data)
        if (kind, name) == ("model", "readout"):
            default = "no (rules with local losses: yes)"  # as `fitting_options` has it
        owners.setdefault(default, []).append(user)
    if len(owners) == 1:
        ((default, names),) = owners.items()
        return f"{', '.join(names)}; default {default}"
    return "default " + "; ".join(f"{', '.join(names)}: {d}" for d, names in owners.items())


def given(args: argparse.Namespace, tables: Tables) -> dict[str, Any]:
    """Return the settings and options that the command line gives, as `resolve` takes them.

    Args:
        args: the command line as `make_parser(tables, …)` read it.
        tables: what there is to choose from.
    """
    names = setting_kinds(tables)
    return {n: value for n, value in vars(args).items() if value is not None and n in names}
