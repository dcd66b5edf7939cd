"""Verified folders made by hand: a statement and the table of verdicts that it binds."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.core import artifact
from edge.statement import statement
from tests.compress.fake_stages import statement as fixture


def folder(
    path: Path,
    *,
    right: np.ndarray,
    broken: "dict[str, np.ndarray]",
    labels: "np.ndarray | None" = None,
    undecided: "np.ndarray | None" = None,
    sha256: str = "a" * 64,
    **predicate: Any,
) -> Path:
    """`right` and every row of `broken` are bool (N,); further keywords replace parts of the predicate."""
    n = len(right)
    labels = np.arange(n) % 10 if labels is None else labels
    rows = np.array(list(broken.values()), bool).reshape(-1, n) & right
    table = {
        "index": 1000 + np.arange(n),
        "labels": labels,
        "clean_predictions": np.where(right, labels, (labels + 1) % 10),
        "attacks": np.array(list(broken)),
        "broken": rows,
        "undecided": np.zeros(n, bool) if undecided is None else undecided,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **table)
    path.mkdir()
    (path / "verdicts.npz").write_bytes(buffer.getvalue())
    stated = copy.deepcopy(fixture())
    said = stated["predicate"]
    stands = right & ~rows.any(0)
    said["figures"] |= {
        "clean": statement.figure(int(right.sum()), n),
        "robust": statement.figure(int(stands.sum()), n),
    }
    said["data"]["n"] = n
    said["artifact"]["sha256"] = stated["subject"][0]["digest"]["sha256"] = sha256
    said["verdicts"]["sha256"] = artifact.bytes_sha256(buffer.getvalue())
    said |= predicate
    (path / "statement.json").write_text(json.dumps(stated))
    return path
