"""Auto-PGD (Croce & Hein 2020, Algorithm 1): momentum, and a step size that is halved where the loss stops rising."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compress.attacks import ball, losses
from compress.attacks.contract import Model, Strongest, Task, image_random_start, logits_of, wrong_classes
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import gradient_at, gradient_step

MOMENTUM = 0.75
NAMES = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-targeted": "apgd-t", "ce-targeted": "apgd-ce-t"}


@dataclass(frozen=True)
class Trace:
    """One ascent: its strongest iterate by the verdict, and the loss along the way."""

    strongest: Tensor  # (B,C,H,W)
    verdict: Tensor  # (B,), of that iterate; > 0 is misclassified
    losses: Tensor  # (steps + 1, B), at the start and after every step

    @property
    def curve(self) -> Tensor:
        """The best loss so far, averaged over the images, (steps + 1,); never falls."""
        return self.losses.cummax(0).values.mean(1)


@dataclass(frozen=True)
class APGD:
    """Auto-PGD on one loss; a targeted loss is ascended once for each of the `targets` largest wrong clean logits."""

    loss: str = "ce"  # "ce", "dlr", "dlr-targeted" or "ce-targeted"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    rho: float = 0.75
    eot: int = 1

    @property
    def name(self) -> str:
        return NAMES[self.loss]

    def parameters(self) -> dict[str, Any]:
        fields = asdict(self)
        if not self.loss.endswith("-targeted"):
            del fields["targets"]
        return fields

    def run(self, task: Task) -> Tensor:
        strongest = Strongest(task)
        classes = logits_of(task.model, task.x[:1]).shape[1]
        targets = min(self.targets, classes - 1) if self.loss.endswith("-targeted") else 1
        for number in range(targets * self.restarts):
            if (part := strongest.standing()) is None:
                break
            trace = ascend(
                part.model,
                part.x,
                self._objective(part, number // self.restarts),
                start=image_random_start(part, self.name, number),
                y=part.y,
                eps=part.eps,
                norm=part.norm,
                steps=self.steps,
                rho=self.rho,
                eot=self.eot,
            )
            strongest.take(trace.strongest, trace.verdict)
        return strongest.images

    def _objective(self, task: Task, rank: int) -> ImageLoss:
        if self.loss == "ce":
            return losses.cross_entropy(task.y)
        if self.loss == "dlr":
            return losses.dlr(task.y)
        target = wrong_classes(logits_of(task.model, task.x), task.y, rank + 1)[:, rank]
        if self.loss == "ce-targeted":
            return losses.targeted_cross_entropy(target)
        return losses.targeted_dlr(task.y, target)


def ascend(
    model: Model,
    x: Tensor,
    loss: ImageLoss,
    *,
    start: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    steps: int,
    rho: float = 0.75,
    eot: int = 1,
) -> Trace:
    """Auto-PGD from `start` (B,C,H,W) up `loss`, with the paper's checkpoints, step 2 ε at first and momentum 0.75.

    At a checkpoint an image's step is halved, and it goes on from its best iterate, where fewer than a share `rho` of
    the steps since the last one gained, or where neither step nor best loss changed. `eot` passes a step are averaged.
    Differs from the published code at the first checkpoint: the first step gains on the start's loss, there on a zero.
    """
    judge = losses.verdict(y)
    ends = set(checkpoints(steps))
    x_adv = before = ball.project(start, x, eps, norm)
    at = gradient_at(model, x_adv, loss, judge, passes=eot)
    history = torch.full((steps + 1, len(x)), torch.nan, dtype=at.loss.dtype, device=x.device)
    history[0] = at.loss
    strongest, best_verdict = x_adv, at.verdict
    best, best_gradient, best_loss, gradient = x_adv, at.gradient, at.loss, at.gradient
    step = torch.full_like(ball.column(at.loss), 2 * eps)
    loss_at_check, halved, last = best_loss, torch.ones_like(at.loss, dtype=torch.bool), 0
    for done in range(1, steps + 1):
        momentum = MOMENTUM if done > 1 else 1.0
        moved = gradient_step(x_adv, gradient, step, x=x, eps=eps, norm=norm)
        moved = x_adv + momentum * (moved - x_adv) + (1 - momentum) * (x_adv - before)
        before, x_adv = x_adv, ball.project(moved, x, eps, norm)
        at = gradient_at(model, x_adv, loss, judge, passes=eot, backward=done < steps)
        gradient, history[done] = at.gradient, at.loss
        nearer = at.verdict > best_verdict
        strongest = torch.where(ball.column(nearer), x_adv, strongest)
        best_verdict = torch.where(nearer, at.verdict, best_verdict)
        better = at.loss > best_loss
        best = torch.where(ball.column(better), x_adv, best)
        best_gradient = torch.where(ball.column(better), gradient, best_gradient)
        best_loss = torch.where(better, at.loss, best_loss)
        if done in ends:
            gains = (history[last + 1 : done + 1] > history[last:done]).sum(0)
            halve = (gains <= rho * (done - last)) | (~halved & (loss_at_check >= best_loss))
            step = torch.where(ball.column(halve), step / 2, step)
            x_adv = torch.where(ball.column(halve), best, x_adv)
            gradient = torch.where(ball.column(halve), best_gradient, gradient)
            loss_at_check, halved, last = best_loss, halve, done
    return Trace(strongest, best_verdict, history)


def checkpoints(steps: int) -> list[int]:
    """After which steps the step size is reconsidered: 22 % of them first, each next span 3 % shorter, at least 6 %."""
    span, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    ends, at = [], span
    while at <= steps:
        ends.append(at)
        span = max(span - shorter, least)
        at += span
    return ends
