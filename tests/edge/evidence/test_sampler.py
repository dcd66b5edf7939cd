"""The sampling process, in earnest: it watches, is cheap, and never outlives who started it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.evidence import Sampler, Samples, Watch
from edge.evidence.samples import sample_summary
from edge.evidence.watch import COMMAND
from tests.edge import boards

ROOT = Path(edge.__file__).parents[1]
PATIENCE_S = 20.0


def until(holds: Callable[[], bool]) -> bool:
    """Whether it holds before patience ends."""
    end = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def busy(seconds: float) -> tuple[int, int]:
    """Work for that long; when, on the monotonic clock."""
    began = time.monotonic_ns()
    while time.monotonic_ns() - began < seconds * 1e9:
        pass
    return began, time.monotonic_ns()


def test_this_machine_is_watched_while_it_works() -> None:
    before = time.monotonic_ns()
    with Sampler(interval_s=0.02, gpu=False) as sampler:
        assert {"s.busy", "s.total", "s.steal", "s.own"} <= set(sampler.channels)
        spent = time.process_time()
        span = busy(0.5)
        spent = time.process_time() - spent
    found = sampler.samples
    assert before <= found.times_ns[0] <= span[0] and span[1] <= found.times_ns[-1] <= time.monotonic_ns()
    assert len(found) >= 3 and (np.diff(found.times_ns) > 0).all()
    assert 0 < found.about["cpu_s"] < found.about["wall_s"]
    cores = sample_summary(found, span)["cores"]
    assert cores["own"] == pytest.approx(spent / ((span[1] - span[0]) / 1e9), abs=0.1)
    assert cores["busy"] >= cores["own"] - 0.1
    total = found.values["s.total"]
    assert (np.diff(total) >= 0).all() and total[-1] - total[0] == pytest.approx(
        (found.times_ns[-1] - found.times_ns[0]) / 1e9 * os.cpu_count(), rel=0.3
    )


@pytest.mark.parametrize(
    ("board", "values"),
    [
        ("orin-nx", {"mw.VDD_IN": 24738.048, "mhz.gpu": 1173.0, "mhz.emc": 3199.0, "celsius.tj": 99.093}),
        (
            "agx-orin",
            {"mw.VDDQ_VDD2_1V8AO": 753.6, "mhz.cpu11": 2201.6, "share.gpu": 0.0, "state.hot-surface-alert": 0.0},
        ),
        ("thor", {"mw.VIN": 87426.0, "mhz.gpu": 1386.0, "mhz.emc": 4266.0, "events.oc3": 0.0}),
    ],
)
def test_a_recorded_board_is_sampled_by_the_same_code(tmp_path: Path, board: str, values: "dict[str, float]") -> None:
    with Sampler(interval_s=0.01, sysroot=boards.unpack(board, tmp_path)) as sampler:
        assert sampler.measures_energy and not any(name.startswith("mw.NC") for name in sampler.channels)
        time.sleep(0.05)
    for name, value in values.items():
        assert sampler.samples.values[name] == pytest.approx(value)
    assert not any(np.isfinite(row).any() for name, row in sampler.samples.values.items() if "celsius.cv" in name)


def test_energy_of_a_recorded_board_above_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board whose power does not change: gross is power times time, nothing is above idle."""
    monkeypatch.setattr("edge.evidence.watch.REST_S", 0.6)
    watch = Watch(gpu=False, sysroot=boards.unpack("orin-nx", tmp_path))
    with watch.timing():
        span = busy(0.7)
    found = watch.found({"single-stream": (*span, 100), "batch 8": (*span, 50)}, 0.01, None)
    during = found["machine"]["during"]
    seconds = (span[1] - span[0]) / 1e9
    assert during["energy"]["gross_mj"] == pytest.approx(24738.048 * seconds / 100, rel=1e-6)
    assert during["energy"]["net_mj"] == pytest.approx(0, abs=1e-3) and during["energy"]["rails"] == ["VDD_IN"]
    assert during["energy_of_others"]["batch 8"]["gross_mj"] == pytest.approx(24738.048 * seconds / 50, rel=1e-6)
    assert {"throttled", "hot", "few-samples"} <= {row["name"] for row in found["warnings"]}
    assert during["span_ns"] == list(span) and during["what"] == "single-stream"


SLEEPER = """
import signal, time
from edge.evidence import Sampler
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
with Sampler(gpu=False) as sampler:
    print(sampler._process.pid, flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
print(len(sampler.samples), sampler.samples.about.get("fault"), flush=True)
"""


@pytest.fixture
def measuring() -> "subprocess.Popen[str]":
    """A process that samples, the leader of a group of its own; its first line is its sampler's id."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    with process:
        yield process
        process.kill()


def test_it_ends_with_a_parent_that_is_killed(measuring: "subprocess.Popen[str]") -> None:
    assert measuring.stdout is not None
    pid = int(measuring.stdout.readline())
    assert lives(pid)
    measuring.kill()
    assert until(lambda: not lives(pid))


def test_ctrl_c_loses_no_sample(measuring: "subprocess.Popen[str]") -> None:
    """It reaches both processes; the one that measures decides."""
    assert measuring.stdout is not None
    pid = int(measuring.stdout.readline())
    time.sleep(0.3)
    os.killpg(measuring.pid, signal.SIGINT)
    count, fault = measuring.stdout.readline().split()
    assert int(count) >= 2 and fault == "None"
    assert until(lambda: not lives(pid))


def test_a_process_that_dies_costs_the_samples_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Sampler(gpu=False) as sampler:
        assert sampler._process is not None
        sampler._process.kill()
    assert len(sampler.samples) == 0 and sampler.samples.about["fault"] == "the sampling process ended before its time"
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/python3"], "/nowhere/python3 cannot be started (No such file or directory)"),
        ([sys.executable, "-c", "raise SystemExit('no such verb')"], "did not begin (no such verb)"),
        ([sys.executable, "-c", "print('hello')"], "did not begin (it said nothing)"),
        ([sys.executable, "-c", "print('[1]')"], "did not begin (it said nothing)"),
    ],
)
def test_one_that_does_not_begin_says_why(command: "list[str]", why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Sampler(command=command) as sampler:
        assert sampler.channels == [] and not sampler.measures_energy
    assert why in sampler.samples.about["fault"] and isinstance(sampler.samples, Samples)
    assert why in capsys.readouterr().err


def test_it_works_out_of_a_zip_file(tmp_path: Path) -> None:
    """One file that holds everything, as a board gets it; its own command may be named instead."""
    archive = tmp_path / "edge.pyz"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(
            "__main__.py", "import sys\nfrom edge.evidence import channels\nchannels.record_samples(sys.argv[2:])\n"
        )
        for path in Path(edge.__file__).parent.rglob("*.py"):
            packed.write(path, path.relative_to(ROOT))
    script = (
        "import sys\nfrom edge.evidence import Sampler\nfrom edge.evidence.watch import COMMAND\n"
        "for command in (COMMAND, (sys.executable, sys.argv[1], 'sample')):\n"
        "    with Sampler(gpu=False, command=command) as sampler: pass\n"
        "    print(len(sampler.samples), sampler.samples.about.get('fault'))\n"
    )
    run = [sys.executable, "-c", script, str(archive)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(archive)})
    assert [line.split() for line in done.stdout.splitlines()] == [["2", "None"]] * 2, done.stderr
    assert COMMAND[0] == sys.executable
