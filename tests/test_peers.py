"""Rows of `dualnet.check` against JAX and torch: values, jvp, vjp, second derivatives, in float64.

JAX evaluates the row itself, if that is written with NumPy's functions, or its composition; torch
has a column of its own in `layers_by_peers`, and answers a grid of convolutions and pools besides.
DUALNET_TEST_SEED=n repeats a run (see conftest).
"""

import functools
import re

import layers_by_peers
import numpy as np
import pytest
from layers_by_peers import in_torch, torch
from peers import QUICK_TO_COMPILE, JaxNumpy, pair, peer

import dualnet as dn
from dualnet import nn, tree
from dualnet.check import ROWS
from dualnet.check.layers import example
from dualnet.nn import average, replicated, replicated_by_copies

jax = peer("jax")
F = torch.nn.functional

# torch uses it itself, in what it loads for the first jvp
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.fixture(autouse=True)
def double_precision_on_the_cpu():
    torch.set_num_threads(1)  # for arrays this small, more of them only wait for one another
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


# --- the same questions for all three ------------------------------------------------------------


def ask(f, xs, rng):
    """The point, two tangents of it, and a cotangent of f's result."""

    def like(trees):
        return tree.map(lambda x: rng.standard_normal(np.shape(x)), trees)

    return xs, like(xs), like(xs), like(f(*xs))


def answers(jvp, vjp, f, question, nested):
    """What the transforms of a framework give; nested ones too, or only those by vjp."""
    xs, v, u, ct = question
    value, pushed = jvp(f, xs, v)
    recorded, pull = vjp(f, *xs)
    found = {
        "value": f(*xs),
        "value beside jvp": value,
        "value beside vjp": recorded,
        "jvp": pushed,
        "vjp": pull(ct),
    }
    if nested:
        found["jvp of vjp"] = jvp(lambda *xs: vjp(f, *xs)[1](ct), xs, v)[1]
    if nested == "both":
        found["jvp of jvp"] = jvp(lambda *xs: jvp(f, xs, u)[1], xs, v)[1]
    return found


def compare(worst, where, ours, theirs, framework, tolerance):
    """Every kind of answer, relative to the largest entry that the framework has for it."""
    assert ours.keys() == theirs.keys()
    for kind in ours:
        a, b = dict(tree.items(ours[kind])), dict(tree.items(theirs[kind]))
        b = {path: np.asarray(b[path]) for path in a}  # JAX sorts dicts
        largest = max((np.max(np.abs(y), initial=1e-100) for y in b.values()), default=1.0)
        for path, x in a.items():
            y = b[path]
            assert (np.shape(x), x.dtype) == (y.shape, y.dtype), f"{kind} at {path!r}"
            error = np.max(np.abs(x - y), initial=0.0) / largest
            worst(f"{kind} against {framework}", error, where)
            assert error < tolerance, f"{kind} is {x} at {path!r}, and {y} by {framework}"


# --- JAX -----------------------------------------------------------------------------------------

COMPOSED = [
    row
    for row in ROWS
    if row.composed
    and row.family not in ("optimizers", "models")
    and row.covers not in (average, replicated, replicated_by_copies)  # composed of one another
]
NOT_COMPILED = (np.compress, np.extract, np.trim_zeros)  # the shapes depend on the values
IN_JAX = [r for r in ROWS if r.jax and r.covers not in NOT_COMPILED] + COMPOSED
FIRST = {row.covers: row.name for row in reversed(COMPOSED) if not row.exact}.values()
"""The first row of each layer and fused function that is no polynomial: second derivatives take
long to compile."""
CHUNK = 40


def nested(row):
    return "both" if row.name in FIRST else None


@functools.cache
def questions_and_answers_of_jax(chunk, key):
    """For some rows: where they are asked, and JAX's answers.  Compiling them together takes
    half the time of compiling each for itself, and compiling is what takes the time."""
    rows = IN_JAX[chunk * CHUNK : (chunk + 1) * CHUNK]
    asked = [
        ask(row, row.arrays(rng), rng)
        for row in rows
        for rng in [np.random.default_rng(key.fold_in(row.name).bits)]
    ]

    def by_jax(asked):
        forms = [
            functools.partial(row.f, jax.numpy)
            if row.jax
            else functools.partial(row.composed, JaxNumpy(jax))
            for row in rows
        ]
        return [
            answers(jax.jvp, jax.vjp, f, question, nested(row))
            for row, f, question in zip(rows, forms, asked, strict=True)
        ]

    return asked, jax.jit(by_jax, compiler_options=QUICK_TO_COMPILE)(asked)


@pytest.mark.parametrize("i", range(len(IN_JAX)), ids=[row.name for row in IN_JAX])
def test_the_same_as_jax(i, root_key, worst):
    asked, theirs = questions_and_answers_of_jax(i // CHUNK, root_key)
    row = IN_JAX[i]
    ours = answers(dn.jvp, dn.vjp, row, asked[i % CHUNK], nested(row))
    compare(worst, row.name, ours, theirs[i % CHUNK], "JAX", 1e-10 if row.jax else 1e-9)


NOT_AS_IN_JAX = {
    *(np.linalg.eigh, np.linalg.eigvalsh, np.linalg.svd, np.linalg.qr),  # signs, and one triangle
    np.linalg.lstsq,  # the residuals of square systems
    np.partition,  # the order of the rest
    np.quantile,  # most of its methods
    *NOT_COMPILED,
    *(
        getattr(ufunc, method)
        for ufunc in (np.divide, np.fmax, np.fmin, np.hypot)
        for method in ("reduce", "accumulate", "outer")
    ),  # plain functions without methods
}
"""Functions that give something else there, so that rows of them cannot be compared."""


def test_most_rows_are_compared():
    """But those of what JAX has not: functions of our own, and what is written in place."""

    def in_jax(row):
        own = ("convolution", "optimizers", "models")  # whose rules are of functions of our own
        core = getattr(row.covers, "__module__", None) or ""
        writes = r"operator x .*=|method (sort|fill|put)|\.(at|reduceat)$|(put|add)_at|copyto"
        in_place = re.search(rf"{writes}|np\.(put|place|fill_diagonal)", row.name)
        ours = row.family in own or core.startswith(("dualnet.core", "dualnet.numpy"))
        return not (ours or in_place or row.covers in NOT_AS_IN_JAX)

    known = {row.name for row in ROWS if in_jax(row)}
    assert len({row.name for row in IN_JAX} & known) > 0.95 * len(known)


# --- torch ---------------------------------------------------------------------------------------


def compare_with_torch(worst, where, f, by_torch, xs, rng, nested=None):
    question = ask(f, xs, rng)
    ours = answers(dn.jvp, dn.vjp, f, question, nested)
    of_torch = tree.map(torch.from_numpy, question)
    theirs = answers(torch.func.jvp, torch.func.vjp, by_torch, of_torch, nested)
    theirs = tree.map(lambda a: a.detach().numpy(), theirs)
    compare(worst, where, ours, theirs, "torch", 1e-9)


def compare_layer(worst, where, layer, here, train, rng):
    """By params and x alone: torch has no derivative by the state."""
    context = nn.Context(train=train)
    state = None if train else tree.map(torch.from_numpy, here["state"])
    compare_with_torch(
        worst,
        where,
        lambda params, x: layer.apply(params, here["state"], x, context)[0],
        lambda params, x: in_torch(layer, params, x, state),
        (here["params"], here["x"]),
        rng,
    )


OF_TORCH = [row for row in ROWS if row.layer or row.name in layers_by_peers.FUNCTIONS]


@pytest.mark.parametrize("row", OF_TORCH, ids=lambda row: row.name)
def test_the_same_as_torch(row, rng, worst):
    xs = row.arrays(rng)
    if row.layer:
        compare_layer(worst, row.name, row.layer, xs[0], row.train, rng)
    else:
        by_torch = layers_by_peers.FUNCTIONS[row.name]
        compare_with_torch(worst, row.name, row, by_torch, xs, rng)


def test_every_layer_is_compared():
    assert layers_by_peers.FUNCTIONS.keys() <= {row.name for row in ROWS}
    layers = {m for m in vars(nn).values() if isinstance(m, type) and hasattr(m, "init")}
    assert layers - {nn.Layer} <= {row.covers for row in OF_TORCH}


IMAGE = (8, 7, 4)
"""Neither stride divides both sides; with 4 groups the convolution is depthwise."""
CONVOLUTION = {
    "groups": (1, 2, 4),
    "padding": (0, 1, (2, 1), ((0, 2), (1, 0))),
    "stride": (1, 2, (2, 3)),
    "kernel": (1, 2, 3, (3, 2), 5, (8, 7)),
}


@pytest.mark.parametrize("groups", CONVOLUTION["groups"])
@pytest.mark.parametrize("padding", CONVOLUTION["padding"], ids=str)
@pytest.mark.parametrize("stride", CONVOLUTION["stride"], ids=str)
@pytest.mark.parametrize("kernel", CONVOLUTION["kernel"], ids=str)
def test_convolutions(kernel, stride, padding, groups, rng, worst):
    layer = nn.Conv2d(8, kernel, stride=stride, padding=padding, groups=groups)
    w = rng.standard_normal((*pair(kernel), IMAGE[-1] // groups, 8))
    compare_with_torch(
        worst,
        "conv2d",
        lambda x, w: nn.conv2d(x, w, stride=stride, padding=padding, groups=groups),
        lambda x, w: in_torch(layer, {"w": w}, x, {}),
        (rng.standard_normal((3, *IMAGE)), w),
        rng,
        nested="by vjp",
    )


@pytest.mark.parametrize("padding", (0, 1, (1, 0), ((0, 1), (1, 0))), ids=str)
@pytest.mark.parametrize("stride", (None, 1, 2, (2, 3)), ids=str)
@pytest.mark.parametrize("window", (2, 3, (3, 2)), ids=str)
def test_pools(window, stride, padding, rng, worst):
    for pool in (nn.MaxPool, nn.AveragePool):
        layer = pool(window, stride=stride, padding=padding)
        compare_layer(worst, pool.__name__, layer, example(layer, IMAGE, 3)(rng), False, rng)


@pytest.mark.parametrize("size", (1, 2, 3, (3, 2), (5, 4), (8, 7), (11, 3)), ids=str)
@pytest.mark.parametrize("image", ((8, 7, 2), (5, 9, 1)), ids=str)
def test_adaptive_pools(image, size, rng, worst):
    layer = nn.AdaptiveAveragePool(size)
    compare_layer(worst, "adaptive pool", layer, example(layer, image, 3)(rng), False, rng)


LARGE = {
    "Conv2d": (nn.Conv2d(8, 3, padding=1), (33, 30, 8), 9),
    "Conv2d, groups": (nn.Conv2d(8, 3, stride=2, groups=4), (65, 60, 8), 17),
    "BatchNorm": (nn.BatchNorm(), (31, 33, 8), 19),
    "BatchNorm, (N, C)": (nn.BatchNorm(), (70,), 2000),
    "LayerNorm": (nn.LayerNorm(), (100, 70), 20),
    "LayerNorm, axes": (nn.LayerNorm(axes=(-3, -2, -1)), (41, 33, 40), 3),
    "GroupNorm": (nn.GroupNorm(4), (31, 33, 8), 18),
}


@pytest.mark.parametrize("name", LARGE)
def test_more_than_one_block(name, rng, worst):
    """Arrays larger than what convolution and normalization take at a time."""
    layer, in_shape, batch = LARGE[name]
    here = example(layer, in_shape, batch)(rng)
    compare_layer(worst, f"{name}, large", layer, here, True, rng)


# --- running statistics --------------------------------------------------------------------------

STEPS = {
    "plain": lambda f, xs, vs: f(*xs)[1],
    "jvp": lambda f, xs, vs: dn.jvp(f, xs, vs, has_aux=True)[2],
    "vjp": lambda f, xs, vs: dn.vjp(f, *xs, has_aux=True)[2],
    "jvp of vjp": lambda f, xs, vs: dn.jvp(
        lambda *xs: dn.vjp(f, *xs, has_aux=True)[::2], xs, vs, has_aux=True
    )[2],
    "jvp of jvp": lambda f, xs, vs: dn.jvp(
        lambda *xs: dn.jvp(f, xs, vs, has_aux=True)[1:], xs, vs, has_aux=True
    )[2],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("in_shape", [(4,), (2, 3, 4)], ids=["(N, C)", "(N, H, W, C)"])
def test_statistics_move_once_a_step(in_shape, step, key, rng, worst):
    layer = nn.BatchNorm(momentum=0.3)
    params, state = tree.map(lambda a: a.astype(float), layer.init(key, in_shape)[:2])
    mean, variance = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for _ in range(4):
        x, v = rng.standard_normal((2, 5, *in_shape))
        x += 3.0

        def f(params, x, state=state):
            return layer.apply(params, state, x, nn.Context(train=True))

        state = STEPS[step](f, (params, x), (params, v))
        assert all(type(leaf) is np.ndarray for leaf in tree.leaves(state))
        images = torch.from_numpy(x).movedim(-1, 1)
        F.batch_norm(images, mean, variance, training=True, momentum=0.3)
        theirs = {"statistics": {"mean": mean.numpy(), "variance": variance.numpy()}}
        compare(worst, "BatchNorm", {"statistics": state}, theirs, "torch", 1e-9)
