"""Train a network by forward gradients, or by any other learning rule.

With no flag it trains a small network on the digits that ship with the package, on NumPy, in
seconds.  `python train.py --help` shows the flags, and `--list` shows what there is to choose from.
It is `dualnet train` of a checkout; what it does is in `dualnet/command/train.py`.
"""

import sys

from dualnet.command.main import imported_when_called
from dualnet.console import exit_code

if __name__ == "__main__":
    main = imported_when_called("dualnet.command.train")
    sys.exit(exit_code("train.py", main, sys.argv[1:]))
