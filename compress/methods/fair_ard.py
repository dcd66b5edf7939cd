"""Fair-ARD: classes that fall sooner under attack count more (Yue et al. 2023)."""

from pydantic import Field

from compress.methods.base import Added, Host, Method, Tensor, Weight, torch
from compress.methods.objective import Addition, Views

HOST = "ard"


class FairArd(Added):
    """Weights of the classes by how long each stands in the attack."""

    host: Host = Field(HOST, description="the method that this one is added to")
    beta: Weight = Field(2.0, description="power of the inverse standing; 0: all classes alike")


#: Bounds of the weights, in the order of `torch.clamp`.
LOWEST, HIGHEST = 5 / 6, 5 / 2


class FairClasses(Addition):
    """The host's terms of an image of class c times clamp(K v_c / Σ v, 5/6, 5/2), v_c = (1 / κ_c)^β; β = 2.

    κ_c is the share of the attack's iterates, start included and result not, that the student still classified right,
    over the images of class c in the epoch before; in the first epoch all weights are 1. Differs from the published
    code in that κ is a mean over the images of the class, not over a Kth of the training split, the same for balanced
    classes, and in the attack, which finds the student in evaluation mode.
    """

    watches = True

    def __init__(self, options: FairArd) -> None:
        from compress.methods.memory import GrowingState

        self.options = options
        self.state: GrowingState = GrowingState()
        self.state.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self._watched: Tensor | None = None
        self._epoch = 0

    def watch(self, logits: Tensor, y: Tensor) -> None:
        classes, right = logits.shape[1], y[logits.argmax(1) == y]
        counts = torch.stack([each.bincount(minlength=classes) for each in (right, y)])
        self._watched = counts if self._watched is None else self._watched + counts

    def weights(self, views: Views) -> Tensor | None:
        self._epoch = views.batch.key[1]
        known = self._new() if self._turned() else self.state.seen("classes")
        return None if known is None else known.to(views.x.dtype)[views.y]

    def after_step(self) -> None:
        if self._turned():
            fresh = self._new()
            if fresh is not None:
                self.state.register_buffer("classes", fresh)
                self.state.get_buffer("counts").zero_()
            self.state.get_buffer("epoch").fill_(self._epoch)
        if self._watched is not None:
            before = self.state.seen("counts")
            self.state.register_buffer("counts", self._watched if before is None else before + self._watched)
        self._watched = None

    def _turned(self) -> bool:
        return self._epoch != int(self.state.get_buffer("epoch"))

    def _new(self) -> Tensor | None:
        """The weights (K,) that follow from the counts (2,K) of the epoch that has ended: right, all."""
        counts = self.state.seen("counts")
        if counts is None:
            return None
        # nothing is known of an absent class
        kappa = torch.where(counts[1] > 0, counts[0] / counts[1].clamp(min=1), 1.0)
        return class_weights(kappa, self.options.beta)


def class_weights(kappa: Tensor, beta: float) -> Tensor:
    """Weights of the classes (K,) from how long each stands, `kappa` (K,): mean 1 before they are clamped."""
    raw = (1 / (kappa + 1e-5)) ** beta
    return (len(raw) * raw / raw.sum()).clamp(LOWEST, HIGHEST)


METHOD = Method("fair-ard", FairArd, lambda options, preparation: FairClasses(options), teachers=0, host=HOST)
