"""Recipes: rows and curves of the papers from which `dualnet train --recipe NAME` starts."""

from __future__ import annotations

import difflib

from dualnet.errors import UsageError
from dualnet.naming import named
from dualnet.training.recipes import baydin, dkh, fdfa, frog, ren
from dualnet.training.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    **fdfa.RECIPES,
    **ren.RECIPES,
    **frog.RECIPES,
    **dkh.RECIPES,
    **baydin.RECIPES,
}
"""Every recipe by its name, which ends in the name of its rule."""

__all__ = ["RECIPES", "Recipe", "find_recipe"]


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        UsageError: there is no such recipe; the message shows similar names.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.5)
        papers = ", ".join(dict.fromkeys(f"{name.partition('-')[0]}-…" for name in RECIPES))
        like = f"did you mean {', '.join(close)}?" if close else f"they are {papers};"
        raise UsageError(
            f"{named('recipe')}: there is no {name!r}; {like} dualnet list shows all of them"
        )
    return RECIPES[name]
