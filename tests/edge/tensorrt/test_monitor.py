"""Nested phases of a build as one share on the bar."""

import pytest

from edge.core.progress import Progress
from edge.runtimes.tensorrt import build
from edge.runtimes.tensorrt.build import Phases


def test_nested_phases_are_shares_of_the_step_that_holds_them() -> None:
    bar = Progress("engine", build.WHOLE)
    phases = Phases(bar)
    phases.start("all", None, 4)
    assert phases.step("all", 0) and bar.done == 25
    phases.start("one", "all", 2)
    phases.step("one", 0)
    assert bar.done == 37 and bar.note == "one"  # half of the second quarter
    phases.finish("one")
    assert bar.done == 49  # its step is not done before it says so
    phases.step("all", 1)
    assert bar.done == 50
    phases.finish("all")
    assert bar.done == 100


def test_the_share_never_falls_and_strangers_do_no_harm() -> None:
    bar = Progress("engine", build.WHOLE)
    phases = Phases(bar)
    phases.finish("never started")
    assert phases.step("never started", 3) and bar.done == 0
    phases.start("all", None, 0)  # of no steps at all
    phases.start("again", "all", 2)
    phases.step("again", 1)
    high = bar.done
    phases.finish("again")
    phases.start("again", "all", 2)
    phases.step("again", 0)
    assert bar.done >= high
    phases.finish("all")
    phases.finish("again")
    assert bar.done == 100


def test_short_memory_is_said_once_and_too_little_ends_the_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = Phases(Progress("engine", build.WHOLE))
    phases.start("all", None, 10)
    for left, goes_on in ((1 << 30, True), (300 << 20, True), (200 << 20, True), (50 << 20, False)):
        monkeypatch.setattr(build.machine, "memory_available", lambda left=left: left)
        assert phases.step("all", 0) == goes_on
    assert capsys.readouterr().err == "memory is short while the engine is built: 300 MiB left\n"
    assert phases.out_of_memory
