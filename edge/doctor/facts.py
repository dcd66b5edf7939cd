"""What the doctor knows of a machine, and what judges it: rules, and for each target a `TargetDoctor`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: What writes the ONNX graph that every target starts from.
EXPORTER = "torch onnx onnxscript"


@dataclass(frozen=True)
class Module:
    """An importable package. `works`: whether its import did; null where it was not tried, as in a recorded tree.

    `distribution` and `version` are pip's names for it; `facts` is what only the import can tell.
    """

    distribution: str
    version: str
    works: "bool | None" = None
    fault: "str | None" = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gpu:
    """NVIDIA's driver and what it drives. `cuda`: the newest that it serves; `fault`: why no device can be used.

    `runtime`: the CUDA that is installed for programs: the toolkit's, else a wheel's.
    Devices: {"name", "sm", "memory_bytes"}.
    """

    driver: "str | None" = None
    cuda: "str | None" = None
    devices: tuple[Mapping[str, Any], ...] = ()
    fault: "str | None" = None
    runtime: "str | None" = None


@dataclass(frozen=True)
class MachineFacts:
    """One machine. `distributions`: pip's names → versions; `modules`: import names; `tools`: name → path or null."""

    python: Mapping[str, Any]
    host: Mapping[str, Any]
    distributions: Mapping[str, str]
    modules: Mapping[str, Module]
    gpu: Gpu
    jetson: "Mapping[str, Any] | None"
    tools: Mapping[str, "str | None"]
    recorded: bool = False

    def version(self, name: str) -> tuple[int, ...]:
        """The release numbers of an import name or a distribution; empty where it is absent, so older than any."""
        module = self.modules.get(name)
        return release(module.version if module else self.distributions.get(name, ""))

    def has(self, *names: str) -> bool:
        """Whether every one of these import names or distributions is installed."""
        return all(name in self.modules or name in self.distributions for name in names)

    def usable(self, name: str) -> bool:
        """Whether a module is there and nothing says that its import fails."""
        return name in self.modules and self.modules[name].works is not False

    def fact(self, name: str, key: str) -> Any:
        """What the import of `name` told under `key`; None where nothing did."""
        return self.modules[name].facts.get(key) if name in self.modules else None

    def written(self, name: str) -> str:
        """`onnxruntime 1.23.2`."""
        module = self.modules.get(name)
        if module is None:
            return f"{name} {self.distributions.get(name, '(absent)')}"
        return f"{module.distribution} {module.version}"

    @property
    def jetpack(self) -> tuple[int, ...]:
        """The release numbers of JetPack; empty elsewhere than on a Jetson."""
        return release(str(self.jetson["jetpack"] or "")) if self.jetson else ()

    @property
    def has_gpu(self) -> bool:
        """A GPU that can be used; of a recorded tree a board's own counts."""
        return bool(self.gpu.devices) or (self.recorded and self.jetson is not None)

    @property
    def gpu_lacks(self) -> "str | None":
        """Why no GPU can be used here; None where one can."""
        return None if self.has_gpu else (self.gpu.fault or "no NVIDIA GPU")

    @property
    def exporter_lacks(self) -> "str | None":
        """Why no stage can be exported here; None where it can."""
        lacking = (self.import_lacks(name, self.pip("install robust-compress")) for name in EXPORTER.split())
        return next(filter(None, lacking), None)

    def import_lacks(self, name: str, remedy: str) -> "str | None":
        """Why a module cannot be imported here, with the remedy where it is absent; None where it can."""
        if name not in self.modules:
            return f"{name} is not installed; {remedy}"
        return None if self.usable(name) else f"import {name} fails ({self.modules[name].fault})"

    def driver_behind(self, needed: "str | None") -> bool:
        """Whether CUDA of another major version than the driver's is needed; minor versions go together."""
        return bool(needed and self.gpu.cuda and release(needed)[:1] > release(self.gpu.cuda)[:1])

    def pip(self, arguments: str) -> str:
        """A pip command that reaches this very Python."""
        return f"{self.python['pip']} {arguments}"

    def as_object(self) -> dict[str, Any]:
        return asdict(self)


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: `2.13.0+cpu` → (2, 13, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


def between(version: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    """low ≤ version < high, of something that is installed."""
    return bool(version) and low <= version < high


Words = Callable[[MachineFacts], str]


@dataclass(frozen=True)
class Rule:
    """`when` says whether it holds of a machine, `says` what was facts and why it does not work, `fix` the command.

    `explains`: modules whose failing import is no news then. A `limit` is no fault, only less than there could be;
    `--strict` lets it pass.
    """

    name: str
    when: Callable[[MachineFacts], bool]
    says: Words
    fix: Words
    explains: tuple[str, ...] = ()
    limit: bool = False


@dataclass(frozen=True)
class Capability:
    """`can`: yes, deferred (made elsewhere from what is written here) or no; `why` in words."""

    can: str
    why: str

    @classmethod
    def unless(cls, lacks: "str | None", why: str) -> "Capability":
        """No, for what is lacking; where nothing is, yes."""
        return cls("no", lacks) if lacks else cls("yes", why)


@dataclass(frozen=True)
class TargetDoctor:
    """How one target stands on a machine: may it be made, may it be executed.

    `rules`: what is known not to work of it; `blocked_by`: names of rules, its own or others, until whose fault is
    mended it cannot run. `module`: the import name of what executes it, and `remedy` what makes that importable.
    """

    build: "Callable[[MachineFacts], Capability]"
    run: "Callable[[MachineFacts], Capability]"
    module: str
    remedy: "Callable[[], str]"
    rules: "tuple[Rule, ...]" = ()
    blocked_by: "tuple[str, ...]" = ()
