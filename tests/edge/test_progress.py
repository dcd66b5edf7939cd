"""Progress on a terminal and elsewhere, with a clock of the test's own."""

import io

import pytest

from edge.core import progress
from edge.core.progress import ERASE, Progress, say


class Screen(io.StringIO):
    """What stderr is replaced with."""

    terminal = True

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def screen(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Screen:
    made = Screen()
    made.terminal = terminal
    monkeypatch.setattr("sys.stderr", made)
    return made


def test_elsewhere_a_line_now_and_then_and_one_at_the_end(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch, False)
    with Progress("square", 1000) as bar:
        for _ in range(100):
            clock[0] += 0.5
            bar.step(5, note=f"{bar.done} seen")
    assert shown.getvalue().splitlines() == [
        "square 100/1,000  1:30 min left  95 seen",
        "square 200/1,000  1:20 min left  195 seen",
        "square 300/1,000  1:10 min left  295 seen",
        "square 400/1,000  1:00 min left  395 seen",
        "square 500/1,000  50 s left  495 seen",
        "square 500/1,000  in 50 s  495 seen",
    ]
    assert "\r" not in shown.getvalue()


def test_time_left_is_one_estimate_by_the_rate_of_this_process_or_the_budget(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = screen(monkeypatch, False)
    with Progress("training", 1000, done=500) as bar:  # another process did half of it
        for most_s in (400.0, 90.0, None):
            clock[0] += 20
            bar.step(100, most_s=most_s)
    assert shown.getvalue().splitlines() == [
        "training 600/1,000  1:20 min left",
        "training 700/1,000  1:00 min left",
        "training 800/1,000  40 s left",
        "training 800/1,000  in 1:00 min",
    ]
    shown = screen(monkeypatch, False)
    with Progress("training", 1000) as bar:
        clock[0] += 20
        bar.step(10, most_s=70.0)
        clock[0] += 20
        bar.step(0, most_s=50.0)
    assert shown.getvalue().splitlines()[:2] == [
        "training 10/1,000  1:10 min of the budget left",
        "training 10/1,000  50 s of the budget left",
    ]


def test_on_a_terminal_one_line_is_rewritten(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch, True)
    with Progress("replay", 40) as bar:
        for _ in range(40):
            clock[0] += 0.0625  # every second one is 0.1 s after the last that was drawn
            bar.step()
    drawn = shown.getvalue()
    assert drawn.count(ERASE) == 20 + 1 and drawn.count("\n") == 1
    assert drawn.endswith("replay 40/40  in 2 s\n")


def test_a_line_never_wraps_on_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch, True)
    monkeypatch.setenv("COLUMNS", "30")
    with Progress("label", 2) as bar:
        clock[0] += 1
        bar.step(1, note="x" * 100)
        assert max(len(line) for line in shown.getvalue().split(ERASE)) == 29


def test_a_loop_that_fails_says_so(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch, False)
    with pytest.raises(ZeroDivisionError), Progress("x", 3) as bar:
        bar.step(2)
        raise ZeroDivisionError
    assert shown.getvalue() == "x 2/3  stopped\n"


@pytest.mark.parametrize(("seconds", "told"), [(8.4, "8 s"), (59.6, "1:00 min"), (125, "2:05 min"), (3725, "1:02 h")])
def test_times_as_people_read_them(
    seconds: float, told: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = screen(monkeypatch, False)
    with Progress("x", 1):
        clock[0] += seconds
    assert shown.getvalue() == f"x 0/1  in {told}\n"


def test_saying_something_clears_the_bars_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, want in ((True, f"{ERASE}making teacher\n"), (False, "making teacher\n")):
        shown = screen(monkeypatch, terminal)
        say("making teacher")
        assert shown.getvalue() == want
