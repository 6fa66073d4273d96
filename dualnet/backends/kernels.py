"""CUDA kernels beside the functions that they replace, and how they are compiled and launched.

A kernel's first lines give the place of each argument; the sources in the folder `cuda` say what
it computes.  Whatever a kernel does not serve, it leaves to the function written in NumPy's calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import cupy
import numpy as np

KERNELS: dict[str, Callable] = {}
"""Name of a replaceable function → what CuPy arrays get in its place."""

_REAL = {"float32": "float", "float64": "double"}


def source(name: str) -> str:
    """The CUDA source `cuda/NAME.cu`."""
    return (files("dualnet.backends") / "cuda" / f"{name}.cu").read_text(encoding="utf-8")


class Module:
    """One source file, compiled when first used, once for each floating-point dtype.

    Args:
        name: of the file in `cuda`, without its suffix.
        threads: in a block; a power of 2.
    """

    def __init__(self, name: str, threads: int = 256):
        self.name = name
        self.threads = threads
        self._compiled: dict[str, Any] = {}

    def launch(self, kernel: str, dtype: Any, blocks: int, *arguments: Any) -> None:
        """Run a kernel, unless it has nothing to do.

        Args:
            kernel: its name in the source.
            dtype: float32 or float64, what REAL is.
            blocks: how many blocks of threads.
            arguments: CuPy arrays, contiguous, and NumPy scalars of the very types it takes.
        """
        if not blocks:
            return
        real = _REAL[np.dtype(dtype).name]
        if real not in self._compiled:
            options = ("--std=c++17", f"-DREAL={real}", f"-DTHREADS={self.threads}")
            self._compiled[real] = cupy.RawModule(code=source(self.name), options=options)
        self._compiled[real].get_function(kernel)((blocks,), (self.threads,), arguments)

    def over(self, size: int, kernel: str, dtype: Any, *arguments: Any) -> None:
        """Run a kernel with one thread for each of `size` numbers."""
        self.launch(kernel, dtype, -(-size // self.threads), *arguments)


_WINDOWS = Module("windows")
_NORMALIZATION = Module("normalization")
_ACTIVATIONS = Module("activations")
_LOSSES = Module("losses", threads=128)
_OPTIMIZERS = Module("optimizers")


def kernel_for(name: str) -> Callable:
    """Decorator: what to call in the place of the replaceable function of that name."""

    def keep(function: Callable) -> Callable:
        KERNELS[name] = function
        return function

    return keep


def _serves(*arrays: Any) -> bool:
    """Whether these are CuPy arrays of one dtype that the sources are written for."""
    dtypes = {a.dtype for a in arrays}
    on_device = all(isinstance(a, cupy.ndarray) for a in arrays)
    return on_device and len(dtypes) == 1 and dtypes.pop().name in _REAL


def _flat(*arrays: Any) -> list[Any]:
    return [cupy.ascontiguousarray(a) for a in arrays]


_DEVICE_BYTES = 1 << 28


@kernel_for("bytes_at_a_time")
def _bytes_at_a_time(like: Any, in_cache: int) -> int:
    """Large pieces, as each is a launch; but no more temporaries than fit beside all else."""
    return _DEVICE_BYTES


# --- windows -------------------------------------------------------------------------------------


def _geometry(g: Any, image: tuple, channels: int, places: tuple) -> list[Any]:
    (top, _), (left, _) = g.padding
    numbers = (*image, channels, *places, *g.window, *g.stride, top, left)
    return [np.int32(n) for n in numbers]


@kernel_for("view")
def _view(padded: Any, geometry: Any) -> Any:
    """CuPy's own sliding_window_view copies the window's size to the device and waits for it."""
    m, h, w, *rest = padded.shape
    of_m, of_h, of_w, *of_rest = padded.strides
    (kh, kw), (down, across) = geometry.window, geometry.stride
    shape = (m, (h - kh) // down + 1, (w - kw) // across + 1, *rest, kh, kw)
    strides = (of_m, of_h * down, of_w * across, *of_rest, of_h, of_w)
    return cupy.lib.stride_tricks.as_strided(padded, shape, strides)


@kernel_for("unfold")
def _unfold(x: Any, geometry: Any) -> Any:
    if not _serves(x):
        return NotImplemented
    m, *image, c = x.shape
    places = geometry.places(tuple(image))
    out = cupy.empty((m, *places, math.prod(geometry.window), c), x.dtype)
    sizes = _geometry(geometry, tuple(image), c, places)
    _WINDOWS.over(out.size, "unfold", x.dtype, *_flat(x), out, np.int64(out.size), *sizes)
    return out


@kernel_for("fold")
def _fold(y: Any, geometry: Any, image: tuple) -> Any:
    if not _serves(y):
        return NotImplemented
    out = cupy.empty((y.shape[0], *image, y.shape[-1]), y.dtype)
    sizes = _geometry(geometry, image, y.shape[-1], y.shape[1:3])
    _WINDOWS.over(out.size, "fold", y.dtype, *_flat(y), out, np.int64(out.size), *sizes)
    return out


@kernel_for("weigh")
def _weigh(x: Any, weights: Any, geometry: Any) -> Any:
    if not _serves(x, weights):
        return NotImplemented
    k, m, *image, c = x.shape
    out = cupy.empty((k, m, *weights.shape[2:4], c), x.dtype)
    sizes = np.int64(out.size), np.int64(m)
    of_windows = _geometry(geometry, tuple(image), c, weights.shape[2:4])
    _WINDOWS.over(out.size, "weigh", x.dtype, *_flat(x, weights), out, *sizes, *of_windows)
    return out


@kernel_for("spread")
def _spread(y: Any, weights: Any, geometry: Any, image: tuple) -> Any:
    if not _serves(y, weights):
        return NotImplemented
    k, m, *places, c = y.shape
    out = cupy.empty((k, m, *image, c), y.dtype)
    sizes = np.int64(out.size), np.int64(m)
    of_windows = _geometry(geometry, image, c, tuple(places))
    _WINDOWS.over(out.size, "spread", y.dtype, *_flat(y, weights), out, *sizes, *of_windows)
    return out


@kernel_for("zeros_plus")
def _zeros_plus(x: Any, positions: Any, shape: tuple) -> Any:
    """Where several numbers meet at one place, the order in which they are added is not fixed."""
    if not _serves(x):
        return NotImplemented
    k, n, size = x.shape[0], math.prod(positions.shape), math.prod(shape)
    out = cupy.zeros((k, *shape), x.dtype)
    positions = cupy.asarray(positions, np.int64)
    sizes = (np.int64(number) for number in (k, n, size))
    _WINDOWS.over(k * n, "scatter", x.dtype, *_flat(x, positions), out, *sizes)
    return out


# --- normalization -------------------------------------------------------------------------------

_FEWEST_BLOCKS = 64
"""Below so many blocks most of the device would be idle while a few sum up long runs."""
_LONG_RUN = 1 << 12


def _runs(view: Any, directions: int = 1) -> tuple[int, int, list] | None:
    """Blocks of one direction, lanes, and the sizes M, B, D; None where blocks would be few."""
    lanes = 32 if view.d == 1 and view.b > 1 else 1
    blocks = view.a * -(-view.b // lanes)
    if blocks * directions < _FEWEST_BLOCKS and view.m * view.d > _LONG_RUN:
        return None
    return blocks, lanes, [np.int64(view.m), np.int32(view.b), np.int32(view.d), np.int32(lanes)]


@kernel_for("normalized_in_view")
def _normalized(x: Any, view: Any, epsilon: float) -> Any:
    runs = _runs(view)
    if runs is None or not _serves(x):
        return NotImplemented
    y, s = cupy.empty(x.shape, x.dtype), cupy.empty(view.kept, x.dtype)
    blocks, _, sizes = runs
    arguments = (*_flat(x), y, s, *sizes, x.dtype.type(epsilon))
    _NORMALIZATION.launch("normalized", x.dtype, blocks, *arguments)
    return y, s


@kernel_for("moments_in_view")
def _moments(x: Any, view: Any) -> Any:
    runs = _runs(view)
    if runs is None or not _serves(x):
        return NotImplemented
    mean, variance = cupy.empty(view.kept, x.dtype), cupy.empty(view.kept, x.dtype)
    blocks, _, sizes = runs
    arguments = (*_flat(x), mean, variance, *sizes)
    _NORMALIZATION.launch("moments", x.dtype, blocks, *arguments)
    return mean, variance


@kernel_for("tangent_in_view")
def _tangent(t: Any, y: Any, s: Any, view: Any) -> Any:
    k = t.shape[0]
    runs = _runs(view, k)
    if runs is None or t.shape[1:] != y.shape or not _serves(t, y, s):
        return NotImplemented
    out = cupy.empty(t.shape, t.dtype)
    blocks, _, sizes = runs
    arguments = (*_flat(t, y, s), out, np.int64(y.size), np.int64(blocks), *sizes)
    _NORMALIZATION.launch("tangent", t.dtype, k * blocks, *arguments)
    return out


# --- activations ---------------------------------------------------------------------------------


@kernel_for("_relu_and_slope")
def _relu_and_slope(x: Any) -> Any:
    if not _serves(x):
        return NotImplemented
    y, slope = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    _ACTIVATIONS.over(x.size, "relu", x.dtype, *_flat(x), y, slope, np.int64(x.size))
    return y, slope


# --- losses --------------------------------------------------------------------------------------


@kernel_for("_losses_and_errors")
def _losses_and_errors(logits: Any, labels: Any) -> Any:
    if not (_serves(logits) and isinstance(labels, cupy.ndarray)):
        return NotImplemented
    n, classes = logits.shape
    losses, errors = cupy.empty(n, logits.dtype), cupy.empty(logits.shape, logits.dtype)
    arguments = (*_flat(logits, labels.astype(np.int64, copy=False)), losses, errors)
    _LOSSES.launch("cross_entropy", logits.dtype, n, *arguments, np.int32(classes))
    return losses, errors


@kernel_for("_losses")
def _losses(logits: Any, labels: Any) -> Any:
    """By the same kernel, so that a loss is the same with and without its derivative."""
    both = _losses_and_errors(logits, labels)
    return both if both is NotImplemented else both[0]


# --- linear systems ------------------------------------------------------------------------------


@kernel_for("least_norm")
def _least_norm(g: Any, right: Any, rounding: float) -> Any:
    """By eigenvectors: the same solution, without asking the device which case it is."""
    values, vectors = cupy.linalg.eigh(g)
    kept = values > rounding * values[-1]
    inverse = cupy.where(kept, 1.0 / cupy.where(kept, values, 1.0), 0.0)
    return vectors @ (inverse * (vectors.T @ right))


# --- optimizers ----------------------------------------------------------------------------------


def _updated(
    kernel: str, g: Any, memories: list, p: Any, numbers: tuple[float, ...]
) -> list[Any] | None:
    """The new memories and, last, the new parameter; None where the kernel does not serve."""
    if not _serves(g, *memories, p):
        return None
    new = [cupy.empty(p.shape, p.dtype) for _ in (*memories, p)]
    scalars = (p.dtype.type(x) for x in numbers)
    arrays = _flat(g, *memories, p)
    _OPTIMIZERS.over(p.size, kernel, p.dtype, *arrays, *new, np.int64(p.size), *scalars)
    return new


@kernel_for("SGD.update_leaf")
def _sgd(rule: Any, g: Any, s: dict, p: Any, lr: float, step: int) -> Any:
    new = _updated("sgd", g, [], p, (lr, rule.weight_decay))
    return NotImplemented if new is None else (new[0], {})


def _with_velocity(kernel: str) -> Callable:
    def update(rule: Any, g: Any, s: dict, p: Any, lr: float, step: int) -> Any:
        numbers = (lr, rule.weight_decay, rule.momentum)
        new = _updated(kernel, g, [s["velocity"]], p, numbers)
        return NotImplemented if new is None else (new[1], {"velocity": new[0]})

    return update


KERNELS["Momentum.update_leaf"] = _with_velocity("momentum")
KERNELS["Nesterov.update_leaf"] = _with_velocity("nesterov")


@kernel_for("LARS.update_leaf")
def _lars(rule: Any, g: Any, s: dict, p: Any, lr: float, step: int) -> Any:
    """Momentum, of a gradient whose lengths CuPy's own sums have found."""
    if not _serves(g, p):
        return NotImplemented
    g = g if len(p.shape) < 2 else rule.adapted(g, p)
    new = _updated("momentum", g, [s["velocity"]], p, (lr, 0.0, rule.momentum))
    return NotImplemented if new is None else (new[1], {"velocity": new[0]})


def _with_moments(decay_in_gradient: bool) -> Callable:
    def update(rule: Any, g: Any, s: dict, p: Any, lr: float, step: int) -> Any:
        root = math.sqrt(1.0 - rule.beta2**step)
        rate = lr * root / (1.0 - rule.beta1**step)
        decay = rule.weight_decay if decay_in_gradient else 0.0
        kept = 1.0 if decay_in_gradient else 1.0 - lr * rule.weight_decay
        betas = (rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2)
        numbers = (rate, rule.epsilon * root, decay, kept, *betas)
        new = _updated("adam", g, [s["first_moment"], s["second_moment"]], p, numbers)
        if new is None:
            return NotImplemented
        return new[2], {"first_moment": new[0], "second_moment": new[1]}

    return update


KERNELS["Adam.update_leaf"] = _with_moments(decay_in_gradient=True)
KERNELS["AdamW.update_leaf"] = _with_moments(decay_in_gradient=False)
