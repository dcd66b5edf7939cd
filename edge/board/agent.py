"""The board's end of a connection: it answers requests until the other side is gone.

Each request is a frame {"type": …}, its answer a frame of the same type, or {"type": "error", "message", "exit_code"}.
A `ping` is not answered: a workstation that is silent for a minute is gone, whatever TCP thinks of it.
"""

import os
import platform
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge import __version__
from edge.board import frames, job, store
from edge.board.frames import Channel, Closed, Header, checked_frame
from edge.core import errors
from edge.core.errors import CompressError

if TYPE_CHECKING:
    from edge.board.serving import Serving

SILENCE_S = 60.0
POLL_S = 0.2

Frame = tuple[Header, bytes]


def serve_stdio() -> None:
    """Serve this process's stdin and stdout; what libraries print goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    Agent(Channel(0, out)).serve()


def _reply(kind: str, **fields: Any) -> Frame:
    return {"type": kind, **fields}, b""


class Agent:
    """One connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._serving: Serving | None = None
        self._answers: dict[str, Callable[[Header, bytes], Frame | None]] = {
            "missing": lambda ask, _: _reply(
                "missing", files=[sha256 for sha256 in ask["files"] if not store.file(sha256).is_file()]
            ),
            "put": self._put,
            "assemble": lambda ask, _: _reply(
                "assemble", folder=str(store.assemble(ask["identity"], dict(ask["files"])))
            ),
            "start": lambda ask, _: _reply("start", **job.start_job(ask["request"])),
            "follow": self._follow,
            "stop": lambda ask, _: _reply("stop", stopped=job.stop_job(ask["job"])),
            "forget": self._forget,
            "files": lambda ask, _: _reply("files", files=job.job_files(ask["job"])),
            "get": self._get,
            "open": lambda ask, body: self._runners().open(ask, body),
            "infer": lambda ask, body: self._runners().infer(ask, body),
            "close": lambda ask, body: self._runners().close(ask, body),
        }

    def serve(self) -> None:
        """Until the stream ends, or is silent for too long."""
        hello = {"version": __version__, "python": platform.python_version(), "machine": platform.machine()}
        try:
            self._channel.send({"type": "hello", "protocol": frames.VERSION, "host": platform.node(), **hello})
            while True:
                self._answer(*self._channel.receive(SILENCE_S))
        except Closed:
            pass
        finally:
            if self._serving is not None:
                self._serving.end()

    def _runners(self) -> "Serving":
        """Made when the first is asked for: what it imports takes a slow board its time."""
        if self._serving is None:
            from edge.board.serving import Serving

            self._serving = Serving()
        return self._serving

    def _answer(self, ask: Header, body: bytes) -> None:
        kind = ask.get("type")
        if kind == "ping":
            return
        try:
            if kind not in self._answers:
                raise CompressError(f"this board knows no request {str(kind)[:40]!r}; is the same version there?")
            reply = self._answers[kind](ask, body)
            if reply is not None:
                self._channel.send(*reply)
        except CompressError as fault:
            self._refuse(ask, str(fault), fault.exit_code)
        except (KeyError, TypeError, ValueError) as fault:
            self._refuse(ask, f"request {kind!r} is not understood ({fault!r}); is the same version there?", 2)
        except (Closed, MemoryError):
            raise
        except Exception as fault:
            told = errors.machine_fault(fault)
            self._refuse(ask, str(told) if told else traceback.format_exc(), told.exit_code if told else 1)

    def _refuse(self, ask: Header, message: str, exit_code: int) -> None:
        self._channel.send({"type": "error", "message": message, "exit_code": exit_code, "id": ask.get("id")})

    def _put(self, ask: Header, body: bytes) -> Frame:
        """A file whose chunks follow. They are taken to their end also where they cannot be kept."""
        checked_frame(ask, "put", sha256=str, bytes=int)
        left = ask["bytes"]

        def chunk() -> bytes:
            _, part = self._channel.receive(SILENCE_S)
            return part

        try:
            with store.receiving(ask["sha256"], left) as file:
                while left > 0:
                    part = chunk()
                    left -= len(part)
                    file.write(part)
        except CompressError:
            while left > 0:
                left -= len(chunk()) or left
            raise
        return _reply("put")

    def _follow(self, ask: Header, body: bytes) -> "Frame | None":
        """The job's progress as it comes, then its end; another request meanwhile is answered and ends this."""
        name, offset = ask["job"], int(ask["offset"])
        while True:
            status = job.job_status(name)  # before its events: none can come after its end
            for after, event in job.job_events(name, offset):
                self._channel.send({"type": "event", "offset": after, "event": event})
                offset = after
            if status["state"] == job.ABSENT:
                words = job.last_words(name)
                raise CompressError(
                    f"the board's process ended without a word ({words or 'nothing in its log'}); was it killed, or is "
                    f"memory short there? run the command again"
                )
            if status["state"] != job.RUNNING:
                return _reply("end", **status)
            if self._channel.waiting(POLL_S):
                next_, content = self._channel.receive(SILENCE_S)
                if next_.get("type") != "ping":
                    self._answer(next_, content)
                    return None

    def _forget(self, ask: Header, body: bytes) -> Frame:
        job.forget_job(ask["job"])
        return _reply("forget")

    def _get(self, ask: Header, body: bytes) -> None:
        """One file of a finished job: its size, then its chunks."""
        if ask["name"] not in [entry["name"] for entry in job.job_files(ask["job"])]:
            raise CompressError(f"{ask['name']!r} is no file of that job")
        with open(store.job(ask["job"]) / job.RESULT / ask["name"], "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._channel.send({"type": "get", "bytes": size})
            while part := file.read(frames.CHUNK):
                self._channel.send({"type": "chunk"}, part)
