"""Energy of what was timed, from power over time or from counters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evidence.power import summands
from edge.evidence.samples import Interval, Samples

FEWEST = 10  # samples in an interval: fewer say little of its mean power

ALIKE = 0.01  # of the whole: a difference within it is noise


def energy(
    samples: Samples, interval: Interval, idle: "Interval | None" = None, *, inferences: int = 1
) -> dict[str, Any]:
    """mJ of each of `inferences` within `interval`: {gross_mj, net_mj, mean_mw, idle_mw, seconds, rails, source, why}.

    `net_mj` has the mean power during `idle` subtracted, the same machine with nothing to do. Power by rail is
    integrated over the time stamps (trapezoid) and summed over rails that hold no other one; a counter, where there
    is one, is taken as it stands. Where there is no figure it is null and `why` says the reason.
    """
    seconds = (interval[1] - interval[0]) / 1e9
    found: dict[str, Any] = dict.fromkeys(("gross_mj", "net_mj", "mean_mw", "idle_mw"))
    found |= {"seconds": seconds, "rails": [], "source": None, "why": None}
    sources = _sources(samples)
    if not sources:
        return found | {"why": samples.about.get("fault") or "no power monitor or energy counter could be read"}
    inside = _inside(samples, interval)
    if inside < FEWEST or inferences < 1:
        return found | {"why": f"{inside} samples of power in the {seconds:.2f} s that were timed, {FEWEST} are needed"}
    total = _total(samples, sources, interval)
    found |= {
        "gross_mj": total / inferences,
        "mean_mw": total / seconds,
        "rails": [name.partition(".")[2] for name in sources],
        "source": "counter" if all(name.startswith("mj.") for name in sources) else "power over time",
    }
    if idle is None or _inside(samples, idle) < FEWEST:
        return found | {"why": "idle power was not measured"}
    found["idle_mw"] = idle_mw = _total(samples, sources, idle) / ((idle[1] - idle[0]) / 1e9)
    net = total - idle_mw * seconds
    if net < -ALIKE * total:
        return found | {"why": f"idle took more, {idle_mw:.0f} mW, than the timed part: something else ran meanwhile"}
    return found | {"net_mj": max(0.0, net) / inferences}


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
    return sum(_of(samples, name, interval) for name in sources)


def _of(samples: Samples, name: str, interval: Interval) -> float:
    """mJ of one channel within the interval, its ends interpolated."""
    if name.startswith("mj."):
        whole = _unwrapped(samples, name)
        first, last = whole.at(name, np.array(interval, np.int64))
        return float(last - first)
    times = samples.times_ns
    inner = times[(times > interval[0]) & (times < interval[1])]
    moments = np.concatenate([[interval[0]], inner, [interval[1]]]).astype(np.int64)
    power = samples.at(name, moments)
    return float(((power[1:] + power[:-1]) / 2 * np.diff(moments)).sum() / 1e9)


def _unwrapped(samples: Samples, name: str) -> Samples:
    """With a counter that never goes back: at its range it starts again from 0."""
    ranges: Mapping[str, float] = samples.about.get("ranges", {})
    row = samples.values[name]
    there = np.isfinite(row)
    kept: npt.NDArray[np.float64] = row[there]
    steps = np.diff(kept, prepend=kept[:1])
    steps = np.where(steps < 0, steps + ranges.get(name, 0.0), steps)
    return Samples(samples.times_ns[there], {name: kept[0] + np.cumsum(steps)}, samples.about)
