"""Whether an engine can run here, asked before a byte of it is handed to the library, because loading executes it.

What was built elsewhere, by another version or for another GPU does not load, or crashes. The library cannot be asked
beforehand (TensorRT-RTX can), so the sidecar and the version in the plan's own first bytes are held against this
machine.
"""

import platform
from collections.abc import Mapping
from typing import Any

from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import TENSORRT_RTX, Library, numbers

#: A plan's first four bytes (the second as TensorRT-RTX writes it), and where its version stands, one byte a number: as
#: trtexec's --getPlanVersionOnly reads it.
TAGS = (b"ftrt", b"vtrt")
VERSION_AT, HEADER_BYTES = 24, 28
ANEW = "`compress verify` builds it anew from model.onnx, where it runs"


class Unfit(CompressError):
    """An engine that is whole and was built for something else than what is here."""


def written_by(content: bytes, where: str) -> str:
    """The version of the library that wrote a plan, from its first bytes; what is no plan: CompressError."""
    tag, serialization = content[:4], content[4:8]
    if len(content) < HEADER_BYTES or tag not in TAGS:
        raise CompressError(
            f"{where}: no TensorRT engine (it begins with {tag!r}); give one as TensorRT wrote it, without a header of "
            f"another tool in front"
        )
    if serialization != b"\0\0\0\0":
        raise CompressError(f"{where}: a plan of serialization {serialization.hex()}, unknown here; {ANEW}")
    return ".".join(map(str, content[VERSION_AT:HEADER_BYTES]))


def check_fits(content: bytes, about: Mapping[str, Any], library: Library, device: Device, where: str) -> None:
    """Hold an engine and its sidecar against this machine.

    Bytes that are not the sidecar's: CompressError. Whole, but built for something else: Unfit. Never loads it.
    """
    if len(content) != about["bytes"]:
        raise CompressError(
            f"{where}: holds {len(content):,} bytes of {about['bytes']:,}; it was cut off or replaced, export it again"
        )
    got = artifact.bytes_sha256(content)
    if got != about["sha256"]:
        raise CompressError(
            f"{where}: has sha256 {got:.12}, its sidecar says {about['sha256']:.12}; it is not loaded, export it again"
        )
    reasons = _library(written_by(content, where), about, library)
    system, processor = platform.system().lower(), platform.machine()
    # what TensorRT-RTX builds is portable between operating systems
    if about["machine"] != processor or (about["system"] != system and not library.ahead_of_time):
        reasons.append(f"here is {system} {processor}")
    reasons += _device(about, library, device)
    reasons = reasons or _validity(content, library)
    if reasons:
        raise Unfit(f"{where}: {built_for(about)}; {'; '.join(reasons)}; {ANEW}")
    known = (about["device"] or {}).get("name", device.name)
    if known != device.name:
        say(f"{where}: built on {known}, runs on {device.name} of the same compute capability; it may be slower here")


def built_for(about: Mapping[str, Any]) -> str:
    """`built for Orin (SM 8.7) by TensorRT 10.3.0 on linux aarch64`."""
    device, library = about["device"], about["library"]
    gpu = f"{device['name']} (SM {device['sm']})" if device else f"SM {', '.join(about['compute_capabilities'])}"
    name = "TensorRT-RTX" if library["target"] == TENSORRT_RTX else "TensorRT"
    return f"built for {gpu} by {name} {library['version']} on {about['system']} {about['machine']}"


def _library(version: str, about: Mapping[str, Any], library: Library) -> list[str]:
    """An engine loads in the version that wrote it; one that was made for later ones too, in these."""
    stated, here = about["library"], library.number
    if stated["target"] != library.target:
        return [f"here is {library.name}"]
    if about.get("version_compatible"):
        return [] if here >= numbers(stated["version"])[: len(here)] else [f"here is {library.name}"]
    same = all(ours == theirs for ours, theirs in zip(here, numbers(version), strict=False))
    return [] if same else [f"the plan is of version {version}, here is {library.name}"]


def _device(about: Mapping[str, Any], library: Library, device: Device) -> list[str]:
    here = f"here is {device.name} (SM {device.sm})"
    if library.ahead_of_time:
        return [] if device.sm in about["compute_capabilities"] else [here]
    built = (about["device"] or {}).get("sm", "")
    ampere = about.get("hardware_compatibility") == "ampere+" and numbers(built) >= (8, 0) <= numbers(device.sm)
    return [] if built == device.sm or ampere else [here]


def _validity(content: bytes, library: Library) -> list[str]:
    """What the library itself says of the bytes, where it can be asked."""
    if not library.validity:
        return []
    trt = library.module
    runtime = trt.Runtime(library.journal.listener)
    verdict, diagnostics = runtime.get_engine_validity(content)
    if verdict != trt.EngineValidity.INVALID:
        return []
    members = trt.EngineInvalidityDiagnostics.__members__
    named = [name.lower().replace("_", " ") for name, value in members.items() if int(value) & int(diagnostics)]
    return [f"{library.name} finds it invalid here ({', '.join(named) or library.journal.reason()})"]
