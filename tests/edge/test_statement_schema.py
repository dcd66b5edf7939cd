"""The statement's JSON schema, and the place of a fault that `compress statement check` names."""

import json
from importlib import resources

import jsonschema

from compress.statement_check import schema_fault, statement_schema
from edge.statement.statement import VERSION
from tests.edge.test_statement import whole


def test_there_is_one_schema_that_of_the_version_that_is_written() -> None:
    files = [entry.name for entry in resources.files("edge.statement").iterdir() if entry.name.endswith(".json")]
    assert files == ["statement.schema.json"]
    jsonschema.Draft202012Validator.check_schema(statement_schema())
    assert statement_schema()["$id"].endswith(f":{VERSION}:schema")
    assert schema_fault(whole()) is None


def test_the_place_of_a_fault_is_named_in_one_line() -> None:
    stated = whole()
    stated["predicate"]["data"]["n"] = 0
    assert schema_fault(stated) == "predicate.data.n: 0 is less than the minimum of 1"
    stated = whole()
    stated["predicate"]["figures"]["clean"]["value"] = "high"
    assert str(schema_fault(stated)).startswith("predicate.figures.clean.value: 'high' is not of type")
    stated = whole()
    stated["predicate"]["attacks"][0]["name"] = {"long": "x" * 1000, "lines": "\n"}
    assert "\n" not in str(schema_fault(stated)) and len(str(schema_fault(stated))) < 400
    assert json.dumps(stated) and str(schema_fault([])).startswith("the whole: ")
