"""Boards on the command line: what is refused before anything is connected to."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.cli import boards
from compress.cli.execute import execute
from compress.remote import ssh
from edge.core.errors import CompressError
from tests.edge.stages import World


@pytest.fixture(autouse=True)
def no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may start a connection."""
    monkeypatch.setenv(ssh.SETTING, "/nonexistent/ssh")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.deployed(tmp_path_factory.mktemp("world"))


def verify(world: World, *more: str) -> int:
    given = [str(world.root / "exported"), "--attack-set", str(world.root / "attack-set"), "--eps", "8/255", *more]
    return execute(["verify", *given])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--device", "jetson"), "this machine is no Jetson"),
        (("--host", "orin", "--host", "orin"), "given twice"),
        (("--host", "-oProxyCommand=x"), "no host"),
        (("--host", "orin nano"), "no host"),
        (("--host", "orin"), "/nonexistent/ssh: cannot be started"),
    ],
)
def test_what_cannot_be_reached_is_one_line_and_leaves_nothing(
    world: World, capsys: pytest.CaptureFixture[str], more: "tuple[str, ...]", said: str
) -> None:
    before = sorted(world.root.iterdir())
    assert verify(world, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert sorted(world.root.iterdir()) == before


def test_a_run_that_names_a_jetson_is_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("data: digits\ndevices: [jetson]\n")
    assert execute(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "this machine is no Jetson" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_attack_on_a_board_needs_an_artifact(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["attack", str(tmp_path), "--host", "orin", "--out", str(tmp_path / "a")]) == 2
    assert "add --exported DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "name"),
    [("orin", "orin"), ("me@orin", "orin"), ("me@10.0.0.7:2222", "10.0.0.7-2222"), ("[fe80::1]", "fe80--1")],
)
def test_a_host_has_a_short_name_for_folders(host: str, name: str) -> None:
    assert boards.short(ssh.check_host(host)) == name


@pytest.mark.parametrize("host", ["", "-v", "a b", "a;b", "$(x)", "a\nb", "@a", "a@", "a/b", "a:port", "a@b@c", "`x`"])
def test_what_a_shell_or_ssh_could_misread_is_no_host(host: str) -> None:
    with pytest.raises(CompressError, match="no host"):
        ssh.check_host(host)


@pytest.mark.parametrize(
    ("code", "said", "fix", "lasting"),
    [
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "ssh-keygen -R orin", True),
        (255, "Host key verification failed.", "log in once by hand", True),
        (255, "me@orin: Permission denied (publickey).", "ssh-copy-id me@orin", True),
        (255, "ssh: connect to host orin port 22: Connection timed out", "switched on", False),
        (255, "kex_exchange_identification: read: reset", "does `ssh me@orin python3 --version` work?", False),
        (127, "sh: python3: not found", "apt install python3", True),
        (2, "Welcome\ncompress: Python 3.8.10 on orin is too old", "Python 3.8.10 on orin is too old", True),
        (-9, "", "does `ssh me@orin python3 --version` work?", False),
    ],
)
def test_what_ssh_says_becomes_a_fix(code: int, said: str, fix: str, lasting: bool, tmp_path: Path) -> None:
    ended = object.__new__(ssh.SshProcess)
    ended.host = "me@orin"
    ended._process = SimpleNamespace(wait=lambda timeout: code)  # type: ignore[assignment]
    with open(tmp_path / "said", "wb+") as file:
        file.write(said.encode())
        ended._said = file
        fault = ended.fault()
    assert isinstance(fault, ssh.Unreachable)
    assert fix in str(fault) and fault.lasting is lasting and "\n" not in str(fault)


@pytest.mark.parametrize(
    ("host", "user", "name", "port"),
    [
        ("me@orin", "me", "orin", "22"),
        ("me@orin:2222", "me", "orin", "2222"),
        ("me@[fe80::1]", "me", "fe80::1", "22"),
        ("me@[::1]:23", "me", "::1", "23"),
    ],
)
def test_ssh_reads_user_address_and_port_as_they_were_meant(host: str, user: str, name: str, port: str) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed: apt install openssh-client")
    command = ["ssh", "-F", "/dev/null", "-G", *ssh._destination(ssh.check_host(host))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (read["user"], read["hostname"], read["port"]) == (user, name, port)
