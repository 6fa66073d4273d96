"""The stand-in for CuPy is as strict as CuPy, and counts what it should."""

import contextlib
import ctypes
import functools
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import cuda_on_cpu
import fake_arrays
import fake_cublas
import fake_cuda
import fake_cupy
import numpy as np
import pytest
from fake_arrays import LACKING, LACKING_ARGUMENTS, ndarray
from peers import peer
from test_cupy_products import LAYOUTS

from dualnet.core.dual import RULES


@pytest.fixture
def x():
    return ndarray(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) * x,
        lambda x: x @ np.ones(3),
        lambda x: np.add(x, 1, out=np.ones((2, 3))),
        lambda x: np.where(np.ones(3, bool), x, 0),
        lambda x: np.concatenate([x, np.ones((1, 3))]),
        lambda x: np.linalg.trace(x),
        lambda x: np.asarray(x),
        lambda x: np.ones((2, 3)).__setitem__(..., x),
        lambda x: np.add.reduce(x, initial=1.0),
        lambda x: np.add.reduceat(x, [0, 1]),
        lambda x: np.add.at(x, [0], 1.0),
        lambda x: np.sum(x, initial=1.0),
        lambda x: np.max(x, initial=1.0),
        lambda x: np.partition(x, 1, -1, "introselect"),
        lambda x: np.pad(x, {0: 1}),
        lambda x: np.pad(x, 1, constant_values=x[0, 0]),
        lambda x: np.select([x > 1], [x], x[0, 0]),
        lambda x: np.bincount(np.array([0, 1]), x[0, :2]),
        lambda x: np.clip(x, min=0),
        lambda x: np.reshape(x, shape=(3, 2)),
        lambda x: np.eye(3, like=x),
        lambda x: np.ones(3, like=x),
        lambda x: np.sum(x, where=x > 0),
        lambda x: np.stack([x[0, 0], 1.0]),
        lambda x: np.concatenate([x[0], [1.0]]),
        lambda x: x.dot(np.ones(3)),
    ],
)
def test_it_refuses_what_cupy_refuses(use, x):
    with fake_cuda.counted() as happened, pytest.raises(TypeError):
        use(x)
    assert not happened


@pytest.mark.parametrize(
    "use, error, message",
    [
        (lambda x: np.maximum.reduce(x), NotImplementedError, r"cupy_maximum\.reduce"),
        (lambda x: np.hypot.accumulate(x), NotImplementedError, r"cupy_hypot\.accumulate"),
        (lambda x: np.piecewise(x, [x > 1], [np.sin]), NotImplementedError, "Callable functions"),
        (lambda x: np.pad(x, 1, "median"), ValueError, "mode 'median' is not supported"),
        (lambda x: np.quantile(x, 0.5, method="hazen"), ValueError, "'hazen' method"),
        (lambda x: np.quantile(x, x[:1] / 9), ValueError, "Expected q to have a dimension of 1"),
        (lambda x: np.percentile(x, x[:1]), ValueError, "Expected q to have a dimension of 1"),
        (lambda x: np.choose(x > 1, [x, x[0]]), AttributeError, "no attribute 'shape'"),
        (lambda x: x.__imatmul__(x), AttributeError, "__imatmul__"),
        (lambda x: x[:, 1:].sort(), AttributeError, "sort"),
    ],
)
def test_it_refuses_so_too(use, error, message, x):
    with fake_cuda.counted() as happened, pytest.raises(error, match=message):
        use(x)
    assert not happened


def test_it_serves_what_cupy_serves(x):
    for here, there in (
        (np.add.reduce(x, axis=1, keepdims=True), [[3.0], [12.0]]),
        (np.multiply.accumulate(x, axis=1), [[0.0, 0.0, 0.0], [3.0, 12.0, 60.0]]),
        (np.subtract.outer(x[0], x[1]), np.subtract.outer(x[0].get(), x[1].get())),
    ):
        np.testing.assert_array_equal(here.get(), there)


def test_any_value_may_stay_where_a_key_repeats(x):
    there = ndarray(np.array([2, 0, 2]))
    for key in (there, [2, 0, 2], (there,)):
        y = ndarray(np.zeros(3))
        y[key] = x[0] + 1
        np.testing.assert_array_equal(y.get(), [2, 0, 1])
    y = ndarray(np.zeros((2, 3)))
    y[[0, 1, 0], [2, 2, 2]] = x[0] + 1
    np.testing.assert_array_equal(y.get(), [[0, 0, 1], [0, 0, 2]])


def test_it_refuses_a_host_array_as_value(x):
    with pytest.raises(ValueError, match=r"numpy\.ndarray cannot be used for fill"):
        x[0] = np.ones(3)


@pytest.mark.parametrize(
    "use, expected",
    [
        (lambda x: (x + 1, np.float32(2) * x, -x, x > 0, x[0], x[:, None], x.T, x.sum()), {}),
        (lambda x: (np.sum(x), np.stack([x, x]), np.split(x, 3, 1), x.shape, len(x)), {}),
        (lambda x: (np.arange(3, like=x), np.zeros_like(x), [row for row in x]), {}),
        (lambda x: float(x[0, 0]), {"to_host": 1}),
        (lambda x: (bool(x[0, 0]), x.tolist(), x[0, 0].item()), {"to_host": 3}),
        (lambda x: np.asarray(np.ones(3), like=x), {"to_device": 1}),
        (lambda x: np.asarray([0.0, 1.0], like=x), {"to_device": 1}),
        (lambda x: (np.asarray(x, np.float32, like=x), np.array([x[0], x[1]], like=x)), {}),
        (lambda x: np.take(x, np.array([0, 1])), {"to_device": 1}),
        (lambda x: x[np.array([0, 1])], {"to_device": 1}),
        (lambda x: x[[0, 1]], {"to_device": 1}),
        (lambda x: x[x > 2], {"waits": 1}),
        (lambda x: x[True], {"waits": 1}),
        (lambda x: np.bincount(np.arange(3, like=x)), {"waits": 1}),
        (lambda x: np.nonzero(x), {"waits": 1}),
    ],
)
def test_it_counts(use, expected, x):
    with fake_cuda.counted() as happened:
        use(x)
    assert happened == expected


def test_numbers_are_arrays_without_axes(x):
    for number in (x[0, 0], x.sum(), np.max(x), np.add(x[0, 0], 1)):
        assert isinstance(number, ndarray) and number.shape == ()


def test_kernels_get_what_they_take():
    code = 'extern "C" __global__ void f(const REAL* x, int n) {}'
    if cuda_on_cpu.COMPILER is None:
        pytest.skip(cuda_on_cpu.NO_COMPILER)
    run = fake_cupy.RawModule(code=code, options=("-DREAL=float",)).get_function("f")
    good = ndarray(np.zeros((2, 3), np.float32))
    run((1,), (1,), (good, np.int32(1)))
    for wrong in (
        (good, np.int64(1)),
        (good, 1),
        (good,),
        (ndarray(np.zeros(3)), np.int32(1)),
        (good.T, np.int32(1)),
    ):
        with pytest.raises(AssertionError):
            run((1,), (1,), wrong)


def test_it_lacks_what_cupy_lacks():
    cupy = peer("cupy", "cuda12")
    special = peer("cupyx.scipy.special", "cuda12")

    def has(fn):
        if isinstance(fn, np.ufunc):
            return hasattr(cupy, fn.__name__) or hasattr(special, fn.__name__)
        try:
            path = [*fn.__module__.split(".")[1:], fn.__name__]
            return functools.reduce(getattr, path, cupy) is not fn
        except AttributeError:
            return False

    functions = [f for f in RULES if not isinstance(getattr(f, "__self__", None), np.ufunc)]
    of_numpy = [f for f in functions if (f.__module__ or "numpy").startswith("numpy")]
    lacking = {".".join([*f.__module__.split(".")[1:], f.__name__]) for f in of_numpy if not has(f)}
    assert lacking == LACKING


def test_it_lacks_the_arguments_that_cupy_lacks():
    cupy = peer("cupy", "cuda12")
    created = [getattr(np, name) for name in fake_arrays.CREATES]
    for f in (*(f for f in RULES if hasattr(f, "_implementation")), *created):
        try:
            name = ".".join([*f.__module__.split(".")[1:], f.__name__])
            there = inspect.signature(functools.reduce(getattr, name.split("."), cupy))
            here = inspect.signature(f)
        except (AttributeError, ValueError):  # CuPy lacks it, or it does not say what it takes
            continue
        if any(p.kind == p.VAR_KEYWORD for p in there.parameters.values()):
            continue
        # the first argument is given by position, as are some others, and may have any name
        named = {p.name for p in here.parameters.values() if p.kind != p.POSITIONAL_ONLY}
        absent = named - {next(iter(here.parameters))} - set(there.parameters) - NEVER_ASKED
        assert absent <= LACKING_ARGUMENTS.get(name, set()), name
    for name, arguments in LACKING_ARGUMENTS.items():
        there = functools.reduce(getattr, name.split("."), cupy)
        assert not arguments & set(inspect.signature(there).parameters), name


@pytest.mark.parametrize("name", fake_arrays.REFUSALS)
def test_refusals_take_the_parameters_of_cupy(name):
    there = inspect.signature(getattr(peer("cupy", "cuda12"), name)).parameters
    here = inspect.signature(fake_arrays.REFUSALS[name]).parameters
    assert [(p.name, p.kind, p.default) for p in here.values()] == [
        (p.name, p.kind, p.default) for p in there.values()
    ]


def test_what_cupy_serves_of_quantiles_and_operators():
    cupy = peer("cupy", "cuda12")
    assert not hasattr(cupy.ndarray, "__imatmul__")
    statistics = importlib.import_module("cupy._statistics.order")
    source = inspect.getsource(statistics._quantile_unchecked)
    served = re.findall(r"method == '(\w+)'", source)
    assert set(served) == set(fake_arrays.QUANTILES)
    assert "q.ndim > 1" in source
    assert "# 'median'" in inspect.getsource(cupy.pad)


_C_TYPES = {
    "intptr_t": ctypes.c_void_p,
    "int": ctypes.c_int,
    "size_t": ctypes.c_void_p,
    "long long": ctypes.c_longlong,
}


@pytest.fixture
def cublas_of_cupy(tmp_path):
    """CuPy's module, which tells what it calls; without the library an empty one will do."""
    package = Path(peer("cupy", "cuda12").__file__).parent.with_name("cupy_backends")
    (module,) = (package / "cuda" / "libs").glob("cublas.*.so")
    listed = subprocess.run(["nm", "-D", str(module)], capture_output=True, text=True, check=True)
    asked = re.findall(r" U (cublas\w+)", listed.stdout)
    needed = subprocess.run(["objdump", "-p", str(module)], capture_output=True, text=True)
    (name,) = re.findall(r"NEEDED\s+(libcublas\.so\.\d+)", needed.stdout)
    try:
        ctypes.CDLL(name)
    except OSError:
        empty = tmp_path / name
        text = "".join(f"int {function}() {{ return 1; }}\n" for function in asked)
        versions = tmp_path / "versions"
        versions.write_text(f"{name} {{ global: *; }};")
        linker = f"-Wl,-soname,{name},--version-script={versions}"
        flags = ["-shared", "-fPIC", linker, "-x", "c", "-", "-o", str(empty)]
        subprocess.run(["gcc", *flags], input=text, text=True, check=True)
        ctypes.CDLL(str(empty), ctypes.RTLD_GLOBAL)
    return importlib.import_module("cupy_backends.cuda.libs.cublas")


def test_cublas_is_called_as_it_is(cublas_of_cupy):
    runtime, cublas = peer("cupy", "cuda12").cuda.runtime, cublas_of_cupy
    ours = importlib.import_module("dualnet.backends.cublas")
    for name in ("R_32F", "R_64F", "R_16BF"):
        known = getattr(runtime, f"CUDA_{name}")
        assert getattr(ours, name) == getattr(fake_cublas, f"CUDA_{name}") == known
    for name in ("COMPUTE_32F", "COMPUTE_32F_FAST_TF32", "COMPUTE_64F"):
        assert getattr(ours, name) == getattr(cublas, f"CUBLAS_{name}")
    assert ours._ALGORITHM == cublas.CUBLAS_GEMM_DEFAULT
    constants = [name for name in vars(fake_cublas) if name.startswith("CUBLAS_")]
    assert len(constants) == 6
    for name in constants:
        assert getattr(fake_cublas, name) == getattr(cublas, name)
    for name in ("gemmEx", "gemmStridedBatchedEx"):
        arguments = re.search(r"\((.*)\)", getattr(cublas, name).__doc__)[1].split(", ")
        there = [argument.split()[-1] for argument in arguments]
        here = inspect.signature(getattr(fake_cublas, f"cublas{name[0].upper()}{name[1:]}"))
        assert there == list(here.parameters)
        types = [_C_TYPES[" ".join(argument.split()[:-1])] for argument in arguments]
        names = list(here.parameters)
        pointers = [names.index(p) for p in ("handle", "alpha", "A", "B", "beta", "C")]
        for i in pointers:
            types[i] = ctypes.c_void_p
        assert tuple(types) == ours._ARGUMENTS[f"cublas{name[0].upper()}{name[1:]}"]


def test_cupy_has_what_products_ask_for():
    cupy = peer("cupy", "cuda12")
    assert callable(cupy.cuda.get_cublas_handle) and hasattr(cupy.ndarray, "data")
    for function in (cupy.may_share_memory, cupy.ascontiguousarray, cupy.ndarray.view):
        assert callable(function)


def test_cupy_has_what_recordings_ask_for():
    cupy = peer("cupy", "cuda12")
    there, here = (module.cuda for module in (cupy, fake_cupy.modules()["cupy"]))
    for name in ("Stream", "MemoryPool"):
        own = [n for n, f in vars(getattr(here, name)).items() if callable(f)]
        assert all(callable(getattr(getattr(there, name), n)) for n in own), name
    assert callable(there.Device.use) and callable(here.Device.use)
    for name in ("Memory", "MemoryPointer", "using_allocator", "get_current_stream"):
        assert callable(getattr(there, name)) and callable(getattr(here, name))
    assert callable(there.Graph.launch) and callable(cupy.copyto) and callable(cupy.empty_like)
    assert issubclass(there.runtime.CUDARuntimeError, Exception)
    assert callable(there.runtime.getDevice) and callable(there.runtime.runtimeGetVersion)


# "sums of nothing" are filled in by a kernel, and so is a copy
@pytest.mark.parametrize(
    "name", [n for n, (*_, copied) in LAYOUTS.items() if not copied and n != "sums of nothing"]
)
def test_real_arrays_are_multiplied_as_fake_ones(name, monkeypatch, rng):
    """At addresses of the host, as what products ask of CuPy's arrays needs no device."""
    cupy = peer("cupy", "cuda12")
    ours = importlib.import_module("dualnet.backends.products")
    monkeypatch.setattr(ours.cublas, "_library", lambda: fake_cublas)
    monkeypatch.setattr(ours.cublas, "_ready", lambda: fake_cublas.HANDLE)
    monkeypatch.setattr(cupy, "empty", lambda shape, dtype: at_host(np.full(shape, 7, dtype)))

    def at_host(array):
        memory = cupy.cuda.UnownedMemory(array.ctypes.data, max(1, array.nbytes), array, 0)
        made.append(array)
        return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, 0))

    made = []
    x_shape, y_shape, view, calls, _ = LAYOUTS[name]
    here = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    there = view(*map(at_host, here))
    fake_cublas.calls.clear()
    ours.product_kernels("full")["matmul"](*there)
    assert len(fake_cublas.calls) == calls
    assert len(made) == 3  # nothing but the operands and the result
    np.testing.assert_allclose(made[-1], np.matmul(*view(*here)), rtol=1e-12, atol=1e-12)


def product_of(x, y, out, **changes):
    """out = x y for column-major matrices, by a call of which some arguments are changed."""
    (m, k), n = x.shape, y.shape[1]
    one, zero = np.ones((), x.dtype), np.zeros((), x.dtype)
    kind, compute = {"float32": (0, 68), "float64": (1, 70)}[x.dtype.name]
    arguments = {
        **{"handle": fake_cublas.HANDLE, "transa": 0, "transb": 0, "m": m, "n": n, "k": k},
        **{"alpha": one.ctypes.data, "beta": zero.ctypes.data},
        **{"A": x.ctypes.data, "Atype": kind, "lda": m},
        **{"B": y.ctypes.data, "Btype": kind, "ldb": k},
        **{"C": out.ctypes.data, "Ctype": kind, "ldc": m},
        **{"computeType": compute, "algo": -1},
    }
    fake_cublas.cublasGemmEx(**{**arguments, **changes})


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_products_are_those_of_blas(dtype, rng):
    x, y = (np.asfortranarray(rng.standard_normal(s).astype(dtype)) for s in ((3, 4), (4, 2)))
    out = np.full((3, 2), np.nan, dtype, order="F")
    product_of(x, y, out)
    np.testing.assert_allclose(out, x @ y, rtol=1e-5)
    two = np.full((), 2, dtype)
    product_of(x, y, out, alpha=two.ctypes.data, beta=two.ctypes.data)
    np.testing.assert_allclose(out, 4 * (x @ y), rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lda": 2},
        {"ldb": 3},
        {"ldc": 2},
        {"m": -1},
        {"transa": 3},
        {"Atype": 14},
        {"Atype": 1, "Btype": 1},
        {"Atype": 14, "Btype": 14, "computeType": 70},
        {"computeType": 70},
        {"algo": 99},
        {"handle": 0},
        {"ldc": 3.0},
    ],
    ids=str,
)
def test_products_refuse_what_blas_refuses(wrong):
    x, y, out = (np.zeros(shape, np.float32, order="F") for shape in ((3, 4), (4, 2), (3, 2)))
    product_of(x, y, out)
    with pytest.raises(AssertionError):
        product_of(x, y, out, **wrong)
    with pytest.raises(AssertionError, match="a result overlaps a factor"):
        product_of(x, y, out, C=x.ctypes.data)


def test_results_may_not_overlap():
    x, out = np.zeros((3, 4), np.float32), np.zeros(64, np.float32)
    one, at = np.ones((), np.float32), x.ctypes.data
    for step, ldc, fits in (
        (9, 3, True),
        (3, 9, True),
        (8, 3, False),
        (1, 3, False),
        (0, 3, False),
    ):
        factors = (0, 0, 3, 3, 3, one.ctypes.data, at, 0, 3, 0, at, 0, 3, 0, one.ctypes.data)
        call = (fake_cublas.HANDLE, *factors, out.ctypes.data, 0, ldc, step, 3, 68, -1)
        with contextlib.nullcontext() if fits else pytest.raises(AssertionError, match="results"):
            fake_cublas.cublasGemmStridedBatchedEx(*call)


def test_tf32_keeps_11_bits(rng):
    x = rng.standard_normal(1000).astype(np.float32)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    np.testing.assert_array_equal(
        fake_cublas.tf32(x), np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent)
    )
    special = np.array([np.inf, -np.inf, np.nan, 0], np.float32)
    np.testing.assert_array_equal(fake_cublas.tf32(special), special)


NEVER_ASKED = {"like", "subok", "ndmax", "kwargs", "obj", "keepdims"}
"""`like` is NumPy's own; nobody here gives the others to a function that lacks them."""
