"""What pipelines read: JUnit XML that parses, and workflow commands that GitHub's runner decodes to the same text."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.statement.gate_formats import FAILED, PASSED, SKIPPED, GateCase, github, junit

TEXT = st.text(alphabet="ab%:,=\r\n 025ADC€")


def test_junit_counts_and_says_why(tmp_path: Path) -> None:
    cases = [
        GateCase("requirement", "robust>=0.3", PASSED, "0.4"),
        GateCase("alarm", 'a "b" <c> & d', FAILED, "two\nlines, 100 % \x07"),
        GateCase("comparison", "clean", SKIPPED, "inconclusive"),
    ]
    junit(cases, tmp_path / "gate.xml")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    counts = [suite.get(key) for key in ("tests", "failures", "errors", "skipped")]
    assert (suite.tag, counts) == ("testsuite", ["3", "1", "0", "1"])
    assert [(case.get("classname"), case.get("name")) for case in suite] == [(case.group, case.name) for case in cases]
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"]]
    assert suite[1][0].get("message") == "two\nlines, 100 % \ufffd" and suite[2][0].get("message") == "inconclusive"


def decoded(line: str) -> tuple[str, str, str]:
    """Command, title and text as the runner takes them from one line: split at the marks, escapes undone last."""
    _, head, data = line.split("::", 2)
    command, _, rest = head.partition(" ")
    (key, _, title) = rest.partition("=")
    assert key == "title" and "," not in title and ":" not in title
    for escape, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        title = title.replace(escape, character)
    for escape, character in (("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        data = data.replace(escape, character)
    return command, title, data


@given(TEXT, TEXT, st.sampled_from([PASSED, FAILED, SKIPPED]))
def test_a_command_is_one_line_that_decodes_to_what_was_said(name: str, why: str, result: str) -> None:
    (line,) = github([GateCase("requirement", name, result, why)])
    assert "\n" not in line and "\r" not in line
    command = {PASSED: "notice", FAILED: "error", SKIPPED: "warning"}[result]
    assert decoded(line) == (command, f"requirement: {name}", why)


@pytest.mark.parametrize(
    ("case", "line"),
    [
        (
            GateCase("requirement", "robust>=0.3", FAILED, "50%, no"),
            "::error title=requirement%3A robust>=0.3::50%25, no",
        ),
        (GateCase("alarm", "a,b", PASSED, "x: y\nz"), "::notice title=alarm%3A a%2Cb::x: y%0Az"),
    ],
)
def test_the_lines_themselves(case: GateCase, line: str) -> None:
    assert github([case]) == [line]
