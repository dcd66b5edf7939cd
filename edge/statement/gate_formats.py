"""What a gate found, in the forms that pipelines read: JUnit XML, and annotations of GitHub's workflows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from edge.core import artifact

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
COMMANDS = {PASSED: "notice", FAILED: "error", SKIPPED: "warning"}


@dataclass(frozen=True)
class GateCase:
    """One thing that was checked: of which `group`, its `name`, `passed`, `failed` or `skipped`, and why."""

    group: str
    name: str
    result: str
    why: str

    @property
    def failed(self) -> bool:
        return self.result == FAILED

    def line(self) -> str:
        word = {PASSED: "passed", FAILED: "FAILED", SKIPPED: "noted "}[self.result]
        return f"{word}  {self.name}  ({self.why})"


def junit(cases: Sequence[GateCase], path: "Path | str") -> None:
    """The cases as JUnit XML, one test case each; what was noted and fails nothing counts as skipped."""
    counts = {result: sum(case.result == result for case in cases) for result in COMMANDS}
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="compress verify" tests="{len(cases)}" failures="{counts[FAILED]}" '
        f'errors="0" skipped="{counts[SKIPPED]}">',
        *(f"  {_case(case)}" for case in cases),
        "</testsuite>",
    ]
    artifact.write_atomic(Path(path), "\n".join(lines) + "\n")


def _case(case: GateCase) -> str:
    opened = f"<testcase classname={_attribute(case.group)} name={_attribute(case.name)}"
    if case.result == PASSED:
        return f"{opened}/>"
    element = "failure" if case.failed else "skipped"
    return f"{opened}><{element} message={_attribute(case.why)}/></testcase>"


def _attribute(text: str) -> str:
    """Quoted for XML 1.0, which has no control characters but tab and line ends."""
    return quoteattr("".join(c if c in "\t\n\r" or c >= " " else "\ufffd" for c in text))


def github(cases: Iterable[GateCase]) -> list[str]:
    """A workflow command a case: failures as errors, what was noted as warnings, the rest as notices."""
    return [
        f"::{COMMANDS[case.result]} title={_property(f'{case.group}: {case.name}')}::{_data(case.why)}"
        for case in cases
    ]


def _data(text: str) -> str:
    """As GitHub's runner decodes the text of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """As GitHub's runner decodes a property of a command: its separators too."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
