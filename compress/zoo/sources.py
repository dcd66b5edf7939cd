"""Where a teacher's weights come from: the source as the user writes it, resolved to files here, or fetched whole."""

import contextlib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from compress.networks import PACKAGES, function_of
from compress.zoo import catalog
from compress.zoo.catalog import CatalogEntry
from edge.core import errors
from edge.core.errors import CompressError, first_line
from edge.core.progress import say

BLOCK = 1 << 20  # bytes of a download at once
TIMEOUT_S = 60
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclass(frozen=True)
class Source:
    """A source resolved: its kind, the name or entry behind it, and the weight files found (none where not needed)."""

    text: str
    kind: str  # robustbench, file, timm, torchvision, factory
    files: tuple[Path, ...] = ()
    entry: "CatalogEntry | None" = None


def resolve_source(
    text: str, *, weights: "str | None", folder: "str | None", dataset: "str | None", fetch: Callable[[str, Path], None]
) -> Source:
    """The source written `robustbench:NAME`, `hf:OWNER/REPO/FILE`, `timm:NAME`, `torchvision:NAME`, `module:function`
    or as a path.

    `weights`: a file to take instead of looking; `folder`: where RobustBench's layout `DATASET/Linf/NAME.pt` begins;
    `dataset`: which zoo a bare name belongs to; `fetch(url, path)` downloads.
    """
    named = (_existing(Path(weights)),) if weights else ()
    scheme, colon, rest = text.partition(":")
    if scheme == catalog.SCHEME and colon:
        entry = catalog.find_entry(rest, dataset)
        return Source(text, scheme, named or _zoo_files(entry, folder, fetch), entry)
    if scheme == "hf" and colon:
        return Source(text, "file", named or (_hugging_face(text, rest),))
    if scheme in PACKAGES and colon:
        return Source(text, scheme, named)
    if not Path(text).exists() and (spec := function_of(text)):
        return Source(spec, "factory", named)
    if named:
        raise CompressError(f"{text}: is a file itself; --weights goes with a name or a factory module:function")
    return Source(text, "file", (_existing(Path(text)),))


def _existing(path: Path) -> Path:
    if not path.exists():
        raise CompressError(
            f"{path}: no such file; give a checkpoint, robustbench:NAME (`compress teacher list`), hf:OWNER/REPO/FILE, "
            f"timm:NAME, torchvision:NAME or module:function"
        )
    return path


def _zoo_files(entry: CatalogEntry, folder: "str | None", fetch: Callable[[str, Path], None]) -> tuple[Path, ...]:
    """The entry's files in RobustBench's own layout, under `folder` or ./models; downloaded there when missing."""
    root = Path(folder or "models") / entry.dataset / "Linf"
    stem = root / f"{entry.name}.pt"
    several = len(entry.drive) > 1
    paths = [Path(f"{stem}_m{number}.pt") for number in range(len(entry.drive))] if several else [stem]
    missing = [path for path in paths if not path.exists()]
    if missing and not entry.drive:
        raise CompressError(
            f"{entry.source}: {stem} is not there and its authors publish no download; give the file with --weights"
        )
    for path, drive in zip(paths, entry.drive or ("",), strict=True):
        if path in missing:
            try:
                fetch(DRIVE.format(drive), path)
            except CompressError as fault:
                raise CompressError(
                    f"{entry.source}: {path} is not there and cannot be downloaded ({fault}); "
                    f"fetch https://drive.google.com/file/d/{drive} elsewhere and give it with --weights"
                ) from None
    return tuple(paths)


def _hugging_face(text: str, rest: str) -> Path:
    parts = rest.split("/")
    if len(parts) < 3:
        raise CompressError(f"{text}: write hf:OWNER/REPO/FILE, e.g. hf:wzekai99/DM-Improves-AT/checkpoint.pt")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import logging
    except ImportError:
        raise CompressError(
            f"{text}: needs huggingface-hub; pip install huggingface-hub, or download the file and give its path"
        ) from None
    logging.set_verbosity_error()  # its retries; what came of them is told below
    try:
        return Path(hf_hub_download("/".join(parts[:2]), "/".join(parts[2:])))
    except Exception as fault:  # the hub's exceptions share no base class, nor do those of the network below it
        raise CompressError(
            f"{text}: cannot be fetched ({_cause(fault)}); download the file elsewhere and give its path"
        ) from None


def _cause(fault: BaseException) -> str:
    """The first thing that went wrong, which the exceptions above it wrap."""
    while (below := fault.__cause__ or fault.__context__) is not None:
        fault = below
    return first_line(fault, 140)


def fetch_file(url: str, path: Path) -> None:
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
        if told := errors.machine_fault(fault, path):
            raise told from None
        reason = getattr(fault, "reason", None) or fault
        raise CompressError(f"no network, or no answer: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
