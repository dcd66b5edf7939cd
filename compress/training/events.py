"""The metrics as TensorBoard event files, where that package is installed."""

import importlib.util
from typing import Any

from compress.training import checkpoint
from edge.core.artifact import Work
from edge.core.progress import say


class Events:
    """Event files in the folder of the stage in the making, a point a metric and epoch.

    An earlier attempt's file is gone, so the rows it had are written first.
    """

    def __init__(self, work: Work) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.work = work
        self.writer = SummaryWriter(log_dir=str(work.path))
        for row in checkpoint.rows(work):
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Every figure of one epoch."""
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """The files become records of the stage."""
        self.writer.close()
        for path in sorted(self.work.path.glob("events.out.tfevents.*")):
            self.work.add_record(path.name)


def opened(wanted: bool, work: Work, label: str) -> "Events | None":
    """Where the metrics go as events, if that is wanted and possible."""
    if not wanted:
        return None
    if importlib.util.find_spec("tensorboard") is None:
        say(f"{label}: tensorboard is not installed, no event files; pip install 'robust-compress[tensorboard]'")
        return None
    return Events(work)
