"""What the doctor found on a machine, and what a rule is that judges it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


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

    def pip(self, arguments: str) -> str:
        """A pip command that reaches this very Python."""
        return f"{self.python['pip']} {arguments}"

    def as_object(self) -> dict[str, Any]:
        return asdict(self)


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: `2.13.0+cpu` → (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


Words = Callable[[MachineFacts], str]


@dataclass(frozen=True)
class Rule:
    """`when` says whether it holds of a machine, `says` what was found and why it does not work, `fix` the command.

    `explains`: modules whose failing import is no news then. `blocks`: targets that cannot run here until it is mended.
    A `limit` is no fault, only less than there could be; `--strict` lets it pass.
    """

    name: str
    when: Callable[[MachineFacts], bool]
    says: Words
    fix: Words
    explains: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    limit: bool = False
