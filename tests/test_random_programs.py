"""Random programs: their derivatives against difference quotients, transposes, and JAX.

The long form is `pytest -m slow tests/test_random_programs.py`.  A failure is shown as the
shortest program found that fails, `Program(...)`, to be pasted into `check_differences` or
`check_against_jax`; DUALNET_TEST_SEED=n repeats the run (the same command, since hypothesis also
draws from constants in the modules that are loaded).
"""

import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SEED
from peers import QUICK_TO_COMPILE, REQUIRED, peer

if not os.environ.get(REQUIRED):
    pytest.importorskip("hypothesis", reason='not installed; pip install -e ".[dev]" brings it')

import hypothesis
from hypothesis import HealthCheck, Phase, assume
from hypothesis.configuration import set_hypothesis_home_dir
from random_programs import KINDS, Program, Step, normal, programs

import dualnet as dn
from dualnet import nn, tree
from dualnet.checking.comparison import STEP, largest
from dualnet.checking.directions import one_of, random_directions
from dualnet.images import rules as image_rules
from dualnet.nn import normalization

# hypothesis keeps what it reads in the sources even without a database; not in the checkout
set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))

SETTINGS = hypothesis.settings(
    database=None,
    deadline=None,
    derandomize=False,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)


def random_programs(number):
    """Decorator: run the test on so many programs, the same for the same seed."""

    def decorate(test):
        run = hypothesis.settings(SETTINGS, max_examples=number)(
            hypothesis.given(program=programs())(test)
        )
        return hypothesis.seed(SEED)(run)

    return decorate


# --- against difference quotients ----------------------------------------------------------------


def quotient(f, primals, v, step=STEP):
    after, before = (f(*tree.map(lambda x, d, h=h: x + h * d, primals, v)) for h in (step, -step))
    return tree.map(lambda b, a: (b - a) / (2.0 * step), after, before)


def is_resolved(f, primals, directions):
    """Whether difference quotients can judge: they tell the same at half the step.

    They do not where a kink is nearby, where the third derivative is large, and where the result
    is rounding alone.  Only values of f are asked, so no wrong rule can hide behind it.
    """
    floor = 1e-2 * largest(f(*primals))
    for v in directions:
        coarse, fine = quotient(f, primals, v), quotient(f, primals, v, STEP / 2)
        difference = largest(tree.map(np.subtract, coarse, fine))
        if not difference <= 2e-8 * max(floor, largest(coarse)):
            return False
    return True


def moves(f, primals, v):
    """Whether f has a derivative along v that is more than the rounding of sums that cancel."""
    return largest(quotient(f, primals, v)) > 1e-4


def ties_by_rounding(slope, primals, key):
    """Whether a second derivative that `check_vjp` asks for is NaN, as at ties it may be.

    What ties with copies of itself never leaves the tie.  But of a mean of copies the tangent may
    be rounded, and then it seems to leave.
    """
    out, pull = dn.vjp(slope, *primals)
    pulled = pull(random_directions(key.fold_in("cotangents"), out, 3))
    return any(np.isnan(x).any() for x in tree.leaves(pulled))


def check_differences(program, worst=lambda kind, error, where: None):
    """First derivatives against differences, k directions against single ones, the vjp against
    the jvp, second derivatives by every pair of modes; and that single precision stays."""
    f, _, primals = program.compile()
    key = dn.Key(program.seed)
    directions = random_directions(key, primals, 3)
    v, *_, u = each = [one_of(directions, i) for i in range(3)]
    assume(is_resolved(f, primals, each) and moves(f, primals, v))

    report = dn.check_jvp(f, primals, key=key)
    worst("jvp of a program against differences", report.first_order, str(program))
    worst("k directions of a program against one", report.k_against_single, str(program))
    report = dn.check_vjp(f, primals, key=key)
    worst("vjp of a program against its jvp", report.adjoint, str(program))
    worst("k cotangents of a program against one", report.k_against_single, str(program))

    cotangent = normal(key.fold_in("cotangent"), f(*primals).shape)
    for mode, slope in {
        "forward": lambda *at: dn.jvp(f, at, v)[1],
        "reverse": lambda *at: dn.vjp(f, *at)[1](cotangent),
    }.items():
        if is_resolved(slope, primals, [u]):
            kind = f"second derivative of a program, forward over {mode}"
            (value, nested), expected = dn.jvp(slope, primals, u), quotient(slope, primals, u)
            difference = largest(tree.map(np.subtract, nested, expected))
            error = difference / largest((value, expected))
            worst(kind, error, str(program))
            assert error < 1e-7, f"{kind} is {nested}, and {expected} by differences"
        if moves(slope, primals, u):
            if "larger" in str(program):
                assume(not ties_by_rounding(slope, primals, key))
            error = dn.check_vjp(slope, primals, key=key).adjoint
            worst(f"reverse over {mode} of a program against forward", error, str(program))

    single = tree.map(np.float32, primals)
    out, f_vjp = dn.vjp(f, *single)
    results = dn.jvp(f, single, tree.map(np.float32, directions)), f_vjp(out)
    assert {x.dtype for x in tree.leaves(results)} == {np.dtype(np.float32)}


@random_programs(100)
def test_differences(program, worst, root_key):
    check_differences(program, worst)


@pytest.mark.slow
@random_programs(2000)
def test_differences_long(program, worst, root_key):
    check_differences(program, worst)


# --- against JAX ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jax():
    jax = peer("jax")
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield jax


def check_against_jax(program, jax, worst=lambda kind, error, where: None):
    """Value, jvp and vjp, each relative to its largest entry, or to 1e-3 if that is more."""
    f, by_jax, primals = program.compile()
    key = dn.Key(program.seed)
    v = one_of(random_directions(key, primals, 1), 0)
    cotangent = normal(key.fold_in("cotangent"), f(*primals).shape)

    def answers(primals, v, cotangent):
        out, f_jvp = jax.linearize(lambda params, x: by_jax(jax, params, x), *primals)
        return out, f_jvp(*v), jax.linear_transpose(f_jvp, *primals)(cotangent)

    ours = *dn.jvp(f, primals, v), dn.vjp(f, *primals)[1](cotangent)
    theirs = jax.jit(answers, compiler_options=QUICK_TO_COMPILE)(primals, v, cotangent)
    for kind, *both in zip(("value", "jvp", "vjp"), ours, theirs, strict=True):
        a, b = ([np.asarray(x) for x in jax.tree.leaves(answer)] for answer in both)
        assert [x.shape for x in a] == [y.shape for y in b]
        error = largest([x - y for x, y in zip(a, b, strict=True)]) / max(largest(b), 1e-3)
        worst(f"{kind} of a program against JAX", error, str(program))
        assert error < 1e-9, f"{kind} is {a}, and {b} by JAX"


@random_programs(100)
def test_against_jax(program, jax, worst, root_key):
    check_against_jax(program, jax, worst)


@pytest.mark.slow
@random_programs(2000)
def test_against_jax_long(program, jax, worst, root_key):
    check_against_jax(program, jax, worst)


# --- the tests themselves ------------------------------------------------------------------------


def too_large(linear_map):
    """The same linear map, off by a thousandth."""
    return lambda *args: 1.001 * linear_map(*args)


@pytest.mark.slow  # shortening takes minutes
@pytest.mark.parametrize(
    ("linear_map", "part", "culprits"),
    [
        (image_rules.conv_of_image_tangent, "transpose", ["Conv2d"]),
        (normalization.tangent_of_normalized, "forward", ["Norm", "block"]),
    ],
)
def test_a_wrong_rule_is_found_and_its_program_shortened(linear_map, part, culprits, monkeypatch):
    monkeypatch.setattr(linear_map, part, too_large(getattr(linear_map, part)))

    def fails(program):
        try:
            check_differences(program)
        except AssertionError:
            return True
        return False

    found = hypothesis.find(
        programs(),
        fails,
        settings=hypothesis.settings(SETTINGS, max_examples=1000),
        random=random.Random(SEED),
    )
    assert len(found.steps) <= 2 and any(name in str(found) for name in culprits), found


@random_programs(20)
def test_a_program_is_what_its_repr_says(program):
    assert eval(repr(program), {"Program": Program, "Step": Step}) == program


def test_every_layer_is_in_programs():
    """But dropout, whose mask JAX cannot draw, and the stop, which differences see through."""
    names = {name.lower().replace("_", "") for name in KINDS}
    layers = {name for name in nn.__all__ if hasattr(getattr(nn, name), "apply")}
    missing = {name for name in layers if name.lower() not in names}
    assert missing == {"Dropout", "Layer", "Sequential", "StopGradient"}
