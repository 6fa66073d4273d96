"""Tables of training runs: what is known is not run again, and what was run is not lost."""

import json
import re

import pytest

from experiments import contrastive, networks, rules, runs


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
