"""The papers' networks beside the same written with torch's modules: with the same weights the
same losses and gradients.  How many parameters they have in full size is in test_models.

DUALNET_TEST_SEED=n repeats a run (see conftest).
"""

import numpy as np
import pytest
from learning_problems import drawn_until, is_relu, layers_and_inputs
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.images.windows import Geometry, unfold
from dualnet.models import CNN, CNN4, AlexNet, LeNet5, MLPMixer, ResNet, ResNet18, ViT
from dualnet.nn import Context, MaxPool, softmax_cross_entropy

torch = peer("torch")
nn = torch.nn
F = nn.functional

CLASSES = 10


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # for networks this small, more of them only wait for one another


# --- the networks in torch -----------------------------------------------------------------------


class ChannelsLast(nn.Module):
    """dualnet flattens pixels before channels."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def flatten():
    return nn.Sequential(ChannelsLast(), nn.Flatten())


class Sum(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return sum(branch(x) for branch in self.branches)


def paper_cnn():
    return nn.Sequential(
        *(nn.Conv2d(1, 15, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(15, 40, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(flatten(), nn.Linear(640, 128), nn.ReLU(), nn.Linear(128, CLASSES)),
    )


def published_cnn():
    return nn.Sequential(
        *(nn.Conv2d(1, 15, 5), nn.BatchNorm2d(15), nn.ReLU()),
        *(nn.Conv2d(15, 40, 5), nn.BatchNorm2d(40), nn.ReLU(), nn.MaxPool2d(2)),
        *(flatten(), nn.Linear(4000, 128), nn.BatchNorm1d(128), nn.ReLU()),
        nn.Linear(128, CLASSES),
    )


def cnn4():
    return nn.Sequential(
        *(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES)),
    )


def lenet5():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, CLASSES),
    )


def alexnet(first, width, linear_norm=False):
    def convolution(p, q, kernel, **how):
        return nn.Conv2d(p, q, kernel, **how), nn.BatchNorm2d(q), nn.ReLU()

    def linear(p, q):
        return (nn.Linear(p, q), *([nn.BatchNorm1d(q)] if linear_norm else []), nn.ReLU())

    return nn.Sequential(
        *(*convolution(3, first, 11, stride=4, padding=2), nn.MaxPool2d(3, 2)),
        *(*convolution(first, 3 * first, 5, padding=2), nn.MaxPool2d(3, 2)),
        *convolution(3 * first, 6 * first, 3, padding=1),
        *convolution(6 * first, 4 * first, 3, padding=1),
        *(*convolution(4 * first, 4 * first, 3, padding=1), nn.MaxPool2d(3, 2)),
        *(nn.AdaptiveAvgPool2d(6), flatten()),
        *(*linear(36 * 4 * first, width), *linear(width, width), nn.Linear(width, CLASSES)),
    )


def resnet(width):
    blocks = [
        layer
        for _ in range(4)
        for layer in (Sum(nn.Conv2d(width, width, 3, padding=1), nn.Identity()), nn.ReLU())
    ]
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *blocks),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)),
    )


def resnet18(width, large):
    def convolution(p, q, kernel, stride=1):
        return (nn.Conv2d(p, q, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(q))

    def block(p, q, stride):
        chain = nn.Sequential(*convolution(p, q, 3, stride), nn.ReLU(), *convolution(q, q, 3))
        same = p == q
        return Sum(chain, nn.Identity() if same else nn.Sequential(*convolution(p, q, 1, stride)))

    stem = convolution(3, width, 7, 2) if large else convolution(3, width, 3)
    pool = [nn.MaxPool2d(3, 2, padding=1)] if large else []
    stages = []
    for q in (width, 2 * width, 4 * width, 8 * width):
        p, stride = (q, 1) if q == width else (q // 2, 2)
        stages += [block(p, q, stride), nn.ReLU(), block(q, q, 1), nn.ReLU()]
    return nn.Sequential(
        *(*stem, nn.ReLU(), *pool, *stages),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, CLASSES)),
    )


class Tokens(nn.Module):
    """Patches of 4 by 4 pixels, as a convolution of that stride, then tokens (N, T, C)."""

    def __init__(self, width):
        super().__init__()
        self.convolution = nn.Conv2d(1, width, 4, stride=4)

    def forward(self, x):
        return self.convolution(x).flatten(2).transpose(1, 2)


class ClassAndPositions(nn.Module):
    def __init__(self, tokens, width):
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1, tokens + 1, width))

    def forward(self, x):
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.positions


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        def by_head(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        parts = (by_head(linear(x)) for linear in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class Transposed(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inside = nn.Sequential(*layers)

    def forward(self, x):
        return self.inside(x.transpose(1, 2)).transpose(1, 2)


class Take(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def mlp(p, hidden):
    return nn.Linear(p, hidden), nn.GELU("tanh"), nn.Linear(hidden, p)


def residual(*layers):
    return Sum(nn.Sequential(*layers), nn.Identity())


def vit(width, depth, heads, hidden):
    def block():
        return nn.Sequential(
            residual(nn.LayerNorm(width), Attention(width, heads)),
            residual(nn.LayerNorm(width), *mlp(width, hidden)),
        )

    return nn.Sequential(
        *(Tokens(width), ClassAndPositions(49, width), *(block() for _ in range(depth))),
        *(nn.LayerNorm(width), Take(lambda x: x[:, 0]), nn.Linear(width, CLASSES)),
    )


def mlp_mixer(width, depth, token_hidden, hidden):
    def block():
        return nn.Sequential(
            residual(nn.LayerNorm(width), Transposed(*mlp(49, token_hidden))),
            residual(nn.LayerNorm(width), *mlp(width, hidden)),
        )

    return nn.Sequential(
        *(Tokens(width), *(block() for _ in range(depth))),
        *(nn.LayerNorm(width), Take(lambda x: x.mean(1)), nn.Linear(width, CLASSES)),
    )


MNIST, CIFAR, LARGER = (28, 28, 1), (32, 32, 3), (64, 64, 3)
NETWORKS = {
    "cnn": (CNN(), paper_cnn, MNIST),
    "cnn, published code": (CNN("15C5-40C5-P2-128", batch_norm=True), published_cnn, MNIST),
    "cnn4": (CNN4(), cnn4, MNIST),
    "lenet5": (LeNet5(), lenet5, MNIST),
    "alexnet": (AlexNet(channels=4, width=16), lambda: alexnet(4, 16), LARGER),
    "alexnet, published code": (
        AlexNet(channels=4, width=16, linear_norm=True),
        lambda: alexnet(4, 16, linear_norm=True),
        LARGER,
    ),
    "resnet": (
        ResNet(width=8),
        lambda: resnet(8),
        (12, 12, 1),
    ),  # few pixels: small sums, few kinks
    "resnet18": (ResNet18(width=4), lambda: resnet18(4, large=True), LARGER),
    "resnet18, small images": (ResNet18(width=4), lambda: resnet18(4, large=False), CIFAR),
    "resnet18, FROG's stem": (
        ResNet18(width=4, stem="large"),
        lambda: resnet18(4, large=True),
        CIFAR,
    ),
    "vit": (ViT(width=32, depth=3, heads=4, mlp_width=48), lambda: vit(32, 3, 4, 48), MNIST),
    "mlp-mixer": (
        MLPMixer(width=32, depth=3, token_width=8, mlp_width=48),
        lambda: mlp_mixer(32, 3, 8, 48),
        MNIST,
    ),
}
IN_FLOAT32 = ("cnn", "resnet", "vit")
"""Where rounding turns a ReLU on or off, gradients differ by more than rounding: in a network of
many units and layers always somewhere, in these at some points only, and the test takes others."""


def as_torch(p, shape):
    """A leaf of dualnet's parameters as torch lays it out, for a parameter of that shape."""
    if p.ndim == 4:  # (kh, kw, C, Q) to (Q, C, kh, kw)
        return p.transpose(3, 2, 0, 1)
    if p.ndim == 2 and len(shape) == 4:  # patches, whose pixels lie row by row, channels last
        return p.reshape(*shape[2:], shape[1], shape[0]).transpose(3, 2, 0, 1)
    if p.ndim == 2 and len(shape) == 2:
        return p.T
    return p.reshape(shape)


def copied(params, module):
    """Give the module these parameters; both have theirs in one order."""
    for p, theirs in zip(tree.leaves(params), module.parameters(), strict=True):
        assert p.size == theirs.numel()
        with torch.no_grad():
            theirs.copy_(torch.from_numpy(as_torch(p, theirs.shape).copy()))


@pytest.mark.parametrize(
    ("dtype", "tolerance", "name"),
    [
        *((np.float64, 1e-9, name) for name in NETWORKS),
        *((np.float32, 1e-5, name) for name in IN_FLOAT32),
    ],
)
def test_backpropagation_is_that_of_torch(dtype, tolerance, name, key, rng, worst):
    """Losses and gradients with the same weights; errors relative to all of them together."""
    model, of_torch, in_shape = NETWORKS[name]
    network = model.network(in_shape, CLASSES)
    initial, state, _ = network.init(key, in_shape)

    def draw(_):
        params = tree.map(
            lambda p: (p + 0.05 * rng.standard_normal(p.shape)).astype(dtype), initial
        )
        return params, rng.standard_normal((4, *in_shape)).astype(dtype)

    params, images = drawn_until(
        lambda at: dtype == np.float64 or nearest_kink(network, state, *at) > 1e-5, draw
    )
    labels = rng.permutation(CLASSES)[: len(images)]  # not all right, with losses of mere rounding

    def losses(params):
        outputs, _ = network.apply(params, state, images, Context(train=True))
        return softmax_cross_entropy(outputs, labels)

    ours, pull = dn.vjp(losses, params)
    (gradients,) = pull(np.ones_like(ours))

    module = of_torch().to(torch.from_numpy(images).dtype)
    copied(params, module)
    outputs = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    theirs = F.cross_entropy(outputs, torch.from_numpy(labels), reduction="none")
    theirs.sum().backward()

    assert ours.dtype == dtype
    assert_near("losses", [ours], [theirs.detach().numpy()], name, worst, tolerance)
    expected = [p.grad.numpy() for p in module.parameters()]
    leaves = zip(tree.leaves(gradients), expected, strict=True)
    ours = [as_torch(g, e.shape) for g, e in leaves]
    assert_near("gradients", ours, expected, name, worst, tolerance)


def nearest_kink(network, state, params, images):
    """How near any ReLU's input comes to 0, and the two largest of any window of a max pool to one
    another, relative to the deviation of what comes into the layer."""
    params, state, images = tree.map(np.float64, (params, state, images))
    nearest = np.inf
    for layer, x in layers_and_inputs(network, params, state, images):
        if is_relu(layer):
            gaps = np.abs(x)
        elif isinstance(layer, MaxPool):
            geometry = Geometry.of("", layer.window, layer.stride or layer.window, layer.padding)
            second, first = np.moveaxis(np.sort(unfold(x, geometry), axis=-2)[..., -2:, :], -2, 0)
            gaps = (first - second)[first > 0]  # below a ReLU that is off they tie in both
        else:
            continue
        nearest = min(nearest, np.min(gaps) / np.std(x))
    return nearest


def assert_near(kind, ours, expected, name, worst, tolerance):
    difference, size = (
        np.sqrt(sum(np.sum(np.square(part)) for part in parts))
        for parts in ([a - b for a, b in zip(ours, expected, strict=True)], expected)
    )
    worst(f"{kind} of models against torch, {ours[0].dtype}", difference / size, name)
    assert difference < tolerance * size
