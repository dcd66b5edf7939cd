"""What a training method is to the one loop: images that an attack finds, and named parts of a loss.

An objective sees of a step the images, and what student and teacher say of them, each asked once. It, and what is added
to one, keeps its parameters and statistics in `state`, a torch module. It is none itself: a class statement that names
torch's would import torch with every method's options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from compress.methods.base import Classifier, Features, Preparation, Tensor, torch

if TYPE_CHECKING:
    from torch import nn

    from compress.attacks.contract import Model
    from compress.attacks.losses import ImageLoss

Own = TypeVar("Own", bound="Stateful")
#: A loss by named terms: (B,) has one value an image, averaged over the batch; () is a statistic of the whole batch.
Terms = dict[str, "Tensor"]


@dataclass(frozen=True)
class TrainingBatch:
    """Clean images `x` (B,C,H,W) in [0, 1] with labels `y` (B,), and who may be asked about them."""

    x: Tensor
    y: Tensor
    teacher: Classifier | None = None
    #: a second teacher, trained on clean images, of the methods that have one
    clean_teacher: Classifier | None = None
    #: the teacher's logits are divided by it (Chen & Lee 2021); the student's never
    temperature: float = 1.0
    #: share of the run that is done, [0, 1)
    progress: float = 0.0
    #: where the images stand in the training split, (B,), for objectives that remember images
    index: Tensor | None = None
    #: (seed, epoch, step), for objectives that draw at random
    key: tuple[int, ...] = ()

    @property
    def guide(self) -> Classifier:
        """The teacher, for methods that need one."""
        assert self.teacher is not None, "a method that needs a teacher was run without one"
        return self.teacher

    def teach(self, x: Tensor) -> Features:
        """The teacher on those images (B,C,H,W), without gradients, its logits over `temperature`."""
        return self._without_gradients(self.guide, x)

    def teach_clean(self, x: Tensor) -> Features:
        """The second teacher, likewise."""
        assert self.clean_teacher is not None, "a method that needs a second teacher was run without one"
        return self._without_gradients(self.clean_teacher, x)

    def _without_gradients(self, teacher: Classifier, x: Tensor) -> Features:
        with torch.no_grad():
            features = teacher.forward_features(x)
        return features if self.temperature == 1 else replace(features, logits=features.logits / self.temperature)

    @cached_property
    def taught(self) -> Features:
        """The teacher on the clean images."""
        return self.teach(self.x)


class Views:
    """Student (with gradients) and teacher (without) on the batch's clean and adversarial images.

    Every property is one pass, made when it is first read.
    """

    def __init__(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> None:
        self.student, self.batch, self.x_adv = student, batch, x_adv
        self.x, self.y = batch.x, batch.y

    @cached_property
    def clean(self) -> Features:
        """The student on x."""
        return self.student.forward_features(self.x)

    @cached_property
    def adversarial(self) -> Features:
        """The student on x_adv."""
        return self.student.forward_features(self.x_adv)

    @property
    def taught_clean(self) -> Features:
        """The teacher on x."""
        return self.batch.taught

    @cached_property
    def taught_adversarial(self) -> Features:
        """The teacher on x_adv."""
        return self.batch.teach(self.x_adv)


class InnerAttack(Protocol):
    """How training images are searched; the section `attack` of a training configuration."""

    @property
    def steps(self) -> int:
        """Gradient steps of each batch."""

    @property
    def step_size(self) -> str | None:
        """As people write it; None: 2.5 · eps / steps."""


@dataclass(frozen=True)
class Search:
    """What the inner maximisation ascends: `loss`, (B,) of what `model` gives for the images."""

    model: Model
    loss: ImageLoss


class Stateful:
    """What learns parameters or keeps statistics, none of them ever shipped. They change in `after_step` alone.

    So parts can be computed any number of times in a step.
    """

    def __init__(self, **parts: nn.Module) -> None:
        """`parts` by the names under which a checkpoint has them."""
        self.state: nn.Module = torch.nn.ModuleDict(parts)

    def after_step(self) -> None:
        """The weights were updated: keep what the step's statistics were."""

    def to(self: Own, where: torch.device | torch.dtype) -> Own:
        """The state on a device, or in a floating-point type."""
        self.state.to(where)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained together with the student."""
        return self.state.parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state.load_state_dict(state)


class Objective(Stateful):
    """One method."""

    attacks: bool = True
    #: see `TrainingBatch.temperature`
    teacher_temperature: float = 1.0

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        """What the attack on this batch ascends; the student is in evaluation mode."""
        raise NotImplementedError

    def single_step(self, attack: InnerAttack) -> bool:
        """Whether training images are made by one gradient step, which can overfit catastrophically."""
        return self.attacks and attack.steps == 1

    def adversarial(
        self, student: Classifier, batch: TrainingBatch, attack: InnerAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        """The training images x_adv (B,C,H,W), without gradients: PGD from a uniform start in the ball.

        The student is in evaluation mode, so that its statistics stay as they are.
        """
        from compress.attacks.pgd import batch_random_start, pgd, step_size

        search = self.search(student, batch)
        return pgd(
            search.model,
            batch.x,
            search.loss,
            start=batch_random_start(batch.x, eps, draw),
            eps=eps,
            step_size=step_size(attack.step_size, eps, attack.steps),
            steps=attack.steps,
        )

    def terms(self, views: Views) -> Terms:
        """The outer loss by named terms; the sum of their means over the batch is minimised."""
        raise NotImplementedError

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        """The outer loss as named scalars: means over the batch throughout."""
        return {name: term.mean() for name, term in self.terms(Views(student, batch, x_adv)).items()}


class StatelessObjective(Objective):
    """A method that is one function of what its networks see, and a search."""

    def __init__(
        self,
        terms: Callable[[Views], Terms],
        search: Callable[[Classifier, TrainingBatch], Search],
        teacher_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._terms, self._search, self.teacher_temperature = terms, search, teacher_temperature

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return self._search(student, batch)

    def terms(self, views: Views) -> Terms:
        return self._terms(views)


def stateless(
    terms: Callable[[Views, Any], Terms], search: Callable[[Classifier, TrainingBatch], Search]
) -> Callable[[Any, Preparation], Objective]:
    """What makes the objective of a method without a state: terms(views, options) under the attack `search`."""
    return lambda options, preparation: StatelessObjective(
        lambda views: terms(views, options), search, getattr(options, "teacher_temperature", 1.0)
    )


class Addition(Stateful):
    """What a method adds to another one, its host: further terms, or weights of its images.

    Passes of the student that `views` makes for it leave the student's buffers and torch's random streams as they were.
    """

    #: Whether it reads what the student says of the attack's iterates.
    watches: bool = False

    def terms(self, views: Views) -> Terms:
        """Further terms."""
        return {}

    def weights(self, views: Views) -> Tensor | None:
        """What the host's terms of each image are multiplied by, (B,); None: nothing."""
        return None

    def watch(self, logits: Tensor, y: Tensor) -> None:
        """The student's logits (B,K) at one iterate of the attack on images of labels y (B,)."""


class Combined(Objective):
    """A host and what is added to it: the host's attack, the terms of all.

    An addition changes the loss and nothing else. The host makes its passes as it does alone, in its order; those that
    additions need beside them leave BatchNorm's statistics and the random streams as they were. So a host with an
    addition of weight 0 is the host, to the bit.
    """

    def __init__(self, host: Objective, additions: Sequence[Addition]) -> None:
        super().__init__(host=host.state, additions=torch.nn.ModuleList([addition.state for addition in additions]))
        self.host, self.additions = host, list(additions)
        self.attacks = host.attacks
        self.teacher_temperature = host.teacher_temperature

    def search(self, student: Classifier, batch: TrainingBatch) -> Search:
        return self.host.search(student, batch)

    def single_step(self, attack: InnerAttack) -> bool:
        return self.host.single_step(attack)

    def adversarial(
        self, student: Classifier, batch: TrainingBatch, attack: InnerAttack, *, eps: float, draw: torch.Generator
    ) -> Tensor:
        watching = [addition for addition in self.additions if addition.watches]
        if watching:

            def show(logits: Tensor) -> None:
                for addition in watching:
                    addition.watch(logits, batch.y)

            student = WatchedNetwork(student, show)  # type: ignore[assignment]
        return self.host.adversarial(student, batch, attack, eps=eps, draw=draw)

    def terms(self, views: Views) -> Terms:
        """The host's terms, its images weighted, then those of each addition; no name twice."""
        from compress.networks.undisturbed import without_trace

        terms = self.host.terms(views)
        with without_trace(views.student):
            for addition in self.additions:
                weights = addition.weights(views)
                if weights is not None:
                    terms = {name: weights * term if term.ndim else term for name, term in terms.items()}
            for addition in self.additions:
                terms |= addition.terms(views)
        return terms

    def after_step(self) -> None:
        self.host.after_step()
        for addition in self.additions:
            addition.after_step()


class WatchedNetwork:
    """A network as an attack calls it, whose logits are shown to `see` in every pass that gradients are wanted of."""

    def __init__(self, network: Classifier, see: Callable[[Tensor], None]) -> None:
        self.network, self.see = network, see
        self.has_features = network.has_features

    def forward_features(self, x: Tensor) -> Features:
        features = self.network.forward_features(x)
        if torch.is_grad_enabled():
            self.see(features.logits.detach())
        return features

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward_features(x).logits
