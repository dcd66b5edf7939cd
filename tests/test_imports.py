"""What a command line costs: help imports click and nothing else from outside the standard library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compress.cli.main import VERBS

RECORD = """
import json, sys
from compress.cli.execute import execute
sys.argv = ["compress", *{args!r}]
code = execute(sys.argv[1:])
tops = {{name.partition(".")[0] for name in sys.modules}}
print(json.dumps([code, sorted(tops - set(sys.stdlib_module_names)), sorted(m for m in sys.modules if "." in m)]))
"""
HELPS = [["--help"], *[[verb, "--help"] for verb in VERBS], ["teacher", "train", "--help"]]


def imported(args: list[str]) -> "tuple[int, set[str], set[str], str]":
    done = subprocess.run([sys.executable, "-c", RECORD.format(args=args)], capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    code, tops, modules = json.loads(last)
    started = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    before = {name.partition(".")[0] for name in started.stdout.split()}  # what the environment itself loads
    return code, set(tops) - before - {"__main__"}, set(modules), "\n".join(text)


@pytest.mark.parametrize("args", HELPS, ids=" ".join)
def test_help_imports_only_click(args: list[str]):
    code, tops, modules, text = imported(args)
    assert code == 0
    assert tops == {"click", "compress", "edge"}
    assert all(name.startswith("edge.core") for name in modules if name.startswith("edge."))
    assert "\nExample:\n  compress" in text or '\nExample:\n  eval "$(compress' in text
    verbs = {name for name in modules if name.startswith("compress.cli.") and name.split(".")[2] in VERBS}
    assert {name.split(".")[2] for name in verbs} == {*args} & {*VERBS}, "a verb is imported when it is used"


def test_the_recorder_sees_what_is_imported():
    _, tops, _, _ = imported(["init", "/nowhere/at/all.yaml"])
    assert {"pydantic", "yaml"} <= tops
    assert not {"torch", "numpy", "onnx", "onnxruntime"} & tops


@pytest.mark.parametrize("which", ["tiny", "quickstart"])
def test_a_run_is_surveyed_without_torch(which: str, tmp_path: Path):
    config = Path(__file__).parent.parent / "configs" / f"{which}.yaml"
    code, tops, modules, text = imported(
        ["run", str(config), "--data", "digits", "--dry-run", "--out", str(tmp_path / "r")]
    )
    assert code == 0 and "verified/onnx-cpu" in text and not list(tmp_path.iterdir())
    assert not {"torch", "onnx", "onnxruntime", "safetensors"} & tops
    assert "compress.stages.distill" in modules and "compress.training" not in modules


def test_the_entry_point_takes_interrupts_over_before_it_imports_anything():
    script = "import sys, compress.__main__; print(*(set(sys.modules) & {'click', 'json', 'compress.cli', 'pathlib'}))"
    without_site = [sys.executable, "-S", "-c", script]
    done = subprocess.run(without_site, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == ""


def test_a_module_that_takes_ctrl_c_back_gives_no_traceback():
    script = """if True:
        import sys, compress.cli.execute as cli, compress.__main__ as program
        def stopped(args): raise KeyboardInterrupt
        cli.execute = stopped
        program.entry()"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert (done.returncode, done.stderr.count("\n")) == (130, 1) and "resumes where it stopped" in done.stderr


WITHOUT_TORCH = """
import json, sys
from compress import config, data, names, networks
from compress.config import starter
from compress.methods import registry

sections = {name: {"method": name} for name in names.METHODS}
config.parse(config.Run, {"data": "digits", "baselines": sections, "student": {"model": "wrn-28-10+silu"}}, "all.yaml")
starter.json_schema()
assert set(registry.hosts()) | set(registry.additions()) == set(names.METHODS)
heavy = ["numpy", "torch", "onnx", "onnxruntime", "PIL", "sklearn", "safetensors"]
before = [name for name in heavy if name in sys.modules]
data.load_dataset("digits").fingerprint
print(json.dumps([before, [name for name in heavy if name in sys.modules]]))
"""


def test_configurations_and_options_are_read_without_torch_and_digits_are_loaded_without():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert before == [] and "numpy" in after and not {"torch", "onnx", "onnxruntime", "PIL", "safetensors"} & {*after}
