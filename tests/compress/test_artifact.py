"""The stage folder: complete or absent, resumed only by its own plan, every byte checked on reading."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edge.core import artifact
from edge.core.artifact import Plan, Work
from edge.core.errors import CompressError


def plan(**config: object) -> Plan:
    return Plan("teacher", {"model": "m", **config}, 0, {"name": "digits"}, {})


def write(work: Work, content: bytes = b"weights") -> None:
    work.add_payload("w.bin").write_bytes(content)
    work.add_record("log.txt").write_text("1 s")
    work.file("scratch").write_text("not kept")


def test_a_finished_stage_holds_what_was_named_and_nothing_else(tmp_path: Path) -> None:
    stage = artifact.build(tmp_path / "s", plan(), write)
    assert sorted(p.name for p in stage.path.iterdir()) == ["log.txt", "manifest.json", "w.bin"]
    assert not (tmp_path / "s.partial").exists()
    assert artifact.read(tmp_path / "s").identity == stage.identity


def test_identity_depends_on_plan_and_payload_and_on_nothing_else(tmp_path: Path) -> None:
    def other_record(work: Work) -> None:
        write(work)
        work.file("log.txt").write_text("2 s")

    base = artifact.build(tmp_path / "a", plan(), write).identity
    assert artifact.build(tmp_path / "b", plan(), other_record).identity == base
    assert artifact.build(tmp_path / "c", plan(), lambda w: write(w, b"others")).identity != base
    assert artifact.build(tmp_path / "d", plan(epochs=2), write).identity != base


def test_a_complete_stage_is_not_made_again(tmp_path: Path) -> None:
    first = artifact.build(tmp_path / "s", plan(), write)
    again = artifact.build(tmp_path / "s", plan(), lambda w: pytest.fail("made again"))
    assert again.identity == first.identity


def test_a_folder_of_another_plan_is_refused_with_what_differs(tmp_path: Path) -> None:
    artifact.build(tmp_path / "s", plan(method="rslad"), write)
    with pytest.raises(CompressError, match=r"config\.method: 'rslad' → 'vgap'"):
        artifact.build(tmp_path / "s", plan(method="vgap"), write)
    assert artifact.read(tmp_path / "s").config["method"] == "rslad"


def test_replace_keeps_the_old_stage_until_the_new_one_is_complete(tmp_path: Path) -> None:
    artifact.build(tmp_path / "s", plan(method="rslad"), write)

    def fails(work: Work) -> None:
        assert artifact.read(tmp_path / "s").config["method"] == "rslad"
        raise CompressError("no")

    with pytest.raises(CompressError, match="no"):
        artifact.build(tmp_path / "s", plan(method="vgap"), fails, replace=True)
    assert artifact.read(tmp_path / "s").config["method"] == "rslad"
    artifact.build(tmp_path / "s", plan(method="vgap"), write, replace=True)
    assert artifact.read(tmp_path / "s").config["method"] == "vgap"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["w.bin", "log.txt"])
def test_one_flipped_bit_is_found_and_the_file_and_its_command_named(tmp_path: Path, name: str) -> None:
    token = artifact.COMMAND.set("compress teacher train --out s")
    artifact.build(tmp_path / "s", plan(), write)
    artifact.COMMAND.reset(token)
    content = bytearray((tmp_path / "s" / name).read_bytes())
    content[0] ^= 1
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(CompressError) as fault:
        artifact.read(tmp_path / "s")
    assert name in str(fault.value) and "compress teacher train --out s" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_an_edited_manifest_is_found(tmp_path: Path) -> None:
    artifact.build(tmp_path / "s", plan(), write)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["plan"]["seed"] = 7
    path.write_text(json.dumps(manifest))
    with pytest.raises(CompressError, match="its own identity"):
        artifact.read(tmp_path / "s")


def test_readers_refuse_a_partial_a_missing_file_and_another_kind(tmp_path: Path) -> None:
    artifact.build(tmp_path / "s", plan(), write)
    (tmp_path / "p.partial").mkdir()
    with pytest.raises(CompressError, match="unfinished"):
        artifact.read(tmp_path / "p.partial")
    with pytest.raises(CompressError, match="unfinished"):
        artifact.read(tmp_path / "p")
    with pytest.raises(CompressError, match="is a stage of kind teacher; needed here: student"):
        artifact.read(tmp_path / "s", ("student",))
    (tmp_path / "s" / "w.bin").unlink()
    with pytest.raises(CompressError, match=r"w\.bin is missing"):
        artifact.read(tmp_path / "s")
    with pytest.raises(CompressError, match=r"no manifest\.json"):
        artifact.read(tmp_path / "nowhere")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    artifact.build(tmp_path / "s", plan(), write)
    path = tmp_path / "s" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CompressError, match="format 2, this version reads 1"):
        artifact.read(tmp_path / "s")


def test_files_that_are_no_stage_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for replace in (False, True):
        with pytest.raises(CompressError, match="holds files that are no stage"):
            artifact.build(tmp_path / "mine", plan(), write, replace=replace)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def _hold(out: Path, keep: bool) -> None:
    def slow(work: Work) -> None:
        work.file("checkpoint").write_text("half" if keep else "")
        work.file("noise").write_text("x")
        time.sleep(60)

    artifact.build(out, plan(), slow, keep=("checkpoint",))


def _held(out: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(out, True))
    process.start()
    for _ in range(500):
        if (out.with_name(out.name + ".partial") / "noise").exists():
            return process
        time.sleep(0.01)
    raise AssertionError("the other process never started")


def test_a_locked_folder_is_refused_and_its_owner_named(tmp_path: Path) -> None:
    process = _held(tmp_path / "s")
    try:
        with pytest.raises(CompressError, match=f"process {process.pid} on"):
            artifact.build(tmp_path / "s", plan(), write)
        assert artifact.status(tmp_path / "s", plan()).state == "partial"
    finally:
        process.kill()
        process.join()


def test_after_a_kill_only_the_same_plan_resumes_with_what_it_keeps(tmp_path: Path) -> None:
    process = _held(tmp_path / "s")
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with pytest.raises(CompressError, match="unfinished stage of another kind"):
        artifact.build(tmp_path / "s", plan(epochs=9), write)
    seen = []

    def resume(work: Work) -> None:
        seen.extend(sorted(p.name for p in work.path.iterdir() if p.name not in ("plan.json", "owner.json")))
        write(work)

    artifact.build(tmp_path / "s", plan(), resume, keep=("checkpoint",))
    assert seen == ["checkpoint"]


def test_a_refusal_leaves_no_folder_behind(tmp_path: Path) -> None:
    def refuse(work: Work) -> None:
        work.add_payload("half").write_text("half")
        raise CompressError("bad input")

    with pytest.raises(CompressError, match="bad input"):
        artifact.build(tmp_path / "deep" / "s", plan(), refuse)
    assert not list((tmp_path / "deep").iterdir())


def test_status_tells_absent_partial_complete_and_stale_apart(tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert artifact.status(out, plan()).state == "absent"
    artifact.build(out, plan(), write)
    assert artifact.status(out, plan()).state == "complete"
    stale = artifact.status(out, plan(epochs=3))
    assert (stale.state, stale.why) == ("stale", "config.epochs: None → 3")


def test_lineage_finds_inputs_after_the_whole_tree_has_moved(tmp_path: Path) -> None:
    source = artifact.build(tmp_path / "run" / "t", plan(), write)
    artifact.build(tmp_path / "run" / "deep" / "s", plan(), write, lineage={"teacher": source.path})
    (tmp_path / "run").rename(tmp_path / "moved")
    stage = artifact.read(tmp_path / "moved" / "deep" / "s")
    assert artifact.read(stage.input_path("teacher")).identity == source.identity
