"""What a checkpoint file really is, its content read without executing anything in it, and the weights in that.

Weights come out plain: unwrapped, prefixes stripped, input normalisation set apart.
"""

import argparse
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.core.errors import CompressError

ONNX_SUFFIX = ".onnx"
#: What wrappers put before every key; stripped only where every key has it, again and again.
PREFIXES = (
    "module.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "_orig_mod.",
    "_module.",
    "encoder.",
    "student.",
    "teacher.",
    "attacker.model.",
)
#: Counters of weight averaging, beside the weights.
COUNTERS = ("n_averaged", "num_updates", "epoch", "step")
_CONSTANT = re.compile(r"(?:^|.*\.)(mu|sigma|mean|std)$")


def read_checkpoint(path: Path) -> Any:
    """The content of a PyTorch checkpoint or safetensors file, tensors mapped from the file where it allows that.

    Nothing in the file is executed. Whatever is not a checkpoint is named for what it is.
    """
    if path.is_dir():
        raise CompressError(f"{path}: is a folder; give the checkpoint file inside it")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read ({fault.strerror}); give a checkpoint file") from None
    if not head:
        raise CompressError(f"{path}: is empty (0 bytes); download it again")
    _refuse_other_kinds(path, head)
    if path.suffix == ".safetensors" or (head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27):
        return _read_safetensors(path)
    return _read_torch(path, zipped=head.startswith(b"PK"), pickled=head.startswith(b"\x80"))


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CompressError(
            f"{path}: is an HTML page, not a checkpoint (a download service answered with a page, as Google Drive does "
            f"when its quota is used up); download the file in a browser and give it with --weights"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CompressError(f"{path}: is a Git LFS pointer, not the file; run: git lfs pull")
    if head[257:262] == b"ustar":
        try:
            with tarfile.open(path) as archive:
                names = [member.name for member in archive if member.isfile()]
            inside = f" holding {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else ", empty"
        except tarfile.TarError:
            inside = ", damaged"
        raise CompressError(f"{path}: is a tar archive{inside}; unpack it and give the checkpoint inside")
    for magic, kind, tool in (
        (b"\x1f\x8b", "gzip", "gunzip"),
        (b"\xfd7zXZ", "xz", "unxz"),
        (b"7z\xbc\xaf", "7-zip", "7z x"),
    ):
        if head.startswith(magic):
            raise CompressError(f"{path}: is {kind}-compressed; unpack it ({tool}) and give the checkpoint inside")
    if start.startswith((b"{", b"[")):
        raise CompressError(f"{path}: is text (JSON), not a checkpoint; give the file that holds the weights")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as fault:
        raise CompressError(f"{path}: damaged or truncated safetensors file ({fault}); download it again") from None


def _read_torch(path: Path, *, zipped: bool, pickled: bool) -> Any:
    if zipped:
        _check_zip(path)
    try:
        with torch.serialization.safe_globals(list(_harmless())):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, OSError) as fault:
        message = str(fault)
        damage = re.search(r"invalid load key.*|Unsupported operand.*", message)
        if isinstance(fault, pickle.UnpicklingError) and (damage is None or pickled):
            name = re.search(r"(?:GLOBAL|global|class) `?([\w.]+)", message) or re.search(
                r"Unsupported (?:global|class)\W+([\w.]+)", message
            )
            code = f"code ({name[1]})" if name else "code"
            raise CompressError(
                f"{path}: its pickle needs {code} and is not executed; where you trust it, save the weights alone: "
                f"torch.save(torch.load(FILE, weights_only=False).state_dict(), OUT)"
            ) from None
        damage = damage or re.search(r".+", message)
        what = damage[0][:120] if damage else type(fault).__name__
        raise CompressError(f"{path}: is no readable checkpoint ({what}); download it again") from None


def _check_zip(path: Path) -> None:
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
    if not any(name.endswith("data.pkl") for name in members):
        inside = ", ".join(members[:3]) or "nothing"
        raise CompressError(f"{path}: is a zip archive holding {inside}; unpack it and give the checkpoint inside")


def _harmless() -> Iterator[Any]:
    """What old checkpoints carry beside their weights and that does nothing when built: numpy scalars, arguments."""
    import numpy as np

    yield argparse.Namespace
    yield from (np.dtype, np.ndarray, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"))
    reconstruct: Callable[..., Any] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    scalar: Callable[..., Any] = np._core.multiarray.scalar  # type: ignore[attr-defined]
    for function in (scalar, reconstruct):
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            yield function, f"{module}.{function.__name__}"


@dataclass(frozen=True)
class ForeignWeights:
    """Weights by their own names, and the constants of input normalisation if the file has them, (C,) each."""

    weights: dict[str, Tensor]
    mean: "Tensor | None" = None
    std: "Tensor | None" = None


def extract_weights(content: Any, path: Path, key: "str | None" = None) -> ForeignWeights:
    """The weights in a checkpoint: the only mapping of tensors in it, or the one named `key` (dotted when nested)."""
    sets = dict(_mappings(content))
    listed = ", ".join(sets) or "none"
    if key is not None:
        if key not in sets:
            raise CompressError(f"{path}: no weights under {key!r} (there are: {listed}); give another --key")
        chosen = sets[key]
    elif not sets:
        kind = type(content).__name__
        raise CompressError(f"{path}: holds no weights (a {kind}); give a state_dict, or a mapping that contains one")
    elif len(sets) > 1:
        raise CompressError(f"{path}: holds several sets of weights ({listed}); choose one with --key NAME")
    else:
        (chosen,) = sets.values()
    state = plain_weights(chosen)
    for name, value in state.weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise CompressError(
                f"{path}: {bad} of {value.numel()} values of {name} are NaN or infinite; training diverged or the file "
                f"is damaged, take another checkpoint"
            )
    return state


def _mappings(content: Any, at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping whose tensors make up a network's weights, under its dotted place. Optimizer state is none."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if any(value.ndim >= 2 for value in tensors.values()):
        yield at or "the file itself", tensors
        return
    for name, value in content.items():
        if "optim" not in str(name).lower():
            yield from _mappings(value, f"{at}.{name}" if at else str(name))


def plain_weights(tensors: Mapping[str, Tensor]) -> ForeignWeights:
    """One mapping of tensors without counters and prefixes, the constants of input normalisation set apart."""
    weights = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    # mean or deviation by channel: a handful of numbers, unlike a layer's own `mean`
    constants = {name: v for name, v in weights.items() if _CONSTANT.match(name) and 1 <= v.numel() <= 4}
    weights = _stripped({name: value for name, value in weights.items() if name not in constants})
    by_role = {name.rpartition(".")[2]: value.flatten() for name, value in constants.items()}
    return ForeignWeights(weights, by_role.get("mu", by_role.get("mean")), by_role.get("sigma", by_role.get("std")))


def _stripped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while weights:
        first = next(iter(weights)).partition(".")[0]
        # `1.`: a Sequential of input normalisation and network
        known = (*PREFIXES, f"{first}.") if first.isdigit() else PREFIXES
        prefix = next((prefix for prefix in known if all(name.startswith(prefix) for name in weights)), None)
        if prefix is None:
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
