"""`python -m dualnet.tour`: what it shows is what the engine and the rules do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
from dualnet import backends, learning, tree
from dualnet.command.main import run_command
from dualnet.tour import example, own
from dualnet.tour.__main__ import NARROWEST, WIDEST, lines
from dualnet.tour.ideas import IDEAS, PAGES
from dualnet.tour.layout import numbers
from dualnet.tour.notation import pulled, pushed, written
from dualnet.tour.passes import backward_part, central_difference, forward_part, push
from dualnet.tour.step import drawn, take_step
from dualnet.tour.watch import watch

ROOT = Path(__file__).parent.parent
MINE = """
import numpy as np
import dualnet as dn
from dualnet import nn

data = np.linspace(0, 1, 6).reshape(3, 2)

def h(x): return np.tanh(x * x).sum()
def cube(x=2.0): return x * x * x
def tree(p): return np.log(np.exp(data @ p["w"] + p["b"]).sum())
def two(x, y=np.ones(2, np.float32), n=2): return (x ** n * y).sum() / (1 + x @ y)
def written_to(x):
    y = np.sort(x)[::-1].copy()
    y[0] = 2 * x[1]
    return (y[1:] * x[np.array([0, 1])]).sum() + np.var(x) + np.where(x > 1, x, 0).sum()
def nested(x): return dn.grad(lambda y: (y ** 3 * x).sum())(x).sum()
def entropy(z): return nn.softmax_cross_entropy(z[None], np.array([1])).sum()
def large(w=np.random.default_rng(0).normal(size=(100, 50))): return np.square(w).mean()
def norms(a): return np.linalg.norm(a) + np.linalg.eigvalsh(a @ a.T).max() + np.einsum("ij->", a)
def split(x):
    a, b = np.split(x, 2)
    return (a * b).sum() + np.concatenate([a, b]).prod() + np.stack([a, 2 * b]).max()
def identity(x): return x
def unused(x, y=1.5):
    z = x + 1
    return x * x
def loop(x):
    for _ in range(200):
        x = x + 0.01 * np.sin(x)
    return x
@dn.custom_jvp
def softplus(x): return np.logaddexp(x, 0.0)
softplus.defjvps(lambda t, out, x: t * (1.0 - np.exp(-out)))
def custom(x): return softplus(x).sum()
def kink(x): return np.clip(x, 0.0, 1.0)
def into_its_argument(x):
    x[0] = 5 * x[1]
    return (x * x).sum()
def counting(x, calls=[]):
    calls.append(x)
    return x * len(calls)
def one_by_one(x): return sum(one * one for one in x)
def over(x): return np.exp(1000 * x)

def array(x): return 2 * x
def constant(x): return 3.0
def text(x): return "three"
def fails(x): raise KeyError("no such key")
def by_math(x):
    import math
    return math.tanh(x)
def flags(n=3): return n
def asserts(x): assert x < 0
def elsewhere(x):
    from threading import Thread
    found = []
    thread = Thread(target=lambda: found.append(x * x))
    thread.start()
    thread.join()
    return found[0]
"""
POINTS = {
    "h": ["[0.5, 1.0, -2.0]"],
    "cube": [],
    "tree": ["{'w': [[1.0], [2]], 'b': 0.5}"],
    "two": ["[0.5, 1.0]"],
    "written_to": ["[0.5, 1.1, 1.7]"],
    "nested": ["[0.5, 1.0, 1.7]"],
    "entropy": ["[0.5, 1.0, 1.7]"],
    "large": [],
    "norms": ["[[0.5, 1.0], [2, 3]]"],
    "split": ["[0.5, 1.0, 2, 3]"],
    "identity": ["3"],
    "unused": ["3"],
    "loop": ["0.3"],
    "custom": ["[0.5, -1.0]"],
    "into_its_argument": ["[0.5, 1.0]"],
    "one_by_one": ["[0.5, 1.0]"],
}
"""Function of `MINE` → what is given to --at."""


@pytest.fixture
def mine(elsewhere, monkeypatch):
    """An empty folder with a file `mine.py`; the module path is as before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(MINE, encoding="utf-8")


@pytest.fixture
def tour(capsys):
    """`tour(*words)`: exit code, standard output and standard error of `dualnet tour`."""

    def tour(*words):
        code = run_command(["tour", *words])
        return code, *capsys.readouterr()

    return tour


def network():
    """The subject of the tour, the direction of its first part, and the pass."""
    subject, shown = example.subject(0), example.learning(0, "global")
    v = {shown.label(path): t for path, t in drawn(shown, dn.Key(0)).items()}
    return subject, v, push(subject, v)


# --- the passes ----------------------------------------------------------------------------------


def test_hops_have_the_values_and_tangents_of_the_network():
    subject, v, seen = network()
    p, x = subject.named(), example.x
    z, z_dot = x @ p["w1"] + p["b1"], x @ v["w1"] + v["b1"]
    h, h_dot = np.tanh(z), (1 - np.tanh(z) ** 2) * z_dot
    off = h @ p["w2"] + p["b2"] - example.target
    off_dot = h_dot @ p["w2"] + h @ v["w2"] + v["b2"]
    expected = {"#2": (z, z_dot), "#3": (h, h_dot), "#6": (off, off_dot)}
    expected["#8"] = np.square(off).sum(), (2 * off * off_dot).sum()
    hops = {hop.out.name: hop.out for hop in seen.hops}
    for name, (value, tangent) in expected.items():
        np.testing.assert_allclose(hops[name].primal, value, rtol=1e-12)
        np.testing.assert_allclose(hops[name].tangent.dense()[0], tangent, rtol=1e-12)
    assert [written(hop, subject.constants) for hop in seen.hops] == [
        "x @ w1",
        "#1 + b1",
        "tanh(#2)",
        "#3 @ w2",
        "#4 + b2",
        "#5 - target",
        "square(#6)",
        "sum(#7)",
    ]
    assert pushed(seen.hops[3], subject.constants) == "t(#4) = t(#3) @ w2 + #3 @ t(w2)"


def test_the_network_of_layers_is_the_function():
    _, _, seen = network()
    for rule in "bp", "fg-w":
        step = take_step(rule, example.learning(0, "global"), dn.Key(0))
        assert np.isclose(step.loss, seen.value, rtol=1e-12)
    gradient = {example.LABELS[path]: g for path, g in step.exact.items()}
    for name, g in seen.gradient().items():
        np.testing.assert_allclose(g, gradient[name], rtol=1e-12)


def test_every_transposed_map_fulfils_the_equation_of_page_3():
    _, _, seen = network()
    seen.gradient()
    waiting, count = [seen.end.tangent], 0
    while waiting:
        t = waiting.pop()
        waiting.extend(t.parents)
        if t.linear_map is not None:
            (parent,) = t.parents
            left, right = t.linear_map.arrived * t.dense(), t.linear_map.sent * parent.dense()
            assert np.isclose(left.sum(), right.sum(), rtol=1e-10, atol=1e-10)
            count += 1
    assert count > 8


@pytest.mark.parametrize("name", POINTS)
def test_a_function_has_the_slope_and_the_gradient_of_the_transforms(mine, name):
    subject = own.subject(f"mine.py:{name}", POINTS[name])
    shown = own.learning(subject)
    v = drawn(shown, dn.Key(3))
    seen = push(subject, v)
    value, slope = dn.jvp(subject.value, (subject.named(),), (v,))
    assert np.isclose(seen.value, value, rtol=1e-12) and np.isclose(seen.slope, slope, rtol=1e-12)
    assert np.isclose(central_difference(subject, v), slope, rtol=1e-5, atol=1e-8)
    gradient = dn.grad(subject.value)(subject.named())
    for path, g in seen.gradient().items():
        np.testing.assert_allclose(g, gradient[path], rtol=1e-9, atol=1e-12)
    for rule in "bp", "fg-w", "wp":
        step = take_step(rule, shown, dn.Key(3))
        for path, g in step.exact.items():
            np.testing.assert_allclose(g, gradient[path], rtol=1e-9, atol=1e-12)
    assert all(len(line) <= 80 for line in lines(subject, shown, "bp", 3, 80))


def test_a_function_that_writes_into_its_argument_leaves_ours_as_it_is(mine):
    subject = own.subject("mine.py:into_its_argument", ["[0.5, 1.0]"])
    lines(subject, own.learning(subject), "wp", 0, 80)
    np.testing.assert_array_equal(subject.named()["x"], [0.5, 1.0])


@pytest.mark.parametrize("name", POINTS)
def test_what_arrives_at_a_value_adds_up_to_its_cotangent(mine, name):
    """The parts that are printed for an input are all of its gradient."""
    subject = own.subject(f"mine.py:{name}", POINTS[name])
    seen = push(subject, drawn(own.learning(subject), dn.Key(3)))
    gradient = seen.gradient()
    sums = {seen.end.name: np.ones(())}
    for hop in reversed(seen.hops):
        if hop.out.name in sums:
            for to, _, cotangent in pulled(hop, subject.constants):
                ct = sums[hop.out.name] if cotangent is None else cotangent
                sums[to.name] = sums.get(to.name, 0) + ct
    for path, g in gradient.items():
        np.testing.assert_allclose(np.broadcast_to(sums.get(path, 0), g.shape), g, atol=1e-12)


def test_what_is_printed_of_the_gradient_is_the_gradient(mine):
    subject, v, seen = network()
    gradient = dn.grad(subject.value)(subject.named())
    text = "\n".join(backward_part(subject, seen, seen.gradient(), v, 80))
    for name, g in gradient.items():
        (shown,) = re.findall(rf"  c\({name}\) = .*\n((?:    .*\n)+)", text)
        read = np.array(re.findall(r"-?\d+\.\d+", shown), float)
        np.testing.assert_allclose(read, g.ravel(), atol=1e-3)
    slope = dn.jvp(subject.value, (subject.named(),), (v,))[1]
    together, again = re.search(r"together (.*); the slope is (.*)", text).groups()
    np.testing.assert_allclose([float(together), float(again)], slope, rtol=1e-3)
    text = "\n".join(forward_part(subject, seen, central_difference(subject, v), 80))
    said = re.search(r"slope along v:\s(\S+)\. A", text)[1]
    assert np.isclose(float(said), slope, rtol=1e-3) and "They differ" not in text


def test_a_pass_says_what_is_a_part_of_what_and_where_a_difference_misleads(mine, tour):
    out = tour("mine.py:norms", "--at", "[[0.5, 1.0], [2, 3]]")[1]
    assert ", a part of norm" in out and "@ #" in out
    out = tour("mine.py:nested", "--at", "[0.5, 1.0]")[1]
    assert "a part of" not in out and "(0," not in out
    out = tour("mine.py:kink", "--at", "0.0")[1]
    assert "They differ. Near this point the function may have a kink" in out
    out = tour("mine.py:loop", "--at", "0.3")[1]
    assert out.count("... 540 functions more ...") == 2 and len(out.splitlines()) < 600
    out = tour("mine.py:large")[1]
    assert "..." in out and len(out.splitlines()) < 150
    out = tour("mine.py:counting", "--at", "3")[1]
    assert "They differ." in out and "another one each time" in " ".join(out.split())
    out = tour("mine.py:one_by_one", "--at", "[0.5, 1.0]")[1]
    assert "t(#2) = t(#1) * #1 + t(#1) * #1" in out
    with np.errstate(all="ignore"):
        out = tour("mine.py:over", "--at", "1")[1]
    assert "One of the two gradients is not finite" in out
    out = tour("mine.py:unused", "--at", "3")[1]
    assert "c(y), all together\n    0\n" in out and "#1 = x + 1, transposed" not in out


# --- the rules -----------------------------------------------------------------------------------


def test_every_rule_is_told():
    assert IDEAS.keys() == PAGES.keys() == learning.RULES.keys()


@pytest.mark.parametrize("rule", learning.RULES)
@pytest.mark.parametrize("width", [NARROWEST, 60, WIDEST])
def test_every_rule_is_shown_at_every_width(tour, rule, width):
    code, out, err = tour("--rule", rule, "--width", str(width), "--seed", "4")
    assert (code, err) == (0, "")
    assert f"3. One step of the rule {rule}\n" in out and "nan" not in out
    assert max(map(len, out.splitlines())) <= width
    assert not [line for line in out.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("rule", learning.RULES)
def test_a_step_is_what_the_rule_estimates(rule):
    locality = learning.RULES[rule].locality
    shown, key, numpy = example.learning(0, locality), dn.Key(0), backends.get("numpy")
    step = take_step(rule, shown, key)
    plan = learning.Plan.of(shown.task, shown.params, shown.state, shown.batch.inputs)

    def estimate(name):
        state = learning.RULES[name]().init(key.fold_in("rule"), plan, shown.params)
        learner = learning.LearnerState(shown.params, shown.state, state)
        at = plan, learner, shown.batch, key.fold_in("step"), numpy
        return dict(tree.items(learning.estimate_gradient(learning.RULES[name](), *at).gradients))

    exact = estimate({"global": "bp", "local": "l-bp", "greedy": "lg-bp"}[locality])
    for path, g in estimate(rule).items():
        np.testing.assert_array_equal(step.estimate[path], g)
        np.testing.assert_array_equal(step.exact[path], exact[path])
        np.testing.assert_allclose(step.after[path], step.params[path] - 0.005 * g, rtol=1e-12)
    assert rule not in ("bp", "l-bp", "lg-bp") or np.isclose(step.cosine, 1)


def facts(rule):
    locality = learning.RULES[rule].locality
    step = take_step(rule, example.learning(0, locality), dn.Key(0))
    return {fact.text: fact.array for fact in step.facts}, step


def number_of(texts, name):
    (text,) = [text for text in texts if text.startswith(f"{name} = ")]
    return float(re.match(r"\w = (\S+),", text)[1])


@pytest.mark.parametrize("rule", ["fg-a", "lg-fg-a", "ap", "fg-a-cv"])
def test_activity_rules_show_what_they_drew_and_found(rule):
    found, step = facts(rule)
    taken = found["what is taken for c(#2)"]
    np.testing.assert_allclose(step.estimate["hidden/w"], example.x.T @ taken, rtol=1e-9)
    if rule == "ap":
        (losses,) = [re.findall(r"\d\.\d+", text) for text in found if text.startswith("the loss")]
        d = (float(losses[0]) - float(losses[1])) / 1e-3
        u = found["the step along u at #2"] / 1e-3
    else:
        u, d = found["u, drawn for #2"], number_of(found, "d")
    np.testing.assert_allclose(taken, d * u, rtol=1e-3)


@pytest.mark.parametrize("rule", ["dfa", "dkp", "fdfa"])
def test_direct_rules_show_the_matrix_and_what_it_sends(rule):
    found, step = facts(rule)
    b, e = found["B, from the outputs to #3"], found["e, how the loss moves with the outputs"]
    np.testing.assert_allclose(found["what is taken for c(#3)"], e @ b, rtol=1e-12)
    np.testing.assert_allclose(step.exact["output/b"], e[0], rtol=1e-12)
    assert ("B, from the outputs to #3, after the step" in found) == (rule != "dfa")


@pytest.mark.parametrize("rule", ["fa", "ffa", "l-fa", "lg-fa"])
def test_feedback_goes_back_through_the_matrices_that_are_shown(rule):
    found, step = facts(rule)
    _, _, seen = network()
    slope = 1 - np.square(seen.hops[2].out.primal)
    back = 0
    for name, bias in ("w2", "output/b"), ("head w", "before-output/linear/b"):
        if f"B, in the place of {name}" in found:
            back = back + step.exact[bias] @ found[f"B, in the place of {name}"].T
    np.testing.assert_allclose(step.estimate["hidden/b"], (back * slope)[0], rtol=1e-9)


@pytest.mark.parametrize("rule", ["fg-w", "wp", "lg-fg-w"])
def test_weight_rules_show_the_slope_and_the_direction(rule):
    found, step = facts(rule)
    known = drawn(example.learning(0, "global"), dn.Key(0))
    v = found.get("v, drawn for w1", known["hidden/w"])
    np.testing.assert_allclose(step.estimate["hidden/w"], number_of(found, "d") * v, rtol=2e-3)
    assert ("v is the direction of part 1, t(a) for every parameter a" in found) == (
        rule != "lg-fg-w"
    )


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine.py"], r"FUNCTION: expected MODULE:function or FILE.py:function, got 'mine.py'"),
        (["mine.py:hh"], r"FUNCTION: expected a function in mine.py, got 'hh'; did you mean h"),
        (["mine.py:data"], r"expected a function in mine.py, got 'data', which is none"),
        (["other.py:h"], r"FUNCTION other.py: expected a Python file, found none"),
        (["no_module:h"], r"FUNCTION no_module: ModuleNotFoundError: No module named 'no_module'"),
        (["broken.py:h"], r"FUNCTION broken.py: SyntaxError: "),
        (["leaves.py:h"], r"FUNCTION leaves.py: line 2 of leaves.py: SystemExit: 7"),
        (["mine.py:h"], r"expected a value for its argument x, got none; write --at"),
        (["mine.py:h", "--at", "1", "--at", "2"], r"expected at most 1, .* \(x\), got 2"),
        (["mine.py:h", "--at", "open('x')"], r"--at: expected a number, a list .* got \"open"),
        (["mine.py:h", "--at", "[1, [2]]"], r"--at: expected finite numbers, rows of one length"),
        (["mine.py:h", "--at", "1e999"], r"--at: expected finite numbers, .* got '1e999'"),
        (["mine.py:h", "--at", "'abc'"], r"--at: expected finite numbers, .* got \"'abc'\""),
        (["mine.py:h", "--at", ""], r"--at: expected a number, .* got ''"),
        (["mine.py:h", "--at", "[" * 10_000], r"--at: expected a number, .*…"),
        (["mine.py:flags"], r"expected an argument with a float or an array of floats, .* --at"),
        (["mine.py:array", "--at", "[1]"], r"mine.py:array: expected one number .*\(1,\); return"),
        (["mine.py:text", "--at", "1"], r"mine.py:text: expected one number .* got str"),
        (
            ["mine.py:constant", "--at", "1"],
            r"constant: its value does not move with its arguments",
        ),
        (["mine.py:elsewhere", "--at", "1"], r"its value came about unseen; let it compute in one"),
        (["mine.py:asserts", "--at", "1"], r"asserts: line \d+ of mine.py: AssertionError$"),
        (["mine.py:fails", "--at", "1"], r"fails: line \d+ of mine.py: KeyError: 'no such key'"),
        (["mine.py:by_math", "--at", "1"], r"line \d+ of mine.py: a Dual cannot .* np\.tanh"),
        (["mine.py:h", "--at", "1", "--rule", "fg-a"], r"one of bp, fg-w, wp for a function, got"),
        (["--at", "1"], r"--at: expected FUNCTION before it, got none"),
        (["--rule", "fgw"], r"--rule: expected one of bp, .* got 'fgw'; did you mean fg-w"),
        (["--width", "20"], r"--width: expected 40 to 100, got 20"),
        (["--seed", "x"], r"--seed: expected an int, got 'x'"),
        (["--color"], r"there is no flag --color"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(mine, tour, words, message):
    Path("broken.py").write_text("def h(x:\n", encoding="utf-8")
    Path("leaves.py").write_text("import sys\nsys.exit(7)\n", encoding="utf-8")
    code, out, err = tour(*words)
    assert (code, out) == (2, ""), err
    assert re.fullmatch(r"dualnet tour: [^\n]+\n", err), err
    assert re.search(message, err), err


def test_a_module_is_found_in_the_present_folder_as_well(mine, tour):
    Path("a_module_of_mine.py").write_text(MINE, encoding="utf-8")
    code, out, err = tour("a_module_of_mine:h", "--at", "[0.5, 1.0]")
    assert (code, err) == (0, "") and "#3 = sum(#2)" in out


def test_a_file_finds_the_modules_beside_it(mine, tour):
    Path("folder").mkdir()
    Path("folder/beside_it.py").write_text("two = 2.0\n", encoding="utf-8")
    text = "def twice(x):\n    from beside_it import two\n    return two * x\n"
    Path("folder/of_mine.py").write_text(text, encoding="utf-8")
    code, out, err = tour("folder/of_mine.py:twice", "--at", "3")
    assert (code, err) == (0, "") and "#1 = 2 * x" in out


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_console_without_unicode_shows_the_same(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "dualnet.tour", "--rule", "fa"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "70"},
        capture_output=True,
        timeout=120,
        check=True,
    )
    text = done.stdout.decode(encoding)
    assert ("w2^T" if encoding == "ascii" else "w2ᵀ") in text and not done.stderr
    assert 60 < max(map(len, text.splitlines())) <= 71  # ^T is longer than ᵀ


def test_numbers_are_short_and_true():
    assert numbers(np.array([0.5, -12.25])) == "[  0.50 -12.25]"
    assert numbers(np.array([1.0, 0.0])) == "[1 0]"
    assert numbers(np.array(-0.0)) == "0" and numbers(np.array([-0.0])) == "[0]"
    assert numbers(np.array([1e-8, 2.0])) == "[1e-08     2]"
    assert numbers(np.array([np.nan, np.inf, 1.5])) == "[  nan   inf 1.500]"
    assert numbers(np.zeros((0, 3))) == "[]"
    assert numbers(np.arange(100.0)).count("...") == 1


def test_watching_ends_with_the_block_and_keeps_the_order():
    def inner(x):
        return x + 1

    def outer(x):
        return inner(x) + inner(2 * x)

    before = sys.getprofile()
    with watch(inner, outer) as calls:
        outer(3)
    assert sys.getprofile() is before
    (call,) = calls
    assert (call.function, call.arguments, call.result) == (outer, {"x": 3}, 11)
    assert [c.result for c in call.inner] == [4, 7]
    with pytest.raises(ZeroDivisionError), watch(inner):
        inner(1 / 0)
    assert sys.getprofile() is before


# --- the page ------------------------------------------------------------------------------------


def likeness(text):
    """What a text says, and the numbers in it: their last digits may differ by rounding."""
    words = re.sub(r"\s+", " ", re.sub(r"(?<![\w#.])-?\d+(\.\d+)?(e-?\d+)?", "0", text))
    return words, np.array(re.findall(r"(?<![\w#.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text), float)


def test_the_page_shows_what_the_tour_prints(mine, tour):
    page = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", page, re.S)[1]
    Path("mine.py").write_text(program, encoding="utf-8")
    *whole, of_fg_a, of_mine = re.findall(r"```text\n(.*?)```", page, re.S)
    printed = tour("--width", "80")[1]
    assert likeness("\n".join(whole))[0] == likeness(printed)[0]
    shown, now = (likeness(text)[1] for text in ("\n".join(whole), printed))
    np.testing.assert_allclose(shown, now, rtol=1e-3, atol=1.5e-3)
    printed = tour("--rule", "fg-a", "--width", "80")[1]
    assert likeness(of_fg_a)[0].strip() in likeness(printed)[0]
    (command,) = re.findall(r"dualnet tour (mine.py.*) --at \"(.*)\"", page)
    printed = iter(tour(command[0], "--at", command[1], "--width", "80")[1].splitlines())
    for line in of_mine.splitlines():  # in this order, with paragraphs left out
        assert any(likeness(other)[0] == likeness(line)[0] for other in printed), line
