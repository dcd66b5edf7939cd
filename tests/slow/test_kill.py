"""The demo, killed at random moments and repeated: the same payload, bit for bit, as an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.core import artifact

pytestmark = pytest.mark.slow

KILLS = 5


def start(out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "compress", "run", "quickstart", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def payloads(root: Path) -> dict[str, dict[str, str]]:
    """Every stage's payload hashes, each stage read (and so checked) on the way."""
    found = {}
    for manifest in sorted(root.rglob("manifest.json")):
        stage = artifact.read(manifest.parent)
        entries = stage.manifest["payload"].items()
        found[str(manifest.parent.relative_to(root))] = {name: entry["sha256"] for name, entry in entries}
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    out = tmp_path_factory.mktemp("whole") / "run"
    began = time.monotonic()
    process = start(out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return out, time.monotonic() - began


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_after_kills_at_random_moments_the_payload_is_the_undisturbed_one(
    undisturbed: tuple[Path, float], tmp_path: Path, how: signal.Signals
) -> None:
    whole, seconds = undisturbed
    out, draw = tmp_path / "run", random.Random(how.value)
    for _ in range(KILLS):
        process = start(out)
        try:
            _, errors = process.communicate(timeout=draw.uniform(0.5, seconds / 3))
            assert process.returncode == 0, errors.decode()[-2000:]  # it came to its end first
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            _, errors = process.communicate()
            assert process.returncode == (130 if how != signal.SIGKILL else -signal.SIGKILL)
            if how != signal.SIGKILL:
                assert errors.decode().splitlines()[-1].startswith("compress: interrupted (SIG")
        for manifest in out.rglob("manifest.json"):
            if not any(part.endswith(".partial") for part in manifest.relative_to(out).parts):
                artifact.read(manifest.parent)  # whatever looks complete is complete
    process = start(out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert payloads(out) == payloads(whole)
    assert len(payloads(out)) == 10
    assert not [path for path in out.rglob("*") if path.name.endswith((".partial", ".old", ".tmp"))]


def test_a_finished_run_is_only_judged_again(undisturbed: tuple[Path, float]) -> None:
    out, _ = undisturbed
    before = {path: os.stat(path).st_mtime_ns for path in out.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "compress", "run", "quickstart", "--out", str(out), "--json"]
    again = subprocess.run([*command, "--require", "robust>=0.99"], capture_output=True, text=True, check=False)
    assert again.returncode == 3
    assert json.loads(again.stdout)
    assert {path: os.stat(path).st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
