"""A board in this process: its end of a connection in a thread, over a pair of sockets."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from compress.remote.connection import Connection
from edge.board.agent import Agent
from edge.board.frames import VERSION, Channel, Closed, Header

HOST = "board"


def pair() -> "tuple[Channel, Channel]":
    """Both ends of a connection."""
    here, there = socket.socketpair()
    return tuple(Channel(end, end) for end in (here.detach(), there.detach()))  # type: ignore[return-value]


def connect(host: str = HOST, python: "str | None" = None) -> Connection:
    """A connection to a board that serves until its other end is closed."""
    here, there = pair()

    def serve() -> None:
        with contextlib.closing(there):
            Agent(there).serve()

    threading.Thread(target=serve, daemon=True).start()
    return Connection(host, here)


@contextlib.contextmanager
def connection() -> "Iterator[Connection]":
    with contextlib.closing(connect()) as open_:
        yield open_


def scripted(answer: "Callable[[Header], list[tuple[Header, bytes]]]") -> Connection:
    """A connection to a board that answers each request by the frames that `answer` gives; pings it leaves alone."""
    here, there = pair()

    def serve() -> None:
        with contextlib.closing(there), contextlib.suppress(Closed):
            there.send({"type": "hello", "protocol": VERSION})
            while True:
                ask, _ = there.receive()
                for frame in answer(ask) if ask["type"] != "ping" else ():
                    there.send(*frame)

    threading.Thread(target=serve, daemon=True).start()
    return Connection(HOST, here)
