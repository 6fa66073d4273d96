"""Functions of `dualnet.nn`: activations, convolution, pooling, normalization."""

from __future__ import annotations

from typing import Any

from dualnet.backends.processes import Alone
from dualnet.check import references
from dualnet.check.table import Row, adder, distinct, far_apart
from dualnet.images.windows import Geometry
from dualnet.nn import (
    adaptive_average_pool,
    average_pool,
    conv2d,
    gelu,
    max_pool,
    normalize,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from dualnet.nn.affine import add_bias, affine
from dualnet.nn.normalization import _fused
from dualnet.nn.over_processes import sum_over_processes
from dualnet.nn.pooling import _largest
from dualnet.nn.scaling import scaled

ROWS: list[Row] = []


class Mirrored(Alone):
    """Two processes, of which the other one has the same arrays as this one."""

    size = 2

    def add(self, one: Any) -> Any:
        return 2.0 * one


# --- activations ---------------------------------------------------------------------------------

row = adder(ROWS, "elementwise")
row(
    relu,
    "",
    lambda _xp, x: relu(x),
    far_apart(4, 6),  # with signs so many that they are hardly ever all the same
    composed=lambda xp, x: references.relu(xp, x),
    exact=True,
)
row(
    sigmoid,
    "",
    lambda _xp, x: sigmoid(x),
    (2, 3),
    composed=lambda xp, x: references.sigmoid(xp, x),
)
row(tanh, "", lambda _xp, x: tanh(x), (2, 3))
row(gelu, "", lambda _xp, x: gelu(x), (2, 3), composed=lambda xp, x: references.gelu(xp, x))

row = adder(ROWS, "layers")
_shape: tuple[int, ...]
_axes: tuple[int, ...]
for _shape in ((3, 2), (2, 3, 2)):
    row(
        affine,
        f"{_shape}",
        lambda _xp, x, w, b: affine(x, w, b),
        _shape,
        (2, 4),
        (4,),
        composed=lambda _xp, x, w, b: x @ w + b,
    )
row(
    add_bias,
    "",
    lambda _xp, y, b: add_bias(2.0 * y, b),
    (2, 3, 4),
    (4,),
    composed=lambda _xp, y, b: 2.0 * y + b,
)
for _shape, _axis in (((3,), -1), ((2, 3), -1), ((2, 3), 0), ((2, 3, 4), 1), ((2, 3, 4), -2)):
    row(
        softmax,
        f"{_shape}, axis={_axis}",
        lambda _xp, x, axis=_axis: softmax(x, axis),
        _shape,
        composed=lambda xp, x, axis=_axis: references.softmax(xp, x, axis),
    )

for _gain in ((2,), (3, 1)):
    row(
        scaled,
        f"{_gain}",
        lambda _xp, y, gain, bias: scaled(y, gain, bias),
        (4, 3, 2),
        _gain,
        _gain,
        composed=lambda _xp, y, gain, bias: y * gain + bias,
    )

# --- normalization: all the ways in which axes can lie -------------------------------------------

for _shape, _axes in (
    ((5,), (0,)),
    ((3, 4), (-1,)),
    ((4, 3), (0,)),
    ((2, 3, 4), (-2,)),
    ((2, 3, 4), (-2, -1)),
    ((2, 3, 4), (0, 2)),
    ((2, 3, 2, 3), (1, 3)),
    ((2, 3, 2, 3), (0, 2)),
    ((2, 3, 2, 2, 3), (0, 2, 4)),
    ((2, 1, 4), (1, 2)),
    ((2, 4), (-2, -1)),
):
    row(
        normalize,
        f"{_shape}, axes={_axes}",
        lambda _xp, x, axes=_axes: normalize(x, axes),
        distinct(*_shape),
        composed=lambda xp, x, axes=_axes: references.normalize(xp, x, axes),
    )
row(
    normalize,
    "epsilon",
    lambda _xp, x: normalize(x, (-1,), 0.5),
    distinct(3, 4),
    composed=lambda xp, x: references.normalize(xp, x, (-1,), 0.5),
)
row(
    sum_over_processes,
    "two of equal arrays",
    lambda _xp, x: sum_over_processes(x, Mirrored()),
    (2, 3),
    composed=lambda _xp, x: 2.0 * x,
)
# what the second derivative of normalize is made of
row(
    _fused,
    "",
    lambda _xp, t, y, s: _fused(t, y, s, (-1,)),
    (2, 3, 4),
    (3, 4),
    (3, 1),
)

# --- convolution and pooling ---------------------------------------------------------------------

row = adder(ROWS, "convolution", exact=True)
for _note, _x, _w, _how in (
    ("", (2, 4, 5, 2), (3, 2, 2, 3), {}),
    ("one pixel", (2, 3, 2, 3), (1, 1, 3, 2), {}),
    ("stride", (2, 5, 6, 2), (2, 3, 2, 3), {"stride": (2, 3)}),
    ("padding", (2, 3, 4, 2), (3, 3, 2, 2), {"padding": ((1, 1), (2, 0))}),
    ("groups", (2, 4, 3, 4), (2, 2, 2, 6), {"groups": 2}),
    ("depthwise", (2, 4, 3, 3), (3, 3, 1, 3), {"groups": 3, "padding": ((1, 1), (1, 1))}),
    (
        "everything",
        (2, 5, 4, 4),
        (3, 2, 2, 2),
        {"groups": 2, "stride": (2, 1), "padding": ((2, 1), (0, 1))},
    ),
):
    row(
        conv2d,
        _note,
        lambda _xp, x, w, how=_how: conv2d(x, w, **how),
        _x,
        _w,
        composed=lambda xp, x, w, how=_how: references.conv2d(xp, x, w, **how),
    )


_NONE = ((0, 0), (0, 0))


def pool(
    function: Any, reference: Any, note: str, window: Any, stride: Any, padding: Any = _NONE
) -> None:
    """A row of a function of windows."""
    row(
        function,
        note,
        lambda _xp, x: function(x, window, stride=stride, padding=padding),
        far_apart(2, 5, 6, 2) if function is max_pool else distinct(2, 5, 6, 2),
        composed=lambda xp, x: reference(xp, x, window, stride, padding),
    )


for _fn, _reference in (
    (max_pool, references.max_pool),
    (average_pool, references.average_pool),
):
    pool(_fn, _reference, "", (2, 3), (2, 3))
    pool(_fn, _reference, "overlapping", (3, 2), (1, 1))
    pool(_fn, _reference, "padding", (3, 2), (2, 2), ((1, 2), (0, 1)))
    pool(_fn, _reference, "stride beyond the window", (1, 2), (3, 3))
row(
    _largest,
    "",
    lambda _xp, x: _largest(x, Geometry((2, 2), (1, 2))),
    far_apart(2, 5, 6, 2),
)
for _size in ((1, 1), (2, 3), (3, 4), (5, 6)):
    row(
        adaptive_average_pool,
        f"{_size}",
        lambda _xp, x, size=_size: adaptive_average_pool(x, size),
        (2, 5, 6, 2),
        composed=lambda xp, x, size=_size: references.adaptive_average_pool(xp, x, *size),
    )
