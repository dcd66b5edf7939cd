"""Official archives fetched once, and kept only when their checksum is the published one."""

import hashlib
import secrets
import urllib.request
from http.client import HTTPException
from pathlib import Path

from compress.data.cache import home
from compress.data.faults import reason
from edge.core.errors import CompressError
from edge.core.progress import Progress

BLOCK = 1 << 20
TIMEOUT_S = 60


def fetch(kind: str, url: str, sha256: str) -> Path:
    """The file of that address in the cache, downloaded if it is not there yet."""
    path = home() / "downloads" / url.rpartition("/")[2]
    if path.exists():
        return path
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
    except OSError as fault:
        raise CompressError(
            f"data {kind}: nothing can be downloaded to {path.parent} ({fault.strerror}); set ROBUST_COMPRESS_CACHE to "
            f"a folder that can be written, or get {url} yourself and write {kind}:PATH"
        ) from None
    try:
        got = _download(url, fresh)
        if got != sha256:
            raise CompressError(
                f"data {kind}: {url} came with sha256 {got:.16}…, published is {sha256:.16}…; nothing was kept: try "
                f"again, or get the file elsewhere and write {kind}:PATH"
            )
        fresh.replace(path)
    except (OSError, HTTPException, ValueError) as fault:  # URLError is an OSError
        raise CompressError(
            f"data {kind}: {url} could not be downloaded ({reason(fault)}); without a network get the file elsewhere "
            f"and write {kind}:PATH"
        ) from None
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _download(url: str, target: Path) -> str:
    """Write what lies at `url` to `target`; its sha256."""
    h = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, open(target, "wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with Progress(f"download {url.rpartition('/')[2]}, bytes", total) as bar:
            while block := answer.read(BLOCK):
                h.update(block)
                file.write(block)
                bar.step(len(block))
    return h.hexdigest()
