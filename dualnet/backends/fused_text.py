"""The texts of generated kernels: what an expression computes, and how its arrays are walked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualnet.backends.expressions import Node, Number, c_type
from dualnet.types import Array, Shape

THREADS = 256
"""How many threads a block of a generated kernel has."""

_HEADER = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

template <class T, int N>
struct alignas(sizeof(T) * N) Several {
    T at[N];
};
"""


class Expression:
    """The text of an expression over one shape, and the arrays and numbers that it takes.

    Args:
        roots: the nodes to compute, all of one shape.

    Attributes:
        shape: the shape of the roots.
        lines: C statements that compute the values of one entry, in order.
        arrays: the arrays that are read, as `(array, steps)`; `steps` are entries of the array for
            a step along each axis of `shape`.
        numbers: `(number, dtype)` for each number.
        names: node → the C name of its value, for nodes that have the shape of the roots.
    """

    def __init__(self, roots: Sequence[Node]):
        self.shape = roots[0].shape
        self.lines: list[str] = []
        self.arrays: list[tuple[Array, tuple[int, ...]]] = []
        self.numbers: list[tuple[Any, np.dtype]] = []
        self.names: dict[Node, str] = {}
        self._read: dict[tuple, str] = {}
        self._values: dict[tuple[int, tuple], str] = {}
        self._as_it_is = _places(self.shape, 0, tuple(range(len(self.shape))))
        for root in roots:
            self._value(root, self._as_it_is)

    def _value(self, node: Node, places: tuple[int | None, ...]) -> str:
        """Return the C name of a node's entry.

        Args:
            node: the node.
            places: the axis of `shape` along which each axis of the node runs; None for an axis of
                length 1.
        """
        key = (id(node), places)
        if key in self._values:
            return self._values[key]
        if node.array is not None:
            name = self._entry(node.array, places)
        elif node.axes is not None:
            (inner,) = node.inputs
            name = self._value(inner, tuple(None if a is None else places[a] for a in node.axes))
        elif node.is_copy:
            name = self._argument(node.inputs[0], node.dtype, len(node.shape), places)
        else:
            arguments = [
                self._argument(x, dtype, len(node.shape), places)
                for x, dtype in zip(node.inputs, node.types, strict=True)
            ]
            name = f"v{len(self._values)}"
            kind = c_type(node.dtype)
            self.lines.append(f"const {kind} {name} = {str(node.formula).format(*arguments)};")
        self._values[key] = name
        if places == self._as_it_is and node.shape == self.shape:
            self.names[node] = name
        return name

    def _argument(self, x: Any, dtype: np.dtype, ndim: int, places: tuple) -> str:
        """Return the C text of a function's argument, converted to a dtype."""
        kind = c_type(dtype)
        if isinstance(x, Number):
            self.numbers.append((x.value, dtype))
            return f"s{len(self.numbers) - 1}"
        name = self._value(x, _places(x.shape, ndim - len(x.shape), places))
        if x.dtype == dtype:
            return name
        return f"({name} != 0)" if dtype.kind == "b" else f"({kind}){name}"

    def _entry(self, array: Array, places: tuple[int | None, ...]) -> str:
        """Return the C name of an entry that is read from an array."""
        steps = [0] * len(self.shape)
        for n, step, place in zip(array.shape, array.strides, places, strict=True):
            if place is not None and n > 1:
                steps[place] += step // array.itemsize
        key = (array.data.ptr, array.dtype.char, *steps)
        if key not in self._read:
            self._read[key] = f"x{len(self.arrays)}"
            self.arrays.append((array, tuple(steps)))
        return self._read[key]


def _places(shape: Shape, lead: int, places: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return where the axes of an argument of a function run: its axis i with axis lead + i."""
    return tuple(None if n == 1 else places[lead + i] for i, n in enumerate(shape))


class Layout:
    """How the axes of an expression are walked, after neighboring ones are merged.

    Args:
        shape: the shape of the result.
        steps: for each array that is read, its steps along the axes.

    Attributes:
        sizes: the lengths of the merged axes.
        steps: the arrays' steps along these.
        index: the C type that counts entries.
    """

    def __init__(self, shape: Shape, steps: Sequence[tuple[int, ...]]):
        sizes: list[int] = []
        merged: list[list[int]] = [[] for _ in steps]
        for axis, n in enumerate(shape):
            if n == 1:
                continue
            here = [s[axis] for s in steps]
            if sizes and all(m[-1] == n * step for m, step in zip(merged, here, strict=True)):
                sizes[-1] *= n
                for m, step in zip(merged, here, strict=True):
                    m[-1] = step
                continue
            sizes.append(n)
            for m, step in zip(merged, here, strict=True):
                m.append(step)
        self.sizes = sizes or [1]
        self.steps = [tuple(m) if sizes else (0,) for m in merged]
        walks = [
            sum(abs(step) * (n - 1) for step, n in zip(steps, self.sizes, strict=True))
            for steps in self.steps
        ]
        self.index = "int" if max(math.prod(self.sizes), *walks, 0) < 2**30 else "i64"

    @property
    def is_flat(self) -> bool:
        """Whether every array is read from its first entry to its last, or is a single entry."""
        return len(self.sizes) == 1 and all(step[0] in (0, 1) for step in self.steps)

    def is_read_at_once(self, k: int, array: Array, width: int) -> bool:
        """Whether `width` neighboring entries of the array k lie in one aligned piece of memory."""
        *outer, last = self.steps[k]
        aligned = array.data.ptr % (width * array.itemsize) == 0
        return last == 1 and aligned and not any(step % width for step in outer)


# --- kernels -------------------------------------------------------------------------------------


def elementwise_text(job: Any, count: int, width: int) -> str:
    """Return the source of the kernel for as many jobs of one kind.

    Each block belongs to one job, and each thread computes `width` entries of it.
    """
    arrays = len(job.read) + len(job.written)
    find = f"while (job < {count - 1} && blockIdx.x >= sizes.at[{count} + job + 1]) ++job;"
    first = f"(i64)(blockIdx.x - sizes.at[{count} + job]) * {THREADS} + threadIdx.x"
    step = [f"i = i * {width};"] if width > 1 else []
    many = _entries(job, width, f"job * {arrays}", 2 * count)
    if width > 1 and job.layout.is_flat:  # the last entries are computed one by one
        one = _entries(job, 1, f"job * {arrays}", 2 * count)
        tail = ["    for (; i < size; ++i) {", *_indented(one, 2), "    }", "    return;"]
        many = [f"if (i + {width} > size) {{", *tail, "}", *many]
    lines = [
        "int job = 0;",
        *([find] if count > 1 else []),
        "const i64 size = sizes.at[job];",
        f"i64 i = {first};",
        *step,
        "if (i >= size) return;",
        *many,
    ]
    return (
        _HEADER
        + _structs(arrays * count, 2 * count + len(sizes_of(job.layout)))
        + _entry_function(job)
        + f'extern "C" __global__ void elementwise({", ".join(_parameters(job)[0])}) {{\n'
        + "\n".join(_indented(lines))
        + "\n}\n"
    )


def reduction_text(job: Any, width: int, inner: Node) -> tuple[str, list[str], list[str]]:
    """Return what `reductions.source_with` takes to reduce the expression of a job."""
    parameters, names = _parameters(job)
    keeps_rows = job.layout.is_flat or job.layout.sizes[-1] % width == 0
    result = job.expression.names[inner]
    if keeps_rows:
        body = _entries(job, width, "0", 0, result="of")
    else:  # neighboring entries are not neighbors along the last axis
        one = _entries(job, 1, "0", 0, result="single")
        body = [
            f"for (int e = 0; e < {width}; ++e, ++i) {{",
            "    VALUE single[1];",
            *_indented(one),
            "    of[e] = single[0];",
            "}",
        ]
    prelude = (
        _HEADER.replace("typedef long long i64;\n", "")
        + _structs(len(job.read) + len(job.written), len(sizes_of(job.layout)))
        + _entry_function(job, result)
        + "__device__ inline void entries(PARAMETERS, INDEX i, VALUE (&of)[WIDTH]) {\n"
        + "\n".join(_indented(body))
        + "\n}\n"
    )
    return prelude, parameters, names


def _structs(addresses: int, sizes: int) -> str:
    """Return the types of what a kernel takes by value."""
    return (
        f"struct Addresses {{\n    u64 at[{max(addresses, 1)}];\n}};\n"
        f"struct Sizes {{\n    i64 at[{max(sizes, 1)}];\n}};\n"
    )


def _parameters(job: Any) -> tuple[list[str], list[str]]:
    """Return the declarations and the names of a kernel's parameters."""
    declared, names = ["Addresses addresses", "Sizes sizes"], ["addresses", "sizes"]
    for i, (value, dtype) in enumerate(job.expression.numbers):
        pointer = "*" if hasattr(value, "place") else ""
        declared.append(f"const {c_type(dtype)}{pointer} n{i}")
        names.append(f"n{i}")
    return declared, names


def _entry_function(job: Any, result: str | None = None) -> str:
    """Return the C function that computes one entry: from x0, … and s0, … to y0, … and `result`."""
    parameters = [f"{c_type(a.dtype)} x{i}" for i, a in enumerate(job.read)]
    numbers = job.expression.numbers
    parameters += [f"{c_type(dtype)} s{i}" for i, (_, dtype) in enumerate(numbers)]
    parameters += [f"{c_type(a.dtype)}& y{i}" for i, a in enumerate(job.written)]
    lines = list(job.expression.lines)
    lines += [f"y{i} = {job.expression.names[node]};" for i, node in enumerate(job.nodes)]
    if result is not None:
        parameters.append("VALUE& result")
        lines.append(f"result = {result};")
    text = "\n".join(_indented(lines))
    return f"__device__ inline void entry({', '.join(parameters)}) {{\n{text}\n}}\n"


def _entries(
    job: Any, width: int, first_address: str, first_size: int, result: str | None = None
) -> list[str]:
    """Return statements that compute `width` entries from the entry i on.

    Args:
        job: what to compute.
        width: how many entries; they are neighbors along the last axis.
        first_address: C text of the place of the job's first array among the addresses.
        first_size: the place of what `sizes_of` returns among the sizes.
        result: the name of a C array that gets the entries, if there is one.
    """
    layout: Layout = job.layout
    lines: list[str] = []
    given: list[str] = []
    at = _walk(layout, first_size, lines)
    for k, array in enumerate(job.read):
        kind, last = c_type(array.dtype), layout.steps[k][-1]
        address = f"(const {kind}*)addresses.at[{first_address} + {k}]"
        lines.append(f"const {kind}* const x{k} = {address} + {at[k]};")
        if last == 0:
            lines.append(f"const {kind} a{k} = *x{k};")
            given.append(f"a{k}")
        elif width > 1 and layout.is_read_at_once(k, array, width):
            several = f"Several<{kind}, {width}>"
            lines.append(f"const {several} a{k} = *(const {several}*)x{k};")
            given.append(f"a{k}.at[e]")
        else:
            step = "" if last == 1 else f" * {_step(layout, first_size, k, -1)}"
            given.append(f"x{k}[e{step}]")
    for i, (value, _) in enumerate(job.expression.numbers):
        lines.append(f"const auto s{i} = {'*' if hasattr(value, 'place') else ''}n{i};")
        given.append(f"s{i}")
    for k, array in enumerate(job.written):
        lines.append(f"Several<{c_type(array.dtype)}, {width}> b{k};")
        given.append(f"b{k}.at[e]")
    if result is not None:
        given.append(f"{result}[e]")
    lines += ["#pragma unroll", f"for (int e = 0; e < {width}; ++e) entry({', '.join(given)});"]
    for k, array in enumerate(job.written):
        kind = c_type(array.dtype)
        address = f"({kind}*)addresses.at[{first_address} + {len(job.read) + k}] + i"
        lines.append(f"*(Several<{kind}, {width}>*)({address}) = b{k};")
    return lines


def _walk(layout: Layout, first_size: int, lines: list[str]) -> list[str]:
    """Append statements that find the place of the entry i; return its place in each array."""
    if layout.is_flat:
        return ["i" if steps[-1] else "0" for steps in layout.steps]
    index, axes = layout.index, len(layout.sizes)
    lines.append(f"{index} rest = i;")
    for axis in reversed(range(1, axes)):
        lines.append(f"const {index} c{axis} = ({index})sizes.at[{first_size + axis}];")
        lines.append(f"const {index} j{axis} = rest % c{axis};")
        lines.append(f"rest /= c{axis};")
    places = []
    for k, steps in enumerate(layout.steps):
        moves = [
            f"{f'j{axis}' if axis else 'rest'}"
            + ("" if steps[axis] == 1 else f" * {_step(layout, first_size, k, axis)}")
            for axis in range(axes)
            if steps[axis]
        ]
        places.append(" + ".join(moves) or "0")
    return places


def _step(layout: Layout, first_size: int, k: int, axis: int) -> str:
    """Return the C text of the step of the array k along an axis."""
    axes = len(layout.sizes)
    return f"({layout.index})sizes.at[{first_size + axes * (1 + k) + axis % axes}]"


def _indented(lines: Sequence[str], by: int = 1) -> list[str]:
    """Return lines, moved to the right."""
    return ["    " * by + line for line in lines]


def sizes_of(layout: Layout) -> list[int]:
    """Return the numbers by which `_walk` finds entries along several axes."""
    return [] if layout.is_flat else [*layout.sizes, *(n for s in layout.steps for n in s)]
