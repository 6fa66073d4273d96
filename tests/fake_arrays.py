"""A stand-in for CuPy's arrays: as strict as they are about what is on the host.

They hold a NumPy array that nothing but `get` hands out, and answer NumPy's protocols by CuPy's
rules: host arrays as operands are refused, implicit conversions raise, functions and arguments that
CuPy lacks are missing, numbers come as arrays without axes.
"""

import numpy as np
from fake_cuda import count, record, recorder

LACKING = {
    *("linalg.diagonal", "linalg.outer", "linalg.trace", "linalg.tensordot", "linalg.vecdot"),
    *("linalg.multi_dot", "linalg.svdvals", "linalg.matrix_norm", "linalg.vector_norm"),
    *("geomspace", "vecdot", "matvec", "vecmat"),
    *("block", "einsum_path", "insert", "nanpercentile", "nanquantile", "spacing", "unstack"),
}
"""What NumPy has and CuPy does not, of the functions that have a derivative rule."""

LACKING_ARGUMENTS = {
    **{name: {"where"} for name in ("all", "any", "mean", "nanmean")},
    **{name: {"where", "initial"} for name in ("amax", "amin", "max", "min", "prod", "sum")},
    **{name: {"where", "initial"} for name in ("nanmax", "nanmin", "nanprod", "nansum")},
    **{name: {"where", "mean", "correction"} for name in ("nanstd", "nanvar", "std", "var")},
    **{name: {"kind", "order"} for name in ("argpartition", "partition")},
    **{name: {"weights"} for name in ("percentile", "quantile")},
    **{name: {"device"} for name in ("asarray", "empty", "eye", "full", "ones", "zeros")},
    **{name: {"device"} for name in ("empty_like", "full_like", "ones_like", "zeros_like")},
    "arange": {"device"},
    "argsort": {"order", "stable"},
    "astype": {"device"},
    "clip": {"min", "max"},
    "extract": {"arr"},
    "isin": {"kind"},
    "lexsort": {"axis"},
    "linalg.cholesky": {"upper"},
    "linalg.matrix_rank": {"hermitian", "rtol"},
    "linalg.pinv": {"hermitian", "rtol"},
    "linalg.svd": {"hermitian"},
    "linspace": {"device"},
    "piecewise": {"args", "kw"},
    "reshape": {"shape"},
    "sort": {"order", "stable"},
    "take": {"mode"},
    "trim_zeros": {"axis"},
}
"""What NumPy's functions take and CuPy's do not; `np.eye`, `np.full` and `np.ones` hand on a
`device=` of their own accord when they are called with `like=`."""

SUMS = {"add", "multiply"}
"""The ufuncs of which CuPy has the methods `reduce` and `accumulate`."""

QUANTILES = ("linear", "lower", "higher", "midpoint", "nearest")


def _choose(a, choices, out=None, mode="raise"):
    for x in choices:
        if np.shape(x) != np.shape(choices[0]):
            raise AttributeError("'list' object has no attribute 'shape'")


def _pad(array, pad_width, mode="constant", **kwargs):
    if isinstance(pad_width, dict):
        raise TypeError("`pad_width` must be of integral type.")
    if mode == "median":
        raise ValueError(f"mode {mode!r} is not supported")
    for x in (kwargs.get("constant_values"), kwargs.get("end_values")):
        if _on_device(x):
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")


def _partition(a, kth, axis=-1):
    pass


def _piecewise(x, condlist, funclist):
    if any(map(callable, funclist)):
        raise NotImplementedError("Callable functions are not supported currently")


def _quantile(
    a,
    q,
    axis=None,
    out=None,
    overwrite_input=False,
    method="linear",
    keepdims=False,
    *,
    interpolation=None,
):
    if np.ndim(q) > 1:
        raise ValueError(f"Expected q to have a dimension of 1.\nActual: {np.ndim(q)} != 1")
    if method not in QUANTILES:
        raise ValueError(f"{method!r} method is not yet supported. Please use any other method.")


def _select(condlist, choicelist, default=0):
    if isinstance(default, ndarray):
        raise TypeError("default only accepts scalar values")


REFUSALS = {
    **{"choose": _choose, "pad": _pad, "partition": _partition, "piecewise": _piecewise},
    **{"percentile": _quantile, "quantile": _quantile, "select": _select},
}
"""Functions of CuPy's parameters that raise where CuPy's functions of these names do."""

CALLS_LIBRARIES = {
    *("dot", "einsum", "inner", "matmul", "tensordot", "vdot"),
    *("cholesky", "det", "eigh", "eigvalsh", "inv", "pinv", "qr", "slogdet", "solve", "svd"),
}
"""By their last names, what CuPy hands to cuBLAS or cuSOLVER, but not while a stream captures."""

WAITS = {
    *("allclose", "argwhere", "bincount", "delete", "flatnonzero", "nonzero", "unique"),
    *("linalg.lstsq", "linalg.matrix_rank", "lib.stride_tricks.sliding_window_view"),
}
"""Functions that look at numbers on the way."""

TAKES_HOST_INDICES = {"delete", "take", "take_along_axis"}
JOINS = {"column_stack", "concatenate", "dstack", "hstack", "stack", "vstack"}
CREATES = {
    *("arange", "array", "asarray", "empty", "eye", "full", "identity", "ones", "tri", "zeros"),
}
_COMPARISONS = {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"}


def refused_if_recorded(name):
    """What needs a library that CuPy does not call while a stream captures."""
    if recorder.tape is not None and name.rpartition(".")[2] in CALLS_LIBRARIES:
        raise NotImplementedError(f"calling a library for {name} during stream capture")


def done(compute):
    """What `compute()` gives, as fake arrays; recorded if a stream captures."""
    result = _outside(compute())
    if recorder.tape is not None:

        def again():
            _refill(result, compute())

        record(again)
    return result


def done_in_place(compute):
    """Let `compute()` write to arrays that are there: now, or not before what a stream captures is
    launched."""
    if recorder.tape is None:
        compute()
    else:
        record(compute)


def _refill(held, new):
    if isinstance(held, ndarray):
        if held._held.flags.writeable:  # else it is a view of what is filled already
            held._held[...] = new
    elif isinstance(held, (list, tuple)):
        for h, n in zip(held, new, strict=True):
            _refill(h, n)


def inside(x):
    """Fake arrays as the NumPy arrays that they hold, in lists and tuples too."""
    if isinstance(x, ndarray):
        return x._held
    if isinstance(x, (list, tuple)) and any(isinstance(i, (ndarray, list, tuple)) for i in x):
        return type(x)(map(inside, x)) if not hasattr(x, "_fields") else type(x)(*map(inside, x))
    return x


def _outside(x):
    """NumPy arrays and numbers as fake arrays."""
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_outside, x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(_outside, x))
    return x


def _host_arrays(values):
    for x in values:
        if isinstance(x, np.ndarray):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from _host_arrays(x)


def _small_and_many(arrays):
    """Whether CuPy joins them by one kernel, which takes their addresses from the device."""
    one_dtype = len({x.dtype for x in arrays}) == 1
    return len(arrays) > 8 and one_dtype and sum(x.nbytes for x in arrays) < len(arrays) << 21


def _on_device(x):
    """Whether x is a fake array, or made of some; a list of numbers is moved like a host array."""
    return any(map(_on_device, x)) if isinstance(x, (list, tuple)) else isinstance(x, ndarray)


class _Pointer:
    """CuPy's pointer to the memory of an array."""

    def __init__(self, held):
        self._held = held

    ptr = property(lambda self: self._held.ctypes.data)

    @property
    def mem(self):
        """The memory: one object for an array and its views."""
        held = self._held
        while getattr(held, "base", None) is not None:
            held = held.base
        return held

    def copy_from_device_async(self, source, size):
        """Copy so many bytes, which both arrays have."""
        there, here = self._held, source._held
        assert there.nbytes == here.nbytes == size
        assert there.flags.c_contiguous and here.flags.c_contiguous
        done_in_place(lambda: np.copyto(_bytes_of(there), _bytes_of(here)))


def _bytes_of(held):
    """The memory of a contiguous array."""
    return held.reshape(-1).view(np.uint8)


class ndarray:
    """See the head of this file."""

    __hash__ = None

    def __init__(self, held):
        self._held = held

    # --- the two protocols ---

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        served = ("__call__", "outer", "reduce", "accumulate")
        if method not in served or ufunc.__name__ in LACKING:
            return NotImplemented
        if method in ("reduce", "accumulate"):
            if ufunc.__name__ not in SUMS:
                raise NotImplementedError(f"`cupy_{ufunc.__name__}.{method}` is not supported yet")
            if kwargs.keys() & {"initial", "where"}:
                raise TypeError(f"{method}() got an unexpected keyword argument")
        operands = (*inputs, *(out or ()))
        for x in operands:
            known = isinstance(x, (ndarray, np.ndarray, np.generic, bool, int, float))
            if not known:
                return NotImplemented
        if ufunc.__name__ in _COMPARISONS:
            inputs = [x.item() if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs]
        if any(isinstance(x, np.ndarray) for x in (*inputs, *(out or ()))):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if out:
            kwargs["out"] = tuple(x._held for x in out)
        refused_if_recorded(ufunc.__name__)
        compute = lambda: getattr(ufunc, method)(*map(inside, inputs), **kwargs)  # noqa: E731
        if not out:
            return done(compute)
        done_in_place(compute)
        return out[0]

    def __array_function__(self, function, types_, args, kwargs):
        name = ".".join([*function.__module__.split(".")[1:], function.__name__])
        if name in LACKING or not all(issubclass(t, (ndarray, np.ndarray)) for t in types_):
            return NotImplemented
        for argument in LACKING_ARGUMENTS.get(name, ()):
            if argument in kwargs:
                raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")
        if name in JOINS and any(not hasattr(x, "__array_function__") for x in args[0]):
            raise TypeError("Argument has incorrect type (expected cupy._core.core._ndarray_base)")
        if name in REFUSALS:
            REFUSALS[name](*args, **kwargs)
        refused_if_recorded(name)
        if name in JOINS and _small_and_many(args[0]):
            count("to_device")  # their addresses
        hosts = len(list(_host_arrays((*args, *kwargs.values()))))
        if name in ("asarray", "array"):
            count("to_device", not _on_device(args[0]))
        elif name in CREATES:
            count("to_device", hosts)
        elif hosts and name in TAKES_HOST_INDICES:
            count("to_device", hosts)
        elif hosts:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if name in WAITS:
            count("waits")
        if (
            name == "linalg.solve"
            and np.ndim(args[1]) > 1
            and (np.shape(args[0])[:-2] != np.shape(args[1])[:-2])
        ):
            raise ValueError("a must have (..., M, M) shape and b must have (..., M, K)")
        compute = lambda: function(  # noqa: E731
            *map(inside, args), **{k: inside(v) for k, v in kwargs.items()}
        )
        return compute() if name in ("shape", "ndim", "size", "result_type") else done(compute)

    # --- from device to host ---

    def __array__(self, *_args, **_kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self):
        count("to_host")
        return self._held.copy()

    def __repr__(self):
        return f"fake {self._held!r}"

    # --- entries ---

    def _key(self, key):
        for x in key if isinstance(key, tuple) else (key,):
            if isinstance(x, (np.ndarray, list)):
                count("to_device")
            is_mask = isinstance(x, (np.ndarray, ndarray)) and x.dtype == bool
            if isinstance(x, bool) or is_mask:
                count("waits")
        return inside(key)

    def __getitem__(self, key):
        key = self._key(key)
        return done(lambda: self._held[key])

    def __setitem__(self, key, value):
        if isinstance(value, (np.ndarray, list, tuple)):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        key = self._key(key)
        done_in_place(lambda: self._write(key, inside(value)))

    def _write(self, key, value):
        """Write, the last value first: where a key names an entry twice, a device keeps any value,
        and here it is not the one that NumPy would keep."""
        self._held[key] = value
        items = key if isinstance(key, tuple) else (key,)
        if any(np.ndim(x) and np.asarray(x).dtype.kind in "iu" for x in items if x is not None):
            there = np.arange(self._held.size).reshape(self.shape)[key]
            value = np.broadcast_to(np.reshape(value, np.shape(value)[-there.ndim :]), there.shape)
            self._held.flat[there.ravel()[::-1]] = value.ravel()[::-1]

    def __len__(self):
        return len(self._held)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # --- what is known without looking at numbers ---

    data = property(lambda self: _Pointer(self._held))
    flags = property(lambda self: self._held.flags)
    T = property(lambda self: ndarray(self._held.T))
    mT = property(lambda self: ndarray(self._held.mT))

    def astype(self, dtype, copy=True):
        return done(lambda: self._held.astype(dtype, copy=copy))

    def copy(self):
        return done(self._held.copy)

    def view(self, dtype):
        there = self._held.view(dtype)
        assert there.ctypes.data % there.itemsize == 0, "a kernel reads where its type may be"
        return ndarray(there)


def _operator(ufunc):
    def binary(self, other):
        if getattr(other, "__array_ufunc__", False) is None:
            return NotImplemented  # as the other array asks for
        return ufunc(self, other)

    def reflected(self, other):
        return ufunc(other, self)

    def in_place(self, other):
        return ufunc(self, other, out=self)

    return binary, reflected, in_place


for _name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
    setattr(ndarray, _name, lambda self, name=_name: getattr(self.get(), name)())
for _name in ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides", "flags"):
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._held, name)))
for _name, _ufunc in {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide},
    **{"floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul},
    **{"and": np.bitwise_and, "or": np.bitwise_or},
}.items():
    for _kind, _method in zip(("", "r", "i"), _operator(_ufunc), strict=True):
        setattr(ndarray, f"__{_kind}{_name}__", _method)
del ndarray.__imatmul__  # which CuPy lacks
for _name, _ufunc in {
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal},
}.items():
    setattr(ndarray, f"__{_name}__", _operator(_ufunc)[0])
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute}.items():
    setattr(ndarray, f"__{_name}__", lambda self, ufunc=_ufunc: ufunc(self))


def _method(name):
    def method(self, *args, **kwargs):
        if any(True for _ in _host_arrays((*args, *kwargs.values()))) and name != "take":
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if set(kwargs) & LACKING_ARGUMENTS.get(name, set()) - {"min", "max"}:
            raise TypeError(f"{name}() got an unexpected keyword argument")
        refused_if_recorded(name)
        return done(
            lambda: getattr(self._held, name)(
                *map(inside, args), **{k: inside(v) for k, v in kwargs.items()}
            )
        )

    return method


for _name in (
    *(
        "all any argmax argmin argsort clip cumprod cumsum diagonal dot flatten max mean min"
    ).split(),
    *("nonzero prod ravel repeat reshape round squeeze std sum swapaxes take trace").split(),
    *("transpose var").split(),
):
    setattr(ndarray, _name, _method(_name))
