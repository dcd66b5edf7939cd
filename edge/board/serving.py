"""Runners that are asked from afar: opened by where they lie, asked by number, many questions in flight."""

import re
from pathlib import Path

import numpy as np

from edge.board import store
from edge.board.frames import Header
from edge.core.errors import CompressError
from edge.runtimes.runner import Runner, open_runner

DTYPES = {"float32": np.float32, "uint8": np.uint8}
IDENTITY = re.compile(r"[0-9a-f]{12,64}")

Frame = tuple[Header, bytes]


class Serving:
    """The runners of one connection; while one is open, the board is shared and nobody measures on it."""

    def __init__(self) -> None:
        self._runners: dict[int, Runner] = {}
        self._busy: store.Busy | None = None

    def open(self, ask: Header, body: bytes) -> Frame:
        """{"runner": n, "where", "batch_size", "threads", "device"} → what the runner is."""
        if self._busy is None:
            self._busy = store.Busy("serve", alone=False)
        try:
            runner = open_runner(
                served_place(ask["where"]),
                batch_size=int(ask["batch_size"]),
                threads=int(ask["threads"]),
                device=str(ask["device"]),
            )
        except CompressError:
            self._let_go()
            raise
        self._runners[int(ask["runner"])] = runner
        about = {
            "input_shape": list(runner.input_shape),
            "classes": runner.classes,
            "batch_size": runner.batch_size,
            "file": runner.file,
            "size": runner.size,
            "sha256": runner.sha256,
            "open_ms": runner.open_ms,
            "describe": runner.describe(),
        }
        return {"type": "open", **about}, b""

    def infer(self, ask: Header, body: bytes) -> Frame:
        """{"runner", "id", "shape", "dtype"} and the images' bytes → {"id", "shape"} and float32 logits."""
        shape, dtype = tuple(int(size) for size in ask["shape"]), DTYPES[ask["dtype"]]
        logits = self._runners[int(ask["runner"])].infer(np.frombuffer(body, dtype).reshape(shape))
        return {"type": "infer", "id": ask["id"], "shape": list(logits.shape)}, logits.astype("<f4").tobytes()

    def close(self, ask: Header, body: bytes) -> Frame:
        self._runners.pop(int(ask["runner"])).close()
        self._let_go()
        return {"type": "close"}, b""

    def end(self) -> None:
        """Close what is open."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._busy is not None and not self._runners:
            self._busy.__exit__()
            self._busy = None


def served_place(where: str) -> Path:
    """A stage that was sent here, by its identity or the first 12 digits of it or more; else a path on the board."""
    if IDENTITY.fullmatch(where):
        return store.find_stage(where)
    return Path(where).expanduser()
