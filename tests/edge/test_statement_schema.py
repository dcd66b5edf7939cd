"""The schema's reader against jsonschema: the same verdict on statements with planted changes."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.statement import schema
from tests.edge.test_statement import whole

VERSIONS = {version: schema.load(version) for version in schema.FILES}
ORACLE = jsonschema.Draft202012Validator(VERSIONS[2])
KNOWN = {
    *("$ref", "$schema", "$id", "$defs", "title", "description", "type", "const", "enum", "pattern", "minimum"),
    *("maximum", "properties", "required", "additionalProperties", "minProperties", "items", "prefixItems"),
    *("minItems", "maxItems", "allOf", "anyOf", "oneOf", "if", "then"),
}


def keywords(schema: Any) -> set[str]:
    """Every keyword of a schema; names of properties and definitions are none."""
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            found |= set().union(*map(keywords, value.values()))
        elif name in ("allOf", "anyOf", "oneOf", "prefixItems"):
            found |= set().union(*map(keywords, value))
        elif name in ("items", "additionalProperties", "if", "then"):
            found |= keywords(value)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_use_no_keyword_that_is_not_read(version: int) -> None:
    jsonschema.Draft202012Validator.check_schema(VERSIONS[version])
    assert keywords(VERSIONS[version]) <= KNOWN
    assert VERSIONS[version]["$id"].endswith(f":{version}:schema")


def places(value: Any, at: tuple[Any, ...] = ()) -> "list[tuple[Any, ...]]":
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in items for place in places(item, (*at, key)))]


PLACES = places(whole())
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.floats(-1, 2),
    st.sampled_from(["", "a", "a" * 64, "linf", "8/255", 1.0, [], {}, [0.1, 0.2], ["x"]]),
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=VALUES, how=st.sampled_from(["set", "delete", "add"]))
def test_it_says_what_jsonschema_says(place: tuple[Any, ...], value: Any, how: str) -> None:
    stated: Any = copy.deepcopy(whole())
    above, target = None, stated
    for key in place:
        above, target = target, target[key]
    if how == "add":
        if isinstance(target, dict):
            target["more"] = value
        elif isinstance(target, list):
            target.append(value)
    elif above is None:
        stated = value
    elif how == "set":
        above[place[-1]] = value
    else:
        del above[place[-1]]
    fault = schema.fault(stated, VERSIONS[2])
    assert (fault is None) == ORACLE.is_valid(stated), (fault, json.dumps(stated)[:200])


def test_the_place_of_a_fault_is_named() -> None:
    stated = whole()
    stated["predicate"]["data"]["n"] = 0
    assert schema.fault(stated, VERSIONS[2]) == "predicate.data.n: 0 is less than 1"
    stated = whole()
    stated["predicate"]["figures"]["clean"]["value"] = "high"
    assert str(schema.fault(stated, VERSIONS[2])).startswith('predicate.figures.clean.value: "high" is no')
