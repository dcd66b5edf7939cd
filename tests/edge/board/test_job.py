"""A verification carried out by a board, in a process of its own: the same verdict as here; found again, ended."""

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.remote.board_verification import BoardVerification
from compress.remote.connection import Link
from compress.stages import verify as stage
from edge.board import job, store
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from edge.statement import statement
from edge.verify import verify
from edge.verify.attack_set import AttackSet
from tests.edge.board import wire
from tests.edge.stages import World, config


@pytest.fixture(scope="session")
def asked() -> dict[str, Any]:
    return config(device="jetson")


def remote(world: World, asked: dict[str, Any]) -> BoardVerification:
    inputs = verify.VerifyInputs(world.stages["exported"].path, world.stages["attack-set"].path)
    return BoardVerification(Link(wire.HOST, opened=wire.connect), asked, inputs)


def test_the_verdict_is_the_one_of_a_verification_here(
    world: World, asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = remote(world, asked).run(tmp_path / "there", add_record=stage.add_page)
    inputs = verify.VerifyInputs(world.stages["exported"].path, world.stages["attack-set"].path)
    here = stage.run(asked, inputs, tmp_path / "here")
    assert there.manifest["payload"] == here.manifest["payload"]
    assert there.identity != here.identity  # where it ran is part of it
    assert set(os.listdir(there.path)) == set(os.listdir(here.path))
    stated, local = (statement.read_statement(stage.path).as_json()["predicate"] for stage in (there, here))
    for key in ("artifact", "figures", "protocol", "attacks", "agreement", "lineage", "attack_set", "verdicts"):
        assert stated[key] == local[key], key
    assert there.metrics["host"] == wire.HOST
    assert "board: replay 8/8" in capsys.readouterr().err

    assert not list((store.root() / "jobs").iterdir()), "what was fetched is forgotten, another time is another state"


def test_a_job_that_ended_unseen_is_found(
    world: World, asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = remote(world, asked)
    first.start()
    (folder,) = (store.root() / "jobs").iterdir()
    while job.job_status(folder.name)["state"] == job.RUNNING:
        time.sleep(0.05)
    started = (folder / job.LOCK).read_text()
    again = remote(world, asked)
    again.start()
    assert (folder / job.LOCK).read_text() == started and "has done this already" in capsys.readouterr().err
    assert (
        again.active
        and again.run(tmp_path / "v", add_record=stage.add_page).metrics["n"] == len(world.labels)
        and not again.active
    )


def request(world: World, asked: dict[str, Any]) -> dict[str, Any]:
    """What starts a job, once both stages are there."""
    from compress.remote import transfer

    with wire.connection() as board:
        for name in ("exported", "attack-set"):
            transfer.send_stage(board, world.stages[name])
    ids = {name: world.stages[name].identity for name in ("exported", "attack-set")}
    return {"config": asked, "files": {}, "bundle": "0" * 64, **ids}


def long(asked: dict[str, Any]) -> dict[str, Any]:
    return {**asked, "latency": {**asked["latency"], "samples": 10_000_000}}


def test_a_job_goes_on_without_its_board_is_alone_there_and_can_be_ended(world: World, asked: dict[str, Any]) -> None:
    ask = request(world, long(asked))
    with wire.connection() as board:
        name = board.ask("start", request=ask)["job"]
    assert job.job_status(name)["state"] == job.RUNNING
    with wire.connection() as board:
        assert board.ask("start", request=ask)["job"] == name  # the same question finds the same job
        with pytest.raises(CompressError, match=r"process \d+ \(verify\) is at work on this board"):
            board.ask("start", request={**ask, "bundle": "1" * 64})
        board.send({"type": "follow", "job": name, "offset": 0})
        assert board.receive(30)[0]["type"] == "event"
        board.send({"type": "stop", "job": name})
        while (kind := board.receive(30)[0]["type"]) == "event":
            pass
        assert kind == "stop"
    assert job.job_status(name)["state"] == job.ABSENT
    with store.Busy("verify", alone=True):
        pass


def test_a_job_that_was_killed_says_so_and_starts_anew(world: World, asked: dict[str, Any]) -> None:
    ask = request(world, long(asked))
    with wire.connection() as board:
        name = board.ask("start", request=ask)["job"]
        os.kill(int((store.job(name) / job.LOCK).read_text()), signal.SIGKILL)
        board.send({"type": "follow", "job": name, "offset": 0})
        with pytest.raises(CompressError, match="ended without a word"):
            while True:
                board.receive(30)
        assert board.ask("start", request=ask)["state"] == job.RUNNING
        assert board.ask("stop", job=name)["stopped"]
        assert not board.ask("stop", job=name)["stopped"]


def test_a_fault_on_the_board_is_one_line_here_and_leaves_nothing(
    world: World, asked: dict[str, Any], tmp_path: Path
) -> None:
    wrong = {**asked, "threat": {"norm": "linf", "eps": "1/255"}}
    with pytest.raises(CompressError, match=r"board: .*made for linf eps 8/255, asked for linf eps 1/255"):
        remote(world, wrong).run(tmp_path / "out", add_record=stage.add_page)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


CAMERA = """
import numpy as np

def unit(frames):
    return np.asarray(frames).transpose(0, 3, 1, 2)

def frames(images):
    return images.transpose(0, 2, 3, 1)
"""


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "camera_of_a_board.py").write_text(CAMERA)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_users_pipeline_is_sent_and_is_part_of_what_is_timed(
    world: World, asked: dict[str, Any], tmp_path: Path, camera: Path
) -> None:
    clean = AttackSet.read(world.stages["attack-set"]).clean
    np.save(camera / "recorded.npy", clean.transpose(0, 2, 3, 1))
    own = {"preprocess": "camera_of_a_board:unit", "frames": str(camera / "recorded.npy")}
    made = remote(world, {**asked, **own}).run(tmp_path / "there", add_record=stage.add_page)
    stated = statement.read_statement(made.path).as_json()["predicate"]
    assert stated["preprocess"]["name"] == own["preprocess"]
    assert stated["preprocess"]["sha256"] == artifact.file_sha256(camera / "camera_of_a_board.py")
    assert stated["preprocess"]["clean"]["count"] == stated["figures"]["clean"]["count"]
    assert "preprocess_ms" in str(stated["latency"])


def test_a_pipeline_of_more_than_one_file_is_refused(world: World, asked: dict[str, Any], camera: Path) -> None:
    (camera / "through_another.py").write_text("from camera_of_a_board import unit\n")
    with pytest.raises(CompressError, match=r"only a module of one file is sent to a board"):
        remote(world, {**asked, "preprocess": "through_another:unit"})


def test_a_link_lost_again_and_again_is_made_again(world: World, asked: dict[str, Any], tmp_path: Path) -> None:
    lives = [2, 4, 7, 9, 12]
    from tests.edge.board.test_remote_runner import Breaking

    inputs = verify.VerifyInputs(world.stages["exported"].path, world.stages["attack-set"].path)
    links = Breaking(*lives)
    made = BoardVerification(Link(wire.HOST, opened=links), asked, inputs).run(
        tmp_path / "out", add_record=stage.add_page
    )
    assert made.metrics["n"] == len(world.labels)
    assert links.made == len(lives) + 1


# ------------------------------------------------------------------------------------------- a board that lies


class Liar:
    """A finished job's files, offered by a board that does as it likes."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.listed: Any = None
        self.chunks: dict[str, list[bytes]] = {}

    def __call__(self, ask: dict[str, Any]) -> list[tuple[dict[str, Any], bytes]]:
        kind = ask["type"]
        if kind == "missing":
            return [({"type": kind, "files": []}, b"")]
        if kind == "start":
            return [({"type": kind, "job": "a" * 64, "state": "done"}, b"")]
        if kind == "follow":
            return [({"type": "end", "state": "done", "message": ""}, b"")]
        if kind == "files":
            return [({"type": kind, "files": self.list() if self.listed is None else self.listed}, b"")]
        if kind == "get":
            content = self.files[ask["name"]]
            parts = self.chunks.get(ask["name"], [content])
            return [({"type": "get", "bytes": len(content)}, b""), *(({"type": "chunk"}, part) for part in parts)]
        return [({"type": kind}, b"")]

    def list(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "bytes": len(content), "sha256": artifact.bytes_sha256(content)}
            for name, content in self.files.items()
        ]

    def restate(self, change: Any) -> None:
        """Change the statement, and the manifest so that it fits."""
        stated = json.loads(self.files["statement.json"])
        change(stated)
        self.replace("statement.json", json.dumps(stated).encode())

    def replace(self, name: str, content: bytes) -> None:
        self.files[name] = content
        manifest = json.loads(self.files["manifest.json"])
        part = "payload" if name in manifest["payload"] else "records"
        manifest[part][name]["sha256"] = artifact.bytes_sha256(content)
        hashes = {one: entry["sha256"] for one, entry in manifest["payload"].items()}
        manifest["identity"] = artifact.digest({"plan": manifest["plan"], "payload": hashes})
        self.files["manifest.json"] = json.dumps(manifest).encode()

    def verdicts(self, **changed: Any) -> None:
        with np.load(io.BytesIO(self.files["verdicts.npz"])) as table:
            arrays = {**{name: table[name] for name in table.files}, **changed}
        path = self.scratch / "changed.npz"
        with open(path, "wb") as file:
            np.savez(file, **arrays)
        self.replace("verdicts.npz", path.read_bytes())
        sha256 = artifact.bytes_sha256(path.read_bytes())
        self.restate(lambda stated: stated["predicate"]["verdicts"].update(sha256=sha256))


@pytest.fixture(scope="session")
def true(world: World, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = verify.VerifyInputs(world.stages["exported"].path, world.stages["attack-set"].path)
    return verify.run(asked, inputs, tmp_path_factory.mktemp("true") / "verified").path


@pytest.fixture
def liar(true: Path, tmp_path: Path) -> Liar:
    return Liar(true, tmp_path)


def fetched(world: World, asked: dict[str, Any], liar: Liar, out: Path) -> artifact.Stage:
    inputs = verify.VerifyInputs(world.stages["exported"].path, world.stages["attack-set"].path)
    link = Link(wire.HOST, opened=lambda host, python: wire.scripted(liar))
    try:
        return BoardVerification(link, asked, inputs).run(out, add_record=stage.add_page)
    finally:
        link.close()


def test_what_is_true_is_taken_and_the_page_is_written_here(
    world: World, asked: dict[str, Any], liar: Liar, tmp_path: Path
) -> None:
    assert "report.html" not in [entry["name"] for entry in liar.list()]
    made = fetched(world, asked, liar, tmp_path / "out")
    assert made.file("report.html").stat().st_size > 10_000


def more(liar: Liar, name: str, **fields: Any) -> None:
    liar.listed = [*liar.list(), {"name": name, "bytes": 1, "sha256": "0" * 64, **fields}]


LIES: dict[str, Any] = {
    "a file of no verified folder": lambda liar: more(liar, "../../.bashrc"),
    "a page of its own": lambda liar: more(liar, "report.html"),
    "a file twice": lambda liar: more(liar, "statement.json"),
    "no list": lambda liar: setattr(liar, "listed", {"a": 1}),
    "a list of other things": lambda liar: setattr(liar, "listed", ["statement.json"]),
    "a size that no disk holds": lambda liar: setattr(
        liar, "listed", [{**entry, "bytes": 1 << 50} for entry in liar.list()]
    ),
    "no statement": lambda liar: setattr(
        liar, "listed", [entry for entry in liar.list() if entry["name"] != "statement.json"]
    ),
    "other bytes than announced": lambda liar: liar.chunks.update(
        {"statement.json": [liar.files["statement.json"].replace(b"0", b"1")]}
    ),
    "a part of a file, then silence": lambda liar: liar.chunks.update({"statement.json": [b"x"]}),
    "a file that ends early": lambda liar: liar.chunks.update({"latency.npz": [b"abc", b""]}),
    "more than announced": lambda liar: liar.chunks.update({"latency.npz": [liar.files["latency.npz"] * 2]}),
    "a statement of another artifact": lambda liar: liar.restate(
        lambda stated: stated["predicate"]["artifact"].update(identity="0" * 64)
    ),
    "a figure that is not the table's": lambda liar: liar.restate(
        lambda stated: stated["predicate"]["figures"]["clean"].update(count=0)
    ),
    "a statement that breaks the schema": lambda liar: liar.restate(
        lambda stated: stated["predicate"].update(data={"n": "many"})
    ),
    "a statement that is none": lambda liar: liar.replace("statement.json", b"[]"),
    "other images": lambda liar: liar.verdicts(index=np.arange(30)),
    "images of another form": lambda liar: liar.verdicts(adversarial=np.zeros((2, 3), np.uint8)),
    "a table that is no archive": lambda liar: liar.replace("latency.npz", b"no archive"),
    "a pickle": lambda liar: liar.verdicts(attacks=np.array([{}], object)),
    "a manifest that is none": lambda liar: liar.files.update({"manifest.json": b"{"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_one_line_and_leaves_nothing(
    world: World, asked: dict[str, Any], liar: Liar, tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.remote.connection.ANSWER_S", 0.2)
    LIES[lie](liar)
    with pytest.raises((CheckFailed, CompressError), match=r"^board: ") as caught:
        fetched(world, asked, liar, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_progress_from_afar_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from compress.remote.board_verification import Replay

    replay = Replay("board")
    replay.show({"offset": 1, "event": {"say": "\x1b[2Jgone\r\n" + "x" * 10_000}})
    bar = {"label": "square\x1b[1A", "total": 10, "done": 4, "note": "", "end": None}
    replay.show({"offset": 2, "event": bar})
    replay.show({"offset": 3, "event": {**bar, "done": 10, "end": True}})
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\r" not in said and max(map(len, said.splitlines())) < 600
    assert "board: square[1A 10/10" in said and replay.offset == 3
    for wrong in ({}, {"offset": 1}, {"offset": 1, "event": {"label": 5}}, {"offset": "x", "event": {"say": "a"}}):
        with pytest.raises(CompressError, match="of a form that is not known"):
            replay.show(wrong)
