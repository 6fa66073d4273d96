"""`dualnet train --describe`: the network and every setting of a run that is not made."""

from __future__ import annotations

from typing import Any

from dualnet import Key, data, tree
from dualnet.nn import walk
from dualnet.nn.initial import shapes_alone
from dualnet.training.assemble import TABLES, network_of
from dualnet.training.memory import out_of_memory_explained, require_memory
from dualnet.training.published import published
from dualnet.training.recipes import find_recipe
from dualnet.training.resolve import by_name
from dualnet.training.settings import Settings


def describe(settings: Settings, data_dir: str | None) -> dict[str, Any]:
    """Return what `--describe` prints: the network, every setting, and what a recipe says of it."""
    in_shape, classes = data.outline(settings.dataset, data_dir, settings.image_size)
    with out_of_memory_explained(settings), shapes_alone():
        network = network_of(settings, in_shape, classes)
        params, _, _ = network.init(Key(settings.seed), in_shape)
    require_memory(settings, network, in_shape)
    return {
        "model": settings.model,
        **settings.model_options,
        "parameters": tree.size(params),
        "layers": [
            {
                "name": path,
                "kind": type(layer).__name__,
                "parameters": {
                    p[len(path) + 1 :]: list(leaf.shape)
                    for p, leaf in tree.items(params)
                    if p.startswith(path + "/")
                },
            }
            for path, layer in walk(network)
        ],
        "input_shape": list(in_shape),
        "classes": classes,
        "settings": by_name(settings, TABLES),
        **_recipe(settings),
    }


def _recipe(settings: Settings) -> dict[str, Any]:
    """Return what a summary says of the recipe, and which of its settings are the source's."""
    described = published(settings)
    if settings.recipe is not None:
        recipe = find_recipe(settings.recipe)
        described["recipe"]["published"] = {
            name: value for name, value in recipe.settings.items() if name not in recipe.ours
        }
    return described
