"""The papers' tables and figures, each by a command: `python -m experiments --list`."""

from dualnet.console import make_readable

make_readable()  # every module here that prints is a command
