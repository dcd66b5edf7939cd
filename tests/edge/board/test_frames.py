"""Frames: what was sent arrives, and nothing that arrives can hurt."""

import json
import os
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.board import frames
from edge.board.frames import Channel, Closed, checked_frame
from edge.core.errors import CompressError
from tests.edge.board import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), st.binary(max_size=300))
def test_a_frame_arrives_as_it_was_sent(header: dict, body: bytes) -> None:
    here, there = wire.pair()
    try:
        here.send(header, body)
        here.send({"n": 2})
        assert there.receive(5) == (header, body)
        assert there.receive(5) == ({"n": 2}, b"")
        assert there.received == here.sent
    finally:
        here.close()
        there.close()


def test_large_bodies_and_several_threads_do_not_mix() -> None:
    here, there = wire.pair()
    bodies = {n: bytes([n]) * (frames.SMALL + 1000 * n) for n in range(8)}
    senders = [threading.Thread(target=here.send, args=({"n": n}, body)) for n, body in bodies.items()]
    for sender in senders:
        sender.start()
    got = {}
    for _ in senders:
        header, body = there.receive(5)
        got[header["n"]] = body
    assert got == bodies
    for sender in senders:
        sender.join()
    here.close()
    there.close()


def raw(content: bytes) -> Channel:
    """The reading end of a pipe that holds `content` and nothing after it."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return Channel(read, os.open(os.devnull, os.O_WRONLY))


def head(text: int, body: int, magic: bytes = frames.MAGIC) -> bytes:
    return struct.pack(">4sII", magic, text, body)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Welcome to Ubuntu 22.04", "in place of a frame"),
        (head(5, 0, b"RCB9") + b"{}   ", "in place of a frame"),
        (head(frames.HEADER_MOST + 1, 0), "announced"),
        (head(2, frames.BODY_MOST + 1), "announced"),
        (head(4, 0) + b"\xff\xfe\x00\x01", "no JSON object"),
        (head(2, 0) + b"[]", "no JSON object"),
        (head(4, 0) + b"null", "no JSON object"),
    ],
)
def test_what_is_no_frame_is_one_line(content: bytes, said: str) -> None:
    channel = raw(content)
    with pytest.raises(CompressError, match=said) as caught:
        channel.receive(5)
    assert "\n" not in str(caught.value)
    channel.close()


@pytest.mark.parametrize("cut", [0, 3, 11, 12, 20, 30])
def test_a_stream_that_ends_within_a_frame_is_a_closed_one(cut: int) -> None:
    text = json.dumps({"type": "get"}).encode()
    whole = head(len(text), 10) + text + b"0123456789"
    assert cut < len(whole)
    channel = raw(whole[:cut])
    with pytest.raises(Closed):
        channel.receive(5)
    channel.close()


def test_silence_is_a_closed_stream_too() -> None:
    here, there = wire.pair()
    with pytest.raises(Closed, match="nothing came"):
        here.receive(0.05)
    there.close()
    with pytest.raises(Closed):
        for _ in range(100):
            here.send({}, bytes(1 << 16))
    here.close()
    with pytest.raises(Closed, match="this end was closed"):
        here.send({})


def test_a_frame_too_large_is_not_begun() -> None:
    here, there = wire.pair()
    with pytest.raises(CompressError, match="at most"):
        here.send({"text": "x" * frames.HEADER_MOST})
    here.send({"n": 1})
    assert there.receive(5)[0] == {"n": 1}
    here.close()
    there.close()


@pytest.mark.parametrize("header", [{"type": "put"}, {"type": "get", "bytes": 5}, {"type": "put", "bytes": True}, {}])
def test_a_header_of_another_kind_or_type_is_refused(header: dict) -> None:
    with pytest.raises(CompressError):
        checked_frame(header, "put", bytes=int)
    assert checked_frame({"type": "put", "bytes": 5}, "put", bytes=int)["bytes"] == 5
