"""What an estimate of the gradient is worth: its alignment, its bias, the variance it adds.

Every function holds a learning rule against the gradient that the rule estimates, which is exact
backpropagation of the same losses: `bp`, or `l-bp` and `lg-bp` for rules with local losses.
Results are lists of rows, one for each leaf of the parameters and a last one, `total`, for all of
them together as one vector; `table` prints them.
"""

from dualnet.analysis.angles import Comparison, alignment, compare, error_alignment
from dualnet.analysis.biases import Bias, bias
from dualnet.analysis.point import EXACT, Point
from dualnet.analysis.rows import TOTAL, table
from dualnet.analysis.variances import Variance, variance

__all__ = [
    "EXACT",
    "TOTAL",
    "Bias",
    "Comparison",
    "Point",
    "Variance",
    "alignment",
    "bias",
    "compare",
    "error_alignment",
    "table",
    "variance",
]
