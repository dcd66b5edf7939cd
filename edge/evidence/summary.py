"""Samples of the timed part in a few figures, as the statement carries them."""

from typing import Any

import numpy as np

from edge.evidence import nvml
from edge.evidence.energy import energy
from edge.evidence.samples import Interval, Samples

LEVELS = ("mhz", "celsius", "mw")


def summary(
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
    energy                  as `energy` gives it
    """
    cut = samples.cut(interval)
    inside = samples.times_ns[(samples.times_ns >= interval[0]) & (samples.times_ns <= interval[1])]
    seconds = (interval[1] - interval[0]) / 1e9
    gaps = np.diff(cut.times_ns)
    found: dict[str, Any] = {
        "n": len(inside),
        "seconds": seconds,
        "hz": len(inside) / seconds if seconds > 0 else 0.0,
        "longest_gap_ms": float(gaps.max()) / 1e6 if len(gaps) else None,
        "sampler_cpu": _share(samples),
        **{unit: _levels(cut, unit) for unit in LEVELS},
        "cores": _cores(cut),
        "gpu_busy": _mean(cut, "share.gpu"),
        "throttled": _highest(cut),
        "events": _grown(cut),
        "held_down_by": _held(cut),
        "energy": energy(samples, interval, idle, inferences=inferences),
        "unreadable": list(samples.about.get("unreadable", ())),
    }
    return found | {"fault": samples.about.get("fault")}


def _share(samples: Samples) -> "float | None":
    wall = samples.about.get("wall_s")
    return samples.about["cpu_s"] / wall if wall else None


def _of(samples: Samples, unit: str) -> "dict[str, np.ndarray]":
    """Channels of a unit without their gaps; a channel of gaps alone is none."""
    rows = {name.partition(".")[2]: row for name, row in samples.values.items() if name.startswith(f"{unit}.")}
    return {name: row[np.isfinite(row)] for name, row in rows.items() if np.isfinite(row).any()}


def _levels(samples: Samples, unit: str) -> dict[str, dict[str, float]]:
    return {
        name: {"min": float(row.min()), "mean": float(row.mean()), "max": float(row.max())}
        for name, row in _of(samples, unit).items()
    }


def _mean(samples: Samples, name: str) -> "float | None":
    row = _of(samples, name.partition(".")[0]).get(name.partition(".")[2])
    return None if row is None else float(row.mean())


def _cores(samples: Samples) -> "dict[str, float] | None":
    """From what the counters of processor time grew between the first and the last sample."""
    rows = _of(samples, "s")
    spent = {name: float(row[-1] - row[0]) for name, row in rows.items() if len(row) >= 2}
    wall = float(samples.times_ns[-1] - samples.times_ns[0]) / 1e9 if len(samples) >= 2 else 0.0
    if "busy" not in spent or wall <= 0:
        return None
    cores: dict[str, float] = {name: spent[name] / wall for name in ("busy", "own", "steal") if name in spent}
    if "own" in cores:
        sampler = _share(samples) or 0.0
        cores["others"] = max(0.0, cores["busy"] - cores["own"] - sampler)
    return cores


def _highest(samples: Samples) -> dict[str, float]:
    return {name: float(row.max()) for name, row in _of(samples, "state").items()}


def _grown(samples: Samples) -> dict[str, float]:
    return {name: float(row[-1] - row[0]) for name, row in _of(samples, "events").items()}


def _held(samples: Samples) -> "list[str] | None":
    bits = _of(samples, "bits").get("gpu")
    return None if bits is None else nvml.words(int(np.bitwise_or.reduce(bits.astype(np.int64))))
