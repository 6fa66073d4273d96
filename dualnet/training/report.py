"""What a run shows while it trains: a header, and a line for each epoch.

They go to standard output, in 80 columns, and are the same in a terminal, a notebook and a log
file.  The progress bar, which goes to standard error, is shown in terminals and notebooks alone;
see `epoch.course`.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.console import WIDTH, say
from dualnet.naming import counted, shown
from dualnet.nn import Layer, walk
from dualnet.nn.network import as_written, shapes_of
from dualnet.training.loop import Trainer
from dualnet.training.run_folder import COLUMNS, RunFolder
from dualnet.training.settings import Settings
from dualnet.training.state import TrainState
from dualnet.tree import Tree

_INDENT = 11
_MOST_LAYERS = 24
"""How many lines the layers of a network may take."""

_TESTED_ON = {"test": "test", "validation": "valid.", "training": "after"}
"""What examples are tested on → what stands above their figures.  Training examples that are tested
on for want of others have figures during the epoch, `train`, and after it."""


class Report:
    """What is shown of a run, or of runs of several seeds that are trained together.

    Args:
        trainer: of the run, or of one of them.
        settings: likewise.
        seeds: of several runs; () for one run, whose seed the settings have.
        folder: of the run or of all runs; None for none.
        quiet: whether nothing is shown.
        differs: what is not as it was when the run began.
        threads: what `auto` chose, and why; "" where nothing was chosen.
        profile: whether `times` are shown.
    """

    def __init__(
        self,
        trainer: Trainer,
        settings: Settings,
        *,
        seeds: Sequence[int] = (),
        folder: RunFolder | None = None,
        quiet: bool = False,
        differs: str = "",
        threads: str = "",
        profile: bool = False,
    ):
        self._trainer, self._settings, self._quiet = trainer, settings, quiet
        self._seeds, self._folder, self._differs = tuple(seeds), folder, differs
        self._threads, self._profile = threads, profile
        self._began, self._done = time.perf_counter(), 0

    def begin(self, start: TrainState) -> None:
        """Show the header, and what stands above the lines of epochs."""
        if self._quiet:
            return
        for name, text in self._header(start).items():
            say(f"{name:{_INDENT}}{text}")
        say(f"\n{self._columns()}")
        self._began, self._done = time.perf_counter(), 0

    def epoch(self, states: Sequence[TrainState]) -> None:
        """Show the line of the epoch that the runs have just made."""
        if self._quiet or not states:
            return
        self._done += 1
        figures = np.mean([state.history[-1] for state in states], axis=0)
        row = dict(zip(COLUMNS, figures, strict=True))
        number, epochs = int(row["epoch"]), self._trainer.epochs
        seconds = (time.perf_counter() - self._began) / self._done
        counted = f"{number}/{epochs}"
        cells = [f"{counted:>9}"]
        for of in ("train", "test"):
            cells.append(f"{_loss(row[f'{of}_loss']):>11}")
            if self._classifies:
                cells.append(f"{row[f'{of}_accuracy']:>10.4f}")
        left = duration(seconds * (epochs - number)) if number < epochs else ""
        cells += [f"{duration(seconds):>10}", f"{left:>10}"]
        say("".join(cells).rstrip())

    def times(self, line: str) -> None:
        """Show what the steps of this epoch took, as `StepTimes.epoch` tells."""
        if line and not self._quiet:
            say(line)

    @property
    def _classifies(self) -> bool:
        return bool(self._trainer.dataset.classes)

    def _columns(self) -> str:
        """Return what stands above the lines of epochs."""
        cells = [f"{'epoch':>9}"]
        for of in ("train", _TESTED_ON[self._trainer.dataset.tested_on]):
            cells.append(f"{of + ' loss':>11}")
            if self._classifies:
                cells.append(f"{'accuracy':>10}")
        return "".join([*cells, f"{'time':>10}", f"{'left':>10}"])

    def _header(self, start: TrainState) -> dict[str, str]:
        """Return the lines of the header by what they are about."""
        trainer, chosen = self._trainer, self._settings
        dataset = trainer.dataset
        n, tested = len(dataset.train_images), len(dataset.test_images)
        examples = f"{n:,} training and {tested:,} {dataset.tested_on} examples"
        if dataset.tested_on == "training":
            examples = f"{n:,} training examples, which are tested on"
        kind = "classes" if dataset.classes else "real target" + "s" * (dataset.outputs > 1)
        seeds = self._seeds or (chosen.seed,)
        per_epoch = -(-n // chosen.batch_size)
        parameters = tree.size(start.carried.params)
        device = trainer.backend.device
        lines = {
            "data": f"{dataset.name}, {examples}",
            "shapes": f"inputs {'×'.join(map(str, dataset.in_shape))}, {dataset.outputs} {kind}",
            "network": f"{chosen.model}, {counted(parameters, 'parameter')}",
            "": _layers(trainer.task.network, start.carried.params),
            "rule": _with_options(chosen.rule, chosen.rule_options),
            "optimizer": _with_options(chosen.optimizer, chosen.optimizer_options),
            "rate": _rates(chosen),
            "epochs": f"{counted(chosen.epochs, 'epoch')} of {counted(per_epoch, 'step')} of "
            f"{counted(chosen.batch_size, 'example')}, "
            f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}",
            "on": ", ".join(filter(None, (trainer.backend.name, device, chosen.dtype))),
        }
        if chosen.objective not in ("supervised", "regression"):
            lines["objective"] = _with_options(chosen.objective, chosen.objective_options)
        if trainer.processes.size > 1:
            lines["processes"] = (
                f"{trainer.processes.size}, which share the {trainer.processes.shares}"
            )
        if self._profile:
            lines["profile"] = "after each epoch, what a step took on average"
        if self._threads:
            lines["threads"] = self._threads
        if len(start.history):
            lines["goes on"] = f"after epoch {len(start.history)}"
        if self._differs:
            lines["differs"] = f"{self._differs}; numbers may be rounded otherwise than before"
        header = {name: _wrapped(text) for name, text in lines.items()}
        if self._folder is not None:
            header["folder"] = str(self._folder.path)  # in one line, to be copied
        return header


def duration(seconds: float) -> str:
    """Return a time in words of at most seven characters, such as `0.3 s` and `1 h 05`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02}"


def _loss(loss: float) -> str:
    """Return a loss in at most nine characters."""
    return f"{loss:.4f}" if abs(loss) < 1000 else f"{loss:.3e}"


def _layers(network: Layer, params: Tree) -> str:
    """Return a line for each layer, or for each part of the network where there are many layers."""
    layers = list(walk(network))
    if len(layers) > _MOST_LAYERS:
        layers = list(network.layers)
    rows = [
        (path, _kind(layer), f"{tree.size(part):,}", "" if layer.layers else shapes_of(part))
        for path, layer in layers
        for part in [tree.subtree(params, path)]
    ]
    if len(rows) > _MOST_LAYERS:
        half = _MOST_LAYERS // 2
        rows = [*rows[:half], (f"… {len(rows) - 2 * half} more …", "", "", ""), *rows[-half:]]
    name, kind, count, shapes = (max(map(len, column)) for column in zip(*rows, strict=True))
    # The number of parameters is always to be seen.
    kind = min(kind, WIDTH - _INDENT - name - count - 6 - min(shapes, 16))
    return "\n".join(
        _cut(f"{a:{name}}  {_cut(b, kind):{kind}}  {c:>{count}}  {d}".rstrip(), WIDTH - _INDENT)
        for a, b, c, d in rows
    )


def _kind(layer: Layer) -> str:
    """Return a layer as one writes it, and of a container its kind and how many it holds."""
    if not layer.layers:
        return as_written(layer)
    return f"{type(layer).__name__} of {counted(len(list(walk(layer))), 'layer')}"


def _cut(text: str, most: int) -> str:
    """Return a text, with `…` at its end where it is too long."""
    return text if len(text) <= most else f"{text[: max(most - 1, 0)]}…"


def _rates(chosen: Settings) -> str:
    """Return the learning rate, its schedule, and what else decides how far a step goes."""
    text = f"{chosen.lr:g}, {_with_options(chosen.schedule, chosen.schedule_options)}"
    for name, usual in (("head_lr", 1.0), ("output_lr", 1.0), ("clip_norm", None)):
        value = getattr(chosen, name)
        if value != usual:
            text += f", {name} {value:g}"
    return text


def _with_options(name: str, options: dict[str, Any]) -> str:
    """Return a choice and its options, as `adam: beta1 0.9, beta2 0.999`."""
    told = ", ".join(f"{option} {shown(value)}" for option, value in options.items())
    return f"{name}: {told}" if told else name


def _wrapped(text: str) -> str:
    """Return a text whose lines behind the first are indented as far as the first."""
    if "\n" in text:
        lines = text.splitlines()
    else:
        # Names such as fg-w stay in one piece.
        lines = textwrap.wrap(text, WIDTH - _INDENT, break_on_hyphens=False, break_long_words=False)
    return ("\n" + " " * _INDENT).join(lines)
