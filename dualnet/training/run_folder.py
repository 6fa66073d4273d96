"""A run folder: what it holds, and reading and writing it so that nothing is ever half written.

| file | what |
| --- | --- |
| `config.json` | every setting resolved, versions, machine |
| `metrics.csv` | a row for each epoch |
| `gradients.csv` | the gradients' alignment, a row for each layer, if asked for |
| `checkpoint.npz` | everything needed to go on: arrays only, never pickled objects |
| `summary.json` | the outcome |
| `curve.png` | loss and accuracy, if matplotlib is installed |
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import DataError, UsageError
from dualnet.training.settings import Settings
from dualnet.tree import Tree

COLUMNS = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds")
GRADIENT_COLUMNS = ("step", "layer", "cosine", "angle", "norm_ratio")


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made when first written to.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def create(self, settings: Settings) -> None:
        """Make the folder and write `config.json`.

        Raises:
            UsageError: the folder holds a run already, or cannot be made or written to.
        """
        self.require_unused()
        with self._reachable():
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_settings(settings)

    def require_unused(self) -> None:
        """Raise a UsageError if the folder holds a run already, or cannot be looked into."""
        with self._reachable():
            run, seeds = ((self.path / f"{name}.json").exists() for name in ("config", "summary"))
        if seeds and not run:
            raise UsageError(
                f"--run-dir {self.path} holds the summary of several seeds already; choose another "
                "folder"
            )
        if run:
            raise UsageError(
                f"--run-dir {self.path} holds a run already; go on with it by "
                f"--resume {self.path}, or choose another folder"
            )

    def write_settings(self, settings: Settings) -> None:
        """Write `config.json`."""
        self.write_json("config.json", {"settings": settings.as_json(), **surroundings()})

    def settings(self, check: Callable[[Settings], None]) -> Settings:
        """The settings in `config.json`.

        Args:
            check: raises a UsageError where a name or an option does not exist.

        Raises:
            UsageError: there is no such run, or it cannot be read.
            DataError: the file is damaged.
        """
        file = self.path / "config.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or not isinstance(data.get("settings"), dict):
                raise ValueError("it holds no settings")
            settings = Settings.from_json(data["settings"])
            check(settings)
            return settings
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"--resume {self.path}: no run there (no config.json)") from None
        except OSError as error:
            raise UsageError(f"--resume {self.path}: {error.strerror or error}") from error
        except (ValueError, TypeError) as error:
            raise DataError(f"{file} is damaged: {error}; start the run anew") from error

    def write_json(self, name: str, data: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self._replace(name, (json.dumps(data, indent=2) + "\n").encode())

    def summary(self) -> dict[str, Any] | None:
        """What `summary.json` holds; None if it is not there, or damaged."""
        try:
            data = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def write_metrics(self, rows: np.ndarray) -> None:
        """Write `metrics.csv` from rows in the order of `COLUMNS`."""
        lines = [",".join(COLUMNS)]
        lines += [",".join([str(int(row[0])), *(f"{x:.6g}" for x in row[1:])]) for row in rows]
        self._replace("metrics.csv", ("\n".join(lines) + "\n").encode())

    def write_gradients(self, layers: list[str], every: int, comparisons: np.ndarray) -> None:
        """Write `gradients.csv`.

        Args:
            layers: their names.
            every: steps from one comparison to the next; `step` counts the updates before it.
            comparisons: `(comparisons, layers, 3)`: cosine, angle in degrees, norm ratio.
        """
        lines = [",".join(GRADIENT_COLUMNS)]
        for i, rows in enumerate(comparisons):
            for layer, numbers in zip(layers, rows, strict=True):
                lines.append(",".join([str(i * every), layer, *(f"{x:.6g}" for x in numbers)]))
        self._replace("gradients.csv", ("\n".join(lines) + "\n").encode())

    def write_checkpoint(self, trees: dict[str, Tree]) -> None:
        """Write `checkpoint.npz`: every leaf of every tree under its path."""
        arrays = {
            f"{name}:{path}": leaf for name, t in trees.items() for path, leaf in tree.items(t)
        }
        temporary = self.path / "checkpoint.partial"
        with self._reachable():
            with open(temporary, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / "checkpoint.npz")

    def read_checkpoint(self, like: dict[str, Tree]) -> dict[str, Tree]:
        """The trees in `checkpoint.npz`.

        Args:
            like: trees of the expected structure; arrays must agree in shape and dtype, but for
                leaves that are None, which take whatever is there.  Each is read to where its
                leaf here lives.

        Raises:
            DataError: the file is missing, damaged, or does not fit.
        """
        file = self.path / "checkpoint.npz"
        advice = "start the run anew with another --run-dir"
        try:
            with open(file, "rb") as stream:
                if not zipfile.is_zipfile(stream):
                    raise ValueError("it is no .npz archive")
                stream.seek(0)
                with np.load(stream, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("it holds what is no array")
        except FileNotFoundError:
            raise DataError(f"{file}: no checkpoint was written yet; {advice}") from None
        except Exception as error:  # zipfile and NumPy meet damaged bytes with a dozen kinds
            raise DataError(f"{file} is damaged ({error}); {advice}") from error
        expected = {f"{name}:{path}" for name, t in like.items() for path, _ in tree.items(t)}
        if set(arrays) != expected:
            odd = sorted(set(arrays) ^ expected)[0]
            raise DataError(f"{file} does not fit this run: {odd} is on one side only; {advice}")

        def stored(name: str) -> Any:
            def leaf(path: str, x: Any) -> Any:
                found = arrays[f"{name}:{path}"]
                if x is not None and (found.shape, found.dtype) != (x.shape, x.dtype):
                    raise DataError(
                        f"{file} does not fit this run: {name}:{path} is {found.dtype}"
                        f"{found.shape}, expected {x.dtype}{x.shape}; {advice}"
                    )
                return found if x is None else np.asarray(found, like=x)

            return leaf

        return {name: tree.map_with_path(stored(name), t) for name, t in like.items()}

    def _replace(self, name: str, content: bytes) -> None:
        temporary = self.path / f"{name}.partial"
        with self._reachable():
            temporary.write_bytes(content)
            os.replace(temporary, self.path / name)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """An OSError (no permission, a full disk) as a UsageError that names the folder."""
        try:
            yield
        except OSError as error:
            raise UsageError(f"--run-dir {self.path}: {error.strerror or error}") from error


def surroundings() -> dict[str, Any]:
    """Versions and machine, for `config.json`."""
    try:
        installed = version("dualnet")
    except PackageNotFoundError:
        installed = "not installed"
    return {
        "versions": {
            "dualnet": installed,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "commit": _commit(),
        },
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "command": sys.argv,
    }


def _commit() -> str | None:
    """The commit of a checkout of dualnet, None elsewhere."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
