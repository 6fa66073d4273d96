"""A complete dualnet: k directional derivatives in one pass, and reverse mode by transposing.

Page 3 of the tutorial builds these ninety lines of code piece by piece.  `python tiny.py` trains a
network with them.
"""

import numpy as np


class Record:
    """A tangent that computes nothing, and knows which maps of which records it is the sum of."""

    def __init__(self, tape, steps):
        self.tape, self.steps = tape, steps
        tape.append(self)

    def __add__(self, other):
        return Record(self.tape, self.steps + other.steps)


class Map:
    """A linear map from tangents (k, *S) to tangents (k, *R), and its transpose."""

    def __init__(self, forward, transpose):
        self.forward, self.transpose = forward, transpose

    def __call__(self, t):
        return Record(t.tape, [(self, t)]) if isinstance(t, Record) else self.forward(t)


def scale(x, c):
    """Return the map t -> c * t, for a tangent t of x; c has the shape of the result."""
    padded = (1,) * (c.ndim - x.ndim) + x.shape
    repeated = tuple(axis + 1 for axis, size in enumerate(padded) if size == 1)
    return Map(
        lambda t: t.reshape(len(t), *padded) * c,
        lambda ct: (ct * c).sum(repeated, keepdims=True).reshape(len(ct), *x.shape),
    )


def product(out, x, y):
    """Return the maps of x * y."""
    return scale(x, np.broadcast_to(y, out.shape)), scale(y, np.broadcast_to(x, out.shape))


def matmul(out, x, y):
    """Return the maps of x @ y, for two matrices."""
    return Map(lambda t: t @ y, lambda ct: ct @ y.T), Map(lambda t: x @ t, lambda ct: x.T @ ct)


def total(out, x):
    """Return the map of the sum of all entries of x."""
    axes = tuple(range(1, x.ndim + 1))
    return (Map(lambda t: t.sum(axes), lambda ct: np.multiply.outer(ct, np.ones(x.shape))),)


RULES = {
    np.add: lambda out, x, y: (scale(x, np.ones(out.shape)), scale(y, np.ones(out.shape))),
    np.subtract: lambda out, x, y: (scale(x, np.ones(out.shape)), scale(y, -np.ones(out.shape))),
    np.multiply: product,
    np.tanh: lambda out, x: (scale(x, 1 - out * out),),
    np.square: lambda out, x: (scale(x, 2 * x),),
    np.matmul: matmul,
    np.sum: total,
}


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """A primal and its tangent: an array (k, *S), or a Record."""

    def __init__(self, primal, tangent):
        self.primal, self.tangent = primal, tangent

    def __array_ufunc__(self, function, method, *args):
        return evaluate(function, *args) if method == "__call__" else NotImplemented

    def sum(self):
        return evaluate(np.sum, self)


def evaluate(function, *args):
    """Run a function on the primals, and the maps of its rule on the tangents."""
    primals = [x.primal if isinstance(x, Dual) else np.asarray(x) for x in args]
    out = function(*primals)
    maps = RULES[function](out, *primals)
    pairs = zip(maps, args, strict=True)
    images = [m(x.tangent) for m, x in pairs if isinstance(x, Dual)]
    return Dual(out, sum(images[1:], images[0]))


def jvp(f, primals, tangents):
    """Return f's value and its derivatives along k directions: forward mode."""
    out = f(*map(Dual, primals, tangents))
    return out.primal, out.tangent


def vjp(f, *primals):
    """Return f's value and the transpose of its derivative, a function of a cotangent."""
    tape = []
    inputs = [Record(tape, []) for _ in primals]
    out = f(*map(Dual, primals, inputs))

    def pull(ct):
        arrived = {out.tangent: ct}
        for record in reversed(tape):
            for m, earlier in record.steps if record in arrived else []:
                arrived[earlier] = arrived.get(earlier, 0) + m.transpose(arrived[record])
        return [arrived[record] for record in inputs]

    return out.primal, pull


def grad(f, *primals):
    """Return the gradient by each argument of a function whose value is one number."""
    _, pull = vjp(f, *primals)
    return [ct[0] for ct in pull(np.ones(1))]


def forward_gradient(f, primals, k, rng):
    """Estimate the gradient from k random directions, without reverse mode: page 4."""
    directions = [rng.normal(size=(k, *x.shape)) for x in primals]
    _, slopes = jvp(f, primals, directions)
    return [np.tensordot(slopes, v, 1) / k for v in directions]


def train(estimate, steps=300, lr=0.1):
    """Fit a network of 16 hidden units to sin(x), and return the loss before and after."""
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 64)[:, None]
    weights = [rng.normal(size=shape) for shape in [(1, 16), (16,), (16, 1)]]

    def loss(w, b, out):
        return (np.square(np.tanh(x @ w + b) @ out - np.sin(x)) * (1 / 64)).sum()

    before = loss(*weights)
    for _ in range(steps):
        gradient = estimate(loss, weights, rng)
        weights = [w - lr * g for w, g in zip(weights, gradient, strict=True)]
    return before, loss(*weights)


if __name__ == "__main__":
    for name, estimate in {
        "reverse mode": lambda f, weights, rng: grad(f, *weights),
        "16 directions": lambda f, weights, rng: forward_gradient(f, weights, 16, rng),
    }.items():
        before, after = train(estimate)
        print(f"{name}: the loss falls from {before:.2f} to {after:.3f}")
