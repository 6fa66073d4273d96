"""Lazy arrays: the entries of NumPy, by few kernels, and never those of memory that has changed."""

import inspect
import itertools
import sys

import cuda_on_cpu
import numpy as np
import pytest
from cupy_comparisons import moved_back

import dualnet as dn
from dualnet.backends.expressions import FORMULAS
from dualnet.backends.overridable import multiply_onto
from dualnet.random import Key

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -3.5, np.inf, -np.inf, np.nan, 1e-30, 7.0, 0.25])


@pytest.fixture
def lazy(cupy_backend):
    return sys.modules["dualnet.backends.lazy"]


@pytest.fixture
def launches(stand_in, monkeypatch):
    """The names of the kernels that are launched."""
    names = []
    launch = cuda_on_cpu.Program.launch
    monkeypatch.setattr(
        cuda_on_cpu.Program,
        "launch",
        lambda self, name, *rest: (names.append(name), launch(self, name, *rest)),
    )
    return names


def computed(lazy, backend, function, *arrays):
    """What a function of lazy arrays returns, on the host."""
    given = [backend.asarray(a) for a in arrays]
    return moved_back(lazy.force(lazy.run(function, *given)), backend)


def assert_same(got, expected):
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":  # zeros have signs
        np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))


ROUNDED = {np.exp, np.log, np.tanh}
"""Functions whose last bits the compilers' libraries decide."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ("float32", "float64", "int64", "int32", "bool"))
@pytest.mark.parametrize("function", FORMULAS, ids=lambda f: f.__name__)
def test_every_function_has_numpys_entries(function, dtype, lazy, cupy_backend):
    x, y = (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
    if dtype in ("int64", "int32"):
        x, y = (np.trunc(np.nan_to_num(a, posinf=9, neginf=-9)) for a in (x, y))
    x, y = x.astype(dtype), y.astype(dtype)
    arguments = (x, y)[: function.nin]
    if function is np.reciprocal and dtype.startswith("int"):
        x[x == 0] = 1
    try:
        expected = function(*arguments)
    except TypeError:
        return  # NumPy has no such function of bool
    got = computed(lazy, cupy_backend, function, *arguments)
    if function in ROUNDED and expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(expected.dtype).eps)
        assert got.dtype == expected.dtype
    elif function in (np.maximum, np.minimum):
        np.testing.assert_array_equal(got, expected)  # which zero of two is not said by NumPy
    else:
        assert_same(got, expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", (np.int32, np.int64))
def test_integers_overflow_as_in_numpy(dtype, lazy, cupy_backend):
    """Also where a compiler that takes overflow for impossible knows what is larger."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    x, y = (a.ravel() for a in np.meshgrid(*[np.array([least, -1, 1, most], dtype)] * 2))

    def function(x, y):
        functions = (x + 1, x - 1, x + y, x - y, x * y, -x, np.square(x))
        return (*functions, x + 1 > x, x - 1 < x, (x < 0) & (-x < 0))

    got = computed(lazy, cupy_backend, function, x, y)
    for a, b in zip(got, function(x, y), strict=True):
        assert_same(a, b)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("number", (2, 0.5, -1.5, True, np.float32(3), np.float64(3)))
@pytest.mark.parametrize("dtype", ("float32", "float64", "int64"))
def test_numbers_are_as_weak_as_in_numpy(dtype, number, lazy, cupy_backend):
    x = np.arange(1, 9).astype(dtype)
    functions = [lambda x: x * number, lambda x: number - x, lambda x: x / number]
    functions += [lambda x: x > number, lambda x: np.where(x > 3, x, number)]
    for function in functions:
        assert_same(computed(lazy, cupy_backend, function, x), function(x))


SHAPES = [((5,), (5,)), ((3, 5), (5,)), ((3, 1), (4,)), ((2, 3, 8), (3, 1)), ((2, 1, 8), (1, 3, 1))]
SHAPES += [((), (4,)), ((7, 1, 1), (1, 2, 12)), ((0, 3), (3,)), ((16, 8), (16, 8)), ((1,), (1, 1))]


@pytest.mark.parametrize("first, second", SHAPES)
def test_shapes_are_stretched(first, second, lazy, cupy_backend, rng):
    x, y = rng.standard_normal(first), rng.standard_normal(second).astype(np.float32)
    function = lambda x, y: (x * y + x, y - 2.0 * x)  # noqa: E731
    for got, expected in zip(
        computed(lazy, cupy_backend, function, x, y), function(x, y), strict=True
    ):
        assert_same(got, expected)


AXES = {
    "transpose": lambda x: np.transpose(x * 2.0, (2, 0, 1)) + 1.0,
    "method transpose": lambda x: (x * 2.0).transpose(2, 0, 1) * (x + 1.0).transpose((2, 0, 1)),
    "method transpose of all": lambda x: (x * 2.0).transpose() * 2.0,
    "T": lambda x: (x * 2.0).T * 3.0,
    "mT": lambda x: (x * 2.0).mT * 3.0,
    "swapaxes": lambda x: np.swapaxes(x + 1.0, 0, -1) * x.T,
    "moveaxis": lambda x: np.moveaxis(x + 1.0, 0, -1) * 2.0,
    "expand_dims": lambda x: np.expand_dims(x + 1.0, 1) * x,
    "new axes": lambda x: (x + 1.0)[:, None, ..., None] * x[..., None, :, None],
    "reshape": lambda x: np.reshape(x + 1.0, (1, 2, 3, 1, 4)) * 2.0,
    "reshape to other sizes": lambda x: np.reshape(x + 1.0, (6, 4)) * 2.0,
    "reshape, one size left open": lambda x: (x + 1.0).reshape(-1, 4) * 2.0,
    "broadcast_to": lambda x: np.broadcast_to(x[:, :1] + 1.0, (5, 2, 3, 4)) * x,
    "of arrays that are there": lambda x: np.transpose(np.broadcast_to(x, (2, 2, 3, 4))) * 2.0,
    "slices": lambda x: (x + 1.0)[:, ::-1, 1:3] * x[:, :, ::2],
    "one entry": lambda x: (x + 1.0)[1, 2, 3],
    "of a sum": lambda x: np.transpose((x + 1.0).sum(axis=1)) * 2.0,
    "of a sum twice": lambda x: (x * x - x).sum(axis=(0, 2), keepdims=True) * x,
    "two layouts of one expression": lambda x: (x + 1.0)[:, :, :3] * np.swapaxes(x[:, :, :3], 1, 2),
    "square of itself turned": lambda x: (lambda y: y * np.swapaxes(y, 1, 2))(x[:, :, :3] + 1.0),
}


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_axes(name, dtype, lazy, cupy_backend, rng):
    x = rng.integers(-8, 8, (2, 3, 4)).astype(dtype)
    got = computed(lazy, cupy_backend, AXES[name], x)
    np.testing.assert_array_equal(got, AXES[name](x))


def in_place(x):
    y = x * 2.0
    y += x  # nobody has seen y
    z = y * 3.0
    y -= 1.0  # z was made of the old y
    view = y[0]
    y *= x
    x[1] = 5.0
    w = np.transpose(y) + 1.0
    y[0, 0] = -1.0
    turned = np.swapaxes(y, 0, 1)
    turned /= 4.0
    np.add(x, y, out=x)
    return x, y, z, view, w, turned


def test_what_is_changed_in_place_changes_where_numpy_changes_it(lazy, cupy_backend, rng):
    x = rng.integers(-8, 8, (3, 3)).astype(np.float64)
    got = computed(lazy, cupy_backend, in_place, x)
    for own, expected in zip(got, in_place(x.copy()), strict=True):
        np.testing.assert_array_equal(own, expected)


def through_a_write(x, write):
    noted, y = x * 3.0, x * 2.0
    view, later = y.T, y + 1.0
    write(x, y, view)
    return x, y, view, noted, later


WRITES = {
    "an array that is shown": lambda x, y, v: np.add(y, 1.0, out=y),
    "a view": lambda x, y, v: np.add(v, 1.0, out=v),
    "an entry of a view": lambda x, y, v: v.__setitem__(0, 5.0),
    "a view of a view": lambda x, y, v: np.add(v.T[None], 1.0, out=v.T[None]),
    "out of a sum": lambda x, y, v: np.sum(y, axis=0, out=x[0]),
    "out of a sum, by its place": lambda x, y, v: np.sum(y, 0, None, x[0]),
    "copyto": lambda x, y, v: np.copyto(x, 3.0),
    "a product": lambda x, y, v: multiply_onto(y * 1.0, y * 1.0, x),
}


@pytest.mark.parametrize("name", WRITES)
def test_who_sees_a_write(name, lazy, cupy_backend, rng):
    """Views of arrays that are not computed yet do, and what was noted before does not."""
    x = rng.integers(-8, 8, (3, 3)).astype(np.float64)
    got = computed(lazy, cupy_backend, lambda x: through_a_write(x, WRITES[name]), x)
    for own, expected in zip(got, through_a_write(x.copy(), WRITES[name]), strict=True):
        np.testing.assert_array_equal(own, expected)


def row_of_new(w):
    y = w * 2.0
    row = y[0]
    row += 1.0
    return (y * y).sum()


def row_of_given(w):
    row = w[0]
    row *= 3.0
    return (w * w).sum()


@pytest.mark.parametrize("function", (row_of_new, row_of_given))
def test_writes_to_views_have_derivatives(function, lazy, cupy_backend, rng):
    w, v = (rng.integers(-8, 8, s).astype(np.float64) for s in ((2, 3), (4, 2, 3)))
    jvp = lambda w, v: dn.jvp(function, (w,), (v,))  # noqa: E731
    for own, expected in zip(computed(lazy, cupy_backend, jvp, w, v), jvp(w, v), strict=True):
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.transpose(x * 2.0, (0, 5)),
        lambda x: np.moveaxis(x * 2.0, 0, 7),
        lambda x: np.expand_dims(x * 2.0, 9),
        lambda x: np.argmax(x * 2.0, axis=(0, 1)),
        lambda x: x.astype(np.int32).__iadd__(1.5),
        lambda x: (x[0] * 2.0).__iadd__(x),
        lambda x: (lambda y: np.broadcast_to(y, (5, 3)).__iadd__(y))(x[0] * 1.0),
        lambda x: np.broadcast_to(x[0], (5, 3)).__setitem__(0, 1.0),
    ],
)
def test_what_numpy_refuses(function, lazy, cupy_backend):
    x = np.ones((3, 3))
    with pytest.raises((TypeError, ValueError)):
        function(x.copy())
    with pytest.raises((TypeError, ValueError)):
        computed(lazy, cupy_backend, function, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.astype(np.int8) + x.astype(np.float32),
        lambda x: np.where(x > 1, x.astype(np.float16), x),
        lambda x: x.astype(np.int32) < 2**40,
        lambda x: (x * 2.0).transpose(1, 0),
        lambda x: np.swapaxes(x * 2.0, axis1=0, axis2=1),
    ],
)
def test_rare_kinds_of_arguments(function, lazy, cupy_backend):
    x = np.arange(9.0).reshape(3, 3)
    assert_same(computed(lazy, cupy_backend, function, x), function(x))


REDUCED = {
    "sum": lambda x: (x * 2.0).sum(),
    "sum of rows": lambda x: (x * x[..., :1]).sum(axis=-1),
    "sum over leading axes": lambda x: np.sum(x * x[0] - x, axis=(0, 1)),
    "sum in the middle": lambda x: np.sum(x * 2.0, axis=1, keepdims=True) * x,
    "sum over axes that are apart": lambda x: np.sum(x * 2.0, axis=(0, 2)),
    "sum of a turned array": lambda x: np.sum(np.swapaxes(x * 2.0, 0, 2) + x.T, axis=0),
    "sum over no axes": lambda x: np.sum(x * 2.0, axis=()),
    "sum of what is true": lambda x: np.sum(x > 0, axis=0),
    "sum of integers": lambda x: np.sum((x * 4).astype(np.int64) * 2, axis=-1),
    "mean": lambda x: np.mean(x * 2.0, axis=(1, 2), keepdims=True) - x,
    "max": lambda x: np.max(x * -2.0, axis=-1, keepdims=True) + x,
    "min": lambda x: (x * -2.0).min(axis=0),
    "place of the largest": lambda x: np.argmax(x * x, axis=-1),
    "place of the largest of all": lambda x: np.argmax(x * x),
    "sum of a sum": lambda x: np.sum(np.sum(x * 2.0, axis=0) * x[0], axis=1) * 2.0,
    "softmax": lambda x: (lambda p: p / np.sum(p, axis=-1, keepdims=True))(
        np.sqrt(np.square(x - np.max(x, axis=-1, keepdims=True)) + 1.0)
    ),
    "of an array that is there": lambda x: np.sum(x, axis=1) + np.mean(x, axis=1),
    "an array by its name": lambda x: np.sum(a=x * 2.0, axis=0) + np.max(axis=0, a=x),
    "axes kept by position": lambda x: (
        np.sum(x * 2.0, 1, None, None, True) * np.min(x * 2.0, 1, None, True) + x
    ),
    "spread": lambda x: np.mean(np.square(x - np.mean(x, axis=0)), axis=0),
}


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 5, 7), (1, 1, 1), (2, 40, 3), (3, 1, 128)])
@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_reductions(name, dtype, shape, lazy, cupy_backend, rng):
    if "turned" in name:
        shape = (shape[0], shape[1], shape[0])
    x = rng.standard_normal(shape).astype(dtype)
    expected = REDUCED[name](x)
    got = computed(lazy, cupy_backend, REDUCED[name], x)
    assert (got.shape, got.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    # What cancels has the rounding of what it was made of.
    unit = max(10, np.abs(expected).max()) * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=30 * unit)


# --- how many kernels ----------------------------------------------------------------------------


def counted(lazy, backend, launches, function, *arrays):
    given = [backend.asarray(a) for a in arrays]
    launches.clear()
    lazy.force(lazy.run(function, *given))
    return len(launches)


def test_arguments_have_numpys_names_and_places(lazy):
    for function, ours in sys.modules["dualnet.backends.lazy_array"].FUNCTIONS.items():
        if function is np.where:  # its arguments have places alone
            continue
        parameters = inspect.signature(function).parameters.values()
        bind = inspect.signature(ours).bind
        bind(**{p.name: None for p in parameters})
        names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        taken = bind(*names).arguments
        assert names[0] in taken
        assert all(taken[name] == name for name in names if name in taken), (function, taken)


def test_a_chain_is_one_kernel(lazy, stand_in, launches, rng):
    t, x = rng.standard_normal((4, 3, 8)), rng.standard_normal((3, 8))
    chain = lambda t, x: np.greater(x, 0).astype(x.dtype) * (t + x * 0.5) - 1.0  # noqa: E731
    assert counted(lazy, stand_in, launches, chain, t, x) == 1


def test_what_is_held_is_written_by_the_same_kernel(lazy, stand_in, launches, rng):
    def function(x):
        inner = x * 2.0
        return np.sqrt(np.square(inner) + 1.0), inner

    assert counted(lazy, stand_in, launches, function, rng.standard_normal((5, 4))) == 1


def test_what_is_reduced_is_computed_on_the_way(lazy, stand_in, launches, rng):
    """It is stored only if somebody holds it, and by the same kernel then."""

    def passing(t, y):
        return np.mean(t * y, axis=-1, keepdims=True)

    def held(t, y):
        product = t * y
        return np.mean(product, axis=-1, keepdims=True), product

    t, y = rng.standard_normal((4, 3, 8)), rng.standard_normal((3, 8))
    assert counted(lazy, stand_in, launches, passing, t, y) == 1
    mean, product = computed(lazy, stand_in, held, t, y)
    np.testing.assert_array_equal(product, t * y)
    np.testing.assert_allclose(mean, (t * y).mean(axis=-1, keepdims=True), atol=1e-15)
    assert counted(lazy, stand_in, launches, held, t, y) == 1


def test_arrays_of_many_sizes_are_one_kernel(lazy, stand_in, launches, rng):
    """An update of all parameters is one launch, with all that an optimizer keeps."""

    def update(params, gradients):
        new = {}
        for name, p in params.items():
            m = 0.9 * p + 0.1 * gradients[name]
            new[name] = (p - 0.5 * m, m)
        return new

    shapes = [(3, 4), (4,), (1,), (300, 7), (8, 8)]
    params = {str(i): rng.standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    gradients = {
        name: rng.standard_normal(p.shape).astype(np.float32) for name, p in params.items()
    }
    both = [{name: stand_in.asarray(a) for name, a in t.items()} for t in (params, gradients)]
    launches.clear()
    got = moved_back(lazy.force(lazy.run(update, *both)), stand_in)
    # an array whose size or place allows no wide access is served by another kernel
    assert len(launches) <= 2
    for name, (new, m) in update(params, gradients).items():
        assert_same(got[name][0], new)
        assert_same(got[name][1], m)


def test_arrays_of_one_launch_may_be_asked_for_in_any_order(lazy, cupy_backend, rng):
    """What is computed for one parameter last may be computed for the next one first."""

    def in_turn(x, y):
        results = []
        for a in (x, y):
            half = a * 0.5
            results.append((half, a - half * half))
        (m, p), (n, q) = results
        return m, p, q, n

    x, y = rng.standard_normal(8), rng.standard_normal(12)
    got = computed(lazy, cupy_backend, in_turn, x, y)
    for a, b in zip(got, in_turn(x, y), strict=True):
        assert_same(a, b)


def test_more_arrays_than_one_launch_serves(lazy, stand_in, launches, rng):
    arrays = {str(i): rng.standard_normal(i) for i in range(60)}
    given = {name: stand_in.asarray(a) for name, a in arrays.items()}
    got = lazy.force(lazy.run(lambda t: {name: a * 2.0 for name, a in t.items()}, given))
    for name, a in moved_back(got, stand_in).items():
        assert_same(a, arrays[name] * 2.0)
    assert len(launches) <= 6


def test_draws_are_one_kernel(lazy, stand_in, launches):
    def function():
        key = Key(3)
        return [
            getattr(stand_in, kind)(key.fold_in(kind), (5, n), np.float32) * 2.0
            for kind, n in itertools.product(("normal", "signs", "uniform"), (3, 4))
        ]

    got = moved_back(lazy.force(lazy.run(function)), stand_in)
    assert launches.count("draw") == 1
    for a, b in zip(got, moved_back(function(), stand_in), strict=True):
        np.testing.assert_array_equal(a, b)


def test_long_expressions_are_cut(lazy, cupy_backend, rng):
    def function(x):
        for _ in range(9):
            x = x * x - x
        return x

    x = rng.uniform(-1, 1, 40)
    np.testing.assert_array_equal(computed(lazy, cupy_backend, function, x), function(x))


# --- the edges -----------------------------------------------------------------------------------


def test_results_can_be_stored_in_arrays(lazy, stand_in, launches, rng):
    x, y = rng.standard_normal(8), rng.standard_normal(8)
    given, target, other = (stand_in.asarray(a) for a in (x, np.zeros(8), np.zeros(8)))
    launches.clear()
    results = lazy.run(lambda x: [x * 2.0, stand_in.asarray(y)], given)
    lazy.store(results, [target, other])
    np.testing.assert_array_equal(stand_in.to_host(target), x * 2.0)
    np.testing.assert_array_equal(stand_in.to_host(other), y)
    assert launches == ["elementwise"]


@pytest.mark.parametrize("value", (3.0, np.ones(2), None))
def test_only_arrays_are_stored(value, lazy, stand_in):
    with pytest.raises(TypeError, match="expected a CuPy array, got"):
        lazy.store([value], [stand_in.asarray(np.ones(2))])


@pytest.mark.parametrize("wrong", (np.ones(3), np.ones(2, np.float32)))
def test_shapes_and_dtypes_are_not_changed_by_storing(wrong, lazy, stand_in):
    result = lazy.run(lambda x: x * 2, stand_in.asarray(wrong))
    with pytest.raises(TypeError, match=r"expected float64\(2,\), got float"):
        lazy.store([result], [stand_in.asarray(np.ones(2))])


def test_a_function_that_fails_leaves_nothing_behind(lazy, stand_in):
    def function(x):
        stand_in.normal(Key(0), (3,), np.float32)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lazy.run(function, stand_in.asarray(np.ones(2)))
    assert not lazy.is_running() and not lazy.UNDRAWN


def test_what_is_no_attribute_of_an_array_is_none(lazy, stand_in):
    (x,) = lazy.run(lambda x: [x * 2], stand_in.asarray(np.ones(2)))
    with pytest.raises(AttributeError, match="'LazyArray' object has no attribute 'tangent'"):
        x.tangent  # noqa: B018
    assert "not computed yet" in repr(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.linalg.eigvalsh(x @ x.T),
        lambda x: np.cumsum(x * 2.0, axis=0),
        lambda x: (x * 2.0).sum(),
        lambda x: np.argmax(x * -1.0, axis=1),
        lambda x: x[np.asarray([1, 0], like=x)] * 2.0,
        lambda x: np.concatenate([x * 2.0, x]),
        lambda x: np.power(x, 3) + x**2,
        lambda x: x.astype(np.float32) * 2.0,
        lambda x: np.clip(x * 2.0, -1.0, 1.0),
        lambda x: (x * 2.0).astype(bool),
        lambda x: np.arange(3, like=x) * 2,
        lambda x: np.outer(x[0] * 2.0, x[1]),
        lambda x: np.floor(x * 2.0),
    ],
)
def test_functions_that_are_not_noted_are_cupys(function, lazy, cupy_backend, rng):
    x = rng.uniform(0.5, 2.0, (3, 3))
    np.testing.assert_allclose(computed(lazy, cupy_backend, function, x), function(x), rtol=1e-12)
