"""The test accuracy of every rule on MNIST: docs/figures/accuracy.svg.

The numbers are those of benchmarks/results/rules.json, and a test holds the picture to them.  The
picture has a ground and colors of its own for light and for dark pages.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import drawing

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # so that `experiments` is found

from experiments.rules import PUBLISHED, options_of  # noqa: E402

FAMILIES = {
    "exact gradient": ("exact", ("bp", "l-bp", "lg-bp")),
    "feedback matrices": ("feedback", ("fa", "l-fa", "lg-fa", "ffa", "dfa", "dkp", "fdfa")),
    "a guess, and a forward gradient of its error": ("guess", ("fg-a-cv",)),
    "forward gradient of the activities": ("activities", ("fg-a", "lg-fg-a")),
    "forward gradient of the weights": ("weights", ("fg-w", "lg-fg-w", "wp")),
}
"""What a rule makes its gradient of → the name of its color, and its rules."""
WIDTH, ROW, LEFT, RIGHT, TOP = 800, 24, 236, 152, 84
TICKS = (60, 80, 90, 95, 98, 99)
WORST, BEST = 45, 0.95
"""The ends of the axis, as errors in %."""
COLORS = {
    **{name: drawing.COLORS[name] for name in ("paper", "ink", "soft")},
    "exact": ("#0a5aa8", "#74b9ff"),
    "feedback": ("#7a4fb5", "#c3a6f0"),
    "guess": ("#b3154f", "#ff8fb3"),
    "activities": ("#a84300", "#ffaa66"),
    "weights": ("#0b6e4f", "#5fd3a6"),
}
"""What it is for → its color on a light and on a dark page."""
DESCRIPTION = (
    "Each rule has a point on an axis of test accuracy, and its number beside it; a diamond and a"
    " second number are the published accuracy, where there is one.  The axis has equal steps for"
    " equal ratios of the error."
)


def style() -> str:
    """Return the style sheet, with the dark colors where a page is dark."""

    def rules(which: int) -> str:
        fills = (f".{name} {{ fill: {both[which]} }}" for name, both in COLORS.items())
        strokes = (f".on-{name} {{ stroke: {both[which]} }}" for name, both in COLORS.items())
        return "\n".join((*fills, *strokes))

    return (
        "text { font: 15px sans-serif } .title { font-size: 20px }\n"
        ".bold { font-weight: bold } .end { text-anchor: end } .middle { text-anchor: middle }\n"
        f"path {{ fill: none; stroke-width: 1.6 }}\n{rules(0)}\n"
        f"@media (prefers-color-scheme: dark) {{\n{rules(1)}\n}}"
    )


def label(options: str) -> str:
    """Return the options of a row in short: `fg-a-cv, k = 8, projection`."""
    words = options.split()
    named = dict(zip(words[::2], words[1::2], strict=True))
    parts = [named.pop("--rule")]
    parts += [f"k = {k}"] if (k := named.pop("--tangents", None)) else []
    parts += [f"shrink {x}"] if (x := named.pop("--shrink", None)) else []
    return ", ".join([*parts, *(kind for kind in named.values() if kind != "normal")])


def rows_of(rules: tuple[str, ...]) -> list[dict]:
    """Return the rows of a family, the best first."""
    rows = json.loads((ROOT / "benchmarks/results/rules.json").read_text(encoding="utf-8"))
    return sorted(
        (row for row in rows if row["rule"] in rules), key=lambda row: -row["test_accuracy"]
    )


def across(accuracy: float) -> float:
    """Return where an accuracy in % lies: the axis is the logarithm of the error."""
    share = math.log(WORST / (100 - accuracy)) / math.log(WORST / BEST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def text(x: float, y: float, words: str, look: str = "ink") -> str:
    """Return a line of text in SVG."""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}">{words}</text>'


def diamond(x: float, y: float) -> str:
    """Return the mark of a published figure."""
    return f'<path class="on-ink" d="M{x:.1f} {y - 7:.1f} l7 7 l-7 7 l-7 -7 z"/>'


def line(row: dict, y: float, color: str) -> list[str]:
    """Return what stands for one row: its name, its place on the axis, and its numbers."""
    options = options_of(row["command"])
    accuracy, x = 100 * row["test_accuracy"], across(100 * row["test_accuracy"])
    drawn = [
        text(LEFT - 10, y + 5, label(options), "ink end"),
        f'<path class="on-{color}" d="M{LEFT} {y:.1f} H{x:.1f}"/>',
        f'<circle class="{color}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>',
    ]
    told = f"{accuracy:.2f}"
    if "test_accuracy_std" in row:
        told += f" ± {100 * row['test_accuracy_std']:.2f}"
    drawn.append(text(WIDTH - RIGHT + 8, y + 5, told))
    if options in PUBLISHED:
        drawn.append(diamond(across(PUBLISHED[options]), y))
        drawn.append(text(WIDTH - 12, y + 5, f"{PUBLISHED[options]:.2f}", "soft end"))
    return drawn


def draw() -> str:
    """Return the picture as the text of an SVG file."""
    drawn, y = [], float(TOP)
    for family, (color, rules) in FAMILIES.items():
        y += 27
        drawn.append(text(LEFT, y - 8, family, "ink bold"))
        for row in rows_of(rules):
            drawn += line(row, y + ROW / 2, color)
            y += ROW
    grid = []
    for accuracy in TICKS:
        x = across(accuracy)
        grid.append(f'<path class="on-soft" opacity="0.4" d="M{x:.1f} {TOP} V{y + 6:.1f}"/>')
        grid.append(text(x, y + 24, f"{accuracy} %", "soft middle"))
    head = [
        text(12, 30, "Test accuracy on MNIST, %", "ink bold title"),
        text(
            12,
            54,
            "MLP 784-800-10 after 5 epochs, ± of three seeds; published: after 100 epochs",
            "soft",
        ),
        text(WIDTH - RIGHT + 8, TOP - 6, "here", "ink"),
        diamond(WIDTH - 90, TOP - 11),
        text(WIDTH - 12, TOP - 6, "published", "soft end"),
    ]
    height = y + 38
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
            f' width="{WIDTH}" height="{height:.0f}" role="img"'
            ' aria-labelledby="title description">',
            '<title id="title">Test accuracy of every rule on MNIST</title>',
            f'<desc id="description">{DESCRIPTION}</desc>',
            f"<style>\n{style()}\n</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="8"/>',
            *grid,
            *head,
            *drawn,
            "</svg>\n",
        ]
    )
