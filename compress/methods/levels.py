"""Which features of student and teacher are compared, and how their widths are brought together."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from compress.methods.statistics import principal_directions
from compress.networks import Classifier, Features
from edge.core.errors import CompressError


def pooled(features: Features, which: str) -> list[Tensor]:
    """`penultimate`: [pooled features (B,D)]; `stages`: the mean over space of each stage's maps, [(B,C), …]."""
    if which == "penultimate":
        return [features.pooled]
    return [
        stage.float().mean((2, 3)) if stage.dtype != torch.float64 else stage.mean((2, 3)) for stage in features.stages
    ]


#: Of so many images on, a teacher's principal directions are known well enough.
ENOUGH = 5000


def enough(clean: Iterable[Tensor]) -> Iterator[Tensor]:
    """Batches until they hold `ENOUGH` images."""
    seen = 0
    for x in clean:
        yield x
        seen += len(x)
        if seen >= ENOUGH:
            return


def asked(network: Classifier, x: Tensor) -> Features:
    """What a network says of images (B,C,H,W) before training: in evaluation mode, so that no statistic moves."""
    modes = [(module, module.training) for module in network.modules()]  # a wrapper's need not be its network's
    network.eval()
    with torch.no_grad():
        found = network.forward_features(x)
    for module, training in modes:
        module.training = training
    return found


class Projections(nn.Module):
    """P of the student's features and Q of the teacher's, level by level; of several stages the last ones are paired.

    `principal`: Q is the teacher's directions of largest variance, as many as the student is wide, P nothing.
    `learned`: P is a linear map to the teacher's width, trained with the student. `identity`: neither.
    """

    def __init__(
        self, kind: str, which: str, student: Classifier, teacher: Classifier, clean: Iterable[Tensor]
    ) -> None:
        """`clean`, again and again, yields batches of training images (B,C,H,W) by which directions are found."""
        super().__init__()
        self.which = which
        mine = pooled(asked(student, next(iter(clean))[:2]), which)
        batches = [pooled(asked(teacher, x), which) for x in enough(clean)]
        seen = [torch.cat(level) for level in zip(*batches, strict=True)]
        self.levels = min(len(mine), len(seen))
        self.maps = nn.ModuleList()
        for level, (s, t) in enumerate(zip(mine[-self.levels :], seen[-self.levels :], strict=True)):
            width, teacher_width = s.shape[1], t.shape[1]
            _check(kind, width, teacher_width)
            learned = nn.Linear(width, teacher_width, bias=False).to(t.device)
            nn.init.orthogonal_(learned.weight)
            self.maps.append(learned if kind == "learned" else nn.Identity())
            directions = principal_directions(t, width) if kind == "principal" else t.new_empty(0)
            self.register_buffer(f"directions{level}", directions)

    def student(self, features: Features) -> list[Tensor]:
        """P f_S of each level, (B,D)."""
        return [apply(f) for apply, f in zip(self.maps, self.raw(features), strict=True)]

    def teacher(self, features: Features) -> list[Tensor]:
        """Q f_T of each level, (B,D)."""
        rows = [self.get_buffer(f"directions{level}") for level in range(self.levels)]
        return [f @ q.T if q.numel() else f for q, f in zip(rows, self.raw(features), strict=True)]

    def raw(self, features: Features) -> list[Tensor]:
        """The features of each level as they are, (B,D)."""
        return pooled(features, self.which)[-self.levels :]


def _check(kind: str, width: int, teacher_width: int) -> None:
    if kind == "identity" and width != teacher_width:
        raise CompressError(
            f"options.projection: identity needs equal widths, the student has {width} features and the teacher "
            f"{teacher_width}; use principal or learned"
        )
    if kind == "principal" and width > teacher_width:
        raise CompressError(
            f"options.projection: principal needs a teacher at least as wide, the student has {width} features and "
            f"the teacher {teacher_width}; use learned"
        )
