"""The report of a run and of a verified stage: figures against loops, absent parts, damage, lineage."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress import report
from edge.core import artifact
from edge.core.errors import CompressError
from tests.compress.page_reader import Page
from tests.compress.report_fixture import ATTACKS, GRADIENT_FREE, make_run, network

STAGES = "Accuracy of every stage in per cent of test images"
MATRIX = "The attack set on every model: robust accuracy"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; read it only."""
    folder = tmp_path_factory.mktemp("report") / "quickstart"
    make_run(folder)
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A whole run to change."""
    return Path(shutil.copytree(run, tmp_path / "quickstart"))


def read(folder: Path, out: Path, **more: object) -> Page:
    return Page(report.write(folder, out, **more).read_text())  # type: ignore[arg-type]


def _worst_by_loops(run: Path, model: int) -> float:
    """Share of the attack set that a model has right when clean and under every attack."""
    with np.load(run / "attack-set" / "attack-set.npz") as arrays:
        logits, labels, broken = arrays["clean_logits"], arrays["labels"], arrays["broken"]
        standing = 0
        for i, label in enumerate(labels.tolist()):
            right = int(logits[model, i].argmax()) == label
            standing += right and not any(broken[a, model, i] for a in range(len(ATTACKS)))
        return standing / len(labels)


def test_rows_of_a_run(run: Path, tmp_path: Path) -> None:
    rows = read(run, tmp_path / "r.html").table(STAGES)
    assert rows[0][:6] == ["model", "parameters", "size", "clean", "PGD-20", "worst case"]
    cells = {row[0].split("|")[0]: [cell.split("|")[0] for cell in row] for row in rows[1:]}
    order = ["normal", "teacher", "student", "rslad", "quantized twin", "onnx int8 on cpu", "onnx float32 on cpu"]
    assert list(cells) == order
    assert cells["normal"][3:6] == ["98.9 %", "5.0 %", "–"]
    assert cells["teacher"][1:5] == ["1,200,000", "4.80 MB", "98.1 %", "85.0 %"]
    assert cells["student"][4:6] == ["80.0 %", f"≤ {100 * _worst_by_loops(run, 0):.1f} %"]
    assert cells["quantized twin"][5] == f"≤ {100 * _worst_by_loops(run, 1):.1f} %"
    statement = json.loads((run / "verified" / "onnx-cpu" / "statement.json").read_text())["predicate"]
    robust = statement["figures"]["robust"]["value"]
    assert cells["onnx int8 on cpu"][1:6] == ["75,002", "84.1 kB", "96.7 %", "–", f"{100 * robust:.1f} %"]


def test_matrix_against_loops(run: Path, tmp_path: Path) -> None:
    rows = read(run, tmp_path / "r.html").table(MATRIX)
    assert rows[0] == ["attack", "student", "quantized", "onnx", "onnx-float"]
    assert [row[0] for row in rows[1:]] == ["no attack", *ATTACKS, "all of them"]
    with np.load(run / "attack-set" / "attack-set.npz") as arrays:
        predicted, labels, broken = arrays["clean_logits"].argmax(2), arrays["labels"], arrays["broken"]
    for a in range(len(ATTACKS)):
        for m in range(4):
            standing = [predicted[m, i] == labels[i] and not broken[a, m, i] for i in range(len(labels))]
            assert rows[2 + a][1 + m] == f"{100 * sum(standing) / len(labels):.1f} %"
    assert rows[-1][1:] == [f"{100 * _worst_by_loops(run, m):.1f} %" for m in range(4)]


def test_headline_and_sections(run: Path, tmp_path: Path) -> None:
    page = read(run, tmp_path / "r.html")
    assert page.headings[0] == "quickstart"
    assert "57 × smaller than the teacher (4.80 MB)" in page.text
    sections = [part["id"] for part in page.all("section")]
    assert sections == ["stages", "attacks", "protocol", "latency", "images", "training", "provenance"]
    assert len(page.all("svg", **{"class": "bars"})) == 1
    assert len(page.all("svg", **{"class": "histogram"})) == 2
    assert len(page.all("svg", **{"class": "curves"})) == 5


def test_pictures_are_those_of_the_first_broken_image(run: Path, tmp_path: Path) -> None:
    page = read(run, tmp_path / "r.html")
    clean, adversarial, _ = page.pictures()[:3]
    with np.load(run / "verified" / "onnx-cpu" / "verdicts.npz") as verdicts:
        broken, right = verdicts["broken"], verdicts["clean_predictions"] == verdicts["labels"]
        free = verdicts["adversarial"]
    with np.load(run / "attack-set" / "attack-set.npz") as arrays:
        candidates = [*arrays["adversarial"], *free]
        i = next(i for i in range(len(right)) if right[i] and broken[:, i].any())
        a = next(a for a in range(len(broken)) if broken[a, i])
        np.testing.assert_array_equal(clean, arrays["clean"][i])
        np.testing.assert_array_equal(adversarial, candidates[a][i])
        assert f"clean → class {arrays['labels'][i]}, adversarial → class {(arrays['labels'][i] + 5) % 10}" in page.text
    assert len(candidates) == len(ATTACKS) + len(GRADIENT_FREE)


def test_curves_of_a_method_without_attack_have_no_robust_line(run: Path) -> None:
    curves = {curve["label"]: curve for curve in report.collect(run)["training"]}
    assert curves["baselines/normal"]["pgd"] == []
    assert curves["student"]["clean"][0] == (1, pytest.approx(0.97 * 0.5))
    assert curves["student"]["pgd"][-1] == (8, pytest.approx(0.8 * 0.9))
    assert curves["student"]["best_epoch"] == 7


def test_requirements_are_judged_on_the_shipped_artifact(run: Path, tmp_path: Path) -> None:
    page = read(run, tmp_path / "r.html", require=["robust>=0.3", "clean >= 99.9%"])
    judged = report.collect(run, require=["robust>=0.3", "clean >= 99.9%"])["requirements"]
    assert [outcome["passed"] for outcome in judged] == [True, False]
    assert page.text.index("robust>=0.3") < page.text.index("clean >= 99.9%") < page.text.index("Accuracy by stage")
    with pytest.raises(CompressError, match="robst"):
        report.collect(run, require=["robst>=0.3"])


def test_provenance(run: Path, tmp_path: Path) -> None:
    rows = read(run, tmp_path / "r.html").table("Stages, from the first to the last")[1:]
    assert [row[0] for row in rows] == [
        "teacher",
        "baselines/normal",
        "baselines/rslad",
        "student",
        "quantized",
        "exported/onnx",
        "exported/onnx-float",
        "attack-set",
        "verified/onnx-cpu",
        "verified/onnx-float-cpu",
    ]
    for name, identity, *_ in rows:
        assert identity == artifact.read(run / name).identity[:12]


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first, second = report.write(run, tmp_path / "a.html"), report.write(run, tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


# ---------------------------------------------------------------------------------------------- absent parts


@pytest.mark.parametrize(
    ("absent", "gone"),
    [
        (["verified"], {"protocol", "latency", "images"}),
        (["attack-set"], {"images"}),
        (["teacher", "baselines", "student", "quantized"], {"training"}),
        (
            ["verified", "attack-set", "exported", "quantized", "student", "baselines"],
            {"attacks", "protocol", "latency", "images"},
        ),
    ],
)
def test_absent_stages_are_left_out(copied: Path, absent: list[str], gone: set[str]) -> None:
    for name in absent:
        shutil.rmtree(copied / name)
    page = Page(report.write(copied).read_text())
    every = {"stages", "attacks", "protocol", "latency", "images", "training", "provenance"}
    assert {part["id"] for part in page.all("section")} == every - gone


def test_unverified_artifacts_show_the_replayed_attack_set(copied: Path) -> None:
    shutil.rmtree(copied / "verified" / "onnx-cpu")
    rows = {row["label"]: row for row in report.collect(copied)["stages"]}
    assert rows["onnx int8"]["worst"]["value"] == pytest.approx(_worst_by_loops(copied, 2))
    assert rows["onnx int8"]["bound"]
    assert rows["onnx int8"]["how"].startswith("not verified")
    assert not rows["onnx float32 on cpu"]["bound"]


def test_unfinished_stages_are_left_out(copied: Path) -> None:
    (copied / "verified" / "onnx-cpu").rename(copied / "verified" / "onnx-cpu.partial")
    assert [entry["label"] for entry in report.collect(copied)["verified"]] == ["onnx float32 on cpu"]


def test_an_upper_bound_is_marked_everywhere(tmp_path: Path) -> None:
    make_run(tmp_path / "bounded", missing="c")
    page = Page(report.write(tmp_path / "bounded").read_text())
    assert "Robust accuracy: upper bound only" in page.headings
    (row,) = [row for row in page.table(STAGES) if row[0].startswith("onnx int8")]
    assert row[5].startswith("≤ ")
    assert row[6].endswith("protocol not covered")


def test_names_of_folders_are_escaped(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<i>&\"x'"
    shutil.copytree(run / "baselines" / "normal", folder / "baselines" / "<script>1")
    page = Page(report.write(folder).read_text())
    assert page.headings[0] == "<i>&\"x'"
    assert not page.all("script")
    assert len(page.all("i")) == len(page.all("i", **{"class": "key"}))  # none but the keys of the legends
    assert page.table(STAGES)[1][0].startswith("<script>1")


# ---------------------------------------------------------------------------------------------- one verified stage


def test_lineage_of_a_verified_stage(run: Path, tmp_path: Path) -> None:
    document = report.collect(run / "verified" / "onnx-cpu")
    assert [row["stage"] for row in document["provenance"]] == [
        "teacher",
        "student",
        "quantized",
        "exported/onnx",
        "attack-set",
        "verified/onnx-cpu",
    ]
    assert "57 × smaller" in read(run / "verified" / "onnx-cpu", tmp_path / "r.html").text


def test_a_verified_stage_alone(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "verified" / "onnx-cpu", tmp_path / "board")
    path = report.write(tmp_path / "board")
    assert path == tmp_path / "board-report.html"
    sections = [part["id"] for part in Page(path.read_text()).all("section")]
    assert sections == ["stages", "attacks", "protocol", "latency", "provenance"]
    artifact.read(tmp_path / "board", ("verified",))  # still whole


def test_a_stage_made_anew_is_not_taken_for_the_old_one(copied: Path) -> None:
    made = network(copied / "new", "teacher", {}, size=400, clean=0.5, robust=0.1, model="resnet8", method="pgd-at")
    shutil.rmtree(copied / "teacher")
    made.path.rename(copied / "teacher")
    assert report.collect(copied / "verified" / "onnx-cpu")["teacher"] is None
    notes = report.collect(copied)["notes"]
    assert len(notes) == 2  # one an artifact
    assert all("another teacher" in note and made.identity[:12] in note for note in notes)


def test_a_check_that_fired_on_a_stage_stands_at_the_top(copied: Path) -> None:
    file = copied / "teacher" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["metrics"]["checks"] = [
        {"name": "zero gradients", "fired": True},
        {"name": "chance level", "fired": False},
    ]
    file.write_text(json.dumps(manifest))
    assert report.collect(copied)["notes"] == ["teacher: zero gradients fired, its figures are not to be trusted."]


# ---------------------------------------------------------------------------------------------- broken input


def _flip(folder: Path) -> Path:
    file = folder / "student" / "weights.safetensors"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    return folder


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda run: run / "nowhere", "no such folder"),
        (lambda run: run / "student", "is a stage of kind student"),
        (lambda run: run / "exported", "nothing to report"),
        (_flip, "weights.safetensors has sha256"),
    ],
    ids=["absent", "another kind", "no stages", "damaged"],
)
def test_refused_in_one_line(copied: Path, where: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(CompressError, match=words) as fault:
        report.write(where(copied))
    assert "\n" not in str(fault.value)


def test_nothing_is_written_into_a_stage(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="inside a stage folder"):
        report.write(copied, copied / "student" / "report.html")
    with pytest.raises(CompressError, match="is a folder"):
        report.write(copied, tmp_path)
    artifact.read(copied / "student")


def test_a_verified_folder_alone_is_enough(run: Path, tmp_path: Path) -> None:
    """As it is copied from a board, which writes no page: without the stages that it was made from."""
    alone = Path(shutil.copytree(run / "verified" / "onnx-cpu", tmp_path / "alone"))
    page = Page(report.write(alone).read_text())
    assert report.write(alone) == tmp_path / "alone-report.html" and page.headings[0] == "alone"
    sections = [part["id"] for part in page.all("section")]
    assert {"stages", "protocol", "latency", "provenance"} <= set(sections) and "images" not in sections
    assert "onnx int8" in page.text


def test_the_command_imports_no_torch_and_no_runtime(copied: Path) -> None:
    code = (
        f"import sys; from compress.cli.execute import execute; execute(['report', {str(copied)!r}])\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'pydantic', 'sklearn') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [str(copied / "report.html"), "[]"], shown.stderr


def test_no_heavy_import() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "pydantic", "yaml", "click", "sklearn", "scipy")
    code = f"import sys, compress.report; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
