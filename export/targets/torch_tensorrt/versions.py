"""Which versions of torch, Torch-TensorRT and TensorRT belong together. Standard library only: nothing is imported.

Sources: Requires-Dist of the wheels on PyPI, `dev_dep_versions.yml` in each release branch of pytorch/TensorRT, and its
`docsrc/getting_started/jetpack.rst` for the boards.
"""

import re
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from edge.core.errors import CompressError
from edge.doctor.facts import Capability, MachineFacts, Rule, TargetDoctor, release

TORCH_TENSORRT, TORCH_TENSORRT_RTX = "torch-tensorrt", "torch-tensorrt-rtx"
OTHER = {TORCH_TENSORRT: TORCH_TENSORRT_RTX, TORCH_TENSORRT_RTX: TORCH_TENSORRT}

#: Names under which pip knows the library of a target; one of them is enough.
LIBRARIES = {
    TORCH_TENSORRT: ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    TORCH_TENSORRT_RTX: ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}

#: L4T's major release → JetPack's, from /etc/nv_tegra_release.
JETPACK = {35: 5, 36: 6, 38: 7, 39: 7}


@dataclass(frozen=True)
class VersionFault:
    """What does not belong together, and what mends it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


#: Boards that no pair fits; from JetPack 7 on the pairs are those of a server.
UNFIT_JETPACKS = {
    5: VersionFault(
        "JetPack 5 has TensorRT 8, which nothing here builds for", "update the board to JetPack 6 or newer"
    ),
    6: VersionFault(
        "JetPack 6 has TensorRT 10.3, and its last Torch-TensorRT is 2.8, for torch 2.8",
        "use --target tensorrt, whose engine is built on the board and needs no torch there",
    ),
}
#: TensorRT-RTX builds INT8 convolutions since this version; the builders of 1.5.0 and 1.6.1 fail on every one.
RTX_WITH_INT8 = "1.7"


@dataclass(frozen=True)
class Pair:
    """One minor release: torch and Torch-TensorRT share it. `rtx` is None where no RTX variant was released."""

    torch: str
    tensorrt: str
    rtx: "str | None"

    def library(self, target: str) -> "str | None":
        """The version of TensorRT, or of TensorRT-RTX, that the target's wheel is built for."""
        return self.tensorrt if target == TORCH_TENSORRT else self.rtx


PAIRS = (
    Pair("2.8", "10.12", None),
    Pair("2.9", "10.13", None),
    Pair("2.10", "10.14", None),
    Pair("2.11", "10.15", "1.3"),
    Pair("2.12", "10.16", "1.4"),
    Pair("2.13", "11.0", "1.5"),
    Pair("2.14", "11.1", "1.6"),
)


@dataclass(frozen=True)
class InstalledVersions:
    """Versions as pip knows them, None where absent. `cuda`: whether torch is a build with CUDA."""

    torch: "str | None"
    cuda: bool
    wheel: "str | None"
    other_wheel: "str | None"
    library: "str | None"
    jetpack: "int | None" = None


def installed_versions(target: str, root: "Path | str" = "/") -> InstalledVersions:
    """What is installed for a target, read from package metadata and from the files under `root`."""
    return InstalledVersions(
        torch=version("torch"),
        cuda=torch_has_cuda(),
        wheel=version(target),
        other_wheel=version(OTHER[target]),
        library=next(filter(None, map(version, LIBRARIES[target])), None),
        jetpack=jetpack_major(root),
    )


def check_versions(target: str) -> None:
    """Refuse, in one line, what cannot work together; `target` is torch-tensorrt or torch-tensorrt-rtx."""
    wrong = version_fault(target, installed_versions(target))
    if wrong is not None:
        raise CompressError(str(wrong))


def check_int8(target: str) -> None:
    """Refuse, in one line, INT8 where the installed library cannot build it."""
    library = installed_versions(target).library or ""
    if target == TORCH_TENSORRT_RTX and release(library) < release(RTX_WITH_INT8):
        raise CompressError(
            f"TensorRT-RTX {library} builds no INT8 convolutions; {RTX_WITH_INT8} does, which no {target} up to "
            f"{PAIRS[-1].torch} goes with: use --target tensorrt-rtx, or export the student that was quantized"
        )


def version_fault(target: str, here: InstalledVersions) -> "VersionFault | None":
    """The first thing that is wrong, and the command that mends it. None where all of it belongs together."""
    if here.jetpack in UNFIT_JETPACKS:
        return UNFIT_JETPACKS[here.jetpack]
    newest = _pip(target, PAIRS[-1].torch)
    if here.torch is None:
        return VersionFault(f"{target} needs torch, which is not installed", newest)
    minor, row, other = _minor(here.torch), pair(here.torch), OTHER[target]
    fix = _pip(target, minor)
    if row is None and release(minor) <= release(PAIRS[-1].torch):
        return VersionFault(f"torch {here.torch} is older than any {target} known here", newest)
    if not here.cuda:
        wheel = f"{target} {here.wheel}" if here.wheel else f"{target}, which is not installed either,"
        what = f"torch {here.torch} is built without CUDA, {wheel} does not import beside it"
        return VersionFault(what, f"pip uninstall -y torch && {fix}")
    if row is not None and row.library(target) is None:
        return VersionFault(f"no {target} was released for torch {here.torch}", newest)
    if here.wheel is None:
        return VersionFault(f"{target} is not installed, torch is {here.torch}", fix)
    if _minor(here.wheel) != minor:
        what = f"{target} {here.wheel} beside torch {here.torch}: they share their minor release"
        return VersionFault(what, fix)
    if here.other_wheel is not None:
        what = f"{target} {here.wheel} and {other} {here.other_wheel} share one package folder"
        return VersionFault(what, f"pip uninstall -y {other} {target} && {fix}")
    wanted = row.library(target) if row else None
    if wanted is not None and (here.library is None or _minor(here.library) != wanted):
        name = "TensorRT" if target == TORCH_TENSORRT else "TensorRT-RTX"
        have = f"{name} {here.library}" if here.library else f"no {name}"
        return VersionFault(f"{have} beside {target} {here.wheel}, which is built for {wanted}", fix)
    return None


def command(target: str) -> str:
    """The pip command for the versions that fit the installed torch, or for the newest pair where there is none."""
    torch = version("torch")
    return _pip(target, _minor(torch) if torch else PAIRS[-1].torch)


def pair(torch: str) -> "Pair | None":
    """The row of a torch version; None for one that is older or newer than the table."""
    return next((row for row in PAIRS if row.torch == _minor(torch)), None)


def version(package: str) -> "str | None":
    """A package's version from its metadata, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA, read from its version file; importing it takes seconds."""
    spec = util.find_spec("torch")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / "version.py" for folder in folders]
    return any(names_cuda(file.read_text(encoding="utf-8")) for file in files if file.is_file())


def names_cuda(version_py: str) -> bool:
    """Whether torch's version file says which CUDA it was built with: `cuda: Optional[str] = '13.0'`."""
    return re.search(r"^cuda\b[^=\n]*=\s*['\"]", version_py, re.MULTILINE) is not None


def jetpack_major(root: "Path | str" = "/") -> "int | None":
    """The major release of JetPack of this board; None on any other machine."""
    try:
        text = (Path(root) / "etc" / "nv_tegra_release").read_text(errors="replace")
    except OSError:
        return None
    tag = re.search(r"R(\d+)", text)
    return JETPACK.get(int(tag.group(1))) if tag else None


def _pip(target: str, minor: str) -> str:
    return f"pip install torch~={minor}.0 {target}~={minor}.0"


def _minor(text: str) -> str:
    """`2.13` of `2.13.0+cu130`."""
    return ".".join(text.split("+")[0].split(".")[:2])


def _fault_on(facts: MachineFacts, target: str) -> "VersionFault | None":
    """What keeps the versions from working together, by the table that `compress export` goes by."""
    libraries = (facts.distributions[name] for name in LIBRARIES[target] if name in facts.distributions)
    return version_fault(
        target,
        InstalledVersions(
            torch=facts.modules["torch"].version if "torch" in facts.modules else None,
            cuda=facts.fact("torch", "cuda") is not None,
            wheel=facts.distributions.get(target),
            other_wheel=facts.distributions.get(OTHER[target]),
            library=next(libraries, None),
            jetpack=next(iter(facts.jetpack), None),
        ),
    )


def _doctor(target: str) -> TargetDoctor:
    def answer(facts: MachineFacts) -> Capability:
        fault = _fault_on(facts, target)
        lacks = str(fault) if fault else facts.gpu_lacks
        lacks = lacks or facts.import_lacks("torch_tensorrt", command(target))
        return Capability.unless(lacks, f"{facts.written('torch_tensorrt')} on this GPU")

    beside = Rule(  # a wheel that is installed beside what it does not work with
        f"{target}-pair",
        when=lambda facts: target in facts.distributions and _fault_on(facts, target) is not None,
        says=lambda facts: fault.what if (fault := _fault_on(facts, target)) else "",
        fix=lambda facts: fault.fix if (fault := _fault_on(facts, target)) else "",
        explains=("torch_tensorrt",),
    )
    return TargetDoctor(
        answer,
        answer,
        module="torch_tensorrt",
        remedy=lambda: command(target),
        rules=(beside,),
        blocked_by=("driver-behind-torch",),
    )


DOCTOR = _doctor(TORCH_TENSORRT)
DOCTOR_RTX = _doctor(TORCH_TENSORRT_RTX)
