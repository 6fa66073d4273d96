"""How fast dualnet is and what memory it takes: `python -m benchmarks.NAME`, which has `--help`."""

from dualnet.console import make_readable

make_readable()  # every module here that prints is a command
