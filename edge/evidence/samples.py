"""What a sampler brought home: numbers over time, cut to an interval, kept in a file; the energy of what was timed,
from power over time or from counters; and the figures of the timed part that a statement carries.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core.errors import CompressError
from edge.evidence import nvml
from edge.evidence.power import summands

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
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                rows = {name: archive[name] for name in archive.files}
            times, about = rows.pop(TIMES), json.loads(str(rows.pop(ABOUT)))
        except Exception as fault:  # zip, numpy and JSON each have their own
            raise CompressError(f"{path}: not readable as samples ({fault}); verify the artifact again") from None
        fit = all(row.shape == times.shape and row.dtype == np.float64 for row in rows.values())
        if times.dtype != np.int64 or times.ndim != 1 or not fit or not isinstance(about, dict):
            raise CompressError(f"{path}: samples of another form or unequal length; verify the artifact again")
        return cls(times, rows, about)


# -------------------------------------------------------------------------------------------------------------- energy


FEWEST = 10  # samples in an interval: fewer say little of its mean power

ALIKE = 0.01  # of the whole: a difference within it is noise


def timed_energy(
    samples: Samples, interval: Interval, idle: "Interval | None" = None, *, inferences: int = 1
) -> dict[str, Any]:
    """mJ of each of `inferences` within `interval`: {gross_mj, net_mj, mean_mw, idle_mw, seconds, rails, source, why}.

    `net_mj` has the mean power during `idle` subtracted, the same machine with nothing to do. Power by rail is
    integrated over the time stamps (trapezoid) and summed over rails that hold no other one; a counter, where there
    is one, is taken as it stands. Where there is no figure it is null and `why` says the reason.
    """
    seconds = (interval[1] - interval[0]) / 1e9
    energy: dict[str, Any] = dict.fromkeys(("gross_mj", "net_mj", "mean_mw", "idle_mw"))
    energy |= {"seconds": seconds, "rails": [], "source": None, "why": None}
    sources = _sources(samples)
    if not sources:
        return energy | {"why": samples.about.get("fault") or "no power monitor or energy counter could be read"}
    inside = _inside(samples, interval)
    if inside < FEWEST or inferences < 1:
        return energy | {
            "why": f"{inside} samples of power in the {seconds:.2f} s that were timed, {FEWEST} are needed"
        }
    total = _total(samples, sources, interval)
    energy |= {
        "gross_mj": total / inferences,
        "mean_mw": total / seconds,
        "rails": [name.partition(".")[2] for name in sources],
        "source": "counter" if all(name.startswith("mj.") for name in sources) else "power over time",
    }
    if idle is None or _inside(samples, idle) < FEWEST:
        return energy | {"why": "idle power was not measured"}
    energy["idle_mw"] = idle_mw = _total(samples, sources, idle) / ((idle[1] - idle[0]) / 1e9)
    net = total - idle_mw * seconds
    if net < -ALIKE * total:
        return energy | {"why": f"idle took more, {idle_mw:.0f} mW, than the timed part: something else ran meanwhile"}
    return energy | {"net_mj": max(0.0, net) / inferences}


def _inside(samples: Samples, interval: Interval) -> int:
    return int(((samples.times_ns >= interval[0]) & (samples.times_ns <= interval[1])).sum())


def _sources(samples: Samples) -> list[str]:
    """Channels that together are everything, nothing twice: a Jetson's rails, else counters of GPU and processor.

    A GPU's own counter and its power are one thing.
    """
    there = [name for name, row in samples.values.items() if np.isfinite(row).sum() >= 2]
    rails = summands([name[3:] for name in there if name.startswith("mw.") and name != "mw.GPU"])
    if rails:
        return [f"mw.{name}" for name in rails]
    counters = [name for name in there if name.startswith("mj.")]
    return counters + (["mw.GPU"] if "mw.GPU" in there and "mj.GPU" not in there else [])


def _total(samples: Samples, sources: "list[str]", interval: Interval) -> float:
    return sum(_channel_energy(samples, name, interval) for name in sources)


def _channel_energy(samples: Samples, name: str, interval: Interval) -> float:
    """mJ of one channel within the interval, its ends interpolated."""
    if name.startswith("mj."):
        # With a counter that never goes back: at its range it starts again from 0
        ranges: Mapping[str, float] = samples.about.get("ranges", {})
        row = samples.values[name]
        there = np.isfinite(row)
        kept: npt.NDArray[np.float64] = row[there]
        steps = np.diff(kept, prepend=kept[:1])
        steps = np.where(steps < 0, steps + ranges.get(name, 0.0), steps)
        whole = Samples(samples.times_ns[there], {name: kept[0] + np.cumsum(steps)}, samples.about)
        first, last = whole.at(name, np.array(interval, np.int64))
        return float(last - first)
    times = samples.times_ns
    inner = times[(times > interval[0]) & (times < interval[1])]
    moments = np.concatenate([[interval[0]], inner, [interval[1]]]).astype(np.int64)
    power = samples.at(name, moments)
    return float(((power[1:] + power[:-1]) / 2 * np.diff(moments)).sum() / 1e9)


# ------------------------------------------------------------------------------------------------------------- figures


LEVELS = ("mhz", "celsius", "mw")


def sample_summary(
    samples: Samples, interval: Interval, *, idle: "Interval | None" = None, inferences: int = 1
) -> dict[str, Any]:
    """What `samples` say of the timed `interval`; of nothing sampled, `fault` says why.

    n, seconds, hz          samples within, and how often; `longest_gap_ms` between two of them
    sampler_cpu             the sampler's own share of a core
    mhz, celsius, mw        {name: {min, mean, max}}
    cores                   mean cores: `busy` in all, `own` of this process, `others` of all else, `steal` by the host
    gpu_busy                mean share
    throttled, events       {cooling device: highest state}, {counter: how much it grew}
    held_down_by            what NVML says that holds the GPU's clock down
    energy                  as `timed_energy` gives it
    """
    cut = samples.cut(interval)
    inside = samples.times_ns[(samples.times_ns >= interval[0]) & (samples.times_ns <= interval[1])]
    seconds = (interval[1] - interval[0]) / 1e9
    gaps = np.diff(cut.times_ns)
    busy, bits = (_channels_of(cut, unit).get("gpu") for unit in ("share", "bits"))
    figures: dict[str, Any] = {
        "n": len(inside),
        "seconds": seconds,
        "hz": len(inside) / seconds if seconds > 0 else 0.0,
        "longest_gap_ms": float(gaps.max()) / 1e6 if len(gaps) else None,
        "sampler_cpu": _share(samples),
        **{
            unit: {
                name: {"min": float(row.min()), "mean": float(row.mean()), "max": float(row.max())}
                for name, row in _channels_of(cut, unit).items()
            }
            for unit in LEVELS
        },
        "cores": _cores(cut),
        "gpu_busy": None if busy is None else float(busy.mean()),
        "throttled": {name: float(row.max()) for name, row in _channels_of(cut, "state").items()},
        "events": {name: float(row[-1] - row[0]) for name, row in _channels_of(cut, "events").items()},
        "held_down_by": None if bits is None else nvml.words(int(np.bitwise_or.reduce(bits.astype(np.int64)))),
        "energy": timed_energy(samples, interval, idle, inferences=inferences),
        "unreadable": list(samples.about.get("unreadable", ())),
    }
    return figures | {"fault": samples.about.get("fault")}


def _share(samples: Samples) -> "float | None":
    wall = samples.about.get("wall_s")
    return samples.about["cpu_s"] / wall if wall else None


def _channels_of(samples: Samples, unit: str) -> "dict[str, np.ndarray]":
    """Channels of a unit without their gaps; a channel of gaps alone is none."""
    rows = {name.partition(".")[2]: row for name, row in samples.values.items() if name.startswith(f"{unit}.")}
    return {name: row[np.isfinite(row)] for name, row in rows.items() if np.isfinite(row).any()}


def _cores(samples: Samples) -> "dict[str, float] | None":
    """From what the counters of processor time grew between the first and the last sample."""
    rows = _channels_of(samples, "s")
    spent = {name: float(row[-1] - row[0]) for name, row in rows.items() if len(row) >= 2}
    wall = float(samples.times_ns[-1] - samples.times_ns[0]) / 1e9 if len(samples) >= 2 else 0.0
    if "busy" not in spent or wall <= 0:
        return None
    cores: dict[str, float] = {name: spent[name] / wall for name in ("busy", "own", "steal") if name in spent}
    if "own" in cores:
        sampler = _share(samples) or 0.0
        cores["others"] = max(0.0, cores["busy"] - cores["own"] - sampler)
    return cores
