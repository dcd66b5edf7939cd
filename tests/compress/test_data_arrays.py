"""IDX and NumPy archives: every layout to uint8 (N,C,H,W), and what is wrong said in one line."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import data
from tests.compress.data_files import pixels, refusal

X, Y = pixels(1, (40, 5, 6)), np.arange(40, dtype=np.uint8) % 4
X_TEST, Y_TEST = pixels(2, (8, 5, 6)), np.arange(8, dtype=np.uint8) % 4
COLOUR = pixels(3, (40, 5, 6, 3))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def idx_bytes(array: np.ndarray) -> bytes:
    """The array as LeCun's page describes the format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(folder: Path, mark: str = "-", gz: bool = False, **other: bytes) -> Path:
    """MNIST's four files; `other` replaces the content of train_images and so on."""
    folder.mkdir(exist_ok=True)
    for stem, array in (("train-images", X), ("train-labels", Y), ("t10k-images", X_TEST), ("t10k-labels", Y_TEST)):
        content = other.get(stem.replace("-", "_"), idx_bytes(array))
        name = f"{stem}{mark}idx{array.ndim}-ubyte"
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(content) if gz else content)
    return folder


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


KERAS = {"x_train": X, "y_train": Y, "x_test": X_TEST, "y_test": Y_TEST}


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_files_are_read_under_each_of_their_names(tmp_path: Path, mark: str, gz: bool) -> None:
    made = data.load_dataset(f"idx:{mnist(tmp_path / 'm', mark, gz)}")
    assert np.array_equal(made.images, np.concatenate([X, X_TEST])[:, None])
    assert np.array_equal(made.labels, np.concatenate([Y, Y_TEST])) and made.labels.dtype == np.int64
    assert made.splits["test"].tolist() == list(range(40, 48)) and made.classes == ("0", "1", "2", "3")


def test_idx_and_npz_of_the_same_arrays_are_the_same_data(tmp_path: Path) -> None:
    idx, keras = data.load_dataset(f"idx:{mnist(tmp_path / 'm')}"), data.load_dataset(npz(tmp_path / "k.npz", **KERAS))
    assert (idx.fingerprint, idx.split_hash) == (keras.fingerprint, keras.split_hash)
    assert (idx.name, keras.name) == ("idx", "npz")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"train_images": b"\0\0\x0d\3" + idx_bytes(X)[4:]}, "starts with 00 00 0d 03"),
        ({"train_images": idx_bytes(Y)}, "starts with 00 00 08 01"),
        ({"train_images": b""}, "starts with "),
        ({"train_images": b"\0\0\x08\3\0\0"}, "has 6 bytes"),
        ({"train_images": idx_bytes(X)[:-1]}, "its header announces 1216"),
        ({"t10k_labels": idx_bytes(Y_TEST) + b"x"}, "has 17 bytes, its header announces 16"),
        ({"train_labels": idx_bytes(Y[:-1])}, "39 labels for 40 images"),
        ({"t10k_images": idx_bytes(X_TEST[:, 1:])}, "training images are (5, 6), test images (4, 6)"),
        ({"t10k_labels": idx_bytes(Y_TEST + 4)}, "class '4' has no training image"),
        ({"train_labels": idx_bytes(Y * 0), "t10k_labels": idx_bytes(Y_TEST * 0)}, "one class"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_a_wrong_idx_file_is_refused(tmp_path: Path, other: dict[str, bytes], says: str, gz: bool) -> None:
    assert says in refusal(f"idx:{mnist(tmp_path / 'm', gz=gz, **other)}")


def test_an_idx_file_cut_short_or_missing_is_refused(tmp_path: Path) -> None:
    folder = mnist(tmp_path / "m", gz=True)
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:50])
    assert f"{file}: cannot be read" in refusal(f"idx:{folder}")
    file.unlink()
    assert "t10k-images-idx3-ubyte is missing" in refusal(f"idx:{folder}")
    assert "no such file or folder" in refusal(f"idx:{tmp_path / 'no'}")


@pytest.mark.parametrize(
    "images", [COLOUR, COLOUR.transpose(0, 3, 1, 2), COLOUR / 255, (COLOUR / 255).astype(np.float32)]
)
def test_colour_images_come_out_alike_from_every_layout(tmp_path: Path, images: np.ndarray) -> None:
    made = data.load_dataset(npz(tmp_path / "a.npz", images=images, labels=Y))
    assert made.images.dtype == np.uint8 and np.array_equal(made.images, COLOUR.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("images", [X, X[:, None], X[..., None], (X.astype(np.float32) / 255)])
def test_grey_images_come_out_alike_from_every_layout(tmp_path: Path, images: np.ndarray) -> None:
    assert np.array_equal(data.load_dataset(npz(tmp_path / "a.npz", images=images, labels=Y)).images, X[:, None])


def test_every_level_survives_as_a_float(tmp_path: Path) -> None:
    levels = np.resize(np.arange(256, dtype=np.uint8), (40, 16, 16))
    for kind in (np.float16, np.float32, np.float64):
        path = tmp_path / f"{np.dtype(kind)}.npz"
        assert np.array_equal(
            data.load_dataset(npz(path, images=(levels / 255).astype(kind), labels=Y)).images[:, 0], levels
        )


def test_split_and_class_names_are_taken_from_the_archive(tmp_path: Path) -> None:
    split = np.array(["test", "train", "val", "train"] * 10)
    labels = np.arange(40)[:, None] // 4 % 2  # one column, as Keras keeps CIFAR's
    made = data.load_dataset(npz(tmp_path / "a.npz", images=X, labels=labels, split=split, classes=["cat", "dog"]))
    assert made.splits["val"].tolist() == list(range(2, 40, 4)) and made.classes == ("cat", "dog")
    assert made.labels.tolist() == labels[:, 0].tolist()


def test_an_own_validation_part_is_read_too(tmp_path: Path) -> None:
    made = data.load_dataset(npz(tmp_path / "a.npz", **KERAS, x_val=X_TEST ^ 1, y_val=Y_TEST))
    assert np.array_equal(made.part("val")[0][:, 0], X_TEST ^ 1) and np.array_equal(made.part("test")[0][:, 0], X_TEST)


@pytest.mark.parametrize(("shape", "wanted"), [((40, 6, 5, 4), (4, 6, 5)), ((40, 2, 9, 7), (2, 9, 7))])
def test_other_channels_than_one_or_three_are_told_by_their_number(
    tmp_path: Path, shape: "tuple[int, ...]", wanted: "tuple[int, ...]"
) -> None:
    assert data.load_dataset(npz(tmp_path / "a.npz", images=pixels(1, shape), labels=Y)).images.shape[1:] == wanted


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": X.astype(np.int64), "labels": Y}, "images are int64"),
        ({"images": X / 256, "labels": Y}, "images that are not all k/255"),
        ({"images": X * 1.0, "labels": Y}, "images that are not all k/255"),
        ({"images": X * np.nan, "labels": Y}, "images that are not all k/255"),
        ({"images": X[:, 0], "labels": Y}, "images of shape (40, 6)"),
        ({"images": pixels(1, (40, 5, 5, 5)), "labels": Y}, "neither end could be the channels"),
        ({"images": pixels(1, (40, 4, 5, 4)), "labels": Y}, "neither end could be the channels"),
        ({"images": pixels(1, (40, 3, 5, 3)), "labels": Y}, "either end could be the channels"),
        ({"images": X, "labels": Y[:-1]}, "for 40 images"),
        ({"images": X, "labels": np.eye(4)[Y]}, "labels are float64 of shape (40, 4)"),
        ({"images": X, "labels": Y, "classes": ["a", "b"]}, "label 2, outside 0…1"),
        ({"images": X, "labels": Y.astype(int) - 1}, "label -1"),
        ({"images": X, "labels": Y, "split": np.array(["train"] * 39 + ["dev"])}, "split holds 'dev'"),
        ({"images": X, "labels": Y, "split": np.array(["train"] * 39)}, "split has shape (39,)"),
        ({"images": X[:0], "labels": Y[:0]}, "holds no image"),
        ({"images": X, "labels": Y.astype(int) * 0 - 1}, "image 0 has label -1, below 0"),
        ({"x_train": X, "y_train": Y}, "has x_train, y_train, no x_test"),
        (KERAS | {"x_test": X_TEST[:, 1:]}, "x_train and x_test differ"),
        (KERAS | {"y_test": Y_TEST[1:]}, "y_test has 7 labels for 8 images"),
        (KERAS | {"y_train": np.array([*"abcd"] * 10)}, "differ"),
        ({"pixels": X}, "has pixels, no x_train"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    assert says in refusal(npz(tmp_path / "a.npz", **arrays))


class Code:
    """An object whose pickle calls for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_in_an_archive_are_refused_and_not_run(tmp_path: Path) -> None:
    objects = np.array([Code(tmp_path / "ran")] * 40, dtype=object)
    assert "labels is an array of Python objects" in refusal(npz(tmp_path / "a.npz", images=X, labels=objects))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_an_archive_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    name = npz(tmp_path / "a.npz", **KERAS)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(len(content) * kept)])
    assert f"{name}: cannot be read" in refusal(name)


def test_an_altered_archive_a_single_array_and_a_folder_are_refused(tmp_path: Path) -> None:
    name = npz(tmp_path / "a.npz", **KERAS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[400] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert "CRC" in refusal(name)
    np.save(tmp_path / "b.npy", X)
    assert "one array, not an archive" in refusal(f"npz:{tmp_path / 'b.npy'}")
    assert "is a folder; give one .npz file" in refusal(f"npz:{tmp_path}")
