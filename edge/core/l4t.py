"""Jetson Linux on this machine: its release, the JetPack that ships it, the board. Standard library only."""

import re
from pathlib import Path
from typing import Any

ROOT = Path("/")
#: L4T release → JetPack, as NVIDIA's archive lists them; a later patch of one minor release belongs to the last listed.
JETPACK = {
    "35.1": "5.0.2",
    "35.2": "5.1",
    "35.3": "5.1.1",
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "36.2": "6.0",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}
#: Of a release that is not listed, the major version still says JetPack's.
MAJORS = {35: "5", 36: "6", 38: "7", 39: "7"}
RELEASE = re.compile(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
#: Debian packages whose versions say what JetPack installed.
PACKAGES = ("nvidia-jetpack", "nvidia-l4t-core", "python3-libnvinfer", "libnvinfer10", "libnvinfer8")


def read_release(sysroot: Path = ROOT) -> "dict[str, Any] | None":
    """{"model", "l4t", "jetpack", "packages"} of the tree below `sysroot`; None where it is no Jetson.

    Sources: etc/nv_tegra_release, var/lib/dpkg/status, proc/device-tree/model. What none of them says is null.
    """
    packages = _installed(sysroot / "var/lib/dpkg/status")
    model = (_text(sysroot / "proc/device-tree/model") or "").strip("\0\n ") or None
    release = _release(_text(sysroot / "etc/nv_tegra_release")) or _upstream(packages.get("nvidia-l4t-core"))
    if release is None and "Jetson" not in (model or ""):
        return None
    shipped = _upstream(packages.get("nvidia-jetpack"))
    return {"model": model, "l4t": release, "jetpack": shipped or jetpack(release), "packages": packages}


def jetpack(release: "str | None") -> "str | None":
    """`36.4.3` → `6.2`; of a minor release that is not listed the major version alone, None of an unknown major."""
    if release is None:
        return None
    want = _numbers(release)
    listed = [known for known in JETPACK if _numbers(known)[:2] == want[:2] and _numbers(known) <= want]
    return JETPACK[max(listed, key=_numbers)] if listed else MAJORS.get(want[0])


def _release(text: "str | None") -> "str | None":
    match = RELEASE.search(text or "")
    return f"{match[1]}.{match[2]}" if match else None


def _upstream(version: "str | None") -> "str | None":
    """The numbers that a Debian version begins with: `6.2+b77` → 6.2, `36.4.3-2025…` → 36.4.3."""
    match = re.match(r"\d+(\.\d+)*", version or "")
    return match[0] if match else None


def _installed(status: Path) -> dict[str, str]:
    """Versions of those of PACKAGES that dpkg's database calls installed."""
    packages = {}
    for entry in (_text(status) or "").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in PACKAGES and fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields.get("Version", "")
    return packages


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _text(path: Path) -> "str | None":
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
