"""What goes to a board and what comes back from it.

There: stage folders, each file once, by its hash, and the folder by its identity; a user's own preprocessing, the
module's file and the frames beside each other. Back: a board's result, read as what it is, bytes from another machine:
only files that a verified folder has, no larger than this one can be, each of the hash that was announced, and as a
whole what `compress.statement_check` accepts for the very artifact and attack set that were sent.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress import statement_check
from compress.remote.connection import Connection
from edge.board import store
from edge.board.frames import CHUNK, Header, checked_frame
from edge.board.store import HEX
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CheckFailed, CompressError
from edge.core.progress import Progress
from edge.evidence import samples
from edge.runtimes import preprocess
from edge.runtimes.tensorrt.recipe import ENGINE, SIDECAR
from edge.statement.statement import STATEMENT, VERDICTS, Statement
from edge.verify.attack_set import AttackSet
from edge.verify.verify import LATENCY

NEEDED = (artifact.MANIFEST, VERDICTS, STATEMENT, LATENCY)
ENGINE_FILES = (ENGINE, SIDECAR)  # of an engine that only the device could build
KNOWN = (*NEEDED, samples.FILE, *ENGINE_FILES)
SLACK = 64 << 20  # bytes, beside what grows with the number of images
ENGINE_MOST = 4 << 30


def fetch_result(connection: Connection, job: str, exported: Stage, attacks: AttackSet, into: Path) -> Statement:
    """The job's files in the folder `into`, and its statement; what is not as it should be: CompressError."""
    into.mkdir(exist_ok=True)
    most = SLACK + 8 * attacks.clean.nbytes + 4 * attacks.adversarial.nbytes
    listed = _listed(connection, connection.ask("files", job=job)["files"], most)
    for name, (size, sha256) in listed.items():
        place = into / name
        header: Header = connection.ask("get", job=job, name=place.name)
        left = size
        if checked_frame(header, "get", bytes=int)["bytes"] == size:
            with open(place, "wb") as file:
                while left > 0:
                    chunk, part = connection.receive()
                    checked_frame(chunk, "chunk")
                    left -= len(part)
                    if not part or left < 0:
                        break
                    file.write(part)
        if left != 0 or artifact.file_sha256(place) != sha256:
            raise CheckFailed(
                f"{connection.host}: {place.name} came with another size or hash than announced; try again"
            )
    try:
        for name in listed:
            if name.endswith(".npz"):
                with zipfile.ZipFile(io.BytesIO((into / name).read_bytes())) as archive:
                    if sum(entry.file_size for entry in archive.infolist()) > most:
                        raise ValueError("an archive that unpacks to more than it can hold")
        if samples.FILE in listed:
            samples.Samples.read(into / samples.FILE)
        shipped = None if ENGINE in listed else exported.path
        stated, _ = statement_check.check_verified(into, shipped=shipped, attack_set=attacks.stage.path)
        bound = stated.predicate.attack_set
        stated_of = {"artifact": stated.predicate.artifact.identity, "attack set": bound.identity if bound else ""}
        for (what, got), want in zip(stated_of.items(), (exported.identity, attacks.stage.identity), strict=True):
            if got != want:
                raise ValueError(f"its statement is about the {what} {got:.12}, sent was {want:.12}")
        _same_images(into / VERDICTS, attacks)
        with np.load(into / LATENCY, allow_pickle=False) as timed:
            if timed["samples_ns"].ndim != 1 or timed["samples_ns"].dtype != np.int64 or not len(timed["samples_ns"]):
                raise ValueError("its latencies are no list of nanoseconds")
    except (CompressError, ValueError, KeyError, TypeError, MemoryError, EOFError, zipfile.BadZipFile) as fault:
        raise CheckFailed(
            f"{connection.host}: what it sent is not to be trusted ({' '.join(str(fault).split())[:300]}); delete "
            f"~/.cache/robust-compress there and run the command again"
        ) from None
    return stated


def _listed(connection: Connection, entries: Any, most: int) -> dict[str, tuple[int, str]]:
    """Name → size and hash, each plausible."""
    files: dict[str, tuple[int, str]] = {}
    for entry in entries if isinstance(entries, list) else [None]:
        fields = entry if isinstance(entry, dict) else {}
        name, size, sha256 = (fields.get(key) for key in ("name", "bytes", "sha256"))
        if name not in KNOWN or name in files or not isinstance(sha256, str) or not HEX.fullmatch(sha256):
            raise CheckFailed(f"{connection.host}: offers {str(name)[:60]!r}, which no verified folder has")
        if not isinstance(size, int):
            raise CheckFailed(f"{connection.host}: {name} has no size")
        bound = ENGINE_MOST if name in ENGINE_FILES else most
        if not 0 <= size <= bound:
            raise CheckFailed(f"{connection.host}: {name} would be {size:,} bytes, at most {bound:,} are possible")
        files[name] = size, sha256
    if missing := [name for name in NEEDED if name not in files]:
        raise CheckFailed(f"{connection.host}: its result lacks {', '.join(missing)}")
    return files


def _same_images(path: Path, attacks: AttackSet) -> None:
    with np.load(path, allow_pickle=False) as table:
        for name in ("index", "labels"):
            if not np.array_equal(table[name], getattr(attacks, name)):
                raise ValueError(f"its table has other {name} than the attack set")
        free = len(table["attacks"]) - len(attacks.adversarial)
        if table["adversarial"].shape != (free, *attacks.clean.shape) or table["adversarial"].dtype != np.uint8:
            raise ValueError("its table holds images of another form")


# -------------------------------------------------------------------------------------------------------- to the board


STORED_IN_S = 600.0  # a slow card takes its time to hash and sync what it was sent


def send_stage(connection: Connection, stage: Stage) -> None:
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
                checked_frame(connection.receive(STORED_IN_S)[0], "put")


FRAMES = "frames.npy"


def pipeline_files(config: Mapping[str, Any]) -> dict[str, Path]:
    """What `--preprocess` and `--frames` of a verification need there, name → file here."""
    files = {}
    if config.get("preprocess") is not None:
        module = config["preprocess"].partition(":")[0]
        file = preprocess.load(config["preprocess"]).file
        if file is None or file.name != f"{module}.py" or not store.NAME.fullmatch(file.name):
            raise CompressError(
                f"--preprocess {config['preprocess']}: {file or module} is not the file {module}.py, and only a module "
                f"of one file is sent to a board; put the function into one"
            )
        files[file.name] = file
    if config.get("frames") is not None:
        files[FRAMES] = Path(config["frames"])
    return files


def config_there(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the frames where they lie on the board."""
    return {**config, "frames": FRAMES} if config.get("frames") is not None else dict(config)
