"""The same answers as JAX: every operation it shares with the table, and random compositions.

DUALNET_TEST_SEED=n repeats a run (see conftest), `-k 'composition[17]'` one composition of it; a
failure also shows the steps of the composition.
"""

import functools

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.check.operations import OPERATIONS as ROWS
from dualnet.check.table import MASK

jax = peer("jax")
jnp = peer("jax.numpy")
TOLERANCE = 1e-10


@pytest.fixture(autouse=True)
def double_precision_on_the_cpu():
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def draw(f, xs, rng):
    """Tangents of xs and a cotangent of f's result."""
    vs = tuple(rng.standard_normal(x.shape) for x in xs)
    return xs, vs, tree.map(lambda y: rng.standard_normal(np.shape(y)), f(*xs))


def by_dualnet(f, xs, vs, cts):
    return *dn.jvp(f, xs, vs), dn.vjp(f, *xs)[1](cts)


def by_jax(f, xs, vs, cts):
    return *jax.jvp(f, xs, vs), jax.vjp(f, *xs)[1](cts)


def compare(worst, where, ours, theirs):
    for kind, a, b in zip(("value", "jvp", "vjp"), ours, theirs, strict=True):
        a, b = tree.leaves(a), [np.asarray(x) for x in jax.tree.leaves(b)]
        assert [np.shape(x) for x in a] == [x.shape for x in b]
        largest = max((np.max(np.abs(y), initial=1e-100) for y in b), default=1.0)
        for x, y in zip(a, b, strict=True):
            error = np.max(np.abs(x - y), initial=0.0) / largest
            worst(f"{kind} against JAX", error, where)
            assert error < TOLERANCE, f"{kind} is {x}, and {y} by JAX"


# --- the table -----------------------------------------------------------------------------------

SHARED = [row for row in ROWS if row.jax]
CHUNK = 40
QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@functools.cache
def questions_and_answers(chunk, key):
    """For some rows: where they are asked, and JAX's answers.  Compiling them together takes
    half the time of compiling each for itself, and compiling is what takes the time."""
    rows = SHARED[chunk * CHUNK : (chunk + 1) * CHUNK]
    asked = [
        draw(row, row.arrays(rng), rng)
        for row in rows
        for rng in [np.random.default_rng(key.fold_in(row.name).bits)]
    ]

    def answers(asked):
        return [
            by_jax(functools.partial(row.f, jnp), *question)
            for row, question in zip(rows, asked, strict=True)
        ]

    return asked, jax.jit(answers, compiler_options=QUICK_TO_COMPILE)(asked)


@pytest.mark.parametrize("i", range(len(SHARED)), ids=[row.name for row in SHARED])
def test_row(i, root_key, worst):
    asked, answers = questions_and_answers(i // CHUNK, root_key)
    ours = by_dualnet(SHARED[i], *asked[i % CHUNK])
    compare(worst, SHARED[i].name, ours, answers[i % CHUNK])


def test_most_rows_are_compared():
    known = [row for row in ROWS if row.family != "convolution"]  # that JAX spells otherwise
    assert len(SHARED) > 0.95 * len(known)


# --- compositions --------------------------------------------------------------------------------


def bounded(xp, y):
    return 2.0 * xp.arctan(y)


# from matrices (3, 3) with entries of a few units at most to the same; none jumps
OPERATIONS = {
    "sin": lambda xp, a, b: xp.sin(a) + xp.cos(b),
    "tanh": lambda xp, a, b: xp.tanh(a),
    "arctan2": lambda xp, a, b: xp.arctan2(a, 1.0 + xp.square(b)),
    "exp": lambda xp, a, b: xp.exp(-xp.square(a)) + b / 2.0,
    "log": lambda xp, a, b: xp.log(2.0 + xp.square(a)) - xp.log1p(xp.abs(b)),
    "sqrt": lambda xp, a, b: xp.sqrt(1.0 + xp.square(a)) * xp.sign(xp.array(-1.0)),
    "logaddexp": lambda xp, a, b: bounded(xp, xp.logaddexp(a, b)),
    "multiply": lambda xp, a, b: bounded(xp, a * b),
    "divide": lambda xp, a, b: a / (1.0 + xp.square(b)),
    "subtract": lambda xp, a, b: bounded(xp, a - 0.7 * b),
    "power": lambda xp, a, b: bounded(xp, (0.5 + xp.square(a)) ** xp.tanh(b)),
    "cube": lambda xp, a, b: bounded(xp, a**3 - a),
    "hypot": lambda xp, a, b: xp.hypot(a, 1.0 + xp.square(b)) / 3.0,
    "maximum": lambda xp, a, b: xp.maximum(a, b) - xp.minimum(a, 0.3),
    "relu": lambda xp, a, b: xp.where(a > 0.1, a, 0.1 * a),
    "clip": lambda xp, a, b: xp.clip(a, -1.1, 1.3) + 0.1 * b,
    "matmul": lambda xp, a, b: bounded(xp, a @ b),
    "vector": lambda xp, a, b: bounded(xp, (a @ b[0])[:, None] + b[:, 1] @ a),
    "einsum": lambda xp, a, b: bounded(xp, xp.einsum("ij,kj,ii->ki", a, b, a)),
    "tensordot": lambda xp, a, b: bounded(xp, a * xp.tensordot(a, b, 2)),
    "solve": lambda xp, a, b: xp.linalg.solve(a @ a.T + 4.0 * xp.eye(3), b),
    "inv": lambda xp, a, b: xp.linalg.inv(a @ a.T + 2.0 * xp.eye(3)) * b,
    "cholesky": lambda xp, a, b: bounded(xp, xp.linalg.cholesky(a @ a.T + 2.0 * xp.eye(3))),
    "logdet": lambda xp, a, b: b / (1 + xp.linalg.slogdet(a @ a.T + 2.0 * xp.eye(3))[1]),
    "norm": lambda xp, a, b: a / (1.0 + xp.linalg.norm(1.0 + xp.square(b), axis=0)),
    "softmax": lambda xp, a, b: _softmax(xp, a) * 3.0,
    "normalize": lambda xp, a, b: (a - a.mean(axis=1, keepdims=True)) / xp.sqrt(1 + a.var(axis=0)),
    "sum": lambda xp, a, b: bounded(xp, xp.sum(a, axis=0) - b),
    "prod": lambda xp, a, b: bounded(xp, a - xp.prod(b, axis=-1, keepdims=True)),
    "max": lambda xp, a, b: a - xp.max(b, axis=0),
    "cumsum": lambda xp, a, b: bounded(xp, xp.cumsum(a, axis=0)),
    "cumprod": lambda xp, a, b: bounded(xp, xp.cumprod(a, axis=1)),
    "sort": lambda xp, a, b: xp.sort(a, axis=0),
    "transpose": lambda xp, a, b: a.T + 0.5 * xp.flip(b, 1),
    "roll": lambda xp, a, b: xp.roll(a, 1, axis=0) * 0.9,
    "concatenate": lambda xp, a, b: xp.concatenate([a[1:], b[:1]]),
    "stack": lambda xp, a, b: xp.stack([a[0], b[1], a[0] * b[2] / 3.0], axis=1),
    "pad": lambda xp, a, b: xp.pad(a[:2, 1:], ((0, 1), (1, 0))) + 0.3 * b,
    "index": lambda xp, a, b: a[np.array([2, 0, 0])] + 0.2 * b[:, ::-1],
    "mask": lambda xp, a, b: xp.where(MASK[:, None, 0].all(), a, xp.tril(a) + xp.triu(b, 1)),
    "reshape": lambda xp, a, b: xp.reshape(xp.concatenate([a.ravel()[3:], b[0]]), (3, 3)),
    "diag": lambda xp, a, b: xp.diag(xp.diagonal(a)) + b * xp.trace(a) / 9.0,
    "outer": lambda xp, a, b: bounded(xp, xp.outer(a[0], b[:, 1])),
}


def _softmax(xp, a):
    weights = xp.exp(a - xp.max(a, axis=1, keepdims=True))
    return weights / xp.sum(weights, axis=1, keepdims=True)


class Composition:
    """Ten operations, each on two of the values so far; the last joins what came of them."""

    def __init__(self, rng, length=10):
        names = sorted(OPERATIONS)
        self.steps = [
            (
                names[rng.integers(len(names))],
                int(rng.integers(max(0, n - 2), n)),
                int(rng.integers(n)),
            )
            for n in range(2, 2 + length)
        ]

    def __call__(self, xp, x, y):
        values = [x, y]
        for name, i, j in self.steps:
            values.append(OPERATIONS[name](xp, values[i], values[j]))
        return values[-1] + 0.1 * values[-2]

    def __repr__(self):
        return "; ".join(f"v{n} = {s}(v{i}, v{j})" for n, (s, i, j) in enumerate(self.steps, 2))


@pytest.mark.parametrize("number", range(500))
def test_composition(number, rng, worst):
    f = Composition(rng)
    xs = rng.uniform(-2, 2, (2, 3, 3))
    question = draw(functools.partial(f, np), tuple(xs), rng)
    ours = by_dualnet(functools.partial(f, np), *question)
    compare(worst, str(f), ours, by_jax(functools.partial(f, jnp), *question))
