"""Make the pictures of the documentation: `python docs/figures/make.py` writes them all."""

from pathlib import Path

import forward_pass

FIGURES = {"forward-pass.svg": forward_pass.draw}
"""File → what draws it."""

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8")
