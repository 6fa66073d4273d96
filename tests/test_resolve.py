"""What is given becomes settings, from Python as from the command line, and is checked."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Optional

import numpy as np
import pytest

from dualnet.command import train
from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.naming import as_flags, assigned, named, nearest
from dualnet.optim import Adam
from dualnet.options import require_choice
from dualnet.training.recipes import RECIPES
from dualnet.training.resolve import by_name, resolve, setting_kinds
from dualnet.training.settings import Settings, option_table, options_of


def test_python_and_the_command_line_give_the_same_settings():
    flags = "--rule fg-w --tangents 3 --lr 1 --schedule step --times 0.2 0.6 --no-batch-norm"
    given = {"rule": "fg-w", "tangents": 3, "lr": 1, "schedule": "step", "times": [0.2, 0.6]}
    settings = resolve({**given, "batch_norm": False}, train.TABLES)
    assert settings == train.settings_of(train.parse(flags.split()))
    assert type(settings.lr) is float and settings.schedule_options["times"] == (0.2, 0.6)


def test_what_is_given_wins_over_the_recipe_also_where_it_is_nothing():
    name = next(name for name, recipe in RECIPES.items() if recipe.settings.get("early_stop"))
    assert resolve({"recipe": name}, train.TABLES).early_stop is not None
    assert resolve({"recipe": name, "early_stop": None}, train.TABLES).early_stop is None


def test_every_name_is_one_of_those_that_are_told():
    names = setting_kinds(train.TABLES).keys()
    for rule in RULES:
        assert by_name(resolve({"rule": rule}, train.TABLES), train.TABLES).keys() <= names
    assert {"tf32", "bf16", "tangents", "lr"} <= names and "matmul_precision" not in names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "there is no setting 'epoch'; did you mean epochs?"),
        ({"Batch-Size": 3}, "there is no setting 'Batch-Size'; did you mean batch_size"),
        ({"rule": "FG_A"}, r"^rule: expected one of bp, .*, got 'FG_A'; did you mean fg-a.$"),
        ({"dataset": "minst"}, "dataset: expected one of digits, .*; did you mean mnist"),
        ({"backend": "gpu"}, "backend: expected one of numpy, cupy, auto, got 'gpu'$"),
        ({"epochs": "ten"}, "^epochs: expected an int, got 'ten'"),
        ({"epochs": True}, "^epochs: expected an int, got True"),
        ({"epochs": 0}, "^epochs: expected an int of at least 1, got 0"),
        ({"lr": "fast"}, "^lr: expected a number, got 'fast'"),
        ({"tf32": 1}, "^tf32: expected True or False, got 1"),
        (
            {"times": [0.1, "x"], "schedule": "step"},
            "^times: expected a list of numbers, got .0.1, 'x'",
        ),
        ({"width": 8.5}, "^width: expected an int, got 8.5"),
        ({"limit_test": "all"}, r"^limit_test: expected an int or None, got 'all'"),
        (
            {"tangents": 3, "rule": "bp"},
            "^tangents is of no use to rule='bp'; it is for fdfa, fg-w",
        ),
        ({"head_lr": 2.0}, "^head_lr is of no use to rule='fg-a'"),
        ({"graph": False}, "^graph=False is of no use to backend='numpy'; it is for cupy"),
        ({"tf32": True, "bf16": True, "backend": "cupy"}, "^tf32 and bf16: give one of them"),
        ({"early_stop": 5}, "^early_stop goes by .*; say how many by validation N"),
        ({"recipe": "fdfa"}, "there is no 'fdfa'"),
    ],
)
def test_a_mistake_is_told_by_the_python_name(given, message):
    with pytest.raises(UsageError, match=message) as raised:
        resolve(given, train.TABLES)
    assert "\n" not in str(raised.value)


def test_names_are_those_of_who_calls():
    assert named("limit_test") == "limit_test" and named("limit_test", "load") == "load: limit_test"
    assert (assigned("rule", "bp"), assigned("graph", False)) == ("rule='bp'", "graph=False")
    with as_flags():
        assert named("limit_test") == named("limit_test", "load") == "--limit-test"
        assert (assigned("rule", "bp"), assigned("graph", False)) == ("--rule bp", "--no-graph")
        with as_flags():
            pass
        assert assigned("tf32", True) == "--tf32"
    assert named("limit_test") == "limit_test"
    with pytest.raises(ValueError), as_flags():
        raise ValueError
    assert named("limit_test") == "limit_test"


def test_nearest_names_fold_case_and_dashes():
    assert nearest("BATCH_SIZE", ["--batch-size", "--epochs"]) == ["--batch-size"]
    assert nearest("Fg_A", ["fg-w", "fg-a", "bp"]) == ["fg-a"]
    assert nearest(None, ["bp"]) == nearest("", ["bp"]) == nearest("xyz", ["bp"]) == []


# --- options of dataclasses ----------------------------------------------------------------------
# This module does not postpone the evaluation of annotations, as a user's may not.


@dataclass(frozen=True)
class Own:
    count: int = 1
    rate: float | None = None
    name: Optional[str] = None  # noqa: UP045 - as users write it
    on: "bool" = False
    times: tuple[float, ...] = (0.5,)
    made: float = dataclasses.field(default_factory=lambda: 2.0)
    hidden: int = dataclasses.field(default=3, init=False)


def test_options_are_read_however_their_types_are_written():
    kinds = {name: kind for name, (kind, _) in option_table({"own": Own}).items()}
    expected = {"count": "int", "rate": "float | None", "name": "str | None", "on": "bool"}
    assert kinds == {**expected, "times": "tuple[float, ...]", "made": "float"}
    defaults = {"count": 1, "rate": None, "name": None, "on": False, "times": (0.5,), "made": 2.0}
    assert options_of(Own) == defaults


@dataclass(frozen=True)
class Strange:
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Bare:
    count: int


class Plain:
    """No dataclass."""


class Undecorated(Adam):
    extra: float = 1.0


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Strange, r"Strange\.kind: expected an option of type int, .*, got typing.Literal"),
        (Bare, r"Bare\.count: expected an option with a default, got none; write count: int = …"),
        (Plain, r"Plain: expected a dataclass; write @dataclass\(frozen=True\) before it"),
        (Undecorated, "Undecorated: expected a dataclass"),
        (3, "3: expected a dataclass"),
    ],
)
def test_a_class_that_cannot_be_chosen_says_why(cls, message):
    with pytest.raises(UsageError, match=message):
        resolve({"rule": "own"}, {**train.TABLES, "rule": {**RULES, "own": cls}})


def test_settings_of_a_file_are_of_their_kinds():
    good = resolve({}, train.TABLES).as_json()
    assert Settings.from_json(good) == resolve({}, train.TABLES)
    with pytest.raises(UsageError, match="settings: epochs: expected an int, got '3'"):
        Settings.from_json({**good, "epochs": "3"})


def test_numbers_of_numpy_become_those_of_python():
    given = {
        "epochs": np.int64(3),
        "lr": np.float32(0.5),
        "schedule": "step",
        "times": (0.25, np.float32(0.5)),
    }
    settings = resolve(given, train.TABLES)
    assert (settings.epochs, type(settings.epochs)) == (3, int)
    assert (settings.lr, type(settings.lr)) == (0.5, float)
    assert [type(time) for time in settings.schedule_options["times"]] == [float, float]


@pytest.mark.parametrize(
    ("choices", "value", "end"),
    [(("bp", "fg-a"), "FG_A", "; did you mean fg-a?"), (RULES.keys(), 3, "")],
)
def test_a_choice_is_refused_with_the_nearest_one(choices, value, end):
    with pytest.raises(UsageError) as raised:
        require_choice("here", "rule", value, choices)
    assert str(raised.value) == (
        f"here: rule: expected one of {', '.join(choices)}, got {value!r}{end}"
    )
