"""The configuration: what can be set, its defaults, and every fault of a file reported at once.

One YAML file describes a whole run. Its sections are the stages; `data`, `threat` and `seed` are shared. A stage on
its own is configured by `TeacherConfig`, `StudentConfig`, …: the shared part and its section in one model, which is
also what its manifest records.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from compress import names
from compress.errors import CompressError
from compress.options import METHOD_OPTIONS, filled

BUILT_IN = [Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs"]


# ---------------------------------------------------------------------------------------------- values


def _fraction(value: Any) -> str:
    """A number as people write it, kept as written: `8/255`, `0.03`."""
    text = re.sub(r"\s", "", str(value))
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a number; write it like 8/255 or 0.03") from None
    if not 0 < number < 1:
        raise ValueError(f"{text} is outside (0, 1); pixels are in [0, 1], so write 8/255, not 8")
    return text


def _from_zero(value: Any) -> str:
    """As `_fraction`, or 0: no perturbation."""
    text = re.sub(r"\s", "", str(value))
    return "0" if re.fullmatch(r"0(\.0*)?", text) else _fraction(text)


def _known(kind: str, known: "dict[str, str] | tuple[str, ...]") -> AfterValidator:
    def check(name: str) -> str:
        try:
            return names.check(kind, name, known)
        except CompressError as fault:
            raise ValueError(str(fault)) from None

    return AfterValidator(check)


def _written(check: Callable[[str], object]) -> Callable[[str], str]:
    """A validator of text whose form `check` knows."""

    def validate(text: str) -> str:
        try:
            check(text)
        except CompressError as fault:
            raise ValueError(str(fault)) from None
        return text

    return validate


def _seconds(value: "str | None") -> "float | None":
    """A span as people write it: 90s, 20m, 2h, or a number of seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{value!r} is no time; write it like 90s, 20m or 2h")
    return float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]]


def _time(value: str) -> str:
    _seconds(value)
    return value


def _method(given: Any) -> "str | list[str]":
    try:
        return names.method(given)
    except CompressError as fault:
        raise ValueError(str(fault)) from None


def _enum(known: "dict[str, str] | tuple[str, ...]") -> WithJsonSchema:
    """What an editor offers for a name."""
    return WithJsonSchema({"type": "string", "enum": list(known)})


Radius = Annotated[str, BeforeValidator(_fraction), WithJsonSchema({"type": ["string", "number"]})]
FromZero = Annotated[str, BeforeValidator(_from_zero), WithJsonSchema({"type": ["string", "number"]})]
Data = Annotated[
    str,
    AfterValidator(_written(names.dataset)),
    WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(names.DATASETS)})(:.+)?$"}),
]
Model = Annotated[
    str,
    AfterValidator(_written(names.model)),
    WithJsonSchema({"anyOf": [{"enum": list(names.MODELS)}, {"type": "string", "pattern": names.model_pattern()}]}),
]
Method = Annotated[
    str | list[str],
    BeforeValidator(_method),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(names.METHODS)},
                {"type": "array", "items": {"type": "string", "enum": list(names.METHODS)}, "minItems": 1},
            ]
        }
    ),
]
TeacherMethod = Annotated[str, _known("method", names.TEACHER_METHODS), _enum(names.TEACHER_METHODS)]
Target = Annotated[str, _known("target", names.TARGETS), _enum(names.TARGETS)]
Device = Annotated[str, _known("device", names.DEVICES), _enum(names.DEVICES)]
Count = Annotated[int, Field(ge=1)]
Time = Annotated[str, AfterValidator(_time)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threat(Strict):
    """What the attacker may do to an image in [0, 1]."""

    norm: Literal["linf"] = Field("linf", description="the norm that bounds the perturbation: its largest pixel change")
    eps: Radius = Field(description="radius of the perturbation, on pixels in [0, 1], e.g. 8/255")

    @property
    def radius(self) -> float:
        return float(Fraction(self.eps))


#: Keys of any section that change no result.
WITHOUT_EFFECT = {"checkpoint_minutes", "tensorboard", "keep_epochs", "diagnose"}


class Common(Strict):
    """What every stage shares."""

    data: Data = Field(description=f"the dataset, KIND or KIND:PATH ({', '.join(names.DATASETS)})")
    threat: Threat = Field(description="what the attacker may do; the radius follows from the dataset if not given")
    seed: int = Field(0, ge=0, description="seeds initial weights, batch order and attack starts, never the split")

    def semantic(self) -> dict[str, Any]:
        """What decides the result, as a manifest records it: of the dataset its kind, not where it lies here."""
        found = {**self.model_dump(mode="json", exclude=WITHOUT_EFFECT), "data": names.dataset(self.data)[0]}
        if found.get("extra"):
            found["extra"]["path"] = names.dataset(found["extra"]["path"])[0]
        return found


class TrainAttack(Strict):
    """The inner maximisation of training: projected gradient ascent from a random start."""

    steps: Count = Field(10, description="gradient steps of each training batch")
    step_size: "Radius | None" = Field(None, description="default: 2.5 · eps / steps")
    eps_warmup: float = Field(0.0, ge=0, le=1, description="share of the run over which the radius grows from 0 to eps")


class Extra(Strict):
    """Further training images, of which every batch has a fixed share; never validated or tested on."""

    path: Data = Field(description="where they come from, KIND:PATH; an npz may hold images without labels")
    fraction: float = Field(0.7, gt=0, lt=1, description="share of every batch; the rest is of the training split")


class Awp(Strict):
    """Adversarial weight perturbation (Wu et al. 2020): the update's gradient is taken where the weights are worse."""

    gamma: Positive = Field(0.005, description="length of the perturbation, in norms of each layer's weights")
    warmup: int = Field(0, ge=0, description="epochs without it first")


class Training(Strict):
    """How a network is trained; shared by the sections that train."""

    epochs: Count = Field(30, description="passes over the training split")
    batch_size: int = Field(128, ge=2, description="images of one step of the optimiser")
    lr: Positive = Field(0.1, description="peak learning rate of SGD with Nesterov momentum")
    schedule: Literal["cosine", "step", "one-cycle", "linear"] = Field(
        "cosine", description="how the rate falls after the warm-up"
    )
    milestones: list[Positive] = Field(
        [0.5, 0.75], description="where schedule step lowers the rate: shares of the run below 1, else epochs"
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="what schedule step multiplies the rate by at a milestone")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps over which the rate rises linearly")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty on the weights")
    augment: Annotated[str, _known("augmentation", names.AUGMENTATIONS), _enum(names.AUGMENTATIONS)] = Field(
        "auto", description="how training images are varied; auto: crop-flip, but none for digits, idx and npz"
    )
    attack: TrainAttack = Field(TrainAttack(), description="the attack that training images are changed by")
    clip: "Positive | None" = Field(None, description="largest norm of the gradient of all weights")
    average: Literal["none", "ema", "swa"] = Field(
        "none", description="which weights are validated and shipped: the last ones, or an average over steps or epochs"
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="weight of the past in average ema, after its warm-up")
    swa_start: float = Field(0.75, ge=0, lt=1, description="share of the run after which average swa begins")
    awp: "Awp | None" = Field(None, description="adversarial weight perturbation, off by default; {} for its defaults")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of attack, teacher and update passes; auto: what is measured to be faster here"
    )
    compile: bool = Field(False, description="compile teacher and student with torch.compile")
    budget: "Time | None" = Field(
        None, description="time by which training ends with its schedule complete: 90s, 20m, 2h"
    )
    validate_steps: Count = Field(10, description="PGD steps by which the validation split selects the epoch")
    test_steps: Count = Field(20, description="PGD steps of the test accuracy kept in the manifest")
    checkpoint_minutes: Positive = Field(5.0, description="minutes between checkpoints within an epoch")
    tensorboard: bool = Field(False, description="also write the metrics as TensorBoard event files")
    keep_epochs: bool = Field(False, description="also keep the weights of every epoch, as epoch-0001.safetensors, …")
    diagnose: int = Field(
        0, ge=0, description="steps between two measurements of gradient shares and feature covariance; 0: none"
    )

    @property
    def budget_s(self) -> "float | None":
        return _seconds(self.budget)


class WithMethod(Training):
    """A network trained by a method with options."""

    model: Model = Field(description="architecture")
    method: Method = Field(description="objective it is trained with")
    options: dict[str, Any] = Field({}, description="options of the method", validate_default=True)
    extra: "Extra | None" = Field(
        None, description="further images mixed into every batch, e.g. {path: npz:generated.npz, fraction: 0.7}"
    )

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any], info: Any) -> dict[str, Any]:
        """The options in full, defaults filled in, so that a manifest records what was used."""
        method = info.data.get("method")
        return options if method is None else _in_full(method, options)  # None: it is at fault itself and is reported


def _in_full(method: "str | list[str]", options: dict[str, Any]) -> dict[str, Any]:
    """A method's options with defaults filled in; every fault of theirs in one ValueError."""
    try:
        return filled(method, options)
    except ValidationError as fault:
        kind = next(kind for kind in METHOD_OPTIONS.values() if kind.__name__ == fault.title)
        raise ValueError("\n".join(_faults(fault, kind))) from None
    except CompressError as fault:
        raise ValueError(str(fault)) from None


# ---------------------------------------------------------------------------------------------- sections


class Teacher(WithMethod):
    """The robust teacher, trained from scratch."""

    model: Model = Field("wrn-10-4", description="architecture")
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
    image_size: Count = Field(32, description="height and width of its images, where no data says so")
    check: bool = Field(True, description="measure clean and robust accuracy on held-out images")
    images: Count = Field(256, description="test images of the check, class-balanced")
    attack: Literal["pgd", "ensemble"] = Field(
        "pgd", description="attack of the check: PGD, or the standard ensemble (much slower)"
    )
    steps: Count = Field(20, description="PGD steps of the check")
    queries: Count = Field(1000, description="Square queries of the check of a network without gradients")
    batch_size: Count = Field(64, description="images checked at once")


class Student(WithMethod):
    """The lightweight network that goes to the device."""

    model: Model = Field("resnet8", description="architecture")
    method: Method = Field("vgap", description="objective it is trained with")
    teacher_floor: float = Field(
        0.2, ge=0, le=1, description="robust accuracy that the teacher must have been measured at; 0: any teacher"
    )


class Quantize(Training):
    """INT8 of weights and activations, by calibration alone or fine-tuned through the quantizers."""

    mode: Literal["qat", "ptq"] = Field("qat", description="fine-tune through the quantizers, or only calibrate")
    method: "Method | None" = Field(None, description="objective of the fine-tuning; default: the student's own")
    options: dict[str, Any] = Field({}, description="options of that method", validate_default=True)
    epochs: Count = Field(3, description="passes over the training split; not used by ptq")
    lr: Positive = Field(0.005, description="peak learning rate of SGD with Nesterov momentum")
    calibration_images: Count = Field(512, description="training images, clean and adversarial, that set the ranges")
    ranges: Annotated[str, _known("ranges", names.RANGES), _enum(names.RANGES)] = Field(
        "max", description="how the activations' ranges are found"
    )
    percentile: float = Field(99.99, gt=0, le=100, description="share of values inside the range, of ranges percentile")
    weight_ranges: Literal["max", "mse"] = Field(
        "max", description="how each output channel's range of weights is found"
    )
    runtime: Annotated[str, _known("runtime", names.RUNTIMES), _enum(tuple(names.RUNTIMES))] = Field(
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
        return _in_full(method, options) if method else options

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


class Export(Strict):
    """The file that is shipped."""

    opset: int = Field(20, ge=19, le=23, description="ONNX opset; TensorRT 10.0 to 10.8 stops at 20")
    precision: Annotated[str, _known("precision", names.PRECISIONS), _enum(names.PRECISIONS)] = Field(
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
        return _seconds(self.budget)


class Analyze(Strict):
    """Robust accuracy against the gap between feature statistics on adversarial and on clean images."""

    radii: list[FromZero] = Field([], description="radii, eps among them; default 0 and 8 more up to twice eps")
    images: "Count | None" = Field(None, description="test images, class-balanced; default 1,000, or all if fewer")
    steps: Count = Field(20, description="PGD steps at each radius")
    every_epoch: bool = Field(False, description="also every checkpoint that a stage has kept")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each interval")
    batch_size: Count = Field(128, description="images attacked at once")


class TeacherConfig(Common, Teacher):
    """A teacher stage on its own."""


class ImportConfig(Imported):
    """An imported teacher on its own. Without data nothing is checked."""

    data: "Data | None" = Field(None, description="the dataset that it is checked on, KIND or KIND:PATH")
    threat: Threat = Field(Threat(eps="8/255"), description="what the attacker may do; eps 8/255 if not given")
    seed: int = Field(0, ge=0, description="seeds the starts of the check's attack")

    def semantic(self) -> dict[str, Any]:
        """What decides the result; where files lie on this machine does not, their content does."""
        kind = names.dataset(self.data)[0] if self.data else None
        described = {**self.model_dump(mode="json", exclude={"weights", "models"}), "data": kind}
        scheme = self.source.partition(":")[0]
        is_path = ":" not in self.source or not re.fullmatch(r"[A-Za-z_][\w.]*", scheme)
        return {**described, "source": Path(self.source).name if is_path else self.source}


class StudentConfig(Common, Student):
    """A student stage on its own."""


class QuantizeConfig(Common, Quantize):
    """A quantized stage on its own."""


class ExportConfig(Common, Export):
    """An exported stage on its own."""

    target: Target = Field("onnx", description="runtime to export for")

    def semantic(self) -> dict[str, Any]:
        """As of every stage; what is said of engines decides nothing about an ONNX file."""
        found = super().semantic()
        if self.target == "onnx":
            del found["batch"], found["engine"]
        else:
            del found["engine"]["timing_cache"]
            if not self.target.startswith("torch-"):
                del found["engine"]["program"]
        return found


class AttackConfig(Common, Attack):
    """An attack-set stage on its own."""


class EvaluateConfig(Common, Evaluate):
    """An evaluated stage on its own."""

    def semantic(self) -> dict[str, Any]:
        """As of every stage; what is done about an alarm changes no verdict."""
        return {key: value for key, value in super().semantic().items() if key != "allow_invalid"}


class AnalyzeConfig(Common, Analyze):
    """An analyzed stage on its own."""


class VerifyConfig(Common, Verify):
    """A verified stage on its own."""

    device: Device = Field("cpu", description="where the artifact is executed")

    def semantic(self) -> dict[str, Any]:
        """As of every stage, the budget in seconds: 1m and 60s are one."""
        return {**super().semantic(), "budget": _seconds(self.budget)}


class BenchConfig(Latency):
    """Latency alone, of exported artifacts."""

    seed: int = Field(0, ge=0, description="seeds noise, which answers are asked again, and resampling")
    device: Device = Field("cpu", description="where the artifacts are executed")
    threads: int = Field(0, ge=0, description="threads of the runtime; 0: all cores")
    preprocess: "str | None" = Field(None, description="your pipeline between camera and model, module:function; timed")
    frames: "str | None" = Field(None, description="npy file of frames for it, uint8 (N, …)")


#: The two kinds of a teacher's section, by the tag that pydantic puts into the place of a fault.
OBTAINED: dict[str, type[BaseModel]] = {"train": Teacher, "import": Imported}


def _obtained(section: Any) -> str:
    """Which of the two sections a teacher's is: the imported one has a source."""
    imported = "source" in section if isinstance(section, Mapping) else isinstance(section, Imported)
    return "import" if imported else "train"


class Run(Common):
    """The whole chain."""

    out: "str | None" = Field(None, description="folder of the run; default runs/<name of the config>")
    teacher: Annotated[
        Annotated[Teacher, Tag("train")] | Annotated[Imported, Tag("import")], Discriminator(_obtained)
    ] = Field(Teacher(), description="the robust teacher: trained from scratch, or imported when `source` is given")
    clean_teacher: Annotated[
        Annotated[CleanTeacher, Tag("train")] | Annotated[Imported, Tag("import")], Discriminator(_obtained)
    ] = Field(
        CleanTeacher(),
        description=f"a second teacher, trained on clean images or imported; made when a method has one "
        f"({', '.join(names.CLEAN_TEACHER_METHODS)})",
    )
    student: Student = Field(Student(), description="the lightweight network that goes to the device")
    baselines: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], Student] = Field(
        {}, description="further students by name, trained to be compared with; never shipped"
    )
    quantize: "Quantize | None" = Field(Quantize(), description="INT8 fine-tuning; null: ship the float student")
    export: Export = Field(Export(), description="the file that is shipped")
    attack: Attack = Field(Attack(), description="the attack set: images made with gradients, replayed on the artifact")
    verify: Verify = Field(
        Verify(), description="the artifact itself, executed: replay, gradient-free attacks, latency"
    )
    targets: list[Target] = Field(["onnx"], min_length=1, description="runtimes to export for")
    devices: list[Device] = Field(["cpu"], min_length=1, description="where each exported target is verified")
    compare_float: bool = Field(True, description="also export and verify the student before quantization")
    require: list[str] = Field([], description='gates on the statement, e.g. "robust>=0.3"')

    def stage(self, kind: "type[Stage_]", section: Strict, **more: Any) -> "Stage_":
        """The stage config of `kind` from one of this run's sections and the shared part."""
        shared = {name: getattr(self, name) for name in Common.model_fields}
        return kind(**shared, **{name: getattr(section, name) for name in type(section).model_fields}, **more)


Stage_ = TypeVar("Stage_", bound=Strict)
Model_ = TypeVar("Model_", bound=BaseModel)


# ---------------------------------------------------------------------------------------------- reading


def load(path: "Path | str", overrides: "Mapping[str, Any] | None" = None) -> Run:
    """The run that a YAML file describes, with dotted `overrides` (`teacher.epochs`) on top of it."""
    return parse(Run, merged(read_yaml(path), overrides or {}), str(path))


def read_yaml(path: "Path | str") -> dict[str, Any]:
    """The mapping in a YAML file; a built-in config may be named without its folder: `quickstart`."""
    found = _find(Path(path))
    try:
        content = yaml.load(found.read_text(), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as fault:
        raise CompressError(f"{path}: cannot be read ({fault})") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise CompressError(f"{path}:{where} is not YAML ({getattr(fault, 'problem', fault)})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise CompressError(f"{path}: holds a {type(content).__name__}; a mapping of sections is needed")
    return content


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a repeated key is a fault, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in BUILT_IN:
        for candidate in (folder / path.name, folder / f"{path.name}.yaml"):
            if str(path.parent) in (".", "configs") and candidate.is_file():
                return candidate
    known = sorted({file.stem for folder in BUILT_IN for file in folder.glob("*.yaml")})
    raise CompressError(f"{path}: no such config; `compress init` writes one, built in are: {', '.join(known)}")


def merged(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the dotted keys of `overrides` set, sections made where they are missing."""
    result = _copy(content)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        at = result
        for parent in parents:
            if not isinstance(at.get(parent), dict):
                at[parent] = {}
            at = at[parent]
        at[last] = value
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def parse(kind: type[Model_], content: Mapping[str, Any], where: str) -> Model_:
    """`content` as a model; every fault in it in one error, a line each."""
    content = _with_default_eps(content)
    try:
        return kind(**content)
    except ValidationError as fault:
        faults = _faults(fault, kind)
        head = f"{where}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise CompressError("\n  ".join([head, *faults]) if len(faults) > 1 else f"{where}: {faults[0]}") from None


def _with_default_eps(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A dataset brings the radius that the field uses with it, unless the config names one."""
    default = names.DEFAULT_EPS.get(str(content.get("data")).partition(":")[0])
    threat = content.get("threat") or {}
    if default is None or not isinstance(threat, Mapping) or "eps" in threat:
        return content
    return {**content, "threat": {**threat, "eps": default}}


def _faults(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    """One line a fault: where, what, got, and the nearest known key."""
    details = error.errors()
    if any(detail["loc"] == ("data",) for detail in details):  # the radius would have come with the dataset
        details = [detail for detail in details if detail["type"] != "missing" or detail["loc"][0] != "threat"]
    return [line for detail in details for line in _lines(detail, kind)]


def _lines(detail: ErrorDetails, kind: type[BaseModel]) -> Iterator[str]:
    where = ".".join(str(part) for part in detail["loc"] if part not in ("[key]", *OBTAINED))
    if detail["type"] == "extra_forbidden":
        known = _keys(kind, detail["loc"][:-1])
        yield f"{where}: unknown key{names.nearest(str(detail['loc'][-1]), known)} (known: {', '.join(known)})"
    elif detail["type"] == "missing":
        yield f"{where}: missing; it has no default"
    elif detail["type"] == "value_error":
        for line in str(detail["ctx"]["error"]).splitlines():
            of_section = not where  # what keys of it are together
            yield line if of_section else f"{where}.{line}" if detail["loc"][-1] == "options" else f"{where}: {line}"
    else:
        yield f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _keys(kind: type[BaseModel], loc: "tuple[int | str, ...]") -> list[str]:
    """The keys known at a place of the config."""
    at: Any = kind
    for part in loc:
        at = OBTAINED.get(str(part), at)
        fields = getattr(at, "model_fields", {})
        if part in fields:
            at = _model_in(fields[part].annotation)
    return list(getattr(at, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The model inside `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None
