"""Optimizers and learning rate schedules."""

import dataclasses
import math
import re

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.errors import TreeError, UsageError
from dualnet.optim import (
    LARS,
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    clip_to_norm,
)
from dualnet.optim.optimizer import descended
from dualnet.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    Linear,
    StepDecay,
    WarmupCosine,
)

EVERY_RULE = [
    *(family() for family in OPTIMIZERS.values()),
    *(family(weight_decay=0.1) for family in OPTIMIZERS.values()),
]
every_rule = pytest.mark.parametrize("optimizer", EVERY_RULE, ids=str)


def random_tree(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return np.asarray(rng.normal(size=shape), dtype=dtype)

    return {
        "hidden": {"w": draw(4, 3), "b": draw(3)},
        "relu": {},
        "pair": (draw(2), [draw(2, 1, 2), ()]),
        "scale": draw(),
        "nothing": draw(0, 3),
    }


def run(optimizer, params, gradients, lr=0.1):
    state = optimizer.init(params)
    seen = []
    for grads in gradients:
        params, state = optimizer.update(grads, state, params, lr)
        seen.append(params)
    return seen, state


# The rules


@pytest.mark.parametrize(
    ("optimizer", "first", "second"),
    [
        (SGD(), [0.95, -2.1], [1.05, -2.125]),
        (SGD(weight_decay=0.5), [0.9, -2.0], [0.955, -1.925]),
        (Momentum(), [0.95, -2.1], [1.005, -2.215]),
        (Momentum(weight_decay=0.5), [0.9, -2.0], [0.865, -1.925]),
        (Nesterov(), [0.905, -2.19], [1.0545, -2.3185]),
        (Nesterov(weight_decay=0.5), [0.81, -2.0], [0.84205, -1.8575]),
    ],
    ids=str,
)
def test_first_two_steps_by_hand(optimizer, first, second):
    gradients = [np.array([0.5, 1.0]), np.array([-1.0, 0.25])]
    seen, state = run(optimizer, np.array([1.0, -2.0]), gradients)
    np.testing.assert_allclose(seen[0], first, rtol=1e-14)
    np.testing.assert_allclose(seen[1], second, rtol=1e-14)
    assert state["step"] == 2


@pytest.mark.parametrize(
    ("family", "weight_decay", "gradients", "first", "second"),
    [
        # m' is 3 and then -3/7 or 141/7; sqrt(v') is 3 and then 3 or 27.
        (Adam, 0.0, [[3.0, 3.0], [-3.0, 33.0]], 1.925, [1.925 + 0.3 / 28, 1.925 - 14.1 / 196]),
        (AdamW, 0.0, [[3.0, 3.0], [-3.0, 33.0]], 1.925, [1.925 + 0.3 / 28, 1.925 - 14.1 / 196]),
        # The gradients are lower by wd p, so that the steps stay the same.
        (
            Adam,
            0.5,
            [[2.0, 2.0], [-3.9625, 32.0375]],
            1.925,
            [1.925 + 0.3 / 28, 1.925 - 14.1 / 196],
        ),
        # Each update first takes a twentieth off.
        (
            AdamW,
            0.5,
            [[3.0, 3.0], [-3.0, 33.0]],
            1.825,
            [1.73375 + 0.3 / 28, 1.73375 - 14.1 / 196],
        ),
    ],
)
def test_first_two_steps_of_adam_by_hand(family, weight_decay, gradients, first, second):
    optimizer = family(beta1=0.75, beta2=0.5, epsilon=1.0, weight_decay=weight_decay)
    seen, state = run(optimizer, np.array([2.0, 2.0]), [np.array(g) for g in gradients])
    np.testing.assert_allclose(seen[0], first, rtol=1e-14)
    np.testing.assert_allclose(seen[1], second, rtol=1e-14)
    np.testing.assert_allclose(state["first_moment"], [-0.1875, 8.8125], rtol=1e-14)
    np.testing.assert_allclose(state["second_moment"], [6.75, 546.75], rtol=1e-14)


def test_first_two_steps_of_lars_by_hand():
    # Lengths are 5 and 10, and with the decay the ratio is 0.25 * 5 / (10 + 0.5 * 5) = 0.1.
    optimizer = LARS(trust=0.25, momentum=0.5, weight_decay=0.5)
    params = {"w": np.array([[3.0, 4.0]]), "b": np.array([3.0, 4.0])}
    grads = {"w": np.array([[6.0, -8.0]]), "b": np.array([6.0, -8.0])}
    seen, state = run(optimizer, params, [grads])
    np.testing.assert_allclose(state["velocity"]["w"], [[0.75, -0.6]], rtol=1e-14)
    np.testing.assert_allclose(seen[0]["w"], [[2.925, 4.06]], rtol=1e-14)
    np.testing.assert_allclose(seen[0]["b"], [2.4, 4.8], rtol=1e-14)  # neither ratio nor decay
    # A gradient of 0 has no direction to be scaled to: what is left is the decay, with ratio 1.
    nothing = tree.map(np.zeros_like, grads)
    params, state = optimizer.update(nothing, state, seen[0], 0.1)
    velocity = 0.5 * np.array([[0.75, -0.6]]) + 0.5 * seen[0]["w"]
    np.testing.assert_allclose(state["velocity"]["w"], velocity, rtol=1e-14)
    np.testing.assert_allclose(params["w"], seen[0]["w"] - 0.1 * velocity, rtol=1e-14)
    np.testing.assert_allclose(params["b"], [2.1, 5.2], rtol=1e-14)


def test_lars_leaves_zero():
    zero, g = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    (moved,), _ = run(LARS(weight_decay=0.1), zero, [g])
    np.testing.assert_allclose(moved, -0.1 * g)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lars"])  # torch has none
def test_agrees_with_torch(name, weight_decay):
    torch = peer("torch")
    start = random_tree(0, np.float64)
    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in tree.leaves(start)]
    theirs = {
        "sgd": lambda: torch.optim.SGD(tensors, 0.1, weight_decay=weight_decay),
        "momentum": lambda: torch.optim.SGD(tensors, 0.1, 0.7, weight_decay=weight_decay),
        "nesterov": lambda: torch.optim.SGD(
            tensors, 0.1, 0.7, weight_decay=weight_decay, nesterov=True
        ),
        "adam": lambda: torch.optim.Adam(
            tensors, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay
        ),
        "adamw": lambda: torch.optim.AdamW(
            tensors, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay
        ),
    }[name]()
    given = {"momentum": 0.7, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}
    fields = {field.name for field in dataclasses.fields(OPTIMIZERS[name])}
    ours = OPTIMIZERS[name](
        weight_decay=weight_decay, **{k: v for k, v in given.items() if k in fields}
    )
    params, state = start, ours.init(start)
    for step in range(20):
        lr = 0.1 * 0.9**step
        grads = random_tree(step + 1, np.float64)
        params, state = ours.update(grads, state, params, lr)
        theirs.param_groups[0]["lr"] = lr
        for tensor, gradient in zip(tensors, tree.leaves(grads), strict=True):
            tensor.grad = torch.tensor(gradient)
        theirs.step()
    for ours_leaf, tensor in zip(tree.leaves(params), tensors, strict=True):
        np.testing.assert_allclose(ours_leaf, tensor.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_adam_does_not_move_without_gradients():
    seen, _ = run(Adam(), np.float32([1.0, 2.0]), [np.zeros(2, np.float32)] * 3)
    np.testing.assert_array_equal(seen[-1], [1.0, 2.0])


@every_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_apply_gives_the_bits_of_the_formula(optimizer, dtype):
    """An array without axes stays one, though NumPy's operators make scalars of it."""
    p, gradients = random_tree(0, dtype), [random_tree(i, dtype) for i in range(1, 4)]
    opt_state = optimizer.init_opt_state(p)
    for step, g in enumerate(gradients, 1):
        got = optimizer.apply(g, opt_state, p, 0.1, step)
        for path, leaf in tree.items(p):
            s = {name: dict(tree.items(opt_state[name]))[path] for name in opt_state}
            new_p, new_s = optimizer.update_leaf(dict(tree.items(g))[path], s, leaf, 0.1, step)
            np.testing.assert_array_equal(dict(tree.items(got[0]))[path], new_p)
            for name in opt_state:
                np.testing.assert_array_equal(dict(tree.items(got[1][name]))[path], new_s[name])
        p, opt_state = got


# Dtypes, purity, trees


@every_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_structure_stay(optimizer, dtype):
    params = random_tree(0, dtype)
    # NumPy's float64 scalars would widen float32 arrays, here and in the hyperparameters.
    given = {k: np.float64(v) for k, v in dataclasses.asdict(optimizer).items()}
    optimizer = type(optimizer)(**given)
    seen, state = run(optimizer, params, [random_tree(1, dtype)] * 2, lr=np.float64(0.1))
    memories = [state[name] for name in optimizer.state_names]
    for like in [*seen, *memories]:
        tree.map(lambda *_: None, params, like)
        for path, leaf in tree.items(like):
            assert type(leaf) is np.ndarray, path
            assert leaf.dtype == dtype, path
    assert state.keys() == {"step", *optimizer.state_names}
    assert type(state["step"]) is np.ndarray
    assert state["step"].dtype == np.int64
    assert state["step"].shape == ()
    assert state["step"] == 2


@every_rule
def test_nothing_is_changed_in_place(optimizer):
    params, grads = random_tree(0), random_tree(1)
    _, state = run(optimizer, params, [random_tree(2)])
    given = [*tree.leaves(params), *tree.leaves(grads), *tree.leaves(state)]
    before = [leaf.copy() for leaf in given]
    for leaf in given:
        leaf.setflags(write=False)
    made = tree.leaves(optimizer.update(grads, state, params, 0.1))
    for leaf, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(leaf, copy)
    assert not any(np.shares_memory(new, old) for new in made for old in given)


@every_rule
def test_keys_may_come_in_another_order(optimizer):
    params, grads = random_tree(0), random_tree(1)
    state = optimizer.init(params)

    def reverse(branch):
        if not isinstance(branch, dict):
            return branch
        return {key: reverse(branch[key]) for key in reversed(branch)}

    expected = optimizer.update(grads, state, params, 0.1)
    got = optimizer.update(reverse(grads), reverse(state), params, 0.1)
    tree.map(np.testing.assert_array_equal, expected, got)


@every_rule
@pytest.mark.parametrize("params", [{}, {"relu": {}, "pair": ((), [])}], ids=str)
def test_a_tree_without_leaves(optimizer, params):
    new_params, state = optimizer.update(params, optimizer.init(params), params, 0.1)
    assert new_params == params
    assert all(state[name] == params for name in optimizer.state_names)


def test_a_family_of_ones_own():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Adagrad(Optimizer):
        start: float = 4.0
        state_names = ("total",)

        def init_leaf(self, p):
            return {"total": np.full_like(p, self.start)}

        def update_leaf(self, g, s, p, lr, step):
            total = s["total"] + g * g
            return p - lr * g / np.sqrt(total), {"total": total}

    params = {"w": np.array([1.0]), "b": (np.array([2.0]),)}
    grads = {"w": np.array([0.0]), "b": (np.sqrt([12.0]),)}
    seen, state = run(Adagrad(), params, [grads], lr=0.5)
    np.testing.assert_allclose(tree.leaves(seen[0]), [[1.0], [2.0 - math.sqrt(12.0) / 8.0]])
    np.testing.assert_allclose(tree.leaves(state["total"]), [[4.0], [16.0]])


# Errors


def without(branch, key):
    return {k: v for k, v in branch.items() if k != key}


P = random_tree(0)
STATE = Adam().init(P)


def with_bias(gradient):
    return {**P, "hidden": {**P["hidden"], "b": gradient}}


@pytest.mark.parametrize(
    ("grads", "state", "error", "message"),
    [
        (
            {**P, "hidden": {"w": P["hidden"]["w"]}},
            STATE,
            TreeError,
            "gradient: trees differ at hidden: expected {w: float32(4, 3), b: float32(3,)}, "
            "got {w: float32(4, 3)}; give one array",
        ),
        ({**P, "pair": list(P["pair"])}, STATE, TreeError, "gradient: trees differ at pair: "),
        (P["hidden"]["b"], STATE, TreeError, "gradient: trees differ at the root: "),
        *[
            (
                with_bias(gradient),
                STATE,
                UsageError,
                "gradient of hidden/b: expected float32(3,), as its parameter, "
                f"got {got}; convert it",
            )
            for gradient, got in [
                (np.zeros((1, 3), np.float32), "float32(1, 3)"),
                (np.zeros(3), "float64(3,)"),
                (None, "NoneType"),
                (0.0, "float"),
            ]
        ],
        (
            P,
            Momentum().init(P),
            TreeError,
            "state: expected the keys ['step', 'first_moment', 'second_moment'], "
            "got the keys ['step', 'velocity']; make one with Adam().init(params)",
        ),
        (P, P["scale"], TreeError, "state: expected the keys "),
        (
            P,
            {**STATE, "second_moment": without(P, "scale")},
            TreeError,
            "second_moment: trees differ at the root",
        ),
        (
            P,
            {**STATE, "first_moment": {**P, "scale": np.zeros(1, np.float32)}},
            UsageError,
            "first_moment of scale: expected float32(), as ",
        ),
    ],
)
def test_gradients_and_states_that_do_not_fit(grads, state, error, message):
    with pytest.raises(error, match=f"^{re.escape('Adam.update: ' + message)}"):
        Adam().update(grads, state, P, 0.1)


def test_a_gradient_that_is_no_tree_is_at_the_root():
    leaf = P["hidden"]["b"]
    with pytest.raises(UsageError, match=r"gradient of the root: expected float32\(3,\)"):
        SGD().update(np.zeros(2, np.float32), SGD().init(leaf), leaf, 0.1)


@every_rule
@pytest.mark.parametrize("leaf", [np.arange(3), 1.0, None], ids=str)
def test_parameters_that_are_no_floating_point_arrays(optimizer, leaf):
    good, bad = {"w": np.zeros(3)}, {"w": leaf}
    where = type(optimizer).__name__
    with pytest.raises(UsageError, match=rf"{where}\.init: parameter w: expected a floating-"):
        optimizer.init(bad)
    with pytest.raises(UsageError, match=rf"{where}\.update: parameter w: expected a floating-"):
        optimizer.update(bad, optimizer.init(good), bad, 0.1)


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf, None, "fast"])
def test_learning_rate_out_of_range(lr):
    params = np.zeros(3)
    with pytest.raises(UsageError, match=r"SGD.update: expected lr at least 0 and finite, got "):
        SGD().update(params, SGD().init(params), params, lr)


# Tables


def test_tables():
    assert list(OPTIMIZERS) == ["sgd", "momentum", "nesterov", "adam", "adamw", "lars"]
    assert list(SCHEDULES) == [
        "constant",
        "step",
        "exponential",
        "linear",
        "cosine",
        "warmup-cosine",
    ]
    for family in (*OPTIMIZERS.values(), *SCHEDULES.values()):
        assert family() == family()
        assert hash(family()) == hash(family())
        with pytest.raises(dataclasses.FrozenInstanceError):
            family().weight_decay = 1.0
    # A learning rate given here by mistake must not become some hyperparameter.
    for family in OPTIMIZERS.values():
        with pytest.raises(UsageError, match=r"got 0.1; .*the learning rate is an argument of upd"):
            family(0.1)
    assert [family().weight_decay for family in OPTIMIZERS.values()] == [0, 0, 0, 0, 0.01, 0]


# Schedules


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {0: 1.0, 50: 1.0, 100: 1.0}),
        (StepDecay(), {0: 1.0, 49: 1.0, 50: 0.1, 74: 0.1, 75: 0.01, 100: 0.01}),
        (StepDecay(factor=0.5, times=[0.07]), {0: 1.0, 6: 1.0, 7: 0.5, 100: 0.5}),
        (StepDecay(times=()), {0: 1.0, 100: 1.0}),
        (Exponential(), {0: 1.0, 9: 1.0, 10: 0.95, 50: 0.7737809375, 100: 0.5987369392383789}),
        (Exponential(factor=0.5, every="step"), {0: 1.0, 1: 0.5, 3: 0.125, 10: 0.0009765625}),
        (Linear(), {0: 1.0, 50: 0.5, 99: 0.01, 100: 0.0}),
        (Linear(final=0.2), {0: 1.0, 50: 0.6, 100: 0.2}),
        (Cosine(), {0: 1.0, 25: 0.8535533905932737, 50: 0.5, 75: 0.1464466094067263, 100: 0.0}),
        (Cosine(final=0.2), {0: 1.0, 50: 0.6, 100: 0.2}),
        (WarmupCosine(), {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0}),
        (WarmupCosine(warmup=0.2, final=0.5), {0: 0.05, 19: 1.0, 60: 0.75, 100: 0.5}),
        (WarmupCosine(warmup=0.0), {0: 1.0, 50: 0.5, 100: 0.0}),
        (WarmupCosine(warmup=1.0), {0: 1 / 99, 98: 1.0, 99: 1.0, 100: 0.0}),
    ],
    ids=str,
)
def test_schedule_values(schedule, factors):
    for step, factor in factors.items():
        assert schedule(step, 100, 10) == pytest.approx(factor, rel=1e-14, abs=1e-16), step


@pytest.mark.parametrize("family", SCHEDULES.values())
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10, 97])
def test_schedules_stay_between_0_and_1(family, total_steps):
    factors = [family()(step, total_steps, 3) for step in range(total_steps)]
    assert all(type(factor) is float for factor in factors)
    assert all(0.0 < factor <= 1.0 for factor in factors)
    peak = factors.index(1.0)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert 0.0 <= family()(total_steps, total_steps, 3) <= 1.0


def test_schedules_give_python_floats():
    schedule = StepDecay(factor=np.float64(0.5), times=(np.float64(0.5),))
    assert type(schedule(np.int64(5), np.int64(10), np.int64(2))) is float
    assert schedule == StepDecay(factor=0.5, times=(0.5,))
    assert type(schedule.times[0]) is float
    assert type(schedule.factor) is float


@pytest.mark.parametrize("family", SCHEDULES.values())
def test_schedule_outside_the_run(family):
    name = family.__name__
    for step in (-1, 101):
        message = f"{name}: expected a step from 0 to total_steps = 100, got {step}"
        with pytest.raises(UsageError, match=message):
            family()(step, 100, 10)
    for total_steps, steps_per_epoch in [(0, 10), (100, 0)]:
        message = f"{name}: .* at least 1, got {total_steps} and {steps_per_epoch}"
        with pytest.raises(UsageError, match=message):
            family()(0, total_steps, steps_per_epoch)


NOT_A_SHARE = (-0.1, 1.1, math.nan, None)
NOT_A_DECAY = (-0.1, 1.0, math.nan, "much")
NOT_POSITIVE = (-1e-8, 0.0, math.nan, math.inf)
OUT_OF_RANGE = {
    "weight_decay": (-0.1, math.nan, math.inf, None),
    "momentum": NOT_A_DECAY,
    "beta1": NOT_A_DECAY,
    "beta2": NOT_A_DECAY,
    "epsilon": NOT_POSITIVE,
    "trust": NOT_POSITIVE,
    "factor": NOT_A_SHARE,
    "times": ((0.0,), (1.0,), (0.5, 0.5), (0.7, 0.3), (math.nan,), 0.5, "ab"),
    "every": ("week", 1, None),
    "final": NOT_A_SHARE,
    "warmup": NOT_A_SHARE,
}


@pytest.mark.parametrize("family", [*OPTIMIZERS.values(), *SCHEDULES.values()])
def test_fields_out_of_range(family):
    for field in dataclasses.fields(family):
        for value in OUT_OF_RANGE[field.name]:
            name = field.name
            message = f"^{family.__name__}: (expected {name} |{name}: expected |{name} must be )"
            with pytest.raises(UsageError, match=message) as caught:
                family(**{field.name: value})
            assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda p, new_s: (p * np.float64(1), new_s), r"the new parameter of w: expected float32"),
        (lambda p, new_s: (p[:1], new_s), r"the new parameter of w: expected float32\(2, 3\), as"),
        (lambda p, new_s: (p, {"v": p[0]}), r"v of w: expected float32\(2, 3\), as its parameter"),
        (
            lambda p, new_s: p,
            r"expected \(new parameter, {'v': ...}\), got float32\(2, 3\)$",
        ),
        (lambda p, new_s: (p, {}), r"expected .*, {'v': ...}\), got \(float32\(2, 3\), {}\)$"),
    ],
)
def test_what_update_leaf_must_return(returned, message):
    """A parameter of two rows would be taken apart for a pair; a wide one would widen the run."""

    class Own(Optimizer):
        state_names = ("v",)

        def update_leaf(self, g, s, p, lr, step):
            return returned(p, s)

    params = {"w": np.ones((2, 3), np.float32)}
    with pytest.raises(UsageError, match=f"^Own.update_leaf: {message}"):
        Own().update(params, Own().init(params), params, 0.1)


# Clipping


def test_a_gradient_is_scaled_down_to_the_norm():
    """By hand: |(3, 4, 12)| = 13."""
    gradients = {"w": np.float32([[3], [4]]), "b": (np.float32(12).reshape(()), np.zeros((0, 2)))}
    clipped = clip_to_norm(gradients, 6.5)
    np.testing.assert_array_equal(clipped["w"], np.float32([[1.5], [2]]))
    assert clipped["b"][0] == 6 and clipped["b"][1].shape == (0, 2)
    assert [x.dtype for x in tree.leaves(clipped)] == ["float32", "float32", "float64"]
    for most in (13.0, 14.0, 1e30):  # the norm is no larger
        same = clip_to_norm(gradients, most)
        for a, b in zip(tree.leaves(same), tree.leaves(gradients), strict=True):
            np.testing.assert_array_equal(a, b)
    assert clip_to_norm({"none": ()}, 1.0) == {"none": ()}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_norm_of_large_and_small_entries(dtype):
    """Their squares are infinite, or 0."""
    top = float(np.finfo(dtype).max) / 4
    large = np.array([3 * top, 0], dtype)
    np.testing.assert_allclose(clip_to_norm([large], 2.0)[0], [2, 0], rtol=2e-3)
    many = np.full(100_000, top, dtype)
    np.testing.assert_allclose(clip_to_norm([many], 10.0)[0], 10 / np.sqrt(1e5), rtol=2e-3)
    small = np.array([3, 4], dtype) * np.finfo(dtype).tiny
    np.testing.assert_array_equal(clip_to_norm([small], 1e-3)[0], small)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(bad):
    gradients = {"a": np.ones(3), "b": np.array([1.0, bad])}
    with np.errstate(invalid="ignore"):
        clipped = clip_to_norm(gradients, 1.0)
    assert all(np.isnan(x).all() for x in tree.leaves(clipped))


@every_rule
def test_an_update_with_a_clipped_gradient(optimizer, rng):
    params = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    g = {"w": 30 * rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    norm = math.sqrt(sum(float(np.square(x).sum()) for x in tree.leaves(g)))
    by_hand = tree.map(lambda x: x * (0.7 / norm), g)
    state = optimizer.init(params)
    expected, _ = optimizer.update(by_hand, state, params, 0.1)
    got, _ = optimizer.update(g, state, params, 0.1, clip_norm=0.7)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, 1e31, "one"])
def test_a_norm_that_makes_no_sense(norm):
    params = {"w": np.ones(3)}
    with pytest.raises(UsageError, match=r"^SGD.update: expected clip_norm from 1e-30 to 1e30, g"):
        SGD().update(params, SGD().init(params), params, 0.1, clip_norm=norm)


@pytest.mark.parametrize("family", [Adam, AdamW])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_adam_in_three_arrays_is_its_formula(monkeypatch, rng, family, dtype, order):
    """Bit for bit, laid out as the parameter, with NaN and infinities, and nothing is changed."""
    optimizer = family(weight_decay=0.1)
    p, g = (rng.normal(size=(5, 7)).astype(dtype) for _ in range(2))
    g[0, :3] = np.nan, np.inf, -np.inf
    g = np.asarray(g, order=order)
    s = {name: np.abs(rng.normal(size=(5, 7))).astype(dtype) for name in optimizer.state_names}
    before = {name: x.copy() for name, x in {**s, "p": p, "g": g}.items()}
    with np.errstate(all="ignore"):
        new_p, new_s = optimizer.update_leaf(g, s, p, 0.1, 3)
        monkeypatch.setattr("dualnet.optim.adam._in_three_arrays", by_formula)
        plain_p, plain_s = optimizer.update_leaf(g, s, p, 0.1, 3)
    np.testing.assert_array_equal(new_p, plain_p, strict=True)
    tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), new_s, plain_s)
    assert new_p.flags.c_contiguous
    tree.map(np.testing.assert_array_equal, {**s, "p": p, "g": g}, before)


def by_formula(how, g, m, v, p, rate, epsilon):
    m = how.beta1 * m + (1.0 - how.beta1) * g
    v = how.beta2 * v + (1.0 - how.beta2) * (g * g)
    return p - rate * (m / (np.sqrt(v) + epsilon)), m, v


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7)])
def test_a_descent_in_one_array_is_its_formula(rng, dtype, shape):
    p, g = (np.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    before = p.copy(), g.copy()
    for direction in (g, np.asfortranarray(g)):
        new_p = descended(p, 0.1, direction)
        np.testing.assert_array_equal(new_p, p - 0.1 * direction, strict=True)
        assert new_p is not p and new_p is not direction
    np.testing.assert_array_equal((p, g), before)


def test_an_update_of_gradient_descent_has_a_derivative():
    """The parameter is differentiated by and the gradient is not, and the other way round."""
    p, g = np.ones(3, np.float32), np.arange(3, dtype=np.float32)
    _, by_p = dn.jvp(lambda p: descended(p, 0.5, g), (p,), (g,))
    _, by_g = dn.jvp(lambda g: descended(p, 0.5, g), (g,), (g,))
    np.testing.assert_array_equal(by_p, g)
    np.testing.assert_array_equal(by_g, -0.5 * g)
