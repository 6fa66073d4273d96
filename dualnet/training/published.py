"""What a run that starts from a recipe is compared with: the published row."""

from __future__ import annotations

from typing import Any

from dualnet.training.assemble import TABLES
from dualnet.training.recipes import find_recipe
from dualnet.training.resolve import by_name, resolve
from dualnet.training.settings import Settings

COMPARABLE_ANYWAY = ("recipe", "seed", "backend", "threads", "shards", "graph", "grad_stats")
"""Settings that do not change the expected score of a recipe."""


def published(settings: Settings) -> dict[str, Any]:
    """Return what a summary says of the recipe, {} if there is none.

    That is the published accuracy, its source, and which settings of the run are not the source's.
    """
    if settings.recipe is None:
        return {}
    recipe = find_recipe(settings.recipe)
    unchanged = by_name(resolve({"recipe": settings.recipe}, TABLES), TABLES)
    changed = [
        name
        for name, value in by_name(settings, TABLES).items()
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
