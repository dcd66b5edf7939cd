"""MTARD: a robust teacher and a clean one, weighed by how far the student has come with each (Zhao et al. 2022)."""

from pydantic import Field

from compress.methods.base import Classifier, Method, Share, Taught, Tensor, torch
from compress.methods.objective import Objective, Search, Terms, TrainingBatch, Views
from compress.methods.scores import divergences, from_labels


class Mtard(Taught):
    """Multi-teacher adversarial robustness distillation; the weights of the two teachers follow their losses."""

    rate: Share = Field(0.025, description="by how much the weights follow in a step")
    milestones: list[Share] = Field(
        [215 / 300, 260 / 300, 285 / 300], description="shares of the run at which the rate falls to a tenth"
    )


class MultiTeacher(Objective):
    """(1 − w) KL(T(x_adv) ‖ S(x_adv)) + w KL(T_nat(x) ‖ S(x)), nats; x_adv maximises CE(S(x'), y).

    T_nat is the teacher trained on clean images. With L̂ = loss / loss of the first batch, in every step

        w ← w − r (w − L̂_nat / (L̂_nat + L̂_adv)),   w = ½ at first, r = 0.025,

    and r falls to a tenth at each of the run's `milestones`, where the published code lowers its learning rate. Differs
    from that code in the reduction (mean over the batch; there over batch and classes, times 10 for CIFAR-100), in
    the attack's start (uniform in the ball, where the code adds 1e-3 · N(0, 1)) and in that S(x) is passed before
    S(x_adv).
    """

    def __init__(self, options: Mtard) -> None:
        super().__init__()
        self.options, self.teacher_temperature = options, options.teacher_temperature
        self.state.register_buffer("weight", torch.tensor(0.5))
        self.state.register_buffer("first", torch.zeros(2))  # losses of the first batch: clean, adversarial; or 0
        self._next: tuple[Tensor, Tensor] | None = None

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return from_labels(student, batch)

    def terms(self, views: Views) -> Terms:
        clean = divergences(views.batch.teach_clean(views.x).logits, views.clean.logits)
        adversarial = divergences(views.taught_adversarial.logits, views.adversarial.logits)
        weight = self._weighed(torch.stack([clean.mean(), adversarial.mean()]).detach(), views.batch.progress)
        return {"kl_adversarial": (1 - weight) * adversarial, "kl_clean": weight * clean}

    def after_step(self) -> None:
        if self._next is not None:
            for name, value in zip(("weight", "first"), self._next, strict=True):
                self.state.get_buffer(name).copy_(value)
        self._next = None

    def _weighed(self, losses: Tensor, progress: float) -> Tensor:
        """w of this step, (), from its `losses` (2,): clean, adversarial."""
        first = self.state.get_buffer("first")
        first, tiny = torch.where(first > 0, first, losses), torch.finfo(losses.dtype).tiny
        left = losses / first.clamp(min=tiny)
        rate = self.options.rate * 0.1 ** sum(progress >= milestone for milestone in self.options.milestones)
        before = self.state.get_buffer("weight")
        weight = before - rate * (before - left[0] / left.sum().clamp(min=tiny))
        self._next = weight, first
        return weight


METHOD = Method("mtard", Mtard, lambda options, preparation: MultiTeacher(options), teachers=2)
