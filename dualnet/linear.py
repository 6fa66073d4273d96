"""`dn.linear`: every linear operation that a derivative rule may use on a tangent.

`core.linear` says what a linear map is and has those that the engine itself needs;
`core.tables.linear_maps` has the rest.
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
