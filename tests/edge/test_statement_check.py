"""Whether a verified folder is what it states: everything that can be changed is caught, by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import statement_check
from compress.stages import verify
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from edge.statement.statement import OtherVersion
from tests.edge.stages import World, config


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with `onnx`, `attack-set` and `verified`."""
    root = tmp_path_factory.mktemp("checked")
    world = World.make(root)
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    verify.run(config(), verify.VerifyInputs(exported=root / "onnx", attack_set=attacks.path), root / "verified")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def refused(root: Path, message: str, kind: type[CompressError] = CheckFailed, **given: Any) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        statement_check.check_verified(root / "verified", **given)
    assert type(fault.value) is kind and "\n" not in str(fault.value)


def rewrite(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the statement and let the manifest vouch for it, as a forger without a key would."""
    file = root / "verified" / "statement.json"
    stated = json.loads(file.read_text())
    change(stated)
    file.write_text(json.dumps(stated))
    vouch(root, "records", "statement.json")


def vouch(root: Path, group: str, name: str) -> None:
    file = root / "verified" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest[group][name]["sha256"] = artifact.file_sha256(root / "verified" / name)
    payload = {key: entry["sha256"] for key, entry in manifest["payload"].items()}
    manifest["identity"] = artifact.digest({"plan": manifest["plan"], "payload": payload})
    file.write_text(json.dumps(manifest))


def test_what_was_made_is_right(root: Path) -> None:
    _, rows = statement_check.check_verified(root / "verified")
    assert [row.name for row in rows] == ["files", "schema", "artifact", "verdicts", "attack set"]
    assert not any(row.skipped for row in rows)


@pytest.mark.parametrize(
    "name",
    [f"verified/{name}" for name in ("statement.json", "verdicts.npz", "latency.npz", "report.html")]
    + [f"attack-set/{name}" for name in ("attack-set.json", "attack-set.npz")]
    + ["onnx/model.onnx"],
)
def test_one_flipped_bit_is_caught_by_name(root: Path, name: str) -> None:
    content = bytearray((root / name).read_bytes())
    content[len(content) // 3] ^= 4
    (root / name).write_bytes(content)
    refused(root, rf"{Path(name).name}: has sha256 \w+, (manifest.json|the statement) says")


@pytest.mark.parametrize("part", ["plan", "payload", "records"])
def test_a_manifest_that_was_changed_is_caught(root: Path, part: str) -> None:
    file = root / "verified" / "manifest.json"
    manifest = json.loads(file.read_text())
    if part == "plan":
        manifest["plan"]["seed"] += 1
    else:
        next(iter(manifest[part].values()))["sha256"] = "0" * 64
    file.write_text(json.dumps(manifest))
    refused(
        root, r"manifest\.json: does not match its own identity" if part != "records" else "manifest.json says 0000"
    )


def set_chance(stated: dict[str, Any]) -> None:
    """Below what it is, so that a figure at chance level would meet a requirement."""
    stated["predicate"]["figures"]["chance"]["count"] -= 1


def set_robust(stated: dict[str, Any]) -> None:
    stated["predicate"]["figures"]["robust"]["count"] += 1


def set_nature(stated: dict[str, Any]) -> None:
    stated["predicate"]["nature"] = "certified"


def set_subject(stated: dict[str, Any]) -> None:
    stated["subject"][0]["digest"]["sha256"] = "0" * 64


def set_identity(stated: dict[str, Any]) -> None:
    stated["predicate"]["artifact"]["identity"] = "0" * 64


def set_attack_set(stated: dict[str, Any]) -> None:
    stated["predicate"]["attack_set"]["identity"] = "0" * 64


def set_verdicts(stated: dict[str, Any]) -> None:
    stated["predicate"]["verdicts"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_chance, r"verdicts\.npz: \d+ of 30 images, the statement's chance says \d+ of 30"),
        (set_robust, r"verdicts\.npz: \d+ of 30 images, the statement's robust or upper_bound says \d+ of 30"),
        (set_nature, r"breaks the schema of version 2 at predicate\.nature: 'empirical' was expected"),
        (set_subject, "its subject is 000000000000, elsewhere it is"),
        (set_identity, r"its artifact\.identity is 000000000000"),
        (set_attack_set, r"its attack_set\.identity is 000000000000"),
        (set_verdicts, r"verdicts\.npz: has sha256 \w+, the statement says 000000000000"),
    ],
)
def test_a_forged_statement_that_the_manifest_vouches_for_is_caught(root: Path, change: Any, message: str) -> None:
    rewrite(root, change)
    refused(root, message)


def test_forged_verdicts_that_the_manifest_vouches_for_are_caught(root: Path) -> None:
    file = root / "verified" / "verdicts.npz"
    table = dict(np.load(file))
    table["broken"] = np.zeros_like(table["broken"])
    np.savez(file, **table)
    vouch(root, "payload", "verdicts.npz")
    refused(root, r"verdicts\.npz: has sha256 \w+, the statement says")


def test_a_newer_statement_is_the_inputs_fault(root: Path) -> None:
    rewrite(root, lambda stated: stated.update(predicateType=stated["predicateType"][:-1] + "3"))
    refused(root, "a statement of version 3, this program reads 2", OtherVersion)


def test_what_was_moved_is_asked_for(root: Path) -> None:
    shipped = (root / "onnx").rename(root / "moved")
    (root / "attack-set").rename(root / "elsewhere")
    refused(root, r"the artifact model\.onnx is not at .*; give it by --artifact", CompressError)
    for where in (shipped, shipped / "model.onnx"):
        _, rows = statement_check.check_verified(root / "verified", shipped=where)
        assert rows[-1].skipped and "give it by --attack-set" in rows[-1].found
    _, rows = statement_check.check_verified(root / "verified", shipped=shipped, attack_set=root / "elsewhere")
    assert not rows[-1].skipped
    refused(root, "no folder; give the attack set's", CompressError, shipped=shipped, attack_set=root / "nowhere")


@pytest.mark.parametrize("name", ["statement.json", "verdicts.npz"])
def test_a_file_that_is_gone_is_named(root: Path, name: str) -> None:
    (root / "verified" / name).unlink()
    refused(root, rf"{name}: cannot be read \(No such file")


def test_what_is_no_verified_folder_is_refused(root: Path) -> None:
    with pytest.raises(CompressError, match=r"no manifest\.json there; give a verified folder"):
        statement_check.check_verified(root)
    with pytest.raises(CompressError, match="is a stage of kind"):
        (root / "onnx" / "manifest.json").replace(root / "verified" / "manifest.json")
        statement_check.check_verified(root / "verified")
