"""What differs among the settings of several runs, and what all of them share, in few words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from dualnet.naming import shown
from dualnet.training.assemble import TABLES
from dualnet.training.settings import Settings, options_of

_FIRST = ("dataset", "model", "rule", "optimizer", "schedule", "lr", "epochs", "batch_size")
"""Settings that are always said, in this order; all others where they are not the default."""
_BARE = ("dataset", *TABLES)
"""Settings whose values say what they are, so that their names are left out."""
_OF_ONE_RUN = ("seed", "recipe", "grad_stats")
"""Settings that do not make a run another one: they repeat it, name it or watch it."""

Chosen = dict[str, Any]
"""Settings and options by name."""


def shared_and_own(runs: Sequence[Settings]) -> tuple[Chosen, list[Chosen]]:
    """Return the settings that all runs share, and for each run those that set it apart.

    Options belong to the choice that has them, as `tangents` to a rule.  So an option counts as
    shared if all runs have made the same choice and the same option with it.  Options that are the
    default of their choice are left out of both, unless runs of the same choice differ in them.
    """
    shared: Chosen = {}
    own: list[Chosen] = [{} for _ in runs]
    for name in _in_order(f.name for f in dataclasses.fields(Settings)):
        values = [getattr(one, name) for one in runs]
        if name in _OF_ONE_RUN or name.endswith("_options"):
            continue
        if len(set(values)) > 1:
            for mine, value in zip(own, values, strict=True):
                mine[name] = value
        elif name in _FIRST or values[0] != _default(name):
            shared[name] = values[0]
        if name in TABLES:
            _add_options(name, runs, shared, own)
    return shared, [_rule_first(mine, one) for mine, one in zip(own, runs, strict=True)]


def _rule_first(chosen: Chosen, run: Settings) -> Chosen:
    """Return settings with the rule and its options before the others."""
    of_rule = {name: chosen[name] for name in ("rule", *run.rule_options) if name in chosen}
    return {**of_rule, **chosen}


def _in_order(names: Iterable[str]) -> list[str]:
    return [*_FIRST, *(name for name in names if name not in _FIRST)]


def _default(name: str) -> Any:
    """Return the default of a setting; None where it depends on others."""
    default = Settings.__dataclass_fields__[name].default
    return None if default is dataclasses.MISSING else default


def _add_options(
    kind: str, runs: Sequence[Settings], shared: Chosen, own: Sequence[Chosen]
) -> None:
    """Add the options of what runs have chosen of a kind to what they share or have of their own.

    Args:
        kind: `model`, `rule`, and so on.
        runs: their settings.
        shared, own: are added to.
    """
    for choice in dict.fromkeys(getattr(one, kind) for one in runs):
        chosen = [i for i, one in enumerate(runs) if getattr(one, kind) == choice]
        options = [getattr(runs[i], f"{kind}_options") for i in chosen]
        cls = TABLES[kind].get(choice)  # none for what is given in Python, or comes from a plugin
        defaults = options_of(cls) if cls is not None else {}
        for name in dict.fromkeys(name for one in options for name in one):
            if len({_written(one.get(name)) for one in options}) > 1:
                told = True
            else:
                told = name in defaults and _written(defaults[name]) != _written(options[0][name])
                if told and len(chosen) == len(runs):
                    shared[name] = options[0][name]
                    continue
            if told:
                for i, one in zip(chosen, options, strict=True):
                    own[i][name] = one.get(name)


def _written(value: Any) -> str:
    """Return a value so that a list equals the tuple that it was before it was written."""
    return json.dumps(value)


def in_words(chosen: Chosen) -> str:
    """Return settings as text, such as `digits, mlp, fg-w, tangents=4, lr=0.001`.

    Those that are None, which is to say that there is nothing of the kind, are left out.
    """
    return ", ".join(
        str(value) if name in _BARE else f"{name}={shown(value)}"
        for name, value in chosen.items()
        if value is not None
    )


def names_of(
    runs: Sequence[Settings],
    own: Sequence[Chosen],
    seeds: Sequence[Sequence[int]],
    folders: Sequence[str],
) -> list[str]:
    """Return a name for each run, all different: what sets it apart.

    Where that is nothing, its only seed is added, or the folder if that tells no more.

    Args:
        runs: their settings.
        own: of each run, from `shared_and_own`.
        seeds: of each run.
        folders: of the runs, all different.
    """
    names = [in_words(one) or run.rule for one, run in zip(own, runs, strict=True)]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        marks = [f"seed={seeds[i][0]}" for i in alike]
        if len(set(marks)) < len(marks) or any(len(seeds[i]) > 1 for i in alike):
            marks = [folders[i] for i in alike]
        for i, mark in zip(alike, marks, strict=True):
            names[i] = f"{name}, {mark}"
    return names
