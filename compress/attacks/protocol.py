"""Every gradient attack of the protocol against a student, its twin and the artifacts made from them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks import grid, losses, presets
from compress.attacks.contract import EnsembleAttack, Model
from compress.attacks.ensemble import evaluate
from compress.attacks.grid import settle, tensors
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import batch_random_start, pgd, step_size, strongest_iterate
from compress.config import AttackConfig
from compress.data.split import to_float
from compress.networks.base import Classifier
from compress.networks.graph.onnx_twin import GraphTwin
from compress.numerics.seeds import generator
from edge.attacks import checks
from edge.core.progress import Progress
from edge.runtimes.runner import Runner
from edge.statement.statement import figure
from edge.verify.alarms import MIN_AGREEMENT, disagreement


@dataclass(frozen=True)
class AttackedModel:
    """A model under attack: a torch network, or an artifact with its runner and its twin for the backward pass."""

    label: str
    role: str  # student, twin or artifact
    identity: str
    model: "Classifier | None"  # of an artifact its twin; None where it has none
    runner: "Runner | None" = None
    twin: "str | None" = None  # label of the twin among the subjects
    no_twin: "str | None" = None  # why an artifact has none
    precision: str = "float32"
    unexecuted: "str | None" = None  # why an artifact has no runner here; what is asked of it, its twin answers

    def infer(self, images: np.ndarray) -> np.ndarray:
        """uint8 or float32 images (N,C,H,W) → logits (N,K), by the artifact itself where there is one."""
        if self.runner is not None:
            return self.runner.infer(images)
        assert self.model is not None
        model = self.model.output if isinstance(self.model, GraphTwin) else self.model
        x = torch.from_numpy(images)
        x = to_float(x) if x.dtype == torch.uint8 else x
        with torch.no_grad():
            return torch.cat([model(part) for part in x.split(128)]).numpy()

    def hybrid(self) -> Model:
        """BPDA (Athalye et al. 2018): the artifact's logits forward, the twin's gradient backward."""
        assert self.runner is not None and self.model is not None
        runner, twin = self.runner, self.model
        probabilities = isinstance(twin, GraphTwin) and twin.probabilities

        def model(x: Tensor) -> Tensor:
            pretended = twin(x)
            real = torch.from_numpy(runner.infer(x.detach().cpu().numpy())).to(x.device)
            # the logarithm of a softmax is its logits but for a constant an image
            real = real.clamp(min=torch.finfo(real.dtype).tiny).log() if probabilities else real
            return pretended + (real - pretended).detach()

        return model

    def describe(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"label": self.label, "role": self.role, "identity": self.identity}
        entry["precision"] = self.precision
        if self.unexecuted is not None:
            return entry | {"twin": self.twin, "unexecuted": self.unexecuted}
        if self.runner is not None:
            entry |= {"file": self.runner.file, "sha256": self.runner.sha256, "twin": self.twin}
            return entry | ({"no_twin": self.no_twin} if self.no_twin else {})
        return entry | ({"made_from": "the graph of the file"} if isinstance(self.model, GraphTwin) else {})


#: labels (B,) → loss
LossOf = Callable[[Tensor], ImageLoss]


@dataclass(frozen=True)
class Ascent:
    """A model to ascend on, what to ascend, and what decides which iterate is kept."""

    name: str
    kind: str
    source: str
    where: str
    model: Model
    loss: LossOf
    judge: LossOf = losses.margin
    more: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self, config: AttackConfig, radius: float) -> dict[str, Any]:
        """What a report lists."""
        return {
            **self.more,
            "steps": config.steps,
            "step_size": step_size(config.step_size, radius, config.steps),
            "restarts": config.restarts,
            "seed": config.seed,
        }

    def run(
        self, clean: np.ndarray, labels: np.ndarray, config: AttackConfig, radius: float, bar: "Progress | None" = None
    ) -> Tensor:
        """Float candidates (N,C,H,W) at most `radius` away from uint8 `clean`, batch by batch."""
        results = []
        for number, (images, y) in enumerate(tensors(clean, labels, batch_size=config.batch_size)):
            results.append(self._batch(to_float(images), y, config, radius, number))
            if bar is not None:
                bar.step(1, note=self.name)
        return torch.cat(results)

    def _batch(self, x: Tensor, y: Tensor, config: AttackConfig, radius: float, number: int) -> Tensor:
        best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
        for restart in range(config.restarts):
            found, value = strongest_iterate(
                self.model,
                x,
                self.loss(y),
                self.judge(y),
                start=batch_random_start(x, radius, generator(config.seed, self.name, number, restart)),
                eps=radius,
                step_size=step_size(config.step_size, radius, config.steps),
                steps=config.steps,
            )
            better = value > best_value
            best[better], best_value[better] = found[better], value[better]
        return best


def cooled(temperature: float) -> LossOf:
    return functools.partial(losses.temperature, t=temperature)


HERE = "torch on the workstation"


@dataclass(frozen=True)
class FloatCandidates:
    """One attack's float images (N,C,H,W), within the grid's radius."""

    name: str
    parameters: dict[str, Any]
    images: np.ndarray


@dataclass(frozen=True)
class GridCandidates:
    """One attack's images, uint8 (N,C,H,W) on the 8-bit grid, and how they came about."""

    name: str
    kind: str
    source: str
    where: str
    parameters: dict[str, Any]
    images: np.ndarray

    def describe(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "images"}


@dataclass(frozen=True)
class AttackSetCandidates:
    """The candidates of every attack, and by torch model the worst case of its white box before any rounding."""

    candidates: list[GridCandidates]
    float_figures: dict[str, dict[str, Any]]


def attack_all(
    subjects: list[AttackedModel], clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig
) -> AttackSetCandidates:
    """Candidates on uint8 `clean` (N,C,H,W), one image an attack; `ids` (N,) name the images' random streams."""
    rows: list[GridCandidates] = []
    figures = {}
    for subject in subjects:
        if subject.role != "artifact":
            found, figures[subject.label] = white_box(subject, clean, labels, ids, config)
            rows += [_settled(subject, one, clean, labels, config) for one in found]
    radius = grid.radius(config.threat.eps) / 255
    ascents = list(_ascents(subjects, config))
    with Progress("attack set", len(ascents) * -(-len(labels) // config.batch_size)) as bar:
        for ascent in ascents:
            moved = ascent.run(clean, labels, config, radius, bar)
            images = _on_grid(ascent.model, moved, clean, labels, config, ascent.judge)
            parameters = ascent.parameters(config, radius)
            rows.append(GridCandidates(ascent.name, ascent.kind, ascent.source, ascent.where, parameters, images))
    return AttackSetCandidates(rows, figures)


def _settled(
    subject: AttackedModel, one: FloatCandidates, clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> GridCandidates:
    assert subject.model is not None
    images = _on_grid(subject.model, float_tensor(one), clean, labels, config, losses.verdict)
    name = f"{one.name}@{subject.label}"
    return GridCandidates(name, "white-box", subject.label, HERE, one.parameters, images)


def _on_grid(
    model: Model, moved: Tensor, clean: np.ndarray, labels: np.ndarray, config: AttackConfig, judge: LossOf
) -> np.ndarray:
    parts = zip(moved.split(config.batch_size), tensors(clean, labels, batch_size=config.batch_size), strict=True)
    return torch.cat([settle(model, part, x, config.threat.eps, judge(y)) for part, (x, y) in parts]).numpy()


def _ascents(subjects: list[AttackedModel], config: AttackConfig) -> Iterator[Ascent]:
    """Margin, temperature and differential attacks on each torch model, hybrid ones on each artifact with a twin."""
    student = next((subject.model for subject in subjects if subject.role == "student"), None)
    for subject in subjects:
        at, model = subject.label, subject.model
        if model is None or subject.unexecuted is not None:
            continue
        if subject.runner is not None:
            both = _where(subject.runner.describe())
            yield Ascent(f"bpda@{at}", "bpda", at, both, subject.hybrid(), losses.cross_entropy)
            yield Ascent(f"bpda-margin@{at}", "bpda", at, both, subject.hybrid(), losses.margin)
            continue
        here, t = HERE, config.temperature
        yield Ascent(f"pgd-margin@{at}", "margin", at, here, model, losses.margin)
        yield Ascent(f"pgd-temperature@{at}", "temperature", at, here, model, cooled(t), more={"temperature": t})
        if subject.role == "twin" and student is not None:
            pair = _both(student, model)
            yield Ascent(f"differential@{at}", "differential", at, here, pair, _diverging, _diverged)


def _where(described: Mapping[str, Any]) -> str:
    """Of a hybrid attack: which runtime ran forward, and where."""
    if "host" in described:
        return f"forward by {described['name']} on {described['host']}, backward by torch on the workstation"
    return f"forward by {described['name']}, backward by torch, on the workstation"


def _both(student: Model, twin: Model) -> Model:
    """The logits of both side by side, (B, 2K): what the differential attack ascends on."""
    return lambda x: torch.cat([student(x), twin(x)], 1)


def _diverging(y: Tensor) -> ImageLoss:
    """DIVA (Hao et al. 2022): the true class's probability kept on the float student and taken from the twin."""

    def loss(logits: Tensor) -> Tensor:
        student, twin = (part.softmax(1).gather(1, y[:, None])[:, 0] for part in logits.chunk(2, 1))
        return student - twin

    return loss


def _diverged(y: Tensor) -> ImageLoss:
    """Positive where the twin is wrong and the student right."""
    worse = losses.margin(y)

    def judge(logits: Tensor) -> Tensor:
        student, twin = logits.chunk(2, 1)
        return torch.minimum(worse(twin), -worse(student))

    return judge


def white_box(
    subject: AttackedModel, clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig
) -> tuple[list[FloatCandidates], dict[str, Any]]:
    """Every attack's candidates at the grid's radius, and the figure that they reach as floats at the real ε.

    The second search is spared where ⌊255 ε⌋ / 255 is ε itself.
    """
    radius = grid.radius(config.threat.eps) / 255
    found = list(_search(subject, clean, labels, ids, config, radius))
    eps = Fraction(config.threat.eps)
    at_eps = found
    if Fraction(grid.radius(config.threat.eps), 255) != eps:
        at_eps = list(_search(subject, clean, labels, ids, config, float(eps)))
    return found, _figure(subject, at_eps, clean, labels, config)


def _search(
    subject: AttackedModel, clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, config: AttackConfig, radius: float
) -> Iterator[FloatCandidates]:
    assert subject.model is not None
    if config.ensemble == "none":
        at = subject.label
        ascent = Ascent(f"pgd-ce@{at}", "white-box", at, HERE, subject.model, losses.cross_entropy)
        images = ascent.run(clean, labels, config, radius).numpy()
        yield FloatCandidates("pgd-ce", ascent.parameters(config, radius), images)
        return
    for one in _plan(subject, clean, config):
        result = evaluate(
            subject.model,
            clean,
            labels,
            (one,),
            eps=radius,
            seed=config.seed,
            batch_size=config.batch_size,
            precision="float32",  # of a quantized network another rounding is another network
            ids=ids,
        )
        parameters = {**one.parameters(), "ensemble": config.ensemble, "seed": config.seed}
        yield FloatCandidates(one.name, parameters, result.adversarial)


def _plan(subject: AttackedModel, clean: np.ndarray, config: AttackConfig) -> list[EnsembleAttack]:
    plan = presets.attack_plan(config.ensemble, subject.infer(clean[:1]).shape[1])
    return [one for one in plan if not presets.gradient_free(one.name)]


def _figure(
    subject: AttackedModel, found: list[FloatCandidates], clean: np.ndarray, labels: np.ndarray, config: AttackConfig
) -> dict[str, Any]:
    """Worst case over float candidates at the real ε, nothing rounded; only counts, the images are not kept."""
    right = subject.infer(clean).argmax(1) == labels
    standing = right.copy()
    for one in found:
        broken = subject.infer(one.images).argmax(1) != labels
        standing &= ~(broken & checks.admissible(one.images, clean, config.threat.radius))
    return {
        "eps": config.threat.eps,
        "attacks": [one.name for one in found],
        "clean": figure(int(right.sum()), len(labels)),
        "robust": figure(int(standing.sum()), len(labels)),
    }


def float_tensor(candidate: FloatCandidates) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(candidate.images))


STEPS = 5  # of the probe: adversarial enough to show values that clean images do not reach
MOST = 256  # images of the probe
FEW = 3  # images that decide nothing: near a boundary one 8-bit rounding turns a prediction


def twin_agreement(artifact: AttackedModel, clean: np.ndarray, labels: np.ndarray, eps: str) -> dict[str, Any]:
    """Argmax agreement of artifact and twin on uint8 `clean` (N,C,H,W) and on quick adversarial images of the twin.

    {"clean": {"n", "argmax_agreement"}, "adversarial": {…}}
    """
    assert artifact.model is not None
    chosen, y = clean[:MOST], labels[:MOST]
    radius = grid.radius(eps) / 255
    moved = []
    for images, wanted in tensors(chosen, y, batch_size=128):
        x, loss = to_float(images), losses.cross_entropy(wanted)
        found = pgd(artifact.model, x, loss, start=x, eps=radius, step_size=radius / 2, steps=STEPS)
        moved.append(grid.snap(found, images, eps))
    twin = AttackedModel("", "twin", "", artifact.model)
    return {
        "clean": _agreement(artifact, twin, clean),
        "adversarial": _agreement(artifact, twin, torch.cat(moved).numpy()),
    }


def twin_alarm(label: str, twin: str, found: dict[str, Any]) -> "dict[str, Any] | None":
    """What is said of an artifact that differs from its twin on more than 1 % of a kind of image, and on 4 at least."""
    side, share, count, n = disagreement(found)
    if share >= MIN_AGREEMENT or count <= FEW:
        return None
    meaning = (
        f"{label} does not compute what its twin {twin} computes: {count} of {n} predictions on {side} images differ; "
        f"its gradients are another network's"
    )
    return {"name": "twin disagrees", "model": label, "twin": twin, "count": count, "n": n, "meaning": meaning}


def _agreement(artifact: AttackedModel, twin: AttackedModel, images: np.ndarray) -> dict[str, Any]:
    same = artifact.infer(images).argmax(1) == twin.infer(images).argmax(1)
    return {"n": len(images), "argmax_agreement": float(same.mean())}
