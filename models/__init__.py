"""The papers' networks, each built from dualnet's layers alone.

A model is a frozen dataclass: its fields are its command-line flags, and
`network(in_shape, classes)` builds the layers.
"""

from models.mlp import MLP

MODELS = {"mlp": MLP}

__all__ = ["MLP", "MODELS"]
