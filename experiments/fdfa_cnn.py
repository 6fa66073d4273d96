"""FDFA's table of a convolutional network: seven rules, three data sets.

The network stands in the paper with a pool after each convolution, and in the published code with
one pool and batch norm; both are trained.
"""

from __future__ import annotations

from experiments.fdfa_mlp import SETS
from experiments.recipe_table import recipe_table

EXPERIMENT = recipe_table(
    name="fdfa-cnn",
    shows="test accuracy of a network of two convolutions by every rule, 100 epochs",
    source="Bacho and Chu, Low-Variance Forward Gradients, Table 2",
    columns={
        f"{title}, {form}": f"{begin}-{dataset}"
        for dataset, title in SETS.items()
        for form, begin in (("as in the code", "fdfa-cnn-code"), ("as in the text", "fdfa-cnn"))
    },
    quick=("fdfa-cnn-mnist-bp", "fdfa-cnn-code-mnist-fdfa"),
)
