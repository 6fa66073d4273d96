"""A command that is killed, or whose files cannot be written, at any of its file operations.

What is there afterwards is old or new and never half written, and whoever goes on ends with the
numbers of a run that nothing happened to, bit for bit.
"""

import collections

import pytest

from crash.forked import Fault
from crash.scenarios import BLOWS, scenarios

NAMES = ("a run", "a run that goes on", "more epochs", "seeds", "seeds that go on")


@pytest.fixture(scope="module")
def scenario(server, tmp_path_factory):
    """`scenario(name, pictures=False)`, each made once."""
    places = {drawn: tmp_path_factory.mktemp("crash") for drawn in (False, True)}
    made = {drawn: scenarios(server, place, drawn) for drawn, place in places.items()}
    return lambda name, pictures=False: made[pictures][name]


def kind(operation):
    """What an operation does, and to which file of a run: `write checkpoint.npz`."""
    name, path = operation.split(" ", 1)
    return name, path.removesuffix(".partial").rpartition("/")[2].lstrip(".")[:10]


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_of_each_kind_may_be_the_last(name, scenario, rng):
    """A few of those that differ in what they do to which file, with any fault."""
    one = scenario(name)
    _, operations = one.undisturbed
    of_kind = collections.defaultdict(list)
    for number, operation in enumerate(operations, 1):
        of_kind[kind(operation)].append(number)
    for chosen in rng.permutation(list(of_kind), axis=0)[: 10 if name == "a run" else 4]:
        at = int(rng.choice(of_kind[tuple(chosen)]))
        blow = BLOWS[rng.integers(len(BLOWS))]
        print(f"{name}: {blow} at {at}, {operations[at - 1]}")
        assert one.strike(blow, at)


@pytest.mark.slow
@pytest.mark.parametrize("blow", BLOWS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_may_be_the_last(name, blow, scenario):
    strike_each(scenario(name), blow, "")


@pytest.mark.slow
@pytest.mark.parametrize("blow", BLOWS, ids=str)
def test_every_operation_of_a_picture_may_be_the_last(blow, scenario):
    pytest.importorskip("matplotlib", reason='pip install "dualnet[plot]" brings it')
    strike_each(scenario("a run", pictures=True), blow, ".png")


def strike_each(one, blow, of):
    """Strike at each operation on files with `of` in their names; say at how many all was well."""
    failures, struck = [], 0
    _, operations = one.undisturbed
    for at, operation in enumerate(operations, 1):
        for_writes = blow.fault in (Fault.TEAR, Fault.SHORT)
        if of not in operation or (for_writes and not operation.startswith("write ")):
            continue
        struck += 1
        try:
            one.strike(blow, at)
        except AssertionError as error:
            failures.append(f"at {at}, {operation}: {str(error)[:300]}")
    print(f"{blow}: {struck - len(failures)} of {struck}")
    assert struck and not failures, "\n".join(failures)
