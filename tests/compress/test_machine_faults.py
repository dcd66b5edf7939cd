"""Faults of the machine are one line and exit 2, leave nothing half-written, and the same command goes on afterwards.

Every fault is a real one: /dev/full, limits of the process, files where folders are needed, allocations that cannot be.
"""

import contextlib
import errno
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.cli.execute import execute
from edge.core import artifact, errors
from edge.core.artifact import Plan, Work
from edge.core.errors import CheckFailed, CompressError, MachineFault

PLAN = Plan("teacher", {"model": "m"}, 0, {"name": "digits"}, {})


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def savez(work: Work) -> None:
    with open("/dev/full", "wb") as file:
        np.savez(file, images=np.zeros(100_000))


def weights(work: Work) -> None:
    work.add_payload("w.bin").write_bytes(bytes(100_000))


def atomic(work: Work) -> None:
    work.file("w.bin.tmp").symlink_to("/dev/full")
    artifact.write_atomic(work.file("w.bin"), bytes(100_000))


def allocation(work: Work) -> None:
    torch.empty(1 << 50)


def array(work: Work) -> None:
    np.empty(1 << 50)


FULL = "no space left on the disk; free some and repeat the command"
MAKERS: dict[str, tuple[Callable[[Work], None], str]] = {
    "an open file, closed by an archive that fails again": (savez, FULL),
    "a file written as a whole": (atomic, FULL),
    "torch": (allocation, "not enough memory"),
    "numpy": (array, "not enough memory (Unable to allocate"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_stage_that_the_machine_stops_is_named_and_leaves_nothing(maker: str, tmp_path: Path) -> None:
    make, said = MAKERS[maker]
    with pytest.raises(MachineFault) as fault:
        artifact.build(tmp_path / "s", PLAN, make)
    assert str(fault.value).startswith(f"{tmp_path / 's'}: {said}") and "\n" not in str(fault.value)
    assert list(tmp_path.iterdir()) == []


def test_limits_stop_a_stage_and_the_same_call_then_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = artifact.build(tmp_path / "whole", PLAN, weights)
    with limited(resource.RLIMIT_FSIZE, 50_000), pytest.raises(MachineFault, match=r"s: larger than `ulimit -f`"):
        artifact.build(tmp_path / "s", PLAN, weights)
    with limited(resource.RLIMIT_NOFILE, 0), pytest.raises((MachineFault, OSError)) as fault:
        artifact.build(tmp_path / "s", PLAN, weights)
    assert "too many open files" in str(errors.machine_fault(fault.value) or fault.value)
    assert not (tmp_path / "s").exists()
    assert artifact.build(tmp_path / "s", PLAN, weights).identity == whole.identity


def test_what_an_interrupted_training_goes_on_from_survives_a_full_disk(tmp_path: Path) -> None:
    def trained(work: Work, fail: bool) -> None:
        checkpoint = work.file("checkpoint")
        done = checkpoint.read_text() if checkpoint.exists() else ""
        artifact.write_atomic(checkpoint, done + "epoch ")
        if fail:
            atomic(work)
        work.add_payload("w.bin").write_text(done)

    with pytest.raises(MachineFault):
        artifact.build(tmp_path / "s", PLAN, lambda work: trained(work, True), keep=("checkpoint",))
    stage = artifact.build(tmp_path / "s", PLAN, lambda work: trained(work, False), keep=("checkpoint",))
    assert stage.file("w.bin").read_text() == "epoch " and not stage.file("checkpoint").exists()


def test_a_folder_deleted_under_its_stage_is_no_bug(tmp_path: Path) -> None:
    def make(work: Work) -> None:
        work.path.joinpath("plan.json").unlink()
        work.path.joinpath("owner.json").unlink()
        work.path.rmdir()
        work.add_payload("w.bin").write_bytes(b"")

    with pytest.raises(MachineFault, match=r"s\.partial: was deleted while the stage was made"):
        artifact.build(tmp_path / "s", PLAN, make)


@pytest.mark.parametrize("number", sorted(errors.SYSTEM))
def test_every_error_number_is_where_what_and_a_way_out(number: int) -> None:
    line = str(errors.machine_fault(OSError(number, os.strerror(number), "/work/out")))
    assert line.startswith("/work/out: ") and "; " in line and line == " ".join(line.split())


def test_bugs_stay_bugs_and_what_others_misread_is_the_machines() -> None:
    assert "not enough memory (could not create a primitive)" in str(
        errors.machine_fault(RuntimeError("could not create a primitive"))  # as oneDNN says it
    )
    for bug in (KeyError("disk"), OSError(errno.EINVAL, "Invalid argument"), FileNotFoundError(2, "No", __file__)):
        assert errors.machine_fault(bug) is None
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files", "networkx/x.py")
        except OSError as fault:
            raise CompressError(f"ONNX cannot express it ({fault})") from None
    except CompressError as fault:
        assert str(errors.told_fault(fault)).startswith("networkx/x.py: too many open files")
    for plain in (CompressError("no such file"), CheckFailed("gate"), MachineFault("full")):
        assert errors.told_fault(plain) is plain


LINES = [
    ("init file/c.yaml", "file/c.yaml: a part of the path is a file, not a folder; choose another path"),
    ("init nowhere/c.yaml", "nowhere/c.yaml: there is no folder to put it into; make it first"),
    ("init full.yaml", f"full.yaml: {FULL}"),
    ("init c.yaml --schema full.yaml", f"full.yaml: {FULL}"),
    ("bundle file/edge.pyz", "file/edge.pyz: cannot be written"),
    (f"inspect {'x' * 300}", "a name that is too long for the file system; choose a shorter one"),
]


@pytest.mark.parametrize(("line", "said"), LINES)
def test_what_cannot_be_written_is_one_line(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("full.yaml.tmp").symlink_to("/dev/full")
    assert execute(shlex.split(line)) == 2
    err = capsys.readouterr().err
    assert err.startswith("compress: ") and said in err and err.count("\n") == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"c.yaml"} <= {"file", "full.yaml.tmp"} and ("full" not in line or "full.yaml.tmp" not in left)


def test_half_a_pair_of_keys_is_removed(tmp_path: Path) -> None:
    from compress import signing

    (tmp_path / "key.pub.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        signing.keygen(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
    assert signing.keygen(tmp_path / "key").exists()


def test_a_cache_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from compress.data import load_dataset

    digits = load_dataset("digits")
    np.savez(tmp_path / "d.npz", images=digits.images, labels=digits.labels)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        load_dataset(f"npz:{tmp_path / 'd.npz'}")
    assert capsys.readouterr().err.count("cannot be written (Not a directory), so npz is decoded each time") == 1


def test_without_a_home_directory_the_cache_asks_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.data import cache

    for name in ("ROBUST_COMPRESS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_123)  # a container's user that has no entry
    with pytest.raises(RuntimeError) as fault:
        cache.cache_home()
    assert "set HOME, or ROBUST_COMPRESS_CACHE" in str(errors.machine_fault(fault.value))


# ---------------------------------------------------------------------------------------------- stdin, stdout, stderr


def shell(line: str, **env: str) -> "tuple[int, str, str]":
    """A command line of the shell, `COMPRESS` being ours: exit code, stdout, stderr."""
    line = line.replace("COMPRESS", f"{shlex.quote(sys.executable)} -m compress")
    line = line.replace("BOARD", f"{shlex.quote(sys.executable)} -m edge")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={**os.environ, **env})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", ["COMPRESS", "BOARD"])
def test_a_closed_or_full_stdout_is_one_line(program: str) -> None:
    closed = "compress: stdout: is closed; redirect it to a file, or to /dev/null, and repeat the command\n"
    assert shell(f"{program} --version >&-") == (2, "", closed)
    assert shell(f"{program} --version >/dev/full") == (2, "", f"compress: stdout: {FULL}\n")


def test_a_fault_of_the_user_stays_one_when_stdout_is_full_too() -> None:
    code, _, err = shell("COMPRESS inspect nowhere --json >/dev/full")
    assert (code, err.count("\n")) == (2, 1) and err.startswith("compress: nowhere: no manifest.json")


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "<&-"])
def test_nothing_depends_on_a_stderr_or_a_stdin(where: str) -> None:
    assert shell(f"COMPRESS --version {where}")[0] == 0
    code, out, _ = shell(f"COMPRESS inspect nowhere --json {where}")
    assert code == 2 and json.loads(out)["exit_code"] == 2


def test_a_working_directory_that_was_deleted_is_told(tmp_path: Path) -> None:
    gone = shlex.quote(str(tmp_path / "gone"))
    code, _, err = shell(f"mkdir {gone}; cd {gone}; rmdir {gone}; PYTHONPATH={os.getcwd()} COMPRESS inspect x")
    assert code == 2 and err.splitlines()[-1] == (
        "compress: the working directory was deleted; change to one that is there"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_progress_lines_that_nobody_can_read_stop_no_loop(where: str, unbuffered: str) -> None:
    """With the streams that every command has; Python's own keeps what it could not write and ends with 120 for it."""
    loop = "say('x')\nwith Progress('p', 2) as bar: bar.step()\nprint(1)"
    program = f"from edge.core import streams\nfrom edge.core.progress import Progress, say\nstreams.prepare()\n{loop}"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {where}"
    assert shell(command, PYTHONUNBUFFERED=unbuffered)[:2] == (0, "1\n")


def test_an_encoding_without_the_characters_gives_escapes_that_json_reads() -> None:
    name = "modèle-→-🙂"
    code, out, _ = shell(f"COMPRESS inspect {shlex.quote(name)} --json", PYTHONIOENCODING="ascii")
    assert code == 2 and json.loads(out)["error"].startswith(f"{name}: no manifest.json")


def test_an_interrupt_ends_a_process_whose_stderr_is_full() -> None:
    watch = "from edge.core import interrupt; interrupt.watch([signal.SIGTERM])"
    program = f"import signal, time; {watch}; print(flush=True); time.sleep(30)"
    command = [sys.executable, "-c", program]
    with open("/dev/full", "wb") as full, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(10) == 130 and time.monotonic() - began < 5
