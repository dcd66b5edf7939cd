"""FAB, targeted (Croce & Hein 2020b): step to the nearest decision boundary as the model is linear, and back again."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compress.attacks import ball, losses
from compress.attacks.contract import Strongest, Task, logits_of, wrong_classes
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import gradient_at


@dataclass(frozen=True)
class FAB:
    """FAB towards each of the `targets` largest wrong clean logits. It minimizes the distance and needs no radius.

    Differs from the published code in that a nearest image outside the ball is clipped into it and asked about again.
    """

    steps: int = 100
    targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    @property
    def name(self) -> str:
        return "fab-t"

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        strongest = Strongest(task)
        classes = logits_of(task.model, task.x[:1]).shape[1]
        for rank in range(min(self.targets, classes - 1)):
            if (part := strongest.standing()) is None:
                break
            target = wrong_classes(logits_of(part.model, part.x), part.y, rank + 1)[:, rank]
            nearest = self._nearest(part, losses.targeted_margin(part.y, target))
            inside = ball.project(nearest, part.x, part.eps, part.norm)
            strongest.take(inside, losses.verdict(part.y)(logits_of(part.model, inside)))
        return strongest.images

    def _nearest(self, task: Task, difference: ImageLoss) -> Tensor:
        """The nearest adversarial image on the way, or the last iterate where there was none."""
        x, norm, judge = task.x, task.norm, losses.verdict(task.y)
        x_adv = nearest = x
        distance = x.new_full((len(x),), torch.inf)
        for _ in range(self.steps):
            slope = gradient_at(task.model, x_adv, difference)  # of the target's logit minus the true one
            value, w, flat = slope.loss, slope.gradient, slope.gradient.flatten(1)
            here = to_hyperplane(x_adv.flatten(1), flat, -value, norm).view_as(x)
            there = to_hyperplane(x.flatten(1), flat, -value + ((x_adv - x) * w).flatten(1).sum(1), norm).view_as(x)
            near, far = (ball.length(way, norm).clamp(min=1e-8) for way in (here, there))
            alpha = ball.column((near / (near + far)).clamp(max=self.alpha_max))
            x_adv = ((1 - alpha) * (x_adv + self.eta * here) + alpha * (x + self.eta * there)).clamp(0, 1)
            wrong = judge(logits_of(task.model, x_adv)) > 0
            reached = ball.length(x_adv - x, norm)
            nearer = wrong & (reached < distance)
            nearest = torch.where(ball.column(nearer | distance.isinf()), x_adv, nearest)
            distance = torch.where(nearer, reached, distance)
            x_adv = torch.where(ball.column(wrong), x + self.beta * (x_adv - x), x_adv)
        return nearest


def to_hyperplane(points: Tensor, w: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The shortest d (B,n) with w·d = gap and points + d in [0, 1] (eq. 4); points and w (B,n), gap (B,).

    Every coordinate moves towards the plane by min(λ s, room): s = 1 in L∞ and |w| in L2, `room` its way to the edge of
    the range. w·d then grows with λ, linearly between the λ at which a coordinate meets its edge; sorting these finds
    the piece that holds λ. Where no point of the range reaches it, all go to their edges. A w of zero moves none.
    """
    tiny = torch.finfo(w.dtype).tiny
    scale = w.abs().amax(1, keepdim=True).clamp(min=tiny)
    weight = w / scale * torch.where(gap < 0, -1, 1)[:, None]
    need = gap.abs() / scale[:, 0]
    size = weight.abs()
    used = size > torch.finfo(w.dtype).eps ** 2  # of the largest: below, a coordinate cannot contribute
    room = torch.where(weight > 0, 1 - points, points) * used
    speed = used.to(w.dtype) if norm == "linf" else size * used
    edge, order = torch.where(used, room / speed, 0).sort(1)
    spent = torch.nn.functional.pad((size * room).gather(1, order).cumsum(1), (1, 0))[:, :-1]  # by those at their edge
    slope = (size * speed).gather(1, order).flip(1).cumsum(1).flip(1)  # of those that still move
    piece = (spent + edge * slope < need[:, None]).sum(1, keepdim=True).clamp(max=w.shape[1] - 1)
    at_edge = edge.gather(1, piece)
    way = (need[:, None] - spent.gather(1, piece)) / slope.gather(1, piece).clamp(min=tiny)
    way = torch.minimum(way.clamp(min=0), at_edge)
    return weight.sign() * torch.minimum(way * speed, room)
