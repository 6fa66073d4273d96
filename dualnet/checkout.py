"""`dualnet.models` in a checkout, where it is the folder `models/` beside the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "dualnet.models"


def find_models_in(top: str) -> None:
    """Let Python find `dualnet.models` in a folder, before another checkout that is installed.

    The folder cannot be in `dualnet.__path__`: all that is in it would be in the package too, the
    package itself included.
    """
    folder = os.path.join(top, "models")

    class Models:
        @staticmethod
        def find_spec(
            name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            file = os.path.join(folder, "__init__.py")
            if name != _NAME or not os.path.isfile(file):
                return None
            from importlib.util import spec_from_file_location  # here, as starting is to be fast

            return spec_from_file_location(name, file, submodule_search_locations=[folder])

    sys.meta_path.insert(0, Models)
