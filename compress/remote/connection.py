"""A connection to a board: set up with the bundle in place, kept alive, made again when the link is lost."""

import contextlib
import json
import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from compress.remote import bundle, ssh
from edge.board import frames
from edge.board.frames import Channel, Closed, Header, Silent, checked_frame
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from edge.core.progress import say

BEAT_S = 10.0  # between two signs of life
ANSWER_S = 60.0  # within which a board that is asked something quick answers
BANNER_MOST = 1 << 16  # bytes that login scripts may print before the board speaks
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
PATIENCE_S = 15 * 60.0  # for a link that is lost
MOST_LOST = 50
STOPPED_IN_S = 12.0  # a job there is given 10 s to end

T = TypeVar("T")


class Lost(Exception):
    """The link broke; the board may still be at work."""


class Connection:
    """Frames to and from a board that has said hello. Every method raises `Lost` when the link breaks."""

    def __init__(self, host: str, channel: Channel, process: "ssh.SshProcess | None" = None) -> None:
        self.host, self.channel, self._process = host, channel, process
        hello, _ = channel.receive(ANSWER_S)
        checked_frame(hello, "hello", protocol=int)
        if hello["protocol"] != frames.VERSION:
            raise CompressError(f"{host}: speaks protocol {hello['protocol']}, this is {frames.VERSION}")
        self.hello = hello
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def open(cls, host: str, python: "str | None" = None) -> "Connection":
        """Over ssh, the bundle put in place first. `python` serves it; default the board's python3."""
        process = ssh.SshProcess(host)
        try:
            source, content = bundle.SOURCE.encode(), bundle.bundle_bytes()
            sha256 = artifact.bytes_sha256(content)
            ask = {"sha256": sha256, "bytes": len(content), "python": python, "minimum": bundle.MINIMUM}
            _write(process, b"%d\n" % len(source) + source + json.dumps(ask).encode() + b"\n")
            if _step(process)["step"] == "send":
                say(f"{process.host}: copying the bundle, {len(content):,} bytes")
                _write(process, content)
                _step(process)
            return cls(host, Channel(process.stdout.fileno(), process.stdin.fileno()), process)
        except Closed:
            fault = process.fault()
            process.end()
            raise fault from None
        except BaseException:
            process.end()
            raise

    @property
    def pid(self) -> "int | None":
        """Of the ssh process."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the connection."""
        self._over.set()
        if self._process is None:
            self.channel.close()
        else:
            self._process.kill()  # whoever is writing to it is let go
            self.channel.shut()
            self._process.end()

    def send(self, header: Header, body: "bytes | memoryview" = b"") -> None:
        try:
            self.channel.send(header, body)
        except Closed as fault:
            raise Lost(str(fault)) from None

    def receive(self, timeout: "float | None" = None) -> tuple[Header, bytes]:
        """The next frame; the board's own faults are raised as they were there. Infinity is no limit."""
        limit = ANSWER_S if timeout is None else timeout
        try:
            header, body = self.channel.receive(None if math.isinf(limit) else limit)
        except Silent:
            raise CompressError(
                f"{self.host}: is there, and does not answer for {limit:g} s; is its memory full, or its disk?"
            ) from None
        except Closed as fault:
            raise Lost(str(fault)) from None
        if header.get("type") == "error":
            raise self.fault(header)
        return header, body

    def ask(self, kind: str, timeout: "float | None" = None, **fields: Any) -> Header:
        """One request, one answer of the same kind."""
        self.send({"type": kind, **fields})
        return checked_frame(self.receive(timeout)[0], kind)

    def fault(self, header: Header) -> Exception:
        """A fault that happened on the board, {"message", "exit_code"}, as one that happened here."""
        message, code = str(header.get("message")), header.get("exit_code")
        if code == 1:
            return RuntimeError(f"the program on {self.host} failed:\n{message}")
        one_line = f"{self.host}: {' '.join(message.split())}"
        return CheckFailed(one_line) if code == CheckFailed.exit_code else CompressError(one_line)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(Closed, CompressError):
                self.channel.send({"type": "ping"})


# ------------------------------------------------------------------------------------ setting up


def _write(process: ssh.SshProcess, content: bytes) -> None:
    try:
        process.stdin.write(content)
        process.stdin.flush()
    except OSError as fault:
        raise Closed(str(fault)) from None


def _step(process: ssh.SshProcess) -> dict[str, Any]:
    """The next line of the bootstrap, behind whatever a login script printed."""
    mark, left = f"{bundle.MARK} ".encode(), BANNER_MOST
    while left > 0:
        line = _line(process.stdout.fileno(), left)
        left -= len(line)
        if mark in line:
            step = _read(process.host, line.partition(mark)[2])
            if step["step"] == "error":
                raise CompressError(f"{process.host}: {' '.join(str(step['message']).split())}")
            return step
    raise CompressError(f"{process.host}: its login prints without end; keep ~/.bashrc quiet for ssh commands")


def _read(host: str, line: bytes) -> dict[str, Any]:
    try:
        step = dict(json.loads(line))
        return {"step": str(step["step"]), "message": str(step.get("message"))}
    except (ValueError, KeyError, TypeError):
        raise CompressError(f"{host}: answers {line[:60]!r}; is its python3 a Python?") from None


def _line(number: int, most: int) -> bytes:
    """Byte by byte, because frames come after it."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < most:
        ready = select.select([number], [], [], ANSWER_S)[0]
        got = os.read(number, 1) if ready else b""
        if not got:
            raise Closed("no answer")
        line += got
    return bytes(line)


class Link:
    """A board that is reached again when the link was lost: `link.do(work)` gives `work` a living connection."""

    def __init__(
        self,
        host: str,
        python: "str | None" = None,
        opened: "Callable[[str, str | None], Connection]" = Connection.open,
    ) -> None:
        self.host, self._python, self._opened = ssh.check_host(host), python, opened
        self._connection: Connection | None = None
        self._once = False

    def do(self, work: "Callable[[Connection], T]") -> T:
        """What `work` returns; after a lost link it is called again with a new connection, MOST_LOST times at most."""
        for _ in range(MOST_LOST):
            connection = self._connection or self._connect()
            try:
                return work(connection)
            except Lost as fault:
                say(f"{self.host}: the link is lost ({fault}); what runs there goes on")
                self.close()
        raise CompressError(
            f"{self.host}: the link was lost {MOST_LOST} times; run the command again when it is better"
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connected(self) -> "Connection | None":
        return self._connection

    def _connect(self) -> Connection:
        """The first time a fault is the user's at once; later the board is waited for, with growing pauses."""
        wait, end = FIRST_WAIT_S, time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connection = self._opened(self.host, self._python)
                if self._once:
                    say(f"{self.host}: connected again")
                self._once = True
                return self._connection
            except ssh.Unreachable as fault:
                if not self._once or fault.lasting or time.monotonic() + wait > end:
                    raise
                say(f"{fault}; next try in {wait:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
