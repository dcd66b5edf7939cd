"""The verified stage on a workstation: executed and stated by `edge`, here or on a board, with the page beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.report import page
from edge.core.artifact import Stage
from edge.verify import verify
from edge.verify.verify import VerifiedWork, VerifyInputs, plan

__all__ = ["VerifyInputs", "add_page", "plan", "run"]


def run(config: Mapping[str, Any], inputs: VerifyInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """As `edge.verify.verify.run`; the folder holds `report.html` too."""
    return verify.run(config, inputs, out, replace=replace, add_record=add_page)


def add_page(written: VerifiedWork) -> None:
    """`report.html` as a record of the folder."""
    page.write_verified(written.work.path, written.statement.as_json(), written.samples_ns, written.evidence)
    written.work.add_record(page.REPORT)
