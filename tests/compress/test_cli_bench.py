"""`compress bench`, and what `compress verify` is told of latency, through ONNX Runtime on tiny graphs."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.cli.execute import execute
from compress.config import BenchConfig, Latency
from edge.bench.measure import TimingRequest
from tests.edge import linear
from tests.edge.stages import World

Call = Callable[[str], "tuple[int, str, str]"]
BRIEF = "--samples 20 --warmup 1 --seconds 0.05 --threads 1"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line in a folder with two graphs, a.onnx and b.onnx, and one whose answers vary, noisy.onnx."""
    weights = linear.balanced(np.random.default_rng(1))
    linear.linear(tmp_path / "a.onnx", weights)
    linear.linear(tmp_path / "b.onnx", 2 * weights)
    linear.noisy(tmp_path / "noisy.onnx", weights)
    linear.linear(tmp_path / "digits.onnx", np.ones((10, 64)), shape=(1, 8, 8))
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return execute(shlex.split(line)), *capsys.readouterr()

    return run


def test_one_json_object_holds_everything_and_the_folder_the_samples(call: Call) -> None:
    scenarios = "--scenario single-stream,offline,camera --batch 1,4 --fps 50,100"
    code, out, _ = call(f"bench a.onnx b.onnx {scenarios} {BRIEF} --load 1 --json --out timed")
    assert code == 0
    found = json.loads(out)
    assert found == json.loads(Path("timed/bench.json").read_text())
    for each in found["artifacts"]:
        said = each["latency"]
        assert said["n"] == 20 and [row["batch_size"] for row in said["sweep"]] == [1, 4]
        assert said["offline"]["batch_size"] == 4 and [row["fps"] for row in said["camera"]] == [50, 100]
        assert said["conditions"]["load"] == {"processes": 1}
    assert {row["what"] for row in found["compared"]} == {"single-stream", "batch 1", "batch 4"}
    assert found["config"]["samples"] == 20 and "MLPerf" in found["nature"]
    assert {path.suffix for path in Path("timed").iterdir()} == {".json", ".npz"}


def test_the_lines_name_every_scenario_and_what_the_queries_were(call: Call) -> None:
    code, out, err = call(f"bench a.onnx b.onnx --scenario single-stream,camera --batch 2 {BRIEF} --seed 3")
    assert code == 0 and "latency 40/40" in err
    head = out.splitlines()[0].split()
    assert head == ["artifact", "scenario", "batch", "p50", "p90", "p99", "images/s"]
    assert "camera 30 fps" in out and "of 2 frames" in out and "queries: seeded uniform noise" in out
    assert "b.onnx takes" in out and "times as long as a.onnx, single-stream (95% interval" in out


def test_images_of_a_dataset_are_the_queries(call: Call) -> None:
    code, out, _ = call(f"bench digits.onnx --data digits {BRIEF} --json")
    assert code == 0 and json.loads(out)["queries"] == "test images of digits"


def test_logits_that_differ_during_timing_exit_3_after_everything_is_told(call: Call) -> None:
    code, out, err = call(f"bench a.onnx noisy.onnx {BRIEF} --out timed")
    assert code == 3 and "ALARM timed logits differ" in out and Path("timed/bench.json").is_file()
    assert err.splitlines()[-1].startswith("compress: noisy.onnx: timed logits differ; noisy.onnx: randomised model")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "bench a.onnx --scenario single,offline",
            "scenarios.0: input should be 'single-stream', 'offline' or 'camera'",
        ),
        ("bench a.onnx --batch 1,x", "--batch 1,x: whole numbers with commas between them are needed"),
        ("bench a.onnx --batch 0", "batch_size: input should be greater than or equal to 1, got 0"),
        ("bench a.onnx --fps 0", "fps.0: input should be greater than 0"),
        ("bench a.onnx --set speed=3", "speed: unknown key"),
        ("bench a.onnx --device gpu", "unknown device 'gpu'"),
        ("bench a.onnx --device jetson", "device jetson: this machine is no Jetson; time it there"),
        ("bench nowhere", "no manifest.json there"),
        ("bench a.txt", "no manifest.json there"),
        ("bench a.onnx --data digits", "this model takes (N, 1, 4, 4)"),
        ("bench a.onnx --load no-such-program", "no such program"),
        ("bench a.onnx --preprocess a:b", "no module a in"),
        ("bench", "is missing"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(call: Call, line: str, said: str) -> None:
    before = sorted(path.name for path in Path().iterdir())
    code, out, err = call(f"{line} {BRIEF} --out timed")
    assert code == 2 and out == "" and said in err.splitlines()[-1], err
    assert "Traceback" not in err and sorted(path.name for path in Path().iterdir()) == before


def test_on_a_board_that_is_no_jetson_its_figures_say_so(tmp_path: Path) -> None:
    from edge.bench import run

    linear.linear(tmp_path / "a.onnx", linear.balanced(np.random.default_rng(1)))
    brief = {"device": "jetson", "samples": 5, "warmup": 1, "threads": 1}
    timed = run.run_bench([tmp_path / "a.onnx"], BenchConfig(**brief).model_dump(mode="json"))
    assert "not-a-jetson" in [warning["name"] for warning in timed["warnings"]]


def test_verify_takes_the_same_and_states_it(call: Call, tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    Path("dim.py").write_text("def half(f):\n    return f // 2\n\n\ndef frames(images):\n    return images\n")
    line = f"verify {world.stages['onnx'].path} --attack-set {attacks.path} --out v --square-queries 0 --eps 8/255"
    more = "--scenario camera,offline --fps 100 --sweep 1,2 --preprocess dim:half --load 1 --set decision_queries=0"
    code, out, err = call(f"{line} {more} --samples 20 --seconds 0.05 --set latency.warmup=1 --threads 1")
    assert code == 0, err
    said = json.loads(Path("v/statement.json").read_text())["predicate"]
    assert said["latency"]["n"] == 20 and said["latency"]["scenarios"] == ["single-stream", "offline", "camera"]
    assert said["preprocess"]["name"] == "dim:half" and "dim:half" in said["threat"]["applied_to"]
    for part in ("offline     ", "camera      100 frames/s", "load        1 busy process", "preprocess  dim:half"):
        assert part in out
    with np.load("v/latency.npz") as raw:
        assert {"samples_ns", "preprocess_ns", "batch_1_ns", "batch_2_ns", "camera_100_ns", "camera_100_frame"} == set(
            raw
        )
    page = Path("v/report.html").read_text()
    for part in (
        "Throughput by batch size",
        "Camera: latency from the scheduled arrival",
        "was preprocessed by dim:half",
    ):
        assert part in page


def test_what_is_asked_by_default_is_the_same_in_config_and_on_the_board() -> None:
    plain: dict[str, Any] = Latency().model_dump(mode="json")
    brief = {key: plain[key] for key in ("batch_size", "warmup", "samples")}
    assert TimingRequest.read(plain) == TimingRequest.read(brief)
    assert TimingRequest.read(BenchConfig().model_dump(mode="json")) == TimingRequest.read(plain)
