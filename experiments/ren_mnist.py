"""The MNIST columns of the table of the paper on local losses: two LocalMixers, eleven rules."""

from __future__ import annotations

from experiments.recipe_table import recipe_table

EXPERIMENT = recipe_table(
    name="ren-mnist",
    shows="test accuracy of LocalMixers S/1/1 and M/1/16 on MNIST by every rule",
    source="Ren et al. 2023, Scaling Forward Gradient With Local Losses, Table 3",
    columns={"S/1/1": "ren-s-1-1-mnist", "M/1/16": "ren-m-1-16-mnist"},
    quick=("ren-s-1-1-mnist-bp", "ren-m-1-16-mnist-lg-fg-a"),
)
