"""The sections of what ships and of what is measured: exported file, attack set, verification, evaluation, analysis."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compress.config.values import (
    Count,
    FromZero,
    Positive,
    Radius,
    Strict,
    Time,
    checked_by,
    enumerated,
    one_of,
    seconds,
)
from compress.zoo.catalog import NORMALIZATIONS, normalization_constants
from edge.core import targets


def _normalization(name: str) -> None:
    """CompressError of a name or M/S that is none."""
    if name not in ("none", "auto"):
        known = NORMALIZATIONS.get(name, ((0.0,) * (name.partition("/")[0].count(",") + 1),))
        normalization_constants(name, len(known[0]))


class Batch(Strict):
    """How many images one call of an engine takes; ONNX files take any number."""

    min: Count = Field(1, description="fewest images of one call")
    opt: Count = Field(1, description="the number that kernels are chosen for")
    max: Count = Field(64, description="most images of one call")

    @model_validator(mode="after")
    def _ordered(self) -> "Batch":
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max}; min ≤ opt ≤ max is needed")
        return self


class Engine(Strict):
    """How a TensorRT engine is built."""

    workspace_mib: "Count | None" = Field(None, description="most scratch memory of a layer; default half of the free")
    optimization_level: int = Field(3, ge=0, le=5, description="how long the builder searches")
    hardware_compatibility: Literal["none", "ampere+", "same-compute-capability"] = Field(
        "none", description="which other GPUs the engine may run on; wider is slower"
    )
    version_compatible: bool = Field(False, description="runs on later TensorRT versions too; may be slower")
    dla: "int | None" = Field(None, ge=0, description="DLA core of a Jetson that has one; FP16 only")
    compute_capabilities: list[Annotated[str, Field(pattern=r"^\d+\.\d$")]] = Field(
        [], description="GPUs that tensorrt-rtx builds for, e.g. 8.6; default all from 8.0 on"
    )
    rebuilds: Count = Field(1, description="builds of which the spread of logits is measured and the first is kept")
    timing_cache: "str | None" = Field(None, description="file of kernel timings, read and extended; of one GPU")
    deferred: bool = Field(False, description="build no engine here, even where one could be")
    program: Literal["ep", "aoti"] = Field(
        "ep", description="how a torch-tensorrt program is stored: torch.export's archive, or AOTInductor's package"
    )


class Adopt(Strict):
    """What an ONNX file of another tool takes and gives; it becomes part of the adopted graph."""

    normalize: Annotated[str, checked_by(_normalization)] = Field(
        "none",
        description="input normalisation put in front: none, cifar10, cifar100, imagenet, half or m,m,m/s,s,s, of "
        "red, green, blue in [0, 1]; auto: what is best on validation images by more than chance, range and orders too",
    )
    layout: Literal["auto", "nchw", "nhwc"] = Field("auto", description="order of its image's axes; auto: by its sizes")
    range: Literal["auto", "1", "255"] = Field(
        "auto", description="its pixels lie in [0, 1] or [0, 255]; auto: 255 where it takes uint8"
    )
    channels: Literal["rgb", "bgr"] = Field("rgb", description="order of its image's channels")
    output: "str | None" = Field(None, description="which of several outputs are the logits")
    labels: "str | None" = Field(
        None, description="file of its class names in its order: a name a line, or JSON; default its metadata"
    )


class Export(Strict):
    """The file that is shipped."""

    opset: int = Field(20, ge=19, le=23, description="ONNX opset; TensorRT 10.0 to 10.8 stops at 20")
    precision: Annotated[str, one_of("precision", targets.PRECISIONS), enumerated(targets.PRECISIONS)] = Field(
        "auto", description="arithmetic of the file"
    )
    batch: Batch = Field(Batch(), description="images of one call; of engines, not of ONNX")
    engine: Engine = Field(Engine(), description="how a TensorRT engine is built; not of ONNX")
    parity_images: Count = Field(256, description="real images that artifact and torch model are compared on")
    min_agreement: float = Field(
        0.99, ge=0, le=1, description="least share of equal predictions; fails where its 95 % interval lies below"
    )


class Attack(Strict):
    """The attack set: adversarial images made with gradients, replayed on the artifact."""

    images: "Count | None" = Field(None, description="test images attacked, class-balanced; all of them by default")
    ensemble: Literal["standard", "quick", "none"] = Field(
        "standard",
        description="white box on student and twin: standard (APGD-CE, APGD-T, FAB-T of 100 steps), "
        "quick (APGD-CE and APGD-T of 20), or none: PGD alone",
    )
    steps: Count = Field(20, description="PGD steps of each attack beside the ensemble")
    step_size: "Radius | None" = Field(None, description="default: 2.5 · eps / steps")
    restarts: Count = Field(2, description="random starts of each attack; the worst counts")
    temperature: Positive = Field(10.0, description="logits are divided by it in the temperature-scaled attack")
    batch_size: Count = Field(128, description="images attacked at once")


class Latency(Strict):
    """How latency is measured: scenarios in the manner of MLPerf, unofficially; copies included."""

    scenarios: list[Literal["single-stream", "offline", "camera"]] = Field(
        ["single-stream"],
        min_length=1,
        description="one query after another, throughput in the largest batches, frames at a fixed rate; "
        "verify always measures the first",
    )
    batch_size: Count = Field(1, description="images of one query of single-stream and camera")
    warmup: int = Field(50, ge=0, description="untimed queries first")
    samples: Count = Field(1000, description="timed queries of single-stream")
    min_seconds: float = Field(0.0, ge=0, allow_inf_nan=False, description="time that single-stream lasts at least")
    seconds: Positive = Field(5.0, description="time of offline, of each rate of camera, of each size of the sweep")
    fps: list[Positive] = Field([30.0], min_length=1, description="frames a second of camera, each rate on its own")
    sweep: list[Count] = Field([], description="batch sizes of which latency and throughput are measured as well")
    load: "str | None" = Field(None, description="what runs beside it: a number of busy processes, or a command")


class Verify(Strict):
    """The artifact itself, executed on the device: replay, attacks without gradients, latency."""

    batch_size: Count = Field(64, description="images in each call of the runtime when verdicts are made")
    threads: int = Field(0, ge=0, description="threads of the runtime; 0: all cores")
    square_queries: int = Field(1000, ge=0, description="queries an image of the Square attack")
    decision_queries: int = Field(500, ge=0, description="queries an image of the decision-based attack")
    budget: "Time | None" = Field(
        None, description="time for the attacks without gradients: 60s, 20m, 2h; undecided images are inconclusive"
    )
    latency: Latency = Field(Latency(), description="how latency is measured")
    preprocess: "str | None" = Field(
        None, description="your pipeline between camera and model, module:function; timed, and checked on clean images"
    )
    frames: "str | None" = Field(
        None, description="npy file of its frames for the clean images, uint8 (N, …); default: its module's frames()"
    )


class Evaluate(Strict):
    """A torch model under an ensemble of attacks."""

    attack: list[str] = Field(["standard"], min_length=1, description="preset, attacks by name, or module:function")
    norm: Literal["linf", "l2"] = Field("linf", description="the norm that bounds the perturbation")
    images: "Count | None" = Field(None, description="test images, class-balanced; all of them by default")
    batch_size: Count = Field(128, description="images attacked at once")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the attacks' search, never of verdicts; auto: bfloat16 where the hardware multiplies it"
    )
    budget: "Time | None" = Field(None, description="time after which undecided images are inconclusive: 90s, 20m, 2h")
    curve: list[Radius] = Field([], description="further radii, by the quick ensemble")
    unseen: "Radius | None" = Field(None, description="radius in the other norm, by the quick ensemble")
    corruptions: bool = Field(False, description="accuracy under common corruptions as well")
    allow_invalid: bool = Field(False, description="do not fail when a validity check fires")

    @property
    def budget_s(self) -> "float | None":
        return seconds(self.budget)


class Analyze(Strict):
    """Robust accuracy against the gap between feature statistics on adversarial and on clean images."""

    radii: list[FromZero] = Field([], description="radii, eps among them; default 0 and 8 more up to twice eps")
    images: "Count | None" = Field(None, description="test images, class-balanced; default 1,000, or all if fewer")
    steps: Count = Field(20, description="PGD steps at each radius")
    every_epoch: bool = Field(False, description="also every checkpoint that a stage has kept")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each interval")
    batch_size: Count = Field(128, description="images attacked at once")
