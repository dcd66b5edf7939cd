"""What is not a checkpoint is named for what it is; what wants to run code is not run. Every file is a real one."""

import argparse
import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import shlex
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
    "bzip2": (lambda: bz2.compress(saved(weights())), "is bzip2-compressed; unpack it (bunzip2)"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(99), "is zstd-compressed; unpack it (unzstd)"),
    "HDF5": (lambda: b"\x89HDF\r\n" + bytes(99), "is an HDF5 file, as Keras writes"),
    "ONNX": (lambda: b"\x08\x08\x12\x07pytorch" + bytes(99), "is an ONNX graph; give it a name that ends in .onnx"),
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


class Wrapped(nn.Module):
    """A whole network, as people pickle it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 2)


class Trainer:
    """An object that holds a network."""

    def __init__(self) -> None:
        self.epoch, self.network = 3, Wrapped()


ARRAYS = {name: value.numpy() for name, value in weights().items()}
PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a network": (lambda: saved(Wrapped()), "(tests.compress.test_zoo_files.Wrapped"),
    "a network, before torch 1.6": (
        lambda: saved(Wrapped(), _use_new_zipfile_serialization=False),
        "(tests.compress.test_zoo_files.Wrapped",
    ),
    "weights beside an object": (
        lambda: saved({"optimizer": {"state": weights()}, "state_dict": weights(), "args": Plain()}),
        "needs code (tests.compress.test_zoo_files.Plain)",
    ),
    "a network beside an object": (lambda: saved({"args": Plain(), "net": Wrapped()}), ".Plain, "),
    "a network in an object": (lambda: saved({"last": {"trainer": Trainer()}}), ".Trainer, "),
    "a path": (lambda: saved({"state_dict": weights(), "at": Path("x")}), "(pathlib."),
    "counts": (lambda: saved({"state_dict": weights(), "seen": collections.deque("ab")}), "(collections.deque)"),
    "a plain pickle": (lambda: pickle.dumps(weights()), "needs code (torch.storage._load_from_bytes)"),
    "arrays": (lambda: pickle.dumps(ARRAYS), "is a plain pickle, not a file of torch.save"),
    "arrays, protocol 0": (lambda: pickle.dumps(ARRAYS, protocol=0), "is a plain pickle, not a file of torch.save"),
    "arrays beside an object": (lambda: pickle.dumps({"args": Plain(), "params": ARRAYS}), ".Plain)"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_the_advice_for_a_pickle_works_for_what_is_in_it(kind: str, tmp_path: Path) -> None:
    make, said = PICKLES[kind]
    path = tmp_path / "it's a model.pkl"
    path.write_bytes(make())
    with pytest.raises(CompressError) as fault:
        checkpoints.read_checkpoint(path)
    line = str(fault.value)
    assert said in line and "is not executed; where you trust it" in line and "\n" not in line
    assert ("tests can be imported" in line) == ("tests." in line.partition("run:")[0])
    python, option, code = shlex.split(line.partition("run: ")[2])
    assert (python, option) == ("python", "-c")
    exec(code, {})
    out = tmp_path / "it's a model-weights.pt"
    got = checkpoints.extract_weights(checkpoints.read_checkpoint(out), out).weights
    want = weights() if "network" not in kind else None
    assert set(got) == {"weight", "bias"} and (want is None or all(torch.equal(got[name], want[name]) for name in want))


def test_a_pickle_without_weights_gives_no_command(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Plain()))
    with pytest.raises(CompressError, match="no weights can be seen in it, take a file that holds a state_dict"):
        checkpoints.read_checkpoint(tmp_path / "m.pkl")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_checkpoint_in_parts_is_joined_by_the_command_that_is_given(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save

    parts = [f"model-{number:05d}-of-00002{suffix}" for number in (1, 2)]
    for part, (name, value) in zip(parts, weights().items(), strict=True):
        content = save({name: value}) if suffix == ".safetensors" else saved({name: value})
        (tmp_path / part).write_bytes(content)
    index = {"metadata": {}, "weight_map": dict(zip(weights(), parts, strict=True))}
    (tmp_path / "model.index.json").write_text(json.dumps(index))
    for name, said in ((parts[1], "is part 2 of 2 files of one checkpoint"), ("model.index.json", "lists 2 files")):
        with pytest.raises(CompressError) as fault:
            checkpoints.read_checkpoint(tmp_path / name)
        assert said in str(fault.value) and "\n" not in str(fault.value)
        exec(shlex.split(str(fault.value).partition("joined.pt: ")[2])[2], {})
        joined = checkpoints.read_checkpoint(tmp_path / "joined.pt")
        assert all(torch.equal(joined[name], value) for name, value in weights().items())
        (tmp_path / "joined.pt").unlink()


def test_an_index_that_lists_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(CompressError, match="not a checkpoint; give the file that holds"):
        checkpoints.read_checkpoint(tmp_path / "model.index.json")


def test_arrays_of_numpy_are_converted_by_the_command_that_is_given(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **ARRAYS)  # type: ignore[arg-type]
    with pytest.raises(CompressError, match="is an archive of numpy arrays") as fault:
        checkpoints.read_checkpoint(tmp_path / "m.npz")
    exec(shlex.split(str(fault.value).partition("run: ")[2])[2], {})
    assert set(checkpoints.read_checkpoint(tmp_path / "m.pt")) == {"weight", "bias"}


def test_a_truncated_safetensors_file_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "m.safetensors").write_bytes(save(weights())[:-100])
    with pytest.raises(CompressError, match="damaged or truncated safetensors"):
        checkpoints.read_checkpoint(tmp_path / "m.safetensors")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="is a folder; give the checkpoint file inside"):
        checkpoints.read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CompressError, match=r"give the checkpoint file inside it \(model\.safetensors\)"):
        checkpoints.read_checkpoint(tmp_path)
    (tmp_path / ".metadata").touch()
    with pytest.raises(CompressError, match=r"of several processes; join it .*dcp_to_torch"):
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
