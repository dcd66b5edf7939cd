"""Files that are no checkpoint, or not the whole of one, each named for what it is with the way to mend it."""

import contextlib
import json
import re
import shlex
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edge.core.errors import CompressError
from edge.core.foreign_messages import disguise


def refuse_folder(path: Path) -> NoReturn:
    """CompressError that says which file of the folder to give."""
    if (path / ".metadata").is_file():  # torch.distributed.checkpoint
        tool = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {shlex.quote(str(path))} joined.pt"
        raise CompressError(f"{path}: is a checkpoint of several processes; join it and give joined.pt: {tool}")
    kinds = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx")
    inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in kinds)
    held = f" ({', '.join(inside[:3])}{', …' if len(inside) > 3 else ''})" if inside else ""
    raise CompressError(f"{path}: is a folder; give the checkpoint file inside it{held}")


def refuse_other_files(path: Path, head: bytes) -> None:
    """CompressError where its first bytes, `head`, say that the file is no checkpoint.

    What is written out here tells more of a checkpoint's case than `disguise` does of any file's.
    """
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CompressError(
            f"{path}: is an HTML page, not a checkpoint (a download service answered with a page, as Google Drive does "
            f"when its quota is used up); download the file in a browser and give it with --weights"
        )
    if head[257:262] == b"ustar":
        try:
            with tarfile.open(path) as archive:
                names = [member.name for member in archive if member.isfile()]
            inside = f" holding {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else ", empty"
        except tarfile.TarError:
            inside = ", damaged"
        raise CompressError(f"{path}: is a tar archive{inside}; unpack it and give the checkpoint inside")
    if head.startswith(b"\x89HDF"):
        raise CompressError(f"{path}: is an HDF5 file, as Keras writes; export the network to ONNX and give the .onnx")
    if head.startswith(b"\x08") and (b"pytorch" in head[:64] or b"onnx" in head[:64]):
        raise CompressError(f"{path}: is an ONNX graph; give it a name that ends in .onnx")
    if start.startswith((b"{", b"[")):
        _refuse_index(path)
        raise CompressError(f"{path}: is text (JSON), not a checkpoint; give the file that holds the weights")
    if not start.startswith(b"pk") and (other := disguise(head)) is not None:
        raise CompressError(f"{path}: {other}")


def _refuse_index(path: Path) -> None:
    """The list of the parts of a checkpoint that was saved in several, as Hugging Face's libraries do."""
    with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError, OSError):
        parts = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        if parts:
            raise CompressError(_joined(path, [path.with_name(part) for part in parts], "lists"))


def refuse_part(path: Path) -> None:
    """CompressError where its name says that it is one of several files that together hold the weights."""
    if match := re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)", path.name):
        head, number, count, suffix = match.groups()
        parts = [path.with_name(f"{head}-{each:05d}-of-{count}{suffix}") for each in range(1, int(count) + 1)]
        raise CompressError(_joined(path, parts, f"is part {int(number)} of"))


def _joined(path: Path, parts: "Sequence[Path]", what: str) -> str:
    """A line that names a checkpoint of several files and makes one of them."""
    files, out = json.dumps([str(part) for part in parts]), json.dumps(str(path.with_name("joined.pt")))
    reader = (
        "import torch; from safetensors.torch import load_file as read"
        if parts[0].suffix == ".safetensors"
        else "import functools, torch; read = functools.partial(torch.load, weights_only=True)"
    )
    code = f"{reader}; torch.save({{k: v for f in {files} for k, v in read(f).items()}}, {out})"
    return (
        f"{path}: {what} {len(parts)} files of one checkpoint; join them, and give joined.pt: python -c "
        f"{shlex.quote(code)}"
    )


def refuse_other_archives(path: Path) -> None:
    """A checkpoint of torch ≥ 1.6 is a zip that holds NAME/data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except zipfile.BadZipFile:
        raise CompressError(
            f"{path}: a truncated checkpoint ({path.stat().st_size:,} bytes, its zip directory is missing); "
            f"download it again"
        ) from None
    if any(name.endswith("/constants.pkl") for name in members) and any("/code/" in name for name in members):
        raise CompressError(f"{path}: is a TorchScript program, not weights; give its state_dict, or export it to ONNX")
    if members and all(name.endswith(".npy") for name in members):
        file, out = json.dumps(str(path)), json.dumps(str(path.with_suffix(".pt")))
        arrays = f"{{k: torch.as_tensor(v) for k, v in numpy.load({file}).items()}}"
        code = f"import numpy, torch; torch.save({arrays}, {out})"
        raise CompressError(
            f"{path}: is an archive of numpy arrays; where they are weights, run: python -c {shlex.quote(code)}"
        )
    if not any(name.endswith("data.pkl") for name in members):
        inside = ", ".join(members[:3]) or "nothing"
        raise CompressError(f"{path}: is a zip archive holding {inside}; unpack it and give the checkpoint inside")
