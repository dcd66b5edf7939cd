"""The command line: one-line faults and exit codes, help that works, init, completion, signals."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from compress import __version__, config
from compress.cli.execute import execute
from compress.cli.main import VERBS, main

Call = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*args: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = execute([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return run


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("distil --out x", "no command 'distil'; did you mean 'distill'?"),
        (
            "teacher trian",
            "no command 'trian'; did you mean 'train'? (known: import, list, train); see `compress teacher --help`",
        ),
        ("distill --epoch 3 --out x", "no option --epoch; did you mean '--epochs'?; see `compress distill --help`"),
        ("distill", "--out is missing; see `compress distill --help`"),
        ("quantize --out x", "STUDENT is missing; see `compress quantize --help`"),
        ("verify e", "--attack-set is missing"),
        ("distill --out x --method vgp", "--method: unknown method 'vgp'; did you mean 'vgap'? (known: normal, pgd-at"),
        ("distill --out x --student resnet9", "--student: unknown model 'resnet9'; did you mean 'resnet"),
        ("distill --out x --data digit", "--data: unknown data 'digit'; did you mean 'digits'?"),
        (
            "teacher train --out x --method vgap",
            "--method: unknown method 'vgap' (known: normal, pgd-at, trades, mart, n-fgsm)",
        ),
        ("export m --target tensorort --out x", "--target: unknown target 'tensorort'; did you mean 'tensorrt'?"),
        ("verify e --attack-set a --device jetsn", "--device: unknown device 'jetsn'; did you mean 'jetson'?"),
        ("distill --out x --epochs many", "--epochs: 'many' is not a valid integer"),
        ("teacher train --out x", "teacher: data: missing"),
        (
            "teacher train --data digits --epochs 0 --out x",
            "teacher: epochs: input should be greater than or equal to 1",
        ),
        ("teacher train --data digits --eps 8 --out x", "teacher: threat.eps: 8 is outside (0, 1)"),
        ("teacher train --data digits --set epochs --out x", "--set epochs: KEY=VALUE is needed"),
        ("teacher train --data digits --set epochs=[ --out x", "--set epochs=[: the value is not YAML"),
        ("teacher train --data digits --set epoch=1 --out x", "epoch: unknown key; did you mean 'epochs'?"),
        ("distill --data digits --method vgap --out x", "method vgap needs a teacher; give --teacher"),
        ("quantize nowhere --out x", "nowhere: no manifest.json there"),
        ("verify nowhere --attack-set a --out x", "nowhere: no manifest.json there"),
        ("run nothing.yaml", "nothing.yaml: no such config; `compress init` writes one"),
        ("run quickstart --from studnt --dry-run", "no stage 'studnt' in this run; did you mean 'student'?"),
        ("run quickstart --set teacher.epoch=1", "quickstart: teacher.epoch: unknown key; did you mean 'epochs'?"),
        ("run quickstart --set require=[robst>=1]", "robst"),
        ("completion tcsh", "SHELL: 'tcsh' is not one of"),
        ("init a b", "unexpected extra argument"),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_exit_2(call: Call, tmp_path: Path, monkeypatch: Any, line: str, said: str):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*shlex.split(line))
    assert (code, out) == (2, "")
    assert err.startswith("compress: ") and err.count("\n") == 1
    assert said in err
    code, out, _ = call(*shlex.split(line), "--json")
    if "no option --json" not in out:
        assert json.loads(out) == {"error": err.removeprefix("compress: ").rstrip("\n"), "exit_code": 2}
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_a_config_file_is_told_at_once(call: Call, tmp_path: Path):
    (tmp_path / "a.yaml").write_text("data: digits\nsed: 1\nteacher: {epoch: 1}\n")
    for command in (
        ["run", tmp_path / "a.yaml"],
        ["distill", "--config", tmp_path / "a.yaml", "--out", tmp_path / "s"],
    ):
        code, _, err = call(*command)
        assert code == 2
        assert "2 faults" in err and "teacher.epoch: unknown key" in err and "sed: unknown key" in err


def test_our_own_fault_is_a_traceback_and_exit_1(call: Call, monkeypatch: Any):
    monkeypatch.setattr("compress.config.load_run", lambda *args: 1 / 0)
    code, _, err = call("run", "quickstart")
    assert code == 1
    assert "ZeroDivisionError" in err and err.rstrip().splitlines()[-1].startswith(
        "compress: this is a fault of compress"
    )


# ------------------------------------------------------------------------------------------------ help


def test_help_and_version(call: Call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert call() == (0, out, "")
    assert call("--version") == (0, f"robust-compress {__version__}\n", "")
    assert call("teacher") == call("teacher", "--help")


@pytest.mark.parametrize("verb", [*VERBS, "teacher train"])
def test_the_examples_in_help_are_command_lines_that_parse(call: Call, verb: str):
    _, out, _ = call(*verb.split(), "--help")
    examples = out.rstrip().partition("\nExample:\n")[2].splitlines()
    commands = [shlex.split(line.split(" > ")[0]) for line in examples if line.startswith("  compress ")]
    assert commands or verb == "completion"
    for command in commands:
        found: click.Command | None = main
        name, rest = command[0], command[1:]
        while isinstance(found, click.Group):
            name, *rest = rest
            found = found.get_command(click.Context(found), name)
        assert found is not None
        assert found.make_context(name, rest).params


def test_the_table_of_verbs_is_the_verbs():
    for name in VERBS:
        command = main.get_command(click.Context(main), name)
        assert command is not None and command.name == name


# ------------------------------------------------------------------------------------------------ init, completion


def test_init_writes_every_key_at_its_default(call: Call, tmp_path: Path):
    file, schema = tmp_path / "mine.yaml", tmp_path / "s.json"
    assert call("init", file, "--schema", schema)[0] == 0
    assert config.load_run(file) == config.parse(config.Run, {"data": "digits"}, "x")
    assert f"# yaml-language-server: $schema={schema.name}" in file.read_text().splitlines()
    written = yaml.safe_load(file.read_text())
    full = config.load_run(file).model_dump()
    assert written == full, "no key is left out"
    lines = file.read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")]
    assert all(lines[i - 1].strip().startswith("# ") for i in keys), "a meaning stands above every key"


def test_init_overwrites_only_when_told(call: Call, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    code, _, err = call("init", file)
    assert code == 2 and "exists" in err and file.read_text() == "mine"
    assert call("init", file, "--force")[0] == 0
    assert "teacher:" in file.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(call: Call, shell: str):
    code, out, _ = call("completion", shell)
    assert code == 0
    assert "_COMPRESS_COMPLETE" in out and "%(" not in out


@pytest.mark.parametrize(("words", "offered"), [("compress dis", "distill"), ("compress distill --method v", "vgap")])
def test_completion_completes(words: str, offered: str):
    asked = {"_COMPRESS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "compress"], capture_output=True, text=True, env={**os.environ, **asked}, check=True
    )
    assert done.stdout.splitlines() == [f"plain,{offered}"]


# ------------------------------------------------------------------------------------------------ the process

SLOW_STAGE = """
import sys, time
from pathlib import Path
from compress import __main__
from compress.stages import teacher
from edge.core import artifact

def run(config, inputs, out, *, replace=False):
    def make(work):
        work.file("half").write_text("kept")
        Path(sys.argv[-1] + ".ready").touch()
        while True:
            try:
                time.sleep(60)
            except BaseException:  # as code that swallows interrupts does
                pass
    plan = artifact.Plan("teacher", {}, 0, {}, {})
    return artifact.build(out, plan, make, keep=("half",))

teacher.run = run
__main__.entry()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_at_once_with_one_line_and_leaves_what_resumes(tmp_path: Path, number: signal.Signals):
    out = tmp_path / "t"
    command = [sys.executable, "-c", SLOW_STAGE, "teacher", "train", "--data", "digits", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "t.ready").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    printed, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (printed, told) == (
        "",
        f"compress: interrupted ({number.name}); the same command resumes where it stopped\n",
    )
    assert (tmp_path / "t.partial" / "half").read_text() == "kept" and not out.exists()


def test_python_dash_m_and_the_console_script_are_the_same_program():
    for program in ([sys.executable, "-m", "compress"], [str(Path(sys.executable).with_name("compress"))]):
        done = subprocess.run([*program, "distil"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("compress: no command 'distil'; did you mean 'distill'?")


def test_a_reader_that_went_away_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "compress", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_idle_threads_leave_the_cores_to_others_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    from compress.__main__ import share_the_cores

    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    share_the_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    share_the_cores()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    share_the_cores()
    assert int(os.environ["GOMP_SPINCOUNT"]) > 0
    monkeypatch.delenv("GOMP_SPINCOUNT")
