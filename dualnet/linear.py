"""`dn.linear`: every linear operation that a derivative rule may use on a tangent.

`core.linear` says what a linear map is and has those that the engine itself needs;
`core.tables.linear_maps` has the rest.

k tangents of an array of shape `S` are a stack `(k, *S)`.  The shapes, axes and keys that these
functions take never mention k, and axes are negative, so that they count from the end.  A tangent
may also be recorded (reverse mode) or structured (`RankOne`), and these functions serve all kinds.
Constants, such as factors, masks and positions, are arrays.  Where shapes do not fit, the errors
are NumPy's, mostly a ValueError.
"""

from dualnet.core.linear import (
    LinearMap,
    StructuredTangent,
    add,
    align,
    broadcast_to,
    cast,
    divide,
    matmul,
    matmul_from_left,
    reshape,
    scale,
    shape_of,
    stretch,
    sum,
    transpose,
    unbroadcast,
)
from dualnet.core.tables.linear_maps import (
    concatenate,
    contract,
    cumsum,
    gather,
    index,
    place,
    scatter_add,
    select,
    solve,
)

__all__ = [
    "LinearMap",
    "StructuredTangent",
    "add",
    "align",
    "broadcast_to",
    "cast",
    "concatenate",
    "contract",
    "cumsum",
    "divide",
    "gather",
    "index",
    "matmul",
    "matmul_from_left",
    "place",
    "reshape",
    "scale",
    "scatter_add",
    "select",
    "shape_of",
    "solve",
    "stretch",
    "sum",
    "transpose",
    "unbroadcast",
]
