"""VGap-style distillation: the student's feature covariance and Gram matrices drawn to the teacher's.

Dong, Koniusz, Chen, Ong: Adversarially Robust Distillation by Reducing the Student-Teacher Variance Gap (ECCV 2024).
The paper's abstract fixes the idea: align covariance and Gram matrices on clean and adversarial samples. What it
leaves open is an option in `options.Vgap`; no parity with the paper's tables is claimed. With pooled features f (B,D)
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

import torch
from torch import Tensor

from compress.methods.addition import Addition
from compress.methods.batch import Views
from compress.methods.levels import Projections
from compress.methods.objective import Terms
from compress.methods.options import Vgap
from compress.methods.statistics import gap, gram, misfit, scatters
from compress.networks import Classifier, Features

Pair = tuple[Features, Features]


class VarianceGap(Addition):
    """The terms {"cov", "gram", "gap"} of this module's docstring, each with its weight already on it, ()."""

    def __init__(self, options: Vgap, student: Classifier, teacher: Classifier, clean: Iterable[Tensor]) -> None:
        """`clean` yields batches of training images, by which the teacher's principal directions are found."""
        super().__init__()
        self.options = options
        self.projections = Projections(options.projection, options.features, student, teacher, clean)
        self.past = Past(options.decay) if options.statistics == "ema" else None

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
        found = []
        for view, (student, teacher) in enumerate(pairs):
            levels = zip(self.projections.student(student), self.projections.teacher(teacher), strict=True)
            for level, features in enumerate(levels):
                parts = zip(*(scatters(f, y, self.options.scatter) for f in features), strict=True)
                found += [self._misfit(f"cov{view}{level}{part}", *both) for part, both in enumerate(parts)]
        return torch.stack(found).mean()

    def _gram(self, pairs: tuple[Pair, Pair]) -> Tensor:
        found = []
        for view, (student, teacher) in enumerate(pairs):
            for level, rows in enumerate(self._gram_rows(student, teacher)):
                both = [gram(each, self.options.gram) for each in rows]
                images = self.options.gram == "images"  # those of another batch are others: no past to mix in
                found.append(misfit(*both) if images else self._misfit(f"gram{view}{level}", *both))
        return torch.stack(found).mean()

    def _gram_rows(self, student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """What the Gram matrices are of, student's and teacher's, level by level; between images widths may differ."""
        if self.options.gram_of == "scores":
            return [(student.logits.softmax(1), teacher.logits.softmax(1))]
        if self.options.gram == "images":
            return list(zip(self.projections.raw(student), self.projections.raw(teacher), strict=True))
        return list(zip(self.projections.student(student), self.projections.teacher(teacher), strict=True))

    def _gap(self, pairs: tuple[Pair, Pair]) -> Tensor:
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
        if self.past is None:
            return misfit(student, teacher)
        return misfit(self.past.mixed(f"{name}_student", student), self.past.mixed(f"{name}_teacher", teacher))


class Past(torch.nn.Module):
    """Running means of matrices by name, the first value as it came. Gradients flow through the newest alone."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._now: dict[str, Tensor] = {}

    def mixed(self, name: str, value: Tensor) -> Tensor:
        """decay · past + (1 − decay) · value."""
        before = self._buffers.get(name)
        now = value if before is None else self.decay * before + (1 - self.decay) * value
        self._now[name] = now.detach()
        return now

    def keep(self) -> None:
        """What was mixed last is the past from now on."""
        for name, value in self._now.items():
            self.register_buffer(name, value)
        self._now = {}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Buffers exist once they were seen, so those of a checkpoint are made first."""
        for name, value in state_dict.items():
            if name.startswith(prefix):
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *rest)
