"""Decoded datasets and official archives kept on disk by their content: a second load neither decodes nor hashes.

    entries/FINGERPRINT-SPLIT/    images.npy, labels.npy, train.npy, val.npy, test.npy, meta.json
    sources/KEY                   the entry made from source files with these paths, sizes and times, and its notes
    fingerprints/KEY              sha256 of what a large file with this path, size and time holds
    downloads/                    archives fetched from their official address, checksum verified

The folder is $ROBUST_COMPRESS_CACHE, else $XDG_CACHE_HOME/robust-compress, else ~/.cache/robust-compress. It can be
removed at any time. Where it cannot be written, every load decodes again.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np

from compress.data.dataset import SPLITS, Dataset
from edge.core import artifact
from edge.core.errors import CompressError, first_line
from edge.core.progress import Progress, say_once

FORMAT = 2  # raised whenever the same source files would give another dataset
META = "meta.json"
BLOCK = 1 << 20  # bytes of a download at once
TIMEOUT_S = 60


def cache_home() -> Path:
    """Where this user's cache lies."""
    own = os.environ.get("ROBUST_COMPRESS_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "robust-compress")


def cached_dataset(
    kind: str, option: str, root: Path, files: "Sequence[Path | str]", make: Callable[[], Dataset]
) -> Dataset:
    """The dataset that `make` would return, from the cache when `files` below `root` are the ones it was made from."""
    source = cache_home() / "sources" / _key(kind, option, root, files)
    kept = _find(source, kind)
    if kept:
        return kept
    dataset = make()
    try:
        _store(dataset, source)
    except OSError as fault:  # no right to write, no room left: the dataset in memory is as good
        say_once(
            f"{cache_home()}: cannot be written ({fault.strerror}), so {kind} is decoded each time; "
            f"ROBUST_COMPRESS_CACHE names another folder"
        )
        return dataset
    return _find(source, kind) or dataset


def remembered_fingerprint(kind: str, file: Path, make: Callable[[], str]) -> str:
    """The fingerprint that `make` finds in a file, found once for each path, size and time of it."""
    kept = cache_home() / "fingerprints" / _key(kind, "", file, [file])
    with contextlib.suppress(OSError, UnicodeDecodeError):
        fingerprint = kept.read_text(encoding="utf-8")
        if len(fingerprint) == 64:
            return fingerprint
    fingerprint = make()
    with contextlib.suppress(OSError), _beside(kept) as fresh:  # without a cache it is found again
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(fingerprint)
        fresh.replace(kept)
    return fingerprint


def _key(kind: str, option: str, root: Path, files: "Sequence[Path | str]") -> str:
    listing = []
    for file in files:  # as text: there can be a million
        try:
            state = os.stat(file)
        except OSError as fault:
            raise CompressError(f"{file}: cannot be read ({fault.strerror}); mend or remove it") from None
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
            raise CompressError(f"{file}: is a pipe or a device, no file; remove it")
        listing.append([str(file).removeprefix(str(root)), state.st_size, state.st_mtime_ns])
    return artifact.digest([FORMAT, kind, option, str(root.resolve()), listing])


def _find(source: Path, kind: str) -> "Dataset | None":
    try:
        kept = json.loads(source.read_text(encoding="utf-8"))
        dataset = _open(cache_home() / "entries" / kept["entry"], kind)
        return dataset and dataset.with_notes([str(note) for note in kept["notes"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(entry: Path, kind: str) -> "Dataset | None":
    """The dataset in a complete entry; None when a file is missing or of another size than was written."""
    try:
        meta = json.loads((entry / META).read_text(encoding="utf-8"))
        if any((entry / name).stat().st_size != size for name, size in meta["bytes"].items()):
            return None
        # Mapped copy-on-write: pages come from disk as they are used, and torch takes the array without a warning.
        images = np.load(entry / "images.npy", mmap_mode="c")
        labels = np.load(entry / "labels.npy")
        splits = {name: np.load(entry / f"{name}.npy") for name in SPLITS}
        dataset = Dataset(kind, images.view(np.ndarray), labels, splits, tuple(meta["classes"]))
        vars(dataset)["fingerprint"] = meta["fingerprint"]  # where the cached property looks first
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dataset


def _store(dataset: Dataset, source: Path) -> None:
    """Write the entry unless a complete one is there, then what points to it."""
    entry = cache_home() / "entries" / f"{dataset.fingerprint}-{dataset.split_hash[:16]}"
    if _open(entry, dataset.name) is None:
        with _beside(entry) as fresh:
            fresh.mkdir(parents=True)
            _write(dataset, fresh)
            try:
                fresh.rename(entry)
            except OSError:  # there is one: damaged, or the complete one of another process, which stays
                if _open(entry, dataset.name) is None:
                    with _beside(entry) as damaged:
                        entry.rename(damaged)
                        fresh.rename(entry)
    with _beside(source) as fresh:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        kept = {"entry": entry.name, "notes": dataset.notes}
        fresh.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        fresh.replace(source)


def _write(dataset: Dataset, entry: Path) -> None:
    arrays = {"images": dataset.images, "labels": dataset.labels, **{name: dataset.splits[name] for name in SPLITS}}
    sizes = {}
    for name, array in arrays.items():
        with open(entry / f"{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        sizes[f"{name}.npy"] = (entry / f"{name}.npy").stat().st_size
    meta = {"fingerprint": dataset.fingerprint, "classes": dataset.classes, "bytes": sizes}
    artifact.write_atomic(entry / META, json.dumps(meta, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name of this process alone beside `path`; what still bears it at the end is removed."""
    fresh = path.with_name(f".{path.name[:16]}-{secrets.token_hex(6)}")
    try:
        yield fresh
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
        else:
            fresh.unlink(missing_ok=True)


def fetch_archive(kind: str, url: str, sha256: str) -> Path:
    """The file of that address in the cache, downloaded if it is not there yet."""
    path = cache_home() / "downloads" / url.rpartition("/")[2]
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
            f"data {kind}: {url} could not be downloaded ({first_line(fault, 160)}); without a network get the file "
            f"elsewhere and write {kind}:PATH"
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
