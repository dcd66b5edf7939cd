"""A classifier that a board executes: every forward pass there, asked from here, many questions in flight.

An address is `ssh://[USER@]HOST[:PORT]/WHERE[?python=PATH]`. WHERE is the identity of an exported stage that was sent
there, or its first 12 digits or more; else a path on the board: `/opt/e` is `ssh://orin/opt/e`, and a path in the home
folder `ssh://orin/~/e`.
"""

import math
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from compress.remote import transfer
from compress.remote.connection import Connection, Link, Lost
from edge.board.frames import BODY_MOST, checked_frame
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import Runner

REQUEST = 1 << 18  # bytes of images in a request, about: small enough that sending and computing overlap
IN_FLIGHT = 8
OPENED_IN_S = 3600.0  # a deferred engine is built first
DEVICE = "jetson"  # what `compress verify --host` asks a board for; on another machine it is its processor
NUMBER = 0  # the one runner of a connection


class RemoteRunner(Runner):
    """What `where` says of the board at the other end of `link`, as a `Runner`.

    Requests hold a multiple of the batch size, so the board computes the batches that it would compute of the whole.
    When the link is lost, the runner is opened again and asked what it has not answered.
    """

    def __init__(
        self,
        link: Link,
        where: str,
        *,
        batch_size: int,
        threads: int,
        device: str = DEVICE,
        stage: "Stage | None" = None,
    ) -> None:
        self._link, self._stage = link, stage
        self._ask = {"runner": NUMBER, "where": where, "batch_size": batch_size, "threads": threads, "device": device}
        self._opened_on: Connection | None = None
        self._images = self._requests = self._bytes = 0
        self._seconds = 0.0
        self.sha256 = ""
        self._link.do(self._open)

    def infer(self, x: "npt.NDArray[Any]") -> "npt.NDArray[np.float32]":
        """As of every runner; the board's faults are raised here."""
        self._check(x)
        began = time.perf_counter()
        logits = np.empty((len(x), self.classes), np.float32)
        image = max(1, x[:1].nbytes)
        batches = max(1, REQUEST // (self.batch_size * image))
        count = max(1, min(self.batch_size * batches, BODY_MOST // image))
        open_ = dict(enumerate(slice(start, min(start + count, len(x))) for start in range(0, len(x), count)))
        self._requests += len(open_)
        try:
            self._link.do(lambda connection: self._exchange(connection, x, logits, open_))
        except CompressError:
            self._link.close()  # answers to what was asked beside it may still come
            raise
        self._images += len(x)
        self._seconds += time.perf_counter() - began
        return logits

    def describe(self) -> dict[str, Any]:
        """As the board's runner describes itself, and the `host`."""
        return {**self._about["describe"], "host": self._link.host}

    def traffic(self) -> dict[str, Any]:
        """{"images", "requests", "bytes_per_image" in both directions, "images_per_s"} of all that was asked."""
        asked = self._images
        return {
            "images": asked,
            "requests": self._requests,
            "bytes_per_image": self._bytes / asked if asked else 0.0,
            "images_per_s": asked / self._seconds if self._seconds else 0.0,
        }

    def close(self) -> None:
        if self._images:
            of = self.traffic()
            say(
                f"{self._link.host}: {of['images']:,} images in {of['requests']:,} requests, "
                f"{of['images_per_s']:,.0f} images/s, {of['bytes_per_image']:,.0f} bytes an image"
            )
        self._link.close()

    # ----------------------------------------------------------------------------------- the connection

    def _open(self, connection: Connection) -> None:
        if self._stage is not None:
            transfer.send_stage(connection, self._stage)
        about = connection.ask("open", OPENED_IN_S, **self._ask)
        try:
            shape = tuple(int(size) for size in about["input_shape"])
            self.input_shape, self.classes = (shape[0], shape[1], shape[2]), int(about["classes"])
            self.batch_size, self.open_ms = int(about["batch_size"]), float(about["open_ms"])
            self.file, self.size = str(about["file"]), int(about["size"])
            sha256, self._about = str(about["sha256"]), about
        except (KeyError, TypeError, ValueError, IndexError):
            raise CompressError(f"{connection.host}: describes its runner in a form that is not known here") from None
        if self.sha256 not in ("", sha256):
            raise CompressError(
                f"{connection.host}: opens other bytes than before the link was lost ({sha256:.12}, before "
                f"{self.sha256:.12}); run the command again"
            )
        self.sha256, self._opened_on = sha256, connection

    def _exchange(
        self, connection: Connection, x: "npt.NDArray[Any]", logits: "npt.NDArray[Any]", open_: "dict[int, slice]"
    ) -> None:
        """Ask for every part that is open, until none is."""
        if self._opened_on is not connection:
            self._open(connection)
        before = connection.channel.sent + connection.channel.received
        room = threading.Semaphore(IN_FLIGHT)
        over = threading.Event()
        sender = threading.Thread(target=_send, args=(connection, x, dict(open_), room, over), daemon=True)
        sender.start()
        try:
            while open_:
                header, body = connection.receive(math.inf)
                number = checked_frame(header, "infer", id=int)["id"]
                part = open_.get(number)
                if part is None:
                    raise CompressError(f"{connection.host}: answers a question that was not asked")
                want = (part.stop - part.start, self.classes)
                if header.get("shape") != list(want) or len(body) != 4 * want[0] * want[1]:
                    raise CompressError(f"{connection.host}: gives logits {header.get('shape')} for {want[0]} images")
                logits[part] = np.frombuffer(body, "<f4").reshape(want)
                del open_[number]
                room.release()
        finally:
            over.set()
            room.release()
            sender.join(1.0)
            self._bytes += connection.channel.sent + connection.channel.received - before


def _send(
    connection: Connection,
    x: "npt.NDArray[Any]",
    parts: "dict[int, slice]",
    room: threading.Semaphore,
    over: threading.Event,
) -> None:
    """In a thread of its own, so that answers are read while questions are written. A lost link shows there too."""
    for number, part in parts.items():
        room.acquire()
        if over.is_set():
            return
        images = np.ascontiguousarray(x[part])
        header = {"type": "infer", "runner": NUMBER, "id": number}
        header |= {"shape": list(images.shape), "dtype": images.dtype.name}
        try:
            connection.send(header, images.tobytes())
        except Lost:
            return


def open_url(url: str, *, batch_size: int, threads: int) -> RemoteRunner:
    """The runner at such an address."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    where = unquote(parts.path)
    if not parts.netloc or where in ("", "/") or set(query) - {"python"}:
        raise CompressError(f"{url}: no address of a runner; write ssh://user@board/IDENTITY or ssh://user@board/path")
    name = where.removeprefix("/")
    in_place = re.fullmatch(r"[0-9a-f]{12,64}", name) or name.startswith("~/")
    link = Link(parts.netloc, query["python"][0] if "python" in query else None)
    return RemoteRunner(link, name if in_place else where, batch_size=batch_size, threads=threads)


def open_stage(
    folder: Path, host: str, *, python: "str | None" = None, batch_size: int = 64, threads: int = 0
) -> RemoteRunner:
    """An exported stage of this machine, sent to a board and opened there."""
    stage = artifact.read(folder, ("exported",))
    return RemoteRunner(Link(host, python), stage.identity, batch_size=batch_size, threads=threads, stage=stage)
