"""RobustBench's CIFAR L∞ zoos (robustbench 1.1.1): names, architectures, published accuracies, where files lie.

Facts of `robustbench.csv`: clean and robust accuracy in percent at ε = 8/255 as that version's leaderboard has them;
`model` is this project's name of the architecture, empty where only the robustbench package can build it.
"""

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from edge.core import errors
from edge.core.errors import CompressError

TABLE = Path(__file__).parent / "robustbench.csv"
DATASETS = {"cifar10": 10, "cifar100": 100}
SCHEME = "robustbench"

#: Mean and deviation by channel, on pixels in [0, 1], as published models use them.
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar10-narrow": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cifar100-rounded": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar100-exact": (
        (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
}


def normalization_constants(name: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by channel of a named normalization, or of one written `m1,m2,m3/s1,s2,s3`."""
    if name in NORMALIZATIONS:
        mean, std = NORMALIZATIONS[name]
        if len(set(mean)) == len(set(std)) == 1:  # of images of any channels
            mean, std = mean[:1] * channels, std[:1] * channels
    else:
        try:
            mean, std = (tuple(float(value) for value in part.split(",")) for part in name.split("/"))
        except ValueError:
            raise CompressError(
                f"normalize {name!r}: no such constants (known: {', '.join(['none', *NORMALIZATIONS])}, or "
                f"m1,m2,m3/s1,s2,s3)"
            ) from None
    if len(mean) != channels or len(std) != channels:
        raise CompressError(f"normalize {name!r}: {len(mean)} means and {len(std)} deviations for {channels} channels")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise CompressError(f"normalize {name!r}: means must be numbers and deviations positive ones")
    if max(map(abs, mean)) > 1:
        raise CompressError(
            f"normalize {name!r}: is of pixels in [0, 255]; write it of pixels in [0, 1], divided by 255"
        )
    return mean, std


@dataclass(frozen=True)
class CatalogEntry:
    """One published model; accuracies in percent, `parameters` 0 where unknown, `drive` ids of its files there."""

    dataset: str
    name: str
    model: str
    normalization: str
    clean: float
    autoattack: float
    parameters: int
    architecture: str
    drive: tuple[str, ...]

    @property
    def native(self) -> bool:
        """Whether this project builds it; otherwise the robustbench package does."""
        return bool(self.model)

    @property
    def classes(self) -> int:
        return DATASETS[self.dataset]

    @property
    def spec(self) -> str:
        """The name that `compress.networks.build_network` takes."""
        return self.model or f"{SCHEME}:{self.dataset}/{self.name}"

    @property
    def source(self) -> str:
        return f"{SCHEME}:{self.dataset}/{self.name}"


@functools.lru_cache(maxsize=1)
def entries() -> tuple[CatalogEntry, ...]:
    """The whole table, CIFAR-10 first."""
    with open(TABLE, newline="") as file:
        return tuple(
            CatalogEntry(
                **{name: row[name] for name in ("dataset", "name", "model", "normalization", "architecture")},
                clean=float(row["clean"]),
                autoattack=float(row["autoattack"]),
                parameters=int(row["parameters"] or 0),
                drive=tuple(row["drive"].split()),
            )
            for row in csv.DictReader(file)
        )


def find_entry(text: str, dataset: "str | None" = None) -> CatalogEntry:
    """The entry written `NAME` or `DATASET/NAME`; a bare name is looked up in `dataset` first, then CIFAR-10, -100."""
    zoo, slash, name = text.rpartition("/")
    if slash and zoo not in DATASETS:
        raise CompressError(f"{SCHEME}:{text}: no zoo {zoo!r} here (known: {', '.join(DATASETS)})")
    wanted = [zoo] if slash else [*([dataset] if dataset in DATASETS else []), *DATASETS]
    for place in wanted:
        for entry in entries():
            if (entry.dataset, entry.name) == (place, name):
                return entry
    known = [entry.name for entry in entries() if entry.dataset in wanted]
    close = errors.nearest_name(name, known)
    raise CompressError(f"{SCHEME}:{text}: no model of that name{close}; `compress teacher list` shows all")
