"""Image folders as they are found in the wild: what is no data is left out and counted, what is unclear asked about."""

import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from compress import data
from compress.data.parts import is_word_for_part, sounds_like_part
from tests.compress.data_files import encoded, pack, pixels, refusal, tree

CLUTTER = {
    "train/.ipynb_checkpoints/0-checkpoint.png": "left out, hidden or of a tool: 1 file (.ipynb_checkpoints 1)",
    "train/ant/.ipynb_checkpoints/0.png": "(.ipynb_checkpoints 1)",
    "test/bee/@eaDir/0.png/SYNOPHOTO.png": "(@eaDir 1)",
    "__MACOSX/train/ant/._0.png": "(__MACOSX 1)",
    "train/ant/._0.png": "(._* 1)",
    ".git/objects/0.png": "(.git 1)",
    "train/Thumbs.db": "(Thumbs.db 1)",
    "$RECYCLE.BIN/S-1/0.png": "($RECYCLE.BIN 1)",
    "lost+found/0.png": "(lost+found 1)",
    "train/ant/__pycache__/0.png": "(__pycache__ 1)",
    "test/.AppleDouble/0.png": "(.AppleDouble 1)",
    "train/.DS_Store": "(.DS_Store 1)",
    "train/ant/labels.TXT": "left out, of no kind that is read: 1 file (.txt 1)",
    "extra/cat/0.png": "left out, beside test/, train/: 1 image (extra 1)",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def plain(names: "tuple[str, ...]" = ("ant", "bee"), count: int = 10, inner: str = "") -> dict[str, bytes]:
    """`CLASS/INNER/K.png`, all images different."""
    places = [f"{name}/{inner}{k}.png" for name in names for k in range(count)]
    return {name: encoded(pixels(key)) for key, name in enumerate(places)}


def moved(**tops: str) -> dict[str, bytes]:
    """`tree()` with other names at the top."""
    return {f"{tops[name.split('/')[0]]}/{name.partition('/')[2]}": content for name, content in tree().items()}


def source(files: dict[str, bytes], path: Path, container: str = "folder") -> str:
    return f"imagefolder:{pack(files, path, container)}"


@pytest.mark.parametrize("container", ["folder", "tar", "zip"])
@pytest.mark.parametrize("name", CLUTTER)
def test_what_is_no_data_changes_nothing_and_is_counted(tmp_path: Path, name: str, container: str) -> None:
    whole = data.load_dataset(source(tree(), tmp_path / "d"))
    made = data.load_dataset(source(tree() | {name: encoded(pixels(500))}, tmp_path / "x", container))
    assert made.as_plan() == whole.as_plan() and made.classes == ("ant", "bee")
    assert [note for note in made.notes if CLUTTER[name] in note] and len(made.notes) == len(whole.notes) + 1


def test_what_is_said_is_said_on_every_load_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = source(tree() | {"train/ant/.x.png": b""}, tmp_path / "d")
    for _ in range(2):  # decoded, then from the cache
        data.load_dataset.cache_clear()
        notes = [data.load_dataset(name).notes for _ in range(2)][1]
        told = capsys.readouterr().err
        assert all(told.count(f"data {name}: {note}\n") == 1 for note in notes) and "(.x.png 1)" in told
    assert notes[0] == "26 images 3×6×6 in 2 classes (ant, bee): train 18, val 2, test 6 " + (
        "(val is a tenth of the source's train part, at most 5,000)"
    )
    (tmp_path / "d" / "train" / "bee" / ".y").touch()  # no image: nothing is decoded anew, and it is said all the same
    data.load_dataset.cache_clear()
    assert any("2 files (.x.png 1, .y 1)" in note for note in data.load_dataset(name).notes)


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "says"),
    [
        # a class that would vanish and move the labels behind it
        (tree() | {f"{part}/ape/0.gif": b"x" for part in ("train", "test")}, "test/ape/ stands where classes are and"),
        (
            plain() | {"ape/0.tiff": b"x", "ape/1.tiff": b"x"},
            "ape/ stands where classes are and holds 2 files, no image that is read (.tiff 2)",
        ),
        (
            {f"images/{name}": c for name, c in plain().items()} | {"meta/a.txt": b""},
            "/images if the classes lie in there",
        ),
        (plain() | {"docs/readme.md": b"x"}, "(.md 1); convert them to PNG, or remove the folder"),
        # parts by another name
        (moved(train="training", test="dev"), "dev/ sounds like a part of the data, not like a class"),
        (moved(train="train2017", test="val2017"), "train2017/ sounds like a part"),
        (moved(train="train", test="testing") | {"test/ant/0.png": b""}, "testing/ beside test/, train/ sounds like"),
        (tree() | {"dev/ant/0.png": encoded(pixels(700))}, "dev/ beside test/, train/ sounds like a part of the data"),
        (moved(train="training", test="training") | {"testing/cow/0.png": b""}, "testing/ sounds like a part"),
        (tree() | {"Train/ant/x.png": encoded(pixels(700))}, "Train/ and train/ are both the train part"),
        (tree() | {f"{p}/ant/x.png": b"" for p in ("val", "valid")}, "val/ and valid/ are both the val part"),
        (plain(("training", "testing")), "testing/ sounds like a part"),
        (plain(("eval",), inner="cat/"), "eval/ sounds like a part"),
        # folders inside what would be a class
        (plain(inner="train/") | plain(inner="test/"), "test/ and train/ lie inside 2 of the folders"),
        (plain(("web", "cam"), inner="cat/") | plain(("web", "cam"), inner="dog/"), "cat/ and dog/ lie inside 2 of"),
        (
            {f"0/{name}": content for name, content in tree().items()} | plain(("1",)),
            "test/ and train/ lie inside 1 of",
        ),
        ({name.replace("/", "-"): content for name, content in tree().items()}, "lies in no class folder"),
        (plain() | {"x.png": encoded(pixels(700))}, "x.png lies in no class folder"),
        ({f".hidden/{name}": content for name, content in tree().items()}, "26 files (.hidden 26); put images into"),
    ],
)
def test_what_is_nearly_a_layout_is_asked_about(
    tmp_path: Path, files: dict[str, bytes], says: str, container: str
) -> None:
    assert says in refusal(source(files, tmp_path / "d", container))


@pytest.mark.parametrize("train", ["training", "Training"])
def test_training_and_testing_with_the_same_classes_are_the_parts(tmp_path: Path, train: str) -> None:
    made = data.load_dataset(source(moved(train=train, test="testing"), tmp_path / "x"))
    assert made.as_plan() == data.load_dataset(source(tree(), tmp_path / "d")).as_plan()
    assert {f"{train}/ is taken for train/", "testing/ is taken for test/"} <= {*made.notes}


def test_a_class_may_sound_like_a_part_among_others_that_do_not(tmp_path: Path) -> None:
    assert data.load_dataset(source(plain(("racing", "training")), tmp_path / "d")).classes == ("racing", "training")
    nested = source(plain(("racing", "training"), inner="x/"), tmp_path / "n")
    assert "write " + nested + "?nested=merge" in refusal(nested)
    assert data.load_dataset(nested + "?nested=merge").classes == ("racing", "training")


@pytest.mark.parametrize("container", ["folder", "tar", "zip"])
def test_an_empty_class_folder_is_refused(tmp_path: Path, container: str) -> None:
    path = pack(tree(), tmp_path / "d", container)
    if container == "folder":
        (path / "train" / "cow").mkdir()
    elif container == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.mkdir("train/cow")
    else:
        with tarfile.open(path, "a") as tar:
            folder = tarfile.TarInfo("train/cow")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    assert "train/cow/ stands where classes are and holds no file" in refusal(f"imagefolder:{path}")


def test_images_deeper_than_their_class_are_said_and_merged_on_request(tmp_path: Path) -> None:
    deeper = plain() | {"ant/more/0.png": encoded(pixels(700)), "bee/other/1/0.png": encoded(pixels(701))}
    made = data.load_dataset(source(deeper, tmp_path / "d"))
    assert made.labels.tolist() == [0] * 11 + [1] * 11
    assert "deeper than their class's folder, of that class: 2 images (ant/more/0.png)" in made.notes
    shared = plain(inner="left/") | {f"{name}/right/x.png": encoded(pixels(ord(name[0]))) for name in ("ant", "bee")}
    merged = data.load_dataset(source(shared, tmp_path / "s") + "?nested=merge&size=6")
    assert merged.classes == ("ant", "bee") and len(merged.images) == 22


def test_names_that_are_odd_are_said(tmp_path: Path) -> None:
    cases = data.load_dataset(source(plain(("Ant", "ant", "bee")), tmp_path / "c"))
    assert (
        "classes whose names differ in case, spaces or accents' encoding alone stay apart: 1 group ('Ant' and 'ant')"
        in cases.notes
    )
    numbers = data.load_dataset(source(plain(("1", "2", "10")), tmp_path / "n"))
    assert numbers.classes == ("1", "10", "2")
    assert "labels follow the names as text, not as numbers: 3 names (1, 10, 2)" in numbers.notes
    more = data.load_dataset(source(plain(("Ant", "ant", "Bee", "bee", "C", "c", "D", "d")), tmp_path / "m")).notes
    assert any(note.endswith("apart: 4 groups ('Ant' and 'ant', 'Bee' and 'bee', 'C' and 'c', …)") for note in more)
    assert not any(
        "as text" in note for note in data.load_dataset(source(plain(("01", "02", "10")), tmp_path / "0")).notes
    )


def test_a_class_that_is_called_nearly_the_same_in_both_parts_is_named_twice(tmp_path: Path) -> None:
    files = {name.replace("test/ant", "test/Ant"): content for name, content in tree().items()}
    assert "class 'Ant' of test/ is called 'ant' in train/" in refusal(source(files, tmp_path / "c"))
    composed = {name.replace("ant", "\u00e9" if "train" in name else "e\u0301"): c for name, c in tree().items()}
    assert "class 'e\\u0301' of test/ is called '\\xe9' in train/" in refusal(source(composed, tmp_path / "n"))


def test_names_with_controls_are_one_line(tmp_path: Path) -> None:
    made = data.load_dataset(source(plain(("a\nb", "c")), tmp_path / "d"))
    assert made.classes == ("a\\x0ab", "c") and not any("\n" in note for note in made.notes)


def test_a_hidden_folder_is_neither_followed_nor_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tree() | {f".old/{k}.png": b"" for k in range(9)}, tmp_path / "d", "folder")
    (path / ".snapshot").symlink_to("/")
    monkeypatch.setattr("compress.data.listing.COUNTED", 5)
    listed = os.scandir

    def forbidden(place: str) -> Any:
        if "lost+found" in str(place):  # as one of root's is to everyone else
            raise PermissionError(13, "Permission denied", place)
        return listed(place)

    (path / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", forbidden)
    assert (
        "left out, hidden or of a tool: at least 6 files (.old 5, .snapshot 1)"
        in data.load_dataset(f"imagefolder:{path}").notes
    )
    (path / "lost+found").rename(path / "my lost+found")
    data.load_dataset.cache_clear()
    assert "my lost+found: cannot be listed (Permission denied)" in refusal(f"imagefolder:{path}")


def test_links_that_lead_back_are_left_out_and_those_that_lead_nowhere_refused(tmp_path: Path) -> None:
    path = pack(tree(), tmp_path / "d", "folder")
    whole = data.load_dataset(f"imagefolder:{path}")
    (path / "train" / "ant" / "again").symlink_to("..")
    (path / "train" / "bee" / "up").symlink_to(tmp_path)
    data.load_dataset.cache_clear()
    looped = data.load_dataset(f"imagefolder:{path}")
    assert looped.as_plan() == whole.as_plan()
    assert "left out: 2 links back to a folder above (train/ant/again)" in looped.notes
    (path / "train" / "ant" / "x.png").symlink_to("nowhere.png")
    data.load_dataset.cache_clear()
    assert "train/ant/x.png: cannot be read (No such file" in refusal(f"imagefolder:{path}")
    (path / "train" / "ant" / "x.png").unlink()
    os.mkfifo(path / "train" / "ant" / "x.png")
    assert "train/ant/x.png: is a pipe or a device" in refusal(f"imagefolder:{path}")


def test_a_link_to_the_training_images_is_found_by_their_content(tmp_path: Path) -> None:
    path = pack(plain(), tmp_path / "all", "folder")
    for part in ("train", "test"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / part).symlink_to(path)
    notes = data.load_dataset(f"imagefolder:{tmp_path / 'd'}").notes
    assert any(
        note.startswith("18 of 20 test images are training images too, pixel for pixel (test/ant/0.png")
        for note in notes
    )


def test_links_in_a_zip_are_refused_and_names_that_stand_twice_said(tmp_path: Path) -> None:
    path = pack(tree(), tmp_path / "d", "zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("train/ant/0.png", encoded(pixels(800)))
    assert (
        "twice in the archive, the last counts: 1 name (train/ant/0.png)"
        in data.load_dataset(f"imagefolder:{path}").notes
    )
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("val")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "test")
    data.load_dataset.cache_clear()
    assert "val is a link in the archive" in refusal(f"imagefolder:{path}")


def test_words_for_parts() -> None:
    assert all(map(sounds_like_part, ("Training", "x_dev", "test_images", "val2017", "my-eval", "VALID")))
    assert not any(map(sounds_like_part, ("contest", "trainer", "devil", "value", "images", "007", "")))
    assert is_word_for_part("val2017") and not is_word_for_part("my-test") and not is_word_for_part("12")
