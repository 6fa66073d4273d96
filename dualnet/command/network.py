"""What `dualnet evaluate` and `dualnet predict` share: how a network is named, and read."""

from __future__ import annotations

from typing import Any

from dualnet import backends
from dualnet.errors import UsageError
from dualnet.training.assemble import OPEN_TABLES
from dualnet.training.flags import WHAT_TO_LEARN
from dualnet.training.parser import Parser
from dualnet.training.plugins import load_plugins, own_parts
from dualnet.training.run_folder import NETWORK, RunFolder
from dualnet.training.trained import Trained, load_run


def network_parser(program: str, description: str) -> Parser:
    """Return a parser with the flags that say which network is meant, and where it runs."""
    parser = Parser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument(
        "run", metavar="RUN", help="the folder of a run, or of a network that was saved in Python"
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="the network after the epoch of the lowest test loss; default the last one",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default="numpy",
        help=f"{', '.join(backends.NAMES)}; default %(default)s",
    )
    own = "a Python file, FILE.py, with layers or data sets of your own"
    parser.add_argument("--plugin", **{**WHAT_TO_LEARN["--plugin"], "help": own})
    parser.add_argument("--json", action="store_true", help="print all figures, as one line")
    return parser


def run_own_files(paths: list[str] | None) -> None:
    """Run the files that `--plugin` names."""
    load_plugins(paths or [], OPEN_TABLES, layers_suffice=True)


def require_one_run(where: str, folder: RunFolder) -> None:
    """Raise a UsageError if a folder has the runs of several seeds.

    Args:
        where: what the message begins with.
        folder: of a run, or of several.
    """
    if (seeds := folder.seeds()) is not None:
        raise UsageError(
            f"{where}: expected the folder of one run, got one of several seeds; choose one, such "
            f"as {folder.of_seed(seeds[0]).path}"
        )


def network_in(folder: RunFolder, args: Any) -> Trained:
    """Return the network in a folder.

    Args:
        folder: of one run.
        args: what `network_parser` has read.

    Raises:
        UsageError: there is no network, or not the one that is asked for.
        DataError: a file is damaged.
    """
    if not folder.path.is_dir():
        raise UsageError(f"{folder.path}: expected the folder of a run, found none")
    if not folder.holds(NETWORK):
        raise UsageError(
            f"{folder.path}: expected the folder of a run, got one without {NETWORK}; no epoch was "
            "finished there, or it is of an earlier version"
        )
    return load_run(folder.path, own=own_parts(), backend=args.backend, best=args.best)
