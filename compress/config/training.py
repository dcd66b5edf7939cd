"""How a network is trained, whatever the stage is for."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from compress import names
from compress.config.values import (
    Count,
    Data,
    Method,
    Model,
    Positive,
    Radius,
    Strict,
    Time,
    enumerated,
    fault_lines,
    one_of,
    seconds,
)
from compress.methods import registry
from edge.core.errors import CompressError

ARCHITECTURES = (
    "architecture: a name of ours, timm:NAME, torchvision:NAME, a function of yours, module:function, or an ONNX file"
)


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

    #: What is another default where the optimizer is AdamW (Touvron et al. 2021).
    ADAMW: ClassVar[Mapping[str, float]] = MappingProxyType({"lr": 0.001, "weight_decay": 0.05})

    epochs: Count = Field(30, description="passes over the training split")
    batch_size: int = Field(128, ge=2, description="images of one step of the optimiser")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="SGD with Nesterov momentum, or AdamW, which transformers need"
    )
    lr: Positive = Field(0.1, description="peak learning rate; of adamw 0.001 where none is given")
    schedule: Literal["cosine", "step", "one-cycle", "linear"] = Field(
        "cosine", description="how the rate falls after the warm-up"
    )
    milestones: list[Positive] = Field(
        [0.5, 0.75], description="where schedule step lowers the rate: shares of the run below 1, else epochs"
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="what schedule step multiplies the rate by at a milestone")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps over which the rate rises linearly")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum; of adamw its first beta")
    weight_decay: float = Field(
        5e-4, ge=0, description="L2 penalty on the weights; of adamw their decay, 0.05 where none is given"
    )
    augment: Annotated[str, one_of("augmentation", names.AUGMENTATIONS), enumerated(names.AUGMENTATIONS)] = Field(
        "auto", description="how training images are varied; auto: crop-flip, but none for digits, idx and npz"
    )
    attack: TrainAttack = Field(TrainAttack(), description="the attack that training images are changed by")
    clip: "Positive | None" = Field(None, description="largest norm of the gradient of all weights")
    average: Literal["none", "ema", "swa"] = Field(
        "none", description="which weights are validated and shipped: the last ones, or an average over steps or epochs"
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="weight of the past in average ema, after its warm-up")
    swa_start: float = Field(0.75, ge=0, lt=1, description="share of the run at whose end average swa begins")
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_optimizer(cls, content: Any) -> Any:
        adamw = isinstance(content, Mapping) and content.get("optimizer") == "adamw"
        return {**cls.ADAMW, **content} if adamw else content

    @property
    def budget_s(self) -> "float | None":
        return seconds(self.budget)


class FeatureModules(Strict):
    """Which modules of a network of others give its features; NAME: its result, NAME.input: what it reads."""

    pooled: "str | None" = Field(None, description="of pooled features; default: what the last linear layer reads")
    stages: "list[str] | None" = Field(None, description="of stages; default: the last map before each halving")


class WithMethod(Training):
    """A network trained by a method with options."""

    model: Model = Field(description=ARCHITECTURES)
    method: Method = Field(description="objective it is trained with")
    options: dict[str, Any] = Field({}, description="options of the method", validate_default=True)
    weights: "str | None" = Field(None, description="checkpoint that its training starts from; else drawn by the seed")
    key: "str | None" = Field(None, description="which weights, of a checkpoint that holds several sets")
    features: "FeatureModules | None" = Field(
        None, description="modules of a network of others that give its features, where others than found are meant"
    )
    extra: "Extra | None" = Field(
        None, description="further images mixed into every batch, e.g. {path: npz:generated.npz, fraction: 0.7}"
    )

    @model_validator(mode="after")
    def _key_fits(self) -> "WithMethod":
        if self.key is not None and self.weights is None:
            raise ValueError("key: chooses among the sets of weights in a checkpoint; give --weights FILE too")
        return self

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any], info: Any) -> dict[str, Any]:
        """The options in full, defaults filled in, so that a manifest records what was used."""
        method = info.data.get("method")
        return options if method is None else in_full(method, options)  # None: it is at fault itself and is reported


def in_full(method: "str | list[str]", options: dict[str, Any]) -> dict[str, Any]:
    """A method's options with defaults filled in; every fault of theirs in one ValueError."""
    try:
        return registry.options_in_full(method, options)
    except ValidationError as fault:
        kinds = [registry.options_of(name) for name in ([method] if isinstance(method, str) else method)]
        kind = next(kind for kind in kinds if kind.__name__ == fault.title)
        raise ValueError("\n".join(fault_lines(fault, kind))) from None
    except CompressError as fault:
        raise ValueError(str(fault)) from None
