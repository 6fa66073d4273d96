"""Inputs at the edges give the right value or a clear refusal, and never a wrong number."""

import itertools
import re
import warnings

import numpy as np
import pytest
from edge_inputs import EDGES, KINDS, Edge, Either, MayBeNaN, Refused

from dualnet.errors import DualnetError


def failure_of(edge):
    """Run a row, and say what is wrong with what it gives; None where it is right."""
    choices = edge.right.choices if isinstance(edge.right, Either) else (edge.right,)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix
            given = edge.program()
    except Exception as error:
        if any(isinstance(choice, Refused) and refuses(choice, error) for choice in choices):
            return None
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if any(not isinstance(choice, Refused) and same(choice, given) for choice in choices):
        return None
    return " ".join(repr(given).split())


def refuses(refused, error):
    """Tell whether an error is the refusal that is right."""
    return isinstance(error, refused.errors) and re.search(refused.piece, str(error)) is not None


def same(right, given):
    """Compare trees of arrays, to the precision of their dtype."""
    if isinstance(right, (str, type(None))):
        return type(given) is type(right) and right == given
    if isinstance(right, dict):
        alike = isinstance(given, dict) and list(right) == list(given)
        return alike and all(same(right[name], given[name]) for name in right)
    if isinstance(right, (tuple, list)) and isinstance(given, (tuple, list)):
        alike = len(right) == len(given)
        return alike and all(itertools.starmap(same, zip(right, given, strict=True)))
    try:
        given = np.asarray(given)
        wanted = np.asarray(right.value if isinstance(right, MayBeNaN) else right, float)
    except (DualnetError, ValueError):
        return False
    if given.shape != wanted.shape or given.dtype.kind not in "fi":
        return False
    if isinstance(right, MayBeNaN):
        wanted = np.where(np.isnan(given), np.nan, wanted)
    finite = np.abs(wanted[np.isfinite(wanted)])
    close = np.isclose(
        given.astype(float),
        wanted,
        rtol=1e-2 if given.dtype == np.float16 else 1e-5,
        atol=1e-12 * finite.max() if finite.size else 0.0,
        equal_nan=True,
    )
    return bool(np.all(close))


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_an_edge(edge):
    wrong = failure_of(edge)
    assert wrong is None, f"{edge}: gives {wrong}; right is {edge.right}"


def test_every_kind_has_rows_enough():
    for kind in KINDS:
        assert sum(edge.kind == kind for edge in EDGES) >= 6, kind
    names = [str(edge) for edge in EDGES]
    assert len(set(names)) == len(names)


# --- a wrong number must be seen -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "given"),
    [
        (np.ones(2), np.array([1.0, 1.001])),
        (np.ones(2), np.ones((1, 2))),
        (np.ones(2), np.array([1.0, np.nan])),
        ((1.0, np.ones(2)), (1.0, np.zeros(2))),
        ({"a": np.ones(2)}, {"b": np.ones(2)}),
        (("float32", np.ones(2)), ("float64", np.ones(2))),
        (Refused("order"), np.ones(2)),
        (Either((np.ones(2), Refused())), np.zeros(2)),
        (MayBeNaN(np.ones(2)), np.array([np.nan, 2.0])),
        (np.float16([1.0]), np.float16([1.03])),
        (0.0, np.array(1e-30)),
        (None, 0.0),
    ],
)
def test_what_is_wrong_is_seen(right, given):
    assert failure_of(Edge("none", "wrong", lambda: given, right)) is not None


def test_a_wrong_refusal_is_seen():
    def fail():
        raise ValueError("another cause")

    for right in (np.ones(2), Refused("order", (ValueError,)), Refused("cause")):
        assert failure_of(Edge("none", "wrong", fail, right)) is not None
    assert failure_of(Edge("none", "right", fail, Refused("cause", (ValueError,)))) is None
    some = MayBeNaN(np.ones(2))
    assert failure_of(Edge("none", "right", lambda: np.array([np.nan, 1.0]), some)) is None
