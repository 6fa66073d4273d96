"""The flags of `train.py`, as tables: those of every run, and one for each option of a model, an
objective, a rule, an optimizer or a schedule."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

from dualnet import backends, data
from dualnet.errors import UsageError
from dualnet.learning import WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.nn import READS
from dualnet.training.resolve import DEFAULTS
from dualnet.training.settings import ON_NAN, Tables, flag, option_table

Flags: TypeAlias = dict[str, dict[str, Any]]
"""Flag → what `ArgumentParser.add_argument` is told of it."""

_INT: dict[str, Any] = {"type": int, "metavar": "N"}
_FLOAT: dict[str, Any] = {"type": float, "metavar": "X"}
_SWITCH: dict[str, Any] = {"action": "store_true"}

WHAT_TO_LEARN: Flags = {
    "--recipe": {"metavar": "NAME", "help": "a published row, see --list; other flags overrule it"},
    "--dataset": {"choices": data.NAMES, "help": f"default {DEFAULTS['dataset']}"},
    "--data-dir": {"metavar": "DIR", "help": "the folder of the data files"},
    "--limit-train": _INT | {"help": "use the first N training images only"},
    "--limit-test": _INT | {"help": "use the first N test images only"},
    "--validation": _INT | {"help": "test on N of the training images instead of the test images"},
    "--image-size": _INT | {"help": "height and width of an image (imagenet-folder: 64)"},
    "--pixels": {
        "choices": data.PIXEL_SCALES,
        "help": f"the scale of the pixels, default {DEFAULTS['pixels']}",
    },
    "--augment": {
        "choices": data.AUGMENTATIONS,
        "help": "random changes of training images, default none (contrastive: contrastive)",
    },
}

HOW_TO_LEARN: Flags = {
    "--lr": _FLOAT | {"help": "base learning rate"},
    "--output-lr": _FLOAT
    | {"help": "factor of the learning rate of the read-out, the last layer, default 1"},
    "--head-lr": _FLOAT | {"help": "factor of the learning rate of local heads, default 1"},
    "--head-reads": {
        "choices": READS,
        "help": "what local heads read in a network without heads of its own: the average over "
        "pixels or tokens, or all; default average",
    },
    "--rates": _FLOAT
    | {"nargs": "+", "help": "train for a short time at each of these rates; say which to take"},
    "--rate-steps": _INT | {"help": "steps at each of the --rates, default one epoch"},
    "--epochs": _INT | {"help": "passes over the training images; the schedule spans all of them"},
    "--early-stop": _INT
    | {"help": "end after N epochs in a row without a lower loss on the --validation images"},
    "--clip-norm": _FLOAT
    | {"help": "scale the gradient down to this norm, over all parameters, where it is larger"},
    "--on-nan": {
        "choices": ON_NAN,
        "help": "what NaN and infinity do: stop the run, or skip the update of their step; default "
        "stop",
    },
    "--batch-size": _INT | {"help": "images of a step"},
    "--seed": _INT | {"help": "of all randomness, default 0"},
    "--seeds": _INT | {"nargs": "+", "help": "do one run for each of these seeds"},
}
"""Beside these there is a flag for each kind of choice: --model, --rule and so on."""

WHERE_AND_HOW_TO_REPORT: Flags = {
    "--backend": {"choices": backends.NAMES, "default": "numpy", "help": "default numpy"},
    "--threads": _INT | {"default": 1, "help": "how many shards run at a time, default 1"},
    "--shards": _INT
    | {"help": "pieces that a batch is cut into, to bound memory (default: one for each thread)"},
    "--no-graph": {
        "dest": "graph",
        "action": "store_false",
        "help": "do not record steps and evaluations to repeat them as a whole (cupy)",
    },
    "--dtype": {"choices": ("float32", "float64"), "default": "float32", "help": "default float32"},
    "--run-dir": {"metavar": "DIR", "help": "default runs/DATASET-MODEL-RULE-TIME"},
    "--resume": {"metavar": "RUN", "help": "go on with the run in this folder"},
    "--grad-stats": _INT | {"help": "every N steps, compare gradients with the exact ones"},
    "--json": _SWITCH | {"help": "print the summary as the last line"},
    "--quiet": _SWITCH | {"help": "show no progress bars"},
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
    "readout": "the output only reads, local losses train the rest (rules with local losses: yes)",
    "tangents": "k, the number of random directions in one pass",
    "tangent_chunk": "at most this many tangents at once, to bound memory",
    "sampler": f"distribution of the directions: {', '.join(WEIGHT_SAMPLERS)}, rank-one:R, "
    "varying:MAX, angle:DEG, orthogonal-angle:DEG; :unit behind any of them for length 1 (of "
    "activities: normal or rademacher)",
    "independent": "each example has directions of its own",
    "perturb": "where activities are perturbed: before or after the non-linearity",
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

_FORMS: dict[type, dict[str, Any]] = {
    int: _INT,
    float: _FLOAT,
    str: {"metavar": "NAME"},
    bool: {"action": argparse.BooleanOptionalAction},
    tuple: _FLOAT | {"nargs": "+"},
}
"""Type of an option → the form of its flag."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises a mistake as a UsageError of one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def make_parser(tables: Tables, description: str) -> Parser:
    """Return the parser of the command line.

    Args:
        tables: what there is to choose from; the fields of a choice's dataclass are its flags.
        description: what the program does, in a line.
    """
    parser = Parser(
        prog="train.py",
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    choices: Flags = {
        flag(kind): {"choices": table, "help": f"default {DEFAULTS[kind]}"}
        for kind, table in tables.items()
    }
    groups: dict[str, Flags] = {
        "what to learn": WHAT_TO_LEARN,
        "how to learn it": choices | HOW_TO_LEARN,
        **{f"{kind} options": option_flags(table) for kind, table in tables.items()},
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
            group.add_argument(name, **form)
    one_of_them = group.add_mutually_exclusive_group()
    for precision, bits in ROUNDED_BITS.items():
        one_of_them.add_argument(
            flag(precision),
            dest="matmul_precision",
            action="store_const",
            const=precision,
            default="full",
            help=f"float32 matrix products may round their factors to {bits} bits (cupy)",
        )
    return parser


def option_flags(table: Mapping[str, type]) -> Flags:
    """Return a flag for each option of the dataclasses in a table."""
    return {
        flag(name): {"help": f"{OPTION_HELP.get(name, name)} ({', '.join(users)})", **_FORMS[kind]}
        for name, (kind, users) in option_table(table).items()
    }
