"""Networks as the loop calls them: where, in which arithmetic, compiled or not; what leaves them is float32."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.methods.objective import Search
from compress.networks.base import Classifier, Features
from compress.numerics import precision, ranks
from edge.core.errors import first_line
from edge.core.progress import say

#: Rounds of which the fastest counts after one that warms up: at least one, no more after so many seconds.
ROUNDS, ENOUGH_S = 8, 1.0

#: Anything but plain float32 must need at most this share of its time: less is noise, and float32 has more digits.
WORTHWHILE = 0.8

#: Images of fewer values are not worth a measurement, whose outcome would only make their quick runs vary.
SMALL = 1024

#: Images on which a pass with the gradients of all weights is timed.
UPDATED = 32

LAYOUTS = {"channels-last": torch.channels_last, "channels-first": torch.contiguous_format}


def device() -> torch.device:
    return ranks.here()


@dataclass(frozen=True)
class Arithmetic:
    """Precision of the passes without gradients of weights (`attack`; the teacher's too) and with them, and the order
    of images and weights in memory."""

    attack: str
    update: str
    layout: str

    def __str__(self) -> str:
        return self.attack if self.attack == self.update else f"{self.attack} attack, {self.update} update"

    def put(self, network: Classifier) -> None:
        """Give the network's weights the layout; those of five dimensions have none like it."""
        if all(weight.ndim < 5 for weight in network.parameters()):
            network.to(memory_format=LAYOUTS[self.layout])  # type: ignore[call-overload]

    def image(self, x: Tensor) -> Tensor:
        """Images (B,C,H,W) in the layout."""
        return x.contiguous(memory_format=LAYOUTS[self.layout])


PLAIN = Arithmetic(precision.FLOAT32, precision.FLOAT32, "channels-last")


class Passes(Classifier):
    """`network`, its convolutions and matrix products in `precision`; logits and pooled features come out in float32.

    So every loss is computed in float32, and weights, optimizer and BatchNorm statistics are never anything else.
    Inside `precision.exact` the whole pass is in float32.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.has_features = network.has_features
        self.precision = precision.FLOAT32
        #: images → features; compiled where that was asked for
        self.run: Callable[[Tensor], Features] = network.forward_features

    def forward_features(self, x: Tensor) -> Features:
        if not precision.rounds(self.precision, x.device):
            return self.run(x)
        if self.precision == precision.FLOAT32:
            return replace(self.run(x), rounded=True)
        with precision.autocast(self.precision, x.device):
            features = self.run(x)
        return replace(features, logits=features.logits.float(), pooled=features.pooled.float(), rounded=True)


class Guide(Passes):
    """The teacher: frozen, and asked about clean and adversarial images more than once a step, so it remembers both."""

    def __init__(self, network: Classifier) -> None:
        super().__init__(network)
        self._seen: deque[tuple[Tensor, Features]] = deque(maxlen=2)

    def forward_features(self, x: Tensor) -> Features:
        if torch.is_grad_enabled():
            return super().forward_features(x)
        rounded = precision.rounds(self.precision, x.device)
        for images, features in self._seen:
            if images is x and features.rounded == rounded:
                return features
        features = super().forward_features(x)
        self._seen.append((x, features))
        return features

    def forget(self) -> None:
        """Give the remembered batches back."""
        self._seen.clear()


def fixed(wanted: str, where: torch.device) -> Arithmetic:
    """One precision for all passes. On a CPU oneDNN's bfloat16 convolutions want the channels first."""
    if wanted == precision.FLOAT32:
        return PLAIN
    return Arithmetic(wanted, wanted, "channels-first" if where.type == "cpu" else "channels-last")


def fastest(student: Passes, search: Search, x: Tensor, steps: int) -> Arithmetic:
    """What one training step, `steps` gradients by the images x (B,C,H,W) and one by the weights, takes least time in.

    Gradients by weights are the slow part of bfloat16 on CPUs, slower than float32 for narrow networks, so they are
    timed by themselves, and not at all where the attack gains nothing. The student's state stays.
    """
    if x[0].numel() < SMALL:
        return PLAIN
    layouts = list(LAYOUTS) if x.device.type == "cpu" else [PLAIN.layout]
    uniform = [PLAIN, *(Arithmetic(precision.BFLOAT16, precision.BFLOAT16, layout) for layout in layouts)]
    student.eval()
    attack = _timed(student, uniform, lambda images: _by_images(search, images), x)
    if min(attack.values()) >= WORTHWHILE * attack[PLAIN]:
        return PLAIN
    update = _timed(student, uniform, lambda images: _by_weights(student, images), x[:UPDATED])
    share = len(x) / len(x[:UPDATED])
    seconds = {one: steps * attack[one] + share * update[one] for one in uniform}
    mixed = Arithmetic(precision.BFLOAT16, precision.FLOAT32, PLAIN.layout)
    seconds[mixed] = steps * attack[uniform[1]] + share * update[PLAIN]
    best = min(seconds, key=lambda one: seconds[one])
    return best if seconds[best] < WORTHWHILE * seconds[PLAIN] else PLAIN


def compile_passes(passes: Passes, x: Tensor, label: str) -> bool:
    """Compile the passes for batches like x (B,C,H,W); whether that worked. Where not, they stay as they are."""
    plain = passes.run
    statistics = [(buffer, buffer.clone()) for buffer in passes.buffers()]
    passes.run = torch.compile(plain, dynamic=False)
    try:
        for training in (False, True):
            passes.train(training)
            _by_images(Search(passes, lambda logits: logits.sum(1)), x)
    except Exception as fault:  # whatever a compiler raises
        passes.run = plain
        say(f"{label}: cannot be compiled ({first_line(fault)}); goes on without")
        return False
    finally:
        passes.eval()
        with torch.no_grad():
            for buffer, value in statistics:
                buffer.copy_(value)
    return True


def keep_graphs() -> None:
    """Let what is compiled from now on be differentiated more than once; by default it overwrites what it has saved."""
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False


def _timed(
    student: Passes, kinds: Sequence[Arithmetic], run: Callable[[Tensor], object], x: Tensor
) -> dict[Arithmetic, float]:
    """Seconds of `run` by kind; the kinds take turns, so that what else the machine does slows down all alike."""
    before, began = student.precision, time.monotonic()
    seconds = dict.fromkeys(kinds, math.inf)
    for number in range(ROUNDS + 1):
        if number > 1 and time.monotonic() - began > ENOUGH_S:
            break
        for kind in kinds:
            student.precision = kind.attack
            kind.put(student.network)
            images = kind.image(x)
            start = _now(x.device)
            run(images)
            if number:
                seconds[kind] = min(seconds[kind], _now(x.device) - start)
    student.precision = before
    PLAIN.put(student.network)
    return seconds


def _by_images(search: Search, x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(search.loss(search.model(leaf)).sum(), leaf)
    return gradient


def _by_weights(model: Passes, x: Tensor) -> None:
    with torch.enable_grad():
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        torch.autograd.grad(model(x).logsumexp(1).sum(), weights, allow_unused=True)


def _now(where: torch.device) -> float:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter()
