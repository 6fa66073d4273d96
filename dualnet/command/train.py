"""`dualnet train`, which is also `python train.py`: train by what the flags say."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dualnet import data
from dualnet.backends.processes import ALONE, Processes
from dualnet.command.describe import describe
from dualnet.command.listing import list_text
from dualnet.command.outcome import conclude
from dualnet.console import WIDTH, answer, stay_silent
from dualnet.data import Dataset
from dualnet.errors import DivergedError, Interrupted, UsageError
from dualnet.naming import as_flags
from dualnet.nn import Layer
from dualnet.training.assemble import OPEN_TABLES, TABLES, network_of
from dualnet.training.checkpoint_interval import USUAL_INTERVAL, CheckpointInterval
from dualnet.training.config_file import checked, overruled, plugins_in, read_toml
from dualnet.training.fit import fit, loaded
from dualnet.training.flags import files_named, given, make_parser, processes_named
from dualnet.training.memory import out_of_memory_explained, require_memory
from dualnet.training.pictures.drawing import costing_no_run
from dualnet.training.pictures.rates import PICTURE, draw_rates
from dualnet.training.plugins import load_plugins
from dualnet.training.rates_finder import find_rates
from dualnet.training.resolve import check, resolve
from dualnet.training.run import Callback, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.seeds import run_seeds, settings_to_resume
from dualnet.training.settings import Settings
from dualnet.training.shared_run import first_goes_ahead, processes_called
from dualnet.training.tensorboard import TensorBoard


@as_flags()
def main(argv: list[str], program: str = "dualnet train") -> None:
    """Do what the command line asks for.

    Args:
        argv: flags and their values.
        program: its name in messages.

    Raises:
        UsageError, DataError, DivergedError, BackendError, Interrupted: see `dualnet.errors`.
    """
    processes = processes_called(*processes_named(argv))  # first, so that each error is said once
    with processes.ending_together():
        try:
            answer_to(argv, program, processes)
        except KeyboardInterrupt:
            if processes.rank:
                raise Interrupted(f"process {processes.rank} was interrupted") from None
            raise Interrupted("interrupted before training began") from None


def answer_to(argv: list[str], program: str, processes: Processes) -> None:
    """Do what `main` says, in one of the processes that train together."""
    args = parse(argv, program)
    if args.quiet or processes.rank:
        stay_silent()
    if processes.rank and (args.list or args.describe):
        return
    if args.list:
        answer(list_text())
        return
    require_one_run(args, processes)
    if args.resume is not None:
        require_resumable(argv)
        summary = resumed(args, processes)
        if not processes.rank:
            conclude(summary, args.json)
    elif processes.rank:
        fit(**given(args, TABLES), **how_of(args))
    else:
        start(args)


def parse(argv: list[str], program: str = "dualnet train") -> argparse.Namespace:
    """Return the flags that the command line gives, and for others what `--config` says."""
    config, plugins = files_named(argv)
    file = {} if config is None else read_toml(config)
    load_plugins(plugins or plugins_in(file, config), OPEN_TABLES)
    parser = make_parser(TABLES, program)
    args = parser.parse_every(argv)
    if config is not None:
        flags = {n: v for n, v in vars(args).items() if v is not parser.get_default(n)}
        vars(args).update(overruled(checked(file, config, TABLES), flags, TABLES))
    return args


@as_flags()
def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that flags ask for."""
    return resolve(given(args, TABLES), TABLES)


def start(args: argparse.Namespace) -> None:
    """Make a new run, or runs; or only say what they would be."""
    if args.seed is not None and args.seeds is not None:
        raise UsageError("give --seed or --seeds, not both")
    if args.seeds == []:  # in a file of settings
        raise UsageError("--seeds: expected one or more values, got none")
    if len(set(args.seeds or ())) < len(args.seeds or ()):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")
    settings = settings_of(args)
    require_use(args.data_dir, settings)
    if args.describe:
        print_description(settings, args)
        return
    if args.rates is None and args.rate_steps is not None:
        raise UsageError("--rate-steps is of no use without --rates")
    if args.rates is not None and (args.seeds is not None or args.lr is not None):
        raise UsageError("--rates takes neither --lr nor --seeds; it tries each rate with --seed")
    name = f"{settings.dataset}-{settings.model}-{settings.rule}-{time.strftime('%Y%m%d-%H%M%S')}"
    where = where_of(args)
    new = args.run_dir is None
    folder = RunFolder.new(Path("runs") / name, where) if new else RunFolder(args.run_dir, where)
    with folder.claimed():
        for one in (folder, *map(folder.of_seed, args.seeds or ())):
            one.require_unused()  # before data are loaded
        if args.rates is not None:
            print_rates(settings, folder, args)
        else:
            conclude(trained(settings, folder, args), args.json)


def with_network(
    settings: Settings, args: argparse.Namespace, processes: Processes = ALONE
) -> tuple[Settings, Layer, Dataset]:
    """Return the settings, as `loaded` has them, the network that they name, and the data set."""
    settings, dataset = loaded(settings, args.data_dir, args.quiet, processes)
    with out_of_memory_explained(settings):
        network = network_of(settings, dataset.in_shape, dataset.outputs)
    images, seeds = len(dataset.train_images), len(args.seeds or (settings.seed,))
    require_memory(settings, network, dataset.in_shape, images, seeds)
    return settings, network, dataset


def trained(settings: Settings, folder: RunFolder, args: argparse.Namespace) -> dict[str, Any]:
    """Train anew in a folder, and return the summary."""
    boards = callbacks_of(args)
    with where_to_go_on(folder, args), progress_beside(args.json):
        if args.seeds is None:
            how = {**how_of(args), "run_dir": folder, "callbacks": boards(folder)}
            return fit(**given(args, TABLES), **how).summary
        settings, network, dataset = with_network(settings, args)
        how = {"callbacks": boards, "quiet": args.quiet}
        return run_seeds(settings, network, dataset, folder, args.seeds, **how)


def how_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what flags say of how `fit` is to go about it."""
    names = ("processes", "share", "statistics", "profile")
    together = {name: getattr(args, name) for name in names}
    return {"data_dir": args.data_dir, "quiet": args.quiet, **together}


def require_one_run(args: argparse.Namespace, processes: Processes) -> None:
    """Raise a UsageError if flags ask several processes for anything but one run."""
    for flag, value in (("--seeds", args.seeds), ("--rates", args.rates)):
        if value is not None and (processes.size > 1 or args.profile):
            raise UsageError(f"{flag} is of no use to --processes, which share one run")


def resumed(args: argparse.Namespace, processes: Processes = ALONE) -> dict[str, Any]:
    """Go on with the run, or the runs, in the folder `--resume`, and return the summary."""
    folder = found_again(RunFolder(args.resume), args)
    settings = settings_to_resume(folder, check_settings, args.epochs)
    together: dict[str, Any] = {"processes": processes, "profile": args.profile}
    if processes.rank:
        with first_goes_ahead(processes):
            settings, network, dataset = with_network(settings, args, processes)
        return run(settings, network, dataset, quiet=True, **together).summary
    seeds = folder.seeds()
    if seeds is not None and (processes.size > 1 or args.profile):
        raise UsageError(f"--processes is of no use to --resume {folder.path}: it has several runs")
    boards = callbacks_of(args)
    how: dict[str, Any] = {"resume": True, "quiet": args.quiet}
    with folder.claimed(), where_to_go_on(folder, args), progress_beside(args.json):
        with first_goes_ahead(processes):
            settings, network, dataset = with_network(settings, args, processes)
        if seeds is None:
            how |= {"callbacks": boards(folder), **together}
            return run(settings, network, dataset, folder, **how).summary
        return run_seeds(settings, network, dataset, folder, seeds, callbacks=boards, **how)


def callbacks_of(args: argparse.Namespace) -> Callable[[RunFolder], list[Callback]]:
    """Return what makes the callbacks of the run in a folder: that of `--tensorboard`, or none."""
    return lambda one: (
        [TensorBoard(one.path / "tensorboard", resume=True)] if args.tensorboard else []
    )


@contextlib.contextmanager
def where_to_go_on(folder: RunFolder, args: argparse.Namespace) -> Iterator[None]:
    """Turn Ctrl-C into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        path = shlex.quote(str(folder.path))
        plugins = plugin_flags(args.plugin or [])
        raise Interrupted(f"interrupted; go on with --resume {path}{plugins}") from None


def where_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what flags say that a folder remembers; paths hold in any working folder."""
    every = str(args.checkpoint_every or USUAL_INTERVAL)
    CheckpointInterval(every)  # refused at once
    return {
        "data_dir": None if args.data_dir is None else os.path.abspath(args.data_dir),
        "plugin": [os.path.abspath(file) for file in args.plugin or []],
        "checkpoint_every": every,
    }


def plugin_flags(files: Iterable[str]) -> str:
    """Return the flags that name plugins, each with a space before it."""
    return "".join(f" --plugin {shlex.quote(file)}" for file in files)


def found_again(folder: RunFolder, args: argparse.Namespace) -> RunFolder:
    """Return the folder of a run that goes on, with where its data and plugins are now.

    Data are read where they were, unless `--data-dir` says otherwise.  Plugins are code, and the
    folder may come from somebody else, so they are run only if `--plugin` names them.

    Raises:
        UsageError: the run had plugins and none is named, or its data are not there any more.
    """
    before, now = folder.where(), where_of(args)
    if before["plugin"] and not now["plugin"]:
        gone = [file for file in before["plugin"] if not Path(file).is_file()]
        hint = f", and name where {', '.join(gone)} is now" if gone else ""
        raise UsageError(
            f"--resume {folder.path}: it was trained with code of your own, which runs only if you "
            f"name it; go on with --resume {folder.path}{plugin_flags(before['plugin'])}{hint}"
        )
    if now["data_dir"] is None:
        if before["data_dir"] is not None and not Path(before["data_dir"]).is_dir():
            raise UsageError(
                f"--resume {folder.path}: its data were in {before['data_dir']}, which is not "
                "there; name the folder where they are now by --data-dir"
            )
        args.data_dir = now["data_dir"] = before["data_dir"]
    if args.checkpoint_every is None:
        now["checkpoint_every"] = before["checkpoint_every"]
    return RunFolder(folder.path, now)


def progress_beside(as_json: bool) -> contextlib.AbstractContextManager:
    """Leave standard output to the JSON alone, where it is asked for."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def print_rates(settings: Settings, folder: RunFolder, args: argparse.Namespace) -> None:
    """Try the rates of `--rates`; print a table and a choice, and write both to the folder."""
    settings, network, dataset = with_network(settings, args)
    found = find_rates(
        settings, network, dataset, args.rates, rate_steps=args.rate_steps, quiet=args.quiet
    )
    folder.write_rates(found.as_json(), settings)
    drawn = True
    with costing_no_run(folder.path):
        drawn = draw_rates(found, settings.title, folder.path / PICTURE)
    text = f"{found.table()}\n{textwrap.fill(found.why, WIDTH)}\nfolder        {folder.path}"
    if not drawn:
        text += '\nno picture    matplotlib is not installed: pip install "dualnet[plot]"'
    answer(json.dumps(found.as_json()) if args.json else text, f"{folder.path}/rates.json")
    if all(one.diverged for one in found.runs):
        raise DivergedError(found.why)


def print_description(settings: Settings, args: argparse.Namespace) -> None:
    """Print what `--describe` shows."""
    described = describe(settings, args.data_dir)
    beside = {name: getattr(args, name) for name in ("seeds", "data_dir", "run_dir", "plugin")}
    described["settings"] |= {n: value for n, value in beside.items() if value is not None}
    if args.seeds is not None:
        del described["settings"]["seed"]
    answer(json.dumps(described))


def require_use(data_dir: str | None, settings: Settings) -> None:
    """Raise a UsageError if a folder of data files is named for a set without any."""
    if data_dir is not None and data.SOURCES[settings.dataset].kept in data.WITHOUT_FOLDER:
        what = data.WITHOUT_FOLDER[data.SOURCES[settings.dataset].kept]
        raise UsageError(f"--data-dir is of no use to --dataset {settings.dataset}: it {what}")


FREE_ON_RESUME = (
    *("--epochs", "--data-dir", "--plugin", "--checkpoint-every", "--tensorboard", "--json"),
    *("--processes", "--share", "--statistics", "--profile", "--quiet"),
)
"""Flags that may be given beside `--resume`."""


def require_resumable(argv: list[str]) -> None:
    """Raise a UsageError if a flag beside `--resume` would change the run."""
    flags = {argument.partition("=")[0] for argument in argv if argument.startswith("--")}
    refused = sorted(flags - {"--resume", *FREE_ON_RESUME})
    if refused:
        raise UsageError(
            f"{refused[0]} cannot be changed on --resume; a run keeps its settings, but for "
            f"{', '.join(FREE_ON_RESUME[:-1])} and {FREE_ON_RESUME[-1]}"
        )


def check_settings(settings: Settings) -> None:
    """Raise a UsageError unless everything that the settings name exists and can be made."""
    try:
        check(settings, TABLES)
    except UsageError as error:
        if all(getattr(settings, kind) in names for kind, names in OPEN_TABLES.items()):
            raise
        raise UsageError(f"{error}; if it is your own, name its file with --plugin") from None
