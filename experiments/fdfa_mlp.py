"""FDFA's tables of fully connected networks: seven rules, three depths, three data sets.

The paper's text has no norms and one learning rate for every rule; its published code has batch
norms, and a rate of its own for `fg-w`.  Both are trained.
"""

from __future__ import annotations

from experiments.recipe_table import recipe_table

SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
DEPTHS = (2, 4, 3)

EXPERIMENT = recipe_table(
    name="fdfa-mlp",
    shows="test accuracy of networks of 2, 3 and 4 layers by every rule, 100 epochs",
    source="Bacho and Chu, Low-Variance Forward Gradients, Tables 1 and 6",
    columns={
        f"{title}, {depth} layers{form}": f"fdfa-mlp{depth}{of}-{dataset}"
        for dataset, title in SETS.items()
        for depth in DEPTHS
        for form, of in (("", ""), (", as in the code", "-code"))
    },
    quick=("fdfa-mlp2-mnist-bp", "fdfa-mlp2-mnist-fdfa", "fdfa-mlp2-fashion-mnist-fg-a"),
)
