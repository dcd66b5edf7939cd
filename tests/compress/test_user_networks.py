"""A user's own network: what it must keep is tried once, and whatever its code raises is one line that names it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import folders
from compress.networks import network_files
from compress.networks.foreign_network import Foreign
from compress.quantization.lowering import lower
from edge.core import artifact
from edge.core.errors import CompressError
from tests.compress import user_networks
from tests.compress.fake_stages import Call, caller

HERE = "tests.compress.user_networks"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    return caller(capsys)


TAKEN = [
    ("grey", ""),
    ("half", "gives logits in float16, taken as float32"),
    ("bfloat16", "gives logits in bfloat16, taken as float32"),
    ("double", "gives logits in float64, taken as float32"),
    ("double_weights", "its weights in float64 are kept as float32"),
    ("own", "gives logits in float64, taken as float32"),
    ("strided", ""),
    ("tensor_image", ""),
    ("moving", "again; code of yours had changed it to /"),
    ("scripted", "is TorchScript: it can teach and be attacked, not be trained, quantized or exported"),
    ("printing", "in the forward pass"),
]


@pytest.mark.parametrize(("name", "said"), TAKEN)
def test_what_can_be_taken_is_taken_and_said(call: Call, name: str, said: str) -> None:
    code, out, err = call(f"teacher import {HERE}:{name} --data digits --no-check --out T --json")
    assert code == 0, err
    assert json.loads(out)["stage"] == "teacher" and said in err and bool(err) == bool(said)
    images = torch.rand(3, 1, 8, 8)
    logits = folders.load("T")(images)
    want = (user_networks.Own().body if name == "own" else user_networks.Grey()).eval()(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, want, atol=0.02, rtol=0.02)


REFUSED = [
    ("pair", "its forward gives a tuple; return logits (N, classes) alone"),
    ("a_dict", 'its forward gives a dict of logits, features; return its "logits" alone'),
    ("output", 'its forward gives a ModelOutput of loss, logits; return its "logits" alone'),
    ("answer", 'its forward gives a Answer; return its "logits" alone'),
    ("array", "its forward gives a ndarray; return logits"),
    ("classes", "its forward gives a tensor (2,) for 2 images; logits (N, classes) are needed"),
    ("one_hot", "its forward gives torch.int64 values; logits are needed, before any argmax"),
    ("sparse_logits", "its forward gives a sparse tensor; make it dense"),
    ("maps", "its forward gives a tensor (2, 10, 1, 1) for 2 images; flatten it: .flatten(1)"),
    ("first_only", "its forward gives a tensor (1, 10) for 2 images"),
    ("seven", "gives logits (2, 7) for 2 images; (2, 10) are needed"),
    ("no_number", "its logits are not finite on a grey image"),
    ("without_gradient", "the model's logits have no gradient by its images; attack it with square and rays alone"),
    ("in_place", "its forward changes the images that it is given; let it begin with x = x.clone()"),
    ("large_only", "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ("raising", "raised KeyError: 'two\\nlines' on images (2, 1, 8, 8) float32 at user_networks.py:"),
    ("exiting", "raised SystemExit: 3 at user_networks.py:"),
    ("on_gpu", "on images (2, 1, 8, 8) float32 at user_networks.py:"),
    ("training", "a call leaves layers in training mode"),
    ("counting", "a call changes calls (1 of its tensors)"),
    ("drawn", "two of its networks with the same weights give other logits"),
    ("lazy", "its state holds 1.weight, which is not initialized yet (a lazy layer)"),
    ("sparse", "its state holds mask, which is sparse or quantized"),
    ("int16", "its state holds codes, which is of torch.int16"),
    ("wide", "needs arguments (width); give a function that needs none"),
    ("a_class", "returned the class Grey; return an object of it"),
    ("an_object", "is a network, not a function"),
    ("own_raising", "raised ZeroDivisionError: division by zero on images (2, 1, 8, 8) float32 at user_networks.py:"),
    ("own_logits", "its forward_features gives a Tensor; return Features"),
    ("gray", "has no function gray (it has"),
]


@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_what_cannot_be_is_one_line_that_names_it_and_leaves_nothing(call: Call, name: str, said: str) -> None:
    code, out, err = call(f"teacher import {HERE}:{name} --data digits --out T")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"compress: {HERE}:{name}: ") and said in err
    assert list(Path().iterdir()) == []


def test_a_stage_of_before_is_opened_though_its_code_was_not_kept() -> None:
    old = {"model": f"factory:{HERE}:grey", "input": [1, 8, 8], "classes": [str(k) for k in range(10)]}
    assert network_files.build_described(old)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_view_is_taken_in_every_order_of_memory(call: Call) -> None:
    torch.manual_seed(0)
    network = Foreign(user_networks.Viewing(), "own", 10).eval()
    images = torch.rand(3, 1, 8, 8)
    want = network.net(images)
    last = torch.empty_strided(images.shape, (64, 1, 8, 1)).copy_(images)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        network.net(last)
    scripted = Foreign(torch.jit.script(network.net), "own", 10).eval()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(scripted(last), want)
    torch.testing.assert_close(network(last), want)
    torch.testing.assert_close(network.to(memory_format=torch.channels_last)(images), want)  # type: ignore[call-overload]
    assert network.views == {False: True}
    code, _, err = call(f"distill --student {HERE}:Viewing --method normal --data digits --epochs 1 --out S")
    assert code == 0, err


def test_a_network_of_ours_from_a_users_function_is_guarded_and_still_traced(call: Call) -> None:
    assert call(f"teacher import {HERE}:native --data digits --no-check --out T")[0] == 0
    network = folders.load("T")
    traced = [node.target for node in lower(network, (1, 8, 8)).graph.nodes if node.op == "call_module"]
    assert "conv1" in traced and "linear" in traced
    with pytest.raises(CompressError, match=r"user_networks:native: raised RuntimeError: .* on images \(2, 3, 8, 8\)"):
        network(torch.rand(2, 3, 8, 8))


def test_without_data_a_call_shows_which_images_it_takes(call: Call) -> None:
    code, _, err = call(f"teacher import {HERE}:grey --out T")
    assert code == 0 and "takes images (1, 32, 32), as a call without --data shows" in err
    stage = artifact.read("T")
    assert "takes images (1, 32, 32)" in stage.metrics["note"]
    about = json.loads(stage.file("model.json").read_text())
    assert about["input"] == [1, 32, 32] and len(about["classes"]) == 10
    code, _, err = call(f"teacher import {HERE}:large_only --out U")
    assert code == 2 and "which images it takes is not known without --data, --image-size says their size" in err
    assert call(f"teacher import {HERE}:large_only --image-size 224 --out U")[0] == 0


MODULES = [
    ("raise RuntimeError('no weights')\n", "importing own_module: raised RuntimeError: no weights at own_module.py:1"),
    ("def make(:\n", "importing own_module: raised SyntaxError"),
    ("import no_such_package\n", "importing own_module: raised ModuleNotFoundError: No module named 'no_such_package'"),
    ("import sys\nsys.exit()\n", "importing own_module: raised SystemExit at own_module.py:2"),
    (None, "no module own_module in "),
]


@pytest.mark.parametrize(("source", "said"), MODULES)
@pytest.mark.parametrize("verb", ["teacher import {} --out T", "bench a.onnx --preprocess {}"])
def test_a_module_that_cannot_be_imported_is_told_by_every_verb(
    call: Call, verb: str, source: "str | None", said: str
) -> None:
    if source is not None:
        head = "print('importing')\n" * source.startswith("import sys")
        Path("own_module.py").write_text(f"{head}{source}make = 1\n")
        said = said.replace("py:2", "py:3") if source.startswith("import sys") else said
    code, out, err = call(verb.format("own_module:make"))
    assert (code, out) == (2, "") and said in err.splitlines()[-1]
    assert "Traceback" not in err and not Path("T").exists()


def test_what_fails_later_is_told_by_the_verb_that_meets_it(call: Call, monkeypatch: Any) -> None:
    assert call(f"teacher import {HERE}:grey --data digits --no-check --out T")[0] == 0

    def crowded(self: user_networks.Grey, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"{len(x)} images are too many")

    monkeypatch.setattr(user_networks.Grey, "forward", crowded)
    for line in (
        "evaluate T --attack quick --images 20 --out E",
        "distill --teacher T --student resnet8 --method rslad --allow-non-robust --epochs 1 --out S",
        "analyze T --images 40 --out A",
    ):
        code, _, err = call(line)
        assert code == 2 and "raised ValueError: " in err.splitlines()[-1] and "test_user_networks.py:" in err, err
        assert "Traceback" not in err
