"""Make the pictures of the documentation: `python docs/figures/make.py` writes them all."""

from pathlib import Path

import accuracy
import floors
import forward_pass
import four_rules
import recorded_step
import shapes
import three_operations
import time_to_variance
import variance

FIGURES = {
    "accuracy.svg": accuracy.draw,
    "forward-pass.svg": forward_pass.draw,
    "recorded-step.svg": recorded_step.draw,
    "shapes.svg": shapes.draw,
    "floors.svg": floors.draw,
    "four-rules.svg": four_rules.draw,
    "three-operations.svg": three_operations.draw,
    "time-to-variance.svg": time_to_variance.draw,
    "variance.svg": variance.draw,
}
"""File → what draws it."""

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8", newline="\n")
