"""What a sampler brought home: numbers over time, cut to an interval, kept in a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.errors import CompressError

FILE = "evidence.npz"
TIMES, ABOUT = "monotonic_ns", "about"
Interval = tuple[int, int]  # ns on the monotonic clock, beginning and end


@dataclass(frozen=True)
class Samples:
    """`times_ns` int64 (n,) on the monotonic clock; each of `values` float64 (n,), NaN where nothing was read.

    `about`: {interval_s, wall_s, cpu_s: the sampler's own processor time, ranges: mJ at which a counter restarts,
    unreadable}, and `fault` where there are no samples.
    """

    times_ns: "npt.NDArray[np.int64]" = field(default_factory=lambda: np.empty(0, np.int64))
    values: "Mapping[str, npt.NDArray[np.float64]]" = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times_ns)

    def cut(self, interval: Interval) -> "Samples":
        """Samples inside the interval, and the nearest one on each side: what bounds it is known as well."""
        first = max(0, int(np.searchsorted(self.times_ns, interval[0], "right")) - 1)
        last = int(np.searchsorted(self.times_ns, interval[1], "left")) + 1
        part = slice(first, last)
        return Samples(self.times_ns[part], {name: row[part] for name, row in self.values.items()}, self.about)

    def at(self, name: str, moments_ns: "npt.NDArray[np.int64]") -> "npt.NDArray[np.float64]":
        """A channel at any moments, linear between its samples, constant beyond them; gaps are bridged."""
        there = np.isfinite(self.values[name])
        origin = self.times_ns[0]
        return np.interp(moments_ns - origin, self.times_ns[there] - origin, self.values[name][there])

    def write(self, path: Path) -> None:
        with open(path, "wb") as file:
            rows: dict[str, Any] = {TIMES: self.times_ns, ABOUT: np.array(json.dumps(dict(self.about))), **self.values}
            np.savez_compressed(file, **rows)

    @classmethod
    def read(cls, path: Path) -> "Samples":
        """From the file; one that is damaged or of another form: CompressError."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
                rows = {name: found[name] for name in found.files}
            times, about = rows.pop(TIMES), json.loads(str(rows.pop(ABOUT)))
        except Exception as fault:  # zip, numpy and JSON each have their own
            raise CompressError(f"{path}: not readable as samples ({fault}); verify the artifact again") from None
        fit = all(row.shape == times.shape and row.dtype == np.float64 for row in rows.values())
        if times.dtype != np.int64 or times.ndim != 1 or not fit or not isinstance(about, dict):
            raise CompressError(f"{path}: samples of another form or unequal length; verify the artifact again")
        return cls(times, rows, about)
