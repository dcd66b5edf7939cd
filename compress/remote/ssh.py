"""A process of the system's own OpenSSH, and what its failures mean.

The user's configuration, agent, jump hosts and known hosts are used as they are; nothing is switched off. $COMPRESS_SSH
names another command, with options, as GIT_SSH_COMMAND does: COMPRESS_SSH="ssh -F FILE". It is split as a shell
splits words, and no shell runs it.
"""

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from typing import IO

from edge.core.errors import CompressError

SETTING = "COMPRESS_SSH"
OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
#: The one command that is ever run by the board's shell: a Python that reads its program, then its data, from stdin.
REMOTE = "exec python3 -c 'import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))'"
NAME = r"[A-Za-z0-9._][A-Za-z0-9._-]*"
HOST = re.compile(rf"(?:{NAME}@)?(?:{NAME}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
NO_COMMAND, NO_CONNECTION = 127, 255
TOLD = 300  # characters of what ssh said

#: What ssh says, and the fix; the first that is found.
FAULTS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known: find out why; if it was set up anew: ssh-keygen -R {name}",
    ),
    ("Host key verification failed", "its host key is not known here: log in once by hand and compare it: ssh {host}"),
    ("Permission denied", "it refuses the key that is offered: ssh-copy-id {host}, or load your key into ssh-agent"),
    ("Could not resolve hostname", "no host of that name: give user@address, or add it to ~/.ssh/config"),
    ("Connection refused", "nothing answers ssh there: is sshd running, and is it that port?"),
    ("timed out", "it does not answer: is it switched on and in this network?"),
    ("No route to host", "it cannot be reached: is it switched on and in this network?"),
    ("Network is unreachable", "it cannot be reached: is this machine in its network?"),
    (
        "Too many authentication failures",
        "too many keys are offered: set IdentitiesOnly and IdentityFile in ~/.ssh/config",
    ),
)


class Unreachable(CompressError):
    """No connection came about. `lasting` faults are not healed by another try."""

    def __init__(self, message: str, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


def check_host(host: str) -> str:
    """`host` itself when it is [USER@]NAME[:PORT]; ssh would read one that begins with a dash as an option."""
    if not HOST.fullmatch(host):
        raise CompressError(f"--host {host!r}: no host; write it as user@orin, orin, or user@orin:2222")
    return host


class SshProcess:
    """`ssh HOST`, running the constant command; its stdin and stdout are the connection."""

    def __init__(self, host: str) -> None:
        self.host = check_host(host)
        command = shlex.split(os.environ.get(SETTING) or "ssh")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        try:
            self._process = subprocess.Popen(
                [*command, *OPTIONS, *_destination(host), REMOTE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # a Ctrl-C at the terminal is answered by us, over this connection
            )
        except OSError as fault:
            self._said.close()
            raise CompressError(
                f"{command[0]}: cannot be started ({fault.strerror}); install OpenSSH's client (apt install "
                f"openssh-client), or set {SETTING}"
            ) from None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> "IO[bytes]":
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> "IO[bytes]":
        assert self._process.stdout is not None
        return self._process.stdout

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Close the connection; the process is gone afterwards."""
        self.kill()
        self._process.wait()
        self.stdout.close()
        with contextlib.suppress(OSError):  # what was still to be sent
            self.stdin.close()
        self._said.close()

    def fault(self) -> CompressError:
        """Why the connection ended, once it has."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._said.seek(0)
        words = self._said.read().decode(errors="replace")
        if code == NO_COMMAND:
            return Unreachable(
                f"{self.host}: no python3 there; there: sudo apt install python3 python3-numpy", lasting=True
            )
        for sign, fix in FAULTS:
            if code == NO_CONNECTION and sign in words:
                name = self.host.rpartition("@")[2]
                lasting = sign not in ("timed out", "No route to host", "Network is unreachable", "Connection refused")
                return Unreachable(f"{self.host}: {fix.format(host=self.host, name=name)}", lasting)
        own = [line.removeprefix("compress: ") for line in words.splitlines() if line.startswith("compress: ")]
        if own and code != NO_CONNECTION:  # the bundle's own program refused
            return Unreachable(f"{self.host}: {own[-1]}", lasting=True)
        last = " ".join(words.split())[-TOLD:] or "no message"
        return Unreachable(
            f"{self.host}: ssh ended with code {code} ({last}); does `ssh {self.host} python3 --version` work?",
            lasting=code is not None and 0 <= code != NO_CONNECTION,
        )


def _destination(host: str) -> list[str]:
    """Port and [USER@]NAME as ssh takes them, an address without its brackets; behind `--` nothing is an option."""
    match = re.fullmatch(r"(.*?@)?(\[.*\]|[^:]*)(?::([0-9]+))?", host)
    assert match is not None  # check_host has let it pass
    user, name, port = match.groups(default="")
    return [*(["-p", port] if port else []), "--", user + name.strip("[]")]
