"""`compress export --all` with every candidate that this machine can make, by the command."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.cli.execute import execute
from edge.core import targets
from export import candidates

pytestmark = pytest.mark.slow


def test_all_candidates_of_a_quantized_stage(
    chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["export", str(chain.quantized), "--all", "--out", str(tmp_path / "all")]
    assert execute([*args, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows) == [row.name for row in candidates.tried()]
    assert {rows[f"onnx-{precision}"]["state"] for precision in targets.get("onnx").candidates} == {"executed"}
    assert {rows[f"tensorrt-{precision}"]["state"] for precision in targets.get("tensorrt").candidates} <= {
        "executed",
        "untested",
    }
    for name, row in rows.items():
        assert (row["folder"] is None) == (row["state"] == "failed") == (row["bytes"] is None), name
        assert row["state"] == "executed" or row["why"], name
        assert row["state"] == "failed" or row["parity"]["passed"], name
    built = [row for name, row in rows.items() if name.startswith("tensorrt-rtx") and row["state"] != "untested"]
    for row in built:
        assert execute(["inspect", row["folder"], "--json"]) == 0
        layers = json.loads(capsys.readouterr().out)["graph"]["layers"]
        executed = {layer["execution"] for layer in layers if layer["weight"]}
        assert executed <= {row["precision"], "unknown"} and executed != {"unknown"}
    assert execute(args) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in rows)
