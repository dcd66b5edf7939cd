"""The teacher's check: what it measures, what it names as the cause of a gap, whom it keeps from teaching."""

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compress import folders
from compress.attacks.pgd import robust_accuracy
from compress.config import ImportConfig, StudentConfig, TeacherConfig, parse
from compress.data.split import Split
from compress.networks.base import Classifier, Features, Normalize
from compress.stages import distill, teacher, teacher_import
from compress.zoo import check
from compress.zoo.catalog import NORMALIZATIONS, CatalogEntry
from compress.zoo.importing import normalization_tensors
from edge.core import artifact
from edge.core.errors import CompressError

MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALIZATIONS["cifar10"])


class Brightest(Classifier):
    """Tells which channel is brightest once the image is normalised; `order` says which logit stands for which."""

    def __init__(self, order: "tuple[int, ...]" = (0, 1, 2)) -> None:
        super().__init__()
        self.preprocess = Normalize(3)
        self.order = list(order)
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward_features(self, x: Tensor) -> Features:
        pooled = self.preprocess(x).mean((2, 3)) * self.gain
        return Features(pooled[:, self.order], pooled, ())


@pytest.fixture(scope="module")
def split() -> Split:
    """Images whose classes show only after CIFAR-10's normalisation: without it red nearly always wins."""
    draw = torch.Generator().manual_seed(0)
    levels = MEAN + STD * (torch.rand(400, 3, 1, 1, generator=draw) - 0.5) * 0.5
    images = (levels.expand(400, 3, 8, 8) * 255).round().to(torch.uint8)
    labels = ((images.float() / 255 - MEAN) / STD).mean((2, 3)).argmax(1)
    return Split(images.contiguous(), labels)


def normalised(model: Brightest, name: str = "cifar10") -> Brightest:
    mean, std = normalization_tensors(name, 3)
    model.preprocess.get_buffer("mean").copy_(mean)
    model.preprocess.get_buffer("std").copy_(std)
    return model.eval()


def cause(model: Classifier, split: Split, published: float = 1.0) -> str:
    from compress.attacks.pgd import accuracy

    return check.explain_gap(model, split, accuracy(model, split, 100), published, 100)


def test_forgotten_normalisation_is_named(split: Split) -> None:
    said = cause(Brightest(), split)
    assert "normalisation cifar10 closes the gap (100.0%); import again with --normalize cifar10" in said


def test_normalisation_too_many_is_named(split: Split) -> None:
    """The labels of raw pixels; the network normalises all the same."""
    levels = split.images.float().mean((2, 3))
    clear = levels.sort(1).values.diff(dim=1)[:, 1] > 0  # no two channels equally bright
    raw = Split(split.images[clear], levels[clear].argmax(1))
    assert "no normalisation closes the gap (100.0%); import again with --normalize none" in cause(
        normalised(Brightest()), raw
    )


def test_swapped_colours_are_named(split: Split) -> None:
    bgr = Split(split.images.flip(1), split.labels)
    assert "channel order BGR closes the gap" in cause(normalised(Brightest()), bgr)


def test_another_class_order_is_named(split: Split) -> None:
    assert "another class order closes the gap (100.0%)" in cause(normalised(Brightest((1, 2, 0))), split)


def test_a_jpeg_copy_is_named() -> None:
    draw = np.random.default_rng(0)
    coded = []
    for _ in range(60):
        buffer = io.BytesIO()
        smooth = np.kron(draw.integers(60, 200, (5, 5, 3)), np.ones((7, 7, 1)))[:32, :32].astype(np.uint8)
        noisy = np.clip(smooth + draw.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(buffer, "JPEG", quality=30)
        coded.append(np.asarray(Image.open(buffer)).transpose(2, 0, 1))
    images = torch.from_numpy(np.stack(coded))
    assert check.jpeg_edges(images) > check.BLOCK_EDGES
    labels = torch.zeros(60, dtype=torch.int64)
    labels[:20] = Brightest()(images[:20].float() / 255).argmax(1)
    labels[20:] = (Brightest()(images[20:].float() / 255).argmax(1) + torch.randint(1, 3, (40,))) % 3
    assert "the images are JPEG-coded" in cause(Brightest(), Split(images, labels), 0.99)


def test_images_without_block_coding_show_no_edges() -> None:
    noise = torch.randint(0, 256, (200, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert abs(check.jpeg_edges(noise) - 1) < 0.02


def test_chance_and_what_nothing_explains_are_said(split: Split) -> None:
    few = Split(split.images[:12], split.labels[:12].clone())
    few.labels[0] = (few.labels[0] + 1) % 3
    assert "within the 95 % interval of 12 images" in cause(normalised(Brightest()), few, 0.75)
    wrong = Split(split.images, torch.randint(0, 3, (400,), generator=torch.Generator().manual_seed(1)))
    assert "none of no normalisation, normalisation cifar10" in cause(normalised(Brightest()), wrong, 1.0)


def entry(clean: float, autoattack: float) -> CatalogEntry:
    return CatalogEntry("cifar10", "Test", "resnet8", "", clean, autoattack, 0, "", ())


def test_figures_that_agree_need_no_explanation_and_a_smaller_radius_is_found(split: Split) -> None:
    model = normalised(Brightest())
    how = check.TeacherCheck("pgd", "8/255", 8 / 255, 5, 100, 200, 0)
    figures = check.measure_teacher(model, split, how, "brightest")
    measured = figures["test"]
    assert measured["n"] == 400 and measured["clean"] == 1.0 and measured["attack"] == "pgd"
    stronger = check.measure_teacher(model, split, dataclasses.replace(how, attack="ensemble"), "brightest")["test"]
    assert stronger["attack"] == "ensemble" and stronger["robust"] <= measured["robust"]
    low, high = measured["interval"]
    assert low < measured["robust"] < high
    agreeing = check.compare_published(model, split, measured, entry(100.0, 100 * measured["robust"]), how)
    assert agreeing["explained"] == ""
    at_half = robust_accuracy(model, split, 200, eps=4 / 255, steps=5, seed=0)
    assert at_half > measured["robust"] + 0.05
    smaller = check.compare_published(model, split, measured, entry(100.0, 100 * at_half), how)
    assert "ε = 4/255 closes the gap" in smaller["explained"]


# ------------------------------------------------------------------------------------------ who may teach


BRIEF: dict[str, Any] = {"data": "digits", "epochs": 1, "attack": {"steps": 1}, "validate_steps": 1, "test_steps": 1}


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A normally trained ResNet-18, as another code base would save it."""
    root = tmp_path_factory.mktemp("normal")
    config = {**BRIEF, "epochs": 2, "batch_size": 32, "model": "resnet18", "method": "normal", "lr": 0.02}
    teacher.run(parse(TeacherConfig, config, "test"), teacher.TeacherInputs(), root / "trained")
    weights = {f"module.{k}": v for k, v in folders.load(root / "trained").state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 2}, root / "resnet18.pth.tar")
    return root / "resnet18.pth.tar"


def bring_in(source: Path, out: Path, **options: Any) -> artifact.Stage:
    return teacher_import.run(
        parse(ImportConfig, {"source": str(source), **options}, "test"), teacher_import.ImportInputs(), out
    )


def test_a_normally_trained_resnet18_is_imported_and_refused_as_a_teacher(normal: Path, tmp_path: Path) -> None:
    stage = bring_in(normal, tmp_path / "t", data="digits", threat={"eps": "60/255"}, images=50, steps=10)
    test = stage.metrics["test"]
    assert test["n"] == 50 and test["clean"] > 0.7 and test["robust"] < 0.2
    assert stage.metrics["model"] == "resnet18" and stage.metrics["parameters"] == 11_172_810
    student = {**BRIEF, "model": "resnet8", "method": "rslad"}
    with pytest.raises(CompressError, match=r"robust accuracy under PGD at .*a teacher needs 20%.*--allow-non-robust"):
        distill.run(
            parse(StudentConfig, student, "test"), distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / "s"
        )
    assert not (tmp_path / "s.partial").exists()
    student["teacher_floor"] = 0
    made = distill.run(
        parse(StudentConfig, student, "test"), distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / "s"
    )
    assert made.manifest["plan"]["inputs"] == {"teacher": stage.identity}


def test_an_unmeasured_teacher_is_refused(normal: Path, tmp_path: Path) -> None:
    stage = bring_in(normal, tmp_path / "t", image_size=8)
    assert "test" not in stage.metrics
    config = parse(StudentConfig, {**BRIEF, "model": "resnet8", "method": "rslad"}, "test")
    with pytest.raises(CompressError, match="its robustness was never measured"):
        distill.run(config, distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / "s")


def test_a_head_or_input_of_other_data_is_refused(chain: SimpleNamespace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    from compress import networks

    for name, channels, classes, said in (
        ("classes", 1, 100, "its head gives 100 classes, digits has 10"),
        ("colour", 3, 10, "takes images of 3 channels, digits has 1"),
    ):
        net = networks.build_network("resnet8", channels=channels, classes=classes)
        torch.save(net.state_dict(), tmp_path / f"{name}.pt")
        with pytest.raises(CompressError, match=said):
            bring_in(tmp_path / f"{name}.pt", tmp_path / name, data="digits")
        assert not (tmp_path / f"{name}.partial").exists() and not (tmp_path / name).exists()


def test_an_imported_teacher_of_other_classes_cannot_teach(tmp_path: Path) -> None:
    from compress import networks

    net = networks.build_network("resnet8", channels=1, classes=7)
    torch.save(net.state_dict(), tmp_path / "seven.pt")
    bring_in(tmp_path / "seven.pt", tmp_path / "t", image_size=8)
    config = {**BRIEF, "model": "resnet8", "method": "rslad", "teacher_floor": 0}
    with pytest.raises(CompressError, match="tells 7 classes apart, digits has 10"):
        distill.run(parse(StudentConfig, config, "test"), distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / "s")


def test_an_onnx_file_teaches_by_its_logits(chain: SimpleNamespace, tmp_path: Path) -> None:
    file = chain.ef / "model.onnx"
    stage = bring_in(file, tmp_path / "t", data="digits", threat={"eps": "40/255"}, images=50, queries=30)
    test = stage.metrics["test"]
    assert (test["attack"], test["steps"]) == ("square", 30) and stage.metrics["model"] == "onnx"
    assert stage.metrics["parameters"] > 1000
    x = torch.rand(5, 1, 8, 8)
    float_student = folders.load(chain.student)
    torch.testing.assert_close(folders.load(tmp_path / "t")(x), float_student(x), atol=1e-4, rtol=1e-4)
    config = {**BRIEF, "model": "resnet8", "teacher_floor": 0}
    for method, refused in (("vgap", True), ("rslad", False)):
        parsed = parse(StudentConfig, {**config, "method": method}, "test")
        if refused:
            with pytest.raises(CompressError, match="gives nothing but logits, method vgap compares features"):
                distill.run(parsed, distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / method)
        else:
            assert (
                distill.run(parsed, distill.StudentInputs(teacher=tmp_path / "t"), tmp_path / method).metrics["test"][
                    "n"
                ]
                == 359
            )


def test_the_same_import_is_found_complete_and_another_file_is_not(normal: Path, tmp_path: Path) -> None:
    first = bring_in(normal, tmp_path / "t", image_size=8)
    copy = tmp_path / "elsewhere" / normal.name
    copy.parent.mkdir()
    copy.write_bytes(normal.read_bytes())
    assert bring_in(copy, tmp_path / "t", image_size=8).identity == first.identity
    changed = torch.load(copy, weights_only=True)
    changed["state_dict"]["module.linear.bias"] += 1
    torch.save(changed, copy)
    with pytest.raises(CompressError, match="holds a stage made otherwise"):
        bring_in(copy, tmp_path / "t", image_size=8)
