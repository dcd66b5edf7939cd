"""A user's pipeline: its faults in one line with its name, and its place in a verified stage."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.statement_check import schema_fault
from edge import open_runner
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes import preprocess
from edge.statement import statement, wording
from edge.statement.statement import Statement
from edge.verify import preprocess_parity, verify
from tests.edge import linear
from tests.edge.stages import World, config

#: A camera that delivers each pixel twice in both directions; what comes out of it are the images again.
MODULE = """
import numpy as np

def identity(frames):
    return frames[:, ::2, ::2][:, None]

def unit(frames):
    return identity(frames).astype(np.float32) / np.float32(255)

def negative(frames):
    return 255 - identity(frames)

def frames(images):
    return images[:, 0].repeat(2, 1).repeat(2, 2)

def raises(frames):
    raise KeyError("plane\\nof chroma")

def a_list(frames):
    return [1, 2]

def sideways(frames):
    return identity(frames)[:, :, :2]

def fewer(frames):
    return identity(frames)[1:]

def double(frames):
    return unit(frames) * np.float32(2)

def undefined(frames):
    return unit(frames) * np.float32("nan")

def wide(frames):
    return unit(frames).astype(np.float64)
"""
SHAPE = (1, 4, 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the module `camera_of_tests` in it."""
    (tmp_path / "camera_of_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "camera_of_tests", raising=False)
    return tmp_path


def images(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def refused(call: Any, *parts: str) -> None:
    with pytest.raises(CompressError) as found:
        call()
    said = str(found.value)
    assert "\n" not in said and all(part in said for part in parts), said


# ---------------------------------------------------------------------------------------------- the function


def test_a_function_beside_the_working_directory_and_its_inverse(here: Path) -> None:
    found = preprocess.load("camera_of_tests:unit")
    frames = found.frames_of(images())
    assert frames.shape == (5, 8, 8)
    np.testing.assert_array_equal(found.checked(frames, SHAPE), images() / np.float32(255))
    assert found.sha256 and len(found.sha256) == 64


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("camera_of_tests", ["module:function is needed"]),
        (":unit", ["module:function is needed"]),
        ("camera_of_tests:", ["module:function is needed"]),
        ("no_such_camera:unit", ["no module no_such_camera in ", "PYTHONPATH"]),
        ("camera_of_tests:units", ["no function units", "did you mean 'unit'"]),
        ("broken_camera:unit", ["importing broken_camera: raised SyntaxError"]),
    ],
)
def test_what_cannot_be_loaded(here: Path, name: str, parts: "list[str]") -> None:
    (here / "broken_camera.py").write_text("def unit(:\n")
    refused(lambda: preprocess.load(name), f"--preprocess {name}:", *parts)


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("raises", "raised KeyError: 'plane\\nof chroma' on uint8 (5, 8, 8) at camera_of_tests.py:"),
        ("a_list", "gives a list; return an array: (5, 1, 4, 4), uint8 or float32 in [0, 1]"),
        ("sideways", "gives uint8 (5, 1, 2, 4); return (5, 1, 4, 4)"),
        ("fewer", "gives uint8 (4, 1, 4, 4)"),
        ("wide", "gives float64"),
        ("double", "gives values in [0, 2]"),
        ("undefined", "gives values in [nan, nan]"),
    ],
)
def test_faults_of_the_function_bear_its_name(here: Path, function: str, part: str) -> None:
    name = f"camera_of_tests:{function}"
    found = preprocess.load(name)
    shown = np.zeros((5, *SHAPE), np.uint8)
    shown[0] = 255
    refused(lambda: found.checked(found.frames_of(shown), SHAPE), name, part)


def test_faults_of_the_inverse(here: Path) -> None:
    (here / "no_inverse.py").write_text("def f(x):\n    return x\n")
    refused(
        lambda: preprocess.load("no_inverse:f").frames_of(images()), "no function frames(images)", "--frames FILE.npy"
    )
    (here / "bad_inverse.py").write_text("def f(x):\n    return x\ndef frames(images):\n    return images[1:]\n")
    refused(lambda: preprocess.load("bad_inverse:f").frames_of(images()), "one frame for each", "uint8 (4, 1, 4, 4)")
    (here / "raising_inverse.py").write_text("def f(x):\n    return x\ndef frames(images):\n    return 1 / 0\n")
    refused(lambda: preprocess.load("raising_inverse:f").frames_of(images()), "raising_inverse:frames: raised ZeroDiv")


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (None, "not readable"),
        (np.zeros((3, 4), np.float32), "holds float32 (3, 4); uint8 (N, …) is needed"),
        (np.zeros(3, np.uint8), "holds uint8 (3,)"),
        (np.zeros((0, 4), np.uint8), "holds uint8 (0, 4)"),
        (np.array([{}], object), "not readable"),
    ],
)
def test_files_of_frames_that_are_none(tmp_path: Path, array: "np.ndarray | None", part: str) -> None:
    file = tmp_path / "frames.npy"
    if array is not None:
        np.save(file, array)
    refused(lambda: preprocess.read_frames(file), f"--frames {file}", part)


def test_the_example_of_the_docs_gives_images_back(here: Path) -> None:
    """Where colour is constant over 2×2 pixels, which NV12 shares a colour among, to the rounding of its 8 bits."""
    text = (Path(preprocess.__file__).parents[2] / "docs" / "latency.md").read_text()
    (here / "nv12.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    found = preprocess.load("nv12:to_rgb")
    blocks = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8).repeat(2, 2).repeat(2, 3)
    frames = found.frames_of(blocks)
    assert (frames.shape, frames.dtype) == ((4, 24, 16), np.uint8)
    assert np.abs(found.checked(frames, (3, 16, 16)) * 255 - blocks).max() < 2.5


# ---------------------------------------------------------------------------------------------- in a verified stage


@pytest.fixture
def world(here: Path) -> World:
    made = World.make(here)
    made.export("onnx", made.twin)
    return made


def run(world: World, attacks: Stage, out: str = "verified", **more: Any) -> "tuple[Stage, dict[str, Any]]":
    free = {"square_queries": 0, "decision_queries": 0}
    inputs = verify.VerifyInputs(exported=world.stages["onnx"].path, attack_set=attacks.path)
    stage = verify.run(config(**free, **more), inputs, world.root / out)
    stated = statement.read_statement(stage.path).as_json()
    assert schema_fault(stated) is None
    return stage, stated


def test_a_pipeline_that_gives_the_images_back_changes_no_prediction(world: World) -> None:
    _, stated = run(world, world.attack_set({"onnx": world.twin}), preprocess="camera_of_tests:unit")
    said = stated["predicate"]
    assert said["preprocess"]["clean"]["count"] == said["figures"]["clean"]["count"]
    assert (said["preprocess"]["same_prediction"], said["preprocess"]["largest_change"]) == (1.0, 0.0)
    assert "the model's own input" in said["threat"]["applied_to"]
    assert "camera_of_tests:unit" in said["threat"]["applied_to"]
    assert "camera_of_tests:unit" in said["latency"]["inside"] and said["latency"]["preprocess_ms"]["p50_ms"] > 0
    text = wording.statement_text(Statement.of(stated))
    assert "preprocess  camera_of_tests:unit: p50" in text and "100.0% of predictions stay" in text


def test_parity_through_a_pipeline_against_the_formula(world: World) -> None:
    _, stated = run(world, world.attack_set({"onnx": world.twin}), preprocess="camera_of_tests:negative")
    said, seen = stated["predicate"]["preprocess"], 255 - world.clean
    through = linear.logits(world.twin, seen).argmax(1)
    plain = linear.logits(world.twin, world.clean).argmax(1)
    assert said["clean"]["count"] == (through == world.labels).sum() != (plain == world.labels).sum()
    assert said["same_prediction"] == pytest.approx((through == plain).mean())
    assert said["largest_change"] == np.abs(world.clean.astype(int) - seen).max()


def test_frames_of_a_file_in_the_set_s_order(world: World, here: Path) -> None:
    attacks = world.attack_set({"onnx": world.twin})
    np.save(here / "frames.npy", world.clean[:, 0].repeat(2, 1).repeat(2, 2))
    _, stated = run(world, attacks, preprocess="camera_of_tests:identity", frames="frames.npy")
    assert stated["predicate"]["preprocess"]["same_prediction"] == 1.0
    assert stated["predicate"]["preprocess"]["frames"].startswith("frames.npy, sha256 ")
    np.save(here / "few.npy", np.zeros((3, 8, 8), np.uint8))
    named = {"preprocess": "camera_of_tests:identity", "frames": "few.npy"}
    refused(lambda: run(world, attacks, "other", **named), "holds 3 frames, the attack set 30 clean images")
    assert not (world.root / "other").exists() and not (world.root / "other.partial").exists()
    refused(lambda: run(world, attacks, "other", frames="few.npy"), "give it too")


def test_a_pipeline_that_fails_is_told_before_anything_is_executed(world: World, capsys: Any) -> None:
    attacks = world.attack_set({"onnx": world.twin})
    capsys.readouterr()
    refused(
        lambda: run(world, attacks, preprocess="camera_of_tests:sideways"), "camera_of_tests:sideways", "(1, 1, 4, 4)"
    )
    assert "replay" not in capsys.readouterr().err and not (world.root / "verified").exists()


def test_the_module_s_content_is_part_of_what_was_decided(here: Path) -> None:
    given = config(preprocess="camera_of_tests:unit", frames=None)
    before = preprocess_parity.decided(given)
    assert before["preprocess"]["name"] == "camera_of_tests:unit"
    (here / "camera_of_tests.py").write_text(MODULE + "\n# another pipeline\n")
    assert preprocess_parity.decided(given)["preprocess"]["sha256"] != before["preprocess"]["sha256"]
    assert preprocess_parity.decided(config()) == config(), "without one the config stands as it is"
    json.dumps(before)


def test_parity_goes_batch_by_batch_to_the_last_image(world: World) -> None:
    sizes = []

    def noted(frames: np.ndarray) -> np.ndarray:
        sizes.append(len(frames))
        return frames

    pipeline = preprocess_parity.Pipeline(preprocess.Preprocess("m:noted", noted, None), world.clean, "here")
    with open_runner(world.stages["onnx"].path, batch_size=8, threads=1) as runner:
        logits = runner.infer(world.clean)
        found = preprocess_parity.pipeline_parity(pipeline, runner, world.clean, world.labels, logits)
    assert sizes == [8, 8, 8, 6] and found.same_prediction == 1 and found.clean.n == 30
