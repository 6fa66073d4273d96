"""`dualnet list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping

from dualnet import data
from dualnet.console import answer
from dualnet.learning import WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.training.assemble import OPEN_TABLES, TABLES
from dualnet.training.flags import WHAT_TO_LEARN
from dualnet.training.parser import Parser
from dualnet.training.plugins import load_plugins
from dualnet.training.recipes import RECIPES

TITLES = {
    "rule": "rules",
    "model": "models",
    "objective": "objectives",
    "optimizer": "optimizers",
    "schedule": "schedules",
}
"""Kind of choice → what stands above its names."""


def main(argv: list[str], program: str) -> None:
    """Print the list; files named by `--plugin` are run first, and add to it."""
    parser = Parser(prog=program, description="List what there is to choose from.")
    parser.add_argument("--plugin", **WHAT_TO_LEARN["--plugin"])
    args = parser.parse_every(argv)
    load_plugins(args.plugin or [], OPEN_TABLES)
    answer(list_text())


def list_text() -> str:
    """Return every name that a flag takes, and what it is, in lines."""
    lines = []
    for kind, title in TITLES.items():
        lines.append(f"{title}:")
        for name, cls in TABLES[kind].items():
            lines.append(f"  {name:15}{_first_line(cls)}")
    samplers = {name: sampler.mix or sampler.draw for name, sampler in WEIGHT_SAMPLERS.items()}
    described: dict[str, Mapping[str, object]] = {
        "samplers": samplers,
        "aggregations": WEIGHT_AGGREGATIONS,
        "augmentations": data.AUGMENTATIONS,
    }
    for title, functions in described.items():
        lines.append(f"{title}:")
        for name, function in functions.items():
            lines.append(f"  {name:22}{_first_line(function)}")
    lines.append("data sets:")
    for name, source in data.SOURCES.items():
        lines.append(f"  {name:17}{source.description}")
    lines.append("recipes NAME-RULE, with the published test accuracy in % where there is one:")
    groups: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        rule = recipe.settings["rule"]
        row = rule if recipe.accuracy is None else f"{rule} {100 * recipe.accuracy:.2f}"
        groups.setdefault(name.removesuffix(f"-{rule}"), []).append(row)
    longest = max(map(len, groups))
    for name, rows in groups.items():
        lines.append(f"  {name:{longest}}  {', '.join(rows)}")
    return "\n".join(lines)


def _first_line(described: object) -> str:
    """Return the first line of a docstring; nothing where there is none."""
    return (described.__doc__ or "").partition("\n")[0]
