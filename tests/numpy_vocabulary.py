"""The vocabulary of random NumPy programs: for each function, ways to write a call of it.

An entry gets a `Draw`, which picks the operands and says how they are written, and returns the text
of the call: an expression, or statements that give OUT its value.  Where JAX writes it otherwise,
the entry returns a pair of texts.  Which sign an eigenvector has is a convention, so that entries
use vectors in products in which it does not count.
"""

# ruff: noqa: E501, because a call is read as one line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Entry = Callable[[Any], Any]
KINDS: dict[str, Entry] = {}
"""name of an entry → how to draw it"""


def add(**entries: Entry) -> None:
    twice = KINDS.keys() & entries.keys()
    assert not twice, twice
    KINDS.update(entries)


# --- elementwise ---------------------------------------------------------------------------------

_EVERYWHERE = (
    *("sin", "cos", "tanh", "arctan", "arcsinh", "negative", "positive", "square", "conjugate"),
    *("conj", "sinc", "deg2rad", "rad2deg", "radians", "degrees", "real", "nan_to_num", "copy"),
)
_POSITIVE = ("log", "log2", "log10", "log1p", "sqrt", "cbrt", "reciprocal")
_BELOW_ONE = ("arcsin", "arccos", "arctanh", "exp", "exp2", "expm1", "sinh", "cosh", "tan")
_KINKED = ("abs", "absolute", "fabs")
for _name in _EVERYWHERE:
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()})"})
for _name in _POSITIVE:
    add(**{_name: lambda d, name=_name: f"np.{name}({d.positive()})"})
for _name in _BELOW_ONE:
    add(**{_name: lambda d, name=_name: f"np.{name}({d.below_one()})"})
for _name in _KINKED:
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()})"})
add(
    arccosh=lambda d: f"np.arccosh({d.positive()} + 1.0)",
    modf=lambda d: f"np.modf({d.x()})[0]",
    frexp=lambda d: f"np.frexp({d.x()})[0]",
    ldexp=lambda d: f"np.ldexp({d.x()}, {d.of('1', '-2', 'np.array([1])')})",
    where=lambda d: f"np.where({d.mask()}, {d.x()}, {d.like()})",
    where_numbers=lambda d: f"np.where({d.mask_like(x := d.x())}, {x}, {d.number()})",
    clip=lambda d: f"np.clip({d.x()}, {d.of('-0.4', 'None')}, 0.7)",
    clip_by=lambda d: f"np.clip({d.x()}, {d.like()} - 1.0, {d.like()} + 1.0)",
    clip_method=lambda d: f"{d.x()}.clip({d.of('-0.3, 0.4', 'min=0.1', 'max=0.2')})",
    nextafter=lambda d: (f"np.nextafter({(x := d.x())}, 9.0)", f"{x} + 0.0"),
    copysign=lambda d: f"np.copysign({d.x()}, {d.like()})",
    unwrap=lambda d: f"np.unwrap({d.of('4.0', '0.5')} * {d.array()}{d.maybe_axis()})",
)

# --- two operands --------------------------------------------------------------------------------

for _sign in ("+", "-", "*"):
    add(
        **{
            f"x {_sign} y": lambda d, sign=_sign: f"{d.x()} {sign} {d.like()}",
            f"c {_sign} x": lambda d, sign=_sign: (x := d.x()) and f"{d.constant()} {sign} {x}",
            f"x {_sign} c": lambda d, sign=_sign: f"{d.x()} {sign} {d.constant()}",
        }
    )
for _name in ("add", "subtract", "multiply", "maximum", "minimum", "fmax", "fmin", "logaddexp"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()}, {d.operand()})"})
for _name in ("logaddexp2", "hypot", "arctan2"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()}, {d.operand()})"})
add(
    divide=lambda d: f"np.divide({d.x()}, 1.5 + np.square({d.like()}))",
    quotient=lambda d: (x := d.positive()) and f"{d.operand()} / {x}",
    x_over_c=lambda d: f"{d.x()} / {d.of('2', '0.3', 'np.array([4])')}",
    power=lambda d: f"np.power({d.positive()}, {d.operand()})",
    power_operator=lambda d: f"{d.positive()} ** {d.operand()}",
    x_to_integer=lambda d: f"{d.x()} ** {d.of('2', '3', '0', '1', 'np.array([2])')}",
    x_to_fraction=lambda d: f"{d.positive()} ** {d.of('0.5', '-1', '-0.5', '1.5')}",
    number_to_x=lambda d: f"{d.of('2', '0.5', 'np.array([2])', 'np.int8(3)')} ** {d.x()}",
    float_power=lambda d: f"np.float_power({d.positive()}, {d.operand()})",
    remainder=lambda d: f"np.remainder({d.x()}, {d.of('0.7', '-1.3', '2')})",
    modulo=lambda d: f"{d.x()} % {d.of('0.7', '-1.3', '2')}",
    modulo_by=lambda d: f"{d.of('3.3', '-2')} % {d.positive()}",
    modulo_both=lambda d: f"{d.x()} % (1.0 + np.square({d.like()}))",
    fmod=lambda d: f"np.fmod({d.x()}, {d.of('0.7', '-1.3', '2')})",
    floor_divide=lambda d: f"{d.x()} // {d.of('0.7', '-2')} + {d.like()}",
    floor_divide_function=lambda d: f"np.floor_divide({d.x()}, 0.6) * {d.like()}",
    divmod=lambda d: f"divmod({d.x()}, {d.of('0.7', '-1.3')})[{d.of('0', '1')}]",
    np_divmod=lambda d: f"np.divmod({d.x()}, {d.of('0.7', '-1.3')})[{d.of('0', '1')}]",
    heaviside=lambda d: f"np.heaviside({d.x()}, 0.5) * {d.like()}",
    heaviside_of_x=lambda d: f"np.heaviside({d.of('0.0', '1', '-2.0')}, {d.x()})",
    true_divide=lambda d: f"np.true_divide({d.x()}, {d.positive_like()})",
    pow_function=lambda d: f"np.pow({d.positive()}, {d.operand()})",
)

# --- without a slope, whose results go on --------------------------------------------------------

for _name in ("floor", "ceil", "trunc", "rint", "round", "sign", "around"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()}) * {d.like()}"})
for _name in ("ones_like", "zeros_like"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()}) + {d.like()}"})
for _name in ("isnan", "isfinite", "isinf", "signbit", "logical_not", "isreal"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()})"})
for _name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()}, {d.operand()})"})
for _name in ("logical_and", "logical_or", "logical_xor"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()} > 0.1, {d.like()} < 0.3)"})
for _name in ("any", "all", "count_nonzero"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.array()} > 0.2{d.maybe_axis()})"})
for _name in ("argmax", "argmin", "nanargmax", "nanargmin"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.array()}{d.maybe_axis()})"})
for _sign in ("<", "<=", ">", ">=", "==", "!="):
    add(**{f"x {_sign} y": lambda d, sign=_sign: f"{d.x()} {sign} {d.operand()}"})
add(
    round_digits=lambda d: f"np.round({d.x()}, 1) * {d.like()}",
    round_method=lambda d: f"{d.x()}.round() + {d.like()}",
    stop=lambda d: f"dn.stop_gradient({d.x()})",
    stop_part=lambda d: f"{d.x()} * dn.stop_gradient({d.like()})",
    angle=lambda d: f"np.angle({d.x()}) + {d.like()}",
    imag=lambda d: f"np.imag({d.x()}) + {d.like()}",
    imag_method=lambda d: f"{d.x()}.imag + {d.like()}",
    argsort=lambda d: f"np.take_along_axis(x := {d.array()}, np.argsort(x, axis=-1), axis=-1)",
    searchsorted=lambda d: f"np.searchsorted(np.array([-0.5, 0.1, 0.9]), {d.x()})",
    spacing=lambda d: (f"np.spacing({(x := d.x())}) + {(y := d.like())}", f"0.0 * {x} + {y}"),
    digitize=lambda d: f"np.digitize({d.x()}, np.array([-0.5, 0.1, 0.9]))",
    flags_times=lambda d: f"{d.flags()} * {d.x()}",
    flags_plus=lambda d: f"{d.x()} + {d.flags()}",
    isclose=lambda d: f"np.isclose({d.x()}, {d.operand()})",
    allclose=lambda d: f"np.allclose({d.x()}, 0.3) + {d.like()}",
    array_equal=lambda d: f"np.array_equal({d.x()}, {d.like()}) * {d.like()}",
    array_equiv=lambda d: f"np.array_equiv({d.x()}, {d.like()}) + {d.like()}",
    shape=lambda d: f"np.shape({d.array()})[0] * {d.like()}",
    size=lambda d: f"np.size({d.x()}) * {d.like()}",
    ndim=lambda d: f"np.ndim({d.x()}) + {d.like()}",
    iscomplexobj=lambda d: f"np.iscomplexobj({d.x()}) + {d.like()}",
    iscomplex=lambda d: f"np.iscomplex({d.x()}) + {d.like()}",
    result_type=lambda d: f"np.zeros(2, np.result_type({d.x()}))",
    matrix_rank=lambda d: f"np.linalg.matrix_rank({d.square()}) * {d.x()}",
    empty_like=lambda d: f"np.empty_like({d.x()}) * 0.0 + {d.like()}",
    isin=lambda d: f"np.isin(np.floor({d.x()}), np.array([0.0, 1.0]))",
    argpartition=lambda d: f"np.argpartition({d.vector()}, 1)[1]",
)

for _name in ("flatnonzero", "argwhere"):
    add(
        **{
            _name: lambda d, name=_name: (
                f"np.{name}({d.array()} > {d.level()})",
                f"np.{name}({d.flags_of_last()})",
            )
        }
    )
add(
    nonzero=lambda d: (
        f"{(x := d.array())}[np.nonzero({x} > {d.level()})]",
        f"{x}[np.nonzero({d.flags_of_last()})]",
    ),
    nonzero_method=lambda d: (
        f"({(x := d.array())} > {d.level()}).nonzero()[0] * np.sum({x})",
        f"np.nonzero({d.flags_of_last()})[0] * np.sum({x})",
    ),
)

# --- reductions ----------------------------------------------------------------------------------

for _name in ("sum", "mean", "prod", "var", "std", "max", "min", "amax", "amin", "ptp"):
    add(
        **{
            _name: lambda d, name=_name: f"np.{name}({d.filled()}{d.maybe_axes()}{d.keep()})",
            f"{_name} by position": lambda d, name=_name: f"np.{name}({d.filled()}, {d.axis()})",
        }
    )
for _name in ("sum", "mean", "prod", "var", "std", "max", "min"):
    add(
        **{
            f"{_name} method": lambda d, name=_name: (
                f"{d.filled()}.{name}({d.axes_only()}{d.keep()})"
            ),
        }
    )
for _name in ("sum", "mean", "prod", "var", "std"):
    add(
        **{
            f"{_name} where": lambda d, name=_name: (
                f"np.{name}({d.filled()}{d.maybe_axes()}{d.keep()}, where={d.fixed_mask()})"
            ),
            f"{_name} dtype": lambda d, name=_name: (
                f"np.{name}({d.filled()}{d.maybe_axes()}, dtype=np.float64)"
            ),
        }
    )
for _name in ("sum", "prod", "max", "min"):
    add(
        **{
            f"{_name} initial": lambda d, name=_name: (
                f"np.{name}({d.filled()}{d.maybe_axes()}, initial={d.of('0.3', '-2', '1.5')})"
            ),
            f"{_name} initial where": lambda d, name=_name: (
                f"np.{name}({d.filled()}{d.maybe_axes()}, initial=0.25, where={d.fixed_mask()})"
            ),
        }
    )
for _name in ("sum", "prod"):
    add(**{f"{_name} empty": lambda d, name=_name: f"np.{name}({d.empty()}{d.maybe_axis()})"})
for _name in ("var", "std"):
    add(
        **{
            f"{_name} ddof": lambda d, name=_name: (
                f"np.{name}({d.filled()}{d.maybe_axes()}, {d.of('ddof', 'correction')}=1)"
            )
        }
    )
for _name in ("cumsum", "cumprod", "nancumsum", "nancumprod"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.array()}{d.maybe_axis()})"})
for _name in ("cumsum", "cumprod"):
    add(**{f"{_name} method": lambda d, name=_name: f"{d.array()}.{name}({d.axis()})"})
for _name in ("cumulative_sum", "cumulative_prod"):
    add(
        **{
            _name: lambda d, name=_name: (
                f"np.{name}({d.array()}, axis={d.axis()}, include_initial={d.yes_or_no()})"
            )
        }
    )
for _name in ("nansum", "nanmean", "nanprod", "nanmax", "nanmin", "nanstd", "nanvar", "nanmedian"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.holes()}{d.maybe_axis()}{d.keep()})"})
for _name in ("add", "multiply", "maximum", "minimum", "logaddexp", "subtract", "logaddexp2"):
    add(
        **{
            f"{_name}.reduce": lambda d, name=_name: (
                f"np.{name}.reduce({d.filled_array()}{d.maybe_one_axis()}{d.keep()})"
            ),
            f"{_name}.accumulate": lambda d, name=_name: (
                f"np.{name}.accumulate({d.filled_array()}{d.maybe_one_axis()})"
            ),
            f"{_name}.outer": lambda d, name=_name: f"np.{name}.outer({d.vector()}, {d.small()})",
        }
    )
for _name in ("add", "multiply", "maximum"):
    add(
        **{
            f"{_name}.reduceat": lambda d, name=_name: (
                f"np.{name}.reduceat({(x := d.vector())}, [0, 2, 1])",
                f"reduceat(np.{name}, {x}, [0, 2, 1])",
            )
        }
    )
add(
    add_reduce_where=lambda d: f"np.add.reduce({d.filled_array()}, where={d.fixed_mask()})",
    add_at=lambda d: (
        f"OUT = {(x := d.vector(3))} * 1.0; np.add.at(OUT, [0, 2, 0], {(y := d.vector(3))})",
        f"OUT = ({x} * 1.0).at[np.array([0, 2, 0])].add({y})",
    ),
    subtract_at=lambda d: (
        f"OUT = {(x := d.vector(3))} * 1.0; np.subtract.at(OUT, [1, 1, 0], {(y := d.number_value())})",
        f"OUT = ({x} * 1.0).at[np.array([1, 1, 0])].add(-{y})",
    ),
    bincount=lambda d: (
        f"np.bincount(np.array([0, 3, 3]), {d.vector(3)}, minlength={d.of('4', '6')})"
    ),
    trapezoid=lambda d: f"np.trapezoid({d.filled_array()}, dx=0.5, axis={d.axis()})",
    trapezoid_x=lambda d: f"np.trapezoid({d.vector(3)}, np.cumsum({d.positive((3,))}))",
    average=lambda d: f"np.average({d.filled()}{d.maybe_axes()})",
    average_weights=lambda d: (
        f"np.average({d.filled_array()}{d.maybe_axis()}, weights={d.positive_same()}{d.keep()})"
    ),
    average_one_axis=lambda d: f"np.average({d.matrix(2, 3)}, 1, {d.positive((3,))})",
    average_returned=lambda d: (
        f"np.average({d.matrix(2, 3)}, 0, {d.positive((2,))}, returned=True)[{d.of('0', '1')}]"
    ),
    mean_of_list=lambda d: f"dnp.mean([{d.number_value()}, {d.number_value()}, 2.0])",
    apply_over_axes=lambda d: f"np.apply_over_axes(np.sum, {d.filled_array()}, [0])",
)

# --- statistics and sorting ----------------------------------------------------------------------

add(
    median=lambda d: f"np.median({d.filled()}{d.maybe_axes()}{d.keep()})",
    quantile=lambda d: (
        f"np.quantile({d.filled()}, {d.of('0.62', '[0.2, 0.71]')}{d.maybe_axis()}{d.keep()})"
    ),
    quantile_method=lambda d: (
        f"np.quantile({d.filled_array()}, {d.of('0.3', '[0.2, 0.71]')}, axis={d.axis()}, method={d.method()})"
    ),
    quantile_by_q=lambda d: (
        f"np.quantile({d.filled_array()}, 0.5 + 0.1 * np.sin({d.number_value()}))"
    ),
    percentile=lambda d: f"np.percentile({d.filled()}, {d.of('30', '71.5')}{d.maybe_axes()})",
    nanquantile=lambda d: f"np.nanquantile({d.holes()}, {d.of('0.3', '0.62')}{d.maybe_axis()})",
    nanpercentile=lambda d: f"np.nanpercentile({d.holes()}, {d.of('20', '64.5')}{d.maybe_axis()})",
    cov=lambda d: f"np.cov({d.matrix()}, {d.of('bias=True', 'ddof=1', 'rowvar=False', 'None')})",
    cov_two=lambda d: f"np.cov({d.vector(3)}, {d.vector(3)})",
    cov_weights=lambda d: (
        f"np.cov({d.matrix(2, 4)}, fweights=np.array([1, 2, 1, 3]), aweights={d.positive((4,))})"
    ),
    corrcoef=lambda d: f"np.corrcoef({d.matrix(3, 4)}{d.of('', ', rowvar=False')})",
    corrcoef_two=lambda d: f"np.corrcoef({d.vector(4)}, {d.vector(4)})",
    sort=lambda d: f"np.sort({d.array()}{d.maybe_axis()})",
    sort_in_place=lambda d: (
        f"OUT = np.copy({(x := d.filled_array())}); OUT.sort({(axis := d.axis())})",
        f"OUT = np.sort({x}, {axis})",
    ),
    partition=lambda d: f"np.partition({d.vector(4)}, {(k := d.of('1', '2', '-1'))})[{k}]",
    partition_axis=lambda d: f"np.partition({d.matrix(3, 4)}, 1, axis={d.of('0', '-1')})[1, 1]",
    interp=lambda d: f"np.interp({d.x()}, np.array([-2.0, -0.6, 0.5, 1.1]), {d.vector(4)})",
    interp_outside=lambda d: (
        f"np.interp({d.x()}, [-0.4, -0.1, 0.5], {d.vector(3)}, left=-1.0, right={d.number()})"
    ),
    interp_knots=lambda d: (
        f"np.interp({d.x()}, np.cumsum({d.positive((3,))}) - 1.5, {d.vector(3)})"
    ),
    interp_period=lambda d: (
        f"np.interp({d.x()}, np.array([0.0, 0.6, 1.5]), {d.vector(3)}, period={d.of('2.0', '1.7')})"
    ),
)

# --- signals, grids and polynomials --------------------------------------------------------------

for _name in ("convolve", "correlate"):
    add(
        **{
            _name: lambda d, name=_name: f"np.{name}({d.vector()}, {d.vector()}, {d.mode()})",
            f"{_name} constant": lambda d, name=_name: f"np.{name}({d.vector()}, np.array([1, 2]))",
        }
    )
add(
    gradient=lambda d: f"np.gradient({d.vector(4)}, {d.of('0.5', '2')})",
    gradient_axes=lambda d: f"np.gradient({d.matrix(3, 4)})[{d.of('0', '1')}]",
    gradient_axis=lambda d: f"np.gradient({d.matrix(3, 4)}, axis={d.of('0', '1', '-1')})",
    gradient_spacing=lambda d: f"np.gradient({d.vector(4)}, {d.positive(())})",
    diff=lambda d: f"np.diff({d.filled_array()}, axis={d.axis()})",
    diff_twice=lambda d: f"np.diff({d.vector(4)}, n={d.of('2', '0', '3')})",
    diff_prepend=lambda d: f"np.diff({d.vector()}, prepend={d.of('0.5', '1')})",
    diff_prepend_value=lambda d: f"np.diff({d.vector()}, prepend={d.number_value()}, append=2.0)",
    diff_append=lambda d: f"np.diff({d.matrix(2, 3)}, axis=0, append={d.of_shape((1, 3))})",
    ediff1d=lambda d: f"np.ediff1d({d.array()}, to_begin={d.of('None', '1.5')})",
    ediff1d_ends=lambda d: f"np.ediff1d({d.vector()}, {d.vector()})",
    meshgrid=lambda d: (
        f"np.meshgrid({d.vector()}, {d.vector(3)}, indexing={d.of(repr('ij'), repr('xy'))},"
        f" sparse={d.yes_or_no()})[{d.of('0', '1')}]"
    ),
    polyval=lambda d: f"np.polyval({d.vector()}, {d.x()})",
    polyval_constants=lambda d: (
        f"np.polyval({d.of('np.array([2, -1, 3])', 'np.ones(2)')}, {d.x()})"
    ),
    vander=lambda d: f"np.vander({d.vector(3)}, {d.of('2', '4', 'None')}, {d.yes_or_no()})",
    sliding=lambda d: f"np.lib.stride_tricks.sliding_window_view({d.vector()}, 2)",
    sliding_axis=lambda d: (
        f"np.lib.stride_tricks.sliding_window_view({d.matrix(3, 4)}, 2, axis={d.of('0', '1')})"
    ),
    fftshift=lambda d: f"np.fft.fftshift({d.array()})",
    ifftshift=lambda d: f"np.fft.ifftshift({d.array()}, axes={d.axis()})",
    linspace=lambda d: (
        f"np.linspace({d.number_value()}, {d.number_value()}, {d.of('1', '4')}"
        f"{d.of('', ', endpoint=False')})"
    ),
    linspace_arrays=lambda d: f"np.linspace({d.of_shape((3,))}, 2, 3, axis={d.of('0', '-1')})",
    linspace_list=lambda d: f"dnp.linspace([{d.number_value()}, 1.0], {d.of_shape((2,))}, 3)",
    logspace=lambda d: f"np.logspace(np.sin({d.number_value()}), 0.5, 3)",
    geomspace=lambda d: f"np.geomspace({d.positive(())}, 9.0, 3)",
    piecewise=lambda d: (
        f"np.piecewise({(x := d.array())}, [{x} < -0.2, {x} > 0.4],"
        " [lambda z: 2 * z, lambda z: z * z, 0.5])"
    ),
    vectorize=lambda d: f"dnp.vectorize(lambda a, b: a * b + 1.0)({d.array()}, {d.number_value()})",
    apply_along_axis=lambda d: (
        f"np.apply_along_axis(lambda r: r[1:] * r.sum(), {d.of('0', '1', '-1')}, {d.matrix()})"
    ),
    apply_to_numbers=lambda d: (
        f"np.apply_along_axis(lambda r: np.sum(r * r), {d.of('0', '-1')}, {d.matrix()})"
    ),
)

# --- products ------------------------------------------------------------------------------------

add(
    matmul=lambda d: f"{d.product('@')}",
    matmul_function=lambda d: f"np.matmul({d.product(', ')})",
    matmul_stacks=lambda d: f"{d.of_shape((2, 2, 3))} @ {d.of_shape((3, 2))}",
    matmul_stretched=lambda d: f"{d.of_shape((1, 2, 3))} @ {d.of_shape((2, 3, 2))}",
    matmul_list=lambda d: f"{d.matrix(2, 3)} @ [0.5, 1.0, -2.0]",
    matmul_of_list=lambda d: f"{d.matrix(3, 2)} @ [{d.number_value()}, {d.number_value()}]",
    dot=lambda d: f"np.dot({d.product(', ')})",
    dot_method=lambda d: d.product(".dot("),
    dot_number=lambda d: f"np.dot({d.x()}, {d.number_value()})",
    dot_ranks=lambda d: f"np.dot({d.of_shape((2, 2, 3))}, {d.of_shape((2, 3, 3))})",
    inner=lambda d: f"np.inner({d.matrix(2, 3)}, {d.of_shape(d.of((3,), (3, 3), (2, 2, 3)))})",
    vdot=lambda d: f"np.vdot({d.matrix(2, 3)}, {d.matrix(2, 3)})",
    outer=lambda d: f"np.outer({d.small()}, {d.vector()})",
    linalg_outer=lambda d: f"np.linalg.outer({d.vector()}, {d.vector()})",
    kron=lambda d: f"np.kron({d.of_shape(d.of((2,), (2, 3)))}, {d.of_shape(d.of((2, 2), (3,)))})",
    tensordot=lambda d: (
        f"np.tensordot({d.matrix(2, 3)}, {d.of_shape((2, 3, 3))}, {d.of('([1], [1])', '([0, 1], [0, 2])', '([-1, 0], [1, 0])')})"
    ),
    tensordot_count=lambda d: (
        f"np.tensordot({d.of_shape((2, 3))}, {d.of_shape((3, 2))}, {d.of('0', '1')})"
    ),
    linalg_tensordot=lambda d: f"np.linalg.tensordot({d.matrix(2, 3)}, {d.matrix(3, 2)}, axes=1)",
    linalg_matmul=lambda d: f"np.linalg.matmul({d.matrix(2, 3)}, {d.matrix(3, 2)})",
    einsum_two=lambda d: f"np.einsum({d.spec2()}, {d.matrix(2, 3)}, {d.matrix(2, 3)})",
    einsum_three=lambda d: (
        f"np.einsum({d.of(*map(repr, ('ij,jk,k->i', 'ij,jk,k', 'ij,jk,k->', 'ij,jk,k->kji')))},"
        f" {d.matrix(2, 3)}, {d.matrix(3, 3)}, {d.vector(3)}{d.of('', ', optimize=True')})"
    ),
    einsum_one=lambda d: (
        f"np.einsum({d.of(*map(repr, ('ii', 'ii->i', 'ij->', 'ij->ji', 'ji', 'ij->j', '...i->...')))},"
        f" {d.matrix(3, 3)})"
    ),
    einsum_lists=lambda d: (
        f"np.einsum({d.matrix(2, 3)}, [0, 1], {d.matrix(3, 3)}, [1, 2], {d.of('[2, 0]', '[0]', '[]')})"
    ),
    einsum_ellipsis=lambda d: (
        f"np.einsum({d.of(*map(repr, ('...ij,...jk->...ik', '...ij,...jk->k...', '...ij,...jk')))},"
        f" {d.of_shape((2, 2, 3))}, {d.of_shape((3, 2))})"
    ),
    einsum_stretched=lambda d: (
        f"np.einsum('...i,...i->...', {d.of_shape((1, 2, 3))}, {d.of_shape((2, 1, 3))})"
    ),
    vecdot=lambda d: (
        f"np.vecdot({d.of_shape((2, 3))}, {d.of_shape(d.of((3,), (2, 3), (2, 1, 3)))})"
    ),
    linalg_vecdot=lambda d: (
        f"np.linalg.vecdot({d.of_shape((2, 3))}, {d.of_shape((2, 3))}, axis={d.of('0', '1')})"
    ),
    matvec=lambda d: f"np.matvec({d.of_shape(d.of((2, 3), (2, 2, 3)))}, {d.vector(3)})",
    vecmat=lambda d: f"np.vecmat({d.of_shape(d.of((2,), (3, 2)))}, {d.matrix(2, 3)})",
    cross=lambda d: f"np.cross({d.of_shape(d.of((3,), (2, 3)))}, {d.of_shape(d.of((3,), (2, 3)))})",
    cross_axes=lambda d: (
        f"np.cross({d.of_shape((3, 2))}, {d.of_shape((2, 3))}, axisa=0, axisb=1, axisc={d.of('0', '-1')})"
    ),
    linalg_cross=lambda d: f"np.linalg.cross({d.of_shape((2, 3))}, {d.of_shape((2, 3))})",
    multi_dot=lambda d: (
        f"np.linalg.multi_dot([{d.of_shape(d.of((3,), (2, 3)))}, {d.matrix(3, 3)}, {d.of_shape(d.of((3,), (3, 2)))}])"
    ),
    matrix_power=lambda d: (
        f"np.linalg.matrix_power({d.invertible()}, {d.of('-2', '-1', '0', '1', '2', '3')})"
    ),
)

# --- linear algebra ------------------------------------------------------------------------------

_EIGEN = "w, v = np.linalg.eigh({}); "
_SVD = "u, s, vh = np.linalg.svd({}, {}); "
for _name in ("det", "inv"):
    add(**{_name: lambda d, name=_name: f"np.linalg.{name}({d.invertible()})"})
add(
    slogdet=lambda d: f"np.linalg.slogdet({d.invertible()})[1]",
    slogdet_by_name=lambda d: f"np.linalg.slogdet({d.invertible()}).logabsdet",
    slogdet_both=lambda d: f"sign, value = np.linalg.slogdet({d.invertible()}); OUT = sign * value",
    solve_vector=lambda d: f"np.linalg.solve({d.invertible((3, 3))}, {d.vector(3)})",
    solve=lambda d: (
        f"np.linalg.solve({d.invertible()}, {d.of_shape(d.of((3, 2), (3, 3), (2, 3, 3)))})"
    ),
    cholesky=lambda d: f"np.linalg.cholesky({d.definite()}{d.of('', ', upper=True')})",
    eigvalsh=lambda d: f"np.linalg.eigvalsh({d.symmetric()})",
    eigh_values=lambda d: f"np.linalg.eigh({d.symmetric()})[0]",
    eigh_by_name=lambda d: f"np.linalg.eigh({d.symmetric()}).eigenvalues",
    eigh_function=lambda d: _EIGEN.format(d.symmetric((3, 3))) + "OUT = (v * np.tanh(w)) @ v.T",
    eigh_vector=lambda d: _EIGEN.format(d.symmetric((3, 3))) + "OUT = v[:, 0] * v[1, 0]",
    eigh_upper=lambda d: _EIGEN.format(d.symmetric((3, 3)) + ", 'U'") + "OUT = v[:, 1] ** 2",
    svd_values=lambda d: f"np.linalg.svd({d.spread()}, compute_uv=False)",
    svdvals=lambda d: f"np.linalg.svdvals({d.spread()})",
    svd_function=lambda d: _SVD.format(d.spread(), "False") + "OUT = (u * np.sqrt(s)) @ vh",
    svd_truncated=lambda d: (
        _SVD.format(d.spread(), "full_matrices=False") + "OUT = s[0] * np.outer(u[:, 0], vh[0])"
    ),
    svd_square=lambda d: _SVD.format(d.spread((3, 3)), "True") + "OUT = u[:, 1:2] * vh[1]",
    qr=lambda d: f"q, r = np.linalg.qr({d.tall()}); OUT = {d.of('q', 'r', 'r[0] * q[:, :1]')}",
    qr_r=lambda d: f"np.linalg.qr({d.tall()}, mode='r')",
    pinv=lambda d: f"np.linalg.pinv({d.spread()})",
    lstsq=lambda d: f"np.linalg.lstsq({d.tall((3, 2))}, {d.of_shape(d.of((3,), (3, 2)))})[0]",
    lstsq_wide=lambda d: f"np.linalg.lstsq({d.spread((2, 3))}, {d.vector(2)}, rcond=None)[0]",
    cond=lambda d: (
        f"np.linalg.cond({d.spread((3, 3))}, {d.of('2', '-2', '1', '-1', 'np.inf')}) / 4"
    ),
    norm=lambda d: f"np.linalg.norm({d.filled_array(3)})",
    norm_vector=lambda d: f"np.linalg.norm({d.vector()}, {d.vector_order()}{d.keep()})",
    norm_axis=lambda d: (
        f"np.linalg.norm({d.filled_array()}, {d.vector_order()}, axis={d.axis()}{d.keep()})"
    ),
    norm_matrix=lambda d: f"np.linalg.norm({d.spread()}, {d.matrix_order()}{d.keep()})",
    norm_matrix_axes=lambda d: (
        f"np.linalg.norm({d.of_shape((2, 3, 3))}, {d.matrix_order()},"
        f" axis={d.of('(0, 1)', '(2, 0)', '(-1, -2)')}{d.keep()})"
    ),
    vector_norm=lambda d: (
        f"np.linalg.vector_norm({d.filled_array()}, ord={d.of('1', '2', '3', 'np.inf')}{d.maybe_axes()}{d.keep()})"
    ),
    matrix_norm=lambda d: f"np.linalg.matrix_norm({d.spread()}, ord={d.matrix_order()}{d.keep()})",
    tensorsolve=lambda d: (
        f"np.linalg.tensorsolve(np.reshape({d.invertible((4, 4))}, (2, 2, 4)), {d.of_shape((2, 2))})"
    ),
    tensorinv=lambda d: (
        f"np.linalg.tensorinv(np.reshape({d.invertible((4, 4))}, (4, 2, 2)), ind=1)"
    ),
    trace=lambda d: f"np.trace({d.matrix()}, {d.of('0', '1', 'offset=-1')})",
    trace_axes=lambda d: (
        f"np.trace({d.of_shape((2, 3, 3))}, axis1={d.of('1, axis2=2', '-1, axis2=0')})"
    ),
    trace_method=lambda d: f"{d.matrix()}.trace()",
    linalg_trace=lambda d: f"np.linalg.trace({d.of_shape((2, 3, 3))}, offset={d.of('0', '1')})",
    diagonal=lambda d: f"np.diagonal({d.matrix()}, {d.of('0', '1', '-1')})",
    diagonal_axes=lambda d: f"np.diagonal({d.of_shape((2, 3, 3))}, 0, {d.of('1, 2', '-1, 0')})",
    diagonal_method=lambda d: f"{d.matrix()}.diagonal()",
    linalg_diagonal=lambda d: (
        f"np.linalg.diagonal({d.of_shape((2, 3, 3))}, offset={d.of('0', '1')})"
    ),
    diag=lambda d: f"np.diag({d.of_shape(d.of((3,), (2, 3), (3, 3)))}, {d.of('0', '1', '-1')})",
    diagflat=lambda d: f"np.diagflat({d.of_shape(d.of((2, 2), (3,)))}, {d.of('0', '1', '-2')})",
    tril=lambda d: (
        f"np.tril({d.of_shape(d.of((2, 3), (3, 3), (2, 3, 3)))}, {d.of('0', '1', '-1')})"
    ),
    triu=lambda d: (
        f"np.triu({d.of_shape(d.of((2, 3), (3, 3), (2, 3, 3)))}, {d.of('0', '1', '-1')})"
    ),
)

# --- shaping -------------------------------------------------------------------------------------

for _name in ("atleast_1d", "atleast_2d", "atleast_3d"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.x()})"})
for _name in ("hstack", "vstack", "dstack", "stack", "column_stack", "concatenate"):
    add(
        **{
            _name: lambda d, name=_name: f"np.{name}([{d.array()}, {d.same()}])",
            f"{_name} constant": lambda d, name=_name: (
                f"np.{name}(({d.of_shape((3,))}, np.array([1, 2, 3]), {d.of_shape((3,))}))"
            ),
        }
    )
for _name in ("fliplr", "flipud", "matrix_transpose"):
    add(**{_name: lambda d, name=_name: f"np.{name}({d.matrix()})"})
add(
    reshape=lambda d: f"np.reshape({d.of_shape((2, 3))}, {d.shape6()}{d.order()})",
    reshape_stack=lambda d: (
        f"np.reshape({d.of_shape((2, 3, 3))}, {d.of('(3, 6)', '(2, 9)', '(-1, 2, 3)')}{d.order()})"
    ),
    reshape_method=lambda d: f"{d.of_shape((2, 3))}.reshape({d.of('3, 2', '-1', '(6,)', '6, 1')})",
    reshape_number=lambda d: f"np.reshape({d.number_value()}, {d.of('(1,)', '(1, 1)', '()')})",
    ravel=lambda d: f"np.ravel({d.x()}{d.order()})",
    ravel_method=lambda d: f"{d.array()}.ravel({d.of('', repr('F'))})",
    flatten=lambda d: f"{d.array()}.flatten({d.of('', repr('F'))})",
    transpose=lambda d: f"np.transpose({d.array()})",
    transpose_axes=lambda d: (
        f"np.transpose({d.of_shape((2, 3, 3))}, {d.of('(1, 2, 0)', '(2, 0, 1)', '(-1, 0, -2)')})"
    ),
    transpose_method=lambda d: f"{d.array()}.T",
    transpose_method_axes=lambda d: (
        f"{d.of_shape((2, 3, 3))}.transpose({d.of('1, 0, 2', '(2, 1, 0)')})"
    ),
    mT=lambda d: f"{d.matrix()}.mT",
    linalg_matrix_transpose=lambda d: f"np.linalg.matrix_transpose({d.of_shape((2, 3, 3))})",
    swapaxes=lambda d: f"np.swapaxes({d.of_shape((2, 3, 3))}, {d.of('0, 1', '0, -1', '-2, -1')})",
    moveaxis=lambda d: (
        f"np.moveaxis({d.of_shape((2, 3, 3))}, {d.of('0, -1', '(0, 1), (2, 0)', '-1, 0')})"
    ),
    rollaxis=lambda d: (
        f"np.rollaxis({d.of_shape((2, 3, 3))}, {d.of('2', '1, 3', '-1, 1', '0, 2')})"
    ),
    squeeze=lambda d: f"np.squeeze({d.of_shape(d.of((1, 3), (2, 1), (1, 2, 3)))})",
    squeeze_axis=lambda d: f"np.squeeze({d.of_shape((1, 2, 3))}, axis={d.of('0', '-3', '(0,)')})",
    squeeze_method=lambda d: f"{d.of_shape((2, 1))}.squeeze({d.of('', '1', '-1')})",
    expand_dims=lambda d: f"np.expand_dims({d.x()}, {d.of('0', '-1', '(0, 1)')})",
    broadcast_to=lambda d: (
        f"np.broadcast_to({d.of_shape(d.of((), (3,), (1, 3), (2, 1)))}, {d.of('(2, 3)', '(3, 2, 3)')})"
    ),
    broadcast_arrays=lambda d: f"np.broadcast_arrays({d.array()}, {d.like()})[{d.of('0', '1')}]",
    flip=lambda d: f"np.flip({d.array()}{d.maybe_axis()})",
    flip_axes=lambda d: f"np.flip({d.matrix()}, {d.of('(0, 1)', '(-1,)')})",
    rot90=lambda d: f"np.rot90({d.matrix()}, {d.of('1', '2', '-1', '4')})",
    rot90_axes=lambda d: f"np.rot90({d.of_shape((2, 3, 3))}, axes={d.of('(1, 2)', '(2, 0)')})",
    roll=lambda d: f"np.roll({d.array()}, {d.of('1', '-2', '5')}{d.maybe_axis()})",
    roll_axes=lambda d: f"np.roll({d.matrix()}, {d.of('(1, -1)', '2')}, axis=(0, 1))",
    tile=lambda d: f"np.tile({d.small()}, {d.of('2', '(2, 1)', '(1, 2, 1)')})",
    repeat=lambda d: f"np.repeat({d.small()}, 2{d.maybe_axis()})",
    repeat_counts=lambda d: (
        f"np.repeat({d.matrix(2, 3)}, {d.of('np.array([1, 0, 2])', '2')}, axis=1)"
    ),
    repeat_method=lambda d: f"{d.small_array()}.repeat(2)",
    resize=lambda d: f"np.resize({d.filled_array()}, {d.of('(2, 2)', '5')})",
    pad=lambda d: f"np.pad({d.filled_array()}, {d.of('1', '(1, 2)', '(0, 1)')})",
    pad_mode=lambda d: f"np.pad({d.matrix()}, {d.of('1', '((1, 0), (0, 1))')}, {d.pad_mode()})",
    pad_vector=lambda d: f"np.pad({d.vector(4)}, {d.of('(2, 3)', '(5, 1)')}, {d.pad_mode()})",
    pad_dict=lambda d: f"np.pad({d.matrix()}, {{{d.of('0', '1', '-1')}: {d.of('1', '(2, 1)')}}})",
    pad_odd=lambda d: (
        f"np.pad({d.vector(4)}, 2, {d.of(repr('reflect'), repr('symmetric'))}, reflect_type='odd')"
    ),
    pad_value=lambda d: f"np.pad({d.matrix()}, 1, constant_values={d.of('2', d.number_value())})",
    pad_ramp=lambda d: (
        f"np.pad({d.vector()}, (1, 2), 'linear_ramp', end_values={d.of('1.0', '(0.5, 2)')})"
    ),
    pad_some=lambda d: (
        f"np.pad({d.vector(4)}, 1, {d.of(repr('mean'), repr('maximum'), repr('minimum'))}, stat_length=2)"
    ),
    concatenate_axis=lambda d: (
        f"np.concatenate(({d.array()}, {d.same()}), axis={d.of('-1', 'None')})"
    ),
    concatenate_list=lambda d: (
        f"dnp.concatenate([{d.vector()}, [{d.number_value()}, 3 * {d.number_value()}]])"
    ),
    stack_axis=lambda d: f"np.stack([{d.array()}, {d.same()}], axis={d.of('-1', '0')})",
    append=lambda d: f"np.append({d.array()}, {d.of(d.x(), '3.0', '[1, 2]')})",
    append_axis=lambda d: f"np.append({d.array()}, {d.same()}, axis=0)",
    split=lambda d: (
        f"np.split({d.of_shape((2, 3))}, {d.of('3, axis=1', '[1], axis=-1', '2')})[{d.of('0', '1')}]"
    ),
    array_split=lambda d: (
        f"np.array_split({d.vector(4)}, {d.of('3', '[1, 2]')})[{d.of('0', '1', '2')}]"
    ),
    hsplit=lambda d: f"np.hsplit({d.of_shape((2, 3))}, [1])[{d.of('0', '1')}]",
    vsplit=lambda d: f"np.vsplit({d.of_shape((2, 3))}, 2)[{d.of('0', '1')}]",
    dsplit=lambda d: f"np.dsplit({d.of_shape((2, 3, 3))}, 3)[{d.of('0', '2')}]",
    unstack=lambda d: f"np.unstack({d.of_shape((2, 3))}, axis={d.of('0', '1')})[1]",
    block=lambda d: (
        f"np.block([[{d.matrix(2, 3)}, {d.matrix(2, 3)}], [{d.matrix(2, 3)}, np.ones((2, 3))]])"
    ),
    block_row=lambda d: f"dnp.block([{d.vector()}, {d.number_value()}, 1.0])",
    select=lambda d: (
        f"np.select([{(x := d.array())} > 0.3, {x} > -0.5], [{x} * {x}, {d.same()}], {d.of('0', '0.5')})"
    ),
    choose=lambda d: (
        f"np.choose(np.array([0, 1, 1]), [{d.vector(3)}, {d.of_shape(d.of((3,), (2, 3)))}], mode='clip')"
    ),
    insert=lambda d: (
        f"np.insert({d.vector()}, {d.of('1', '-1', 'np.array([0, 2])', '0')}, {d.of('2.5', d.number_value())})"
    ),
    insert_axis=lambda d: (
        f"np.insert({d.matrix(2, 3)}, {d.of('1', '[0, 2]')}, {d.number_value()}, axis={d.of('1', '-1')})"
    ),
    delete=lambda d: f"np.delete({d.filled_array()}, 0{d.maybe_axis()})",
    delete_list=lambda d: (
        f"np.delete({d.matrix(2, 3)}, {d.of('np.array([0, 2])', 'slice(1)')}, axis=1)"
    ),
    compress=lambda d: (
        f"np.compress(np.array([True, False, True]), {(x := d.of_shape((2, 3)))}, {d.of('1', '-1')})",
        f"{x}[:, np.array([0, 2])]",
    ),
    compress_flat=lambda d: (
        f"np.compress(np.array([True, False, True]), {(x := d.of_shape((2, 3)))})",
        f"{x}.ravel()[np.array([0, 2])]",
    ),
    extract=lambda d: (
        f"np.extract(np.array([True, False, True]), {(x := d.of_shape((3,)))})",
        f"{x}[np.array([0, 2])]",
    ),
    trim_zeros=lambda d: (
        f"np.trim_zeros(np.array([0, 1, 2, 0]) * {(x := d.vector(4))})",
        f"({x} * np.array([0, 1, 2, 0]))[1:3]",
    ),
    full_like=lambda d: f"np.full_like({d.x()}, {d.of(d.number_value(), '2.0')}) * {d.like()}",
    full=lambda d: f"dnp.full((2, 3), {d.of_shape(d.of((), (3,), (2, 1)))})",
    array_of_list=lambda d: f"dnp.array([{d.number_value()}, 1, 2 * {d.number_value()}])",
    array_nested=lambda d: (
        f"dnp.array([[{d.number_value()}, 0.0], [{d.number_value()}, {d.number_value()}]])"
    ),
    asarray=lambda d: f"dnp.asarray([{d.vector(3)}, {d.vector(3)}])",
    r_=lambda d: f"dnp.r_[{d.vector()}, {d.number_value()}, 2.0, {d.vector()}]",
    c_=lambda d: f"dnp.c_[{d.vector(3)}, {d.of_shape(d.of((3,), (3, 2)))}]",
    astype=lambda d: f"{d.x()}.astype({d.of('float', 'np.float64')})",
    astype_function=lambda d: f"np.astype({d.x()}, np.float64)",
    astype_int=lambda d: f"({d.x()} * 3).astype(int) * {d.like()}",
    astype_bool=lambda d: f"({d.x()} > 0).astype(float) + {d.like()}",
    conj_method=lambda d: f"{d.x()}.conj() + {d.x()}.real",
    copy_method=lambda d: f"{d.x()}.copy()",
)

# --- indexing and writing ------------------------------------------------------------------------

add(
    take=lambda d: f"np.take({d.of_shape((2, 3))}, {d.of('np.array([1, 0, 5])', '2')})",
    take_axis=lambda d: (
        f"np.take({d.of_shape((2, 3))}, np.array([[1, 0], [-1, 1]]), axis={d.of('0', '1')})"
    ),
    take_method=lambda d: f"{d.of_shape((2, 3))}.take(np.array([2, 0]), axis=1)",
    take_along_axis=lambda d: (
        f"np.take_along_axis({d.of_shape((2, 3))}, np.array([[0, 2, 0], [1, 1, 2]]), {d.of('1', '-1')})"
    ),
    index_vector=lambda d: f"{d.vector(4)}[{d.key(1)}]",
    index_matrix=lambda d: f"{d.of_shape((3, 4))}[{d.key(2)}]",
    index_stack=lambda d: f"{d.of_shape((2, 3, 3))}[{d.key(3)}]",
    index_number=lambda d: f"{d.number_value()}[{d.of('None', '...', '()', 'None, None')}]",
    index_flags=lambda d: (
        f"{(x := d.array())}[{x} > {d.level()}]",
        f"{x}[{d.flags_of_last()}]",
    ),
    index_mask_rows=lambda d: f"{d.of_shape((2, 3))}[:, np.array([True, False, True])]",
    iterate=lambda d: f"sum(row * (i + 1) for i, row in enumerate({d.matrix()}))",
    unpack=lambda d: f"a, b, c = {d.vector(3)}; OUT = a * b - c",
    length=lambda d: f"len({d.array()}) * {d.like()}",
    put_at=lambda d: f"dnp.put_at({d.of_shape((3, 4))}, ({d.write_key()}), {d.number_value()})",
    put_at_buffer=lambda d: (
        f"dnp.put_at(np.zeros((2, 3)), {d.of('0', '-1', 'np.array([1, 0])')}, {d.vector(3)})"
    ),
    add_at_function=lambda d: (
        f"dnp.add_at({d.of_shape((3, 4))}, ({d.write_key()}), {d.number_value()})"
    ),
    add_at_repeated=lambda d: f"dnp.add_at({d.vector(3)}, np.array([0, 2, 0]), {d.vector(3)})",
    item_assignment=lambda d: (
        f"OUT = {(x := d.of_shape((3, 4)))} * 1.0; OUT[{(key := d.write_key())}] = {(y := d.number_value())}",
        f"OUT = ({x} * 1.0).at[{key}].set({y})",
    ),
    item_rows=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))}); OUT[{(key := d.of('0', '-1', ':', '::-1', '...'))}] = {(y := d.vector(3))}",
        f"OUT = {x}.at[{key}].set({y})",
    ),
    item_flags=lambda d: (
        f"OUT = np.copy({(x := d.array())}); OUT[{x} > 0.2] = {(y := d.of(d.number_value(), '0.5'))}",
        f"OUT = np.where({x} > 0.2, {y}, {x})",
    ),
    fill=lambda d: (
        f"OUT = np.copy({(x := d.array())}); OUT.fill({(y := d.number_value())})",
        f"OUT = np.full_like({x}, {y})",
    ),
)
add(
    fix=lambda d: (f"np.fix({(x := d.x())})", f"np.trunc({x})"),
    lexsort=lambda d: f"{d.vector(3)}[np.lexsort(({d.vector(3)}, {d.vector(3)}))]",
    put=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))}); np.put(OUT, [0, -1], {(y := d.number_value())})",
        f"OUT = np.put({x}, np.array([0, -1]), {y}, inplace=False)",
    ),
    place=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))}); np.place(OUT, {x} > 0.2, {(y := d.vector(3))})",
        f"OUT = np.place({x}, {x} > 0.2, {y}, inplace=False)",
    ),
    putmask=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))});"
        f" np.putmask(OUT, {x} > 0.2, {(y := d.of_shape((2, 3)))})",
        f"OUT = np.where({x} > 0.2, {y}, {x})",
    ),
    copyto=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))});"
        f" np.copyto(OUT, {(y := d.vector(3))}, where={x} > 0.2)",
        f"OUT = np.where({x} > 0.2, {y}, {x})",
    ),
    fill_diagonal=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((3, 3)))}); np.fill_diagonal(OUT, {(y := d.number_value())})",
        f"OUT = np.fill_diagonal({x}, {y}, inplace=False)",
    ),
    put_along_axis=lambda d: (
        f"OUT = np.copy({(x := d.of_shape((2, 3)))});"
        f" np.put_along_axis(OUT, np.array([[0], [2]]), {(y := d.number_value())}, 1)",
        f"OUT = np.put_along_axis({x}, np.array([[0], [2]]), {y}, 1, inplace=False)",
    ),
)
for _sign, _name in (("+", "add"), ("-", "subtract"), ("*", "multiply"), ("/", "divide")):
    add(
        **{
            f"x {_sign}= y": lambda d, sign=_sign: (
                f"OUT = {d.x()} * 1.0; OUT {sign}= {d.positive_smaller()}"
            ),
            f"x[key] {_sign}= y": lambda d, sign=_sign, name=_name: (
                f"OUT = {(x := d.of_shape((3, 4)))} * 1.0;"
                f" OUT[{(key := d.unique_key())}] {sign}= {(y := d.positive(()))}",
                f"OUT = ({x} * 1.0).at[{key}].{name}({y}, unique_indices=True)",
            ),
        }
    )
add(
    **{
        "x **= c": lambda d: f"OUT = {d.positive()}; OUT **= {d.of('2', '3')}",
        "x @= y": lambda d: f"OUT = {d.matrix(3, 3)} * 1.0; OUT @= {d.matrix(3, 3)}",
        "x %= c": lambda d: f"OUT = {d.x()} * 1.0; OUT %= 0.7",
    }
)

# --- SciPy ---------------------------------------------------------------------------------------

for _name in ("erf", "erfc", "ndtr", "log_ndtr", "expit", "log_expit", "i0", "i0e", "i1", "i1e"):
    add(**{f"sp.{_name}": lambda d, name=_name: f"sp.{name}({d.x()})"})
for _name in ("gammaln", "gamma", "digamma", "psi", "entr"):
    add(**{f"sp.{_name}": lambda d, name=_name: f"sp.{name}({d.positive()})"})
for _name in ("logit", "ndtri"):
    add(**{f"sp.{_name}": lambda d, name=_name: f"sp.{name}(0.5 + 0.4 * np.sin({d.x()}))"})
for _name in ("xlogy", "xlog1py", "rel_entr"):
    add(**{f"sp.{_name}": lambda d, name=_name: f"sp.{name}({d.positive()}, {d.positive_like()})"})
for _name in ("logsumexp", "softmax", "log_softmax"):
    add(**{_name: lambda d, name=_name: f"dsp.{name}({d.filled_array()}{d.maybe_axis()})"})
add(
    **{"sp.erfinv": lambda d: f"sp.erfinv({d.below_one()})"},
    logsumexp_weights=lambda d: f"dsp.logsumexp({d.filled_array()}, b={d.positive_same()})",
    solve_triangular=lambda d: (
        f"dsp.solve_triangular({d.invertible((3, 3))}, {d.vector(3)}, lower={d.yes_or_no()})"
    ),
    cho_solve=lambda d: (
        f"dsp.cho_solve((np.linalg.cholesky({d.definite((3, 3))}), True), {d.vector(3)})"
    ),
    expm=lambda d: f"dsp.expm(0.3 * {d.square((3, 3))})",
    logpdf=lambda d: f"dsp.norm.logpdf({d.x()}, {d.number_value()}, {d.positive(())})",
    logpdf_of_many=lambda d: (
        f"dsp.multivariate_normal.logpdf({d.of_shape(d.of((3,), (2, 3)))}, {d.vector(3)}, {d.definite((3, 3))})"
    ),
)
