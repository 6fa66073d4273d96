"""What experiments say of trainings: those that diverge, and those that end early."""

import re

import numpy as np
import pytest

from dualnet.training.recipes import RECIPES
from experiments import dkh_curves, frog_networks
from experiments.__main__ import EXPERIMENTS
from experiments.dkh_curves import cell, diverged

DKH = ("dkh-rates", "dkh-width", "dkh-batchnorm", "dkh-cifar", "dkh-conv")


def run(losses=(2.0, 1.0), accuracies=(0.1, 0.2), **more):
    curves = {"train_loss": list(losses), "test_loss": list(losses)}
    curves |= {"train_accuracy": list(accuracies), "test_accuracy": list(accuracies)}
    if "diverged" in more:
        return {"curves": curves, **more}
    return {"curves": curves, "train_loss": losses[-1], "test_accuracy": accuracies[-1], **more}


ALONE = "1 of 1 seeds diverged (0); seed 0 diverged at step 18: the loss is nan; lower --lr"
ONE = "diverged in epoch 3: the test loss is inf; lower --lr"


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([], "–"),
        ([run()], "1, 20.0 %"),
        ([run(), run((3.0, 2.0), (0.1, 0.3))], "1.5, 25.0 %"),
        ([run(diverged=ALONE)], "diverged at step 18"),
        ([run(diverged=ONE)], "diverged in epoch 3"),
        ([run(), run(diverged=ONE), run(diverged=ALONE)], "1, 20.0 %; 2 of 3 diverged"),
    ],
)
def test_a_run_that_diverges_is_a_result(results, text):
    assert cell(results) == text
    assert diverged(run()) == ""


def test_the_best_epoch_is_that_of_the_lowest_loss():
    best = frog_networks.best
    assert best(run((3.0, 1.0, 2.0), (0.1, 0.5, 0.9))) == (0.5, 3)
    assert best(run((3.0, None, 2.0), (0.1, 0.5, 0.9))) == (0.9, 3)
    assert best(run((), (), diverged=ALONE)) == (0.0, 0)
    lost = run((3.0, 1.0), (0.1, 0.5), diverged=ONE)
    assert frog_networks.cell([run(), lost]) == "35.00 (2), 1 of 2 diverged"


@pytest.mark.parametrize("name", (*DKH, "frog-networks"))
def test_every_recipe_of_a_figure_is_a_row(name):
    experiment = EXPERIMENTS[name]
    rows = experiment.settings(experiment.form(False, None, "numpy"))
    recipes = [row["recipe"] for row in rows]
    assert len(set(recipes)) == len(recipes) and set(recipes) <= set(RECIPES)
    if name == "frog-networks":
        assert set(recipes) == {recipe for recipe in RECIPES if recipe.startswith("frog-")}
    # Each has a cell in the table and a line in the picture.
    made = [{"settings": row, "results": run()} for row in rows]
    table = experiment.table(made)
    assert len(re.findall(r"1, 20\.0 %|20\.00 \(2\)", table)) == len(recipes)
    drawn = [line for axes in experiment.picture(made).axes for line in axes.get_lines()]
    assert len(drawn) == len(recipes)


def test_all_recipes_of_dkh_are_in_an_experiment():
    shown = {
        row["recipe"]
        for name in DKH
        for row in EXPERIMENTS[name].settings(EXPERIMENTS[name].form(False, None, "numpy"))
    }
    assert shown == {recipe for recipe in RECIPES if recipe.startswith("dkh-")}


def test_a_run_lost_in_its_first_epoch_has_a_cross_at_the_top():
    line = dkh_curves.Line("rate 1", {"bp": "a", "fg-w": "b"}, "collapses")
    lost = run((), (), diverged=ALONE)
    figure = dkh_curves.draw({"a": [run()], "b": [lost]}, [line])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["bp", "fg-w, diverged at step 18"]
    axes = figure.axes[0]
    cross = axes.get_lines()[1]
    assert cross.get_marker() == "x" and cross.get_transform() == axes.get_xaxis_transform()
    np.testing.assert_array_equal(cross.get_xydata(), [[1, 0.95]])
