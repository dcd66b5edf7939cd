"""What a checkpoint file really is, its content read without executing anything in it, and the weights in that.

Weights come out plain: unwrapped, prefixes stripped, input normalization set apart.
"""

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.data.listing import counted, first_few
from compress.zoo import other_files, wrapping
from compress.zoo.pickles import pickle_advice
from edge.core.errors import CompressError
from edge.core.progress import say

ONNX_SUFFIX = ".onnx"
#: Counters of weight averaging, beside the weights.
COUNTERS = ("n_averaged", "num_updates", "epoch", "step")
#: What the outermost mapping is called as a set of weights.
WHOLE = "the file itself"
_CONSTANT = re.compile(r"(?:^|.*\.)(mu|sigma|mean|std)$")


def read_checkpoint(path: Path) -> Any:
    """The content of a PyTorch checkpoint or safetensors file, tensors mapped from the file where it allows that.

    Nothing in the file is executed. Whatever is not a checkpoint is named for what it is.
    """
    if path.is_dir():
        other_files.refuse_folder(path)
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read ({fault.strerror}); give a checkpoint file") from None
    if not head:
        raise CompressError(f"{path}: is empty (0 bytes); download it again")
    other_files.refuse_part(path)
    safetensors = head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27
    if not safetensors:  # whose first bytes are a length, in which any other beginning may be read
        other_files.refuse_other_files(path, head)
    named = path.suffix == ".safetensors" and not head.startswith(b"PK")  # a torch file keeps its kind under any name
    if named or safetensors:
        return _read_safetensors(path)
    return _read_torch(path, zipped=head.startswith(b"PK"))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as fault:
        raise CompressError(f"{path}: damaged or truncated safetensors file ({fault}); download it again") from None


def _read_torch(path: Path, *, zipped: bool) -> Any:
    if zipped:
        other_files.refuse_other_archives(path)
    try:
        with torch.serialization.safe_globals(list(_harmless())), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols: what came of the file is told below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, OSError) as fault:
        message = str(fault)
        damage = re.search(r"invalid load key.*|Unsupported operand.*", message)
        if isinstance(fault, pickle.UnpicklingError) and (advice := pickle_advice(path)):
            raise CompressError(f"{path}: {advice}") from None
        damage = damage or re.search(r".+", message)
        what = damage[0][:120] if damage else type(fault).__name__
        raise CompressError(f"{path}: is no readable checkpoint ({what}); download it again") from None


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
    """Weights by their own names, and the constants of input normalization if the file has them, (C,) each."""

    weights: dict[str, Tensor]
    mean: "Tensor | None" = None
    std: "Tensor | None" = None
    #: the names of all such constants in the file
    constants: tuple[str, ...] = ()
    #: what lies beside these weights and was left out
    note: str = ""


def extract_weights(content: Any, path: Path, key: "str | None" = None) -> ForeignWeights:
    """The weights in a checkpoint: the only mapping of tensors in it, or the one named `key`.

    A key is dotted when nested, or the head of some tensors' names in one mapping (`student` of `student.conv.weight`).
    Of a mapping and those inside it the one with most matrices counts, the outer one where they are as many; what
    stands beside it is left out and said.
    """
    mappings = _mappings(content)
    sets, note = _split(mappings), ""
    listed = ", ".join(sets) or "none"
    if key is not None:
        sets = _under(sets, key)
        if not sets:
            raise CompressError(f"{path}: no weights under {key!r} (there are: {listed}); give another --key")
        if len(sets) > 1:
            raise CompressError(
                f"{path}: {len(sets)} sets of weights under {key!r} ({', '.join(sets)}); give another --key"
            )
    elif not sets:
        kind = type(content).__name__
        raise CompressError(f"{path}: holds no weights (a {kind}); give a state_dict, or a mapping that contains one")
    else:
        largest = _largest(mappings)
        sets, beside = _split(largest), _beside(mappings, largest)
        if len(sets) > 1:
            raise CompressError(
                f"{path}: holds several sets of weights ({', '.join(sets)}); choose one with --key NAME"
            )
        if beside:
            (place,) = sets
            what = "the weights" if place == WHOLE else place
            note = f"left out {counted(len(beside), 'tensor')} beside {what}: {first_few(beside)}"
            say(f"{path}: {note}")
    (chosen,) = sets.values()
    state = replace(plain_weights(chosen), note=note)
    for name, value in state.weights.items():
        _refuse_coded(name, value, path)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise CompressError(
                f"{path}: {bad} of {value.numel()} values of {name} are NaN or infinite; training diverged or the file "
                f"is damaged, take another checkpoint"
            )
    return state


def _refuse_coded(name: str, value: Tensor, path: Path) -> None:
    """Numbers that are weights only by a scale or an index kept elsewhere; of integers what is called a weight."""
    whole = not value.is_floating_point() and name.endswith("weight")
    coded = value.is_quantized or (value.itemsize < 2 if value.is_floating_point() else whole)
    if coded or value.is_complex() or value.layout != torch.strided:
        what = "sparse" if value.layout != torch.strided else str(value.dtype).removeprefix("torch.")
        raise CompressError(
            f"{path}: {name} is {what}, not plain floating-point weights; save what was trained, in float"
        )


def _mappings(content: Any, at: str = WHOLE) -> dict[str, dict[str, Tensor]]:
    """Every mapping that holds tensors, by its dotted place, an outer one before those inside it.

    Optimizer state is none, nor are counters.
    """
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} or _arrays(content)
    mappings = {at: tensors} if tensors else {}
    for name, value in content.items():
        if "optim" not in str(name).lower():
            mappings |= _mappings(value, _prefix(at) + str(name))
    return mappings


def _prefix(place: str) -> str:
    return "" if place == WHOLE else f"{place}."


def _matrices(tensors: Mapping[str, Tensor]) -> int:
    """How many of them have two axes or more: a network's weights do, what a trainer counts and averages does not."""
    return sum(value.ndim >= 2 for value in tensors.values())


def _largest(mappings: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Those of weights, without those inside a mapping of as many, and without those around a larger one."""
    sizes = {place: size for place, tensors in mappings.items() if (size := _matrices(tensors))}
    left: set[str] = set()
    for place, size in sizes.items():
        inside = [other for other in sizes if other != place and other.startswith(_prefix(place))]
        if place not in left:
            left.update(inside if all(sizes[other] <= size for other in inside) else [place])
    return {place: mappings[place] for place in sizes if place not in left}


def _beside(mappings: Mapping[str, dict[str, Tensor]], chosen: Mapping[str, dict[str, Tensor]]) -> list[str]:
    """The tensors of the other mappings by their dotted names, single figures and counters aside."""
    return [
        _prefix(place) + name
        for place, tensors in mappings.items()
        for name, value in tensors.items()
        if place not in chosen and value.ndim and name not in COUNTERS
    ]


def _arrays(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """NumPy's arrays in a mapping that holds no tensor, as ports from JAX are saved."""
    import numpy as np

    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    return {
        k: torch.from_numpy(v.astype(v.dtype.newbyteorder("="))) for k, v in arrays.items() if v.dtype.kind in "fiu"
    }


def _split(mappings: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """The sets of weights in them: a mapping, or the several networks that stand side by side in it."""
    sets: dict[str, dict[str, Tensor]] = {}
    for place, tensors in mappings.items():
        if _matrices(tensors):
            sides = wrapping.side_by_side(tensors)
            sets |= {_prefix(place) + side: part for side, part in sides.items()} or {place: tensors}
    return sets


def _under(sets: Mapping[str, dict[str, Tensor]], key: str) -> dict[str, dict[str, Tensor]]:
    """The sets of weights that `key` may mean, by names that mean but one."""
    if key in sets:
        return {key: sets[key]}
    meant = {place: tensors for place, tensors in sets.items() if place.endswith(f".{key}")}
    for place, tensors in sets.items():
        head = key.removeprefix(_prefix(place))
        if part := wrapping.under(tensors, head):
            meant[_prefix(place) + head] = part
    return meant


def plain_weights(tensors: Mapping[str, Tensor]) -> ForeignWeights:
    """One mapping of tensors without counters and wrappers, the constants of input normalization set apart."""
    weights = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    # mean or deviation by channel: a handful of numbers, unlike a layer's own `mean`
    constants = {name: v for name, v in weights.items() if _CONSTANT.match(name) and 1 <= v.numel() <= 4}
    named = {name: value for name, value in weights.items() if name not in constants}
    by_role = {name.rpartition(".")[2]: value.flatten() for name, value in constants.items()}
    mean, std = by_role.get("mu", by_role.get("mean")), by_role.get("sigma", by_role.get("std"))
    return ForeignWeights(wrapping.unwrapped(named), mean, std, tuple(constants))
