"""The stage folder: complete or absent, named by what it was made from. Standard library only.

Work happens in `OUT.partial/`, under a lock on that folder, and is synced and renamed to `OUT/` when done, so a
folder without `.partial` is complete. `manifest.json` inside it holds

    plan       what decides the result: format, stage, config, seed, data, the inputs' identities
    payload    the files that are the result, with their sha256
    identity   sha256 of the canonical JSON of plan and payload hashes
    records    files beside the result (timings, reports), with their sha256; outside the identity
    metrics, made, lineage     measured numbers; times, versions, command, notes on the data; where the inputs lay
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.core import errors, streams
from edge.core.errors import CompressError
from edge.core.progress import say

FORMAT = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"
OWNER = "owner.json"
PACKAGES = "robust-compress torch numpy onnx onnxruntime nvidia-modelopt scikit-learn timm torchvision"

#: The command that a manifest names as the way to make its folder anew; the command line sets it.
COMMAND: ContextVar[str] = ContextVar("command", default="the same Python call")

#: While set, `build` makes a stage anew whatever stands there; the old one stays until the new one is complete.
ANEW: ContextVar[bool] = ContextVar("anew", default=False)


def canonical(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(streams.text_bytes(canonical(value))).hexdigest()


def bytes_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        h = hashlib.sha256()
        while block := handle.read(1 << 20):
            h.update(block)
        return h.hexdigest()


@dataclass(frozen=True)
class Plan:
    """Everything that decides a stage's result, before any work is done."""

    stage: str
    config: Mapping[str, Any]
    seed: int
    data: Mapping[str, Any]
    inputs: Mapping[str, str]  # role → identity of the stage folder that was read
    notes: Sequence[str] = ()  # what was taken of the data and what was left out; decides nothing

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "stage": self.stage,
            "config": json.loads(canonical(self.config)),
            "seed": self.seed,
            "data": json.loads(canonical(self.data)),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True)
class Stage:
    """A complete stage folder whose hashes were found right."""

    path: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.manifest["plan"]["stage"])

    @property
    def identity(self) -> str:
        return str(self.manifest["identity"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest["plan"]["config"])

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.manifest["metrics"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.manifest["plan"]["data"])

    def file(self, name: str) -> Path:
        return self.path / name

    def input_path(self, role: str) -> Path:
        """Where the input of that role lay when this stage was made."""
        return (self.path / self.manifest["lineage"][role]).resolve()


def read(folder: "Path | str", kinds: Sequence[str] = ()) -> Stage:
    """The stage in `folder`, its format, kind and every file's hash checked."""
    path = Path(folder)
    if path.name.endswith(".partial"):
        raise CompressError(f"{path}: this stage is unfinished; run the command that makes it again, it resumes")
    if not (path / MANIFEST).is_file():
        partial = path.with_name(path.name + ".partial")
        if partial.is_dir():
            raise CompressError(f"{path}: only {partial.name} is there, the stage is unfinished; run its command again")
        raise CompressError(f"{path}: no {MANIFEST} there, so not a stage folder; give one that `compress` made")
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        written = manifest["plan"]["format"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise CompressError(f"{file}: not readable as a manifest; delete its folder and make the stage again") from None
    if written != FORMAT:
        raise CompressError(f"{file}: format {written}, this version reads {FORMAT}; use the version that wrote it")
    stage = Stage(path, manifest)
    remake = f"delete the folder and run: {manifest['made']['command']}"
    for name, entry in {**manifest["payload"], **manifest["records"]}.items():
        if not (path / name).is_file():
            raise CompressError(f"{path}: {name} is missing, the manifest lists it; {remake}")
        got = file_sha256(path / name)
        if got != entry["sha256"]:
            raise CompressError(
                f"{path}: {name} has sha256 {got:.12}, the manifest says {entry['sha256']:.12}; {remake}"
            )
    if manifest["identity"] != _identity(manifest["plan"], manifest["payload"]):
        raise CompressError(f"{path}: {MANIFEST} does not match its own identity; {remake}")
    if kinds and stage.kind not in kinds:
        raise CompressError(f"{path}: is a stage of kind {stage.kind}; needed here: {' or '.join(kinds)}")
    return stage


def _identity(plan: Mapping[str, Any], payload: Mapping[str, Mapping[str, Any]]) -> str:
    return digest({"plan": plan, "payload": {name: entry["sha256"] for name, entry in payload.items()}})


@dataclass(frozen=True)
class Status:
    """What stands at a stage's place: `complete`, `stale`, `partial` or `absent`; `why` says what changed."""

    state: str
    why: str = ""
    stage: "Stage | None" = None


def status(out: "Path | str", plan: Plan) -> Status:
    """How the folder `out` stands to `plan`. A damaged folder raises, as `read` does."""
    path = Path(out)
    if path.exists():
        stage = read(path)
        why = difference(stage.manifest["plan"], plan.as_dict())
        return Status("stale", why, stage) if why else Status("complete", stage=stage)
    partial = _partial(path)
    if partial.exists():
        why = difference(_read_plan(partial), plan.as_dict())
        return Status("stale", why) if why else Status("partial")
    return Status("absent")


def difference(old: Any, new: Any, at: str = "") -> str:
    """The first few places where two plans differ, for a person: `config.method: 'rslad' → 'vgap'`."""
    changes = list(_differences(old, new, at))
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")


def _differences(old: Any, new: Any, at: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
    elif old != new:
        yield f"{at}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return text if len(text) <= 40 else text[:37] + "…"


@dataclass
class Work:
    """The open `.partial` folder of a stage in the making."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    payload: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)

    def file(self, name: str) -> Path:
        return self.path / name

    def add_payload(self, name: str) -> Path:
        """A file that is part of the result, to be written by the caller."""
        self.payload.append(name)
        return self.path / name

    def add_record(self, name: str) -> Path:
        """A file kept beside the result, outside the identity."""
        self.records.append(name)
        return self.path / name


def build(
    out: "Path | str",
    plan: Plan,
    make: Callable[[Work], None],
    *,
    lineage: "Mapping[str, Path] | None" = None,
    keep: Sequence[str] = (),
    replace: bool = False,
) -> Stage:
    """Make the stage at `out`, or return it when it is complete already.

    `make` fills `OUT.partial/` and names what it wrote through `Work`. Of an earlier, killed attempt at the same plan
    the files named in `keep` are still there for it. A folder of another plan is refused, or with `replace` kept until
    the new one is complete. `lineage` says where each input lay.
    """
    path = Path(out)
    if path.exists() and not (path / MANIFEST).exists() and not path.is_dir():
        raise CompressError(f"{path}: is a file; choose another --out")
    if path.is_dir() and not (path / MANIFEST).exists() and any(path.iterdir()):
        raise CompressError(f"{path}: holds files that are no stage; choose another --out or empty it")
    started = time.time()
    with _locked(path, plan, keep, replace) as partial:
        if isinstance(partial, Stage):
            return partial
        work = Work(partial)
        make(work)
        _finish(path, plan, work, lineage or {}, started)
    return read(path)


@contextlib.contextmanager
def _locked(path: Path, plan: Plan, keep: Sequence[str], replace: bool) -> "Iterator[Path | Stage]":
    """The partial folder, locked and cleared for `plan`; or the complete stage when there is nothing to do."""
    partial = _partial(path)
    while True:
        if (path / MANIFEST).exists() and not ANEW.get():
            standing = status(path, plan)
            if standing.state == "complete" and standing.stage is not None:
                yield standing.stage
                return
            if not replace:
                raise CompressError(
                    f"{path}: holds a stage made otherwise ({standing.why}); choose another --out or delete it"
                )
        try:
            partial.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as fault:
            raise CompressError(f"{partial}: cannot be created ({fault.strerror}); choose another --out") from None
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CompressError(f"{path}: {_owner(partial)} is working on it; wait for it or stop it") from None
            if not _same_folder(handle, partial):  # its owner finished between our open and our lock
                continue
            # Leave of an earlier attempt only what `keep` names, and only when its plan was the same
            old = _read_plan(partial)
            same = old == plan.as_dict()
            changes = [] if old is None else list(_differences(old, plan.as_dict(), ""))
            if changes and all(change.startswith("config.code.") for change in changes):
                say(f"{partial}: begun anew, for what was done there was by other code of yours")
            elif changes and not replace:
                raise CompressError(
                    f"{partial}: an unfinished stage of another kind ({difference(old, plan.as_dict())}); "
                    f"choose another --out or delete it"
                )
            try:
                for entry in partial.iterdir():
                    if same and entry.name in keep:
                        continue
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                write_atomic(partial / PLAN, json.dumps(plan.as_dict(), indent=2, ensure_ascii=False))
                write_atomic(partial / OWNER, json.dumps({"pid": os.getpid(), "host": platform.node()}))
                yield partial
            except Exception as fault:
                told = fault if isinstance(fault, CompressError) else _machine_fault(fault, path, partial)
                if not any((partial / name).exists() for name in keep):  # nothing that the next try goes on from
                    shutil.rmtree(partial, ignore_errors=True)
                if told is None or told is fault:
                    raise
                raise told from fault
            return
        finally:
            os.close(handle)


def _machine_fault(fault: Exception, path: Path, partial: Path) -> "CompressError | None":
    """What went wrong with the machine while the stage at `path` was made; files inside it go by its name."""
    if Path(os.fsdecode(getattr(fault, "filename", None) or "")).is_relative_to(partial):
        fault.filename = None  # type: ignore[attr-defined]
    if isinstance(fault, FileNotFoundError) and not partial.exists():
        return errors.MachineFault(f"{partial}: was deleted while the stage was made; repeat the command")
    return errors.machine_fault(fault, path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _same_folder(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(partial: Path) -> str:
    try:
        owner = json.loads((partial / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _read_plan(partial: Path) -> "dict[str, Any] | None":
    try:
        return dict(json.loads((partial / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # killed before its plan was written: nothing to resume


def _finish(path: Path, plan: Plan, work: Work, lineage: Mapping[str, Path], started: float) -> None:
    partial = work.path
    payload = {name: _entry(partial / name) for name in sorted(work.payload)}
    records = {name: _entry(partial / name) for name in sorted(work.records)}
    manifest = {
        "identity": _identity(plan.as_dict(), payload),
        "plan": plan.as_dict(),
        "payload": payload,
        "records": records,
        "metrics": work.metrics,
        "lineage": {role: os.path.relpath(where.resolve(), path.resolve()) for role, where in lineage.items()},
        "made": {
            "command": COMMAND.get(),
            "data": list(plan.notes),
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.time() - started, 1),
            "host": platform.node(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "versions": versions(),
        },
    }
    write_atomic(partial / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for name in (*payload, *records):
        _sync(partial / name)
    # Only now, when a full disk can no longer stop it, what an interrupted attempt would go on from
    for entry in partial.iterdir():
        if entry.name != MANIFEST and entry.name not in payload and entry.name not in records:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    _sync(partial)
    # Put the finished folder in place; an older one gives way only now
    old = path.with_name(path.name + ".old")
    if path.exists():
        if old.exists():
            shutil.rmtree(old)
        path.rename(old)
    partial.rename(path)
    _sync(path.parent)
    if old.exists():
        shutil.rmtree(old)


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: "str | bytes") -> None:
    """The whole new content or the old file, whatever happens in between."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as handle:
            handle.write(streams.text_bytes(content) if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    except OSError as fault:
        with contextlib.suppress(OSError):
            beside.unlink()
        fault.filename = str(path)  # a write into an open file fails without its name
        raise


def versions() -> dict[str, str]:
    """The installed versions of the packages that a result can depend on."""
    installed = {}
    for name in PACKAGES.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
