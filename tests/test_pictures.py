"""Pictures: what they show, that all their text can be read, also in greyscale; TensorBoard."""

import gc
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peers import peer
from test_comparison import history, write, write_seeds

import dualnet as dn
from dualnet import data
from dualnet.errors import UsageError
from dualnet.training.comparison import compare_runs
from dualnet.training.pictures import drawing
from dualnet.training.pictures.comparison import draw_comparison
from dualnet.training.pictures.curve import draw_curve
from dualnet.training.pictures.drawing import marked, styles
from dualnet.training.pictures.gradients import draw_gradients
from dualnet.training.pictures.sheet import draw_predictions
from dualnet.training.tensorboard import TensorBoard

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, in their order."""
    peer("matplotlib", "plot")
    found, made = [], drawing.new_figure

    def new_figure(*size):
        found.append(made(*size))
        return found[-1]

    for module in ("drawing", "curve", "gradients"):
        monkeypatch.setattr(f"dualnet.training.pictures.{module}.new_figure", new_figure)
    return found


def require_readable(figure):
    """Every text is inside the picture, and none is on another."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = {}
    for text in figure.findobj(Text):
        shown = text.get_visible() and text.get_text().strip()
        if shown and (text.axes is None or text.axes.axison):
            boxes[text] = text.get_window_extent(renderer)
    width, height = figure.canvas.get_width_height()
    texts = [(text.get_text(), box) for text, box in boxes.items() if box.width and box.height]
    ticks = outside_ticks(figure)
    for i, (text, box) in enumerate(texts):
        if any(text == t and box.x0 == x for t, x in ticks):
            continue  # a tick beyond the ends of an axis is not drawn
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= width + 1 and box.y1 <= height + 1, text
        for other, second in texts[:i]:
            if any(other == t and second.x0 == x for t, x in ticks):
                continue
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            down = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across < 1.5 or down < 1.5, f"{text!r} is on {other!r}"
    assert texts


def outside_ticks(figure):
    """Labels of ticks that an axis has beyond its ends, with where they would be."""
    renderer, found = figure.canvas.get_renderer(), []
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted((low, high))
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    for label in (tick.label1, tick.label2):
                        box = label.get_window_extent(renderer)
                        found.append((label.get_text(), box.x0))
    return found


def test_lines_are_told_apart_without_color():
    peer("matplotlib", "plot")
    for count in (1, 2, 13, 28):
        chosen = styles(count)
        assert len({(one["linestyle"], one["marker"]) for one in chosen}) == count
        light = [np.dot(one["color"][:3], (0.299, 0.587, 0.114)) for one in chosen]
        assert max(light) < 0.75 and len({round(x, 3) for x in light}) == count
        steps = np.abs(np.diff(light))
        assert not len(steps) or steps.min() > 0.15  # neighbors


def test_marks_of_equal_lines_are_at_different_points():
    assert [marked(i, 4, 1000) for i in range(4)] == [(0, 125), (31, 125), (62, 125), (93, 125)]
    assert [marked(i, 4, 7) for i in range(4)] == [(0, 1)] * 4


# --- comparisons ---


def test_curves_have_bands_over_seeds(drawn):
    rows = {0: history(0.5, 0.75), 1: history(0.25, 0.75, 0.8), 2: history(0.25, 0.5)}
    write_seeds("several", rows)
    write("one", history(0.125, 0.25), rule="fa")
    draw_comparison(compare_runs(["several", "one"]), "seen.png")
    (figure,) = drawn
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["bp", "fa"]
    mean, single = accuracy.lines
    np.testing.assert_allclose(mean.get_ydata(), [1 / 3, 2 / 3])
    assert mean.get_xdata().tolist() == [1, 2] and single.get_ydata().tolist() == [0.125, 0.25]
    (band,) = accuracy.collections  # one seed has none
    heights = {tuple(np.round(point, 6)) for point in band.get_paths()[0].vertices}
    std = np.std([0.5, 0.25, 0.25], ddof=1)
    assert {(1.0, round(1 / 3 - std, 6)), (1.0, round(1 / 3 + std, 6))} <= heights
    assert loss.get_ylabel() == "test loss (nats)" and accuracy.get_xlabel() == "epoch"
    require_readable(figure)
    assert Path("seen.png").read_bytes()[:4] == b"\x89PNG"


def test_hard_comparisons_are_readable(drawn):
    names = []
    for i, rule in enumerate(("bp", "fa", "dfa", "dkp", "fdfa", "fg-a", "wp", "fg-w", "ap")):
        write(f"run{i}", history(*np.linspace(0.1, 0.9, 50), loss=10.0 ** (i - 4)), rule=rule)
        names.append(f"run{i}")
    write(
        "long",
        history(0.5),
        **{"rule": "fg-w", "sampler": "rank-one", "tangents": 99, "epochs": 50},
        **{"optimizer": "momentum", "weight_decay": 1e-4, "width": 300, "depth": 3, "lr": 1e-4},
    )
    write("none", history(), finished=False, rule="ffa", epochs=50)
    draw_comparison(compare_runs([*names, "long", "none"]), "seen.png")
    (figure,) = drawn
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].lines[-1].get_label().endswith("(no epoch yet)")
    require_readable(figure)


def test_real_targets_have_one_part(drawn):
    nan = (math.nan, math.nan)
    write("a", history(*nan, loss=(3.0, 2.0)), dataset="arrays", objective="regression")
    draw_comparison(compare_runs(["a"]), "seen.pdf")
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == "test loss (squared error)"
    assert Path("seen.pdf").read_bytes()[:4] == b"%PDF"


def test_seeds_that_all_diverged_end_in_a_cross(drawn, monkeypatch):
    rows = {0: history(0.5, 0.75), 1: history(0.25, 0.5)}
    write_seeds("a", rows)
    (run,) = compare_runs(["a"]).runs
    monkeypatch.setattr(type(run), "diverged", property(lambda run: run.seeds))
    monkeypatch.setattr(type(run), "counted", property(lambda run: []))
    draw_comparison(compare_runs(["a"]), "seen.png")
    loss, _ = drawn[0].axes
    line, cross = loss.lines
    assert line.get_label() == "bp (diverged)" and cross.get_marker() == "x"
    assert cross.get_xdata().tolist() == [2] and not loss.collections


def test_pictures_that_cannot_be_written(monkeypatch):
    write("a", history(0.5))
    comparison = compare_runs(["a"])
    peer("matplotlib", "plot")
    with pytest.raises(UsageError, match=r"draw_comparison: seen\.txt: expected a file that ends"):
        draw_comparison(comparison, "seen.txt")
    with pytest.raises(UsageError, match=r"draw_comparison: nowhere/seen\.png: No such file"):
        draw_comparison(comparison, "nowhere/seen.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r'not installed; pip install "dualnet\[plot\]" brings it'):
        draw_comparison(comparison, "seen.png")


# --- curves and gradients of a run ---


def test_the_curve_of_real_targets_has_no_accuracy(drawn):
    assert draw_curve(history(0.5, 0.75), "title", Path("a.png"))
    assert draw_curve(history(math.nan, math.nan, loss=(3.0, 2.0)), "title", Path("b.png"))
    both, alone = drawn
    assert [axes.get_ylabel() for axes in both.axes] == ["loss (nats)", "accuracy"]
    assert [axes.get_ylabel() for axes in alone.axes] == ["loss (mean squared error)"]
    for figure in drawn:
        require_readable(figure)


def compared(rng, layers, times):
    cosines = rng.uniform(-0.1, 1, (times, layers + 1))
    ratios = np.exp(rng.normal(0, 2, (times, layers + 1)))
    return np.stack([cosines, np.degrees(np.arccos(cosines)), ratios], -1)


@pytest.mark.parametrize("times", [1, 5, 120, 1000])
def test_gradients_of_few_layers_are_lines(times, drawn, rng):
    names = ["hidden1/b", "hidden1/w", "output/b", "output/w", "total"]
    comparisons = compared(rng, 4, times)
    assert draw_gradients(names, 10, comparisons, "digits, mlp, fdfa", Path("seen.png"))
    (figure,) = drawn
    cosine, ratio = figure.axes
    assert [line.get_label() for line in cosine.lines] == ["all together", *names[:-1]]
    together = -(-times // 120)
    total, *_ = cosine.lines
    np.testing.assert_allclose(total.get_ydata()[0], comparisons[:together, -1, 0].mean())
    first = np.exp(np.log(comparisons[:together, 1, 2]).mean())
    np.testing.assert_allclose(ratio.lines[2].get_ydata()[0], first)
    assert total.get_xdata().tolist() == list(range(0, 10 * times, 10 * together))
    assert ratio.get_yscale() == "log"
    assert ("means of 9 comparisons" in cosine.get_xlabel()) == (times == 1000)
    require_readable(figure)


@pytest.mark.parametrize(("layers", "times"), [(7, 1), (80, 40), (230, 3)])
def test_gradients_of_many_layers_are_a_map(layers, times, drawn, rng):
    names = [f"blocks/block{i}/attention/heads/query/projection/w" for i in range(layers)]
    comparisons = compared(rng, layers, times)
    comparisons[:, 2] = math.nan
    comparisons[:, 3, 2] = 0.0
    assert draw_gradients([*names, "total"], 1, comparisons, "title", Path("seen.png"))
    (figure,) = drawn
    _, _, cosines, ratios = figure.axes[:4]
    shown = cosines.images[0].get_array()
    np.testing.assert_allclose(shown[0], comparisons[:, 0, 0])
    assert shown.mask[2].all() and not shown.mask[3].any()
    assert ratios.images[0].get_array().mask[3].all()
    assert "hatched: undefined" in cosines.get_title()
    require_readable(figure)


def test_nothing_is_drawn_of_no_comparison():
    assert not draw_gradients(["total"], 1, np.zeros((0, 1, 3)), "title", Path("seen.png"))
    assert not Path("seen.png").exists()


def test_a_run_that_compares_gradients_has_the_picture(monkeypatch):
    peer("matplotlib", "plot")
    monkeypatch.setattr("dualnet.training.run.draw_gradients", draw_gradients)
    from dualnet.models import MLP
    from dualnet.training.assemble import TABLES
    from dualnet.training.resolve import resolve
    from dualnet.training.run import run
    from dualnet.training.run_folder import RunFolder

    digits = data.load("digits", limit_train=60, limit_test=20)
    given = {"rule": "fg-a", "width": 8, "epochs": 1, "grad_stats": 1}
    network = MLP(width=8).network(digits.in_shape, 10)
    run(resolve(given, TABLES), network, digits, RunFolder("run"), quiet=True)
    assert Path("run/gradients.png").read_bytes()[:4] == b"\x89PNG"


# --- sheets of images ---


def below(figure):
    return [axes.get_xlabel().split("\n") for axes in figure.axes if axes.axison]


def test_wrong_images_come_first_and_are_marked(drawn):
    images = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
    predicted, sure = np.array([0, 1, 0, 1]), np.array([0.5, 0.75, 0.625, 0.999])
    classes = ("zero", "one")
    draw_predictions(images, predicted, sure, np.array([0, 0, 1, 1]), classes, "a.png")
    (figure,) = drawn
    assert below(figure) == [
        ["one", "75 %", "✗ is zero"],
        ["zero", "62 %", "✗ is one"],
        ["zero", "50 %", "✓ right"],
        ["one", "> 99 %", "✓ right"],
    ]
    frames = [axes.spines["top"].get_linewidth() for axes in figure.axes]
    assert frames == [4, 4, 1, 1]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), images[1] / 255)
    assert "2 of 4 wrong" in figure.get_suptitle().replace("\n", " ")
    require_readable(figure)


def test_images_without_the_truth_keep_their_order(drawn):
    images = np.zeros((9, 4, 4, 3), np.uint8)
    sure = np.linspace(0.5, 1, 9)
    names = tuple(f"a long name of class {i}, a dog" for i in range(9))
    draw_predictions(images, np.arange(9), sure, None, names, "a.png", most=5)
    (figure,) = drawn
    assert [row[1] for row in below(figure)] == ["50 %", "56 %", "62 %", "69 %", "75 %"]
    assert "5 of 9 images" in figure.get_suptitle().replace("\n", " ")
    require_readable(figure)


def test_wide_names_fit_side_by_side(drawn):
    images, names = np.zeros((16, 4, 4), np.uint8), [f"WWWWWWWWWWWWWWWWW{i}" for i in range(16)]
    truth = np.roll(np.arange(16), 1)
    draw_predictions(images, np.arange(16), np.full(16, 0.999), truth, names, "a.png")
    require_readable(drawn[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": np.zeros((2, 4))}, r"images: expected \(n, height, width\) or .*got \(2, 4\)"),
        ({"images": np.zeros((2, 4, 4, 2))}, r".* of 1 or 3 channels, got \(2, 4, 4, 2\)"),
        ({"images": np.zeros((0, 4, 4))}, r".*got \(0, 4, 4\)"),
        ({"predicted": np.zeros(3, int)}, r"predicted: expected \(2,\), got \(3,\)"),
        ({"probabilities": np.zeros((2, 9))}, r"probabilities: expected \(2,\), got \(2, 9\)"),
        ({"truth": np.zeros(1, int)}, r"truth: expected \(2,\), got \(1,\)"),
        ({"most": 0}, "most: expected 1 image or more, got 0"),
    ],
)
def test_what_cannot_be_drawn(given, said):
    usual = {"images": np.zeros((2, 4, 4)), "predicted": np.zeros(2, int)}
    usual |= {"probabilities": np.ones(2), "truth": None, "classes": ("a",), "path": "a.png"}
    with pytest.raises(UsageError, match=f"draw_predictions: {said}"):
        draw_predictions(**{**usual, **given})


def test_a_trained_network_draws_a_sheet(drawn, rng):
    images = rng.integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
    kinds = np.array(["cat", "dog", "fox"])[np.arange(30) % 3]
    run = dn.fit("mlp", (images, kinds), rule="bp", epochs=1, width=8, quiet=True)
    run.draw_predictions((images, kinds), "a.png", most=10)
    run.draw_predictions(images[:2], "b.png")
    told, alone = drawn
    wrong = int((run.predict(images) != kinds).sum())
    assert f"{wrong} of 30 wrong" in told.get_suptitle()
    sure = run.probabilities(images[:2]).max(1)
    # A probability that is not quite one is not rounded to it.
    percents = ["> 99 %" if 99 < 100 * p < 100 else f"{100 * p:.0f} %" for p in map(float, sure)]
    assert below(alone) == [list(x) for x in zip(run.predict(images[:2]), percents, strict=True)]
    features = rng.normal(size=(30, 4))
    for targets, what in ((kinds, "images"), (features, "images")):
        other = dn.fit("mlp", (features, targets), rule="bp", epochs=1, width=8, quiet=True)
        with pytest.raises(UsageError, match=f"expected a network of {what}"):
            other.draw_predictions(features, "c.png")
    real = dn.fit("mlp", (images, features), rule="bp", epochs=1, width=8, quiet=True)
    with pytest.raises(UsageError, match="expected a network of classes"):
        real.draw_predictions(images, "c.png")


# --- TensorBoard ---


def events(folder):
    """The events in a folder, file by file in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(Path(folder).glob("events*")):
        content = file.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def scalars(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
    }


def test_tensorboard_has_the_figures_of_every_epoch(rng):
    peer("tensorboardX", "tensorboard")
    x = rng.normal(size=(40, 3))
    with TensorBoard("boards/a") as board:
        run = dn.fit(
            "mlp",
            (x, (x[:, 0] > 0).astype(int)),
            **{"rule": "bp", "epochs": 2, "width": 8, "quiet": True, "callbacks": [board]},
        )
    found = scalars("boards/a")
    assert len(found) == 12
    for row in run.history:
        for name, tag in (
            ("train_loss", "loss/training"),
            ("test_loss", "loss/test"),
            ("train_accuracy", "accuracy/training"),
            ("test_accuracy", "accuracy/test"),
            ("lr", "learning_rate"),
            ("seconds", "seconds"),
        ):
            assert found[tag, int(row["epoch"])] == np.float32(row[name])
    with pytest.raises(UsageError, match="TensorBoard: it was closed"):
        board(run.history[0])
    board.close()


ROW = {"epoch": 1.0, "train_loss": 0.5, "test_loss": 0.25, "lr": 1e-3, "seconds": 2.0}


def test_a_run_that_goes_on_says_from_where():
    peer("tensorboardX", "tensorboard")
    with TensorBoard("a") as board:
        board({**ROW, "train_accuracy": math.nan, "test_accuracy": math.nan})
    tags = {"loss/training", "loss/test", "learning_rate", "seconds"}
    assert {tag for tag, _ in scalars("a")} == tags
    with pytest.raises(UsageError, match="a holds the figures of a run already; choose another"):
        TensorBoard("a")
    with TensorBoard("a", resume=True) as again:
        again({**ROW, "epoch": 3.0, "train_accuracy": 0.5, "test_accuracy": 0.5})
        with pytest.raises(UsageError, match="epoch 1 came after 3; make another one for another"):
            again({**ROW, "train_accuracy": 0.5, "test_accuracy": 0.5})
    assert {step for _, step in scalars("a")} == {1, 3}
    # From step 3 on, TensorBoard forgets what an earlier file has.
    assert [e.step for e in events("a") if e.HasField("session_log")][-1] == 3


def test_figures_are_kept_without_closing():
    peer("tensorboardX", "tensorboard")
    program = (
        "from dualnet.training.tensorboard import TensorBoard\n"
        f"row = {ROW!r} | {{'train_accuracy': 0.5, 'test_accuracy': 0.5}}\n"
        "board = TensorBoard('a')\n"
        "for epoch in range(1, 101):\n"
        "    board({**row, 'epoch': float(epoch)})\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=where
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(scalars("a")) == 600


def test_a_board_that_nobody_holds_is_closed():
    peer("tensorboardX", "tensorboard")
    TensorBoard("a")({**ROW, "train_accuracy": 0.5, "test_accuracy": 0.5})
    gc.collect()
    assert len(scalars("a")) == 6


def test_tensorboard_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r'pip install "dualnet\[tensorboard\]" brings it'):
        TensorBoard("a")
    assert not Path("a").exists()


def test_a_folder_for_tensorboard_that_cannot_be_made():
    peer("tensorboardX", "tensorboard")
    Path("file").write_text("")
    with pytest.raises(UsageError, match="TensorBoard: file"):
        TensorBoard("file/a")


def test_the_command_line_writes_for_tensorboard(elsewhere, ask):
    peer("tensorboardX", "tensorboard")
    flags = "--epochs 2 --limit-train 64 --limit-test 20 --width 8 --quiet --tensorboard".split()
    assert ask(*flags, "--run-dir", "one")[0] == 0
    assert ask("--resume", "one", "--epochs", "3", "--quiet", "--tensorboard")[0] == 0
    assert ask(*flags, "--seeds", "1", "2", "--run-dir", "two")[0] == 0
    for folder, epochs in (("one", 3), ("two/seed-1", 2), ("two/seed-2", 2)):
        losses = {
            event.step: value.simple_value
            for event in events(f"{folder}/tensorboard")
            for value in event.summary.value
            if value.tag == "loss/test"
        }
        metrics = np.genfromtxt(f"{folder}/metrics.csv", delimiter=",", names=True)
        assert list(losses) == list(range(1, epochs + 1))
        np.testing.assert_allclose(list(losses.values()), metrics["test_loss"], rtol=1e-5)
