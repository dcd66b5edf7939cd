"""The progress of a job on a board, shown here as if it ran here."""

from collections.abc import Mapping
from typing import Any

from edge.core.errors import CompressError
from edge.core.progress import Progress, say

TEXT_MOST = 500


class Replay:
    """Events of a board's progress on this machine's bars; `offset` is how far the board's record of them was read."""

    def __init__(self, host: str) -> None:
        self.offset = 0
        self._host = host
        self._bars: dict[str, Progress] = {}

    def show(self, header: Mapping[str, Any]) -> None:
        """One frame {"offset", "event"}; another form is a fault of the board."""
        try:
            self.offset = int(header["offset"])
            self._event(header["event"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CompressError(f"{self._host}: sent progress of a form that is not known here") from None

    def _event(self, event: Mapping[str, Any]) -> None:
        if "say" in event:
            say(f"{self._host}: {_plain(event['say'])}")
            return
        label = _plain(event["label"])
        bar = self._bars.get(label)
        if bar is None:
            bar = self._bars[label] = Progress(f"{self._host}: {label}", int(event["total"])).__enter__()
        bar.step(int(event["done"]) - bar.done, _plain(event["note"]))
        if event["end"] is not None:
            del self._bars[label]
            bar.__exit__(None if event["end"] else CompressError, None, None)


def _plain(text: str) -> str:
    """Text from afar, without what would move a terminal's cursor."""
    return "".join(c for c in text[:TEXT_MOST] if c.isprintable())
