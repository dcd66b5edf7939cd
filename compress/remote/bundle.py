"""`edge.pyz`: the device side as one file, for any Python from 3.10 that has numpy and a runtime; nothing is installed.

It is the folder `edge`, and of each installed package that adds a target what a board needs of it. The bytes are a
function of the sources alone: entries sorted, dates fixed, nothing compressed.
"""

import functools
import io
import json
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import EntryPoint
from importlib.resources.abc import Traversable
from pathlib import Path

from edge import __version__
from edge.core import artifact, plugins, targets
from edge.core.errors import CompressError

SHEBANG = b"#!/usr/bin/env python3\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold
DATA = (".py", ".json", ".onnx")
EXECUTABLE = 0o755
DEFAULTS = "edge/board/defaults.json"
METADATA = f"Metadata-Version: 2.1\nName: robust-compress\nVersion: {__version__}\n"
MAIN = '''\
"""Started by `python3 edge.pyz`. Any Python 3 can read this file, so that an old or a bare one gets one line."""

import importlib.util
import platform
import sys

missing = "Python %s on %s " % (platform.python_version(), platform.node())
if sys.version_info < (3, 10):
    missing += "is too old, 3.10 or newer is needed; start a newer one"
elif importlib.util.find_spec("numpy") is None:
    missing += "has no numpy; there: sudo apt install python3-numpy"
else:
    missing = ""
if missing:
    sys.stderr.write("compress: " + missing + "\\n")
    sys.exit(2)
from edge.__main__ import entry

entry()
'''


@functools.cache
def bundle_bytes() -> bytes:
    """The file's bytes: all of `edge`, and the device packages of targets that installed packages add."""
    files = {"__main__.py": MAIN.encode(), f"robust_compress-{__version__}.dist-info/METADATA": METADATA.encode()}
    files |= {f"edge/{name}": entry.read_bytes() for name, entry in _below(resources.files("edge"))}
    # What `compress verify` uses where nothing is given: a board has no pydantic to ask
    from compress.config import VerifyConfig, parse

    files[DEFAULTS] = json.dumps(parse(VerifyConfig, {"data": "digits"}, "verify").semantic(), sort_keys=True).encode()
    files |= _added()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for name in sorted(files):
            bundle.writestr(zipfile.ZipInfo(name, EARLIEST), files[name])
    return SHEBANG + archive.getvalue()


def write_bundle(path: Path) -> str:
    """The bundle at `path`, complete or not at all; its sha256."""
    if path.is_dir():
        raise CompressError(f"{path}: is a folder; name a file, e.g. {path / 'edge.pyz'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        artifact.write_atomic(path, bundle_bytes())
        path.chmod(EXECUTABLE)
    except OSError as fault:
        raise CompressError(f"{path}: cannot be written ({fault.strerror}); choose another file") from None
    return artifact.bytes_sha256(bundle_bytes())


def _below(folder: Traversable, at: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _below(entry, f"{at}{entry.name}/")
        elif entry.name.endswith(DATA):
            yield f"{at}{entry.name}", entry


def _added() -> "dict[str, bytes]":
    """What a board needs of the targets that installed packages add: their device packages, and how these are found.

    Their `dist-info` says inside the bundle which object adds a target, as it does in an installation; of its entry
    points those of targets alone, as a board asks for no others.
    """
    files: dict[str, bytes] = {}
    points: dict[str, list[EntryPoint]] = {}
    for name, point in plugins.installed("targets").items():
        package = targets.get(name).device_package
        if package is None or point.dist is None:
            continue
        files |= _importable(package) | _importable(point.module)
        folder = f"{point.dist.name.replace('-', '_')}-{point.dist.version}.dist-info"
        files[f"{folder}/METADATA"] = (point.dist.read_text("METADATA") or "").encode()
        points.setdefault(folder, []).append(point)
    for folder, of_package in points.items():
        rows = [f"{point.name} = {point.value}" for point in sorted(of_package, key=lambda point: point.name)]
        files[f"{folder}/entry_points.txt"] = "\n".join(["[robust_compress.targets]", *rows, ""]).encode()
    return files


def _importable(module: str) -> "dict[str, bytes]":
    """A module's file, or all of a package, with the `__init__.py` of every package around it."""
    parts = module.split(".")
    place = resources.files(parts[0]) if len(parts) == 1 else resources.files(".".join(parts[:-1]))
    files: dict[str, bytes] = {}
    for depth in range(1, len(parts)):
        around = resources.files(".".join(parts[:depth])).joinpath("__init__.py")
        if around.is_file():
            files[f"{'/'.join(parts[:depth])}/__init__.py"] = around.read_bytes()
    if len(parts) > 1 and place.joinpath(f"{parts[-1]}.py").is_file():
        return files | {f"{'/'.join(parts)}.py": place.joinpath(f"{parts[-1]}.py").read_bytes()}
    return files | {f"{'/'.join(parts)}/{name}": entry.read_bytes() for name, entry in _below(resources.files(module))}


# ----------------------------------------------------------------------------------------------- on the board
# What a board's Python is given first: it takes the bundle unless it has it, and becomes the bundle's server. It runs
# on any Python 3, so that an old one can say so. It reads one JSON line of parameters and answers each step by one
# line that begins with a mark, so that what a login script prints on stdout is told apart:
#
#     → {"sha256", "bytes", "python", "minimum"}
#     ← MARK {"step": "send"}                    the bundle is not there: its bytes follow
#     ← MARK {"step": "ready"}                   the server takes over
#     ← MARK {"step": "error", "message": …}

MARK = "robust-compress-board"
MINIMUM = (3, 10)

SOURCE = """\
import sys
sys.path[:] = [p for p in sys.path if p]
import hashlib, json, os, shutil, tempfile
MARK = "robust-compress-board"

def tell(**what):
    os.write(1, (MARK + " " + json.dumps(what) + "\\n").encode())

def main():
    read = sys.stdin.buffer
    ask = json.loads(read.readline().decode())
    python = ask["python"] or sys.executable
    if not ask["python"] and sys.version_info[:2] < tuple(ask["minimum"]):
        raise OSError("python3 is %d.%d, %d.%d or newer is needed; install one and name it by --python"
                      % (sys.version_info[0], sys.version_info[1], ask["minimum"][0], ask["minimum"][1]))
    if shutil.which(os.path.expanduser(python)) is None:
        raise OSError("%s: no program that can be run there; give the path of a Python by --python" % python)
    python = shutil.which(os.path.expanduser(python))
    own = os.environ.get("ROBUST_COMPRESS_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(own or os.path.join(cache, "robust-compress"), "board", "bundles")
    path = os.path.join(folder, ask["sha256"] + ".pyz")
    if not right(path, ask["sha256"]):
        os.makedirs(folder, exist_ok=True)
        tell(step="send")
        content = b""
        while len(content) < ask["bytes"]:
            part = read.read(min(65536, ask["bytes"] - len(content)))
            if not part:
                raise OSError("the bundle came incomplete")
            content += part
        store(folder, path, content, ask["sha256"])
    tell(step="ready")
    os.execv(python, [python, path, "serve"])

def right(path, sha256):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except FileNotFoundError:
        return False

def store(folder, path, content, sha256):
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError("the bundle came damaged")
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise

try:
    main()
except OSError as fault:
    if fault.errno is None:
        tell(step="error", message=str(fault))
    else:
        fix = "free some space there, or set ROBUST_COMPRESS_CACHE there to a folder on another disk"
        where = fault.filename or "its cache"
        tell(step="error", message="%s: cannot be written (%s); %s" % (where, fault.strerror, fix))
except Exception as fault:
    tell(step="error", message=repr(fault))
"""
