"""One kernel for a whole expression: its text is generated, compiled once, and launched.

All arrays of an expression are read once, and what is computed on the way stays in registers.  So a
chain of functions costs the memory traffic of its ends.  Entries that somebody may still ask for
are written in the same pass.

Each thread computes `_AT_ONCE` neighboring entries of the result where the layout of all arrays
allows it, so that memory is accessed by as many bytes at once as a device can.  Multiplications and
additions are not contracted, so that every entry has the very bits that CuPy's own kernels give,
one function at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from dualnet.backends.expressions import C_TYPES, Node, Number, size_of
from dualnet.types import Array, Shape

THREADS = 256
_AT_ONCE = 4
_MOST_GROUPS = 24
"""How many arrays one launch serves at most; their addresses are arguments of the kernel."""

HEADER = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
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
        self._as_it_is = tuple(range(len(self.shape)))
        for root in roots:
            self.value(root, self._as_it_is)

    def value(self, node: Node, places: tuple[int | None, ...]) -> str:
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
        elif node.formula is None:  # rearranged
            (inner,) = node.inputs
            name = self.value(inner, tuple(None if a is None else places[a] for a in node.axes))
        else:
            arguments = [
                self._argument(x, dtype, node.shape, places)
                for x, dtype in zip(node.inputs, node.types, strict=True)
            ]
            name = f"v{len(self._values)}"
            kind = C_TYPES[node.dtype.name]
            self.lines.append(f"const {kind} {name} = {node.formula.format(*arguments)};")
        self._values[key] = name
        if places == self._as_it_is and node.shape == self.shape:
            self.names[node] = name
        return name

    def _argument(self, x: Any, dtype: np.dtype, shape: Shape, places: tuple) -> str:
        """Return the C text of a function's argument, converted to a dtype."""
        kind = C_TYPES[dtype.name]
        if isinstance(x, Number):
            self.numbers.append((x.value, dtype))
            return f"s{len(self.numbers) - 1}"
        lead = len(shape) - len(x.shape)
        own = tuple(None if n == 1 else places[lead + i] for i, n in enumerate(x.shape))
        name = self.value(x, own)
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


class Layout:
    """How the axes of an expression are walked, after neighboring ones are merged.

    Args:
        shape: the shape of the result.
        steps: for each array that is read, its steps along the axes.

    Attributes:
        sizes: the lengths of the merged axes.
        steps: the arrays' steps along these.
    """

    def __init__(self, shape: Shape, steps: Sequence[tuple[int, ...]]):
        sizes: list[int] = []
        merged: list[list[int]] = [[] for _ in steps]
        whole: list[int] = []  # of the result, whose entries lie without gaps
        step_of_whole = size_of(shape)
        for axis, n in enumerate(shape):
            step_of_whole //= max(n, 1)
            if n == 1:
                continue
            here = [s[axis] for s in steps]
            if sizes and all(m[-1] == n * step for m, step in zip(merged, here, strict=True)):
                sizes[-1] *= n
                for m, step in zip(merged, here, strict=True):
                    m[-1] = step
                whole[-1] = step_of_whole
                continue
            sizes.append(n)
            whole.append(step_of_whole)
            for m, step in zip(merged, here, strict=True):
                m.append(step)
        self.sizes = sizes or [1]
        self.steps = [tuple(m) if sizes else (0,) for m in merged]

    @property
    def is_flat(self) -> bool:
        """Whether every array is read from its first entry to its last, or is a single entry."""
        return len(self.sizes) == 1 and all(step[0] in (0, 1) for step in self.steps)

    @property
    def farthest(self) -> int:
        """The largest index that is computed."""
        walks = [
            sum(abs(step) * (n - 1) for step, n in zip(steps, self.sizes, strict=True))
            for steps in self.steps
        ]
        return max(size_of(tuple(self.sizes)), *walks, 0)

    def allows_at_once(self, arrays: Sequence[Array], written: Sequence[Array]) -> bool:
        """Whether `_AT_ONCE` neighboring entries can be accessed as one piece of memory."""
        if not self.is_flat and self.sizes[-1] % _AT_ONCE:
            return False
        for array, (*outer, last) in zip(arrays, self.steps, strict=True):
            if last not in (0, 1):
                return False
            if last == 1 and any(step % _AT_ONCE for step in outer):
                return False
            if last == 1 and array.data.ptr % (_AT_ONCE * array.itemsize):
                return False
        return not any(a.data.ptr % (_AT_ONCE * a.itemsize) for a in written)


class Job:
    """Roots that are computed by one kernel, with all that its launch takes.

    Args:
        roots: nodes of one shape.
        into: for each root the contiguous array to write it to; None for a new one.
    """

    def __init__(self, roots: Sequence[Node], into: Sequence[Array | None]):
        self.expression = Expression(roots)
        wanted = dict(zip(roots, into, strict=True))
        held = [n for n in self.expression.names if n.is_held and n.array is None]
        self.nodes = [*wanted, *(n for n in held if n not in wanted)]
        self.written = []
        for node in self.nodes:
            target = wanted.get(node)
            self.written.append(cupy.empty(node.shape, node.dtype) if target is None else target)
        self.read = [array for array, _ in self.expression.arrays]
        self.layout = Layout(self.expression.shape, [steps for _, steps in self.expression.arrays])
        self.size = size_of(self.expression.shape)
        at_once = self.layout.allows_at_once(self.read, self.written)
        self.per_thread = _AT_ONCE if at_once else 1
        self.blocks = -(-self.size // (THREADS * self.per_thread))

    @functools.cached_property
    def body(self) -> str:
        """The text of the function `entry`, which computes the values of one entry."""
        kinds = [C_TYPES[a.dtype.name] for a in self.read]
        parameters = [f"{kind} x{i}" for i, kind in enumerate(kinds)]
        parameters += [
            f"{C_TYPES[dtype.name]} s{i}" for i, (_, dtype) in enumerate(self.expression.numbers)
        ]
        parameters += [f"{C_TYPES[a.dtype.name]}& y{i}" for i, a in enumerate(self.written)]
        lines = [
            *self.expression.lines,
            *(f"y{i} = {self.expression.names[n]};" for i, n in enumerate(self.nodes)),
        ]
        return (
            f"__device__ inline void entry({', '.join(parameters)}) {{\n"
            + "".join(f"    {line}\n" for line in lines)
            + "}\n"
        )

    @functools.cached_property
    def key(self) -> tuple:
        """What jobs that one launch can serve have in common."""
        kinds = tuple(a.dtype.char for a in (*self.read, *self.written))
        numbers = tuple((repr(value), dtype.char) for value, dtype in self.expression.numbers)
        steps = tuple(self.layout.steps) if self.layout.is_flat else id(self)
        return self.body, kinds, numbers, steps, self.per_thread


def launch(jobs: Sequence[Job]) -> None:
    """Compute jobs, those of one kind by one launch; their nodes become known."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        if job.size:
            groups.setdefault(job.key, []).append(job)
    for alike in groups.values():
        for start in range(0, len(alike), _MOST_GROUPS):
            _launch(alike[start : start + _MOST_GROUPS])
    for job in jobs:
        for node, array in zip(job.nodes, job.written, strict=True):
            node.become(array)


def _launch(jobs: list[Job]) -> None:
    """Launch one kernel for jobs of one kind."""
    text = _text(jobs[0], len(jobs))
    addresses = [a.data.ptr for job in jobs for a in (*job.read, *job.written)]
    layout = jobs[0].layout
    firsts = np.cumsum([0, *(job.blocks for job in jobs)]).tolist()
    if layout.is_flat:
        sizes = [*(job.size for job in jobs), *firsts]
    else:
        sizes = [jobs[0].size, *layout.sizes, *(s for steps in layout.steps for s in steps)]
    numbers = [_argument(value, dtype) for value, dtype in jobs[0].expression.numbers]
    arguments = (_by_value(addresses, np.uint64), _by_value(sizes, np.int64), *numbers)
    _compiled(text)((firsts[-1],), (THREADS,), arguments)


def _by_value(numbers: Sequence[int], dtype: Any) -> np.ndarray:
    """Return numbers as a struct that a kernel takes by value."""
    return np.array(numbers, dtype).view([("at", dtype, (len(numbers),))])


def _argument(value: Any, dtype: np.dtype) -> Any:
    """Return a number as an argument of a kernel: by value, or where the kernel finds it."""
    return value.place(dtype) if hasattr(value, "place") else dtype.type(value)


@functools.cache
def _compiled(text: str) -> Any:
    """Compile a kernel's text."""
    module = cupy.RawModule(code=text, options=("--std=c++17", "--fmad=false", "-DREAL=float"))
    return module.get_function("fused")


def _text(job: Job, groups: int) -> str:
    """Return the source of the kernel for as many jobs of this kind."""
    read = [C_TYPES[a.dtype.name] for a in job.read]
    written = [C_TYPES[a.dtype.name] for a in job.written]
    numbers = job.expression.numbers
    count = len(read) + len(written)
    index = "u32" if job.layout.farthest < 2**31 else "i64"
    many = job.per_thread > 1
    parameters = ["Addresses addresses", "Sizes sizes"]
    given = []
    for i, (value, dtype) in enumerate(numbers):
        is_placed = hasattr(value, "place")
        parameters.append(f"const {C_TYPES[dtype.name]}{'*' if is_placed else ''} s{i}")
        given.append(f"*s{i}" if is_placed else f"s{i}")
    flat = job.layout.is_flat
    size_count = 2 * groups + 1 if flat else 1 + len(job.layout.sizes) * (1 + len(read))
    declared = [
        f"const {kind}* x{i} = (const {kind}*)addresses.at[g + {i}];"
        for i, kind in enumerate(read)
    ] + [
        f"{kind}* y{i} = ({kind}*)addresses.at[g + {len(read) + i}];"
        for i, kind in enumerate(written)
    ]
    walk = _flat_walk(groups, count) if flat else _walk_along_axes(job, index)
    access = _at_once(job, given) if many else _one_by_one(job, given)
    if many and flat:
        tail = "".join(f"    {line}\n" for line in _one_by_one(job, given))
        guard = f"if (i + {_AT_ONCE} > size) {{\n    for (; i < size; ++i) {{\n"
        walk = [*walk, *(guard + tail + "    }\n    return;\n}").splitlines()]
    lines = [*walk[:1], *declared, *walk[1:], *access]
    return (
        HEADER
        + f"struct Addresses {{\n    u64 at[{count * groups}];\n}};\n"
        + f"struct Sizes {{\n    i64 at[{size_count}];\n}};\n"
        + "template <class T>\n"
        + f"struct alignas({_AT_ONCE} * sizeof(T)) Some {{\n    T at[{_AT_ONCE}];\n}};\n"
        + job.body
        + f'extern "C" __global__ void fused({", ".join(parameters)}) {{\n'
        + f"    const int per_thread = {job.per_thread};\n"
        + "".join(f"    {line}\n" for line in lines)
        + "}\n"
    )


def _flat_walk(groups: int, count: int) -> list[str]:
    """Return statements that find the job of this block, and the first entry of this thread."""
    find = "int job = 0;"
    if groups > 1:
        find += (
            f" while (job < {groups - 1} && blockIdx.x >= sizes.at[{groups} + job + 1]) ++job;"
        )
    return [
        f"{find} const int g = job * {count};",
        "const i64 size = sizes.at[job];",
        f"i64 i = ((i64)(blockIdx.x - sizes.at[{groups} + job]) * blockDim.x + threadIdx.x)"
        " * per_thread;",
        "if (i >= size) return;",
    ]


def _walk_along_axes(job: Job, index: str) -> list[str]:
    """Return statements that move every pointer to the first entry of this thread."""
    axes, read = len(job.layout.sizes), len(job.read)
    lines = [
        "const int g = 0;",
        f"{index} i = (({index})blockIdx.x * blockDim.x + threadIdx.x) * per_thread;",
        "if (i >= sizes.at[0]) return;",
        f"{index} rest = i;",
    ]
    for axis in reversed(range(axes)):
        if axis:
            lines.append(f"const {index} n{axis} = ({index})sizes.at[{1 + axis}];")
            lines.append(f"const {index} j{axis} = rest % n{axis}; rest /= n{axis};")
        else:
            lines.append("const " + index + " j0 = rest;")
    for k in range(read):
        moves = [
            f"j{axis} * ({index})sizes.at[{1 + axes + k * axes + axis}]"
            for axis in range(axes)
            if job.layout.steps[k][axis]
        ]
        if moves:
            lines.append(f"x{k} += {' + '.join(moves)};")
    return lines


def _one_by_one(job: Job, given: list[str]) -> list[str]:
    """Return statements that compute the entry i."""
    flat = job.layout.is_flat
    inputs = [
        f"x{k}[i]" if flat and steps[-1] else f"*x{k}" for k, steps in enumerate(job.layout.steps)
    ]
    outputs = [f"y{k}[i]" for k in range(len(job.written))]
    return [f"entry({', '.join([*inputs, *given, *outputs])});"]


def _at_once(job: Job, given: list[str]) -> list[str]:
    """Return statements that compute `_AT_ONCE` entries from the entry i on."""
    flat, lines, inputs = job.layout.is_flat, [], []
    for k, (array, steps) in enumerate(zip(job.read, job.layout.steps, strict=True)):
        kind = C_TYPES[array.dtype.name]
        if steps[-1]:
            start = f"x{k} + i" if flat else f"x{k}"
            lines.append(f"const Some<{kind}> a{k} = *(const Some<{kind}>*)({start});")
            inputs.append(f"a{k}.at[e]")
        else:
            lines.append(f"const {kind} a{k} = *x{k};")
            inputs.append(f"a{k}")
    outputs = [f"b{k}.at[e]" for k in range(len(job.written))]
    for k, array in enumerate(job.written):
        lines.append(f"Some<{C_TYPES[array.dtype.name]}> b{k};")
    for i, text in enumerate(given):  # a number that is read from memory is read once
        if text.startswith("*"):
            lines.append(f"const auto t{i} = {text};")
            given = [*given[:i], f"t{i}", *given[i + 1 :]]
    lines.append("#pragma unroll")
    lines.append(f"for (int e = 0; e < {_AT_ONCE}; ++e)")
    lines.append(f"    entry({', '.join([*inputs, *given, *outputs])});")
    for k, array in enumerate(job.written):
        lines.append(f"*(Some<{C_TYPES[array.dtype.name]}>*)(y{k} + i) = b{k};")
    return lines
