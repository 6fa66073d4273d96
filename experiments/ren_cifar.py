"""The CIFAR-10 column of the table of the paper on local losses: LocalMixer M/8/16."""

from __future__ import annotations

from experiments.recipe_table import recipe_table

EXPERIMENT = recipe_table(
    name="ren-cifar",
    shows="test accuracy of LocalMixer M/8/16 on CIFAR-10 by every rule",
    source="Ren et al. 2023, Scaling Forward Gradient With Local Losses, Table 3",
    columns={"M/8/16": "ren-m-8-16-cifar10"},
    quick=("ren-m-8-16-cifar10-bp",),
)
