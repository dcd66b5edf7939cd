"""A user's own network in training: what it is called with, how its code travels with the stage, what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress import folders
from compress.networks.foreign_network import Foreign
from compress.networks.user_factory import arguments_of
from edge.core import artifact, interrupt
from tests.compress.fake_stages import Call, caller
from tests.compress.short_training import same, train
from tests.compress.test_fit_resume import AtStep, asked

HERE = "tests.compress.user_networks"
BRIEF = "--method normal --epochs 1 --batch-size 32 --set validate_steps=1 --set test_steps=1"

NET = """
import torch
import torch.nn.functional as F
from torch import nn
from own_blocks import Block

torch.manual_seed(7)

class Net(nn.Module):
    def __init__(self, num_classes, in_chans, img_size):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 8, 3, padding=1)
        self.block = Block(8)
        self.head = nn.Linear(8 * img_size[0] * img_size[1], num_classes)

    def forward(self, x):
        return self.head(self.block(F.relu(self.stem(x))).flatten(1))

def make(num_classes=1000, in_chans=3, img_size=(224, 224), width=64, **options):
    return Net(num_classes, in_chans, img_size)
"""
BLOCKS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(width, width, 3, padding=1), nn.Dropout(0.2)

    def forward(self, x):
        return x + self.drop(self.conv(x).relu())
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in a folder with a user's two modules and 100 gray images of 6×10 pixels."""
    monkeypatch.chdir(tmp_path)
    Path("own_net.py").write_text(NET)
    Path("own_blocks.py").write_text(BLOCKS)
    labels = np.arange(100) % 3
    images = np.random.default_rng(0).integers(0, 80, (100, 6, 10), np.uint8)
    images[labels == 1, :3] += 120
    images[labels == 2, :, :5] += 120
    np.savez("own.npz", images=images, labels=labels)
    return caller(capsys)


def test_a_function_is_called_with_what_it_takes_by_name() -> None:
    def plain() -> None: ...
    def required(classes: int, *, in_channels: int) -> None: ...
    def widths(
        num_classes: int = 7, channels: int = 64, size: str = "small", width: int = 8, height: int = 4
    ) -> None: ...
    def wide(n_channels: int = 3, **options: Any) -> None: ...
    def sides(img_size: tuple[int, int], image_size: Any = None, input_size: Any = (3, 1, 1)) -> None: ...
    def both(height: int, width: int, input_shape: Any = None) -> None: ...

    def called(function: Any, size: "tuple[int, int] | None" = (6, 10)) -> dict[str, Any]:
        return arguments_of(function, 2, 5, size)

    assert called(plain) == {}
    assert called(required) == {"classes": 5, "in_channels": 2}
    assert called(widths) == {"num_classes": 5, "width": 10, "height": 6}
    assert called(wide) == {"n_channels": 2}
    assert called(sides) == {"img_size": (6, 10), "image_size": (6, 10), "input_size": (2, 6, 10)}
    assert called(sides, (8, 8)) == {"img_size": (8, 8), "image_size": 8, "input_size": (2, 8, 8)}
    assert called(both) == {"height": 6, "width": 10, "input_shape": (2, 6, 10)}
    assert called(both, None) == arguments_of(plain, 0, 0, None) == arguments_of(required, 0, 0, (6, 10)) == {}


def test_its_code_travels_with_the_stage(call: Call, monkeypatch: Any) -> None:
    code, out, err = call(f"distill --student own_net:make --data npz:own.npz --eps 8/255 {BRIEF} --out S --json")
    assert code == 0, err
    assert "own_net:make: called with num_classes=3, in_chans=1, img_size=(6, 10)\n" in err
    about = json.loads(Path("S/model.json").read_text())
    assert about["model"] == "own_net:make" and set(about["code"]) == {"own_net.py", "own_blocks.py"}
    assert artifact.read("S").config["code"] == about["code"] and "own_net" not in os.listdir("S")
    images = torch.rand(4, 1, 6, 10)
    want = folders.load("S")(images)
    assert not list(Path().glob("**/__pycache__"))

    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert torch.equal(folders.load("../S")(images), want)  # imported from where it lay
    Path("../own_net.py").write_text(f"# A remark\n\n{NET}")
    assert torch.equal(folders.load("../S")(images), want)  # the code is the same
    Path("../own_net.py").write_text(f"{NET}\ndef another():\n    return Net(2, 3, (4, 4))\n")
    assert torch.equal(folders.load("../S")(images), want)  # another network in the file
    Path("../own_blocks.py").write_text(BLOCKS.replace("relu", "tanh"))
    line = "evaluate ../S --attack quick --images 20 --out E"
    code, out, err = call(line)
    assert (code, out, os.listdir()) == (2, "", []) and "its code in " in err and "(own_blocks.py changed)" in err
    shutil.copy("../own_net.py", "own_net.py")
    Path("own_blocks.py").write_text(BLOCKS)  # here, where it is looked for first
    assert torch.equal(folders.load("../S")(images), want)
    for name in ("own_net.py", "../own_net.py"):
        Path(name).unlink()
    code, _, err = call(line)
    assert code == 2 and "no module own_net in " in err and ", where it lay," in err and not Path("E.partial").exists()


def test_the_seed_decides_its_weights_and_its_code_what_is_complete(call: Call) -> None:
    line = f"teacher train --model own_net:make --data npz:own.npz --eps 8/255 {BRIEF} --out"
    assert call(f"{line} A")[0] == call(f"{line} B")[0] == call(f"{line} C --seed 1")[0] == 0
    a, b, c = (Path(name, "weights.safetensors").read_bytes() for name in "ABC")
    assert a == b != c
    assert '"complete_already": true' in call(f"{line} A --json")[1]
    Path("own_blocks.py").write_text(BLOCKS.replace("relu", "tanh"))
    code, _, err = call(f"{line} A")
    assert code == 2 and "holds a stage made otherwise (config.code.own_blocks.py: " in err


def test_what_quantize_will_refuse_is_said_before_training(call: Call) -> None:
    branch = "return self.head(self.block(F.relu(self.stem(x))).flatten(1))"
    Path("own_net.py").write_text(NET.replace(branch, branch.replace("return", "if x.sum() > 0:\n            return")))
    line = f"teacher train --model own_net:make --data npz:own.npz --eps 8/255 {BRIEF}"
    code, _, err = call(f"{line} --out A")
    assert code == 0 and "own_net:make: it can be trained, and quantize will refuse it: " in err, err
    assert (
        "a branch or a number that hangs on a tensor's values"
        in json.loads(Path("A/manifest.json").read_text())["metrics"]["start"]
    )


def test_code_that_fails_halfway_is_mended_and_tried_again(call: Call) -> None:
    line = f"distill --student own_net:make --data npz:own.npz --eps 8/255 {BRIEF} --epochs 2 --out S"
    late = 'self.left = self.left - self.training\n        assert self.left > 0, "too late"'
    faulty = NET.replace("return self.head", f"{late}\n        return self.head").replace(
        "super().__init__()", "super().__init__()\n        self.left = 4"
    )
    Path("own_net.py").write_text(faulty)
    code, _, err = call(line)
    assert code == 2 and "own_net:make: raised AssertionError: too late" in err and Path("S.partial").exists()
    assert "an unfinished stage of another kind (config.lr: " in call(f"{line} --lr 0.05")[2]
    Path("own_net.py").write_text(NET)
    code, _, err = call(line)
    assert code == 0 and "S.partial: begun anew, for what was done there was by other code of yours" in err


def test_two_modules_of_one_name_are_told_apart(call: Call) -> None:
    other = BLOCKS.replace("relu", "tanh")
    line = f"teacher train --model own_net:make --data npz:{Path('own.npz').resolve()} --eps 8/255 {BRIEF} --out"
    assert call(f"{line} A")[0] == 0
    Path("there").mkdir()
    shutil.copy("own_net.py", "there/own_net.py")
    Path("there/own_blocks.py").write_text(other)
    os.chdir("there")
    assert call(f"{line} B")[0] == 0
    images = torch.rand(4, 1, 6, 10)
    first, second = folders.load("../A"), folders.load("B")
    second.load_state_dict(first.state_dict())
    assert not torch.equal(first(images), second(images))
    assert torch.equal(folders.load("../A")(images), first(images))


@pytest.mark.parametrize("model", ["own_net:make", "resnet8"])
def test_a_checkpoint_may_start_it_and_what_stays_behind_is_said(call: Call, model: str) -> None:
    shared = f"--model {model} --eps 8/255 {BRIEF} --lr 1e-9"
    assert call(f"teacher train {shared} --data npz:own.npz --out A")[0] == 0
    weights = folders.load("A").state_dict()
    torch.save({"model": dict(weights), "epoch": 3}, "start.pt")
    code, _, err = call(f"teacher train {shared} --data npz:own.npz --seed 5 --weights start.pt --out B")
    count = len([name for name in weights if not name.endswith("num_batches_tracked")])
    assert (
        code == 0 and f"{model}: starts from start.pt, " in err and (model == "resnet8" or f"{count} of {count}" in err)
    )
    again = folders.load("B").state_dict()
    for name, value in weights.items():
        if name.endswith("weight"):
            torch.testing.assert_close(again[name], value, atol=1e-5, rtol=0)
    assert artifact.read("B").config["weights"] == artifact.file_sha256(Path("start.pt"))

    with np.load("own.npz") as held:
        np.savez("four.npz", images=held["images"], labels=np.arange(100) % 4)
    code, _, err = call(f"teacher train {shared} --data npz:four.npz --weights start.pt --out C")
    assert code == 0 and "2 tensors drawn anew, for 4 classes in place of 3" in err
    assert "2 tensors drawn anew" in artifact.read("C").metrics["start"]
    code, _, err = call(f"teacher train --model cnn --eps 8/255 {BRIEF} --data npz:own.npz --weights start.pt --out D")
    assert code == 2 and "start.pt: does not fit cnn: " in err
    code, _, err = call(f"teacher train {shared} --data npz:own.npz --weights gone.pt --out D")
    assert code == 2 and "weights gone.pt: no such file" in err and not list(Path().glob("D*"))


REFUSED = [
    ("scripted", "is TorchScript, whose layers can be neither quantized nor exported; `teacher import` takes it"),
    ("no_weights", "has no weights that learn"),
    ("frozen", "has no weights that learn"),
    ("nan_weights", "10 of 10 values of head.bias are NaN or infinite before any training"),
    ("growing", "two calls give two architectures: 2 of their tensors differ in name or shape"),
    ("by_the_clock", "two calls after one seed draw other weights"),
    ("auxiliary", "its forward gives a tuple"),
    ("softmax", "sum to 1 on 100.0% of images; return the values before its softmax"),
    ("three_channels", "to have 3 channels, but got 1 channels instead on images (2, 1, 8, 8)"),
    ("seven", "gives logits (2, 7) for 2 images; (2, 10) are needed: let the function take num_classes"),
    ("squeezed", "its forward gives a tensor (10,) for 1 images"),
    ("drawn", "two of its networks with the same weights give other logits"),
]


@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(call: Call, name: str, said: str) -> None:
    before = sorted(Path().iterdir())
    code, out, err = call(f"distill --student {HERE}:{name} --data digits {BRIEF} --out S")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"compress: {HERE}:{name}: ") and said in err
    assert sorted(Path().iterdir()) == before


def test_torchscript_teaches_and_no_more(call: Call) -> None:
    assert call(f"teacher import {HERE}:scripted --data digits --no-check --out T")[0] == 0
    for line in ("quantize T --mode ptq --out Q", "export T --out E"):
        code, out, err = call(line)
        assert (code, out) == (2, "") and "compress: T: is TorchScript, whose layers can be neither" in err
        assert not list(Path().glob("[QE]*"))


NAMES = [
    ("own_net.py:make", "names a file; write own_net:make and run where it lies"),
    ("./own_net.py:make", "names a file; write own_net:make and run where it lies"),
    ("own_net:mak", "own_net has no function mak (it has Net, make); did you mean 'make'?"),
    (
        "checkpoint.pt",
        "an architecture is NAME, timm:NAME, torchvision:NAME, module:function or FILE.onnx; a file",
    ),
    ("robustbench:Wang2023Better_WRN-28-10", "comes with its weights, as a teacher"),
    ("own_net:", "an architecture is NAME, timm:NAME"),
    ("resnet9", "unknown model 'resnet9'"),
    ("gone_net:make", "no module gone_net in "),
    ("timm:resnet18", "timm cannot be imported"),
]


@pytest.mark.parametrize(("name", "said"), NAMES)
def test_a_name_that_leads_nowhere_is_one_line(call: Call, name: str, said: str) -> None:
    before = sorted(Path().iterdir())
    code, _, err = call(f"teacher train --model {name} --data digits {BRIEF} --out S")
    assert code == 2 and said in err and sorted(Path().iterdir()) == before
    Path("run.yaml").write_text(f"data: digits\nstudent: {{model: '{name}', method: rslad}}\n")
    code, _, err = call("run run.yaml --dry-run")
    assert (code == 2 and said in err) or "timm" in name


def test_dropout_of_its_own_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def fresh(seed: int) -> Foreign:
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)]
        return Foreign(nn.Sequential(*layers), "own:make", 10)

    whole = fresh(0)
    train(tmp_path / "whole", whole)
    with pytest.raises(interrupt.Interrupted):
        train(tmp_path / "stopped", fresh(0), objective=AtStep(3, asked()))
    resumed = fresh(1)
    train(tmp_path / "stopped", resumed)
    assert same(whole.state_dict(), resumed.state_dict())
