"""A network of another package or of a user as a classifier: its faults under its name, its logits checked."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.networks.base import Classifier, Features, Normalize
from compress.networks.feature_sites import tapped
from compress.networks.found_features import FoundFeatures, NamedFeatures, find_features, listed
from compress.networks.undisturbed import undisturbed
from edge.core.errors import CompressError
from edge.core.user_code import user_code


class Foreign(Classifier):
    """A network of another package. Where it has features is found when they are first asked for (`found_features`)."""

    def __init__(self, net: nn.Module, name: str, classes: int, *, normalize: int = 0, probabilities: bool = False):
        super().__init__()
        self.preprocess = Normalize(normalize) if normalize else nn.Identity()
        self.net = net
        self.name = name
        self.probabilities = probabilities
        self.returned: torch.dtype | None = None  # of what the last call gave, before it was taken as float32
        self.shape: tuple[int, ...] = ()  # (C,H,W) of its images, where that is known before it sees some
        self.named = NamedFeatures()
        self._found: FoundFeatures | None = None
        self.views: dict[bool, bool] = {}

    @property
    def has_features(self) -> bool:  # type: ignore[override]
        """By a pass, unless there was one; before images are known any network may have some."""
        return not self.shape or bool(self.found(self.shape).pooled)

    def found(self, shape: "tuple[int, ...]") -> FoundFeatures:
        """Where its features are in passes on images (C,H,W)."""
        if self._found is None or (self._found.shape != shape and not torch.compiler.is_compiling()):
            where = next((weight.device for weight in self.net.parameters()), torch.device("cpu"))
            images = torch.linspace(0, 1, 2 * math.prod(shape), device=where).reshape(2, *shape)
            with undisturbed(self.net):
                self._found = find_features(self.net, images, lambda: self._called(images), self.named, self.name)
        return self._found

    def nothing_found(self) -> str:
        """Where it has no features: what was looked for, and what may be named."""
        modules = listed([name for name, _ in self.net.named_modules() if name])
        fix = f"name one as features.pooled: {modules}" if modules else "write it with functions of torch"
        return f"no linear layer was seen that the logits of {self.name} depend on ({fix})"

    def forward_features(self, x: Tensor) -> Features:
        found = self.found(tuple(x.shape[1:]))
        with tapped(self.net, found.sites) as seen:
            logits = self(x)
        if not found.pooled:
            return Features(logits, logits.new_zeros((len(logits), 0)), ())
        pooled, stages = found.read(seen.at, self.name)
        return Features(logits, pooled.float(), stages)

    def forward(self, x: Tensor) -> Tensor:
        raw = self._called(x)
        logits = _checked_logits(raw, self.name, x)
        self.returned = raw.dtype
        return logits.clamp(min=1e-30).log() if self.probabilities else logits

    def _called(self, x: Tensor) -> Any:
        return _called(self.net, self.preprocess(x), self.name, self.views, self.training)


class _ViewsAsReshapes(TorchFunctionMode):
    """`x.view(…)` of values in another order in memory, as channels last, which copies them then."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.view:
            return func(*args, **(kwargs or {}))
        self.seen = True
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as fault:
            if "size and stride" not in str(fault):
                raise
            return Tensor.reshape(*args, **(kwargs or {}))


def _called(forward: Callable[[Tensor], Any], x: Tensor, name: str, views: dict[bool, bool], training: bool) -> Any:
    """What code of others makes of images, its faults under its name: the one seam to networks of others.

    `views`: whether it calls `view`, by whether it is `training`; noted at the first call.
    """
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):  # who traces it wants its faults as they are
        return forward(x)
    dtype = str(x.dtype).removeprefix("torch.")
    with user_code(name, "mend its forward, or give it what it takes", f" on images {tuple(x.shape)} {dtype}"):
        if isinstance(forward, torch.jit.ScriptModule):  # of whose calls nothing is seen
            return forward(x.clone(memory_format=torch.contiguous_format))
        if not views.get(training, True):
            return forward(x)
        with _ViewsAsReshapes() as mode:
            answer = forward(x)
        views[training] = mode.seen
        return answer


def _checked_logits(logits: Any, name: str, x: Tensor) -> Tensor:
    """One row of class scores an image of `x`, as float32: (N,K)."""
    if not isinstance(logits, Tensor):
        keys = list(logits) if isinstance(logits, Mapping) else []
        held = f" of {', '.join(map(str, keys[:4]))}" if keys else ""
        fix = (
            'return its "logits" alone'
            if "logits" in keys or hasattr(logits, "logits")
            else "return logits (N, classes) alone"
        )
        raise CompressError(f"{name}: its forward gives a {type(logits).__name__}{held}; {fix}")
    # an exporter, for which the number of images is open, would take a comparison for its end
    if logits.ndim != 2 or (not torch.compiler.is_compiling() and len(logits) != len(x)):
        flat = logits.ndim > 2 and logits.shape[:2].numel() == logits.numel()
        fix = "flatten it: .flatten(1)" if flat else "logits (N, classes) are needed, wrap it"
        raise CompressError(f"{name}: its forward gives a tensor {tuple(logits.shape)} for {len(x)} images; {fix}")
    if not logits.is_floating_point():
        raise CompressError(f"{name}: its forward gives {logits.dtype} values; logits are needed, before any argmax")
    if logits.layout != torch.strided:
        raise CompressError(f"{name}: its forward gives a sparse tensor; make it dense: .to_dense()")
    if not type(logits).__module__.startswith("torch"):  # a package's own Tensor, whose operators are its own too
        with torch._C.DisableTorchFunctionSubclass():
            logits = logits.as_subclass(Tensor)
    return logits.float()


def is_scripted(network: nn.Module) -> bool:
    """Whether some of it is TorchScript, into which nothing here looks."""
    return any(isinstance(part, torch.jit.ScriptModule) for part in network.modules())


def refuse_scripted(network: nn.Module, where: object) -> None:
    """TorchScript can teach and be attacked, but is neither trained, quantized nor exported here."""
    if is_scripted(network):
        raise CompressError(
            f"{where}: is TorchScript, whose layers can be neither quantized nor exported; `teacher import` takes it "
            f"as a teacher, all else needs the torch.nn.Module that it was made from"
        )


def guarded(net: Classifier, name: str) -> Classifier:
    """A classifier that a user's function made, called through the seam; its weights keep their names."""
    kind, views = type(net), dict[bool, bool]()

    def forward_features(self: Classifier, x: Tensor) -> Features:
        features = _called(lambda x: kind.forward_features(self, x), x, name, views, self.training)
        if not isinstance(features, Features):
            raise CompressError(f"{name}: its forward_features gives a {type(features).__name__}; return Features")
        if not isinstance(x, Tensor):  # it is traced
            return features
        if isinstance(features.logits, Tensor):
            object.__setattr__(self, "returned", features.logits.dtype)
        _check_features(features, name, x)
        return replace(features, logits=_checked_logits(features.logits, name, x))

    net.__class__ = type(kind.__name__, (kind,), {"forward_features": forward_features})
    return net


def _check_features(features: Features, name: str, x: Tensor) -> None:
    """Pooled features and stages as every reader takes them: one row, one map an image."""
    for what, value, ndim, shape in (
        ("pooled", features.pooled, 2, "(N, D)"),
        *(("stages", stage, 4, "(N, C, H, W)") for stage in features.stages),
    ):
        if not isinstance(value, Tensor) or value.ndim != ndim:
            got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise CompressError(f"{name}: its Features have {got} in {what} for {len(x)} images; {shape} is needed")
