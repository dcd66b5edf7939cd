"""Stage folders on their way to a board: each file once, by its hash; the folder by its identity."""

from collections.abc import Mapping
from pathlib import Path

from compress.remote.connection import Connection
from edge.board.frames import CHUNK, checked
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import Progress

STORED_IN_S = 600.0  # a slow card takes its time to hash and sync what it was sent


def send(connection: Connection, stage: Stage) -> None:
    """Whatever of the stage the board lacks; complete there afterwards, its hashes checked on both sides."""
    files = {name: entry["sha256"] for part in ("payload", "records") for name, entry in stage.manifest[part].items()}
    files[artifact.MANIFEST] = artifact.file_sha256(stage.file(artifact.MANIFEST))
    send_files(connection, {sha256: stage.file(name) for name, sha256 in files.items()}, stage.path.name)
    connection.ask("assemble", STORED_IN_S, identity=stage.identity, files=files)


def send_files(connection: Connection, files: Mapping[str, Path], what: str) -> None:
    """Of `files`, sha256 → where it is, those that the board lacks; `what` names them on the bar."""
    lacking = set(connection.ask("missing", files=sorted(files))["files"])
    wanted = {sha256: path for sha256, path in files.items() if sha256 in lacking}
    if wanted:
        total = sum(path.stat().st_size for path in wanted.values())
        with Progress(f"copying {what} to {connection.host}, bytes", total) as bar:
            for sha256, path in wanted.items():
                _send_file(connection, path, sha256, bar)


def _send_file(connection: Connection, path: Path, sha256: str, bar: Progress) -> None:
    left = path.stat().st_size
    connection.send({"type": "put", "sha256": sha256, "bytes": left})
    with open(path, "rb") as file:
        while left > 0:
            part = file.read(min(CHUNK, left))
            if not part:
                raise CompressError(f"{path}: became shorter while it was sent; run the command again")
            connection.send({"type": "chunk"}, part)
            left -= len(part)
            bar.step(len(part))
    checked(connection.receive(STORED_IN_S)[0], "put")
