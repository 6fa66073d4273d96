"""The page on many processes agrees with the committed bytes of its benchmark."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_of_bytes_is_the_committed_one():
    text = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- processes -->\n(.*?)\n<!-- end of processes -->", text, re.S)
    found = json.loads((ROOT / "benchmarks/results/processes.json").read_text(encoding="utf-8"))
    lines = [line for line in table.splitlines() if "`" in line]
    assert lines == [
        f"| {row['network']} | {row['parameters']:,} | `{row['rule']}` | {row['share']} | "
        f"{row['bytes']:,} |"
        for row in found["rows"]
    ]
    for row in found["rows"]:
        is_few = row["rule"].startswith("fg-w")
        assert row["bytes"] < 2000 if is_few else row["bytes"] >= 4 * row["parameters"]
