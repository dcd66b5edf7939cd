"""One artifact and its attack set, and a cache of the board's own."""

from pathlib import Path

import pytest

from tests.edge.stages import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """`exported` computes the twin; the attack set knows it."""
    return World.deployed(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "board"
