"""The options of every training method, with their documented defaults. pydantic only, no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MethodOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Normal(MethodOptions):
    """Cross-entropy on clean images has nothing to choose."""


class PgdAt(MethodOptions):
    """Adversarial training."""

    clean_weight: Weight = Field(0.0, le=1, description="share of clean cross-entropy, the rest adversarial")


class Trades(MethodOptions):
    """Clean cross-entropy and the divergence of predictions under attack."""

    beta: Weight = Field(6.0, description="weight of KL between the predictions on clean and on adversarial images")


class NFgsm(MethodOptions):
    """Single-step adversarial training from noisy images; `attack` is not used."""

    noise: Weight = Field(2.0, description="radius of the uniform noise the step starts from, in multiples of eps")
    alpha: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="length of the one step, in multiples of eps; not projected back"
    )


class Rslad(MethodOptions):
    """Robust soft label adversarial distillation."""

    adversarial_weight: Weight = Field(5 / 6, le=1, description="weight of KL on adversarial images, the rest on clean")


class Vgap(MethodOptions):
    """VGap-style alignment of feature covariance and Gram matrices."""

    host: Literal["rslad", "pgd-at"] = Field("rslad", description="the objective that alignment is added to")
    projection: Literal["principal", "learned", "identity"] = Field(
        "principal",
        description="how widths are matched: the teacher's principal directions, a learned map of the student's "
        "features, or none (equal widths)",
    )
    gram: Literal["images", "classes"] = Field(
        "images", description="Gram matrix of softmax scores between the images of a batch, or between classes"
    )
    lambda_cov: Weight = Field(0.1, description="weight of covariance alignment")
    lambda_gram: Weight = Field(0.1, description="weight of Gram alignment")
    lambda_gap: Weight = Field(0.0, description="weight of the penalty on a variance gap above the teacher's")


METHOD_OPTIONS: dict[str, type[MethodOptions]] = {
    "normal": Normal,
    "pgd-at": PgdAt,
    "rslad": Rslad,
    "vgap": Vgap,
    "trades": Trades,
    "n-fgsm": NFgsm,
}
