"""Tables of training runs: what is known is not run again, and what was run is not lost."""

import json
import re

import pytest

from experiments import contrastive, networks, published, rules, runs


def test_a_table_goes_on_where_it_stopped(tmp_path):
    out, made = tmp_path / "rows.json", []

    def make(command):
        if command == "broken":
            raise KeyboardInterrupt
        made.append(command)
        return {"accuracy": len(made)}

    with pytest.raises(KeyboardInterrupt):
        list(runs.rows(["a", "broken", "b"], out, make))
    assert json.loads(out.read_text()) == [{"command": "a", "accuracy": 1}]
    (first, second) = runs.rows(["a", "b"], out, make, lambda row: {**row, "seen": True})
    assert made == ["a", "b"]
    assert first == {"command": "a", "accuracy": 1, "seen": True}
    assert json.loads(out.read_text()) == [first, second]


@pytest.mark.parametrize("experiment", (contrastive, networks, rules))
def test_the_committed_rows_are_known(experiment, tmp_path, capsys, monkeypatch):
    """So that the command in the README prints the README's table, and runs nothing."""
    committed = runs.TRAIN.parent / "benchmarks/results" / f"{experiment.__name__[12:]}.json"
    out = tmp_path / "rows.json"
    out.write_text(committed.read_text())
    monkeypatch.setattr("sys.argv", ["experiment", "--out", str(out)])
    monkeypatch.setattr(experiment, "run", lambda *_: pytest.fail("it ran"))
    experiment.main()
    assert json.loads(out.read_text()) == json.loads(committed.read_text())
    # A line of a table, or a curve after the command that made it.
    lines = re.sub("(?m)^`.*by epoch: ", "", capsys.readouterr().out).splitlines()
    text = (runs.TRAIN.parent / "README.md").read_text(encoding="utf-8")
    assert len(lines) > 2 and all(line in text for line in lines)


def test_a_run_that_fails_ends_with_its_exit_code(capfd):
    with pytest.raises(SystemExit) as ended:
        runs.run("--epochs 0", None)
    assert ended.value.code == 2 and "--epochs must be at least 1" in capfd.readouterr().err


def test_published_rows_are_made_by_several_seeds(monkeypatch, capsys):
    commands = []

    def run(command, data_dir):
        commands.append(command)
        name = command.split()[1]
        return {
            "test_accuracy": 0.9812,
            "test_accuracy_std": 0.0007,
            "recipe": {"name": name, "test_accuracy": 0.9821},
            "runs": [{"seconds": 30.0}, {"seconds": 90.0}],
        }

    monkeypatch.setattr(published, "run", run)
    flags = ["--only", "mlp2-mnist-f", "--seeds", "3", "4", "--backend", "numpy"]
    monkeypatch.setattr("sys.argv", ["published", *flags])
    published.main()
    lines = capsys.readouterr().out.splitlines()
    assert commands[-1] == "--recipe fdfa-mlp2-mnist-fdfa --seeds 3 4 --backend numpy"
    assert lines[-1] == "| `fdfa-mlp2-mnist-fdfa` | 98.12 ± 0.07 % | 98.21 % | 1.5 |"
    assert len(lines) == 2 + len(commands)
