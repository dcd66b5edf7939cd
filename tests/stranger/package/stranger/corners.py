"""An attack that jumps: to corners of the ball, each by the sign of the gradient at a random start."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from compress.attacks import losses
from compress.attacks.contract import Strongest, Task, image_random_start, logits_of
from compress.attacks.pgd import gradient_at, gradient_step


@dataclass(frozen=True)
class Corners:
    """One step of length 2 ε from each of `restarts` random starts, kept inside the ball; the strongest counts."""

    restarts: int = 4

    @property
    def name(self) -> str:
        return "corners"

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, task: Task) -> Tensor:
        strongest = Strongest(task)
        for restart in range(self.restarts):
            if (part := strongest.standing()) is None:
                break
            start = image_random_start(part, self.name, restart)
            slope = gradient_at(part.model, start, losses.cross_entropy(part.y))
            corner = gradient_step(start, slope.gradient, 2 * part.eps, x=part.x, eps=part.eps, norm=part.norm)
            strongest.take(corner, losses.verdict(part.y)(logits_of(part.model, corner)))
        return strongest.images


CORNERS = Corners()
