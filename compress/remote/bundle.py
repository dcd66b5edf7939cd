"""`edge.pyz`: the device side as one file, for any Python from 3.10 that has numpy and a runtime; nothing is installed.

The bytes are a function of the sources alone: entries sorted, dates fixed, nothing compressed.
"""

import ast
import functools
import io
import json
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from edge import __version__
from edge.core import artifact
from edge.core.errors import CompressError

SHEBANG = b"#!/usr/bin/env python3\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold
DATA = (".py", ".json", ".css", ".onnx")
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
    """The file's bytes: all of `edge`, and of `compress` what that imports."""
    files = {"__main__.py": MAIN.encode(), f"robust_compress-{__version__}.dist-info/METADATA": METADATA.encode()}
    files |= {f"edge/{name}": entry.read_bytes() for name, entry in _below(resources.files("edge"))}
    files[DEFAULTS] = _verify_defaults()
    files |= _imported(files)
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


def _verify_defaults() -> bytes:
    """What `compress verify` uses where nothing is given: a board has no pydantic to ask."""
    from compress.config import VerifyConfig, parse

    return json.dumps(parse(VerifyConfig, {"data": "digits"}, "verify").semantic(), sort_keys=True).encode()


def _below(folder: Traversable, at: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _below(entry, f"{at}{entry.name}/")
        elif entry.name.endswith(DATA):
            yield f"{at}{entry.name}", entry


def _imported(files: "dict[str, bytes]") -> "dict[str, bytes]":
    """The modules of `compress` that these files import, and those that they import in turn."""
    package = resources.files("compress")
    found = {"compress/__init__.py": package.joinpath("__init__.py").read_bytes()}
    open_ = list(files.items())
    while open_:
        name, source = open_.pop()
        for module in _modules(source) if name.endswith(".py") else ():
            file = f"{module}.py"
            if f"compress/{file}" not in found and package.joinpath(file).is_file():
                found[f"compress/{file}"] = package.joinpath(file).read_bytes()
                open_.append((file, found[f"compress/{file}"]))
    return found


def _modules(source: bytes) -> Iterator[str]:
    """`x` of `from compress import x`, `import compress.x` and `from compress.x import name`."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name.split(".")[1] for name in names if name.startswith("compress."))


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
