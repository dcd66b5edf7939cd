"""Engines that are built where they run: once, whole or not at all, for one device; and what a stage's own one is."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.runtimes.tensorrt import engines, recipe
from edge.runtimes.tensorrt.engines import engine_of_stage, ready_engine
from tests.edge.tensorrt import fake
from tests.edge.tensorrt.parts import ORIN, RTX_3090, recipe_of

CONTENT = b"a graph"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    fake.BUILT.clear()
    return tmp_path / "cache" / "engines"


def stage(folder: Path, engine: "bytes | None" = None, about: "dict[str, Any] | None" = None) -> Stage:
    """An exported stage, deferred or with an engine."""

    def make(work: Work) -> None:
        work.add_payload("model.onnx").write_bytes(CONTENT)
        work.add_payload(recipe.RECIPE).write_text(recipe_of("tensorrt").text())
        if engine is not None and about is not None:
            work.add_payload(recipe.ENGINE).write_bytes(engine)
            work.add_payload(recipe.SIDECAR).write_text(recipe.sidecar_text(about))

    return artifact.build(folder, Plan("exported", {"target": "tensorrt"}, 0, {}, {}), make)


def test_a_deferred_engine_is_built_once_and_its_hash_pinned(tmp_path: Path, cache: Path) -> None:
    deferred, library = stage(tmp_path / "e"), fake.library()
    first = engine_of_stage(deferred, library, ORIN)
    again = engine_of_stage(deferred, library, ORIN)
    assert len(fake.BUILT) == 1 and first == again and first.here
    assert first.about["sha256"] == artifact.bytes_sha256(first.content)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    assert {"engine.plan", "engine.json", "layers.json", "manifest.json"} == {entry.name for entry in folder.iterdir()}
    assert json.loads((folder / "layers.json").read_text())["weighted"] == {"fc": "fp16"}


def test_graph_recipe_library_and_device_each_have_an_engine_of_their_own(cache: Path) -> None:
    library, how = fake.library(), recipe_of("tensorrt")
    other_recipe = replace(how, optimization_level=5)
    ready_engine(CONTENT, how, library, ORIN, where="e")
    ready_engine(b"another graph", how, library, ORIN, where="e")
    ready_engine(CONTENT, other_recipe, library, ORIN, where="e")
    ready_engine(CONTENT, how, fake.library("10.4.0"), ORIN, where="e")
    ready_engine(CONTENT, how, library, RTX_3090, where="e")
    ready_engine(CONTENT, how, library, replace(ORIN, free_bytes=1 << 30, driver="12.7"), where="e")  # no other device
    assert len(fake.BUILT) == 5 == sum(entry.is_dir() for entry in cache.iterdir())


def test_timings_of_a_device_are_kept_and_used(cache: Path) -> None:
    library = fake.library()
    for content in (CONTENT, b"another graph"):
        ready_engine(content, recipe_of("tensorrt"), library, ORIN, where="e")
    (timings,) = cache.glob("timings-*.cache")
    assert timings.read_bytes() == b"+timed+timed"


def test_an_interrupted_build_leaves_nothing_that_is_taken_for_an_engine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engines, "build_engine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ready_engine(CONTENT, recipe_of("tensorrt"), fake.library(), ORIN, where="e")
    assert not [entry for entry in cache.iterdir() if entry.is_dir() and entry.suffix != ".partial"]
    assert ready_engine(CONTENT, recipe_of("tensorrt"), fake.library(), ORIN, where="e").content == fake.plan()


def test_two_builders_do_not_work_at_one_engine(cache: Path) -> None:
    library, how = fake.library(), recipe_of("tensorrt")
    started, end = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.get_context("fork").Process(target=_slow_build, args=(started, end))
    other.start()
    assert started.wait(20)
    try:
        with pytest.raises(CompressError, match=rf"process {other.pid} on .* is working on it; wait for it or stop it"):
            ready_engine(CONTENT, how, library, ORIN, where="e")
    finally:
        end.set()
        other.join()
    assert ready_engine(CONTENT, how, library, ORIN, where="e").content == fake.plan() and not fake.BUILT


def test_a_flipped_bit_in_the_cache_is_found(cache: Path) -> None:
    library, how = fake.library(), recipe_of("tensorrt")
    ready_engine(CONTENT, how, library, ORIN, where="e")
    file = next(cache.glob("*/engine.plan"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CompressError, match=r"engine.plan has sha256 \w+, the manifest says"):
        ready_engine(CONTENT, how, library, ORIN, where="e")


def test_a_stages_own_engine_is_taken_where_it_fits_and_else_built_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, engine = fake.library(), fake.plan()
    built = stage(tmp_path / "e", engine, recipe.sidecar_of(engine, CONTENT, recipe_of("tensorrt"), library, ORIN))
    own = engine_of_stage(built, library, ORIN)
    assert own.content == engine and not own.here and not fake.BUILT
    other = engine_of_stage(built, library, RTX_3090)
    said = capsys.readouterr().err
    assert other.here and len(fake.BUILT) == 1 and other.about["device"]["name"] == RTX_3090.name
    assert "built for Orin (SM 8.7)" in said and "here is NVIDIA GeForce RTX 3090 (SM 8.6)" in said


def test_a_stage_without_graph_or_recipe_says_so(tmp_path: Path) -> None:
    empty = artifact.build(tmp_path / "e", Plan("exported", {"target": "tensorrt"}, 0, {}, {}), lambda work: None)
    with pytest.raises(CompressError, match=r"e: has no model.onnx; export the model again"):
        engine_of_stage(empty, fake.library(), ORIN)


def test_recipes_survive_their_file_and_strangers_are_refused() -> None:
    how = recipe_of("tensorrt", workspace_mib=5, compute_capabilities=("8.6",))
    assert recipe.read_recipe(how.text(), "r") == how
    for broken in ("", "[]", '{"format": 1}', how.text().replace('"target"', '"goal"')):
        with pytest.raises(CompressError, match=r"r: (not readable as a build recipe|a recipe of format None)"):
            recipe.read_recipe(broken, "r")
    with pytest.raises(CompressError, match="r: a recipe of format 9, this version reads 1"):
        recipe.read_recipe(how.text().replace('"format": 1', '"format": 9'), "r")
    with pytest.raises(CompressError, match="r: batch 5:1:64, min ≤ opt ≤ max is needed"):
        recipe.read_recipe(replace(how, batch=(5, 1, 64)).text(), "r")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"precision": "int8"}, "dla 0: runs fp16 here, not int8; give --precision fp16"),
        ({"precision": "fp16", "batch": (1, 2, 4)}, "dla 0: takes one batch size, not 1:2:4; give --batch 2:2:2"),
    ],
)
def test_what_a_dla_asks_of_any_recipe(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(CompressError, match=line):
        recipe.check_recipe(recipe_of("tensorrt", dla=0, **changes))
    recipe.check_recipe(recipe_of("tensorrt", dla=0, precision="fp16", batch=(2, 2, 2)))


def _slow_build(started: Any, end: Any) -> None:
    real = engines.build_engine

    def slow(*args: Any, **more: Any) -> Any:
        started.set()
        end.wait(20)
        return real(*args, **more)

    engines.build_engine = slow  # type: ignore[assignment]
    ready_engine(CONTENT, recipe_of("tensorrt"), fake.library(), ORIN, where="e")
