"""Every layer against torch and JAX: values, jvp, vjp and second derivatives, in float64.

One table of cases asks all three the same: k tangents of params and input at once, and l
cotangents.  A grid asks torch about convolution and pooling besides.  DUALNET_TEST_SEED=n repeats
a run (see conftest).
"""

import functools
import itertools
from dataclasses import dataclass, replace
from typing import Any

import layers_by_peers as peers
import numpy as np
import pytest
from layers_by_peers import in_jax, in_torch, jax, jnp, torch

import dualnet as dn
from dualnet import Key, nn, tree

TOLERANCE = 1e-9
F = torch.nn.functional

# torch uses it itself, in what it loads for the first jvp
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.fixture(autouse=True)
def double_precision_on_the_cpu():
    torch.set_num_threads(1)  # for arrays this small, more of them only wait for one another
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


# --- questions -----------------------------------------------------------------------------------

K, L = 3, 2
"""Tangents and cotangents at once; K unlike L, and like the batch."""
MASKING = Key(7)


@dataclass(frozen=True)
class Question:
    """Where the three are asked: primals xs, stacks of tangents vs (K) and us (L), cotangents
    (L) of the result, and the state of the layer."""

    state: Any
    xs: tuple
    vs: tuple
    us: tuple
    cts: Any

    @classmethod
    def at(cls, xs, f, rng, state=None):
        def stack(n, xs):
            return tree.map(lambda x: rng.standard_normal((n, *np.shape(x))), xs)

        return cls(state, xs, stack(K, xs), stack(L, xs), stack(L, f(*xs)))


@dataclass(frozen=True)
class LayerCase:
    """A layer on a batch.

    Attributes:
        layer, in_shape, batch, train: what is applied to what, and how.
        nested: whether derivatives of derivatives are compared too; JAX takes long to compile
            them.
        of_torch, of_jax: `f(params, x)` where the peers' layers are not put together as ours.
        tap: path of an inner layer whose output is a second result.
    """

    layer: Any
    in_shape: tuple
    train: bool = False
    batch: int = 3
    nested: bool = False
    of_torch: Any = None
    of_jax: Any = None
    tap: str = ""

    def question(self, key):
        rng = np.random.default_rng(key.bits)
        params, state, _ = self.layer.init(key, self.in_shape)
        params = tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)
        state = tree.map(lambda s: rng.uniform(0.5, 2.0, s.shape), state)
        xs = params, rng.standard_normal((self.batch, *self.in_shape))
        return Question.at(xs, self.with_dualnet(state), rng, state)

    def with_dualnet(self, state):
        def f(params, x):
            outputs = {}

            def tap(path, y):
                outputs[path] = y
                return y

            context = nn.Context(train=self.train, key=MASKING, tap=tap)
            y, _ = self.layer.apply(params, state, x, context)
            return (y, outputs[self.tap]) if self.tap else y

        return f

    def _with(self, in_peer, written_out, state):
        state = None if self.train else state
        return written_out or (lambda params, x: in_peer(self.layer, params, x, state))

    def with_torch(self, state):
        return self._with(in_torch, self.of_torch, tree.map(torch.from_numpy, state))

    def with_jax(self, state):
        return self._with(in_jax, self.of_jax, state)


@dataclass(frozen=True)
class FunctionCase:
    """A function of arrays of normal numbers."""

    shapes: tuple
    f: Any
    of_torch: Any
    of_jax: Any
    nested: bool = True

    def question(self, key):
        rng = np.random.default_rng(key.bits)
        return Question.at(tuple(rng.standard_normal(shape) for shape in self.shapes), self.f, rng)

    def with_dualnet(self, state):
        return self.f

    def with_torch(self, state):
        return self.of_torch

    def with_jax(self, state):
        return self.of_jax


# --- answers -------------------------------------------------------------------------------------


def wave(xp, y, ct):
    """A scalar that is curved even where y is linear."""
    return (xp.sin(y) * ct[0]).sum()


def by_dualnet(f, q, nested):
    value, pushed = dn.jvp(f, q.xs, q.vs)
    recorded, pull = dn.vjp(f, *q.xs)
    answers = {
        "value": f(*q.xs),
        "value beside jvp": value,
        "value beside vjp": recorded,
        "jvp": pushed,
        "vjp": pull(q.cts),
    }
    if nested:
        answers |= {
            "jvp of jvp": dn.jvp(lambda *xs: dn.jvp(f, xs, q.us)[1], q.xs, q.vs)[1],
            "jvp of vjp": dn.jvp(lambda *xs: dn.vjp(f, *xs)[1](q.cts), q.xs, q.vs)[1],
            "hvp": dn.hvp(lambda *xs: wave(np, f(*xs), q.cts), q.xs, q.vs),
        }
    return answers


def by_jax(f, q, nested):
    def push(f, xs, vs):
        return jax.vmap(lambda v: jax.jvp(f, xs, v)[1])(vs)

    def pull(f, xs):
        return jax.vmap(jax.vjp(f, *xs)[1])(q.cts)

    value = f(*q.xs)
    answers = first_derivatives(value, push(f, q.xs, q.vs), pull(f, q.xs))
    if nested:
        every = tuple(range(len(q.xs)))
        gradient = jax.grad(lambda *xs: wave(jnp, f(*xs), q.cts), every)
        answers |= {
            "jvp of jvp": push(lambda *xs: push(f, xs, q.us), q.xs, q.vs),
            "jvp of vjp": push(lambda *xs: pull(f, xs), q.xs, q.vs),
            "hvp": push(gradient, q.xs, q.vs),
        }
    return answers


def by_torch(f, q, nested=False):
    """JVPs and vjps one by one; of second derivatives only jvp of vjp, where torch has it."""
    xs, vs, cts = tree.map(torch.from_numpy, (q.xs, q.vs, q.cts))

    def push(f, xs):
        pushed = [torch.func.jvp(f, xs, part(vs, i))[1] for i in range(K)]
        return tree.map(lambda *parts: torch.stack(parts), *pushed)

    def pull(f, *xs):
        pulled = [torch.func.vjp(f, *xs)[1](part(cts, i)) for i in range(L)]
        return tree.map(lambda *parts: torch.stack(parts), *pulled)

    answers = first_derivatives(f(*xs), push(f, xs), pull(f, *xs))
    if nested:
        answers["jvp of vjp"] = push(functools.partial(pull, f), xs)
    return tree.map(lambda a: a.detach().numpy(), answers)


def part(stack, i):
    return tree.map(lambda a: a[i], stack)


def first_derivatives(value, pushed, pulled):
    return {
        "value": value,
        "value beside jvp": value,
        "value beside vjp": value,
        "jvp": pushed,
        "vjp": pulled,
    }


def compare(worst, where, ours, theirs, framework):
    """Every kind of answer to 1e-9 of the largest entry that the framework has for it."""
    assert ours.keys() == theirs.keys()
    for kind in ours:
        a, b = dict(tree.items(ours[kind])), dict(tree.items(theirs[kind]))
        b = {path: np.asarray(leaf) for path, leaf in b.items()}
        shapes = ({path: (x.shape, x.dtype) for path, x in leaves.items()} for leaves in (a, b))
        assert next(shapes) == next(shapes), kind
        largest = max((np.max(np.abs(y), initial=1e-100) for y in b.values()), default=1.0)
        for path, x in a.items():
            error = np.max(np.abs(x - b[path]), initial=0.0) / largest
            worst(f"{kind} of layers against {framework}", error, where)
            assert error < TOLERANCE, f"{kind} is {x} at {path!r}, and {b[path]} by {framework}"


def compare_with_torch(worst, where, case, key):
    q = case.question(key)
    ours = by_dualnet(case.with_dualnet(q.state), q, nested=False)
    compare(worst, where, ours, by_torch(case.with_torch(q.state), q), "torch")


# --- the table -----------------------------------------------------------------------------------

KERNELS = {"1": 1, "2": 2, "3": 3, "3x2": (3, 2), "5": 5}
STRIDES = {"1": 1, "2": 2, "2x3": (2, 3)}
PADDINGS = {"0": 0, "1": 1, "2x1": (2, 1), "asymmetric": ((0, 2), (1, 0))}
GROUPS = {"1": 1, "2": 2, "4": 4}
IMAGE = (8, 7, 4)
"""Neither stride divides both sides; with 4 groups the convolution is depthwise."""


def convolutions():
    """Every kernel with every stride, and all paddings and groups among them; one of each kernel
    with second derivatives."""
    for (i, kernel), (j, stride) in itertools.product(enumerate(KERNELS), enumerate(STRIDES)):
        padding, groups = list(PADDINGS)[(i + j) % 4], list(GROUPS)[(i + 2 * j) % 3]
        layer = nn.Conv2d(8, KERNELS[kernel], STRIDES[stride], PADDINGS[padding], GROUPS[groups])
        name = f"Conv2d {kernel}, stride {stride}, padding {padding}, groups {groups}"
        yield name, LayerCase(layer, IMAGE, nested=j == i % 3)


def same_padding(params, x):
    """JAX's own choice of padding, beside the same written as pairs."""
    y = jax.lax.conv_general_dilated(
        x, params["w"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + params["b"]


def same_pool(_params, x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 2, 2, 1), "SAME")


CONVOLUTIONS = dict(convolutions()) | {
    "Conv2d without bias": LayerCase(nn.Conv2d(4, 3, padding=1, groups=4, bias=False), IMAGE),
    "Conv2d, one of each": LayerCase(nn.Conv2d(1, 1), (1, 1, 1), batch=1),
    "Conv2d over all of the image": LayerCase(nn.Conv2d(3, (8, 7)), IMAGE, batch=1),
    "Conv2d, SAME": LayerCase(nn.Conv2d(3, 3, 2, ((0, 1), (1, 1))), IMAGE, of_jax=same_padding),
}

POOLS = {
    "MaxPool": LayerCase(nn.MaxPool(2), IMAGE, nested=True),
    "MaxPool, overlapping": LayerCase(nn.MaxPool(3, 1), IMAGE),
    "MaxPool, padded": LayerCase(nn.MaxPool((3, 2), (2, 1), 1), IMAGE),
    "MaxPool, asymmetric": LayerCase(nn.MaxPool(3, 2, ((0, 2), (1, 0))), IMAGE),
    "MaxPool, SAME": LayerCase(nn.MaxPool((3, 2), 2, ((0, 1), (0, 1))), IMAGE, of_jax=same_pool),
    "AveragePool": LayerCase(nn.AveragePool(2), IMAGE, nested=True),
    "AveragePool, overlapping": LayerCase(nn.AveragePool((3, 2), (1, 2)), IMAGE),
    "AveragePool, padded": LayerCase(nn.AveragePool(3, 2, 1), IMAGE),
    "AveragePool, asymmetric": LayerCase(nn.AveragePool(3, 2, ((0, 2), (1, 0))), IMAGE),
    "AdaptiveAveragePool": LayerCase(nn.AdaptiveAveragePool((3, 2)), IMAGE, nested=True),
    "AdaptiveAveragePool, 1": LayerCase(nn.AdaptiveAveragePool(1), IMAGE),
    "AdaptiveAveragePool, divides": LayerCase(nn.AdaptiveAveragePool((4, 7)), IMAGE),
    "AdaptiveAveragePool, larger": LayerCase(nn.AdaptiveAveragePool((10, 3)), (4, 5, 2)),
}

BATCH_NORM = {
    f"BatchNorm, {where}, {mode}": LayerCase(
        nn.BatchNorm(**options), in_shape, mode != "evaluation", batch, nested=True
    )
    for (where, in_shape, batch), (mode, options) in itertools.product(
        (("(N, C)", (4,), 5), ("(N, H, W, C)", (3, 2, 4), 3)),
        (
            ("training", {}),
            ("training bare", {"gain": False, "bias": False, "epsilon": 0.1}),
            ("evaluation", {}),
        ),
    )
}

NORMS = BATCH_NORM | {
    "BatchNorm, two examples": LayerCase(nn.BatchNorm(bias=False), (3,), True, batch=2),
    "LayerNorm": LayerCase(nn.LayerNorm(), (5,), nested=True),
    "LayerNorm, tokens": LayerCase(nn.LayerNorm(epsilon=1e-3), (4, 5)),
    "LayerNorm, axes": LayerCase(nn.LayerNorm((-2, -1)), (2, 3, 4)),
    "LayerNorm, axes apart": LayerCase(nn.LayerNorm((-1, -3)), (2, 3, 4)),
    "LayerNorm, first axis": LayerCase(nn.LayerNorm((-3,)), (4, 3, 2)),
    "LayerNorm, groups": LayerCase(nn.LayerNorm(groups=2), (3, 6), nested=True),
    "LayerNorm, axes, groups": LayerCase(nn.LayerNorm((-3, -1), 2), (2, 3, 6)),
    "LayerNorm, no gain": LayerCase(nn.LayerNorm(gain=False), (2, 5)),
    "LayerNorm, no bias": LayerCase(nn.LayerNorm(bias=False), (2, 5)),
    "LayerNorm, bare groups": LayerCase(nn.LayerNorm((-1,), 3, False, False), (2, 9)),
    "GroupNorm": LayerCase(nn.GroupNorm(2), (3, 2, 4), nested=True),
    "GroupNorm, one group": LayerCase(nn.GroupNorm(1, bias=False), (3, 2, 4)),
    "GroupNorm, each channel": LayerCase(nn.GroupNorm(4, gain=False), (3, 2, 4)),
    "GroupNorm, no positions": LayerCase(nn.GroupNorm(3, epsilon=0.1), (9,)),
}

DROPPED = nn.Dropout(0.4)
MASK, _ = DROPPED.apply({}, {}, np.ones((3, 2, 5)), nn.Context(train=True, key=MASKING))

LINEAR_AND_TOKENS = {
    "Linear": LayerCase(nn.Linear(4), (5,), nested=True),
    "Linear, more axes": LayerCase(nn.Linear(4, bias=False), (2, 3, 5)),
    "GroupedLinear": LayerCase(nn.GroupedLinear(4, 2), (6,), nested=True),
    "GroupedLinear, more axes": LayerCase(nn.GroupedLinear(6, 3, bias=False), (2, 9)),
    "Flatten": LayerCase(nn.Flatten(), (2, 3, 4)),
    "StopGradient": LayerCase(nn.StopGradient(), (2, 3)),
    "StopGradient, inside": LayerCase(
        nn.Sequential((("a", nn.Linear(4)), ("stop", nn.StopGradient()), ("b", nn.Linear(3)))),
        (5,),
        nested=True,
    ),
    "Dropout": LayerCase(
        DROPPED,
        (2, 5),
        True,
        of_torch=lambda params, x: x * torch.from_numpy(MASK),
        of_jax=lambda params, x: x * MASK,
    ),
    "Dropout, evaluation": LayerCase(
        DROPPED, (2, 5), of_torch=lambda params, x: x, of_jax=lambda params, x: x
    ),
    "Patches": LayerCase(nn.Patches(2), (4, 6, 3)),
    "Patches, oblong": LayerCase(nn.Patches((2, 3)), (4, 6, 3)),
    "ClassToken": LayerCase(nn.ClassToken(), (3, 4)),
    "Positions": LayerCase(nn.Positions(), (3, 4)),
    "SelectToken": LayerCase(nn.SelectToken(-1), (3, 4)),
    "AverageTokens": LayerCase(nn.AverageTokens(), (3, 4)),
    "MultiHeadAttention": LayerCase(nn.MultiHeadAttention(2), (3, 4), nested=True),
    "MultiHeadAttention, one head": LayerCase(nn.MultiHeadAttention(1), (1, 4), batch=1),
}


def head_in(in_peer, params, x):
    """What goes on, and what the head says of the means over all positions."""
    return x, in_peer(nn.Linear(3), params["linear"], x.mean((1, 2)), {})


LINEAR = nn.Linear(4)
CNN = nn.Sequential(
    (
        ("conv", nn.Conv2d(4, 3, 2, 1)),
        ("norm", nn.BatchNorm()),
        ("relu", nn.Activation(nn.relu)),
        ("pool", nn.MaxPool(2)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(5)),
    )
)
VIT = nn.Sequential(
    (
        ("patches", nn.Patches((2, 3))),
        ("embed", nn.Linear(8)),
        ("class", nn.ClassToken()),
        ("positions", nn.Positions()),
        ("block", nn.transformer_block(8, 2, 12)),
        ("norm", nn.LayerNorm()),
        ("select", nn.SelectToken()),
        ("head", nn.Linear(5)),
    )
)

BLOCKS = {
    "Residual": LayerCase(nn.Residual((("block", LINEAR),)), (4,)),
    "Residual, shortcut": LayerCase(
        nn.Residual((("block", LINEAR), ("shortcut", nn.Linear(4, bias=False)))), (5,)
    ),
    "TokenMixing": LayerCase(nn.TokenMixing((("mix", nn.Linear(2)),)), (3, 4)),
    "LocalHead": LayerCase(
        nn.LocalHead(3),
        (2, 3, 4),
        of_torch=functools.partial(head_in, in_torch),
        of_jax=functools.partial(head_in, in_jax),
        tap="linear",
    ),
    "mixer_block": LayerCase(
        nn.mixer_block(5, 8, 2),
        (5, 8),
        nested=True,
        of_torch=functools.partial(peers.mixer_block_in_torch, 2),
        of_jax=functools.partial(peers.mixer_block_in_jax, 2),
    ),
    "mlp_mixer_block": LayerCase(
        nn.mlp_mixer_block(3, 4, 5, 6),
        (3, 4),
        of_torch=peers.mlp_mixer_block_in_torch,
        of_jax=peers.mlp_mixer_block_in_jax,
    ),
    "transformer_block": LayerCase(
        nn.transformer_block(4, 2, 6),
        (3, 4),
        of_torch=functools.partial(peers.transformer_block_in_torch, 2),
        of_jax=functools.partial(peers.transformer_block_in_jax, 2),
    ),
    "a CNN, training": LayerCase(CNN, (9, 8, 2), True, nested=True, of_jax=peers.cnn_in_jax),
    "a CNN, evaluation": LayerCase(CNN, (9, 8, 2)),
    "a ViT": LayerCase(VIT, (4, 6, 2), nested=True, of_jax=peers.vit_in_jax),
}

LABELS = np.array([3, 0, 2])
ACTIVATIONS = {
    function.__name__: FunctionCase(
        ((3, 4),), function, peers.OF_TORCH[function], peers.OF_JAX[function]
    )
    for function in (*nn.ACTIVATIONS.values(), nn.softmax)
}
FUNCTIONS = {
    "softmax, axis 1": FunctionCase(
        ((2, 3, 4),),
        lambda x: nn.softmax(x, 1),
        lambda x: F.softmax(x, 1),
        lambda x: jax.nn.softmax(x, 1),
    ),
    "normalize": FunctionCase(
        ((4, 3, 2),),
        lambda x: nn.normalize(x, (0, -1)),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: peers.normalized(x, (0, 2), 1e-5),
    ),
    "softmax_cross_entropy": FunctionCase(
        ((3, 4),),
        lambda x: nn.softmax_cross_entropy(x, LABELS),
        lambda x: F.cross_entropy(x, torch.from_numpy(LABELS), reduction="none"),
        lambda x: -jax.nn.log_softmax(x)[np.arange(3), LABELS],
    ),
    "mean_squared_error": FunctionCase(
        ((3, 2, 4), (3, 2, 4)),
        nn.mean_squared_error,
        lambda x, y: F.mse_loss(x, y, reduction="none").mean((1, 2)),
        lambda x, y: jnp.square(x - y).mean((1, 2)),
    ),
}

LAYERS = CONVOLUTIONS | POOLS | NORMS | LINEAR_AND_TOKENS | BLOCKS
CASES = LAYERS | ACTIVATIONS | FUNCTIONS
every_case = pytest.mark.parametrize("name", CASES)

CHUNK = 20
QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@functools.cache
def questions_and_answers_of_jax(chunk, key):
    """For some cases: where they are asked, and JAX's answers.  Compiled together, which takes
    half the time of compiling each for itself."""
    names = list(CASES)[chunk * CHUNK : (chunk + 1) * CHUNK]
    asked = [CASES[name].question(key.fold_in(name)) for name in names]

    def answers(arrays):
        return [
            by_jax(CASES[name].with_jax(state), Question(state, *of_question), CASES[name].nested)
            for name, (state, *of_question) in zip(names, arrays, strict=True)
        ]

    arrays = [(q.state, q.xs, q.vs, q.us, q.cts) for q in asked]
    computed = jax.jit(answers, compiler_options=QUICK_TO_COMPILE)(arrays)
    return dict(zip(names, zip(asked, computed, strict=True), strict=True))


@every_case
def test_the_same_as_jax(name, root_key, worst):
    chunk = list(CASES).index(name) // CHUNK
    q, theirs = questions_and_answers_of_jax(chunk, root_key)[name]
    case = CASES[name]
    compare(worst, name, by_dualnet(case.with_dualnet(q.state), q, case.nested), theirs, "JAX")


@every_case
def test_the_same_as_torch(name, key, worst):
    compare_with_torch(worst, name, CASES[name], key)


def test_every_layer_is_compared():
    def parts(layer):
        yield type(layer)
        for _, child in getattr(layer, "layers", ()):
            yield from parts(child)

    public = (getattr(nn, name) for name in nn.__all__ if name != "Layer")
    layers = {c for c in public if isinstance(c, type) and hasattr(c, "init")}
    assert len(layers) > 20
    assert layers == {part for case in LAYERS.values() for part in parts(case.layer)}


# --- grids, by torch -----------------------------------------------------------------------------


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_convolutions(kernel, stride, padding, groups, rng, worst):
    """With tangents of the image, of the kernel, of both, and of rank one."""
    layer = nn.Conv2d(8, KERNELS[kernel], STRIDES[stride], PADDINGS[padding], GROUPS[groups])
    b, p, q = peers.pair(layer.kernel), IMAGE[-1] // layer.groups, layer.features
    x, w = rng.standard_normal((2, *IMAGE)), rng.standard_normal((*b, p, q))

    def ours(x, w):
        return nn.conv2d(x, w, layer.stride, layer.padding, layer.groups)

    def theirs(x, w):
        return in_torch(layer, {"w": w}, x, {})

    question = Question.at((x, w), ours, rng)
    answers = by_dualnet(ours, question, nested=True)
    expected = by_torch(theirs, question, nested=True)
    compare(worst, "conv2d", {kind: answers[kind] for kind in expected}, expected, "torch")

    u, v = question.vs
    rank_one = dn.RankOne(rng.standard_normal((K, *b, p)), rng.standard_normal((K, *b, q)))
    for tangents, dense in (
        ((u, None), (u, np.zeros_like(v))),
        ((None, v), (np.zeros_like(u), v)),
        ((None, rank_one), (np.zeros_like(u), rank_one.dense())),
        ((u, rank_one), (u, rank_one.dense())),
    ):
        answers = {"jvp": dn.jvp(ours, (x, w), tangents)[1]}
        expected = by_torch(theirs, replace(question, vs=dense))
        compare(worst, "conv2d", answers, {"jvp": expected["jvp"]}, "torch")


@pytest.mark.parametrize("padding", (0, 1, (1, 0), ((0, 1), (1, 0))), ids=str)
@pytest.mark.parametrize("stride", (None, 1, 2, (2, 3)), ids=str)
@pytest.mark.parametrize("window", (2, 3, (3, 2)), ids=str)
def test_pools(window, stride, padding, key, worst):
    for pool in (nn.MaxPool, nn.AveragePool):
        compare_with_torch(
            worst, pool.__name__, LayerCase(pool(window, stride, padding), IMAGE), key
        )


@pytest.mark.parametrize("size", (1, 2, 3, (3, 2), (5, 4), (8, 7), (11, 3)), ids=str)
@pytest.mark.parametrize("image", ((8, 7, 2), (5, 9, 1)), ids=str)
def test_adaptive_pools(image, size, key, worst):
    case = LayerCase(nn.AdaptiveAveragePool(size), image)
    compare_with_torch(worst, "AdaptiveAveragePool", case, key)


LARGE = {
    "Conv2d": LayerCase(nn.Conv2d(8, 3, padding=1), (33, 30, 8), batch=9),
    "Conv2d, groups": LayerCase(nn.Conv2d(8, 3, 2, groups=4), (65, 60, 8), batch=17),
    "BatchNorm": LayerCase(nn.BatchNorm(), (31, 33, 8), train=True, batch=19),
    "BatchNorm, (N, C)": LayerCase(nn.BatchNorm(), (70,), train=True, batch=2000),
    "LayerNorm": LayerCase(nn.LayerNorm(), (100, 70), batch=20),
    "LayerNorm, axes": LayerCase(nn.LayerNorm((-3, -2, -1)), (41, 33, 40)),
    "GroupNorm": LayerCase(nn.GroupNorm(4), (31, 33, 8), batch=18),
}


@pytest.mark.parametrize("name", LARGE)
def test_more_than_one_block(name, key, worst):
    """Arrays larger than what convolution and normalization take at a time."""
    compare_with_torch(worst, f"{name}, large", LARGE[name], key)


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
        theirs = {"mean": mean.numpy(), "variance": variance.numpy()}
        compare(worst, "BatchNorm", {"statistics": state}, {"statistics": theirs}, "torch")
