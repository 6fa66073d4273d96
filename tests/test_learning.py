"""What every learning rule keeps to: what its results depend on, and what may be added to it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from learning_problems import (
    EVERY_RULE,
    MLP,
    NETWORKS,
    WITH_BATCH_NORM,
    WITH_HEADS,
    Problem,
    assert_close,
    assert_unbiased,
    block,
    distance,
    flat,
    problem,
)

import dualnet as dn
from dualnet import tree
from dualnet.backends import NumpyBackend
from dualnet.errors import UsageError
from dualnet.learning import (
    RULES,
    WEIGHT_SAMPLERS,
    ActivityPerturbation,
    Backprop,
    Batch,
    FiniteDifferences,
    LearnedFeedbackAlignment,
    LocalBackprop,
    Measurement,
    Plan,
    Rule,
    Task,
    WeightPerturbation,
    correct,
    split_batch,
)
from dualnet.learning.directions.activities import ActivityDirections, DrawsActivities
from dualnet.learning.sites import hidden_units
from dualnet.nn import (
    Activation,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    Residual,
    Sequential,
    mean_squared_error,
    relu,
    softmax_cross_entropy,
    tanh,
)

# --- networks that are no chain ---------------------------------------------------------------


@dataclass(frozen=True)
class Twice(Layer):
    """A container as a newcomer might write it: one layer, applied two times."""

    layers: tuple

    def init(self, key, in_shape):
        ((name, inner),) = self.layers
        params, state, shape = inner.init(key, in_shape)
        return {name: params}, {name: state}, shape

    def apply(self, params, state, x, context):
        ((name, inner),) = self.layers
        for _ in range(2):
            x, new = context.child(name, inner, params[name], state[name], x)
            x = np.tanh(x)
        return x, {name: new}


NOT_A_CHAIN = {
    "activation after the sum": (
        ("block", Residual((("block", block(Linear(5), Activation(relu), Linear(5))),))),
        ("relu2", Activation(relu)),
    ),
    "activation before the layer": (
        ("block", Residual((("block", block(Activation(relu), Linear(5))),))),
    ),
    "a layer applied twice": (("block", Twice((("f", Linear(5)),))),),
}


# --- what the result must not depend on --------------------------------------------------------


def assert_same(done, expected, what=""):
    """One step as another, to rounding."""
    assert_close(done.gradients, expected.gradients, 1e-10, what)
    if tree.leaves(expected.rule_state):
        assert_close(done.rule_state, expected.rule_state, 1e-10, what)
    assert np.isclose(done.loss, expected.loss, rtol=1e-12), what
    assert done.correct == expected.correct, what


WITH_DROPOUT = (
    ("hidden", Linear(5)),
    ("dropout", Dropout(0.5)),
    ("tanh", Activation(tanh)),
    ("output", Linear(3)),
)
IN_PIECES = {
    "heads": ((6,), WITH_HEADS, [(2, 1), (3, 1), (7, 1), (20, 1), (3, 3), (7, 2)]),
    "dropout": ((6,), WITH_DROPOUT, [(2, 1), (7, 1), (3, 3)]),
    **{
        name: (*NETWORKS[name], [(3, 2)])
        for name in ("convolution, group norm, residual", "attention")
    },
    **{
        name: ((6,), (("first", Linear(5)), *middle, ("output", Linear(3))), [(3, 2)])
        for name, middle in NOT_A_CHAIN.items()
    },
}
"""name → shape of an example, layers, how many shards and threads.  All see one dropout mask."""


@pytest.mark.parametrize("network", IN_PIECES)
@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_no_rule_depends_on_shards_threads_or_chunks(rule, network, rng, key):
    shape, layers, pieces = IN_PIECES[network]
    p = problem(rng, key, *layers, in_shape=shape, n=7)
    whole = p.step(rule, key)
    for shards, threads in pieces:
        done = p.step(rule, key, NumpyBackend(threads), shards)
        assert_same(done, whole, f"{shards} shards on {threads} threads")
    if isinstance(rule, WeightPerturbation):
        done = p.step(replace(rule, tangent_chunk=2), key, NumpyBackend(2), 3)
        assert_same(done, whole, "in chunks")


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_every_step_draws_a_dropout_mask_of_its_own(rule, rng, key):
    p = problem(rng, key, *WITH_DROPOUT, n=7)
    losses = [p.step(rule, k).loss for k in (key, key.fold_in("other"))]
    assert not np.isclose(*losses, rtol=1e-12, atol=0)  # off by more than rounding


@pytest.mark.parametrize("sampler", [*WEIGHT_SAMPLERS, "angle:30", "varying:3"])
@pytest.mark.parametrize("aggregate", ["mean", "projection", "largest"])
def test_fg_w_does_not_depend_on_the_chunk(sampler, aggregate, rng, key):
    p = problem(rng, key)
    whole = p.step(WeightPerturbation(8, sampler=sampler, aggregate=aggregate), key)
    for chunk in (1, 3, 5, 8, 100):  # 3 and 5 leave a ragged last chunk
        done = p.step(
            WeightPerturbation(8, sampler=sampler, aggregate=aggregate, tangent_chunk=chunk), key
        )
        assert_same(done, whole, f"chunk {chunk}")


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_running_statistics_move_once_a_step(rule, rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM, n=7)
    hidden = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    rules = [rule]
    if isinstance(rule, WeightPerturbation):
        rules += [replace(rule, tangent_chunk=chunk) for chunk in (1, 3)]
    for one in rules:
        statistics = p.step(one, key).model_state["block"]["norm"]
        assert np.allclose(statistics["mean"], 0.1 * hidden.mean(0))
        assert np.allclose(statistics["variance"], 0.9 + 0.1 * hidden.var(0, ddof=1))


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_network_that_couples_examples_is_not_cut(rule, rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM, n=7)
    whole, cut_in_vain = p.step(rule, key), p.step(rule, key, NumpyBackend(2), 3)
    assert np.array_equal(flat(whole.gradients), flat(cut_in_vain.gradients))
    assert np.array_equal(flat(whole.model_state), flat(cut_in_vain.model_state))


@dataclass(frozen=True)
class Recorder(Layer):
    """Keeps the contexts it is applied in."""

    seen: list = field(default_factory=list)

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        self.seen.append(context)
        return x, state


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_layers_are_told_of_the_step_and_applied_no_more_often_than_they_must(rule, rng, key):
    recorder = Recorder()
    p = problem(rng, key, ("recorder", recorder), ("output", Linear(3)), n=7)
    backend, rule_state = NumpyBackend(), p.rule_state(rule)
    recorder.seen.clear()
    p.step(rule, key, backend, 3, rule_state)
    # a shard is one pass; a difference needs one for each direction besides
    passes = 1 + rule.tangents if isinstance(rule, FiniteDifferences) else 1
    assert sorted(c.start for c in recorder.seen) == sorted([0, 2, 4] * passes)
    assert all(c.train and c.backend is backend for c in recorder.seen)
    assert {c.key for c in recorder.seen} == {key.fold_in("network").fold_in("recorder")}


def test_directions_of_activities_are_signs_by_default(rng, key):
    rules = [rule for rule in RULES.values() if issubclass(rule, DrawsActivities)]
    assert {RULES[name] for name in ("fg-a", "lg-fg-a", "fdfa", "fg-a-cv", "ap")} <= set(rules)
    p = problem(rng, key)
    for rule in rules:
        directions = rule().sample(key, p.plan, p.params, NumpyBackend(), len(p.x))
        drawn = directions.draw_array(key, (1000,), p.x.dtype)
        assert np.array_equal(np.unique(drawn), [-1, 1])


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_step_is_a_function_of_its_key_and_changes_nothing(rule, rng, key):
    p = problem(rng, key)
    rule_state = p.rule_state(rule)
    given = (p.params, p.state, rule_state, p.x, p.labels)
    before = tree.map(np.copy, list(given))
    first, again = (p.step(rule, key, rule_state=rule_state) for _ in range(2))
    other = p.step(rule, key.fold_in("other"), rule_state=rule_state)
    tree.map(np.testing.assert_array_equal, list(given), before)
    for a, b in [(first.gradients, again.gradients), (first.rule_state, again.rule_state)]:
        tree.map(np.testing.assert_array_equal, a, b)
    if hasattr(rule, "sampler") and type(rule) is not RULES["fdfa"]:
        assert not np.array_equal(flat(first.gradients), flat(other.gradients))
    else:
        assert np.array_equal(flat(first.gradients), flat(other.gradients))
    if type(rule) in (RULES["fdfa"], LearnedFeedbackAlignment):
        assert not np.array_equal(flat(first.rule_state), flat(other.rule_state))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_start_is_what_the_network_and_the_rule_begin_with(dtype, rng, key):
    p, rule = problem(rng, key, *WITH_BATCH_NORM, dtype=dtype), RULES["dfa"]()
    plan, learner = rule.start(p.task, p.x, key)
    params, state, _ = p.task.network.init(key.fold_in("init"), p.x.shape[1:])
    rule_state = rule.init(key.fold_in("rule"), plan, params)
    assert plan.shapes == p.plan.shapes and plan.task is p.task
    for made, by_hand in zip(learner, (params, state, rule_state), strict=True):
        assert {leaf.dtype for leaf in tree.leaves(made)} <= {np.dtype(dtype)}
        tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype)), made, by_hand)
    assert tree.leaves(learner.model_state) and tree.leaves(learner.rule_state)
    with pytest.raises(UsageError, match=r"DirectFeedback.start: expected a Key, got 0; "):
        rule.start(p.task, p.x, 0)
    for inputs, got in ((p.x.astype(int), r"int64\("), (p.x.tolist(), r"\[")):
        with pytest.raises(UsageError, match=r"start: inputs must be an array of floats .*" + got):
            rule.start(p.task, inputs, key)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layers", [MLP, WITH_HEADS, WITH_BATCH_NORM], ids=["mlp", "heads", "norm"])
def test_everything_keeps_the_shapes_and_dtype_of_the_parameters(rule, dtype, layers, rng, key):
    p = problem(rng, key, *layers, dtype=dtype)
    rule_state = rule.init(key, p.plan, p.params)
    done = p.step(rule, key, shards=2, rule_state=rule_state)
    assert tree.describe(done.gradients) == tree.describe(p.params)
    assert tree.describe(done.rule_state) == tree.describe(rule_state)
    assert {np.asarray(b).dtype for b in tree.leaves(rule_state)} <= {np.dtype(dtype)}
    assert np.isfinite(flat([done.gradients, done.rule_state])).all()
    assert np.asarray(done.loss).dtype == dtype


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("network", [Linear(3), Sequential((("output", Linear(3)),))], ids=str)
def test_a_network_may_be_a_single_layer(network, rule, rng, key):
    task = Task(network, softmax_cross_entropy)
    params, state, _ = task.network.init(key, (6,))
    x = rng.standard_normal((4, 6)).astype(np.float32)
    p = Problem(task, params, state, x, rng.integers(0, 3, 4))
    gradients = p.step(rule, key).gradients
    assert tree.describe(gradients) == tree.describe(params)
    if getattr(rule, "output_layers", "exact") == "perturbed":
        assert distance(gradients, p.exact()) > 1e-3
    else:  # the true error of the outputs
        assert_close(gradients, p.exact(), 1e-5)


# --- options, batches --------------------------------------------------------------------------

OWN = {"independent": True, "sampler": "normal"}
OF_SAMPLERS = (
    "normal, rademacher, rank-one, rank-one-normal, orthogonal, orthonormal, orthogonal-lengths, "
    "basis"
)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("fg-w", {"tangents": 0}, "fg-w: tangents: expected an int of at least 1, got 0"),
        ("fg-w", {"tangent_chunk": 0}, "fg-w: tangent-chunk: expected an int of at least 1, got 0"),
        ("fg-w", {"sampler": "gauss"}, f"one of {OF_SAMPLERS}, rank-one:R .*, got 'gauss'"),
        ("fg-w", {"sampler": "angle:0"}, "DEG above 0 and at most 90, .*, got 'angle:0'"),
        ("fg-w", {"sampler": "angle:91"}, "DEG above 0 and at most 90, .*, got 'angle:91'"),
        ("fg-w", {"sampler": "angle:wide"}, "DEG above 0 and at most 90, .*, got 'angle:wide'"),
        ("lg-fg-w", {"sampler": "normal:3"}, "got 'normal:3'"),
        (
            "fg-w",
            {"aggregate": "median"},
            "mean, sum, mean-times-n, projection, largest, steepest, near-best, .*, got 'median'",
        ),
        ("wp", {"difference": 0.0}, "wp: difference must be above 0 and finite, got 0.0"),
        ("wp", {"difference": np.inf}, "wp: difference must be above 0 and finite, got inf"),
        ("fg-a", {"tangents": -1}, "fg-a: tangents: expected an int of at least 1, got -1"),
        ("fg-a", {"sampler": "rank-one"}, r"got 'rank-one' \(rank-one directions are for weights"),
        (
            "fg-a",
            {"perturb": "within"},
            "perturb: expected one of before, after, got 'within'",
        ),
        ("lg-fg-a", {"aggregate": "sum"}, "aggregate: expected one of mean, projection, got 'sum'"),
        ("fdfa", {"tangents": 0}, "fdfa: tangents: expected an int of at least 1, got 0"),
        (
            "fdfa",
            {"sampler": "normal:unit"},
            "fdfa: sampler: expected one of normal, rademacher, got 'normal:unit'",
        ),
        ("fdfa", {"feedback_rate": 1.5}, "feedback_rate: expected a number from 0 to 1, got 1.5"),
        ("dkp", {"feedback_rate": -0.1}, "feedback_rate: expected a number from 0 to 1, got -0.1"),
        (
            "dkp",
            {"feedback_decay": -1.0},
            "expected a number from 0 to 1, got -1.0",
        ),
        ("ffa", {"feedback_rate": 2.0}, "feedback_rate: expected a number from 0 to 1, got 2.0"),
        ("fg-a-cv", {"tangents": 0}, "fg-a-cv: tangents: expected an int of at least 1, got 0"),
        ("fg-a-cv", {"guess": "bp"}, "fg-a-cv: guess: expected one of fdfa, dfa, last, got 'bp'"),
        ("fg-a-cv", {"shrink": -1.0}, "fg-a-cv: shrink: expected a number from 0 to 1, got -1.0"),
        ("fg-a-cv", {"aggregate": "sum"}, "fg-a-cv: aggregate: expected one of mean, projection"),
        (
            "fg-a-cv",
            {"feedback_rate": float("nan")},
            "fg-a-cv: feedback_rate: expected .*, got nan",
        ),
        *[
            (
                "fg-w",
                {"sampler": sampler},
                r"^sampler: expected one of normal, .*, basis, rank-one:R with R at least 1, "
                r"varying:MAX with MAX at least 1, or angle:DEG or orthogonal-angle:DEG with DEG "
                rf"above 0 and at most 90, with :unit behind it .*, got '{sampler}'"
                r"(; did you mean .*)?$",
            )
            for sampler in (
                *("rank-one:0", "rank-one:1.5", "rank-one:", "rank-one:many"),
                *("unit", ":unit", "normal:2", "varying", "varying:0.5", "varying:inf"),
                "orthogonal-angle:91",
            )
        ],
        (
            "fg-w",
            OWN,
            "fg-w: independent directions .* must be rank-one, .* got 'normal'",
        ),
        ("lg-fg-w", OWN | {"sampler": "rank-one:2"}, "must be rank-one, .* got 'rank-one:2'"),
        *[
            (
                "fg-w",
                OWN | {"sampler": "rank-one", "aggregate": aggregate},
                rf"fg-w: aggregate must be mean or sum .* '{aggregate}' is for shared ones",
            )
            for aggregate in ("projection", "corrected-mean")
        ],
        ("wp", OWN, "wp: no difference moves .* use fg-w for independent"),
    ],
)
def test_bad_options_say_what_would_be_good(rule, options, message):
    with pytest.raises(UsageError, match=message) as raised:
        RULES[rule](**options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 20])
def test_cut_keeps_every_example_once_and_in_order(pieces):
    x, labels = np.arange(14).reshape(7, 2), np.arange(7)
    shards = split_batch(Batch(x, labels), pieces)
    assert np.array_equal(np.concatenate([s.inputs for s in shards]), x)
    assert np.array_equal(np.concatenate([s.targets for s in shards]), labels)
    assert [s.context.start for s in shards] == [int(s.targets[0]) for s in shards]
    lengths = [len(s.inputs) for s in shards]
    assert len(shards) == min(pieces, 7) and max(lengths) - min(lengths) <= 1
    with pytest.raises(UsageError, match="split_batch: pieces: expected an int of at least 1"):
        split_batch(Batch(x, labels), 0)


# --- what a newcomer adds ----------------------------------------------------------------------


@dataclass(frozen=True)
class SignOfDerivative(Rule):
    """Go against each direction by a fixed length, whatever the slope; counts its steps."""

    tangents: int = 4

    def init(self, key, plan, params):
        return {"steps": np.zeros((), np.int64)}

    def sample(self, key, plan, params, backend, n):
        shape = (self.tangents,)
        return tree.map_with_path(
            lambda path, p: backend.normal(key.fold_in(path), shape + p.shape, p.dtype), params
        )

    def measure(self, plan, learner, directions, shard):
        def total_loss(p):
            losses, aux = plan.task.losses(p, learner.model_state, shard, shard.context)
            return losses.sum(), aux

        loss, d, (y, state) = dn.jvp(total_loss, (learner.params,), (directions,), has_aux=True)
        return Measurement({"loss": loss, "correct": correct(y, shard.targets), "d": d}, state)

    def estimate(self, total, directions, learner, n):
        sign = np.sign(total["d"])
        gradients = tree.map(lambda v: np.tensordot(sign, v, 1) / self.tangents, directions)
        return gradients, {"steps": learner.rule_state["steps"] + 1}


def test_a_new_rule_needs_nothing_but_its_class(rng, key):
    p = problem(rng, key, n=7)
    rule = SignOfDerivative()
    rule_state = rule.init(key, p.plan, p.params)
    whole = p.step(rule, key, rule_state=rule_state)
    pieces = p.step(rule, key, NumpyBackend(2), 3, rule_state)
    assert_close(pieces.gradients, whole.gradients, 1e-12)
    assert whole.rule_state["steps"] == 1
    rows = [flat(p.step(rule, key.fold_in(i), rule_state=rule_state).gradients) for i in range(30)]
    assert np.mean(rows, axis=0) @ flat(p.exact()) > 0


@dataclass(frozen=True)
class Scale(Layer):
    """y = s x, with a number s for each feature."""

    def init(self, key, in_shape):
        return {"s": np.ones(in_shape, np.float32)}, {}, in_shape

    def apply(self, params, state, x, context):
        return params["s"] * x, state


class Plain:
    """A layer by its functions alone."""

    init, apply = Scale.init, Scale.apply


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Sequential((("first", Plain()),)),
            r"Sequential: expected layers that derive from Layer, got <.*Plain.*> for 'first'; "
            r"write class Plain\(Layer\): with Layer from dualnet.nn",
        ),
        (
            lambda: Sequential((("first", Scale),)),
            r"Sequential: .* got <class .*Scale'> for 'first'; write Scale\(...\), an instance",
        ),
        (lambda: Residual((("block", Plain()),)), r"Residual: .* for 'block'; .*"),
        (lambda: Task(Plain(), softmax_cross_entropy), r"Task: .* for 'network'; .*"),
    ],
)
def test_a_layer_that_does_not_derive_from_layer_is_refused(make, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        make()


def test_a_plan_says_what_a_rule_needs_to_know(rng, key):
    p = problem(rng, key, *WITH_HEADS)
    plan = p.plan
    assert [unit.weights for unit in plan.units] == ["hidden1", "hidden2", "hidden3"]
    assert (plan.units[0].before, plan.units[0].after) == ("norm1", "relu1")
    readouts = {"head1/linear", "head2/linear"}
    assert plan.readouts("local") == readouts
    assert set(plan.weighted) == {"hidden1", "hidden2", "hidden3", "output"} | readouts
    assert plan.segments["hidden1/w"] == plan.segments["norm1/gain"] == 0
    assert plan.segments["head1/linear/w"] == 0 and plan.segments["hidden2/b"] == 1
    assert plan.segments["output/b"] == 2
    assert list(plan.heads("local")) == list(plan.heads("greedy")) == ["head1", "head2"]
    assert plan.heads("global") == {} and plan.readouts("global") == frozenset()
    assert plan.shapes["hidden1"] == (5,) and plan.shapes["head1/linear"] == (3,)
    assert plan.outputs.shape == (4, 3)
    assert plan.activation_bytes == 2 * 5 * 8


def test_an_activation_behind_a_residual_sum_belongs_to_the_last_layers_of_both_ways():
    inner = Residual((("block", block(Linear(4), LayerNorm())), ("shortcut", Linear(4))))
    nested = Residual((("block", block(inner)),))
    network = Sequential(
        (
            ("two ways", inner),
            ("relu", Activation(relu)),
            ("nested", nested),
            ("tanh", Activation(tanh)),
            ("nothing follows", nested),
            ("output", Linear(3)),
        )
    )
    params, _, _ = network.init(dn.Key(0), (4,))
    units = {unit.weights: (unit.before, unit.after) for unit in hidden_units(network, params)}
    inside = "nested/block/0"
    unfollowed = inside.replace("nested", "nothing follows")
    assert units == {
        "two ways/block/0": ("two ways", "relu"),
        "two ways/shortcut": ("two ways", "relu"),
        f"{inside}/block/0": ("nested", "tanh"),
        f"{inside}/shortcut": ("nested", "tanh"),
        f"{unfollowed}/block/0": (f"{unfollowed}/block/1",) * 2,
        f"{unfollowed}/shortcut": (f"{unfollowed}/shortcut",) * 2,
    }


def test_no_direction_is_put_in_where_the_relu_behind_a_residual_sum_is_off(rng, key, monkeypatch):
    """As in Ren et al., section 3.6: there it could only be noise."""
    seen = {}
    drawer = ActivityDirections.drawer

    def listening(self, shard):
        draw = drawer(self, shard)

        def draw_and_tell(path, visit, z, slope):
            seen[path] = z, draw(path, visit, z, slope)
            return seen[path][1]

        return draw_and_tell

    monkeypatch.setattr(ActivityDirections, "drawer", listening)
    layers = (*NOT_A_CHAIN["activation after the sum"], ("output", Linear(3)))
    p = problem(rng, key, ("hidden", Linear(5)), *layers, n=12)
    p.step(ActivityPerturbation(tangents=2), key)
    assert set(seen) == {"hidden", "block/block/0", "block"}
    total, directions = seen["block"]
    assert np.array_equal(directions != 0, np.broadcast_to(total > 0, directions.shape))
    assert 0 < np.mean(total > 0) < 1


def test_a_plan_is_made_with_one_example_and_changes_nothing(rng, key):
    p = problem(rng, key, *WITH_BATCH_NORM)
    one = Plan.of(p.task, p.params, p.state, p.x[:1])
    assert (one.shapes, one.units, one.segments) == (p.plan.shapes, p.plan.units, p.plan.segments)
    assert one.activation_bytes == p.plan.activation_bytes
    assert np.array_equal(flat(p.state), [0.0] * 5 + [1.0] * 5)


SCALED = (
    ("hidden", Linear(5)),
    ("scale", Scale()),
    ("relu", Activation(relu)),
    ("output", Linear(3)),
)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_new_layer_works_with_every_rule(rule, rng, key):
    p = problem(rng, key, *SCALED)
    done = p.step(rule, key)
    if isinstance(rule, (Backprop, LocalBackprop)):
        assert_close(done.gradients, p.exact(), 1e-13)
    assert all(np.any(g) for g in tree.leaves(done.gradients))


@pytest.mark.parametrize("rule", [WeightPerturbation(60), ActivityPerturbation()], ids=str)
def test_rules_are_unbiased_for_a_new_layer(rule, rng, key):
    p = problem(rng, key, *SCALED)
    copies = 60 // rule.tangents
    assert_unbiased(p.repeated(copies), rule, key, 400)


@dataclass(frozen=True)
class RunningMean(Layer):
    """Takes off the mean of what came before, without a thought for derivatives."""

    def init(self, key, in_shape):
        return {}, {"mean": np.zeros(in_shape)}, in_shape

    def apply(self, params, state, x, context):
        return x - state["mean"], {"mean": 0.9 * state["mean"] + 0.1 * x.mean(axis=0)}


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_the_new_state_of_a_layer_is_plain_arrays(rule, rng, key):
    p = problem(rng, key, ("hidden", Linear(5)), ("follow", RunningMean()), ("output", Linear(3)))
    state = p.step(rule, key).model_state
    hidden = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    assert type(state["follow"]["mean"]) is np.ndarray
    assert np.allclose(state["follow"]["mean"], 0.1 * hidden.mean(0))


@pytest.mark.parametrize("middle", NOT_A_CHAIN.values(), ids=NOT_A_CHAIN.keys())
def test_fg_a_is_unbiased_on_networks_that_are_no_chain(middle, rng, key):
    p = problem(rng, key, ("first", Linear(5)), *middle, ("output", Linear(3)))
    assert_unbiased(p.repeated(60), ActivityPerturbation(), key, 400)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_gradients_keep_their_dtype_whatever_the_targets(rule, rng, key):
    network = Sequential((("hidden", Linear(4)), ("relu", Activation(relu)), ("out", Linear(2))))
    params, state, _ = network.init(key, (3,))
    x, targets = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((5, 2))
    done = Problem(Task(network, mean_squared_error), params, state, x, targets).step(rule, key)
    assert {g.dtype for g in tree.leaves(done.gradients)} == {np.dtype(np.float32)}
    assert {b.dtype for b in tree.leaves(done.rule_state)} <= {np.dtype(np.float32)}
    assert done.correct == 0  # targets that are no labels


# --- losses that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["bp", "fg-w", "fg-a", "dfa", "lg-fg-a"])
@pytest.mark.parametrize("axis", [None, ()], ids=["the mean of the batch", "one for each output"])
def test_a_loss_that_is_not_of_each_example_is_refused(rule, axis, rng, key):
    p = problem(rng, key, *WITH_HEADS)
    loss = lambda outputs, targets: np.mean(np.square(outputs), axis=axis)  # noqa: E731
    p = replace(p, task=Task(p.task.network, loss))
    with pytest.raises(UsageError, match=r"loss: expected one value for each example, \(4,\), got"):
        p.step(RULES[rule](), key)


# --- what rules and layers return that is not what they should -----------------------------------


class Own(Rule):
    """A rule that returns what it is told to."""

    def __init__(self, measured, estimated=None):
        self.measured, self.estimated = measured, estimated

    def measure(self, plan, learner, directions, shard):
        return self.measured

    def estimate(self, total, directions, learner, n):
        return self.estimated or super().estimate(total, directions, learner, n)


LOSS = {"loss": np.ones(()), "correct": 1}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            Own(LOSS),
            r"Own.measure: expected a Measurement .*, got {loss: float64\(\), ",
        ),
        (Own((LOSS, {})), "Own.measure: expected a Measurement whose total holds"),
        (Own(Measurement({"gradients": {}}, {})), "Own.measure: expected .* got {gradients: {}};"),
        (
            Own(Measurement(LOSS, {})),
            r"Own: estimate .* gradients .* got \['correct', 'loss'\]",
        ),
        (
            Own(Measurement(LOSS, {}), {"a": 1, "b": 2}),
            r"Own.estimate: expected \(gradients, ",
        ),
    ],
)
def test_a_rule_that_returns_something_else_is_told_so(rule, message, rng, key):
    with pytest.raises(UsageError, match=f"^{message}"):
        problem(rng, key).step(rule, key, rule_state={})


@dataclass(frozen=True)
class Alone(Layer):
    """A layer that forgets its state."""

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Sequential((("alone", Alone()),)),
            r"Alone.apply at alone: expected \(output, ",
        ),
        (
            Alone(),
            r"Alone.apply: .*, new state\), got float64\(2, 3\); write return",
        ),
    ],
)
def test_a_layer_that_returns_its_output_alone_is_told_so(network, message):
    """A batch of two examples would be taken apart for a pair."""
    params, state, _ = network.init(dn.Key(0), (3,))
    with pytest.raises(UsageError, match=message):
        Plan.of(Task(network, mean_squared_error), params, state, np.ones((2, 3)))
