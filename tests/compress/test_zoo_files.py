"""What is not a checkpoint is named for what it is; what wants to run code is not run. Every file is a real one."""

import argparse
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.zoo import checkpoints
from edge.core.errors import CompressError

RAN = Path("ran")


class Bomb:
    """A pickle of it creates a file when it is opened as pickles usually are."""

    def __reduce__(self) -> Any:
        return (RAN.touch, ())


class Plain:
    """A class of the user's: an object of it needs its code."""


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: value.detach() for name, value in nn.Linear(200, 20).state_dict().items()}


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def tar_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("model_best.pth")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "hello")
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(4, 2), torch.rand(1, 4)), buffer)
    return buffer.getvalue()


NAN = {**weights(), "bias": torch.full((20,), float("nan"))}
PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body></body></html>"

FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an HTML page": (lambda: PAGE, "is an HTML page, not a checkpoint"),
    "a page after blank lines": (lambda: b"\n\n  <html>" + PAGE, "is an HTML page, not a checkpoint"),
    "a tar": (lambda: tar_of(saved(weights())), "is a tar archive holding model_best.pth; unpack it"),
    "gzip": (lambda: gzip.compress(saved(weights())), "is gzip-compressed; unpack it (gunzip)"),
    "xz": (lambda: lzma.compress(saved(weights())), "is xz-compressed; unpack it (unxz)"),
    "a zip of something else": (lambda: zip_of("readme.txt"), "is a zip archive holding readme.txt; unpack it"),
    "a truncated zip": (lambda: saved(weights())[:9000], "a truncated checkpoint (9,000 bytes"),
    "a truncated old file": (
        lambda: saved(weights(), _use_new_zipfile_serialization=False)[:3000],
        "is no readable checkpoint",
    ),
    "nothing": (lambda: b"", "is empty (0 bytes)"),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "JSON": (lambda: b'{"message": "Not Found"}', "is text (JSON), not a checkpoint"),
    "TorchScript": (torchscript, "is a TorchScript program, not weights"),
    "noise": (lambda: bytes(range(256)) * 10, "is no readable checkpoint"),
    "a pickle that runs": (lambda: pickle.dumps(Bomb()), "its pickle needs code"),
    "a checkpoint that runs": (lambda: saved({"state_dict": weights(), "x": Bomb()}), "its pickle needs code"),
    "a whole model": (lambda: saved(nn.Linear(3, 2)), "its pickle needs code (torch.nn.modules.linear.Linear)"),
    "an object": (lambda: saved({"w": weights(), "args": Plain()}), "its pickle needs code"),
    "NaN": (lambda: saved(NAN), "20 of 20 values of bias are NaN or infinite"),
    "no weights": (lambda: saved({"accuracy": 0.9}), "holds no weights (a dict)"),
    "a list": (lambda: saved([1, 2, 3]), "holds no weights (a list)"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_checkpoint_is_named(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    make, said = FILES[kind]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    path.write_bytes(make())
    with pytest.raises(CompressError) as fault:
        checkpoints.extract_weights(checkpoints.read_checkpoint(path), path)
    assert said in str(fault.value) and "\n" not in str(fault.value) and str(path) in str(fault.value)
    assert not RAN.exists(), "code in the file was run"


def test_a_truncated_safetensors_file_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "m.safetensors").write_bytes(save(weights())[:-100])
    with pytest.raises(CompressError, match="damaged or truncated safetensors"):
        checkpoints.read_checkpoint(tmp_path / "m.safetensors")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="is a folder; give the checkpoint file inside"):
        checkpoints.read_checkpoint(tmp_path)


def test_harmless_things_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    """numpy figures and command-line arguments, as many training scripts save them."""
    content = {
        "net": weights(),
        "acc": np.float64(0.81),
        "best": np.float32(0.5),
        "history": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, arch="resnet"),
    }
    for old in (False, True):
        torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
        found = checkpoints.extract_weights(checkpoints.read_checkpoint(tmp_path / "m.pt"), tmp_path / "m.pt")
        assert set(found.weights) == {"weight", "bias"}


def test_weights_stay_mapped_from_their_file(tmp_path: Path) -> None:
    """Half a gigabyte must not be read to be looked at: the tensors share the file's pages."""
    big = {"weight": torch.ones(1000, 1000)}
    torch.save(big, tmp_path / "m.pt")
    found = checkpoints.read_checkpoint(tmp_path / "m.pt")["weight"]
    assert str(tmp_path / "m.pt") in Path("/proc/self/maps").read_text() and float(found.sum()) == 1e6
