"""Programs of the field run as they are written, and their derivatives are right."""

import numpy as np
import peers
import pytest
from plain_programs import PROGRAMS

import dualnet as dn

TOLERANCE = 1e-6


def largest(*arrays):
    return max(float(np.max(np.abs(a))) for a in arrays)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_forward_mode_with_three_directions(program, key):
    f, at = program.function, program.at
    dn.check_jvp(f, at, k=3, tolerance=TOLERANCE, key=key)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_reverse_mode(program, key):
    dn.check_vjp(program.function, program.at, key=key)


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.hessian], ids=str)
def test_the_hessian(program, worst):
    every = tuple(range(len(program.at)))

    def scalar(*args):
        return np.sum(program.function(*args))

    gradient = dn.grad(scalar, every)
    hessian = dn.jacfwd(gradient, every)(*program.at)
    for i, x in enumerate(program.at):
        for entry in np.ndindex(x.shape):
            unit = np.zeros_like(x)
            unit[entry] = 6e-6 * max(1.0, abs(x[entry]))
            sides = [gradient(*program.at[:i], x + s, *program.at[i + 1 :]) for s in (unit, -unit)]
            quotients = [(a - b) / (2 * unit[entry]) for a, b in zip(*sides, strict=True)]
            columns = [hessian[j][i][(..., *entry)] for j in every]
            scale = largest(*quotients, *sides[0])
            error = largest(*(c - q for c, q in zip(columns, quotients, strict=True))) / scale
            worst("Hessian of a plain program", error, str(program))
            assert error < TOLERANCE, (i, entry)


class AsNumpy:
    """JAX under the names that programs take from NumPy, from `dualnet.numpy` and from dualnet."""

    def __init__(self, jax):
        self._numpy = jax.numpy
        self.stop_gradient = jax.lax.stop_gradient

    def __getattr__(self, name):
        return getattr(self._numpy, name)

    def put_at(self, x, key, value):
        return self._numpy.asarray(x).at[key].set(value)

    def concatenate(self, arrays):
        return self._numpy.concatenate([self._numpy.asarray(a) for a in arrays])


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_against_jax(program, rng, worst):
    jax = peers.peer("jax")
    numpy = AsNumpy(jax)
    replaced = {"np": numpy, "dnp": numpy, "dn": numpy}
    replaced |= {"erf": jax.scipy.special.erf, "jacobian_of": jax.jacfwd}
    with jax.enable_x64(True):
        same = program.by(**replaced)
        directions = tuple(rng.standard_normal(x.shape) for x in program.at)
        value, moved = jax.jvp(same, program.at, directions)
        cotangent = rng.standard_normal(np.shape(value))
        pulled = jax.vjp(same, *program.at)[1](jax.numpy.asarray(cotangent))
        expected = [np.asarray(a) for a in (value, moved, *pulled)]
    out, tangent = dn.jvp(program.function, program.at, directions)
    gradients = dn.vjp(program.function, *program.at)[1](cotangent)
    names = ("value", "tangent", *("gradient" for _ in gradients))
    for what, a, b in zip(names, (out, tangent, *gradients), expected, strict=True):
        error = largest(a - b) / max(1e-3, largest(b))
        worst(f"{what} of a plain program against JAX", error, str(program))
        assert error < 1e-8, what


def test_there_are_thirty():
    assert len(PROGRAMS) >= 30
    assert sum(p.hessian for p in PROGRAMS) >= 10
