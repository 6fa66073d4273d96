"""FDFA's table of a convolutional network: seven rules, three data sets."""

from __future__ import annotations

from experiments.fdfa_mlp import SETS
from experiments.recipe_table import recipe_table

EXPERIMENT = recipe_table(
    name="fdfa-cnn",
    shows="test accuracy of a network of two convolutions by every rule, 100 epochs",
    source="Bacho and Chu, Low-Variance Forward Gradients, Table 2",
    columns={title: f"fdfa-cnn-{dataset}" for dataset, title in SETS.items()},
    quick=("fdfa-cnn-mnist-bp", "fdfa-cnn-mnist-fdfa"),
)
