"""The options of every training method, with their documented defaults. pydantic only, no torch."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from compress import names
from edge.core import choices
from edge.core.errors import CompressError


def _host(name: str) -> str:
    try:
        return choices.known("host", name, names.HOSTS)
    except CompressError as fault:
        raise ValueError(str(fault)) from None


Host = Annotated[str, AfterValidator(_host), WithJsonSchema({"type": "string", "enum": list(names.HOSTS)})]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MethodOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Supervised(MethodOptions):
    """Methods that learn from labels."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label that is spread over all classes")


class Taught(MethodOptions):
    """Methods that learn from a teacher's scores."""

    teacher_temperature: Positive = Field(
        1.0, description="the teacher's logits are divided by it: below 1 its scores are sharper (LTD)"
    )


class Added(MethodOptions):
    """Methods that add to another one."""

    host: Host = Field(description="the method that this one is added to")


class Normal(Supervised):
    """Cross-entropy on clean images."""


class PgdAt(Supervised):
    """Adversarial training."""

    clean_weight: Share = Field(0.0, description="share of clean cross-entropy, the rest adversarial")


class Trades(Supervised):
    """Clean cross-entropy and the divergence of predictions under attack."""

    beta: Weight = Field(6.0, description="weight of KL between the predictions on clean and on adversarial images")


class NFgsm(Supervised):
    """Single-step adversarial training from noisy images; `attack` is not used."""

    noise: Weight = Field(2.0, description="radius of the uniform noise the step starts from, in multiples of eps")
    alpha: Positive = Field(1.0, description="length of the one step, in multiples of eps; not projected back")


class Rslad(Taught):
    """Robust soft label adversarial distillation."""

    adversarial_weight: Share = Field(5 / 6, description="weight of KL on adversarial images, the rest on clean")


class Mart(MethodOptions):
    """Misclassification-aware adversarial training."""

    beta: Weight = Field(
        5.0, description="weight of KL between the predictions on clean and on adversarial images (the paper's lambda)"
    )


class Tempered(Taught):
    """Methods that soften the teacher's scores and the student's alike."""

    temperature: Positive = Field(
        1.0, description="teacher's and student's logits are divided by it, KL times its square"
    )


class Ard(Tempered):
    """Adversarially robust distillation."""

    temperature: Positive = Field(
        30.0, description="teacher's and student's logits are divided by it, KL times its square"
    )
    label_weight: Share = Field(0.0, description="weight of cross-entropy on clean images, the rest is distillation")


class Introspective(Tempered):
    """Introspective adversarial distillation, one teacher."""

    begin: Share = Field(60 / 200, description="share of the run after which the student also learns from itself")
    beta: Weight = Field(0.1, description="the teacher is trusted by its probability of the true label to this power")
    label_weight: Share = Field(0.0, description="weight of cross-entropy on clean images, the rest is distillation")


class AdaIad(Introspective):
    """The same, the teacher asked about adversarial images, under AdaAD's attack."""

    temperature: Positive = Field(
        30.0, description="teacher's and student's logits are divided by it, KL times its square"
    )


class TwoTeachers(Tempered):
    """A robust teacher and one that was trained on clean images, both asked about adversarial ones."""

    teacher_weight: Share = Field(0.5, description="weight of KL to the robust teacher")
    clean_teacher_weight: Share = Field(
        0.25, description="weight of KL to the clean teacher; what is left is the labels'"
    )

    @model_validator(mode="after")
    def _shares(self) -> "TwoTeachers":
        if self.label_weight < 0:
            raise ValueError(
                f"teacher_weight {self.teacher_weight:g} and clean_teacher_weight {self.clean_teacher_weight:g} add up "
                f"to more than 1; give shares of one loss"
            )
        return self

    @property
    def label_weight(self) -> float:
        """The weight of cross-entropy: what the teachers leave, to rounding."""
        return round(1 - self.teacher_weight - self.clean_teacher_weight, 12)


class IadII(TwoTeachers):
    """Introspective adversarial distillation, two teachers."""

    begin: Share = Field(40 / 200, description="share of the run after which the student also learns from itself")
    beta: Weight = Field(0.1, description="the teacher is trusted by its probability of the true label to this power")


class AdaAd(Taught):
    """Adaptive adversarial distillation."""

    adversarial_weight: Share = Field(1.0, description="weight of KL on adversarial images, the rest on clean")


class Mtard(Taught):
    """Multi-teacher adversarial robustness distillation; the weights of the two teachers follow their losses."""

    rate: Share = Field(0.025, description="by how much the weights follow in a step")
    milestones: list[Share] = Field(
        [215 / 300, 260 / 300, 285 / 300], description="shares of the run at which the rate falls to a tenth"
    )


class Dgad(Taught):
    """Dynamic guidance adversarial distillation."""

    beta: Weight = Field(1.0, description="weight of the squared difference of scores on clean and adversarial images")


class Saad(Taught):
    """Images weighed by the entropy of the teacher's scores under attack."""

    entropy_scale: Weight = Field(5.0, description="weight of an image per nat above the batch's least entropy")
    alpha: Weight = Field(1.0, description="weight of gradient matching (igdm) at the end of the run, rising from 0")
    beta: Weight = Field(
        0.0, description="weight of KL on clean images, largest where the teacher is sure under attack"
    )
    correction: Weight = Field(1.0, description="how much the teacher's true logit follows its gradient in the attack")


class Ltd(Taught):
    """Low-temperature distillation."""

    teacher_temperature: Positive = Field(
        0.5, description="the teacher's logits are divided by it: below 1 its scores are sharper"
    )


class Igdm(Added):
    """Indirect gradient matching."""

    host: Host = Field(names.ADDITIONS["igdm"], description="the method that this one is added to")
    alpha: Weight = Field(1.0, description="weight at the end of the run, rising from 0; 10 for 100 classes or more")


class FairArd(Added):
    """Weights of the classes by how long each stands in the attack."""

    host: Host = Field(names.ADDITIONS["fair-ard"], description="the method that this one is added to")
    beta: Weight = Field(2.0, description="power of the inverse standing; 0: all classes alike")


class Vgap(Added):
    """VGap-style alignment of feature covariance and Gram matrices."""

    host: Host = Field(names.ADDITIONS["vgap"], description="the method that this one is added to")
    features: Literal["penultimate", "stages"] = Field(
        "penultimate", description="pooled penultimate features, or those of every stage, the last ones paired"
    )
    projection: Literal["principal", "learned", "identity"] = Field(
        "principal",
        description="how widths are matched: the teacher's principal directions, a learned map of the student's "
        "features, or none (equal widths)",
    )
    scatter: Literal["total", "within", "between", "both"] = Field(
        "total", description="covariance of all features, of those within classes, of the classes' means, or both parts"
    )
    statistics: Literal["batch", "ema"] = Field(
        "batch", description="covariance (and Gram matrix between classes) of the batch, or with the past mixed in"
    )
    decay: float = Field(0.9, ge=0, lt=1, description="weight of the past in statistics ema")
    gram: Literal["images", "classes"] = Field(
        "images", description="Gram matrix between the images of a batch, or between its columns (classes, dimensions)"
    )
    gram_of: Literal["scores", "features"] = Field("scores", description="what the Gram matrix is of")
    gap: Literal["relative", "absolute", "vector"] = Field(
        "relative", description="variance gap over the clean variance, as it is, or dimension by dimension"
    )
    lambda_cov: Weight = Field(0.1, description="weight of covariance alignment")
    lambda_gram: Weight = Field(0.1, description="weight of Gram alignment")
    lambda_gap: Weight = Field(0.0, description="weight of the penalty on a variance gap above the teacher's")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run over which the three weights rise from 0")


class Gacd(Added):
    """GACD-style contrast: the teacher's features anchor, the student's of the same image attract."""

    host: Host = Field(names.ADDITIONS["gacd"], description="the method that this one is added to")
    weight: Weight = Field(0.1, description="weight of the contrast")
    negatives: Literal["batch", "bank"] = Field(
        "batch", description="other images of the batch, or drawn from a memory of the student on all training images"
    )
    bank_negatives: int = Field(4096, ge=1, description="images drawn from the bank in each step")
    bank_momentum: float = Field(0.5, ge=0, lt=1, description="weight of the past in the bank")
    temperature: Positive = Field(0.07, description="inner products of embeddings are divided by it")
    width: int = Field(128, ge=2, description="dimensions of the embeddings")
    reweight: bool = Field(True, description="weigh images by the teacher's probability of the true label")
    mask_same_class: bool = Field(False, description="images of the anchor's class are no negatives")


METHOD_OPTIONS: dict[str, type[MethodOptions]] = {
    "normal": Normal,
    "pgd-at": PgdAt,
    "trades": Trades,
    "mart": Mart,
    "n-fgsm": NFgsm,
    "rslad": Rslad,
    "ard": Ard,
    "ltd": Ltd,
    "iad-i": Introspective,
    "iad-ii": IadII,
    "akd2": TwoTeachers,
    "mtard": Mtard,
    "adaad": AdaAd,
    "adaiad": AdaIad,
    "dgad": Dgad,
    "saad": Saad,
    "vgap": Vgap,
    "gacd": Gacd,
    "igdm": Igdm,
    "fair-ard": FairArd,
}


def filled(method: "str | Sequence[str]", options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options in full, defaults filled in; of several methods by name, with the host that they share.

    pydantic's ValidationError for options that are wrong, CompressError for names that are.
    """
    if isinstance(method, str):
        return METHOD_OPTIONS[method](**options).model_dump()
    for name in options:
        choices.known(f"method in the options of {', '.join(method)}:", name, tuple(method))
    given = {name: dict(options.get(name) or {}) for name in method}
    added = [name for name in method if name in names.ADDITIONS]
    named = {name: given[name]["host"] for name in added if "host" in given[name]}
    host = next((name for name in method if name in names.HOSTS), None) or next(
        iter(named.values()), names.ADDITIONS[added[0]]
    )
    for name, other in named.items():
        if other != host:
            raise CompressError(f"{name}.host: {other}, but the method is built on {host}; leave it out")
    return {
        name: METHOD_OPTIONS[name](
            **given[name], **({"host": host} if name in added and name not in named else {})
        ).model_dump()
        for name in method
    }
