"""Names from the file system that are not UTF-8: read, or refused in one line, wherever they enter JSON or a hash."""

import json
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from compress import data
from compress.cli.execute import execute
from compress.data.listing import as_text
from edge.core import artifact
from edge.core.artifact import Plan
from tests.compress.data_files import encoded, pack, pixels, refusal, tree

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def test_names_become_text_whatever_the_file_system_calls_them() -> None:
    assert as_text(LATIN) == "caf\\xe9" and as_text("café") == "café" and as_text("a/b.png") == "a/b.png"
    assert as_text("café".encode().decode("ascii", "surrogateescape")) == "café"  # under an ASCII locale


def test_a_class_folder_in_latin_1_is_read_and_its_name_escaped(tmp_path: Path) -> None:
    files = tree(("ant", LATIN))
    folder = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}")
    assert folder.classes == ("ant", "caf\\xe9")
    assert "names that are not UTF-8 or hold controls are read with escapes: 1 name (caf\\xe9)" in folder.notes
    with tarfile.open(tmp_path / "d.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    data.load_dataset.cache_clear()
    assert data.load_dataset(f"imagefolder:{tmp_path / 'd.tar'}").as_plan() == folder.as_plan()
    for part in ("train", "test"):
        (tmp_path / "d" / part / "caf\\xe9").mkdir()
        (tmp_path / "d" / part / "caf\\xe9" / "0.png").write_bytes(encoded(pixels(90 + len(part))))
    data.load_dataset.cache_clear()
    assert "two class folders have one name once it is read as text" in refusal(f"imagefolder:{tmp_path / 'd'}")


def test_a_zip_that_states_no_encoding_says_how_its_names_were_read(tmp_path: Path) -> None:
    path = pack({name.replace("bee", "b##"): content for name, content in tree().items()}, tmp_path / "d", "zip")
    with zipfile.ZipFile(path, "a") as archive:  # neither of them is read, so neither counts
        archive.mkdir("train/b##")
        archive.writestr("__MACOSX/train/b##/._0.png", b"")
    path.write_bytes(path.read_bytes().replace(b"b##", b"b\xc3\xa9"))  # as Info-ZIP writes it without the flag
    made = data.load_dataset(f"imagefolder:{path}")
    assert made.classes == ("ant", "b├⌐")
    assert "names of no stated encoding, read as code page 437: 13 names (train/b├⌐/0.png)" in made.notes


def test_damaged_images_are_named_with_escapes(tmp_path: Path) -> None:
    files = tree() | {f"train/ant/{LATIN}.png": b"no image"}
    assert "train/ant/caf\\xe9.png: not a readable image" in refusal(
        f"imagefolder:{pack(files, tmp_path / 'd', 'folder')}"
    )


def test_a_stage_in_a_folder_of_such_a_name_is_made_and_read(tmp_path: Path) -> None:
    out, inside = tmp_path / LATIN / "out", tmp_path / LATIN
    inside.mkdir()
    plan = Plan("teacher", {"source": LATIN}, 0, {"name": "none"}, {}, notes=("kept",))
    made = artifact.build(
        out, plan, lambda work: work.add_payload("x").write_text("x") and None, lineage={"data": inside}
    )
    again = artifact.read(out)
    assert again.config == {"source": LATIN} and again.identity == made.identity
    assert again.manifest["made"]["data"] == ["kept"]
    assert artifact.status(out, plan).state == "complete"
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["plan"]["config"] == {"source": LATIN}


def test_notes_on_the_data_decide_nothing(tmp_path: Path) -> None:
    plan = Plan("teacher", {}, 0, {"name": "none"}, {})
    assert plan.as_dict() == Plan("teacher", {}, 0, {"name": "none"}, {}, notes=("more",)).as_dict()


def test_training_on_such_names_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The case as it was reported, two classes of it; the run is made in a folder of such a name as well."""
    where = pack(tree(("ant", LATIN)), tmp_path / LATIN, "folder")
    line = "teacher train --eps 8/255 --model cnn --method normal --epochs 1 --set batch_size=8 --set test_steps=1"
    assert execute([*shlex.split(line), "--data", f"imagefolder:{where}", "--out", str(where / "t")]) == 0
    assert "caf\\xe9" in capfd.readouterr().err
    stage = artifact.read(where / "t", ("teacher",))
    assert json.loads(stage.file("model.json").read_text(encoding="utf-8"))["classes"] == ["ant", "caf\\xe9"]
    assert any("caf\\xe9" in note for note in stage.manifest["made"]["data"])
    capfd.readouterr()
    assert execute(["inspect", str(where / "t")]) == 0
    assert "data\n  26 images 3×6×6 in 2 classes (ant, caf\\xe9)" in capfd.readouterr().out


def test_under_an_ascii_locale_the_same_names_are_read(tmp_path: Path) -> None:
    place = tmp_path / "café"
    run = subprocess.run(
        [sys.executable, "-m", "compress", "inspect", place],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
    )
    assert run.returncode == 2 and run.stderr.decode() == (
        f"compress: {place}: no manifest.json there, so not a stage folder; give one that `compress` made\n"
    )
