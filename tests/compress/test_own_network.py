"""A user's own network from a student to the statement of its INT8 file; the other two: tests/slow."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.core import artifact
from edge.statement.statement import STATEMENT, read_statement
from tests.compress.own_networks import to_a_verified_file, write_module


def test_a_users_network_comes_to_a_robust_figure(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    verified = artifact.read(to_a_verified_file("cnn", chain.teacher, tmp_path))
    said = read_statement(verified.file(STATEMENT)).predicate
    assert said.figures.robust is not None and all(part.covered for part in said.protocol)
    assert said.artifact.precision == "int8" and said.agreement is not None
    assert artifact.read(tmp_path / "s").config["model"] == "mynets:cnn"
