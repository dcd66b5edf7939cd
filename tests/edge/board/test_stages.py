"""Stages on their way to a board: each byte once, checked on both sides; nothing else is stored."""

from pathlib import Path

import pytest

from compress.remote import transfer
from edge.board import store
from edge.board.frames import CHUNK
from edge.core import artifact
from edge.core.errors import CompressError
from tests.edge.board import wire
from tests.edge.stages import World


def test_a_stage_arrives_whole_and_is_sent_once(world: World, cache: Path) -> None:
    stage = world.stages["attack-set"]
    with wire.connection() as board:
        transfer.send_stage(board, stage)
        first = board.channel.sent
        transfer.send_stage(board, stage)
        assert board.channel.sent - first < 2000 < first
    there = artifact.read(store.stage(stage.identity), ("attack-set",))
    assert there.identity == stage.identity
    for name in stage.manifest["payload"]:
        assert there.file(name).read_bytes() == stage.file(name).read_bytes()
    assert not list(cache.rglob("incoming-*"))


def test_two_stages_of_one_file_store_it_once(world: World, cache: Path) -> None:
    again = world.export("exported-again", world.twin, source="student")
    with wire.connection() as board:
        for stage in (world.stages["exported"], again):
            transfer.send_stage(board, stage)
    assert world.stages["exported"].identity != again.identity
    sizes = [path.stat().st_size for path in (cache / "files").iterdir()]
    assert sizes.count(again.file("model.onnx").stat().st_size) == 1
    assert len(list((cache / "stages").iterdir())) == 2


def put(board: wire.Connection, content: bytes, sha256: str, size: int) -> None:
    board.send({"type": "put", "sha256": sha256, "bytes": size})
    for start in range(0, len(content), CHUNK):
        board.send({"type": "chunk"}, content[start : start + CHUNK])
    board.receive(5)


def test_bytes_of_another_hash_are_not_kept(cache: Path) -> None:
    with wire.connection() as board:
        with pytest.raises(CompressError, match="announced were"):
            put(board, b"other bytes", "a" * 64, 11)
        assert not list((cache / "files").iterdir())
        put(board, b"these", artifact.bytes_sha256(b"these"), 5)  # the connection goes on
    assert store.file(artifact.bytes_sha256(b"these")).read_bytes() == b"these"


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "x" * 200, "manifest.json\n"])
def test_a_name_that_leaves_the_folder_is_refused(name: str, cache: Path) -> None:
    with wire.connection() as board:
        put(board, b"x", artifact.bytes_sha256(b"x"), 1)
        with pytest.raises(CompressError, match="no name of a file that is kept here"):
            board.ask("assemble", identity="b" * 64, files={name: artifact.bytes_sha256(b"x")})
    assert not (cache / "stages").exists()


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", "A" * 64, "a" * 63])
def test_what_is_no_hash_names_no_file(sha256: str) -> None:
    with wire.connection() as board, pytest.raises(CompressError, match="is no sha256"):
        board.ask("missing", files=[sha256])


def test_a_stage_under_another_identity_is_refused(world: World, cache: Path) -> None:
    stage = world.stages["exported"]
    with wire.connection() as board:
        transfer.send_stage(board, stage)
        files = {name: entry["sha256"] for name, entry in stage.manifest["payload"].items()}
        files["manifest.json"] = artifact.file_sha256(stage.file("manifest.json"))
        with pytest.raises(CompressError, match="send it again"):
            board.ask("assemble", identity="c" * 64, files=files)
    assert not store.stage("c" * 64).exists()


def test_a_full_disk_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SPARE", 1 << 62)
    with wire.connection() as board:
        with pytest.raises(CompressError, match="are free; delete what is not needed there"):
            put(board, b"abc", artifact.bytes_sha256(b"abc"), 3)
        assert board.ask("missing", files=[artifact.bytes_sha256(b"abc")])["files"]


@pytest.mark.parametrize(
    "ask",
    [{"type": "reboot"}, {"type": None}, {}, {"type": "missing"}, {"type": "assemble", "identity": 5, "files": 7}],
)
def test_a_request_that_is_not_understood_is_one_line(ask: dict) -> None:
    with wire.connection() as board:
        board.send(ask)
        with pytest.raises(CompressError) as caught:
            board.receive(5)
        assert "\n" not in str(caught.value)
        assert board.ask("missing", files=[])["files"] == []


def test_a_board_of_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.edge.board.wire.VERSION", 99)
    with pytest.raises(CompressError, match="speaks protocol 99, this is 1"):
        wire.scripted(lambda ask: [])
