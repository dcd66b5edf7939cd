"""A board on this machine: a real sshd on a loopback port with its own keys, home and Python, and the real ssh."""

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

SEARCHED = "/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")
WANTED = ("numpy", "onnxruntime", "flatbuffers", "protobuf", "packaging")


def need(name: str) -> str:
    """The program of that name; in CI its absence fails, elsewhere it skips."""
    found = shutil.which(name, path=SEARCHED)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing here; apt install openssh-server")
    if found is None:
        pytest.skip(f"{name} is not installed: apt install openssh-server")
    return found


def bare_python(folder: Path, wanted: "tuple[str, ...]" = WANTED) -> Path:
    """A Python environment that holds these packages of this one and no other, above all no torch."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in wanted:
        with contextlib.suppress(metadata.PackageNotFoundError):
            files = metadata.files(name) or []
            for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
                source = Path(str(metadata.distribution(name).locate_file(top)))
                if source.exists() and not (site / top).exists():
                    (site / top).symlink_to(source)
    return folder / "bin" / "python"


class Board:
    """`ssh board` reaches it while $COMPRESS_SSH is `self.ssh`."""

    def __init__(self, folder: Path, python: "Path | None") -> None:
        self.folder, self.home = folder, folder / "home"
        self.python3 = folder / "bin" / "python3"
        for made in (self.home, self.python3.parent):
            made.mkdir(parents=True)
        for tool in ("sh", "bash", "env", "kill", "sleep"):
            (self.python3.parent / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        if python is not None:
            self.run_python_by(f'exec {shlex.quote(str(python))} "$@"')
        for key in ("host", "user"):
            self._keygen(key)
        self.authorized = folder / "authorized"
        shutil.copy(folder / "user.pub", self.authorized)
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.known = folder / "known"
        self.know(folder / "host.pub")
        self._configure()
        self.ssh = f"ssh -F {folder / 'config'}"
        self._sshd: subprocess.Popen[bytes] | None = None

    def run_python_by(self, line: str) -> None:
        """What `python3` is there: a shell script of this line."""
        self.python3.write_text(f"#!/bin/sh\n{line}\n")
        self.python3.chmod(0o755)

    def know(self, public: Path) -> None:
        """The host key that this machine expects there."""
        self.known.write_text(f"[127.0.0.1]:{self.port} {public.read_text()}")

    def _keygen(self, name: str) -> None:
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
        subprocess.run(make, check=True)

    def new_host_key(self) -> Path:
        """The public half of a key that the board does not have."""
        self._keygen("other")
        return self.folder / "other.pub"

    def _configure(self) -> None:
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.authorized}\nPasswordAuthentication no\nPidFile none\n"
            f"SetEnv PATH={self.python3.parent} HOME={self.home}\n"
        )
        (self.folder / "config").write_text(
            f"Host board*\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.folder / 'user'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known}\n  GlobalKnownHostsFile /dev/null\n  UpdateHostKeys no\n"
            f"Host off\n  HostName 127.0.0.1\n  Port 1\n"
        )

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, for privilege separation
        command = [need("sshd"), "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self._sshd = subprocess.Popen(command)
        for _ in range(100):
            with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(("127.0.0.1", self.port))):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait()

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "robust-compress" / "board"


@contextlib.contextmanager
def running(folder: Path, python: "Path | None") -> Iterator[Board]:
    board = Board(folder, python)
    board.start()
    try:
        yield board
    finally:
        board.stop()


def compress(board: Board, *args: object, **more: str) -> "subprocess.Popen[str]":
    """`compress ARGS` in a process of its own, which reaches that board."""
    env = {**os.environ, "COMPRESS_SSH": board.ssh, **more}
    command = [sys.executable, "-m", "compress", *map(str, args)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int, name: str) -> list[int]:
    """Processes of that name whose parent it is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = stat.read_text().rpartition(")")
            if head.partition("(")[2] == name and int(rest.split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def kill_ssh(process: "subprocess.Popen[str]") -> None:
    """The link of a running command is lost."""
    for pid in children(process.pid, "ssh"):
        os.kill(pid, signal.SIGKILL)
