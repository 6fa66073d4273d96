"""Linear algebra where no finite difference can judge: equal and vanishing values, rank, signs."""

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet.backends.overridable import matmul_of_rows
from dualnet.errors import MissingRuleError

linalg = np.linalg
V2 = np.zeros(2)
TIED = np.diag([1.0, 1.0, 3.0])


def along(f, x, v):
    return dn.jvp(f, (x,), (v,))[1]


def rotated(rng, values):
    """A symmetric matrix with these eigenvalues, which rounding makes unequal."""
    q, _ = linalg.qr(rng.normal(size=(len(values),) * 2))
    a = (q * values) @ q.T
    return (a + a.T) / 2


def symmetric(f):
    """f of the symmetric part, so that all entries count alike."""
    return lambda a: f((a + np.swapaxes(a, -1, -2)) / 2)


# --- several results -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f, shape",
    [
        (linalg.eigh, (3, 3)),
        (lambda a: linalg.svd(a, full_matrices=False), (3, 2)),
        (lambda a: linalg.svd(a, hermitian=True), (3, 3)),
        (linalg.qr, (3, 2)),
        (linalg.slogdet, (3, 3)),
    ],
)
def test_results_keep_their_names(f, shape, rng):
    a = rng.normal(size=shape)
    plain, (out, tangent) = f(a), dn.jvp(f, (a,), (a,))
    assert type(out) is type(tangent) is type(plain)
    for x, y, t in zip(out, plain, tangent, strict=True):
        assert np.array_equal(x, y) and np.shape(t) == np.shape(x)


def test_the_factorization_is_computed_once(monkeypatch):
    calls = []
    eigh = linalg.eigh
    spied = lambda *args: (calls.append(args), eigh(*args))[1]  # noqa: E731
    from dualnet.core.tables import decompositions

    class Spied:
        def __getattr__(self, name):
            return spied if name == "eigh" else getattr(linalg, name)

    class Numpy:
        linalg = Spied()

        def __getattr__(self, name):
            return getattr(np, name)

    monkeypatch.setattr(decompositions, "np", Numpy())
    dn.jvp(lambda a: tuple(eigh(a)), (TIED,), (np.eye(3),))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "f", [linalg.det, linalg.eigvalsh, linalg.svdvals, linalg.norm, linalg.eigh]
)
@pytest.mark.parametrize("shape", [(0, 0), (0, 2, 2)])
def test_matrices_without_entries(f, shape):
    x = np.zeros(shape)
    plain, (out, t) = f(x), dn.jvp(f, (x,), (x,))
    _, pull = dn.vjp(f, x)
    (back,) = pull(out)
    assert back.shape == shape
    for a, b, c in zip(*(dn.tree.leaves(y) for y in (plain, out, t)), strict=True):
        assert np.array_equal(a, b) and np.shape(c) == np.shape(a)


# --- answers worked out by hand ------------------------------------------------------------------


def test_eigh_by_hand():
    a, v = np.diag([1.0, 3.0]), np.array([[5.0, 4.0], [4.0, 7.0]])
    w, vectors = along(linalg.eigh, a, v)
    assert w.tolist() == [5, 7]
    assert np.abs(vectors).tolist() == [[0, 2], [2, 0]]  # 4 / (3 - 1)


def test_only_one_triangle_counts():
    a = np.array([[1.0, 2.0], [2.0, -2.0]])
    upper = np.array([[0.0, 1.0], [0.0, 0.0]])
    for f in (linalg.eigvalsh, linalg.cholesky):
        assert not np.any(along(f, a @ a, upper))
    by_upper = along(lambda x: linalg.eigvalsh(x, "U"), a, upper)
    # eigenvalues -3 and 2, vectors (1, -2)/√5 and (2, 1)/√5, so 2 v₀ v₁ is -4/5 and 4/5
    assert by_upper == pytest.approx([-0.8, 0.8])


def test_svd_by_hand():
    a, v = np.diag([3.0, 1.0]), np.array([[5.0, 4.0], [2.0, 7.0]])
    u, s, vh = along(lambda x: linalg.svd(x), a, v)
    assert s.tolist() == [5, 7]
    # B + Bᵀ is 6 off the diagonal, B - Bᵀ is 2: 6/2/(1-3) ± 2/2/(1+3)
    assert np.sort(np.abs(u).ravel()) == pytest.approx([0, 0, 1.25, 1.25])
    assert np.sort(np.abs(vh).ravel()) == pytest.approx([0, 0, 1.75, 1.75])


def test_inverse_of_a_projection():
    a, v = np.diag([2.0, 0.0]), np.array([[1.0, 4.0], [8.0, 0.0]])
    # the rank is held: 1/a² across, and nothing in the null space
    assert along(linalg.pinv, a, v).tolist() == [[-0.25, 2], [1, 0]]


# --- equal eigenvalues and singular values -------------------------------------------------------

SMOOTH = {
    "sum": (lambda a: np.sum(linalg.eigvalsh(a)), np.eye(3)),
    "log det": (lambda a: np.sum(np.log(linalg.eigvalsh(a))), np.diag([1, 1, 1 / 3])),
    "sum of squares": (lambda a: np.sum(linalg.eigh(a)[0] ** 2), 2 * TIED),
    "largest": (lambda a: linalg.eigvalsh(a)[-1], np.diag([0, 0, 1.0])),
    "its vector": (lambda a: linalg.eigh(a)[1][:, 2] ** 2 @ np.arange(3.0), np.zeros((3, 3))),
    "singular values squared": (lambda a: np.sum(linalg.svdvals(a) ** 2), 2 * TIED),
    "nuclear": (lambda a: linalg.norm(a, "nuc"), np.eye(3)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_where_eigenvalues_are_equal(name, rng):
    f, expected = SMOOTH[name]
    np.testing.assert_allclose(dn.grad(symmetric(f))(TIED), expected, atol=1e-12)
    np.testing.assert_allclose(dn.jacfwd(symmetric(f))(TIED), expected, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SMOOTH.keys() - {"its vector"}))
def test_eigenvalues_equal_up_to_rounding(name, rng):
    f, _ = SMOOTH[name]
    a = rotated(rng, np.array([1.0, 1.0, 3.0, 3.0, 7.0]))
    v = rng.normal(size=a.shape)
    h = 1e-4
    moved = (symmetric(f)(a + h * v) - symmetric(f)(a - h * v)) / (2 * h)
    assert dn.grad(symmetric(f))(a).ravel() @ v.ravel() == pytest.approx(moved, rel=1e-6, abs=1e-5)
    assert along(symmetric(f), a, v) == pytest.approx(moved, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(
    "f",
    [
        lambda a: linalg.eigvalsh(a)[0],
        lambda a: linalg.eigh(a)[0][1],
        lambda a: linalg.eigh(a)[1][0, 0],
        lambda a: linalg.svdvals(a)[1],
        lambda a: linalg.svd(a)[0][0, 1],
        lambda a: linalg.svd(a)[2][2, 1],
    ],
)
def test_no_derivative_where_there_is_none(f):
    assert np.isnan(dn.grad(f)(TIED)).any()


def test_vectors_of_equal_eigenvalues_have_no_tangent(rng):
    v = rng.normal(size=(3, 3))
    vectors = along(lambda a: linalg.eigh(a)[1], TIED, v)
    assert np.isnan(vectors[:, :2]).all() and np.isfinite(vectors[:, 2]).all()


def test_second_derivatives_at_equal_values_are_not_wrong():
    f = symmetric(lambda a: np.sum(linalg.eigvalsh(a) ** 2))  # second derivative 2 |v|²
    v = np.ones((3, 3))
    for twice in (
        lambda a: along(lambda b: along(f, b, v), a, v),
        lambda a: along(lambda b: np.sum(dn.grad(f)(b) * v), a, v),
        lambda a: np.sum(dn.grad(lambda b: np.sum(dn.grad(f)(b) * v))(a) * v),
    ):
        assert np.isnan(twice(TIED))
        assert twice(np.diag([1.0, 2.0, 4.0])) == pytest.approx(18)


# --- singular values of 0 ------------------------------------------------------------------------

DEFICIENT = np.outer([3.0, 4.0], [0.6, 0.8])  # one singular value 5 and one 0


def test_norms_of_a_matrix_without_full_rank():
    direction = DEFICIENT / 5
    for order in ("nuc", 2, "fro"):
        g = dn.grad(lambda a, order=order: linalg.norm(a, order))(DEFICIENT)
        np.testing.assert_allclose(g, direction, atol=1e-12)
    assert not dn.grad(lambda a: linalg.norm(a, -2))(DEFICIENT).any()
    assert not dn.grad(lambda a: linalg.norm(a, "nuc"))(np.zeros((2, 3))).any()


def test_spectral_norm_of_equal_values_is_shared():
    np.testing.assert_allclose(dn.grad(lambda a: linalg.norm(a, 2))(np.eye(2)), np.eye(2) / 2)
    np.testing.assert_allclose(dn.grad(lambda a: linalg.norm(a, -2))(np.eye(2)), np.eye(2) / 2)


def test_values_of_a_matrix_without_full_rank():
    squares = dn.grad(lambda a: np.sum(linalg.svdvals(a) ** 2))
    np.testing.assert_allclose(squares(DEFICIENT), 2 * DEFICIENT, atol=1e-12)
    assert np.isnan(dn.grad(lambda a: np.sum(linalg.svdvals(a)))(DEFICIENT)).any()
    assert np.isnan(dn.jacfwd(squares)(DEFICIENT)).any()  # it is 2 I, which no rule can know


def test_qr_of_a_matrix_without_full_rank():
    a = np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]])
    assert np.isnan(dn.grad(lambda x: linalg.qr(x)[1][0, 1])(a)).any()


# --- norms at kinks ------------------------------------------------------------------------------


def test_the_second_derivative_of_a_squared_norm_at_0():
    for f in (linalg.norm, linalg.vector_norm):
        hessian = dn.jacfwd(dn.grad(lambda x, f=f: f(x) ** 2))(V2)
        np.testing.assert_array_equal(hessian, 2 * np.eye(2))
    for f in (lambda x: linalg.norm(x, 3) ** 2, linalg.norm):  # there is none
        assert np.isnan(dn.jacfwd(dn.grad(f))(V2)).all()
        assert not dn.grad(f)(V2).any()


@pytest.mark.parametrize("order", [None, 3, 2.5])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_slopes_of_norms_do_not_overflow(order, scale):
    with np.errstate(over="ignore", under="ignore", divide="ignore"):  # the value does
        g = dn.grad(lambda x: linalg.norm(x, order))(np.array([3.0, 4.0]) * scale)
    expected = dn.grad(lambda x: linalg.norm(x, order))(np.array([3.0, 4.0]))
    np.testing.assert_allclose(g, expected, rtol=1e-12)


def test_ord_0_counts():
    assert linalg.norm(np.array([0.0, 2.0, 3.0]), 0) == 2
    assert not dn.grad(lambda x: linalg.norm(x, 0) + 0 * x[0])(np.array([0.0, 2.0, 3.0])).any()


@pytest.mark.parametrize("order", ["nuc", 5, "other"])
def test_no_norm(order):
    x = np.ones((2, 2)) if order != "nuc" else np.ones(2)
    with pytest.raises(ValueError, match=r"(?i)norm order"):
        along(lambda x: linalg.norm(x, order), x, x)


def test_norms_take_what_numpy_takes(rng):
    x = rng.normal(size=(2, 3, 4))
    with pytest.raises(ValueError):
        along(lambda x: linalg.norm(x, 2), x, x)
    with pytest.raises(ValueError):
        along(lambda x: linalg.norm(x, 2, (0, 1, 2)), x, x)
    with pytest.raises(ValueError):
        along(lambda x: linalg.norm(x, 2, (1, -2)), x, x)


# --- determinants of singular matrices -----------------------------------------------------------


def cofactors(a):
    n = len(a)
    return [
        [(-1) ** (i + j) * linalg.det(np.delete(np.delete(a, i, 0), j, 1)) for j in range(n)]
        for i in range(n)
    ]


@pytest.mark.parametrize("rank", range(4))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_det_of_any_rank_has_its_derivatives(rank, dtype, rng):
    n = 3
    a = (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n))).astype(dtype)
    allowed = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(dn.grad(linalg.det)(a), cofactors(a), atol=allowed, rtol=allowed)
    v = rng.normal(size=(n, n)).astype(dtype)
    # det(a + ε v) is a polynomial in ε, whose coefficients say all derivatives
    at = np.arange(-2.0, 3.0)
    values = linalg.det(a.astype(float) + at[:, None, None] * v)
    slopes = np.polyfit(at, values, 3)[::-1] * [1, 1, 2, 6]
    f = linalg.det
    allowed = 10 * np.sqrt(np.finfo(dtype).eps) * (1 + np.abs(slopes).max())
    for expected in slopes:
        assert np.abs(f(a) - expected) <= allowed
        f = lambda x, f=f: along(f, x, v)  # noqa: E731


@pytest.mark.parametrize("size", [1e-8, 1e-12, 1e-16])
def test_det_of_nearly_singular_matrices(size, rng):
    a = rng.normal(size=(3, 2)) @ rng.normal(size=(2, 3)) + size * rng.normal(size=(3, 3))
    hessian = dn.jacfwd(dn.grad(linalg.det))(a)
    expected = dn.jacfwd(
        lambda a: np.stack([np.cross(a[1], a[2]), np.cross(a[2], a[0]), np.cross(a[0], a[1])])
    )(a)
    np.testing.assert_allclose(hessian, expected, atol=1e-12)


def test_slogdet_of_a_singular_matrix():
    a = np.ones((2, 2))
    sign, value = linalg.slogdet(a)
    out, t = dn.jvp(linalg.slogdet, (a,), (np.eye(2),))
    assert (out.sign, out.logabsdet) == (sign, value) == (0, -np.inf)
    assert np.isnan(t.logabsdet)


# --- pseudoinverses and least squares ------------------------------------------------------------


def test_pinv_of_a_matrix_with_equal_singular_values_to_second_order(rng):
    v = rng.normal(size=(3, 3))
    second = along(lambda a: along(linalg.pinv, a, v), np.eye(3), v)
    np.testing.assert_allclose(second, 2 * v @ v, atol=1e-12)


def test_pinv_of_less_than_full_rank_along_matrices_of_that_rank(rng):
    u, w = rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    du, dw = rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    h = 1e-6
    moved = linalg.pinv((u + h * du) @ (w + h * dw)) - linalg.pinv((u - h * du) @ (w - h * dw))
    _, t = dn.jvp(lambda u, w: linalg.pinv(u @ w), (u, w), (du, dw))
    np.testing.assert_allclose(t, moved / (2 * h), rtol=1e-6, atol=1e-6 * np.abs(t).max())


def test_lstsq_is_the_pseudoinverse(rng):
    for shape in ((5, 3), (3, 5), (3, 3)):
        a, b = rng.normal(size=shape), rng.normal(size=(shape[0], 2))
        da, db = rng.normal(size=a.shape), rng.normal(size=b.shape)
        _, got = dn.jvp(lambda a, b: linalg.lstsq(a, b)[0], (a, b), (da, db))
        _, expected = dn.jvp(lambda a, b: linalg.pinv(a) @ b, (a, b), (da, db))
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_lstsq_gives_its_rank_as_a_plain_number(rng):
    a = rng.normal(size=(4, 2))
    out, t = dn.jvp(lambda a: linalg.lstsq(a, a[:, 0]), (a,), (a,))
    assert out[2] == 2 and t[2] == 0
    np.testing.assert_allclose(t[3], out[3])  # singular values are homogeneous


# --- spectra of matrices that are not symmetric --------------------------------------------------


def test_eig_has_the_derivatives_of_differences(rng):
    a = np.diag([1.0, 3.0, -4.0]) + 0.3 * rng.uniform(-1, 1, (3, 3))
    t = rng.normal(size=(3, 3))
    _, moved = dn.jvp(linalg.eig, (a,), (t,))
    ahead, behind = linalg.eig(a + 1e-6 * t), linalg.eig(a - 1e-6 * t)
    for got, x, y in zip(moved, ahead, behind, strict=True):
        np.testing.assert_allclose(got, (x - y) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "a", [2 * np.eye(2), [[1.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [1e-20, 1.0]]], ids=str
)
def test_eig_without_single_eigenvalues_has_no_derivative(a):
    a = np.array(a)
    assert np.isnan(dn.grad(lambda a: linalg.eigvals(a)[0])(a)).any()
    assert np.isnan(dn.jvp(linalg.eig, (a,), (np.ones((2, 2)),))[1][1]).any()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, shape",
    [
        (linalg.svd, (3, 2)),
        (linalg.svd, (2, 2, 3)),
        (lambda a: linalg.qr(a, "complete"), (3, 2)),
        (lambda a: linalg.qr(a, "raw"), (3, 3)),
        (lambda a: linalg.eig(a - np.swapaxes(a, 0, 1)), (3, 3)),
        (lambda a: linalg.eigvals(a - np.swapaxes(a, 0, 1)), (3, 3)),
        (lambda a: linalg.lstsq(a, a, rcond=0.99), (3, 3)),
    ],
)
def test_what_has_no_derivative_is_refused(call, shape, rng):
    a = rng.normal(size=shape)
    call(a)
    with pytest.raises(MissingRuleError, match=r"np\.linalg\.\w+"):
        along(call, a, a)
    with pytest.raises(MissingRuleError, match=r"np\.linalg\.\w+"):
        dn.vjp(call, a)


# --- other frameworks ----------------------------------------------------------------------------


def test_functions_of_equal_values_against_jax(rng):
    jax = peer("jax")
    a = rotated(rng, np.array([2.0, 2.0, 2.0, 5.0]))
    for f in (
        lambda xp, a: xp.sum(xp.log(xp.linalg.eigvalsh(a))),
        lambda xp, a: xp.sum(xp.tanh(xp.linalg.eigh(a)[0])),
        lambda xp, a: xp.linalg.norm(a, "nuc"),
    ):
        with jax.enable_x64(True):
            expected = jax.grad(lambda a, f=f: f(jax.numpy, (a + a.T) / 2))(a)
        got = dn.grad(lambda a, f=f: f(np, (a + a.T) / 2))(a)
        np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 128, 129])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_few_rows_by_a_transposed_matrix(rng, rows, dtype):
    """The product of the transposes, copied, is the product, in memory as the product is."""
    x, w = (rng.normal(size=shape).astype(dtype) for shape in ((rows, 130), (1010, 130)))
    product, expected = matmul_of_rows(x, w.T), x @ w.T
    np.testing.assert_allclose(product, expected, rtol=0, atol=300 * np.finfo(dtype).eps)
    assert product.dtype == expected.dtype and product.flags.c_contiguous


def test_nan_and_infinities_in_few_rows_by_a_transposed_matrix():
    x, w = np.ones((2, 128), np.float32), np.ones((1024, 128), np.float32)
    x[0, 3], x[1, 5], w[7, 5] = np.nan, np.inf, 0.0
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(matmul_of_rows(x, w.T), x @ w.T)
