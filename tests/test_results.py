"""docs/results.md shows the rows that were measured, no others."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tables_are_those_of_the_committed_rows(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from benchmarks import cifar10_methods, cifar10_table

    page = (ROOT / "docs" / "results.md").read_text()
    rows, cells = cifar10_methods.rows(), list(cifar10_methods.cells([0, 1]))
    shown = page.partition(cifar10_table.BEGIN)[2].partition(cifar10_table.END)[0].strip()
    assert shown == cifar10_table.tables(rows, cells).strip(), "python benchmarks/cifar10_methods.py --table"
    known = {(cell.group, cell.name, seed) for cell, seed in cells}
    assert len(known) == len(cells) and {cifar10_methods.key(row) for row in rows} <= known


def test_a_cell_that_was_not_run_is_a_dash_and_one_that_failed_says_why() -> None:
    from benchmarks import cifar10_methods, cifar10_table

    cells = list(cifar10_methods.cells([0, 1]))
    row = {
        "group": "epochs",
        "name": "VGap on RSLAD",
        "seed": 0,
        "epochs": 4,
        "seconds": 400.0,
        "n": 1000,
        "test": {"clean": 0.5, "robust": 0.25},
        "note": "images",
        "cpu": "a processor",
        "versions": {"torch": "2"},
        "date": "2026-01-01",
    }
    failed = {**row, "name": "AdaAD", "failed": "diverged"}
    spectrum = {f"covariance_{name}_student": 64.0 for name in ("rank", "effective_rank", "condition")}
    looked = [{"gradient_share_cov": 0.25, **spectrum}, {"gradient_share_cov": 0.5, **spectrum}, {}]
    timed = {**row, "group": "time", "name": "GACD on RSLAD", "epochs_seen": looked}
    found = cifar10_table.tables([row, failed, timed], cells)
    assert "| GACD on RSLAD, time, seed 0 | cov 25% | cov 50% | 64 | 64.0 | 64 |" in found
    assert "| VGap on RSLAD | 4 | 50.0% | 25.0% | 400 | – | – | – |" in found
    assert "| RSLAD | – | – | – | – | – | – | – |" in found
    assert "| AdaAD | – | – | – | – | – | – | – |" in found and "epochs, AdaAD, seed 0: diverged" in found
    assert "| as it is by default | 50.0% | 25.0% | 22.3% to 27.8% | +0.0 points |" in found
