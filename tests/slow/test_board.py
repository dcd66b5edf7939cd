"""A board behind a real sshd: copied to, followed, asked for logits, lost and found; and every way it can fail."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compress.remote import bundle
from edge import open_runner
from edge.core import artifact
from edge.statement import statement
from tests.edge.stages import EPS, World
from tests.slow import loopback
from tests.slow.loopback import Board

pytestmark = pytest.mark.slow

QUICK = ("--eps", EPS, "--samples", 20, "--square-queries", 40, "--set", "decision_queries=40")
LONG = ("--eps", EPS, "--samples", 100_000, "--square-queries", 40, "--set", "decision_queries=40")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the board runs: numpy, ONNX Runtime, nothing else."""
    made = loopback.bare_python(tmp_path_factory.mktemp("python") / "venv")
    done = subprocess.run([made, "-c", "import numpy, onnxruntime, torch"], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"
    return made


@pytest.fixture
def board(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """Each test has its own, with an empty home."""
    with loopback.running(tmp_path / "board", python) as made:
        monkeypatch.setenv("COMPRESS_SSH", made.ssh)
        yield made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.deployed(tmp_path_factory.mktemp("world"))


def verify(
    board: Board, world: World, out: Path, *more: object, hosts: "tuple[str, ...]" = ("board",)
) -> "subprocess.Popen[str]":
    where = [part for host in hosts for part in ("--host", host)]
    stages = world.stages["exported"].path, "--attack-set", world.stages["attack-set"].path
    return loopback.compress(board, "verify", *stages, "--device", "jetson", *where, "--out", out, *(more or QUICK))


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def refused(process: "subprocess.Popen[str]") -> str:
    """The one line of a fault of the user's."""
    code, _, err = finished(process)
    assert code == 2, err
    *_, line = err.splitlines()
    assert line.startswith("compress: ") and "Traceback" not in err
    return line


def waited(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def jobs(board: Board) -> list[Path]:
    return sorted((board.cache / "jobs").glob("*"))


def is_running(folder: Path) -> bool:
    """Whether a job's process lives, by its pid: it is on this machine."""
    try:
        os.kill(int((folder / "lock").read_text()), 0)
        return True
    except (OSError, ValueError):
        return False


# ------------------------------------------------------------------------------------------- verify


def test_a_verdict_from_the_board_is_whole_and_kept_there(board: Board, world: World, tmp_path: Path) -> None:
    code, out, err = finished(verify(board, world, tmp_path / "v", *QUICK, "--json"))
    assert code == 0, err
    assert "board: copying the bundle" in err and "board: square" in err
    made = artifact.read(tmp_path / "v", ("verified",))
    assert json.loads(out)["identity"] == made.identity
    predicate = statement.read_statement(tmp_path / "v").as_json()["predicate"]
    assert "not-a-jetson" in [warning["name"] for warning in predicate["warnings"]]
    assert predicate["figures"]["robust"] is not None, "the whole protocol was covered, hybrid BPDA included"
    assert "torch" not in predicate["versions"] and "robust-compress" in predicate["versions"]
    checked = loopback.compress(board, "statement", "check", tmp_path / "v")
    assert finished(checked)[0] == 0

    code, out, err = finished(verify(board, world, tmp_path / "v"))
    assert code == 0 and "complete already" in out and "copying" not in err
    assert artifact.read(tmp_path / "v").identity == made.identity and not jobs(board)


def test_two_boards_stand_in_one_table(board: Board, world: World, tmp_path: Path, python: Path) -> None:
    with loopback.running(tmp_path / "second", python) as second:
        both = (board.folder / "config").read_text() + "\n"
        both += (second.folder / "config").read_text().replace("Host board*", "Host second")
        (board.folder / "config").write_text(both.replace("Host board*", "Host board"))
        code, out, err = finished(verify(board, world, tmp_path / "v", hosts=("board", "second")))
    assert code == 0, err
    assert (board.cache / "stages").exists() and (second.cache / "stages").exists()
    assert "exported-jetson-board-verified" in out and "exported-jetson-second-verified" in out
    assert {path.name for path in (tmp_path / "v").iterdir()} == {
        "exported-jetson-board-verified",
        "exported-jetson-second-verified",
    }


def test_a_lost_link_does_not_stop_the_board(board: Board, world: World, tmp_path: Path) -> None:
    process = verify(board, world, tmp_path / "v", *LONG)
    for _ in range(2):
        waited(lambda: jobs(board) and is_running(jobs(board)[0]) and loopback.children(process.pid, "ssh"))
        loopback.kill_ssh(process)
        time.sleep(0.5)
    code, _, err = finished(process)
    assert code == 0, err
    assert "the link is lost" in err and "connected again" in err
    assert artifact.read(tmp_path / "v").metrics["host"] == "board"


def test_a_killed_workstation_finds_its_job_done(board: Board, world: World, tmp_path: Path) -> None:
    process = verify(board, world, tmp_path / "v", *LONG)
    waited(lambda: jobs(board) and is_running(jobs(board)[0]))
    process.kill()
    process.communicate()
    time.sleep(0.5)
    assert is_running(jobs(board)[0]), "the board's process goes on"
    waited(lambda: (jobs(board)[0] / "state.json").exists(), 120)
    code, _, err = finished(verify(board, world, tmp_path / "v", *LONG))
    assert code == 0, err
    assert "has done this already" in err and "copying" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_boards_process(
    board: Board, world: World, tmp_path: Path, number: signal.Signals
) -> None:
    process = verify(board, world, tmp_path / "v", *LONG, "--set", "latency.samples=100000000")
    waited(lambda: jobs(board) and is_running(jobs(board)[0]))
    time.sleep(1.0)
    process.send_signal(number)
    code, _, err = finished(process)
    assert code == 130
    assert err.splitlines()[-1] == (
        "compress: interrupted; the process on board was ended, the same command starts it anew"
    )
    assert not is_running(jobs(board)[0])
    assert not (tmp_path / "v").exists()


def test_two_verifiers_do_not_disturb_each_other(board: Board, world: World, tmp_path: Path) -> None:
    # the second is to come before the first ends on a busy machine too
    first = verify(board, world, tmp_path / "v", *LONG, "--samples", 400_000)
    waited(lambda: jobs(board) and is_running(jobs(board)[0]))
    line = refused(verify(board, world, tmp_path / "w"))
    assert "(verify) is at work on this board" in line and "wait for it" in line
    assert finished(first)[0] == 0


# ------------------------------------------------------------------------------------------- logits


def test_logits_from_the_board_survive_a_lost_link(board: Board, world: World, tmp_path: Path) -> None:
    assert finished(verify(board, world, tmp_path / "v"))[0] == 0
    stage = world.stages["exported"]
    x = np.random.default_rng(3).random((50_000, *world.clean.shape[1:]), np.float32)
    with open_runner(stage.path, threads=1) as local:
        expected = local.infer(x)
    with open_runner(f"ssh://board/{stage.identity[:12]}", threads=1) as remote:
        assert (remote.infer(world.clean) == open_runner(stage.path, threads=1).infer(world.clean)).all()
        cut = threading.Timer(0.05, lambda: os.kill(remote._link.connected.pid, signal.SIGKILL))  # type: ignore[attr-defined]
        cut.start()
        assert (remote.infer(x) == expected).all()
        cut.join()
        assert (remote.infer(x[:100]) == expected[:100]).all()


def test_the_attack_set_is_bit_for_bit_the_one_made_here(board: Board, chain: SimpleNamespace, tmp_path: Path) -> None:
    brief = ("--images", 20, "--ensemble", "none", "--steps", 2, "--restarts", 1)
    given = ("attack", chain.student, "--quantized", chain.quantized, "--exported", chain.e, *brief)
    for name, more in (("here", ()), ("there", ("--host", "board"))):
        code, _, err = finished(loopback.compress(board, *given, *more, "--out", tmp_path / name))
        assert code == 0, err
    here, there = (artifact.read(tmp_path / name) for name in ("here", "there"))
    assert there.manifest["payload"]["attack-set.npz"] == here.manifest["payload"]["attack-set.npz"]
    assert there.identity != here.identity
    about = json.loads(there.file("attack-set.json").read_text())
    where = {attack["where"] for attack in about["attacks"] if attack["kind"] == "bpda"}
    assert where == {"forward by onnxruntime on board, backward by torch on the workstation"}
    assert there.metrics["remote"]["e"]["images"] > 100
    stages = chain.e, "--attack-set", tmp_path / "there"
    verified = loopback.compress(
        board, "verify", *stages, "--device", "jetson", "--host", "board", "--out", tmp_path / "v", "--samples", 20
    )
    assert finished(verified)[0] == 0
    assert statement.read_statement(tmp_path / "v").as_json()["predicate"]["figures"]["robust"] is not None


# ------------------------------------------------------------------------------------------- faults


def test_an_unreachable_host_is_one_line(board: Board, world: World, tmp_path: Path) -> None:
    assert "off: nothing answers ssh there" in refused(verify(board, world, tmp_path / "v", hosts=("off",)))
    line = refused(verify(board, world, tmp_path / "v", hosts=("nowhere.invalid",)))
    assert "no host of that name" in line


@pytest.mark.parametrize("host", ["-oProxyCommand=touch evil", "a b", "$(touch evil)", "a;b", "", "board@@x"])
def test_what_is_no_host_reaches_no_shell(board: Board, world: World, tmp_path: Path, host: str) -> None:
    assert "write it as user@orin" in refused(verify(board, world, tmp_path / "v", hosts=(host,)))


def test_a_changed_host_key_is_one_line_and_ends_there(board: Board, world: World, tmp_path: Path) -> None:
    board.know(board.new_host_key())
    line = refused(verify(board, world, tmp_path / "v"))
    assert "its host key is not the one that is known" in line and "ssh-keygen -R" in line
    board.known.write_text("")
    assert "log in once by hand" in refused(verify(board, world, tmp_path / "v"))
    assert not board.cache.exists()


def test_a_refused_key_is_one_line(board: Board, world: World, tmp_path: Path) -> None:
    board.authorized.write_text("")
    assert "refuses the key that is offered: ssh-copy-id board" in refused(verify(board, world, tmp_path / "v"))


def test_no_python_and_an_old_one_are_one_line(board: Board, world: World, tmp_path: Path, python: Path) -> None:
    old = "import sys; sys.version_info = (3, 8, 10); exec(sys.argv.pop(1))"
    board.run_python_by(f'[ "$1" = -c ] && shift && exec {python} -c "{old}" "$@"')
    assert "python3 is 3.8, 3.10 or newer is needed" in refused(verify(board, world, tmp_path / "v"))
    board.python3.unlink()
    assert "no python3 there; there: sudo apt install python3" in refused(verify(board, world, tmp_path / "v"))


def test_no_numpy_and_no_runtime_are_one_line(board: Board, world: World, tmp_path: Path, python: Path) -> None:
    without = {"onnxruntime": ("numpy",), "numpy": ()}
    for missing, wanted in without.items():
        empty = loopback.bare_python(tmp_path / f"without-{missing}", wanted)
        board.run_python_by(f'exec {empty} "$@"')
        line = refused(verify(board, world, tmp_path / "v"))
        assert f"has no {missing}" in line and "install" in line
    code, _, err = finished(verify(board, world, tmp_path / "v", *QUICK, "--python", python))
    assert code == 0, err
    assert "no program that can be run there" in refused(
        verify(board, world, tmp_path / "w", *QUICK, "--python", "/no")
    )


def test_a_full_disk_is_one_line(board: Board, world: World, tmp_path: Path, python: Path) -> None:
    board.run_python_by(f'ulimit -f 100; exec {python} "$@"')
    line = refused(verify(board, world, tmp_path / "v"))
    assert "cannot be written" in line and "free some space there" in line
    assert not list(board.cache.rglob("tmp*"))
    board.run_python_by(f'exec {python} "$@"')
    assert finished(verify(board, world, tmp_path / "v"))[0] == 0


def test_a_talkative_login_does_no_harm(board: Board, world: World, tmp_path: Path) -> None:
    (board.home / ".bashrc").write_text("echo Welcome to the board\n")
    assert finished(verify(board, world, tmp_path / "v"))[0] == 0
    board.run_python_by("echo 'not a python'")
    assert "does `ssh board python3 --version` work?" in refused(verify(board, world, tmp_path / "w"))


def test_without_a_host_a_workstation_says_what_to_do(board: Board, world: World, tmp_path: Path) -> None:
    line = refused(verify(board, world, tmp_path / "v", hosts=()))
    assert "device jetson: this machine is no Jetson; give compress verify the board, --host user@board" in line


# ------------------------------------------------------------------------------------------- the file alone


def test_the_file_alone_does_all_of_it(world: World, python: Path, tmp_path: Path) -> None:
    """`edge.pyz` in an environment without this package: every verb."""
    bundle.write_bundle(tmp_path / "edge.pyz")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(*args: object) -> "subprocess.CompletedProcess[str]":
        command = [str(python), "edge.pyz", *map(str, args)]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    exported, attacks = (world.stages[name].path for name in ("exported", "attack-set"))
    selftest = run("selftest", "--out", "selftest.json")
    assert selftest.returncode == 0, selftest.stdout + selftest.stderr
    assert json.loads(selftest.stdout)["passed"] and json.loads((tmp_path / "selftest.json").read_text())["passed"]
    assert run("check", exported, "--attack-set", attacks).stdout.splitlines()[-1] == "passed"
    timed = run("bench", exported, "--samples", 20, "--batch", "1,4", "--seconds", 0.2, "--out", "timed", "--json")
    assert json.loads(timed.stdout)["artifacts"][0]["latency"]["n"] >= 20
    assert (tmp_path / "timed" / "bench.json").is_file()
    assert json.loads(run("doctor", "--json").stdout)["targets"]["onnx"]["run"]["can"]
    budget = ("--square-queries", 20, "--decision-queries", 20, "--samples", 20)
    gate = ("--out", tmp_path / "v", "--json", *budget, "--require", "clean>=0.99")
    judged = run("verify", exported, "--attack-set", attacks, *gate)
    assert judged.returncode == 3 and json.loads(judged.stdout)["requirements"][0]["passed"] is False
    for args, said in (
        (("verify", exported), "--attack-set"),
        (("fly",), "invalid choice"),
        (("check", tmp_path, "--attack-set", attacks), "no manifest.json there"),
    ):
        wrong = run(*args)
        assert wrong.returncode == 2 and said in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_a_device_that_computes_something_else_fails_the_check(python: Path, tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.export("exported", world.twin)
    bundle.write_bundle(tmp_path / "edge.pyz")
    lying = world.export("lying", -world.twin)
    attacks = world.attack_set({"exported": world.twin, "lying": world.twin})
    command = [str(python), str(tmp_path / "edge.pyz"), "check", str(lying.path), "--attack-set", str(attacks.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout.splitlines()[-1].startswith("FAILED")
