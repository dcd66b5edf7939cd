"""`artifact.ANEW`: a complete stage is made again, and the old one stays until the new one is complete."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core import artifact

PLAN = artifact.Plan("student", {"lr": 0.1}, 0, {"name": "digits"}, {})


@pytest.fixture
def anew() -> Iterator[None]:
    token = artifact.ANEW.set(True)
    yield
    artifact.ANEW.reset(token)


def build(out: Path, content: str, calls: list[str]) -> artifact.Stage:
    def make(work: artifact.Work) -> None:
        if out.exists():
            calls.append(artifact.read(out).file("weights").read_text())
        work.add_payload("weights").write_text(content)

    return artifact.build(out, PLAN, make)


def test_without_it_a_complete_stage_is_returned(tmp_path: Path):
    build(tmp_path / "s", "first", calls := [])
    assert build(tmp_path / "s", "second", calls).file("weights").read_text() == "first"
    assert calls == []


@pytest.mark.usefixtures("anew")
def test_with_it_the_stage_is_made_while_the_old_one_stands(tmp_path: Path):
    build(tmp_path / "s", "first", calls := [])
    assert build(tmp_path / "s", "second", calls).file("weights").read_text() == "second"
    assert calls == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.usefixtures("anew")
def test_a_failure_leaves_the_old_stage(tmp_path: Path):
    build(tmp_path / "s", "first", [])

    def fail(work: artifact.Work) -> None:
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        artifact.build(tmp_path / "s", PLAN, fail)
    assert artifact.read(tmp_path / "s").file("weights").read_text() == "first"


@pytest.mark.usefixtures("anew")
def test_a_damaged_stage_is_replaced(tmp_path: Path):
    build(tmp_path / "s", "first", []).file("weights").write_text("damaged")

    def make(work: artifact.Work) -> None:
        work.add_payload("weights").write_text("sound")

    assert artifact.build(tmp_path / "s", PLAN, make).file("weights").read_text() == "sound"
