"""The sections of the networks: teachers, student, quantized student."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compress import names
from compress.config.training import ARCHITECTURES, FeatureModules, Training, WithMethod, in_full
from compress.config.values import (
    Count,
    Dialect,
    ImageSize,
    Method,
    Model,
    Positive,
    Strict,
    TeacherMethod,
    enumerated,
    one_of,
)


class Teacher(WithMethod):
    """The robust teacher, trained from scratch."""

    model: Model = Field("wrn-10-4", description=ARCHITECTURES)
    method: TeacherMethod = Field("pgd-at", description="objective it is trained with")


class CleanTeacher(Teacher):
    """The second teacher of methods that have one: accurate, not robust."""

    method: TeacherMethod = Field("normal", description="objective it is trained with")


class Imported(Strict):
    """A teacher that others trained, brought in with its weights."""

    source: str = Field(
        min_length=1,
        description="robustbench:NAME, a checkpoint or .onnx file, hf:OWNER/REPO/FILE, timm:NAME, torchvision:NAME or "
        "module:function",
    )
    weights: "str | None" = Field(None, description="checkpoint to take for a source that is a name or a factory")
    models: "str | None" = Field(
        None, description="folder of RobustBench's layout DATASET/Linf/NAME.pt; default models"
    )
    arch: "str | None" = Field(None, description="architecture, where the weights fit several: NAME+FLAG+FLAG")
    normalize: "str | None" = Field(
        None,
        description="input normalisation put into the network: none, cifar10, cifar100, imagenet, half or m,m,m/s,s,s",
    )
    key: "str | None" = Field(None, description="which weights, of a file that holds several sets")
    features: "FeatureModules | None" = Field(
        None, description="modules that give its features, where others than those found are meant"
    )
    image_size: ImageSize = Field(32, description="height and width of its images, where no data says so: 32, or 48x64")
    check: bool = Field(True, description="measure clean and robust accuracy on held-out images")
    images: Count = Field(256, description="test images of the check, class-balanced")
    attack: Literal["pgd", "ensemble"] = Field(
        "pgd", description="attack of the check: PGD, or the standard ensemble (much slower)"
    )
    steps: Count = Field(20, description="PGD steps of the check")
    queries: Count = Field(1000, description="Square queries of the check of a network without gradients")
    batch_size: Count = Field(64, description="images checked at once")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        height, _, width = str(self.image_size).partition("x")
        return int(height), int(width or height)


class Student(WithMethod):
    """The lightweight network that goes to the device."""

    model: Model = Field("resnet8", description=ARCHITECTURES)
    method: Method = Field("vgap", description="objective it is trained with")
    teacher_floor: float = Field(
        0.2, ge=0, le=1, description="robust accuracy that the teacher must have been measured at; 0: any teacher"
    )


class Quantize(Training):
    """INT8 of weights and activations, by calibration alone or fine-tuned through the quantizers."""

    ADAMW: ClassVar[Mapping[str, float]] = MappingProxyType({**Training.ADAMW, "lr": 0.00005})

    mode: Literal["qat", "ptq"] = Field("qat", description="fine-tune through the quantizers, or only calibrate")
    method: "Method | None" = Field(None, description="objective of the fine-tuning; default: the student's own")
    options: dict[str, Any] = Field({}, description="options of that method", validate_default=True)
    epochs: Count = Field(3, description="passes over the training split; not used by ptq")
    lr: Positive = Field(0.005, description="peak learning rate; of adamw 0.00005 where none is given")
    calibration_images: Count = Field(512, description="training images, clean and adversarial, that set the ranges")
    ranges: Annotated[str, one_of("ranges", names.RANGES), enumerated(names.RANGES)] = Field(
        "max", description="how the activations' ranges are found"
    )
    percentile: float = Field(99.99, gt=0, le=100, description="share of values inside the range, of ranges percentile")
    weight_ranges: Literal["max", "mse"] = Field(
        "max", description="how each output channel's range of weights is found"
    )
    runtime: Dialect = Field(
        "onnx", description="runtime whose grid the fine-tuning passes; any other can be exported for as well"
    )
    float_layers: list[str] = Field([], description="convolutions and linear layers that stay in floating point")
    sensitivity: bool = Field(False, description="measure what each layer in INT8 costs in robust accuracy")
    sensitivity_images: Count = Field(
        512, description="validation images, class-balanced, of sensitivity and max_robust_drop"
    )
    max_robust_drop: "float | None" = Field(
        None,
        ge=0,
        le=100,
        description="ptq: percentage points of robust validation accuracy that INT8 may cost; layers go back to "
        "floating point until it costs no more",
    )

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any], info: Any) -> dict[str, Any]:
        """The options in full; none where the student's method has its own."""
        method = info.data.get("method", "")
        if method is None and options:
            raise ValueError(f"{', '.join(options)}: options of no method; name the method too")
        return in_full(method, options) if method else options

    @model_validator(mode="after")
    def _mode_fits(self) -> "Quantize":
        if self.max_robust_drop is not None and self.mode != "ptq":
            raise ValueError("max_robust_drop is for mode ptq; fine-tuning recovers what is lost; add --mode ptq")
        if self.mode == "ptq" and self.ranges == "learned":
            raise ValueError("ranges: learned is for mode qat, which trains; leave --mode ptq out")
        if self.mode == "ptq" and self.method is not None:
            raise ValueError(
                f"method: {names.written(self.method)} is for mode qat, which trains; leave --mode ptq out"
            )
        return self
