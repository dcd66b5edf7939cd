"""Stage folders on their way to a board: each file once, by its hash; the folder by its identity."""

from compress import artifact
from compress.artifact import Stage
from compress.errors import CompressError
from compress.remote.connection import Connection
from edge.board.frames import CHUNK, checked
from edge.progress import Progress

STORED_IN_S = 600.0  # a slow card takes its time to hash and sync what it was sent


def send(connection: Connection, stage: Stage) -> None:
    """Whatever of the stage the board lacks; complete there afterwards, its hashes checked on both sides."""
    files = {name: entry["sha256"] for part in ("payload", "records") for name, entry in stage.manifest[part].items()}
    files[artifact.MANIFEST] = artifact.file_sha256(stage.file(artifact.MANIFEST))
    lacking = set(connection.ask("missing", files=sorted(set(files.values())))["files"])
    wanted = {sha256: name for name, sha256 in files.items() if sha256 in lacking}
    total = sum(stage.file(name).stat().st_size for name in wanted.values())
    if wanted:
        with Progress(f"copying {stage.path.name} to {connection.host}, bytes", total) as bar:
            for sha256, name in wanted.items():
                _send_file(connection, stage, name, sha256, bar)
    connection.ask("assemble", STORED_IN_S, identity=stage.identity, files=files)


def _send_file(connection: Connection, stage: Stage, name: str, sha256: str, bar: Progress) -> None:
    left = stage.file(name).stat().st_size
    connection.send({"type": "put", "sha256": sha256, "bytes": left})
    with open(stage.file(name), "rb") as file:
        while left > 0:
            part = file.read(min(CHUNK, left))
            if not part:
                raise CompressError(f"{stage.file(name)}: became shorter while it was sent; run the command again")
            connection.send({"type": "chunk"}, part)
            left -= len(part)
            bar.step(len(part))
    checked(connection.receive(STORED_IN_S)[0], "put")
