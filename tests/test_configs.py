"""The configs that are shipped: each loads, begins with its command and what it measured, and fits the schema."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from compress import config
from compress.config.starter import json_schema
from compress.names import METHODS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "configs"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))


def test_there_are_configs():
    assert {"quickstart.yaml", "tiny.yaml", "cifar10-quick.yaml", "digits-methods.yaml"} <= {
        path.name for path in CONFIGS
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_config_loads_and_says_how_it_is_run(path: Path):
    config.load_run(path)
    header = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    assert header[0].startswith(f"# compress run {path.relative_to(ROOT)}")
    assert any(line.startswith("# measured:") for line in header)
    schema = header[-1].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == FOLDER / "schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_an_editor_finds_no_fault_in_a_config(path: Path):
    jsonschema.Draft202012Validator(json.loads((FOLDER / "schema.json").read_text())).validate(
        yaml.safe_load(path.read_text())
    )


def test_every_method_is_among_those_compared_on_digits():
    run = config.load_run(FOLDER / "digits-methods.yaml")
    trained = [section.method for section in (run.student, *run.baselines.values())]
    assert {name for method in trained for name in ([method] if isinstance(method, str) else method)} == {*METHODS}


def test_an_editor_finds_faults():
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    faulty = {
        "data": "digit",
        "threat": {"eps": [8]},
        "teacher": {"method": "vgap"},
        "student": {"model": "resnet9"},
        "sed": 1,
    }
    found = {".".join(map(str, e.path)) for e in jsonschema.Draft202012Validator(schema).iter_errors(faulty)}
    assert found == {"data", "threat.eps", "teacher.method", "student.model", ""}


def test_an_editor_asks_for_no_more_than_loading_does():
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate({"data": "digits"})
    jsonschema.Draft202012Validator(schema).validate({"data": "digits", "threat": {"norm": "linf"}})


def test_the_schema_is_current():
    committed = json.loads((FOLDER / "schema.json").read_text())
    assert committed == json_schema(), "compress init --force /tmp/x.yaml --schema configs/schema.json"
