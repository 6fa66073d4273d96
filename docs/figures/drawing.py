"""Draw pictures as SVG, with one look for all: text, boxes, arrows, stacks of sheets.

A picture is 600 units wide and its text 18 units high, so that text still has 12 pixels where a
page shows the picture at 400.  Colors have one meaning in all pictures, and two sets: the viewer's
setting chooses the light or the dark one.  Each picture has a ground of its own, so that it can be
read on a page of the other kind, too.  Nothing depends on the machine: the same drawing gives the
same bytes.
"""

import re
from xml.sax.saxutils import escape

WIDTH = 600
SIZE = 18
"""The height of text."""
COLORS = {
    "paper": ("#ffffff", "#15181e"),
    "ink": ("#1f2328", "#e6e9ee"),
    "soft": ("#57606a", "#a3acb8"),
    "pale": ("#eef1f4", "#262b33"),
    "primal": ("#0a5aa8", "#74b9ff"),
    "primal-pale": ("#d7e8f9", "#1b3450"),
    "tangent": ("#a84300", "#ffaa66"),
    "tangent-pale": ("#fde6d5", "#4a2f1c"),
    "back": ("#0b6e4f", "#5fd3a6"),
    "back-pale": ("#d5f1e6", "#173d30"),
}
"""What it is for → its color on a light and on a dark ground.  Blue is what has values, orange what
moves forward along directions, green what goes backward."""
_STYLE = (
    f"text {{ font: {SIZE}px sans-serif; text-anchor: middle }}",
    "text.start { text-anchor: start } text.end { text-anchor: end }",
    "text.bold { font-weight: bold } text.code { font-family: monospace }",
    "path.line { fill: none; stroke-width: 2 } path.dashed { stroke-dasharray: 6 4 }",
)


def _colors(which: int) -> list[str]:
    """Return the rules of CSS of the light (0) or the dark (1) colors."""
    return [
        f".{name} {{ fill: {both[which]} }} .line.{name}, .edge-{name} {{ stroke: {both[which]} }}"
        for name, both in COLORS.items()
    ]


class Drawing:
    """A picture that is drawn step by step; `str` gives its file.

    Args:
        title: what it is, for those who cannot see it.
        description: what is to be seen, for them, too.
        height: its height in units; the width is `WIDTH`.
    """

    def __init__(self, title: str, description: str, height: float):
        self._head = title, description
        self._height = height
        self._parts: list[str] = []

    def __str__(self) -> str:
        """Return the file."""
        light, dark = ("\n    ".join(_colors(which)) for which in (0, 1))
        title, description = map(escape, self._head)
        size = f"{WIDTH} {_number(self._height)}"
        width, height = size.split()
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{width}"'
                f' height="{height}" role="img" aria-labelledby="title description">',
                f'<title id="title">{title}</title>',
                f'<desc id="description">{description}</desc>',
                "<style>",
                *(f"    {line}" for line in _STYLE),
                f"    {light}",
                "    @media (prefers-color-scheme: dark) {",
                f"    {dark}",
                "    }",
                "</style>",
                f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
                *self._parts,
                "</svg>\n",
            )
        )

    def text(self, x: float, y: float, words: str, look: str = "ink") -> None:
        """Write a line whose base is at y and whose middle is at x.

        Args:
            look: classes: a color; `start` or `end` for where x is; `bold`, `code`.  Words between
                `{name|` and `}` have a color of their own.
        """
        marked = re.sub(r"\{(\w+)\|(.*?)\}", r'<tspan class="\1">\2</tspan>', escape(words))
        self._parts.append(
            f'<text class="{look}" x="{_number(x)}" y="{_number(y)}">{marked}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, look: str = "pale") -> None:
        """Draw a box with round corners; x and y are its upper left corner."""
        sizes = f'width="{_number(width)}" height="{_number(height)}"'
        self._parts.append(
            f'<rect class="{look}" x="{_number(x)}" y="{_number(y)}" {sizes} rx="6"/>'
        )

    def polygon(self, *points: tuple[float, float], look: str) -> None:
        """Draw a filled polygon."""
        path = " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._parts.append(f'<path class="{look}" d="M{path} Z"/>')

    def line(self, *points: tuple[float, float], look: str = "ink") -> None:
        """Draw a line through points."""
        through = " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._parts.append(f'<path class="line {look}" d="M{through}"/>')

    def arrow(self, *points: tuple[float, float], look: str = "ink") -> None:
        """Draw a line through points that ends in a head; the last part is level or upright."""
        (x0, y0), (x1, y1) = points[-2:]
        length = abs(x1 - x0) + abs(y1 - y0)
        dx, dy = 8 * (x1 - x0) / length, 8 * (y1 - y0) / length
        self.line(*points[:-1], (x1 - dx / 2, y1 - dy / 2), look=look)
        side = (x1 - dx - dy / 2, y1 - dy + dx / 2), (x1 - dx + dy / 2, y1 - dy - dx / 2)
        self.polygon((x1, y1), *side, look=look.split()[0])

    def mark(self, x: float, y: float, look: str) -> None:
        """Draw a mark of a plot: a disk, for `tangent` a square, for `back` a triangle."""
        if look == "tangent":
            self.polygon((x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5), look=look)
        elif look == "back":
            self.polygon((x - 7, y + 6), (x, y - 7), (x + 7, y + 6), look=look)
        else:
            place = f'cx="{_number(x)}" cy="{_number(y)}"'
            self._parts.append(f'<circle class="{look}" {place} r="8"/>')

    def sheet(
        self, x: float, y: float, shape: tuple[int, int], look: str, cell: float = 9, many: int = 1
    ) -> None:
        """Draw a matrix as a sheet of cells about (x, y), or a stack of such sheets.

        Args:
            shape: rows and columns.
            look: its color, `primal`, `tangent` or `back`.
            many: how many sheets; each lies a bit higher and more to the right than the one before.
        """
        rows, columns = shape
        width, height = cell * columns, cell * rows
        for behind in reversed(range(many)):
            shift = 4 * (behind - (many - 1) / 2)
            left, top = x - width / 2 + shift, y - height / 2 - shift
            grid = "".join(
                f"M{_number(left + cell * i)} {_number(top)}v{_number(height)}"
                for i in range(columns + 1)
            ) + "".join(
                f"M{_number(left)} {_number(top + cell * i)}h{_number(width)}"
                for i in range(rows + 1)
            )
            self._parts.append(
                f'<path class="{look}-pale" d="M{_number(left)} {_number(top)}h{_number(width)}'
                f'v{_number(height)}h{_number(-width)}Z"/>'
                f'<path class="line {look}" style="stroke-width: 1" d="{grid}"/>'
            )


def _number(x: float) -> str:
    """Return a coordinate, to a tenth of a unit."""
    return f"{round(x, 1) + 0.0:.1f}".removesuffix(".0")
