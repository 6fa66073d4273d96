"""What NumPy refuses of an array it refuses of a dual, and where NumPy works duals do.

Every row is a program in a line.  It is run on arrays, and then on duals of its arguments.
"""

import numpy as np
import pytest

import dualnet as dn
import dualnet.numpy as dnp
from dualnet import tree
from dualnet.errors import TangentError

ARGUMENTS = {
    "number": np.array(2.0),
    "vector": np.array([1.0, 2.5, 3.0]),
    "matrix": np.array([[0.5, 1.5, 2.5], [3.5, 4.0, 5.5]]),
    "square": np.array([[2.0, 1.0], [0.5, 3.0]]),
    "block": np.linspace(0.25, 4.0, 24).reshape(2, 3, 4),
    "empty": np.zeros((0, 3)),
    "nothing": np.zeros(0),
    "no_matrix": np.zeros((0, 0)),
}

OF_LATE = {"np.clip(vector, 0, 2.8, min=0.5)", "vector.clip(a_min=2.8)", "np.trim_zeros(number)"}
"""Programs to which NumPy before version 2.2 has another answer."""


def taken_apart(program):
    """Make a function of the arguments that a program names, and those."""
    code = compile(program, program, "eval")
    names = [name for name in code.co_names if name in ARGUMENTS]

    def f(*values):
        out = eval(code, {"np": np, "dn": dn}, dict(zip(names, values, strict=True)))
        return list(out) if isinstance(out, tuple) else out

    return f, tuple(ARGUMENTS[name] for name in names)


def compare(program):
    """Run a program on arrays and on duals, which must give the same or fail alike."""
    if program in OF_LATE and np.lib.NumpyVersion(np.__version__) < "2.2.0":
        pytest.skip("another answer before NumPy 2.2")
    f, values = taken_apart(program)
    tangents = tuple(np.ones((3, *value.shape)) for value in values)
    try:
        right = f(*values)
    except AttributeError as missing:
        pytest.skip(f"this NumPy: {missing}")
    except Exception as refusal:
        with pytest.raises(type(refusal)):
            dn.jvp(f, values, tangents)
        return
    out, _ = dn.jvp(f, values, tangents)
    for got, wanted in zip(tree.leaves(out), tree.leaves(right), strict=True):
        assert np.shape(got) == np.shape(wanted)
        assert np.result_type(got) == np.result_type(wanted)
        np.testing.assert_allclose(got, wanted, rtol=1e-15)
    moves = all(np.result_type(wanted).kind == "f" for wanted in tree.leaves(right))
    if moves and any(value.size for value in values):
        dn.check_jvp(f, values)
        dn.check_vjp(f, values)


# --- axes ----------------------------------------------------------------------------------------

AXES = """
np.diff(matrix, axis=2)
np.diff(matrix, axis=-3)
np.diff(number)
np.gradient(matrix, axis=5)
np.gradient(matrix, axis=(0, 0))
np.gradient(matrix, axis=[0, 1])
np.trapezoid(matrix, axis=2)
np.trapezoid(number)
np.trapezoid(vector, matrix)
np.trapezoid(matrix, [1.0, 3.0], axis=-2)
np.apply_along_axis(np.sum, 2, matrix)
np.apply_along_axis(np.sum, -2, matrix)
np.apply_along_axis(np.sum, 0, number)
np.apply_along_axis(np.sum, 0, empty)
np.apply_along_axis(np.sum, 1, empty)
np.apply_over_axes(np.sum, matrix, 2)
np.apply_over_axes(np.sum, matrix, [0, -1])
np.trim_zeros(matrix, axis=2)
np.trim_zeros(matrix, axis=-1)
np.hypot.reduce(matrix, axis=2)
np.hypot.reduce(matrix, axis=-1, keepdims=True)
np.hypot.reduce(matrix, axis=None, keepdims=True)
np.hypot.reduce(matrix, axis=())
np.hypot.reduce(matrix, axis=(0, 0))
np.hypot.reduce(empty)
np.logaddexp.reduce(empty, keepdims=True)
np.subtract.reduce(empty)
np.subtract.reduce(matrix, axis=-3)
np.subtract.reduce(matrix, axis=None)
np.subtract.reduce(vector, axis=None)
np.divide.reduce(matrix, axis=(0, 1))
np.power.reduce(matrix, axis=None)
np.arctan2.reduce(matrix, axis=None)
np.hypot.reduce(block, axis=(0, 2))
np.subtract.accumulate(matrix, axis=5)
np.subtract.accumulate(matrix, axis=-1)
np.subtract.accumulate(empty)
np.add.accumulate(matrix, None)
np.add.accumulate(vector, None)
np.multiply.accumulate(matrix, None)
np.multiply.accumulate(number, None)
np.add.reduceat(matrix, [0], axis=2)
np.add.reduceat(matrix, [1, 0], axis=-2)
np.median(matrix, axis=[0, 1])
np.nanmedian(matrix, axis=[0, 1])
np.quantile(matrix, 0.3, axis=[0, 1])
np.average(matrix, axis=[0, 1])
np.linalg.norm(matrix, axis=[0, 1])
np.linalg.norm(vector, np.inf, axis=1)
np.linalg.norm(number, np.inf)
np.linalg.norm(matrix, 1, axis=())
np.cumprod(matrix, axis=(1,))
np.nancumprod(vector, axis=[0])
np.cumulative_sum(vector, axis=())
np.cross(block[0, :, :3], block[1, :, :3], axis=[0])
np.transpose(vector, axes=-1)
np.array_split(matrix, 2, axis=2)
np.array_split(matrix, 2, axis=-1)
np.vsplit(vector, 2)
np.hsplit(number, 2)
np.dsplit(matrix, 2)
"""


@pytest.mark.parametrize("program", AXES.split("\n")[1:-1])
def test_axes(program):
    compare(program)


@pytest.mark.parametrize("axis", [0, -1, 1, None])
@pytest.mark.parametrize(
    "name",
    [
        *("sum", "mean", "prod", "max", "min", "ptp", "var", "std", "median", "average"),
        *("nansum", "nanmean", "nanprod", "nanmax", "nanvar", "nanstd", "nanmedian"),
        *("cumsum", "cumprod", "nancumsum", "nancumprod", "cumulative_sum", "cumulative_prod"),
        *("hypot.reduce", "add.reduce", "maximum.reduce", "subtract.reduce", "add.accumulate"),
    ],
)
def test_an_axis_of_an_array_without_axes(name, axis):
    compare(f"np.{name}(number, axis={axis})")


@pytest.mark.parametrize("how", ["where=True", "where=False", "keepdims=True", "initial=2.0"])
def test_keywords_beside_an_axis_of_an_array_without_axes(how):
    compare(f"np.sum(number, axis=0, {how})")


# --- arguments that do not go together -----------------------------------------------------------

ARGUMENTS_ALONE = """
np.add.reduceat(vector, [0, 7])
np.add.reduceat(vector, [-1, 0])
np.multiply.reduceat(vector, [0, 7])
np.subtract.reduceat(vector, [0, 7])
np.subtract.reduceat(vector, [2, 0, 1])
np.subtract.reduceat(matrix, [], axis=1)
np.add.reduceat(vector, [])
np.add.reduceat(vector, [[0, 1]])
np.add.reduceat(vector, 0)
np.add.reduceat(number, [0])
np.clip(vector, 0, 2.8, min=0.5)
np.clip(vector, 0)
np.clip(vector, a_min=0)
np.clip(vector, None, 2.8)
np.clip(vector)
vector.clip(2.8)
vector.clip(max=2.8)
vector.clip(a_min=2.8)
np.var(vector, ddof=1, correction=0)
np.std(vector, ddof=1, correction=0)
np.var(vector, ddof=1, correction=0, where=True)
np.nanvar(vector, ddof=1, correction=0)
np.nanstd(vector, ddof=1, correction=0)
np.std(vector, ddof=0, correction=1)
np.var(vector, correction=None)
vector.astype("f4", casting="safe")
vector.astype("f8", casting="safe", copy=False)
vector.astype("f4", foo=1)
np.vecmat(matrix, vector)
np.vecmat(vector, vector)
np.matvec(vector, vector)
np.matvec(matrix, vector)
np.linalg.outer(square, square)
np.linalg.outer(vector, vector)
np.pad(vector, 1, "edge", constant_values=3)
np.pad(vector, 1, "constant", stat_length=2)
np.pad(vector, 1, "mean", end_values=2)
np.pad(vector, 1, "edge", foo=2)
np.pad(vector, 1, "foo")
np.pad(vector, 1, "reflect", reflect_type="odd")
np.bincount([0, 1, 2], vector, minlength=-1)
np.bincount([[0, 1, 2]], vector)
np.bincount([0, -1, 2], vector)
np.bincount([0, 1], vector)
np.bincount(np.array([0, 1, 1], np.uint64), vector)
np.linalg.cond(no_matrix)
np.linalg.cond(no_matrix, "fro")
np.interp(vector, [0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], period=5.0)
np.interp(vector, square, square, period=5.0)
np.interp(vector, [0.0, 1.2, 2.0], [1.0, 2.0, 3.0], period=5.0)
np.interp(vector, [0.0, 1.2, 2.0], [1.0, 2.0, 3.0], left=[1.0, 2.0, 3.0])
np.linspace(vector, 2.0, 2, retstep=True)
np.linspace(vector, 2.0, -1)
np.linalg.det(matrix)
np.hypot.reduce(vector, dtype="i4")
np.subtract.accumulate(vector, dtype=bool)
np.linalg.vecdot(matrix, matrix, axis=(1,))
np.floor_divide.reduceat(vector, [0], dtype=bool)
np.maximum.reduce(matrix, dtype="f8")
np.logical_and.reduce(vector[:1])
np.logical_or.accumulate(vector)
np.logical_or.reduceat(vector, [])
np.equal.reduce(vector)
np.cumsum(vector, dtype="i4")
np.trace(square, dtype="i2")
np.linalg.trace(square, dtype=bool)
np.add.accumulate(vector, dtype=bool)
np.add.reduceat(vector, [0, 1], dtype=bool)
np.sum(vector, where=None)
np.sum(vector, initial=None)
np.sum(vector, where=[True, False, True], initial=None)
np.sum(nothing, initial=None)
np.max(vector, where=None, initial=0.0)
np.diff(vector, append=[4.0, 6.0])
np.correlate(vector, 2.0)
np.correlate(number, number)
np.convolve(vector, 2.0)
np.split(matrix, 1.5)
np.split(matrix, 2.0)
np.linalg.cross(square, square)
np.linalg.cross(matrix, vector)
np.linalg.matrix_power(matrix, 1)
np.linalg.matrix_power(vector, 2)
np.linalg.tensorinv(vector, ind=0)
np.matvec(matrix, number)
np.astype(vector, "f8", device="gpu")
np.choose(vector, [1, 2])
vector.choose([1])
np.select([], [], vector)
"""


@pytest.mark.parametrize("program", ARGUMENTS_ALONE.split("\n")[1:-1])
def test_arguments(program):
    compare(program)


@pytest.mark.parametrize("method", ["reduce", "accumulate"])
@pytest.mark.parametrize("ufunc", [np.float_power, np.subtract])
def test_the_methods_of_a_ufunc_have_its_dtype(ufunc, method):
    x = np.ones(1, np.float32)
    out, tangent = dn.jvp(getattr(ufunc, method), (x,), (x,))
    assert out.dtype == tangent.dtype == getattr(ufunc, method)(x).dtype


@pytest.mark.parametrize(("num", "endpoint"), [(1, True), (0, True), (0, False)])
def test_there_is_no_step_of_a_single_point(num, endpoint):
    x = ARGUMENTS["vector"]
    (_, step), _ = dn.jvp(lambda x: np.linspace(x, 2.0, num, endpoint, retstep=True), (x,), (x,))
    assert np.shape(step) == () and np.isnan(step)


# --- numbers, lists and arrays without entries ---------------------------------------------------

SERVED = """
np.kron(vector, 2.0)
np.kron(2.0, matrix)
np.kron(number, 2.0)
np.insert([1.0, 2.0], 1, vector[0])
np.select([[True, False, True]], [vector])
np.select([True, [True, False, True]], [vector, 1.0])
np.piecewise(vector, [vector > 2], [lambda t: t * t, vector[0]])
np.piecewise(vector, [vector > 2], [vector[0], number])
np.tensordot(vector, 2, axes=0)
np.linalg.multi_dot([number, vector])
np.cumulative_prod(nothing, include_initial=True)
np.nanquantile(empty, [0.2, 0.3])
np.pad(number, 1)
np.pad(number, "a")
np.trim_zeros(number)
np.vander(vector, 0)
np.vander(vector, -1)
np.resize(vector[:0], 3)
np.resize(vector, (2, 4))
np.linalg.norm(empty, 1)
np.linalg.norm(empty, 2)
np.linalg.norm(empty, np.inf)
np.linalg.norm(empty, -np.inf)
np.linalg.norm(nothing, np.inf)
np.linalg.matrix_norm(empty, ord=1)
np.linalg.matrix_norm(empty, ord=2)
np.linalg.matrix_norm(empty, ord=np.inf)
"""


@pytest.mark.parametrize("program", SERVED.split("\n")[1:-1])
def test_numbers_lists_and_arrays_without_entries(program):
    compare(program)


@pytest.mark.parametrize("end", ["prepend", "append"])
def test_none_is_no_end_of_a_difference(end):
    x = ARGUMENTS["vector"]
    with pytest.raises(TangentError, match="or None"):
        dn.jvp(lambda x: np.diff(x, **{end: None}), (x,), (x,))


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: dnp.insert([1.0, 2.0], 1, x[0]), [1.0, 1.0, 2.0]),
        (lambda x: dnp.piecewise(x, [x > 2], [lambda t: t * t, x[0]]), [1.0, 6.25, 9.0]),
        (lambda x: dnp.piecewise(x, condlist=[x > 2], funclist=[x[0], x[1]]), [2.5, 1.0, 1.0]),
    ],
)
def test_duals_in_lists_of_the_numpy_module(f, expected):
    x = ARGUMENTS["vector"]
    np.testing.assert_array_equal(dn.jvp(f, (x,), (x,))[0], expected)
    dn.check_jvp(f, (x,))


def test_nothing_is_written_where_there_is_nothing_to_write():
    def f(x):
        y = 2.0 * x
        np.put(y, [0], [])
        return y

    dn.check_jvp(f, (ARGUMENTS["vector"],))


def test_a_result_is_no_view_of_its_argument():
    def f(x):
        y = np.subtract.reduce(x[None])
        y += 1.0
        return x

    x = ARGUMENTS["vector"]
    np.testing.assert_array_equal(dn.jvp(f, (x,), (x,))[0], x)


def test_numpy_says_what_is_wrong_where_a_composition_fails_otherwise():
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        dn.jvp(np.linalg.det, (ARGUMENTS["matrix"],), (ARGUMENTS["matrix"],))


def test_a_function_that_fails_inside_a_composition_keeps_its_error():
    def f(x):
        return np.apply_along_axis(lambda lane: {}[lane.size], 0, x)

    x = ARGUMENTS["matrix"]
    with pytest.raises(KeyError):
        dn.jvp(f, (x,), (x,))
