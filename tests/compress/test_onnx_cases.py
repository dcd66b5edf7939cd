"""ONNX's own cases of the twin's operators: the same values, or a refusal by name. Pools are among the slow tests."""

import pkgutil

import onnx.backend.test.case.node
import pytest

from compress.networks.graph.operators import OPERATORS
from tests.compress.onnx_cases import AGREES, DIFFERS, FAILS, REFUSED, CaseOutcome, collected, outcomes, table

pytestmark = pytest.mark.filterwarnings("ignore")  # of the generators of these cases
#: Modules whose cases take seconds to make.
SLOW = {"averagepool", "lppool", "maxpool"}
#: Operators that ONNX has no case for, or none that the twin takes: the sweep holds them against ONNX Runtime.
WITHOUT = {"GlobalLpPool", "MeanVarianceNormalization", "Not"} | {"AveragePool", "LpPool", "MaxPool"}
NAMED = (
    "attribute ",
    "input ",
    "output ",
    "type ",
    " = ",
    "mode",
    "not implemented for",
    "not supported",
    "is not known",
)


@pytest.fixture(scope="module")
def results() -> list[CaseOutcome]:
    modules = {entry.name for entry in pkgutil.iter_modules(onnx.backend.test.case.node.__path__)}
    return outcomes(collected(sorted(name for name in modules - SLOW if name != "ai_onnx_ml" and name[0] != "_")))


def test_no_case_differs_and_each_refusal_says_of_what(results: list[CaseOutcome]) -> None:
    assert not [result for result in results if result.outcome in (DIFFERS, FAILS)]
    refused = [result for result in results if result.outcome == REFUSED]
    assert not [result for result in refused if not any(word in result.reason for word in NAMED)]
    assert sum(result.outcome == AGREES for result in results) >= 1150, table(results)


def test_every_operator_agrees_in_a_case(results: list[CaseOutcome]) -> None:
    agreeing = {result.operator for result in results if result.outcome == AGREES}
    assert {op for op in OPERATORS if "." not in op} <= agreeing | WITHOUT
