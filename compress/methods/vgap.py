"""VGap-style distillation: the student's feature covariance and Gram matrices drawn to the teacher's.

Dong, Koniusz, Chen, Ong: Adversarially Robust Distillation by Reducing the Student-Teacher Variance Gap (ECCV 2024).
The paper's abstract fixes the idea: align covariance and Gram matrices on clean and adversarial samples. What it
leaves open is an option in `Vgap`; no parity with the paper's tables is claimed. With pooled features f (B,D)
and the teacher detached:

    C(f)   = (f − mean f)ᵀ (f − mean f) / (B − 1)
    L_cov  = ½ Σ_{v ∈ {x, x_adv}} ‖C(P f_S(v)) − C(Q f_T(v))‖² / ‖C(Q f_T(v))‖²        Frobenius norms
    L_gram = ½ Σ_{v ∈ {x, x_adv}} ‖G_S(v) − G_T(v)‖² / ‖G_T(v)‖²                       G of softmax scores
    gap(f) = (tr C(f(x_adv)) − tr C(f(x))) / tr C(f(x))                               relative, so widths may differ
    L      = host + λ(t) (λ_cov L_cov + λ_gram L_gram + λ_gap relu(|gap_S| − |gap_T|))

λ(t) rises from 0 to 1 over the first `warmup` of the run. Several levels of features, and the parts of `scatter`, are
averaged.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from compress.methods.base import Added, Classifier, Features, Host, Method, Preparation, Tensor, Weight, torch
from compress.methods.objective import Addition, Terms, Views

Pair = tuple[Features, Features]

HOST = "rslad"


class Vgap(Added):
    """VGap-style alignment of feature covariance and Gram matrices."""

    host: Host = Field(HOST, description="the method that this one is added to")
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


class VarianceGap(Addition):
    """The terms {"cov", "gram", "gap"} of this module's docstring, each with its weight already on it, ()."""

    def __init__(self, options: Vgap, student: Classifier, teacher: Classifier, clean: Iterable[Tensor]) -> None:
        """`clean` yields batches of training images, by which the teacher's principal directions are found."""
        from compress.methods.features import Projections
        from compress.methods.memory import RunningMeans

        self.options = options
        self.projections = Projections(options.projection, options.features, student, teacher, clean)
        self.past = RunningMeans(options.decay) if options.statistics == "ema" else None
        super().__init__(projections=self.projections, **({} if self.past is None else {"past": self.past}))

    def terms(self, views: Views) -> Terms:
        options = self.options
        pairs = ((views.clean, views.taught_clean), (views.adversarial, views.taught_adversarial))
        rise = min(1.0, views.batch.progress / options.warmup) if options.warmup else 1.0
        terms = {}
        if options.lambda_cov:
            terms["cov"] = rise * options.lambda_cov * self._covariance(pairs, views.y)
        if options.lambda_gram:
            terms["gram"] = rise * options.lambda_gram * self._gram(pairs)
        if options.lambda_gap:
            terms["gap"] = rise * options.lambda_gap * self._gap(pairs)
        return terms

    def after_step(self) -> None:
        if self.past is not None:
            self.past.keep()

    def _covariance(self, pairs: tuple[Pair, Pair], y: Tensor) -> Tensor:
        from compress.methods.features import scatters

        misfits = []
        for view, (student, teacher) in enumerate(pairs):
            levels = zip(self.projections.student(student), self.projections.teacher(teacher), strict=True)
            for level, features in enumerate(levels):
                parts = zip(*(scatters(f, y, self.options.scatter) for f in features), strict=True)
                misfits += [self._misfit(f"cov{view}{level}{part}", *both) for part, both in enumerate(parts)]
        return torch.stack(misfits).mean()

    def _gram(self, pairs: tuple[Pair, Pair]) -> Tensor:
        from compress.methods.features import gram, misfit

        misfits = []
        for view, (student, teacher) in enumerate(pairs):
            for level, rows in enumerate(self._gram_rows(student, teacher)):
                both = [gram(each, self.options.gram) for each in rows]
                images = self.options.gram == "images"  # those of another batch are others: no past to mix in
                misfits.append(misfit(*both) if images else self._misfit(f"gram{view}{level}", *both))
        return torch.stack(misfits).mean()

    def _gram_rows(self, student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """What the Gram matrices are of, student's and teacher's, level by level; between images widths may differ."""
        if self.options.gram_of == "scores":
            return [(student.logits.softmax(1), teacher.logits.softmax(1))]
        if self.options.gram == "images":
            return list(zip(self.projections.raw(student), self.projections.raw(teacher), strict=True))
        return list(zip(self.projections.student(student), self.projections.teacher(teacher), strict=True))

    def _gap(self, pairs: tuple[Pair, Pair]) -> Tensor:
        from compress.methods.features import gap

        kind, use = self.options.gap, self.projections
        relative = kind == "relative"  # free of widths, so of the features as they are
        clean, adversarial = (
            zip((use.raw if relative else use.student)(s), (use.raw if relative else use.teacher)(t), strict=True)
            for s, t in pairs
        )
        excess = [
            torch.relu(gap(s, s_adv, kind).abs() - gap(t, t_adv, kind).abs()).sum()
            for (s, t), (s_adv, t_adv) in zip(clean, adversarial, strict=True)
        ]
        return torch.stack(excess).mean()

    def _misfit(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        from compress.methods.features import misfit

        if self.past is None:
            return misfit(student, teacher)
        return misfit(self.past.mixed(f"{name}_student", student), self.past.mixed(f"{name}_teacher", teacher))


def _objective(options: Vgap, preparation: Preparation) -> VarianceGap:
    return VarianceGap(options, preparation.student, preparation.teacher, preparation.clean)


METHOD = Method("vgap", Vgap, _objective, host=HOST, reads_features=True)
