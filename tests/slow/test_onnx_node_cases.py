"""All of ONNX's own node cases of operators that the twin has: the same values, or a refusal by name."""

import pytest
from onnx.backend.test.loader import load_model_tests

from tests.compress.onnx_cases import AGREES, DIFFERS, FAILS, outcomes, table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the generators of these cases


def test_the_values_of_onnx(capsys: pytest.CaptureFixture[str]) -> None:
    results = outcomes(load_model_tests(kind="node"))
    with capsys.disabled():
        print(table(results))
    assert not [result for result in results if result.outcome in (DIFFERS, FAILS)]
    assert sum(result.outcome == AGREES for result in results) >= 1190
