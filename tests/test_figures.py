"""The pictures of the documentation: as their scripts make them, and readable."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

FOLDER = Path(__file__).parent.parent / "docs/figures"
sys.path.insert(0, str(FOLDER))

import drawing  # noqa: E402
import make  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = sorted(make.FIGURES)
DRAWINGS = [name for name in FIGURES if name != "accuracy.svg"]
"""Those that `drawing.py` draws, with text of one size."""


def elements(name):
    """Yield the elements of a committed picture."""
    return ElementTree.parse(FOLDER / name).getroot().iter()


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_as_its_script_makes_it(name):
    same = (FOLDER / name).read_text(encoding="utf-8") == make.FIGURES[name]()
    assert same, "run `python docs/figures/make.py`, and look at the picture"


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_says_what_it_is_and_has_two_sets_of_colors(name):
    root, title, description, style = list(elements(name))[:4]
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert len(title.text) > 10 and len(description.text) > 50
    assert "@media (prefers-color-scheme: dark)" in style.text
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert re.findall(r"(?:href|src|url|@import|https?:)[^ >]*", text) == [
        'http://www.w3.org/2000/svg"'
    ]
    families = re.findall(r"font(?:-family)?:[^;}]*?([\w-]+) *[;}]", style.text)
    assert set(families) <= {"sans-serif", "monospace", "bold"}


def lightness(color):
    """The relative luminance of a color `#rrggbb`, as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("which", (0, 1), ids=("light", "dark"))
def test_text_stands_out_from_its_ground(which):
    """By a contrast of 4.5 at least, which is what WCAG 2 asks of text."""
    colors = {name: lightness(both[which]) for name, both in drawing.COLORS.items()}
    for ground in ("paper", "pale", "primal-pale", "tangent-pale", "back-pale"):
        texts = (
            ("ink", "soft") if ground != "paper" else ("ink", "soft", "primal", "tangent", "back")
        )
        for text in texts:
            low, high = sorted((colors[text] + 0.05, colors[ground] + 0.05))
            assert high / low >= 4.5, (text, ground, high / low)


def boxes_of_texts(name):
    """Yield each text of a picture with its left, right, top and bottom edge, in a wide font."""
    font_manager = pytest.importorskip(
        "matplotlib.font_manager", reason='pip install "dualnet[plot]" brings it'
    )
    from matplotlib.ft2font import FT2Font  # after the line that skips without it

    for text in elements(name):
        if text.tag != f"{SVG}text":
            continue
        looks, words = text.get("class").split(), "".join(text.itertext())
        family = "DejaVu Sans Mono" if "code" in looks else "DejaVu Sans"
        weight = "bold" if "bold" in looks else "normal"
        font = FT2Font(
            font_manager.findfont(font_manager.FontProperties(family=family, weight=weight))
        )
        font.set_size(drawing.SIZE, 72)
        font.set_text(words)
        width = font.get_width_height()[0] / 64
        x, y = float(text.get("x")), float(text.get("y"))
        left = x - width * (0 if "start" in looks else 1 if "end" in looks else 0.5)
        yield words, (left, left + width, y - 0.75 * drawing.SIZE, y + 0.2 * drawing.SIZE)


@pytest.mark.parametrize("name", DRAWINGS)
def test_texts_are_within_their_picture_and_apart(name):
    _, _, width, height = map(float, next(elements(name)).get("viewBox").split())
    assert drawing.SIZE * 400 / width >= 12, "text has 12 pixels where a picture is 400 wide"
    seen = []
    for words, (left, right, top, bottom) in boxes_of_texts(name):
        assert left >= 4 and right <= width - 4 and top >= 4 and bottom <= height - 4, words
        for other, (left2, right2, top2, bottom2) in seen:
            apart = left > right2 + 2 or left2 > right + 2 or top > bottom2 or top2 > bottom
            assert apart, f"{words!r} lies on {other!r}"
        seen.append((words, (left, right, top, bottom)))
    assert seen


def test_every_picture_that_a_page_shows_has_words_in_its_place():
    root = FOLDER.parent.parent
    shown = set()
    for page in (root / "README.md", *root.glob("docs/**/*.md")):
        for words, file in re.findall(r"!\[(.*?)\]\((\S*figures/\S*)\)", page.read_text("utf-8")):
            assert len(words) > 30, f"{page.name}: {file}"
            assert (page.parent / file).is_file(), f"{page.name}: {file}"
            shown.add(Path(file).name)
    assert shown >= {*FIGURES}
