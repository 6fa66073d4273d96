"""Random programs on lazy arrays: entry for entry what NumPy has, whatever shares memory.

A program makes arrays of arrays that it has, views among them, changes some in place and forgets
others.  It is run on NumPy's arrays and on lazy ones.  All numbers are small multiples of 1/256, so
that sums are exact in any order and entries have to be equal.

Most programs compute their expressions by NumPy, because to compile a kernel takes longer than
hundreds of programs; what is noted, when it is computed and where it is written is the same.  A few
programs take the kernels.  DUALNET_PROGRAMS=n runs n times as many.
"""

import math
import os
import sys

import numpy as np
import pytest
from cupy_comparisons import moved_back
from fake_arrays import done_in_place, ndarray

import dualnet as dn
from dualnet.backends.expressions import FORMULAS, Number
from dualnet.backends.expressions import formula as text_of

TIMES = int(os.environ.get("DUALNET_PROGRAMS", "1"))
PROGRAMS, COMPILED, RECORDED = 200 * TIMES, TIMES, 40 * TIMES
LENGTH = 14

SHAPES = [(4,), (2, 4), (2, 1), (1, 4), (4, 4), (2, 4, 4), (4, 1, 2)]
DTYPES = [np.float64, np.float64, np.float32, np.int64, np.int32, np.bool_]
TWO = [np.add, np.subtract, np.multiply, np.maximum, np.minimum]
COMPARISONS = [np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal]
LOGICAL = [np.logical_and, np.logical_or]
ONE = [np.negative, np.positive, np.absolute, np.square, np.logical_not]
NUMBERS = [2, -1, 0, 0.5, True, np.float32(2), np.float64(-1), np.int64(3)]
REDUCTIONS = [np.sum, np.sum, np.mean, np.max, np.min]


@pytest.fixture
def lazy(stand_in):
    return sys.modules["dualnet.backends.lazy"]


# --- the values of expressions without their kernels ---------------------------------------------

FUNCTIONS = {
    text_of(function, np.dtype(name)): function
    for function in FORMULAS
    for name in ("float32", "float64", "bool", "int32", "int64")
}
FUNCTIONS |= {"{0}": lambda x: +x if x.dtype != bool else x.copy(), "{0} ? {1} : {2}": np.where}


def values_of(node, known):
    """A function that computes the entries of a node; `known` has those that were made."""
    if node in known:
        return known[node]
    if isinstance(node, Number):
        return lambda: np.asarray(node.value)
    if node.array is not None:
        held = node.array._held
        known[node] = lambda: held
    elif node.axes is not None:
        inner, axes, shape = values_of(node.inputs[0], known), node.axes, node.shape
        known[node] = lambda: rearranged(inner(), axes, shape)
    else:
        inputs = [values_of(x, known) for x in node.inputs]
        types, formula, shape, dtype = node.types, node.formula, node.shape, node.dtype

        def compute():
            given = [f().astype(t) for f, t in zip(inputs, types, strict=True)]
            value = FUNCTIONS[formula](*given) if given else float(formula)
            return np.broadcast_to(np.asarray(value).astype(dtype), shape)

        known[node] = compute
    return known[node]


def reduced(kind, x, axes, divisor):
    """Reduce over neighboring axes, which stay."""
    first, count = min(axes, default=x.ndim), math.prod(x.shape[a] for a in axes)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    before = math.prod(x.shape[:first])
    x = x.reshape(before, count, math.prod(shape) // max(before, 1))
    x = x.astype(np.int64) if x.dtype in (bool, np.int32) else x
    value = getattr(np, kind)(x, axis=1)
    return (value / divisor).astype(value.dtype).reshape(shape)


def rearranged(x, axes, shape):
    left_out = tuple(i for i, a in enumerate(axes) if a is None)
    kept = [a for a in axes if a is not None]
    x = np.squeeze(x, left_out).transpose(np.argsort(kept))
    sizes = [1] * len(shape)
    for a, n in zip(sorted(kept), x.shape, strict=True):
        sizes[a] = n
    return np.broadcast_to(x.reshape(sizes), shape)


@pytest.fixture
def without_kernels(lazy, monkeypatch):
    """Compute expressions and reductions by NumPy."""
    fused = sys.modules["dualnet.backends.fused"]
    reductions = sys.modules["dualnet.backends.reductions"]

    def filled(array, compute):
        done_in_place(lambda: np.copyto(array._held, compute()))
        return array

    def launch(jobs, _width):
        for job in jobs:
            known = {}
            for node, array in zip(job.nodes, job.written, strict=True):
                filled(array, values_of(node, known))

    def reduce(node):
        (inner,) = node.inputs
        kind, axes, divisor = node.reduction
        job = fused.Job([inner], {}, writes_held=kind == "sum")
        compute = values_of(inner, {})
        if job.nodes:
            launch([job], 1)
        out = ndarray(np.empty(node.shape, node.dtype))
        filled(out, lambda: reduced(kind, compute(), axes, divisor).reshape(node.shape))
        job.finish()
        node.become(out)

    def reduce_known(kind, x, axes, divisor):
        like = reduced(kind, x._held, axes, divisor)
        return filled(ndarray(like), lambda: reduced(kind, x._held, axes, divisor))

    monkeypatch.setattr(fused, "_launch", launch)
    monkeypatch.setattr(fused, "reduce", reduce)
    monkeypatch.setattr(reductions, "_reduced_run", reduce_known)


# --- programs ------------------------------------------------------------------------------------


class Program:
    """A list of steps on a list of arrays, made while it runs on NumPy's arrays.

    Args:
        rng: says what the program does.
        arrays: the arrays to begin with; they may share memory.
        pure: whether it leaves these as they are.
    """

    def __init__(self, rng, arrays, pure=False):
        self.rng, self.steps, self.words = rng, [], []
        self.env = list(arrays)
        self.begin = list(arrays) if pure else []
        for _ in range(LENGTH):
            self.add()

    def add(self):
        rng = self.rng
        kinds = [self.function, self.function, self.axes, self.axes, self.in_place, self.assign]
        kinds += [self.reduction, self.other, self.forget, self.out, self.mutating]
        for _ in range(20):
            made = kinds[rng.integers(len(kinds))]()
            if made is not None and self.do(*made):
                return

    def do(self, words, step):
        """Run a step here and note it, if its numbers stay exact."""
        before = [x.copy() for x in self.env]
        length = len(self.env)
        try:
            with np.errstate(all="ignore"):
                step(self.env)
        except (TypeError, ValueError, IndexError):
            del self.env[length:]
            if any(np.any(a != b) for a, b in zip(before, self.env, strict=True)):
                raise
            self.steps.append((step, True))
            self.words.append(words + "  # an error")
            return True
        if not all(map(is_exact, self.env)):
            for x, old in zip(self.env, before, strict=False):
                if x.flags.writeable:
                    x[...] = old
            del self.env[length:]
            return False
        self.steps.append((step, False))
        self.words.append(words)
        return True

    def run(self, *arrays):
        """Run the program on other arrays; return all that it still has in the end."""
        env = list(arrays)
        for words, (step, fails) in zip(self.words, self.steps, strict=True):
            if fails:
                length = len(env)
                with pytest.raises((TypeError, ValueError, IndexError)):
                    step(env)
                    pytest.fail(f"no error: {words}")
                del env[length:]
            else:
                step(env)
        return env

    def __str__(self):
        return "\n".join(self.words)

    # --- kinds of steps; each returns words and a function of the list of arrays ---

    def one(self):
        return int(self.rng.integers(len(self.env)))

    def choice(self, options):
        return options[self.rng.integers(len(options))]

    def writable(self):
        """The number of an array that may be changed in place."""
        i = self.one()
        x = self.env[i]
        kept = any(np.shares_memory(x, y) for y in self.begin)
        return None if not x.flags.writeable or kept else i

    def operand(self, beside):
        """Words and a function for an array, or a number, that can be added to array `beside`."""
        if self.rng.random() < 0.25:
            number = self.choice(NUMBERS)
            return repr(number), lambda env: number
        for _ in range(6):
            j = self.one()
            try:
                shape = np.broadcast_shapes(self.env[j].shape, self.env[beside].shape)
            except ValueError:
                if self.rng.random() < 0.98:
                    continue
                shape = ()
            if math.prod(shape) <= 128:
                return f"a[{j}]", lambda env, j=j: env[j]
        return "2.0", lambda env: 2.0

    def function(self):
        i = self.one()
        kind = self.rng.random()
        if kind < 0.2:
            f = self.choice(ONE)
            return f"a += [{f.__name__}(a[{i}])]", lambda env: env.append(arr(f(env[i])))
        words, other = self.operand(i)
        if kind < 0.35:
            third, number = self.choice([(f"a[{i}]", None), ("2", 2), ("0.5", 0.5)])
            take = (lambda env: env[i]) if number is None else (lambda env: number)
            return (
                f"a += [where(a[{i}] > 0, {words}, {third})]",
                lambda env: env.append(arr(np.where(env[i] > 0, other(env), take(env)))),
            )
        f = self.choice(TWO * 3 + COMPARISONS + LOGICAL)
        if self.rng.random() < 0.5:
            return f"a += [{f.__name__}(a[{i}], {words})]", lambda env: env.append(
                arr(f(env[i], other(env)))
            )
        return f"a += [{f.__name__}({words}, a[{i}])]", lambda env: env.append(
            arr(f(other(env), env[i]))
        )

    def view_of(self, i):
        """Words and a function that gives a view of the array i, or a copy of it."""
        x, rng = self.env[i], self.rng
        n = x.ndim
        options = [
            ("[:]", lambda x: x[:] if x.ndim else x[...]),
            (".T", lambda x: x.T),
            ("[None]", lambda x: x[None]),
            ("[..., None]", lambda x: x[..., None]),
            ("[...]", lambda x: x[...]),
        ]
        if n:
            a, b = (int(k) for k in rng.integers(-n, n, 2))
            order = tuple(int(k) for k in rng.permutation(n))
            options += [
                (f".swapaxes({a}, {b})", lambda x: np.swapaxes(x, a, b)),
                (f".moveaxis({a}, {b})", lambda x: np.moveaxis(x, a, b)),
                (f".transpose{order}", lambda x: x.transpose(*order)),
                (f".expand_dims({a})", lambda x: np.expand_dims(x, a)),
                ("[::-1]", lambda x: x[::-1]),
                ("[1:]", lambda x: x[1:]),
                ("[..., ::2]", lambda x: x[..., ::2]),
                (".broadcast_to", lambda x: np.broadcast_to(x, (2, *x.shape))),
            ]
            if len(x):
                options += [("[0, ...]", lambda x: x[0, ...])]
            if x.flags.c_contiguous:
                options += [
                    (".reshape(-1)", lambda x: x.reshape(-1)),
                    (".reshape(1, ...)", lambda x: np.reshape(x, (1, *x.shape, 1))),
                    (".ravel()", lambda x: np.ravel(x)),
                ]
        return self.choice(options)

    def axes(self):
        i = self.one()
        if self.env[i].ndim > 4 or self.env[i].size > 64:
            return None
        words, view = self.view_of(i)
        return f"a += [a[{i}]{words}]", lambda env: env.append(view(env[i]))

    def in_place(self):
        i = self.writable()
        if i is None:
            return None
        words, other = self.operand(i)
        f = self.choice([np.add, np.subtract, np.multiply, np.maximum])
        if self.rng.random() < 0.4 and self.env[i].ndim:
            seen, view = self.view_of(i)
            if not np.shares_memory(view(self.env[i]), self.env[i]) or "broadcast" in seen:
                return None

            def step(env):
                shown = view(env[i])
                f(shown, other(env), out=shown)

            return f"{f.__name__} of a[{i}]{seen} and {words} in place", step

        def change(env):
            f(env[i], other(env), out=(env[i],))

        return f"{f.__name__}(a[{i}], {words}, out=a[{i}])", change

    def out(self):
        i = self.writable()
        if i is None:
            return None
        j, f = self.one(), self.choice(TWO)
        words, other = self.operand(j)
        return f"{f.__name__}(a[{j}], {words}, out=a[{i}])", lambda env: (
            f(env[j], other(env), out=env[i]),
            None,
        )[1]

    def assign(self):
        i = self.writable()
        if i is None or not self.env[i].ndim:
            return None
        words, other = self.operand(i)
        shown, key = self.choice(
            [("[...]", ...), ("[0]", 0), ("[1:]", slice(1, None)), ("[..., 0]", (..., 0))]
        )
        if self.rng.random() < 0.5:
            return f"a[{i}]{shown} = {words}", lambda env: env[i].__setitem__(key, other(env))
        return f"a[{i}].T{shown} = {words}", lambda env: env[i].T.__setitem__(key, other(env))

    def reduction(self):
        i = self.one()
        x = self.env[i]
        if not x.ndim:
            return None
        if self.rng.random() < 0.15 and not x.dtype == bool:
            axis = self.choice([None, 0, -1])
            return f"a += [argmax(a[{i}], {axis})]", lambda env: env.append(
                arr(np.argmax(env[i], axis=axis))
            )
        f = self.choice(REDUCTIONS)
        if f is np.mean and not x.size:  # NumPy warns of it
            return None
        number = int(self.rng.integers(0, x.ndim + 1))
        axis = tuple(int(k) for k in self.rng.permutation(x.ndim)[:number])
        keepdims = bool(self.rng.integers(2))
        return f"a += [{f.__name__}(a[{i}], {axis}, keepdims={keepdims})]", lambda env: env.append(
            arr(f(env[i], axis=axis, keepdims=keepdims))
        )

    def other(self):
        i = self.one()
        dtype = self.choice(DTYPES)
        copy = bool(self.rng.integers(2))
        name = np.dtype(dtype).name
        options = [
            (f"astype({name}, copy={copy})", lambda x: x.astype(dtype, copy=copy)),
            ("copy", lambda x: x.copy()),
            ("np.copy", lambda x: np.copy(x)),
            (f"zeros_like({name})", lambda x: np.zeros_like(x, dtype=dtype)),
            ("ones_like", lambda x: np.ones_like(x)),
            ("cumsum", lambda x: np.cumsum(x, axis=0) if x.ndim else x),
            ("the same", lambda x: x),
            ("halves", lambda x: x / 2),
            ("product", lambda x: np.matmul(x, np.swapaxes(x, -1, -2))),
        ]
        if self.env[i].ndim < 2 or self.env[i].dtype.kind != "f":  # CuPy does not record others
            options = options[:-1]
        words, f = self.choice(options)
        return f"a += [{words} of a[{i}]]", lambda env: env.append(f(env[i]))

    def mutating(self):
        i = self.writable()
        if i is None or not self.env[i].ndim or self.rng.random() < 0.5:
            return None
        j = self.one()
        if self.rng.random() < 0.5:
            return f"copyto(a[{i}], a[{j}])", lambda env: np.copyto(env[i], env[j])
        return f"sum(a[{j}], axis=0, out=a[{i}])", lambda env: (
            np.sum(env[j], axis=0, out=env[i]),
            None,
        )[1]

    def forget(self):
        i = self.one()
        if len(self.env) < 3:
            return None
        return f"del a[{i}]", lambda env: env.__delitem__(i)


def arr(x):
    """NumPy's numbers as arrays, which CuPy has in their place."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def is_exact(x):
    """Whether the entries are small multiples of 1/256."""
    if x.dtype == bool:
        return True
    x = x.astype(np.float64) * 256
    return bool(np.all(np.abs(x) < 2**16) and np.all(x == np.trunc(x)))


def beginning(rng):
    """Arrays to begin with; one is a view of another."""
    arrays = []
    for _ in range(3):
        shape, dtype = SHAPES[rng.integers(len(SHAPES))], DTYPES[rng.integers(len(DTYPES))]
        arrays.append(rng.integers(-3, 4, shape).astype(dtype))
    return arrays


def same(got, expected, program):
    assert len(got) == len(expected)
    for number, (own, numpys) in enumerate(zip(got, expected, strict=True)):
        where = f"a[{number}] of\n{program}"
        assert (own.shape, own.dtype) == (numpys.shape, numpys.dtype), where
        np.testing.assert_array_equal(own, numpys, err_msg=where)


def check(count, rng, lazy, backend):
    for _ in range(count):
        arrays = beginning(rng)
        given = [backend.asarray(a.copy()) for a in arrays]
        begin = [a.copy() for a in arrays]
        program = Program(rng, arrays)
        try:
            got = moved_back(lazy.force(lazy.run(program.run, *given)), backend)
        except Exception as error:
            dtypes = [(a.dtype.name, a.shape) for a in begin]
            raise AssertionError(f"{dtypes}\n{program}") from error
        same(got, program.env, program)


def test_programs(lazy, stand_in, without_kernels, rng):
    check(PROGRAMS, rng, lazy, stand_in)


def test_programs_by_kernels(lazy, stand_in, rng):
    check(COMPILED, rng, lazy, stand_in)


def test_recorded_programs(lazy, stand_in, without_kernels, rng, capsys):
    """A repetition gives what NumPy gives, for new arguments, and leaves earlier results alone."""
    for _ in range(RECORDED):
        arrays = beginning(rng)
        program = Program(rng, [a.copy() for a in arrays], pure=True)
        if any(fails for _, fails in program.steps):
            continue
        recorded, ran, results = dn.recorded(program.run), [], []
        for number in range(5):
            fresh = [np.roll(a, number) for a in arrays]
            ran.append(program.run(*[a.copy() for a in fresh]))
            results.append(recorded(*[stand_in.asarray(a) for a in fresh]))
        for got, expected in zip(results, ran, strict=True):
            same(moved_back(got, stand_in), expected, program)
    assert "cannot be recorded" not in capsys.readouterr().err
