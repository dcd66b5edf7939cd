"""Class names of files of other tools, and their order."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.cli.execute import execute
from compress.data import load_dataset
from edge import open_runner
from edge.core import artifact
from edge.core.errors import CompressError
from export.contract import contract_of_folder
from export.targets.onnx.class_names import ClassNames, names_in_metadata, ordered
from export.targets.onnx.input_form import InputForm
from tests.export.foreign_digits import NAMES, classifier, colored
from tests.export.test_adopt_forms import adopt

ALPHABETICAL = tuple(sorted(range(10), key=lambda k: NAMES[k]))


def with_metadata(proto: onnx.ModelProto, **entries: str) -> onnx.ModelProto:
    for key, value in entries.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


@pytest.mark.parametrize(
    "written",
    [
        '["a", "b", "c"]',
        "{0: 'a', 1: 'b', 2: 'c'}",
        '{"0": "a", "1": "b", "2": "c"}',
        '{"c": 2, "a": 0, "b": 1}',
        "a,b, c",
        "a\nb\nc\n",
        "a; b;c",
        "1: b\n2: c\n0: a",
    ],
)
def test_names_as_exporters_write_them(written: str) -> None:
    assert names_in_metadata(with_metadata(classifier(), names=written), 3).names == ("a", "b", "c")


@pytest.mark.parametrize(
    "written", ["a,b", "{1: 'a', 2: 'b', 3: 'c'}", "{", "", '{"names": ["a", "b", "c"]}', '[["a"], ["b"], ["c"]]']
)
def test_other_metadata_is_not_read_and_said(written: str) -> None:
    found = names_in_metadata(with_metadata(classifier(), names=written), 3)
    assert found.names is None and "is not read" in found.unread


def test_names_that_a_terminal_would_obey() -> None:
    held = names_in_metadata(with_metadata(classifier(), names='["\\u001b[31ma", "b\\n\\u00a0c", "\\ud800"]'), 3)
    assert held.names == ("\\x1b[31ma", "b c", "\\ud800")


def test_classes_in_another_order_are_put_into_that_of_the_data(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "digits.npz")
    images, _ = load_dataset(dataset).part("test")
    plain = adopt(tmp_path, dataset, classifier())
    want = open_runner(plain.path).infer(images)
    named = with_metadata(classifier(order=ALPHABETICAL), class_names=",".join(NAMES[k].title() for k in ALPHABETICAL))
    stage = adopt(tmp_path, dataset, named)
    np.testing.assert_allclose(open_runner(stage.path).infer(images), want, atol=1e-6)
    assert contract_of_folder(stage.path)["labels"] == list(NAMES)
    (note,) = stage.metrics["notes"]
    assert note.startswith(
        "its classes (Eight, Five, Four, …, by its metadata (class_names)) are put into the order of"
    )
    unnamed = adopt(tmp_path, dataset, classifier(order=ALPHABETICAL))
    (note,) = (note for note in unnamed.metrics["notes"] if "order" in note)
    inverse = " ".join(str(ALPHABETICAL.index(k)) for k in range(10))
    assert f"in the order {inverse}, " in note and "name them by --labels FILE, or give --normalize auto" in note
    labels_file = tmp_path / "names.txt"
    labels_file.write_text("\n".join(NAMES[k] for k in ALPHABETICAL))
    for options in ({"labels": str(labels_file)}, {"normalize": "auto"}):
        mended = adopt(tmp_path, dataset, classifier(order=ALPHABETICAL), **options)
        np.testing.assert_allclose(open_runner(mended.path).infer(images), want, atol=1e-6)
    labels_file.write_text("a\nb\n")
    with pytest.raises(CompressError, match=r"2 names, the file tells 10 classes apart"):
        adopt(tmp_path, dataset, classifier(), labels=str(labels_file))
    with pytest.raises(CompressError, match=r"--labels gone: cannot be read"):
        adopt(tmp_path, dataset, classifier(), labels="gone")


def test_suspects_are_compared_in_the_order_that_names_show(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "digits.npz")
    named = with_metadata(
        classifier(InputForm("cifar10"), order=ALPHABETICAL), names=",".join(NAMES[k] for k in ALPHABETICAL)
    )
    right = adopt(tmp_path, dataset, classifier(InputForm("cifar10")), normalize="cifar10")
    plain = adopt(tmp_path, dataset, named)
    assert any("right with --normalize cifar10, " in note for note in plain.metrics["notes"])
    automatic = adopt(tmp_path, dataset, named, normalize="auto")
    assert automatic.metrics["input"] == "--normalize cifar10"
    assert automatic.metrics["clean"] == right.metrics["clean"]


def test_numbers_are_named_and_other_names_told() -> None:
    numbers = ordered(ClassNames(("cat", "dog"), "its metadata"), ("0", "1"), "npz")
    assert (
        numbers.names == ("cat", "dog") and numbers.order is None and "named by its metadata: cat, dog" in numbers.note
    )
    others = ordered(ClassNames(("cat", "hound"), "its metadata"), ("cat", "dog"), "npz")
    assert others.names == ("cat", "dog") and others.order is None and "(1: 'hound', 'dog')" in others.note
    assert ordered(ClassNames(("Cat", "d-og"), "its metadata"), ("cat", "dog"), "npz").note == ""


def test_the_way_to_a_statement_by_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No radius at adoption; `attack` asks for it by name, `verify` has it from the attack set; names on the page."""
    dataset = colored(tmp_path / "digits.npz", names=None)
    path, names, out = tmp_path / "foreign.onnx", tmp_path / "names.json", tmp_path / "adopted"
    path.write_bytes(classifier(InputForm("half")).SerializeToString())
    names.write_text(json.dumps(list(NAMES)))
    line = f"export {path} --data {dataset} --normalize half --labels {names} --out {out}"
    assert execute(shlex.split(line)) == 0
    said = capsys.readouterr()
    assert "None" not in said.out and "its classes are named by --labels names.json: zero, one, two, …" in said.err
    attack = f"attack --exported {out} --images 10 --ensemble none --steps 1 --restarts 1 --out {tmp_path / 'set'}"
    assert execute(shlex.split(attack)) == 2
    assert "threat.eps: missing, and this dataset brings none; give --eps 8/255" in capsys.readouterr().err
    assert execute(shlex.split(f"{attack} --eps 40/255")) == 0
    verify = f"verify {out} --attack-set {tmp_path / 'set'} --samples 20 --square-queries 0 --out {tmp_path / 'v'}"
    assert execute(shlex.split(f"{verify} --set decision_queries=0 --set latency.warmup=1")) == 0
    capsys.readouterr()
    page = (tmp_path / "v" / "report.html").read_text()
    assert re.search(r"truly (zero|one|two|three|four|five|six|seven|eight|nine): clean", page) and ">None<" not in page
    stated = json.loads((tmp_path / "v" / "statement.json").read_text())["predicate"]
    original = artifact.file_sha256(path)
    assert stated["lineage"][-1] == {"stage": "original", "identity": original} and stated["threat"]["eps"] == "40/255"
    assert execute(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "0 zero, 1 one, 2 two" in shown and f"{path}  {original:.12}" in shown and "None" not in shown
    path.write_bytes(b"another")
    assert execute(["inspect", str(out)]) == 0
    assert f"changed: its sha256 is {artifact.file_sha256(path):.12} now" in capsys.readouterr().out
