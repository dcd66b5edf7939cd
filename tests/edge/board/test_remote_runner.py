"""A runner that is asked from afar: the logits of the runner there, whatever happens to the link."""

import threading
from pathlib import Path

import numpy as np
import pytest

from compress.remote import runner as module
from compress.remote.connection import Connection, Link
from compress.remote.runner import RemoteRunner, open_url
from edge import open_runner
from edge.board import store
from edge.core.errors import CompressError
from edge.runtimes.runner import Runner
from tests.edge.board import wire
from tests.edge.stages import World

FILE = {"file": "model.onnx", "size": 5}


def opened(world: World, link: "Link | None" = None, batch_size: int = 8) -> RemoteRunner:
    stage = world.stages["exported"]
    link = link or Link(wire.HOST, opened=wire.connect)
    return RemoteRunner(link, stage.identity, batch_size=batch_size, threads=1, stage=stage)


def here(world: World, batch_size: int = 8) -> Runner:
    return open_runner(world.stages["exported"].path, batch_size=batch_size, threads=1)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_it_gives_the_bits_that_the_runtime_gives(world: World, count: int, kind: str) -> None:
    x = world.clean[:count] if kind == "uint8" else world.clean[:count].astype(np.float32) / 300
    with opened(world) as remote, here(world) as local:
        assert (remote.infer(x) == local.infer(x)).all()
        for name in ("input_shape", "classes", "batch_size", "file", "size", "sha256"):
            assert getattr(remote, name) == getattr(local, name), name
        assert remote.describe() == {**local.describe(), "host": wire.HOST}


def test_many_requests_are_in_flight_and_come_back_in_their_places(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST", 1)  # a batch a request
    x = np.tile(world.clean, (20, 1, 1, 1))
    with opened(world) as remote, here(world) as local:
        assert (remote.infer(x) == local.infer(x)).all()
        assert remote.traffic()["requests"] == len(x) // 8
        per_image = remote.traffic()["bytes_per_image"]
        assert x[0].nbytes + 4 * remote.classes < per_image < x[0].nbytes + 4 * remote.classes + 200


class Breaking:
    """Connections of which the first ones break after a number of frames received."""

    def __init__(self, *lives: int) -> None:
        self.lives, self.made = list(lives), 0

    def __call__(self, host: str, python: "str | None") -> Connection:
        self.made += 1
        connection = wire.connect(host)
        if self.lives:
            left, receive = [self.lives.pop(0)], connection.channel.receive

            def counted(timeout: "float | None" = None) -> "tuple[dict, bytes]":
                left[0] -= 1
                if left[0] < 0:
                    connection.channel.shut()
                    raise wire.Closed("cut")
                return receive(timeout)

            connection.channel.receive = counted  # type: ignore[method-assign]
        return connection


@pytest.mark.parametrize("lives", [(5,), (6,), (10,), (5, 6, 9), (3, 4)])
def test_a_link_that_breaks_is_made_again_and_only_what_is_open_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, lives: "tuple[int, ...]"
) -> None:
    monkeypatch.setattr(module, "REQUEST", 1)
    links = Breaking(*lives)
    x = np.tile(world.clean, (10, 1, 1, 1))
    with opened(world, Link(wire.HOST, opened=links)) as remote, here(world) as local:
        assert (remote.infer(x) == local.infer(x)).all()
    assert links.made == len(lives) + 1


def test_another_artifact_after_a_lost_link_is_refused(world: World) -> None:
    answers = iter(["a" * 64, "b" * 64])

    def answer(ask: dict) -> list:
        about = {"input_shape": [1, 8, 8], "classes": 3, "batch_size": 8, "open_ms": 1.0, "describe": {}, **FILE}
        return [({"type": "open", "sha256": next(answers), **about}, b"")]

    link = Link(wire.HOST, opened=lambda host, python: wire.scripted(answer))
    remote = RemoteRunner(link, "0" * 12, batch_size=8, threads=1)
    link.close()
    with pytest.raises(CompressError, match="other bytes than before"):
        remote.infer(np.zeros((1, 1, 8, 8), np.uint8))


@pytest.mark.parametrize(
    "reply",
    [
        {"type": "infer", "id": 0, "shape": [2, 3]},
        {"type": "infer", "id": 7, "shape": [1, 3]},
        {"type": "infer", "id": "0", "shape": [1, 3]},
        {"type": "infer", "id": 0, "shape": [1, 4]},
        {"type": "open"},
    ],
)
def test_answers_of_another_form_are_refused(reply: dict) -> None:
    def answer(ask: dict) -> list:
        about = {"input_shape": [1, 8, 8], "classes": 3, "batch_size": 8, "open_ms": 1.0, "describe": {}, **FILE}
        opened_ = {"type": "open", "sha256": "a" * 64, **about}
        return [(opened_, b"") if ask["type"] == "open" else (reply, bytes(12))]

    link = Link(wire.HOST, opened=lambda host, python: wire.scripted(answer))
    with RemoteRunner(link, "0" * 12, batch_size=8, threads=1) as remote, pytest.raises(CompressError):
        remote.infer(np.zeros((1, 1, 8, 8), np.uint8))


def test_the_boards_faults_are_raised_here_and_the_runner_goes_on(world: World) -> None:
    with opened(world) as remote:
        x = world.clean[:4]
        expected = remote.infer(x)
        with pytest.raises(CompressError, match="hold NaN"):
            remote.infer(np.full((1, *remote.input_shape), np.nan, np.float32))
        assert (remote.infer(x) == expected).all()
    with pytest.raises(CompressError, match="no stage of that identity is there"):
        RemoteRunner(Link(wire.HOST, opened=wire.connect), "f" * 20, batch_size=8, threads=1)


def is_free() -> bool:
    try:
        with store.Busy("test", alone=True):
            return True
    except CompressError:
        return False


def test_who_measures_is_alone_and_who_serves_is_not(world: World) -> None:
    with opened(world), opened(world), pytest.raises(CompressError, match=r"process \d+ \(serve\) is at work"):
        store.Busy("verify", alone=True)
    while not is_free():  # until the board has noticed that its other end is closed
        threading.Event().wait(0.02)
    with store.Busy("verify", alone=True), pytest.raises(CompressError, match=r"\(verify\) is at work"):
        opened(world)


@pytest.mark.parametrize("url", ["ssh://", "ssh://orin", "ssh://orin/", "ssh://orin/e?shell=sh", "ssh://-oProxy/e"])
def test_an_address_of_no_runner_is_refused(url: str) -> None:
    with pytest.raises(CompressError):
        open_url(url, batch_size=8, threads=1)


@pytest.mark.parametrize(
    ("url", "host", "where", "python"),
    [
        ("ssh://orin/0123456789ab", "orin", "0123456789ab", None),
        ("ssh://me@orin:2222/opt/e", "me@orin:2222", "/opt/e", None),
        ("ssh://orin/~/my%20e?python=/venv/bin/python", "orin", "~/my e", "/venv/bin/python"),
    ],
)
def test_an_address_names_host_place_and_python(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str, where: str, python: "str | None"
) -> None:
    seen = {}

    def recorded(link: Link, place: str, **more: object) -> None:
        seen.update(host=link.host, where=place, python=link._python)

    monkeypatch.setattr(module, "RemoteRunner", recorded)
    open_runner(url, batch_size=8)
    assert seen == {"host": host, "where": where, "python": python}


def test_a_path_on_the_board_is_opened_there(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "e").symlink_to(world.stages["exported"].path)
    with RemoteRunner(Link(wire.HOST, opened=wire.connect), "~/e", batch_size=8, threads=1) as remote:
        assert remote.infer(world.clean).shape == (len(world.clean), 3)
