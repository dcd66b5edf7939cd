"""Image files by class: any container gives the same dataset, and what is wrong is said in one line."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress import data
from compress.data.dataset import SPLITS
from compress.data.decode import decode_images
from edge.core.errors import CompressError
from tests.compress.data_files import CONTAINERS, encoded, pack, pixels, refusal, tree


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def test_pixels_labels_and_parts_are_those_of_the_files(tmp_path: Path) -> None:
    made = data.load_dataset(f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}")
    assert made.name == "imagefolder" and made.classes == ("ant", "bee")
    assert made.images.shape == (26, 3, 6, 6) and made.images.dtype == np.uint8
    for k in range(26):
        assert np.array_equal(made.images[k], pixels(k).transpose(2, 0, 1))
    assert made.labels.tolist() == [0] * 10 + [1] * 10 + [0] * 3 + [1] * 3
    assert made.splits["test"].tolist() == list(range(20, 26))
    assert len(made.splits["train"]) == 18 and len(made.splits["val"]) == 2


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("top", ["", "deeper/", "./"])
def test_every_container_and_one_folder_above_give_the_same_dataset(tmp_path: Path, container: str, top: str) -> None:
    whole = tree()
    reordered = {top + name: whole[name] for name in reversed(whole)} | {f"{top}train/.hidden.png": b"no image"}
    here = data.load_dataset(f"imagefolder:{pack(reordered, tmp_path / 'x', container)}")
    plain = data.load_dataset(f"imagefolder:{pack(whole, tmp_path / 'd', 'folder')}")
    assert here.as_plan() == plain.as_plan()


@pytest.mark.parametrize("own", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_validation_split(tmp_path: Path, own: str) -> None:
    test = [name for name in tree() if "test" in name]
    files = tree() | {name.replace("test", own): encoded(pixels(99 + k)) for k, name in enumerate(test)}
    made = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}")
    assert [len(made.splits[name]) for name in SPLITS] == [20, 6, 6]
    assert np.array_equal(made.part("val")[0][0], pixels(99).transpose(2, 0, 1))


def test_class_folders_alone_are_split_as_digits_are(tmp_path: Path) -> None:
    files = {f"{name}/{k}.png": encoded(pixels(k)) for name in ("b", "a") for k in range(50)}
    made = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'zip')}")
    assert made.classes == ("a", "b") and [len(made.splits[name]) for name in SPLITS] == [64, 16, 20]


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "ppm"])
def test_every_format_is_read_as_pillow_reads_it(tmp_path: Path, kind: str) -> None:
    files = {f"{label}/{k}.{kind.upper()}": encoded(pixels(k), kind) for label in "ab" for k in range(8)}
    made = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}")
    for name, image in zip(sorted(files), made.images, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")).transpose(2, 0, 1))


def test_grey_images_have_one_channel_until_one_has_colour(tmp_path: Path) -> None:
    grey = {f"{label}/{k}.png": encoded(pixels(k, (6, 6))) for label in "ab" for k in range(8)}
    made = data.load_dataset(f"imagefolder:{pack(grey, tmp_path / 'grey', 'folder')}")
    assert made.images.shape == (16, 1, 6, 6) and np.array_equal(made.images[3, 0], pixels(3, (6, 6)))
    mixed = data.load_dataset(
        f"imagefolder:{pack(grey | {'b/2.png': encoded(pixels(7))}, tmp_path / 'mixed', 'folder')}"
    )
    assert mixed.images.shape == (16, 3, 6, 6)
    assert np.array_equal(mixed.images[3], np.repeat(pixels(3, (6, 6))[None], 3, 0))
    assert np.array_equal(mixed.images[10], pixels(7).transpose(2, 0, 1))


def test_size_resizes_the_shorter_side_and_cuts_out_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the centre square
    tall = wide.transpose(1, 0, 2)
    files = {f"{label}/{k}.png": encoded(wide if k % 2 else tall) for label in "ab" for k in range(8)}
    source = pack(files, tmp_path / "d", "folder")
    line = refusal(f"imagefolder:{source}")
    assert "8×24" in line and "24×8" in line and f"imagefolder:{source}?size=N" in line
    whole = data.load_dataset(f"imagefolder:{source}?size=8")
    assert whole.images.shape == (16, 3, 8, 8) and (whole.images == 200).all()
    half = data.load_dataset(f"imagefolder:{source}?size=4")
    assert half.images.shape == (16, 3, 4, 4) and (half.images[..., 1:3, 1:3] == 200).all()


def test_resizing_averages_over_what_it_leaves_out(tmp_path: Path) -> None:
    board = (np.indices((32, 32)).sum(0) % 2 * 254).astype(np.uint8)  # finer than any pixel of the result
    files = {f"{label}/{k}.png": encoded(board) for label in "ab" for k in range(8)}
    made = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}?size=8")
    assert np.abs(made.images.astype(int) - 127).max() <= 4


def test_size_of_the_images_themselves_changes_no_pixel(tmp_path: Path) -> None:
    source = pack(tree(), tmp_path / "d", "folder")
    assert (
        data.load_dataset(f"imagefolder:{source}?size=6").fingerprint
        == data.load_dataset(f"imagefolder:{source}").fingerprint
    )


def test_images_that_are_not_square_are_kept_so(tmp_path: Path) -> None:
    files = {f"{label}/{k}.png": encoded(pixels(k, (4, 7, 3))) for label in "ab" for k in range(8)}
    assert data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}").images.shape == (16, 3, 4, 7)


def test_more_images_than_one_window_each_land_in_their_place(tmp_path: Path) -> None:
    files = {f"{label}/{k:04}.png": encoded(np.full((2, 2), k % 256, np.uint8)) for label in "ab" for k in range(600)}
    made = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'zip')}")
    assert made.images[:, 0, 1, 1].tolist() == [k % 256 for k in range(600)] * 2


def test_an_image_that_never_came_is_missed() -> None:
    entries = [(k, f"{k}.png", encoded(pixels(k))) for k in (0, 2)]
    with pytest.raises(CompressError, match="only 2 of 3 images were read"):
        decode_images(entries, 3, None, "here")


@pytest.mark.parametrize("option", ["?size=0", "?size=-3", "?size=big", "?size=", "?sise=8", "?"])
def test_an_option_that_is_none_is_refused(tmp_path: Path, option: str) -> None:
    assert "?size=32" in refusal(f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}{option}")


def test_a_path_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(f"imagefolder:{tmp_path / 'no'}")
    (tmp_path / "empty").mkdir()
    assert "no image in it" in refusal(f"imagefolder:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: {n: c for n, c in files.items() if "bee" not in n}, "one class ('ant')"),
        (lambda files: {n: c for n, c in files.items() if "test/bee" not in n}, "'bee' has images in train/ and none"),
        (lambda files: files | {"test/cow/1.png": encoded(pixels(1))}, "'cow' has images in test/ and none in train/"),
        (lambda files: files | {"train/1.png": encoded(pixels(1))}, "train/1.png lies in no class folder"),
        (lambda files: files | {"train/bee/4.png": b"\x89PNG\r\n\x1a\nno"}, "train/bee/4.png: not a readable image"),
        (lambda files: files | {"train/bee/4.png": files["train/bee/4.png"][:60]}, "train/bee/4.png: not a readable"),
        (lambda files: files | {"train/bee/4.png": encoded(pixels(1, (6, 6)).astype(np.uint16))}, "not 8 bits"),
        (lambda files: {n: c for n, c in files.items() if "train" in n and int(n[-5]) < 2}, "leave none for"),
    ],
)
@pytest.mark.parametrize("container", ["folder", "tar.gz"])
def test_what_is_wrong_with_the_files_is_said(tmp_path: Path, change, says: str, container: str) -> None:  # type: ignore[no-untyped-def]
    assert says in refusal(f"imagefolder:{pack(change(tree()), tmp_path / 'd', container)}")
    assert not (tmp_path / "cache" / "entries").exists()


@pytest.mark.parametrize("container", CONTAINERS[1:])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_an_archive_cut_short_is_refused(tmp_path: Path, container: str, kept: float) -> None:
    path = pack(tree(), tmp_path / "d", container)
    whole = path.read_bytes()
    if container == "tar":
        whole = whole[: whole.rindex(b"IEND")]  # what follows the last member is padding
    path.write_bytes(whole[: int(kept * len(whole))])
    assert str(path) in refusal(f"imagefolder:{path}")


@pytest.mark.parametrize("container", ["tar", "tar.gz"])
@pytest.mark.parametrize("damage", ["between two members", "in a header", "a header's checksum"])
def test_a_tar_whose_tail_is_lost_is_refused_not_read_without_it(tmp_path: Path, container: str, damage: str) -> None:
    path = pack(tree(), tmp_path / "d", "tar")
    with tarfile.open(path) as archive:
        at = archive.getmembers()[20].offset  # the first image of test/: train/ alone is a dataset too
    whole = path.read_bytes()
    cuts = {"between two members": whole[:at], "in a header": whole[: at + 99]}
    lost = cuts.get(damage, whole[:at] + b"?" + whole[at + 1 :])
    path.write_bytes(gzip.compress(lost) if container == "tar.gz" else lost)
    assert f"{path}: cannot be read, damaged or cut short (no end of the archive" in refusal(f"imagefolder:{path}")


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty, 0 bytes"), (b"GIF89a..", r"begins with b'GIF89a..', none")]
)
def test_what_is_no_image_is_told_by_its_first_bytes(tmp_path: Path, content: bytes, says: str) -> None:
    files = tree() | {"train/ant/0.png": content}
    assert f"train/ant/0.png: not a readable image ({says}" in refusal(
        f"imagefolder:{pack(files, tmp_path / 'd', 'zip')}"
    )


@pytest.mark.parametrize("container", ["tar", "tar.gz"])
def test_what_lies_behind_the_end_of_a_tar_is_said(tmp_path: Path, container: str) -> None:
    files = tree()
    parts = [
        pack({n: c for n, c in files.items() if n.startswith(p)}, tmp_path / p, container) for p in ("train", "test")
    ]
    (tmp_path / "both").write_bytes(b"".join(part.read_bytes() for part in parts))
    notes = [data.load_dataset(f"imagefolder:{path}").notes for path in (tmp_path / "both", parts[0])]
    assert [any("behind the end of the archive" in note for note in each) for each in notes] == [True, False]


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello " * 300)
    assert "neither a folder nor a readable tar or zip" in refusal(f"imagefolder:{tmp_path / 'notes.txt'}")


@pytest.mark.parametrize("container", ["tar", "zip"])
def test_a_member_that_would_climb_out_is_read_and_never_written(tmp_path: Path, container: str) -> None:
    inner = tmp_path / "deep"
    inner.mkdir()
    source = pack({f"../{name}": content for name, content in tree().items()}, inner / "d", container)
    made = data.load_dataset(f"imagefolder:{source}")
    assert np.array_equal(made.images[0], pixels(0).transpose(2, 0, 1))
    assert {path.name for path in (*tmp_path.iterdir(), *inner.iterdir())} == {"cache", "deep", source.name}


def test_links_in_a_tar_are_refused_since_they_would_be_lost(tmp_path: Path) -> None:
    path = pack(tree(), tmp_path / "d", "tar")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("train/ant/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(link)
    assert "train/ant/link.png is a link" in refusal(f"imagefolder:{path}")


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    path = pack(tree(), tmp_path / "d", "tar")
    newer = encoded(pixels(1234))
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("train/ant/0.png")
        member.size = len(newer)
        archive.addfile(member, io.BytesIO(newer))
    made = data.load_dataset(f"imagefolder:{path}")
    assert len(made.images) == 26 and np.array_equal(made.images[0], pixels(1234).transpose(2, 0, 1))


def test_a_relative_path_is_the_same_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.load_dataset(f"imagefolder:{pack(tree(), tmp_path / 'd', 'folder')}")
    for folder, name in ((tmp_path, "d"), (tmp_path, "./d/"), (tmp_path / "d", ".")):
        monkeypatch.chdir(folder)
        assert data.load_dataset(f"imagefolder:{name}").as_plan() == whole.as_plan()
    assert len(list((tmp_path / "cache" / "sources").iterdir())) == 1
