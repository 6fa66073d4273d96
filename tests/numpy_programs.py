"""Random plain NumPy programs.

A program is a small graph of calls from `numpy_vocabulary`, drawn while it is evaluated, so that
every intermediate is finite and of moderate size.  Its text is run by NumPy and dualnet, and by JAX
with other objects under the same names (`numpy_by_jax`).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy_by_jax
import scipy.special
from numpy_vocabulary import KINDS

import dualnet as dn
import dualnet.numpy
import dualnet.scipy

SHAPES = [
    *((), (1,), (3,), (4,), (2, 3), (3, 3), (1, 3), (2, 1), (3, 2), (3, 4), (2, 3, 3), (2, 2, 3)),
    *((0,), (2, 0), (1, 1)),
]
"""Shapes of inputs, from common to rare."""
LARGEST = 120
"""No value has more entries."""


class Unfit(Exception):
    """An entry of the vocabulary cannot be drawn here."""


# --- programs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A statement, or several, that give a name its value.

    Attributes:
        name: what is assigned.
        kind: the entry of the vocabulary.
        text: Python, with names of earlier steps and inputs.
        jax: the same for JAX.
    """

    name: str
    kind: str
    text: str
    jax: str


@dataclass(frozen=True)
class Program:
    """Inputs, steps, and the names of the results."""

    inputs: dict[str, np.ndarray]
    steps: tuple[Step, ...]
    results: tuple[str, ...]
    module: str = "numpy"
    seed: Any = None

    def text(self, of: str = "text") -> str:
        lines = [f"def f({', '.join(self.inputs)}):"]
        for step in self.steps:
            lines += [f"    {line.strip()}" for line in getattr(step, of).split(";")]
        return "\n".join([*lines, f"    return [{', '.join(self.results)}]\n"])

    def __str__(self) -> str:
        values = [f"{name} = {_literal(x)}" for name, x in self.inputs.items()]
        head = [
            f"# seed {self.seed}",
            "import dualnet as dn",
            "import dualnet.numpy as dnp",
            f"import {self.module} as np",
        ]
        body = self.text()
        if "sp." in body:
            head += ["import scipy.special as sp", "import dualnet.scipy as dsp"]
        return "\n".join([*head, *values, body])

    def function(self) -> Callable:
        """Make the function of the inputs, for NumPy and dualnet."""
        return made(self.text(), namespace(self.module))

    def function_of_jax(self) -> Callable:
        return made(self.text("jax"), numpy_by_jax.namespace())

    def values(self) -> dict:
        """Evaluate the steps: every value by its name."""
        names = {**namespace(self.module), **self.inputs}
        for step in self.steps:
            names = _run(step.text, names)
        return names

    @property
    def kinds(self) -> set[str]:
        """The entries of the vocabulary that the program has."""
        return {step.kind for step in self.steps}


def made(text: str, namespace: dict) -> Callable:
    """Make the function that a text defines."""
    exec(compile(text, "<program>", "exec"), namespace)
    return namespace["f"]


def namespace(module: str) -> dict:
    """Make the modules of a program for dualnet; `module` says which one it calls np."""
    return {
        "np": np if module == "numpy" else dualnet.numpy,
        "dnp": dualnet.numpy,
        "dn": dn,
        "sp": scipy.special,
        "dsp": dualnet.scipy,
    }


def _literal(x: Any) -> str:
    x = np.asarray(x)
    how = f".reshape({x.shape})" if x.size == 0 else ""
    numbers = x.tolist() if x.size else []
    text = f"np.array({numbers}, np.{x.dtype}){how}"
    return text.replace("nan", "np.nan").replace("inf", "np.inf")


# --- drawing -------------------------------------------------------------------------------------


class Draw:
    """The state of a program that is being drawn; its methods pick operands and write them down.

    "The last value" is the one that was picked last for the entry that is being drawn.

    Attributes:
        values: the floating values so far, by name.
        others: values of integers and booleans.
        inputs: those of the values that are inputs.
        names, shapes: what has been picked for the entry that is being drawn, last comes last.
    """

    def __init__(self, rng: np.random.Generator, dtype: Any):
        self.rng, self.dtype = rng, dtype
        self.values: dict[str, np.ndarray] = {}
        self.others: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}
        self.names: list[str] = []
        self.shapes: list[tuple] = []
        self._level = 0.0

    # --- choices ---

    def of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def yes_or_no(self) -> str:
        return self.of("True", "False")

    def number(self) -> str:
        return self.of("2", "-1.5", "0.5", "3.0", "1")

    def level(self) -> str:
        self._level = self.of(-0.5, 0.1, 0.4)
        return repr(self._level)

    # --- values ---

    def pick(self, fits: Callable[[tuple], bool]) -> str:
        """Pick a value whose shape fits, or make an input of such a shape."""
        found = [name for name, x in self.values.items() if fits(x.shape)]
        if found and (len(self.inputs) >= 5 or self.rng.random() < 0.8):
            recent = found[-3:] if self.rng.random() < 0.6 else found
            name = self.of(*recent)
        else:
            shapes = [shape for shape in SHAPES if fits(shape)]
            if not shapes:
                raise Unfit
            shape = self.of(*shapes[:6]) if self.rng.random() < 0.7 else self.of(*shapes)
            name = self.new_input(shape)
        return self._picked(name)

    def new_input(self, shape: tuple) -> str:
        name = f"x{len(self.inputs)}"
        entries = self.rng.standard_normal(shape)
        entries = entries + 0.05 * np.sign(entries)
        self.inputs[name] = self.values[name] = np.asarray(entries, self.dtype)
        return name

    def _picked(self, name: str) -> str:
        self.names.append(name)
        self.shapes.append(self.values[name].shape)
        return name

    @property
    def last(self) -> tuple:
        return self.shapes[-1]

    @property
    def last_name(self) -> str:
        return self.names[-1]

    def x(self) -> str:
        return self.pick(lambda shape: True)

    def filled(self) -> str:
        return self.pick(lambda shape: 0 not in shape)

    def array(self) -> str:
        return self.pick(lambda shape: 0 not in shape and 1 <= len(shape) <= 3)

    def filled_array(self, most: int = 3) -> str:
        return self.pick(lambda shape: 0 not in shape and 1 <= len(shape) <= most)

    def empty(self) -> str:
        return self.pick(lambda shape: 0 in shape)

    def small(self) -> str:
        return self.pick(lambda shape: 0 not in shape and np.prod(shape) <= 6 and len(shape) <= 2)

    def small_array(self) -> str:
        return self.pick(lambda shape: 1 <= np.prod(shape) <= 6 and 1 <= len(shape) <= 2)

    def of_shape(self, shape: tuple) -> str:
        """Pick a value of this shape, or make one of another value, or an input."""
        found = [name for name, x in self.values.items() if x.shape == shape]
        if found and self.rng.random() < 0.7:
            return self._picked(self.of(*found))
        others = [n for n, x in self.values.items() if x.size and x.ndim and n not in self.inputs]
        if others and shape and (len(self.inputs) > 3 or self.rng.random() < 0.4):
            name = self.of(*others)
            self.names.append(name)
            self.shapes.append(shape)
            spread = 0.37 * np.arange(np.prod(shape, dtype=int)).reshape(shape) - 0.6
            text = np.array2string(spread.round(2), separator=", ").replace("\n", "")
            return f"(np.resize({name}, {shape}) + np.array({text}))"
        return self._picked(self.new_input(shape))

    def vector(self, size: int | None = None) -> str:
        return self.of_shape((size,)) if size else self.of_shape((self.of(3, 3, 4),))

    def matrix(self, rows: int | None = None, columns: int | None = None) -> str:
        shape = self.of((2, 3), (3, 3), (3, 2), (3, 4))
        return self.of_shape(shape if rows is None else (rows, columns))

    def square(self, shape: tuple | None = None) -> str:
        return self.of_shape(shape or self.of((3, 3), (3, 3), (2, 3, 3)))

    def number_value(self) -> str:
        """Pick a value of rank 0, often an entry of an array."""
        name = self.filled()
        shape = self.last
        self.shapes[-1] = ()
        if not shape:
            return name
        return f"{name}[{', '.join(str(self.rng.integers(-n, n)) for n in shape)}]"

    def _partner(self, shape: tuple) -> Callable[[tuple], bool]:
        def fits(other: tuple) -> bool:
            try:
                return np.prod(np.broadcast_shapes(shape, other), dtype=int) <= 40
            except ValueError:
                return False

        return fits

    def like(self) -> str:
        """Pick a value that broadcasts with the last one."""
        return self.pick(self._partner(self.last))

    def same(self) -> str:
        shape = self.last
        return self.pick(lambda other: other == shape) if shape in SHAPES else self._any_of(shape)

    def _any_of(self, shape: tuple) -> str:
        return self._picked(self.of(*[n for n, x in self.values.items() if x.shape == shape]))

    def operand(self) -> str:
        return self.like() if self.rng.random() < 0.7 else self.constant()

    def constant(self) -> str:
        """Write a constant that broadcasts with the last value."""
        n = self.last[-1] if self.last else 1
        numbers = [int(i) for i in self.rng.integers(1, 4, n)]
        signed = [float(i) - 2.25 for i in numbers]
        return self.of(
            self.number(),
            f"np.array({numbers})",
            f"np.array({signed})",
            repr(signed) if self.last and n > 1 else self.number(),
            f"np.array({numbers}, np.int8)",
            f"np.array({signed}, np.float32)",
            *("np.array(2)", "np.float32(0.3)", "np.float16(0.7)", "np.uint8(3)", "True"),
        )

    # --- values made fit ---

    def positive(self, shape: tuple | None = None) -> str:
        name = self.x() if shape is None else self.of_shape(shape) if shape else self.number_value()
        return f"(0.5 + np.square({name}))"

    def positive_like(self) -> str:
        return f"(0.5 + np.square({self.like()}))"

    def positive_same(self) -> str:
        return f"(0.5 + np.square({self.same()}))"

    def positive_smaller(self) -> str:
        shape = self.last

        def fits(other: tuple) -> bool:
            return self._partner(shape)(other) and np.broadcast_shapes(shape, other) == shape

        return f"(0.5 + np.square({self.pick(fits)}))"

    def below_one(self) -> str:
        return f"(0.9 * np.sin({self.x()}))"

    def holes(self) -> str:
        name = self.filled_array()
        shape = self.last
        mask = self.rng.random(shape) < 0.3
        return f"np.where(np.array({mask.tolist()}), np.nan, {name})"

    def invertible(self, shape: tuple | None = None) -> str:
        name = self.square(shape)
        return f"(np.tanh({name}) + 4.0 * np.eye({self.last[-1]}))"

    def definite(self, shape: tuple | None = None) -> str:
        name = self.square(shape)
        return f"(np.tanh({name}) @ np.swapaxes(np.tanh({name}), -1, -2) + np.eye(3))"

    def symmetric(self, shape: tuple | None = None) -> str:
        name = self.square(shape)
        turned = f"np.swapaxes(np.tanh({name}), -1, -2)"
        return f"(np.tanh({name}) + {turned} + np.diag([-9.0, 1.0, 12.0]))"

    def spread(self, shape: tuple | None = None) -> str:
        name = self.of_shape(shape or self.of((3, 3), (2, 3), (3, 2)))
        rows, columns = self.last[-2:]
        return f"(0.3 * np.tanh({name}) + np.eye({rows}, {columns}) * {[7.0, 4.0, 2.0][:columns]})"

    def tall(self, shape: tuple | None = None) -> str:
        return self.spread(shape or self.of((3, 2), (3, 3)))

    # --- masks and flags ---

    def mask(self) -> str:
        name = self.x()
        return f"{name} > {self.level()}"

    def mask_like(self, name: str) -> str:
        return f"{name} > {self.level()}"

    def fixed_mask(self) -> str:
        mask = self.rng.random(self.last) < 0.7
        if mask.ndim:
            mask[..., 0] = True
        return f"np.array({mask.tolist()})"

    def flags(self) -> str:
        if not self.others:
            raise Unfit
        name = self.of(*self.others)
        self.shapes.append(self.others[name].shape)
        self.names.append(name)
        return name

    def flags_of_last(self) -> str:
        return f"np.array({(self.values[self.last_name] > self._level).tolist()})"

    # --- axes, keys and other arguments, for the last value ---

    def axis(self) -> str:
        rank = len(self.last)
        if not rank:
            raise Unfit
        return str(self.rng.integers(-rank, rank))

    def maybe_axis(self) -> str:
        if not self.last or self.rng.random() < 0.3:
            return ""
        return f", axis={self.axis()}"

    maybe_one_axis = maybe_axis

    def maybe_axes(self) -> str:
        rank = len(self.last)
        if rank >= 2 and self.rng.random() < 0.35:
            axes = self.rng.permutation(rank)[: self.of(1, 2)]
            signed = tuple(int(a) - rank * int(self.of(0, 1)) for a in axes)
            return f", axis={signed}"
        return self.maybe_axis()

    def axes_only(self) -> str:
        return self.maybe_axes().removeprefix(", ") or "axis=None"

    def keep(self) -> str:
        return self.of("", "", ", keepdims=True")

    def order(self) -> str:
        return self.of("", ", order='F'", ", order='C'")

    def shape6(self) -> str:
        return self.of("(3, 2)", "6", "(-1, 1, 2)", "(1, 6)", "(6, -1)")

    def q(self) -> str:
        return self.of("0.3", "0.62", "[0.2, 0.71]", "np.array([[0.4], [0.9]])")

    def method(self) -> str:
        return repr(self.of("linear", "lower", "higher", "midpoint", "nearest"))

    def mode(self) -> str:
        return repr(self.of("full", "same", "valid"))

    def pad_mode(self) -> str:
        modes = ("edge", "reflect", "symmetric", "wrap", "mean", "maximum", "minimum")
        return repr(self.of(*modes, "linear_ramp"))

    def vector_order(self) -> str:
        return self.of("None", "1", "2", "3", "2.5", "0.5", "-1", "-2", "np.inf", "-np.inf")

    def matrix_order(self) -> str:
        return self.of("'fro'", "'nuc'", "1", "-1", "2", "-2", "np.inf", "-np.inf")

    def spec2(self) -> str:
        return repr(
            self.of(
                "ij,ij->", "ij,ij->ij", "ij,kj->ik", "ij,ik", "ab,cb->ca", "ij,kl->jl", "ij,ij->j"
            )
        )

    def product(self, sign: str) -> str:
        left, right = self.of(((2, 3), (3, 3)), ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)))
        end = ")" if sign.endswith("(") else ""
        return f"{self.of_shape(left)}{sign}{self.of_shape(right)}{end}"

    def key(self, rank: int) -> str:
        """An index of every kind, for an array of this rank whose axes have 2 entries or more."""
        basic = ("0", "-1", "1:", "::-1", ":1", ":", "-2:", "...", "None, 0", "1:1", "::2")
        arrays = ("[0, -1]", "np.array([1, 0, 1])", "np.array([[0, 1], [1, 1]])")
        parts = [self.of(*basic, *basic, *arrays) for _ in range(self.rng.integers(1, rank + 1))]
        if parts.count("...") > 1:
            raise Unfit
        return ", ".join(parts)

    def write_key(self) -> str:
        return self.of("0", "1, 2", ":, -1", "::-2, 1:", "[0, 2], [1, 1]", "..., 0", "-1, ::2")

    unique_key = write_key


def draw(seed: Any, module: str | None = None) -> Program | None:
    """Draw a program; None where nothing came of this seed."""
    rng = np.random.default_rng(seed)
    dtype = np.float32 if rng.random() < 0.15 else np.float64
    module = "dualnet.numpy" if rng.random() < 0.5 else "numpy"
    state, steps = Draw(rng, dtype), []
    names = namespace(module)
    count, kinds = int(rng.integers(2, 8)), list(KINDS)
    for _ in range(4 * count):
        if len(steps) == count:
            break
        step = drawn_step(state, kinds[rng.integers(len(kinds))], names)
        if step is not None:
            steps.append(step)
    if not steps:
        return None
    program = Program(dict(state.inputs), tuple(steps), (), module, seed)
    return with_results(program, state.values)


def drawn_step(state: Draw, kind: str, namespace: dict) -> Step | None:
    """Draw a call and evaluate it; None where it cannot be drawn, or its value is of no use."""
    before = dict(state.inputs), dict(state.values)
    state.names, state.shapes = [], []
    name = f"v{len(state.values) + len(state.others)}"
    try:
        texts = KINDS[kind](state)
        text, for_jax = texts if isinstance(texts, tuple) else (texts, texts)
        text, for_jax = _statement(text, name), _with_arrays(_statement(for_jax, name))
        value = _run(text, {**namespace, **state.values, **state.others})[name]
        if _is_usable(value) and np.abs(value).max(initial=0.0) > 20 and value.dtype.kind == "f":
            text, for_jax = (f"{t}; {name} = np.arctan({name})" for t in (text, for_jax))
            value = _run(text, {**namespace, **state.values, **state.others})[name]
        if _is_usable(value):
            kept = state.values if value.dtype.kind == "f" else state.others
            kept[name] = np.asarray(value)
            return Step(name, kind, text, for_jax)
    except (Unfit, ValueError, TypeError, IndexError, np.exceptions.AxisError, SyntaxError):
        pass
    state.inputs, state.values = before
    return None


def _statement(text: str, name: str) -> str:
    return text.replace("OUT", name) if "OUT" in text else f"{name} = {text}"


def _with_arrays(text: str) -> str:
    """Turn lists that are operands into arrays, as JAX has it."""
    text = re.sub(r"\b([vx]\d+)\[(\[[^\]]*\])\]", r"\1[np.array(\2)]", text)
    return re.sub(r"(?<=[-=+*/@%<>] )(\[(?:[^\[\]]|\[[^\]]*\])*\])(?= |$)", r"np.array(\1)", text)


def _run(text: str, namespace: dict) -> dict:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        exec(text, namespace)
    return namespace


def _is_usable(value: Any) -> bool:
    return (
        isinstance(value, (np.ndarray, np.generic))
        and value.dtype.kind in "fiub"
        and value.size <= LARGEST
        and value.ndim <= 4
        and bool(np.isfinite(value).all())
    )


def with_results(program: Program, values: dict) -> Program:
    """Let a program return every floating value that nothing else uses."""
    used = Counter(
        name
        for step in program.steps
        for name in set(re.findall(r"\b[vx]\d+\b", step.text)) - {step.name}
    )
    results = [s.name for s in program.steps if not used[s.name] and s.name in values]
    return replace(program, results=tuple(results)) if results else None  # type: ignore[return-value]
