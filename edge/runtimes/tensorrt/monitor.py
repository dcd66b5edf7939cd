"""A build's progress on the usual bar, and the places where a build can be ended: Ctrl-C, memory running out."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from edge.core import machine
from edge.core.progress import Progress, say

WHOLE = 100
#: Where this much memory is left the build ends, before the system picks a process to kill.
LEAST_BYTES, SCARCE_BYTES = 96 << 20, 512 << 20


class Phases:
    """Nested phases of named steps as one share of the whole. Called from several threads of the builder."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, int]] = {}  # phase → parent, steps
        self._done: dict[str, float] = {}
        self.interrupted = self.out_of_memory = self._warned = False

    def start(self, phase: str, parent: "str | None", steps: int) -> None:
        with self._lock:
            self._open[phase] = (parent or "", max(steps, 1))
            self._done[phase] = 0.0

    def step(self, phase: str, number: int) -> bool:
        """Step `number` of a phase is done; whether the build goes on."""
        with self._lock:
            if phase in self._open:
                self._done[phase] = max(self._done[phase], number + 1.0)
                self._show(phase)
            self._watch()
            return not (self.interrupted or self.out_of_memory)

    def finish(self, phase: str) -> None:
        with self._lock:
            if phase in self._open:
                self._done[phase] = float(self._open[phase][1])
                self._show(phase)
                del self._open[phase], self._done[phase]

    def _show(self, phase: str) -> None:
        share = min(self._share(name) for name, (parent, _) in self._open.items() if parent not in self._open)
        self._bar.step(max(0, int(WHOLE * share) - self._bar.done), note=phase)

    def _share(self, phase: str) -> float:
        """Its finished steps, and of the one that is running what its own phases have done."""
        _, steps = self._open[phase]
        inner = max((self._share(name) for name, (parent, _) in self._open.items() if parent == phase), default=0.0)
        return min(1.0, (self._done[phase] + min(inner, 0.99)) / steps)

    def _watch(self) -> None:
        left = machine.memory_available()
        if left is None or left >= SCARCE_BYTES:
            return
        if left < LEAST_BYTES:
            self.out_of_memory = True
        elif not self._warned:
            self._warned = True
            say(f"memory is short while the engine is built: {left >> 20} MiB left")


def monitor(module: Any, phases: Phases) -> Any:
    """The library's own progress monitor over `phases`; it must live as long as the build."""

    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: "str | None", num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


@contextlib.contextmanager
def interruptible(phases: Phases) -> Iterator[None]:
    """Inside, Ctrl-C ends the build at its next step, and KeyboardInterrupt is raised at the end.

    Python would raise it inside a callback, where the library swallows it. Where something else listens to the signal
    (the command line leaves at once) or outside the main thread nothing is changed.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: Any) -> None:
        phases.interrupted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if phases.interrupted:
        raise KeyboardInterrupt
