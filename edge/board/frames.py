"""Frames between a workstation and a board: a JSON header and raw bytes, both bounded, over two file descriptors.

    magic "RCB1" | header length, u32 big-endian | body length, u32 | header, UTF-8 JSON object | body

A frame without the magic, above a bound or with another header is a fault of the other side: `CompressError`.
"""

import contextlib
import json
import os
import select
import struct
import threading
import time
from typing import Any

from edge.core.errors import CompressError

VERSION = 1
MAGIC = b"RCB1"
HEADER_MOST = 1 << 20
BODY_MOST = 256 << 20
CHUNK = 4 << 20  # of a file that is sent
_HEAD = struct.Struct(">4sII")
_READ = 1 << 20
SMALL = 1 << 16  # a body up to here is written together with its head

Header = dict[str, Any]


class Closed(Exception):
    """The other side is gone."""


class Silent(Closed):
    """The other side is there, as far as can be told, and says nothing."""


class Channel:
    """One end: `send` from any thread, `receive` from one."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._held = bytearray()
        self._sending, self._shut = threading.Lock(), False
        self.sent = self.received = 0  # bytes

    def send(self, header: Header, body: "bytes | memoryview" = b"") -> None:
        """One frame, whole; Closed where the other side does not take it."""
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
        if len(text) > HEADER_MOST or len(body) > BODY_MOST:
            raise CompressError(f"a frame of {len(text)} + {len(body)} bytes; at most {HEADER_MOST} + {BODY_MOST} fit")
        head = _HEAD.pack(MAGIC, len(text), len(body)) + text
        with self._sending:
            if self._shut:
                raise Closed("this end was closed")
            for part in (head, body) if len(body) > SMALL else (head + bytes(body),):
                left = memoryview(part)
                while left:
                    try:
                        count = os.write(self._write, left)
                    except OSError as fault:
                        raise Closed(str(fault)) from None
                    self.sent += count
                    left = left[count:]

    def receive(self, timeout: "float | None" = None) -> tuple[Header, bytes]:
        """The next frame; Closed at the end of the stream, Silent when `timeout` seconds pass without a byte."""
        magic, text, body = _HEAD.unpack(self._take(_HEAD.size, timeout))
        if magic != MAGIC:
            raise CompressError(f"the other side sent {magic!r} in place of a frame; is the same version there?")
        if text > HEADER_MOST or body > BODY_MOST:
            raise CompressError(f"the other side announced {text} + {body} bytes; at most {HEADER_MOST} + {BODY_MOST}")
        try:
            header = json.loads(self._take(text, timeout))
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise CompressError("the other side sent a header that is no JSON object")
        return header, self._take(body, timeout)

    def waiting(self, timeout: float) -> bool:
        """Whether a frame, or the end of the stream, comes within that many seconds."""
        return bool(self._held) or self._readable(timeout)

    def shut(self) -> None:
        """Nothing is sent any more, from whatever thread: the descriptors' numbers may soon be another's."""
        with self._sending:
            self._shut = True

    def close(self) -> None:
        self.shut()
        for number in {self._read, self._write}:
            with contextlib.suppress(OSError):
                os.close(number)

    def _take(self, count: int, timeout: "float | None") -> bytes:
        while len(self._held) < count:
            if not self._readable(timeout):
                raise Silent(f"nothing came for {timeout:g} s")
            try:
                got = os.read(self._read, _READ)
            except OSError as fault:
                raise Closed(str(fault)) from None
            if not got:
                raise Closed("the stream ended")
            self.received += len(got)
            self._held += got
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _readable(self, timeout: "float | None") -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                return bool(select.select([self._read], [], [], left)[0])
            except InterruptedError:
                continue
            except (OSError, ValueError) as fault:
                raise Closed(str(fault)) from None


def checked_frame(header: Header, kind: str, **types: type) -> Header:
    """`header` itself when it is of that kind and its fields of those types; else CompressError."""
    if header.get("type") != kind:
        raise CompressError(f"the other side sent {str(header.get('type'))[:40]!r} where {kind!r} was due")
    for name, of in types.items():
        if type(header.get(name)) is not of:
            raise CompressError(f"the other side sent {kind!r} without a proper {name!r}")
    return header
