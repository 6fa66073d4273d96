"""The flags of `train.py`: those of every run, and one for each option of a model, an objective, a
rule, an optimizer or a schedule."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from dualnet import backends, data
from dualnet.errors import UsageError
from dualnet.learning import WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.training.resolve import DEFAULTS
from dualnet.training.settings import Tables, flag, option_table

OPTION_HELP = {
    "width": "units in each hidden layer, or channels",
    "depth": "hidden layers, or blocks",
    "activation": "what follows each hidden layer: relu, tanh, gelu or sigmoid",
    "plan": "such as 15C5-P2-128: convolutions (filters C size), max pools, linear layers",
    "batch_norm": "batch norm before each activation",
    "patches": "how many along each side of an image",
    "groups": "parts of the channels in the last layer of a block",
    "channels": "of the first convolution; the others have multiples of it",
    "linear_norm": "batch norm after each hidden linear layer, too",
    "heads": "of each attention",
    "patch": "height and width of a patch in pixels",
    "mlp_width": "hidden units of the MLP over the channels of a token",
    "token_width": "hidden units of the MLP over the tokens of a channel",
    "losses": "at a local head: replicated, one for each token and group; or one",
    "readout": "the output only reads, local losses train the rest (rules with local losses: yes)",
    "tangents": "k, random directions in one pass",
    "tangent_chunk": "at most so many tangents at once, to bound memory",
    "sampler": f"distribution of the directions: {', '.join(WEIGHT_SAMPLERS)}, rank-one:R, "
    "angle:DEG; any with :unit behind it for length 1 (of activities: normal or rademacher)",
    "independent": "each example has directions of its own",
    "place": "perturb before or after the non-linearity",
    "guess": "where the guess comes from: fdfa, dfa or last (the last estimate)",
    "shrink": "factor of the correction; 1 is unbiased",
    "feedback_rate": "how fast feedback matrices learn",
    "feedback_decay": "weight decay of feedback matrices",
    "difference": "step of the finite difference",
    "aggregate": f"from k derivatives to one gradient: {', '.join(WEIGHT_AGGREGATIONS)}",
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


_TAKES: dict[type, dict[str, Any]] = {
    int: {"type": int, "metavar": "N"},
    float: {"type": float, "metavar": "X"},
    str: {"metavar": "NAME"},
    bool: {"action": argparse.BooleanOptionalAction},
    tuple: {"type": float, "metavar": "X", "nargs": "+"},
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def make_parser(tables: Tables, description: str) -> Parser:
    """The command line.

    Args:
        tables: what there is to choose from; the choices' own flags are their dataclasses' fields.
        description: what the program does, in a line.
    """
    p = Parser(
        prog="train.py",
        description=description,
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
    what.add_argument(
        "--image-size", type=int, metavar="N", help="height and width (imagenet-folder: 64)"
    )
    what.add_argument(
        "--pixels", choices=data.PIXEL_SCALES, help=f"their scale, default {DEFAULTS['pixels']}"
    )
    what.add_argument(
        "--augment",
        choices=data.AUGMENTATIONS,
        help="random changes of training images (contrastive: contrastive; else none)",
    )
    how = p.add_argument_group("how to learn it")
    for title, table in tables.items():
        how.add_argument(flag(title), choices=table, help=f"default {DEFAULTS[title]}")
    how.add_argument("--lr", type=float, metavar="X", help="base learning rate")
    how.add_argument("--epochs", type=int, metavar="N", help="the schedule spans all of them")
    how.add_argument("--batch-size", type=int, metavar="N")
    how.add_argument("--seed", type=int, metavar="N", help="default 0")
    how.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one run for each seed")
    for title, table in tables.items():
        group = p.add_argument_group(f"{title} options")
        for name, (kind, users) in option_table(table).items():
            text = f"{OPTION_HELP.get(name, name)} ({', '.join(users)})"
            group.add_argument(flag(name), dest=name, help=text, **_TAKES[kind])
    where = p.add_argument_group("where and how to report")
    where.add_argument("--backend", choices=backends.NAMES, default="numpy")
    where.add_argument("--threads", type=int, default=1, metavar="N", help="shards at a time")
    where.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="pieces that a batch is cut into, to bound memory (threads)",
    )
    rounding = where.add_mutually_exclusive_group()
    for name, bits in (("tf32", 11), ("bf16", 8)):
        rounding.add_argument(
            flag(name),
            dest="matmul_precision",
            action="store_const",
            const=name,
            default="full",
            help=f"float32 matrix products may round factors to {bits} bits (cupy)",
        )
    where.add_argument(
        "--graph", action="store_true", help="record a step once and repeat it as a whole (cupy)"
    )
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
