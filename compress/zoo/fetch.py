"""One file over the network, whole or not at all."""

import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from edge.core.errors import CompressError
from edge.core.progress import say

BLOCK = 1 << 20
TIMEOUT_S = 60


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`. A page in place of a file is an error: file services answer so when they refuse."""
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            block = answer.read(BLOCK)
            if block.lstrip()[:1] == b"<":
                raise CompressError("the service answered with a web page, not the file")
            say(f"downloading {path.name}, {int(answer.headers.get('Content-Length') or 0):,} bytes")
            path.parent.mkdir(parents=True, exist_ok=True)  # not before there is something to put there
            with open(part, "wb") as file:
                while block:
                    file.write(block)
                    block = answer.read(BLOCK)
        part.replace(path)
    except HTTPError as fault:
        raise CompressError(f"the service answered {fault.code} {fault.reason}") from None
    except (OSError, HTTPException) as fault:  # URLError is an OSError
        reason = getattr(fault, "reason", None) or fault
        raise CompressError(f"no network, or no answer: {reason}") from None
    finally:
        part.unlink(missing_ok=True)
