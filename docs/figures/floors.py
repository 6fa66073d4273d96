"""The floors of the house: docs/figures/floors.svg.  tests/test_house.py has their parts."""

import ast
from pathlib import Path
from textwrap import wrap

from drawing import WIDTH, Drawing

HOUSE = Path(__file__).parent.parent.parent / "tests/test_house.py"
OWNS = {
    7: "commands",
    6: "verification, tour",
    5: "training, data",
    4: "rules, networks",
    3: "layers, optimizers",
    2: "derivatives",
    1: "arrays, devices",
    0: "foundations",
}
"""Floor → what it owns."""
LEFT, RIGHT, DIVIDE, LINE = 34, 566, 248, 24


def floors() -> dict[int, tuple[str, ...]]:
    """Return the parts of each floor, as the test of imports has them."""
    for node in ast.parse(HOUSE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            return eval(compile(ast.Expression(node.value), str(HOUSE), "eval"), {})
    raise LookupError(f"{HOUSE}: expected a table FLOORS, found none")


def draw() -> str:
    """Return the picture."""
    parts = floors()
    lines = {floor: wrap(", ".join(sorted(parts[floor])), 32) for floor in OWNS}
    if missing := parts.keys() - OWNS.keys():
        raise LookupError(f"say in OWNS what floor {min(missing)} owns")
    heights = {floor: LINE * len(lines[floor]) + 14 for floor in OWNS}
    roof = 130
    d = Drawing(
        "The floors of dualnet",
        "A house.  From the ground up: "
        + "; ".join(f"{floor}, {OWNS[floor]}: {' '.join(lines[floor])}" for floor in sorted(OWNS))
        + ".  The roof has train.py, experiments and benchmarks.  A file imports from its own"
        " floor and from those below.",
        roof + sum(heights.values()) + 50,
    )
    middle = WIDTH / 2
    d.polygon((LEFT - 22, roof), (middle, 12), (RIGHT + 22, roof), look="pale edge-soft")
    d.text(middle, 72, "roof", "ink bold")
    d.text(middle, 96, "train.py", "ink")
    d.text(middle, 120, "experiments, benchmarks", "ink")
    y = roof
    for floor, height in heights.items():
        look = "primal-pale" if floor == 2 else "paper"
        d.box(LEFT, y, RIGHT - LEFT, height, f"{look} edge-soft")
        d.text(LEFT + 14, y + 25, f"{floor}", "ink bold start")
        d.text(LEFT + 36, y + 25, OWNS[floor], "ink start")
        for i, line in enumerate(lines[floor]):
            d.text(DIVIDE, y + 25 + LINE * i, line, "soft start")
        y += height
    d.arrow((RIGHT + 16, roof + 14), (RIGHT + 16, y - 2), look="primal")
    d.text(middle, y + 32, "Imports go down: from a floor to itself and those below", "primal")
    return str(d)
