"""What the host computes in another way than NumPy would, because it is faster there."""

import numpy as np
import pytest

from dualnet.backends.sums import sum_over


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *[((2, 40, 60, c), (-3, -2)) for c in (1, 3, 6, 16, 17)],
        *[((4099, 3), (-2,)), ((3, 0, 50, 8), (-3, -2)), ((50, 40, 8), (-3, -1)), ((9, 9), ())],
        *[((64, 40, 8), (-3, -2, -1)), ((2, 50, 40, 8), (-2, -1)), ((2, 3, 2000, 8), (-3,))],
    ],
)
def test_sums_over_rows_are_those_of_numpy(shape, axes, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    for a in (x, np.asfortranarray(x), x[::-1]):
        whole, size = (v.astype(np.float64).sum(axes) for v in (a, np.abs(a)))
        for keepdims in (False, True):
            got = sum_over(a, axes, keepdims)
            assert got.dtype == dtype and got.shape == a.sum(axes, keepdims=keepdims).shape
            off = np.abs(np.reshape(got, whole.shape) - whole)
            assert (off <= 200 * np.finfo(dtype).eps * size).all()


def test_sums_over_rows_keep_infinities_to_their_columns():
    x = np.ones((4096, 6), np.float32)
    x[7, 1], x[9, 2], x[[3, 4], 3] = np.inf, np.nan, [np.inf, -np.inf]
    with np.errstate(invalid="ignore"):
        total = sum_over(x, (-2,))
    np.testing.assert_array_equal(total, [4096, np.inf, np.nan, np.nan, 4096, 4096])
