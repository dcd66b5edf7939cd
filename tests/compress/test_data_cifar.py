"""CIFAR from its official layout, pickled as Python 2 did, and a pickle that wants code refused before it runs."""

import codecs
import functools
import hashlib
import io
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from compress import data
from compress.data import cifar as source
from compress.data.cache import fetch_archive
from compress.data.cifar import loads_data_only
from compress.data.dataset import SPLITS
from edge.core.errors import CompressError
from tests.compress.data_files import pack, pixels, refusal

N = 20


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


class Python2(pickle._Pickler):
    """Writes str and bytes as Python 2 wrote its str: the opcodes that today's pickler no longer emits."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: "str | bytes") -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2(value: Any) -> bytes:
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(key: int, classes: int = 10, labels: bytes = b"labels") -> dict[bytes, Any]:
    fine = [(key + k) % classes for k in range(N)]
    return {b"batch_label": b"a batch", labels: fine, b"data": pixels(key, (N, 3072))}


def ten(**other: bytes) -> dict[str, bytes]:
    """cifar-10-batches-py with 20 images a batch; `other` replaces files."""
    files = {f"data_batch_{k}": python2(batch(k)) for k in range(1, 6)}
    files["test_batch"] = python2(batch(6))
    files["batches.meta"] = python2({b"label_names": [b"class %d" % k for k in range(10)], b"num_vis": 3072})
    files |= {"readme.html": b"<html>"} | {name.replace("__", "."): content for name, content in other.items()}
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def test_pixels_labels_and_names_are_those_of_the_batches(tmp_path: Path) -> None:
    made = data.load_dataset(f"cifar10:{pack(ten(), tmp_path / 'd', 'folder')}")
    assert made.images.shape == (120, 3, 32, 32) and made.classes == tuple(f"class {k}" for k in range(10))
    for k in range(6):
        want = pixels(k + 1, (N, 3072))
        assert np.array_equal(made.images[k * N : (k + 1) * N].reshape(N, -1), want)
        assert made.labels[k * N] == (k + 1) % 10
    assert made.images[0, 1, 2, 5] == pixels(1, (N, 3072))[0, 1024 + 2 * 32 + 5]  # green, row 2, column 5
    assert [len(made.splits[name]) for name in SPLITS] == [90, 10, 20]
    assert made.splits["test"].tolist() == list(range(100, 120))


def test_folder_its_parent_and_the_archive_are_the_same_dataset(tmp_path: Path) -> None:
    folder, archive = pack(ten(), tmp_path / "d", "folder"), pack(ten(), tmp_path / "cifar", "tar.gz")
    plans = [
        data.load_dataset(f"cifar10:{path}").as_plan() for path in (folder, folder / "cifar-10-batches-py", archive)
    ]
    assert plans[0] == plans[1] == plans[2] and plans[0]["name"] == "cifar10"


def test_cifar100_has_the_fine_labels(tmp_path: Path) -> None:
    coarse = {b"coarse_labels": [0] * 200}
    train = coarse | {b"fine_labels": [k % 20 for k in range(200)], b"data": pixels(1, (200, 3072))}
    files = {
        "train": python2(train),
        "test": python2(batch(2, 20, b"fine_labels") | coarse),
        "meta": python2({b"fine_label_names": [b"f%d" % k for k in range(20)], b"coarse_label_names": [b"c"]}),
    }
    root = pack({f"cifar-100-python/{name}": content for name, content in files.items()}, tmp_path / "d", "tar")
    made = data.load_dataset(f"cifar100:{root}")
    assert made.classes[19] == "f19" and made.labels[:200].tolist() == [k % 20 for k in range(200)]


def test_pickles_of_today_are_read_as_those_of_python_2() -> None:
    for protocol in range(5):  # in the latest one NumPy rebuilds arrays by another function
        found = loads_data_only(pickle.dumps(batch(1), protocol), "here")
        assert np.array_equal(found[b"data"], pixels(1, (N, 3072))) and found[b"labels"] == batch(1)[b"labels"]


class Code:
    """An object whose pickle calls `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda path: Code(os.system, f"touch {path}"), "posix.system"),
        (lambda path: Code(eval, f"open({str(path)!r}, 'w')"), "eval"),
        (lambda path: Code(functools.partial, os.mkdir, str(path)), "functools.partial"),
        (lambda path: Code(np.load, str(path)), "numpy"),
        (lambda path: Code(getattr, np.ndarray, "tofile"), "getattr"),
    ],
)
def test_a_pickle_that_wants_code_is_refused_by_name_and_not_run(
    tmp_path: Path, call: Any, named: str, protocol: int
) -> None:
    content = pickle.dumps({b"data": call(tmp_path / "ran")}, protocol)
    line = refusal(f"cifar10:{pack(ten(data_batch_3=content), tmp_path / 'd', 'folder')}")
    assert "data_batch_3" in line and named in line and "not run" in line
    assert not (tmp_path / "ran").exists()


def test_that_pickle_would_have_run_its_code(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps({b"data": Code(os.system, f"touch {tmp_path / 'ran'}")}))
    assert (tmp_path / "ran").exists()


def test_the_codec_a_pickle_may_ask_for_is_latin1_alone() -> None:
    assert loads_data_only(pickle.dumps(b"\xff\0", 2), "here") == b"\xff\0"
    with pytest.raises(CompressError, match="encoding rot13"):
        loads_data_only(pickle.dumps(Code(codecs.encode, "text", "rot13"), 2), "here")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"data_batch_2": python2(batch(2) | {b"data": pixels(2, (N, 3071))})}, "data is uint8 (20, 3071)"),
        ({"data_batch_2": python2(batch(2) | {b"data": pixels(2, (N, 3072)).astype(np.int16)})}, "data is int16"),
        ({"data_batch_2": python2([1, 2])}, "data is NoneType"),
        ({"data_batch_2": python2(batch(2) | {b"labels": [1] * 19})}, "labels is 19 entries"),
        ({"data_batch_2": python2(batch(2) | {b"labels": None})}, "labels is NoneType"),
        ({"data_batch_2": python2(batch(2) | {b"labels": [10] * N})}, "image 20 has label 10, outside 0…9"),
        ({"test_batch": python2(batch(2))[:-100]}, "test_batch: not a readable pickle"),
        ({"test_batch": b""}, "test_batch: not a readable pickle"),
        ({"batches__meta": python2({})}, "batches.meta has no label_names"),
    ],
)
@pytest.mark.parametrize("container", ["folder", "tar.gz"])
def test_a_wrong_batch_is_refused(tmp_path: Path, other: dict[str, bytes], says: str, container: str) -> None:
    assert says in refusal(f"cifar10:{pack(ten(**other), tmp_path / 'd', container)}")


@pytest.mark.parametrize("container", ["folder", "tar.gz"])
def test_a_missing_batch_is_named(tmp_path: Path, container: str) -> None:
    files = {name: content for name, content in ten().items() if "data_batch_4" not in name}
    line = refusal(f"cifar10:{pack(files, tmp_path / 'd', container)}")
    assert "data_batch_4 is missing" in line and "cifar-10-batches-py or cifar-10-python.tar.gz" in line


def test_an_archive_cut_short_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    archive = pack(ten(), tmp_path / "c", "tar.gz")
    archive.write_bytes(archive.read_bytes()[:50_000])
    assert f"{archive}: cannot be read" in refusal(f"cifar10:{archive}")
    assert "no such file or folder" in refusal(f"cifar10:{tmp_path / 'no'}")


def test_without_a_path_the_official_archive_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(ten(), tmp_path / "cifar-10-python", "tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(source, "CIFAR10", replace(source.CIFAR10, url=archive.as_uri(), sha256=digest))
    made = data.load_dataset("cifar10")
    assert made.as_plan() == data.load_dataset(f"cifar10:{archive}").as_plan()
    kept = tmp_path / "cache" / "downloads" / archive.name
    assert kept.read_bytes() == archive.read_bytes()
    archive.unlink()
    data.load_dataset.cache_clear()
    assert data.load_dataset("cifar10").as_plan() == made.as_plan()


def test_another_checksum_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"not it")
    with pytest.raises(CompressError, match=r"came with sha256 .*, published is 00000000") as fault:
        fetch_archive("cifar10", (tmp_path / "a.tar.gz").as_uri(), "0" * 64)
    assert "cifar10:PATH" in str(fault.value)
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_no_network_is_said_with_the_address_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = "http://127.0.0.1:9/cifar-10-python.tar.gz"  # nothing listens there
    with pytest.raises(CompressError, match="could not be downloaded") as fault:
        fetch_archive("cifar10", url, "0" * 64)
    line = str(fault.value)
    assert url in line and "cifar10:PATH" in line and "\n" not in line
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_a_download_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(CompressError, match="set ROBUST_COMPRESS_CACHE"):
        fetch_archive("cifar10", (tmp_path / "a.tar.gz").as_uri(), "0" * 64)
