"""Run an experiment by its name.

python -m experiments NAME [--quick] [--seeds N …] [--only TEXT] [--backend NAME] [--out DIR]
python -m experiments --list
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dualnet.console import answer, exit_code, say
from dualnet.errors import Interrupted
from dualnet.options import require_choice
from experiments import (
    beyond_bp,
    cost,
    dkh_batchnorm,
    dkh_cifar,
    dkh_conv,
    dkh_rates,
    dkh_width,
    fdfa_alignment,
    fdfa_cnn,
    fdfa_convergence,
    fdfa_estimates,
    fdfa_mlp,
    fdfa_noise,
    fdfa_variance,
    frog_angles,
    frog_functions,
    frog_networks,
    frog_quality,
    heads,
    ren_cifar,
    ren_contrastive,
    ren_groups,
    ren_losses,
    ren_mask,
    ren_memory,
    ren_mnist,
    ren_norms,
    ren_sites,
    ren_stop,
    ren_variance,
)
from experiments.experiment import (
    BACKENDS,
    Experiment,
    file_of,
    known_rows,
    run_experiment,
    save_picture,
)

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        frog_quality,
        frog_functions,
        frog_angles,
        frog_networks,
        dkh_rates,
        dkh_width,
        dkh_batchnorm,
        dkh_cifar,
        dkh_conv,
        fdfa_mlp,
        fdfa_cnn,
        fdfa_convergence,
        fdfa_estimates,
        fdfa_variance,
        fdfa_noise,
        fdfa_alignment,
        ren_mnist,
        ren_cifar,
        ren_contrastive,
        ren_stop,
        ren_sites,
        ren_groups,
        ren_norms,
        heads,
        ren_memory,
        ren_variance,
        ren_losses,
        ren_mask,
        beyond_bp,
        cost,
    )
}
OLDER = ("mnist", "rules", "networks", "contrastive", "alignment")
"""Tables that are commands of their own: `python -m experiments.mnist`, and so on."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m experiments") -> int:
    """Run the command line and return its exit code."""
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog=program, description=summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--quick", action="store_true", help="a small form, in seconds")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds of every row")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose settings have it")
    parser.add_argument("--data-dir", help="the folder of the data sets")
    parser.add_argument("--backend", choices=BACKENDS, default="numpy", help="default numpy")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/experiments"),
        help="folder of the results (default runs/experiments); rows that it has stay as they are",
    )
    args = parser.parse_args(arguments)
    if args.list:
        for experiment in EXPERIMENTS.values():
            answer(f"{experiment.name:18} {experiment.shows}  [{experiment.source}]")
        answer(f"of their own, as python -m experiments.NAME: {', '.join(OLDER)}")
        return 0
    require_choice("", "NAME", args.name, EXPERIMENTS)
    experiment = EXPERIMENTS[args.name]
    try:
        form = experiment.form(
            args.quick,
            args.seeds,
            args.backend,
            only=args.only,
            data_dir=args.data_dir,
            work=args.out / args.name,
        )
        rows = run_experiment(experiment, form, args.out)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("interrupted; the same command goes on") from None
    path = file_of(experiment, form, args.out)
    answer(experiment.table(rows), kept=str(path))
    # The file may have more rows than `--only` names, and the picture beside it shows them all.
    if save_picture(experiment, known_rows(experiment, form, args.out), path.with_suffix(".png")):
        say(f"{path}, {path.with_suffix('.png')}", aside=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments", main, sys.argv[1:]))
