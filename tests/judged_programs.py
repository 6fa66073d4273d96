"""What dualnet, JAX and difference quotients say of a program's derivatives.

    judge(program)      what became of it: agrees, refused, differs, undecided, ...
    survey(seed, n)     n programs that could be judged, and counts of everything
    shrunk(program)     the smallest program that still fails

Where JAX and dualnet differ, difference quotients decide, of values for first derivatives and of
gradients for second ones.  Where the quotients do not settle (a kink, a jump), or where JAX's own
answer moves as much when the inputs move by a few roundings, nothing can be said: the program is
undecided, and another is drawn in its place.
"""

from __future__ import annotations

import re
import types
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax_by_numpy
import numpy as np
from numpy_programs import Program, draw, made, namespace

import dualnet as dn
from dualnet.errors import DualnetError

K = 3
TOLERANCE = {np.float64: 1e-9, np.float32: 2e-3}
"""Largest error, relative to the largest entry of the result.

What is tighter is decided by the condition, see `_is_ill_conditioned`.
"""


# --- judging -------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What became of a program.

    Attributes:
        kind: "agrees", "refused", "differs", "undecided", "NaN at a kink" (a second derivative,
            by the conventions of dualnet) or "JAX alone" (which differs from dualnet and from
            difference quotients, or cannot run the program).
        detail: what was compared, the refusal, or the reason.
    """

    kind: str
    detail: str = ""


class Case:
    """A program with K directions, weights that mix them, and cotangents, drawn from its seed."""

    def __init__(self, program: Program):
        rng = np.random.default_rng([7, *np.atleast_1d(program.seed)])
        self.program, self.f = program, program.function()
        self.inputs = tuple(program.inputs.values())
        self.dtype = self.inputs[0].dtype
        self.directions = tuple(
            rng.standard_normal((K, *x.shape)).astype(x.dtype) for x in self.inputs
        )
        self.mix = rng.standard_normal(K)
        self.value = [np.asarray(y) for y in plain(self.f, self.inputs)]
        self.cotangents = [rng.standard_normal(y.shape).astype(y.dtype) for y in self.value]

    def mixed(self, stack: Any) -> np.ndarray:
        """Return the sum of K tangents, weighted; JAX gets this one direction for all."""
        return np.tensordot(self.mix, np.asarray(stack, np.float64), 1)

    def by_dualnet(self) -> dict[str, list]:
        """Return the value, tangents, gradients and their tangents: each a list of arrays.

        Reverse over forward, which gives the same as forward over reverse, is asked of one program
        in three.
        """
        f, inputs = self.f, self.inputs
        every = tuple(range(len(inputs)))
        out, moved = dn.jvp(f, inputs, self.directions)
        gradients = dn.vjp(f, *inputs)[1](self.cotangents)

        def loss(*xs: Any) -> Any:
            return _total(f(*xs), self.cotangents)

        _, second = dn.jvp(dn.grad(loss, every), inputs, self.directions)
        results = {
            "value": out,
            "forward": moved,
            "reverse": list(gradients),
            "forward over reverse": list(second),
        }
        if np.sum(self.program.seed) % 3 == 0:
            mixed = tuple(self.mixed(d).astype(self.dtype) for d in self.directions)

            def slope(*xs: Any) -> Any:
                return _total(dn.jvp(f, xs, mixed)[1], self.cotangents)

            results["reverse over forward"] = list(dn.grad(slope, every)(*inputs))
        return results

    def by_jax(self, inputs: tuple | None = None) -> dict[str, list]:
        """Return the same of JAX, in double precision, with the directions mixed into one."""
        import jax

        f = self.program.function_of_jax()
        xs = [np.asarray(x, np.float64) for x in (self.inputs if inputs is None else inputs)]
        mixed = [self.mixed(d) for d in self.directions]
        weights = [np.asarray(w, np.float64) for w in self.cotangents]

        def floats(*xs: Any) -> Any:
            return [jax.numpy.asarray(y) for y in f(*xs)]

        def value_and_gradients(*xs: Any) -> Any:
            out, pull = jax.vjp(floats, *xs)
            return out, pull([w.astype(y.dtype) for w, y in zip(weights, out, strict=True)])

        def everything(xs: Any, mixed: Any) -> Any:
            return jax.jvp(value_and_gradients, xs, mixed)

        flat = iter(jax_by_numpy.evaluate(everything, xs, mixed))
        names = ("value", "reverse", "forward", "forward over reverse")
        results = {n: [next(flat) for _ in (xs if "reverse" in n else weights)] for n in names}
        return {**results, "reverse over forward": results["forward over reverse"]}


def plain(f: Callable, inputs: Any) -> list:
    """Evaluate a program without derivatives."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return f(*(x.copy() for x in inputs))


def _total(out: list, weights: list) -> Any:
    return sum(np.sum(w * y) for w, y in zip(weights, out, strict=True))


def judge(program: Program) -> Verdict:
    """Compare dualnet with NumPy's value and JAX's derivatives."""
    case = Case(program)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            ours = case.by_dualnet()
    except DualnetError as error:
        return Verdict("refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        return Verdict("differs", f"{type(error).__name__}: {error}")
    wrong = _wrong_kinds(case, ours)
    if wrong:
        return Verdict("differs", wrong)
    for name in ("forward", "forward over reverse"):
        ours[name] = [case.mixed(t) for t in ours[name]]
    try:
        theirs = case.by_jax()
    except Exception as error:
        theirs = {}
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if not theirs:
        verdict = _by_differences(case, ours, tuple(ours), {})
        return Verdict("JAX alone", reason) if verdict.kind == "agrees" else verdict
    failed = {n: e for n in ours if (e := largest_error(case, ours[n], theirs[n])) is not None}
    if not failed:
        return Verdict("agrees")
    return _by_differences(case, ours, tuple(failed), theirs)


def _wrong_kinds(case: Case, ours: dict) -> str:
    """Compare value, shapes and dtypes with NumPy's; say what is wrong."""
    for y, out, t in zip(case.value, ours["value"], ours["forward"], strict=True):
        out, t = np.asarray(out), np.asarray(t)
        if out.shape != y.shape or out.dtype != y.dtype:
            return f"value: {out.dtype}{out.shape}, NumPy has {y.dtype}{y.shape}"
        if t.shape != (K, *y.shape) or t.dtype != y.dtype:
            return f"tangent: {t.dtype}{t.shape} of {y.dtype}{y.shape}"
        bound = 1e-12 if y.dtype == np.float64 and case.dtype == np.float64 else 1e-4
        if not np.abs(out - y).max(initial=0.0) <= bound * max(1.0, np.abs(y).max(initial=0.0)):
            return f"value: {out}, NumPy has {y}"
    for name in ("reverse", "forward over reverse", "reverse over forward"):
        for x, g in zip(case.inputs, ours.get(name, case.inputs), strict=True):
            shape = (K, *x.shape) if name == "forward over reverse" else x.shape
            if g.shape != shape or g.dtype != x.dtype:
                return f"{name}: {g.dtype}{g.shape} for {x.dtype}{x.shape}"
    return ""


def largest_error(case: Case, ours: list, theirs: list) -> float | None:
    """Return the largest error, of those beyond the tolerance; None where all is well."""
    scale = max([1.0, *(np.abs(b[np.isfinite(b)]).max(initial=0.0) for b in theirs)])
    worst = None
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            return np.inf
        finite = np.isfinite(a) & np.isfinite(b)
        alike = (np.isnan(a) & np.isnan(b)) | (a == b) | finite
        error = np.abs(a - b)[finite].max(initial=0.0) if alike.all() else np.inf
        size = max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1e-3 * scale)
        if not error <= TOLERANCE[case.dtype.type] * size:
            worst = max(worst or 0.0, error / size)
    return worst


def _by_differences(case: Case, ours: dict, names: tuple, theirs: dict) -> Verdict:
    """Let difference quotients decide where JAX differs, or is not there."""
    if theirs and _is_ill_conditioned(case, ours, theirs, names):
        return Verdict("undecided", "ill-conditioned")
    if theirs and case.dtype == np.float32 and _is_rounding(case, ours, theirs, names):
        return Verdict("undecided", "rounding to single precision")
    double = tuple(np.asarray(x, np.float64) for x in case.inputs)
    mixed = [case.mixed(d) for d in case.directions]

    f = _with_values_stopped(case)

    def value(xs: Any) -> list:
        return plain(f, xs)

    def loss_gradient(xs: Any) -> list:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(dn.vjp(f, *xs)[1]([w.astype(np.float64) for w in case.cotangents]))

    first, settled = _quotient(value, double, mixed)
    if not settled:
        return Verdict("undecided", "a kink or a jump is near")
    slope = sum(float(np.sum(w * t)) for w, t in zip(case.cotangents, first, strict=True))
    second, settled_second = _quotient(loss_gradient, double, mixed)
    right = {"forward": first, "reverse": [np.array(slope)]}
    if settled_second:
        right |= {"forward over reverse": second, "reverse over forward": second}

    def claim(results: dict, name: str) -> list:
        if name != "reverse":
            return results[name]
        return [
            np.array(sum(float(np.sum(g * d)) for g, d in zip(results[name], mixed, strict=True)))
        ]

    tolerance = 1e-5 if case.dtype == np.float64 else 1e-2
    far = {n for n in right if n in ours and _far(claim(ours, n), right[n], tolerance)}
    unknown = {n for n in far if " over " in n and _is_not_finite(ours[n])}
    for n in far - unknown:
        return Verdict("differs", f"{n}: {_shown(ours[n])}, differences say {_shown(right[n])}")
    for n in right.keys() & set(names) - unknown if theirs else ():
        if not _is_not_finite(theirs[n]) and not _far(claim(theirs, n), right[n], tolerance):
            error = largest_error(case, ours[n], theirs[n])
            return Verdict("differs", f"{n}: from JAX's by {error:.1e}, too little for differences")
    if unknown:
        return Verdict("NaN at a kink", ", ".join(sorted(unknown)))
    if not settled_second and set(names) - {"value", "forward", "reverse"}:
        return Verdict("undecided", "differences of gradients do not settle")
    if not theirs:
        return Verdict("agrees")
    return Verdict("JAX alone", f"{', '.join(names)}: differences agree with dualnet")


def _with_values_stopped(case: Case) -> Callable:
    """Make the function in which `stop_gradient` returns what it does at the case's inputs.

    To differences, values that stop are constants.
    """
    values: list = []
    stopped = types.SimpleNamespace(stop_gradient=lambda x: values.append(x) or x)
    names = {**namespace(case.program.module), "dn": stopped}
    plain(made(case.program.text(), dict(names)), case.inputs)

    def f(*xs: Any) -> list:
        rest = iter(values)
        stopped.stop_gradient = lambda _x: next(rest)
        return made(case.program.text(), dict(names))(*xs)

    return f


def _is_not_finite(arrays: Any) -> bool:
    return any(not np.isfinite(a).all() for a in arrays)


def _shown(arrays: Any) -> str:
    return " ".join(str([np.asarray(a).round(6).tolist() for a in arrays]).split())[:300]


def _far(a: list, b: list, tolerance: float) -> bool:
    scale = max([1e-3, *(np.abs(y).max(initial=0.0) for y in b)])
    return not all(
        np.abs(np.asarray(x) - y).max(initial=0.0) <= tolerance * scale
        for x, y in zip(a, b, strict=True)
    )


def _quotient(f: Callable, xs: tuple, directions: list) -> tuple[list, bool]:
    """Return central differences, and whether one-sided ones and a shorter step say the same."""

    def at(step: float) -> list:
        moved = f(tuple(x + step * d for x, d in zip(xs, directions, strict=True)))
        return [np.asarray(y, np.float64) for y in moved]

    step = 1e-5
    here, (up, down), (up2, down2) = at(0.0), (at(step), at(-step)), (at(step / 3), at(-step / 3))
    if any(y.shape != z.shape for y, z in zip(here, up, strict=True)):
        return [], False
    quotients = [(u - d) / (2 * step) for u, d in zip(up, down, strict=True)]
    scale = max([1.0, *(np.abs(q).max(initial=0.0) for q in quotients)])
    for y, u, d, u2, d2, q in zip(here, up, down, up2, down2, quotients, strict=True):
        shorter = (u2 - d2) / (2 * step / 3)
        sides = np.abs((u - y) / step - (y - d) / step).max(initial=0.0)
        if not (np.abs(q - shorter).max(initial=0.0) <= 1e-6 * scale and sides <= 1e-2 * scale):
            return quotients, False
    return quotients, True


def _is_ill_conditioned(case: Case, ours: dict, theirs: dict, names: tuple) -> bool:
    """Tell whether JAX's answers move as much as they differ when inputs move by roundings."""
    if any(largest_error(case, ours[n], theirs[n]) == np.inf for n in names):
        return False
    tiny = 1e-15 if case.dtype == np.float64 else 2e-7
    rng = np.random.default_rng(5)
    for _ in range(2):
        moved = tuple(
            np.asarray(x, np.float64) * (1 + 8 * tiny * rng.standard_normal(x.shape))
            for x in case.inputs
        )
        others = case.by_jax(moved)
        for n in names:
            for a, b, c in zip(ours[n], theirs[n], others[n], strict=True):
                if np.abs(a - b).max(initial=0.0) > 50 * np.abs(c - b).max(initial=0.0):
                    break
            else:
                continue
            break
        else:
            return True
    return False


def _is_rounding(case: Case, ours: dict, theirs: dict, names: tuple) -> bool:
    """Tell whether what single precision differs by is rounding, as of terms that cancel.

    Then the same program in double precision agrees with JAX, and in single precision the answers
    of dualnet itself move about as much when the inputs move by roundings.
    """
    wide = {n: x.astype(np.float64) for n, x in case.program.inputs.items()}
    if judge(replace(case.program, inputs=wide)).kind != "agrees":
        return False
    rng = np.random.default_rng(5)
    moves = dict.fromkeys(names, 0.0)
    for _ in range(3):
        moved = {
            n: x * (1 + np.finfo(x.dtype).eps * rng.integers(-1, 2, x.shape)).astype(x.dtype)
            for n, x in case.program.inputs.items()
        }
        other = Case(replace(case.program, inputs=moved))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            others = other.by_dualnet()
        for name in names:
            for a, b in zip(ours[name], others[name], strict=True):
                b = case.mixed(b) if name in ("forward", "forward over reverse") else b
                moves[name] = max(moves[name], np.abs(np.asarray(a) - b).max(initial=0.0))
    return all(
        np.abs(a - b).max(initial=0.0) <= 10 * moves[name]
        for name in names
        for a, b in zip(ours[name], theirs[name], strict=True)
    )


# --- shrinking -----------------------------------------------------------------------------------


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Find the smallest program that still fails, by making values inputs and dropping results."""
    values = program.values()
    for name in program.results:
        alone = _cleaned(replace(program, results=(name,)))
        if fails(alone):
            program = alone
            break
    for step in program.steps:
        if step not in program.steps:
            continue
        value = np.asarray(values[step.name])
        if value.dtype.kind != "f" or step.name in program.results:
            continue
        rest = tuple(s for s in program.steps if s is not step)
        cut = replace(program, steps=rest, inputs={**program.inputs, step.name: value})
        cut = _cleaned(cut)
        if fails(cut):
            program = cut
    for step in reversed(program.steps):
        value = np.asarray(values[step.name])
        if value.dtype.kind == "f" and step.name not in program.results:
            earlier = _cleaned(replace(program, results=(step.name,)))
            if fails(earlier):
                program = earlier
    return program


def _cleaned(program: Program) -> Program:
    """Drop steps and inputs that no result needs."""
    needed, steps = set(program.results), []
    for step in reversed(program.steps):
        if step.name in needed:
            steps.append(step)
            needed |= set(re.findall(r"\b[vx]\d+\b", step.text + step.jax))
    inputs = {
        n: x for n, x in program.inputs.items() if n in needed and n not in {s.name for s in steps}
    }
    return replace(
        program,
        inputs=inputs or dict(list(program.inputs.items())[:1]),
        steps=tuple(reversed(steps)),
    )


# --- many programs -------------------------------------------------------------------------------


@dataclass
class Survey:
    """Counts over many programs.

    Attributes:
        verdicts: how many programs there were of each kind of verdict.
        kinds: how often each entry of the vocabulary was in a program that was judged.
        refusals: their verdicts and programs.
        alone, undecided: the details, counted.
        at_kinks: programs whose second derivative is NaN.
        failures: programs that differ, with their verdicts.
    """

    verdicts: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    refusals: list = field(default_factory=list)
    alone: Counter = field(default_factory=Counter)
    at_kinks: list = field(default_factory=list)
    undecided: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)


def survey(seed: int, number: int) -> Survey:
    """Judge programs until so many could be judged; of the others there are counts alone."""
    found, i = Survey(), 0
    while sum(found.verdicts[kind] for kind in ("agrees", "differs", "refused")) < number:
        program = draw([seed, i])
        i += 1
        if program is None:
            continue
        verdict = judge(program)
        found.verdicts[verdict.kind] += 1
        if verdict.kind == "agrees":
            found.kinds.update(program.kinds)
        elif verdict.kind == "refused":
            found.refusals.append((verdict.kind, verdict.detail, program))
        elif verdict.kind == "JAX alone":
            found.alone[verdict.detail] += 1
        elif verdict.kind == "NaN at a kink":
            found.at_kinks.append(program)
        elif verdict.kind == "undecided":
            found.undecided[verdict.detail] += 1
        else:
            found.failures.append((program, verdict))
    return found
