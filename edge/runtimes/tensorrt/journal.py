"""What a TensorRT library says while it works, kept for messages and for the layers of an engine."""

import threading
from typing import Any

#: The builder's own listing of an engine's layers, which is all there is where no device can load the engine.
LISTING = "Layers:"
KEPT_LINES = 400


class Journal:
    """Warnings, errors and the last listing of layers, of whatever the library did since `clear`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.listener: Any = None  # the library's logger; it must live as long as the library does
        self.clear()

    def clear(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.listing = ""

    def take(self, severity: str, message: str) -> None:
        """One message; the library calls this from its own threads too."""
        if message.startswith(LISTING):
            self.listing = message
        if severity not in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            return
        with self._lock:
            kept = self.warnings if severity == "WARNING" else self.errors
            if len(kept) < KEPT_LINES:
                kept.append(" ".join(message.split()))

    def reason(self) -> str:
        """The first error, which the later ones follow from, short enough for a line."""
        return self.errors[0][:300] if self.errors else "the library gave no reason"


def listen(module: Any) -> Journal:
    """A journal that hears everything of the library `module`.

    A library keeps the first logger of the process and ignores every other, so this is called once for each.
    """
    journal = Journal()

    class Listener(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            journal.take(severity.name, message)

    journal.listener = Listener()
    return journal
