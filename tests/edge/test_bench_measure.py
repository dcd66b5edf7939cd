"""Everything at once: scripted runners where figures are exact, ONNX Runtime on tiny graphs where they are real."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge import open_runner
from edge.bench import harness, run
from edge.bench.figures import PairedTurns
from edge.bench.measure import (
    AGAIN,
    ROUNDS,
    TimingRequest,
    TimingSubject,
    check_timing,
    compare_timings,
    measure_latency,
)
from edge.core.errors import CompressError
from edge.runtimes.preprocess import Preprocess
from edge.runtimes.runner import Runner
from edge.statement import statement
from edge.statement.statement import as_json
from edge.statement.timing import AskedAgain, QueryParts
from tests.edge import linear
from tests.edge.scripted import FakeClock, Scripted, images
from tests.edge.test_light import HEAVY, imported

SCHEMA = json.loads(Path(statement.__file__).with_name("statement.schema.json").read_text())
WEIGHTS = linear.balanced(np.random.default_rng(1))
ALL = ["single-stream", "offline", "camera"]


def valid(latency: "dict[str, Any]") -> None:
    whole = {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/predicate/properties/latency"}
    jsonschema.Draft202012Validator(whole).validate(latency)


def ask(**more: Any) -> TimingRequest:
    return TimingRequest.read({"batch_size": 1, "warmup": 2, "samples": 30, "seconds": 0.05, "fps": [100.0], **more})


def grey(runner: Runner) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, *runner.input_shape), dtype=np.uint8)


def subject(path: Path, frames: Callable[[Runner], Any] = grey, pre: "Preprocess | None" = None) -> TimingSubject:
    return TimingSubject(path.name, lambda size: open_runner(path, batch_size=size, threads=1), frames, pre)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return linear.linear(tmp_path / "m.onnx", WEIGHTS)


# ---------------------------------------------------------------------------------------------- what is stated


def test_every_scenario_of_a_real_artifact_is_as_the_schema_says(graph: Path) -> None:
    (timed,) = measure_latency([subject(graph)], ask(scenarios=ALL, sweep=[1, 2, 8], fps=[100.0, 250.0]))
    valid(as_json(timed.latency))
    said = as_json(timed.latency)
    assert said["n"] == 30 == len(timed.samples["samples_ns"]) and said["scenarios"] == ALL
    assert [row["batch_size"] for row in said["sweep"]] == [1, 2, 8] and said["offline"] == said["sweep"][2]
    assert [(row["fps"], row["frames"]) for row in said["camera"]] == [(100.0, 5), (250.0, 13)]
    for row in said["sweep"]:
        raw = timed.samples[f"batch_{row['batch_size']}_ns"]
        assert len(raw) == row["n"] and row["seconds"] >= 0.05 and row["p50_ms"] == pytest.approx(np.median(raw) / 1e6)
    assert (
        len(timed.samples["camera_250_ns"]) == said["camera"][1]["answered"] == len(timed.samples["camera_250_frame"])
    )
    assert said["conditions"]["spin_wait"] is True and said["conditions"]["cuda_graph"] is False
    assert said["asked_again"]["n"] > 32 and not timed.alarm.fired
    assert said["memory"]["peak_rss_bytes"] > 10**6 and timed.about["runtime"]["name"] == "onnxruntime"
    for began, ended, count in timed.spans.values():
        assert began < ended and count > 0
    assert timed.spans["batch 8"][2] == 8 * said["offline"]["n"]


def test_by_default_it_is_single_queries_alone(graph: Path) -> None:
    (timed,) = measure_latency([subject(graph)], TimingRequest.read({"batch_size": 2, "warmup": 1, "samples": 7}))
    valid(as_json(timed.latency))
    assert not {"camera", "offline", "sweep", "parts", "preprocess_ms"} & set(as_json(timed.latency))
    assert (timed.latency.batch_size, timed.latency.n, timed.latency.warmup) == (2, 7, 1)
    assert list(timed.samples) == ["samples_ns"]


def test_offline_alone_is_at_the_largest_size_and_measures_no_single_queries(graph: Path) -> None:
    (timed,) = measure_latency([subject(graph)], ask(scenarios=["offline"], batch_size=4))
    assert timed.latency.offline.batch_size == 4 and not {"n", "sweep"} & set(as_json(timed.latency))
    assert ask(scenarios=["offline"], sweep=[2, 16]).offline_size == 16
    assert ask(scenarios=["camera"]).with_single().scenarios == ("single-stream", "camera")


def test_answers_that_change_while_time_is_taken_are_found(tmp_path: Path) -> None:
    (timed,) = measure_latency([subject(linear.noisy(tmp_path / "n.onnx", WEIGHTS))], ask(sweep=[2]))
    assert timed.alarm.fired and timed.alarm.name == "timed logits differ"
    again = timed.latency.asked_again
    assert again.different == again.n == timed.alarm.count > 30


def test_one_wrong_answer_among_many_is_found() -> None:
    class Once(Scripted):
        def infer(self, x: np.ndarray) -> np.ndarray:
            logits = super().infer(x)
            logits[0, 0] = len(self.asked) == 15
            return logits

    runner = Once(FakeClock())
    one = TimingSubject("x", lambda size: runner, lambda _: images(), None)
    (timed,) = measure_latency([one], ask(samples=30), runner.clock)
    assert timed.latency.asked_again == AskedAgain(30, 1) and timed.alarm.fired


def test_preprocessing_is_timed_in_every_scenario_and_apart(graph: Path) -> None:
    seen = []

    def flat(frames: np.ndarray) -> np.ndarray:
        seen.append(frames.shape)
        return frames.reshape(-1, *linear.SHAPE)

    pre = Preprocess("m:flat", flat, None)
    (timed,) = measure_latency(
        [subject(graph, lambda runner: grey(runner).reshape(12, -1), pre)], ask(scenarios=ALL, sweep=[3])
    )
    valid(as_json(timed.latency))
    assert "m:flat" in timed.latency.inside and timed.latency.preprocess_ms.p50_ms > 0
    assert (timed.samples["preprocess_ns"] < timed.samples["samples_ns"]).all()
    assert set(seen) == {(1, 16), (3, 16)}


def test_the_device_tells_the_parts_of_a_query() -> None:
    class Device(Scripted):
        def timed_call(self, batch: np.ndarray) -> "tuple[np.ndarray, dict[str, float]]":
            assert batch.dtype == np.float32 and batch.max() <= 1
            self.clock.moment += 10_000_000
            return np.zeros((1, 2), np.float32), {"h2d_ms": 1.0, "compute_ms": 6.5, "d2h_ms": 0.5}

    runner = Device(FakeClock())
    one = TimingSubject("x", lambda size: runner, lambda _: images(), None)
    (timed,) = measure_latency([one], ask(), runner.clock)
    valid(as_json(timed.latency))
    assert timed.latency.parts == QueryParts(30, h2d_ms=1.0, compute_ms=6.5, d2h_ms=0.5, host_ms=2.0, total_ms=10.0)


# ---------------------------------------------------------------------------------------------- several artifacts


def test_several_take_turns_forwards_and_backwards() -> None:
    clock, order = FakeClock(), list[str]()

    class Named(Scripted):
        def __init__(self, name: str, ns: int) -> None:
            super().__init__(clock, (ns for _ in range(9999)))
            self.name = name

        def infer(self, x: np.ndarray) -> np.ndarray:
            order.append(self.name)
            return super().infer(x)

    runners = {"a": Named("a", 2000), "b": Named("b", 3000)}
    subjects = [TimingSubject(name, lambda size, name=name: runners[name], lambda _: images()) for name in runners]
    found = measure_latency(subjects, ask(samples=40), clock)
    turn = [*"a" * (2 + AGAIN), *"b" * (2 + AGAIN), *"b" * (2 + AGAIN), *"a" * (2 + AGAIN)]
    assert order[: 6 + len(turn)] == [*"aaabbb", *turn], "first and warm-up, then the turns"
    assert [len(timed.samples["samples_ns"]) for timed in found] == [40, 40]
    assert all(len(timed.rounds["single-stream"]) == ROUNDS for timed in found)
    (row,) = compare_timings(found)
    assert (row["name"], row["to"], row["what"]) == ("b", "a", "single-stream")
    assert row["ratio"] == pytest.approx(1.5) and row["interval"] == pytest.approx([1.5, 1.5])
    assert found[0].latency.conditions.turns == ROUNDS


def test_the_interval_of_a_ratio_holds_what_is_true_as_often_as_it_says() -> None:
    rng, held, runs = np.random.default_rng(0), 0, 300
    for seed in range(runs):
        mood = rng.lognormal(0, 0.5, ROUNDS)  # of the machine, the same for both
        these, those = (mood * level * rng.lognormal(0, 0.1, ROUNDS) for level in (1.2, 1.0))
        found = PairedTurns(these.tolist(), those.tolist()).ratio(seed)
        low, high = found["interval"]
        assert low < found["ratio"] < high < 1.2 * 1.3
        held += low <= 1.2 <= high
    assert 0.88 * runs < held < 0.99 * runs


# ---------------------------------------------------------------------------------------------- load and memory


def test_busy_processes_run_beside_it_and_end() -> None:
    others = set(_children())
    with harness.load_running("2") as said:
        assert said == {"processes": 2}
        mine = sorted(set(_children()) - others)
        assert len(mine) == 2
        before = [_cpu(pid) for pid in mine]
        time.sleep(0.3)
        assert all(_cpu(pid) > then for pid, then in zip(mine, before, strict=True))
    assert set(_children()) <= others


def test_a_command_runs_beside_it_with_all_that_it_starts() -> None:
    others = set(_children())
    with harness.load_running("sh -c 'sleep 60 & sleep 60'") as said:
        assert said == {"command": "sh -c 'sleep 60 & sleep 60'"}
        (shell,) = set(_children()) - others
        assert len(_alive(shell)) >= 2
    for _ in range(50):
        if not _alive(shell):
            break
        time.sleep(0.02)
    assert not _alive(shell)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0", "at least 1"),
        ("no-such-program-anywhere --x", "no such program"),
        ("'unfinished", "No closing quotation"),
        ("false", "ended at once (exit code 1)"),
        ("", "no such program"),
    ],
)
def test_a_load_that_cannot_be(asked: str, said: str) -> None:
    with pytest.raises(CompressError) as fault, harness.load_running(asked):
        pass
    assert said in str(fault.value) and "\n" not in str(fault.value)


def test_a_load_that_ends_before_the_measurement_is_no_load() -> None:
    with pytest.raises(CompressError, match="ended before the measurement did"), harness.load_running("sleep 0.4"):
        time.sleep(0.6)


def _children() -> list[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children")
    if not found.exists():
        pytest.skip("this kernel lists no children")
    return [int(pid) for pid in found.read_text().split()]


def _alive(group: int) -> list[int]:
    """Processes of a group that are not dead, or dead and not yet collected by their parent."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            found += [int(stat.parent.name)] if int(of) == group and state != "Z" else []
    return found


def _cpu(pid: int) -> int:
    """TimingClock ticks that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


PEAKS = """
import json, numpy as np
from edge.bench import harness as memory
said = [memory.reset_peak_memory()]
for _ in range(2):
    low = memory.peak_memory(True).peak_rss_bytes
    block = np.ones(50_000_000, np.uint8)
    del block
    said += [low, memory.peak_memory(True).peak_rss_bytes, memory.reset_peak_memory()]
print(json.dumps([*said, vars(memory.peak_memory(False))]))
"""


def test_peak_memory_is_that_of_the_measurement() -> None:
    """In a process of its own: in one that holds gigabytes, other memory comes and goes meanwhile."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    possible, *rounds, whole = json.loads(done.stdout)
    if not possible:
        pytest.skip("the high-water mark cannot be reset here")
    for low, high, _ in (rounds[:3], rounds[3:]):
        assert 40e6 < high - low < 80e6
    assert whole["peak_rss_bytes"] > 40e6 and "start" in whole["since"]


# ---------------------------------------------------------------------------------------------- before it begins


def test_a_size_that_the_file_does_not_take_is_refused_before_anything_runs(tmp_path: Path) -> None:
    fixed = linear.linear(tmp_path / "fixed.onnx", WEIGHTS, batch=4)
    with pytest.raises(CompressError, match="takes batches of 4, asked to be timed at 8; name 4, or export"):
        check_timing([subject(fixed)], ask(sweep=[4, 8]))
    check_timing([subject(fixed)], ask(sweep=[4]))
    (timed,) = measure_latency([subject(fixed)], ask())
    assert timed.latency.batch_size == 4


def config(**more: Any) -> dict[str, Any]:
    """As `BenchConfig.model_dump()` gives it."""
    about = {"seed": 0, "device": "cpu", "threads": 1, "preprocess": None, "frames": None}
    return {"batch_size": 1, "warmup": 1, "samples": 8, "seconds": 0.02, **about, **more}


def test_a_run_writes_result_and_samples_at_once(graph: Path, tmp_path: Path) -> None:
    other = linear.linear(tmp_path / "other.onnx", 2 * WEIGHTS)
    out = tmp_path / "timed"
    found = run.run_bench([graph, other], config(sweep=[1, 2]), out=out)
    assert json.loads((out / "bench.json").read_text()) == json.loads(json.dumps(found))
    assert [row["name"] for row in found["artifacts"]] == [str(graph), str(other)] and found["queries"] == run.NOISE
    assert found["artifacts"][0]["sha256"] != found["artifacts"][1]["sha256"]
    assert [row["what"] for row in found["compared"]] == ["single-stream", "batch 1", "batch 2"]
    with np.load(out / "samples-1.npz") as raw:
        assert {"samples_ns", "batch_1_ns", "batch_2_ns"} == set(raw)
    assert sorted(path.name for path in out.iterdir()) == [
        "bench.json",
        "evidence.npz",
        "samples-0.npz",
        "samples-1.npz",
    ]
    with pytest.raises(CompressError, match="is there already"):
        run.run_bench([graph], config(), out=out)
    with pytest.raises(CompressError, match="no folder"):
        run.run_bench([graph], config(), out=tmp_path / "a" / "b")
    assert not list(tmp_path.glob("*.partial"))


def test_images_and_noise_as_queries(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.runtimes.onnxruntime.runner import OnnxRunner

    seen: set[bytes] = set()
    infer = OnnxRunner.infer
    monkeypatch.setattr(
        OnnxRunner, "infer", lambda self, x: (seen.add(x.tobytes()) if x.dtype == np.uint8 else None, infer(self, x))[1]
    )
    given = np.full((3, *linear.SHAPE), 5, np.uint8)
    assert run.run_bench([graph], config(), images=given, shown="five")["queries"] == "five"
    assert seen == {given[:1].tobytes()}
    seen.clear()
    run.run_bench([graph], config(seed=1))
    noise = np.random.default_rng(1).integers(0, 256, (run.NOISE_IMAGES, *linear.SHAPE), dtype=np.uint8)
    assert seen == {noise[i : i + 1].tobytes() for i in range(1 + 1 + 8)}, "first, warm-up, samples"


def test_a_measurement_needs_nothing_heavy() -> None:
    assert not imported("import edge.bench.run, edge.verify.preprocess_parity") & (HEAVY | {"onnxruntime"})


def test_faults_of_a_run_are_one_line(graph: Path, tmp_path: Path) -> None:
    for more, said in (
        ({"frames": "x.npy"}, "x.npy: not readable"),
        ({"load": "nothing-like-this"}, "no such program"),
        ({"device": "abacus"}, "abacus"),
        ({"preprocess": "nowhere:at_all"}, "no module nowhere"),
    ):
        with pytest.raises(CompressError, match=said) as fault:
            run.run_bench([graph], config(**more), out=tmp_path / "out")
        assert "\n" not in str(fault.value) and not (tmp_path / "out").exists()
    np.save(tmp_path / "f.npy", np.zeros((4, 16), np.uint8))
    with pytest.raises(CompressError, match="give it too"):
        run.run_bench([graph], config(frames=str(tmp_path / "f.npy")))
