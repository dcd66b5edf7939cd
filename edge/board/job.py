"""A job: work on the board in a process of its own session, which goes on when the link is lost.

Its folder is named by what is asked and by which program, so that the same question finds the job that answers it:

    request.json   what is asked            state.json    how it ended
    events.jsonl   its progress             verified/     the result, complete or absent
    log.txt        its stderr               lock          held as long as its process lives
    own/           where it works: the user's own preprocessing, if there is any
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edge
from edge.board import store
from edge.core import artifact, errors, progress, targets
from edge.core.errors import CompressError

REQUEST, STATE, EVENTS, LOG = "request.json", "state.json", "events.jsonl", "log.txt"
LOCK, RESULT, OWN = "lock", "verified", "own"
RUNNING, DONE, FAILED, ABSENT = "running", "done", "failed", "absent"
GRACE_S = 5.0  # between the wish that a job ends and its end
LOG_MOST = 2000  # characters of a log that are told

#: {"config", "files", "exported", "attack-set", "bundle"}: own files as name → sha256, identities, the program's hash.
Request = dict[str, Any]


def job_key(request: Request) -> str:
    return artifact.digest(request)


def job_status(name: str) -> dict[str, Any]:
    """{"state", "exit_code", "message"}; one whose process died without a word is absent."""
    folder = store.job(name)
    if _alive(folder):
        return {"state": RUNNING, "exit_code": None, "message": ""}
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    return {"state": ABSENT, "exit_code": None, "message": ""}


def start_job(request: Request) -> dict[str, Any]:
    """The job that answers `request`, started unless it runs or is done: {"job", "state"}."""
    name = job_key(request)
    state = job_status(name)["state"]
    if state in (RUNNING, DONE):
        return {"job": name, "state": state}
    folder = store.job(name)
    check_runtime(artifact.read(store.stage(request["exported"]), ("exported",)).config["target"])
    artifact.read(store.stage(request["attack-set"]), ("attack-set",))
    with store.Busy("verify", alone=True) as busy:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        artifact.write_atomic(folder / REQUEST, json.dumps(request))
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(folder / LOG, "wb") as log:
            process = subprocess.Popen(
                own_command("job", name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock, busy.handle),  # it holds both locks as long as it lives
            )
        threading.Thread(target=process.wait, daemon=True).start()  # so that it is no zombie when it ends
        os.pwrite(lock, str(process.pid).encode(), 0)
        busy.tell(process.pid, "verify")
        os.close(lock)
    return {"job": name, "state": RUNNING}


def carry_out_job(name: str) -> int:
    """The job's own process: its work, its progress into a file, its end into another. Returns the exit code."""
    folder = store.job(name)
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    with open(folder / EVENTS, "a", buffering=1, encoding="utf-8") as events:
        progress.listener = lambda event: print(json.dumps(event), file=events)
        end: dict[str, Any]
        try:
            from edge.verify import verify

            store.gather(request["files"], folder / OWN)
            os.chdir(folder / OWN)  # where modules and frames are looked for
            inputs = verify.VerifyInputs(store.stage(request["exported"]), store.stage(request["attack-set"]))
            verify.run(request["config"], inputs, folder / RESULT, replace=True)
            end = {"state": DONE, "exit_code": 0, "message": ""}
        except CompressError as fault:
            end = {"state": FAILED, "exit_code": fault.exit_code, "message": str(fault)}
        except Exception as fault:
            if told := errors.machine_fault(fault, folder):
                end = {"state": FAILED, "exit_code": told.exit_code, "message": f"on the board, {told}"}
            else:
                end = {"state": FAILED, "exit_code": 1, "message": traceback.format_exc()}
    artifact.write_atomic(folder / STATE, json.dumps(end))
    return int(end["exit_code"])


def job_events(name: str, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines of progress from byte `offset` on, each with the offset after it."""
    with contextlib.suppress(FileNotFoundError), open(store.job(name) / EVENTS, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, json.loads(line)


def last_words(name: str) -> str:
    """The end of the log of a job that died, in one line."""
    try:
        text = (store.job(name) / LOG).read_text(errors="replace")
    except OSError:
        return ""
    return " ".join(text[-LOG_MOST:].split())


def stop_job(name: str) -> bool:
    """End the job's process and those that it started; whether there was one."""
    folder = store.job(name)
    if not _alive(folder):
        return False
    group = int((folder / LOCK).read_text(encoding="utf-8"))
    for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not _alive(folder):
                return True
            time.sleep(0.05)
    return True


def forget_job(name: str) -> None:
    """Delete a job that was fetched, so that the same question is measured anew: the board may be in another state."""
    if not _alive(store.job(name)):
        shutil.rmtree(store.job(name), ignore_errors=True)


def job_files(name: str) -> list[dict[str, Any]]:
    """Of a job that is done: {"name", "bytes", "sha256"} of the manifest and of what it lists."""
    folder = store.job(name) / RESULT
    manifest = artifact.read(folder, ("verified",)).manifest
    names = [artifact.MANIFEST, *manifest["payload"], *manifest["records"]]
    return [
        {"name": file, "bytes": (folder / file).stat().st_size, "sha256": artifact.file_sha256(folder / file)}
        for file in names
    ]


def _alive(folder: Path) -> bool:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------------- what a job needs


def check_runtime(target: str) -> None:
    """CompressError where what executes that target's artifacts is missing, with the command that installs it."""
    doctor = targets.doctor_of(targets.get(target))
    if find_spec(doctor.module) is None:
        raise CompressError(
            f"Python {platform.python_version()} on {platform.node()} has no {doctor.module}, which executes {target} "
            f"artifacts; there: {doctor.remedy()}"
        )


def own_command(*args: str) -> list[str]:
    """The command line of another process of this program with these arguments."""
    home = Path(edge.__file__).parent.parent
    return [sys.executable, *([str(home)] if home.is_file() else ["-m", "edge"]), *args]
