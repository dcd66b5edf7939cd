"""What makes an attack set: the gradient part of the protocol against a student, its twins and the artifacts.

In this order, on the same images, one candidate an image and attack:

1. Each artifact is compared with its twin (`compare_with_twins`): gradients of another network are worth nothing.
2. White box: every gradient attack of the ensemble, each on its own, on every torch model (`white_box`), at the radius
   of the 8-bit grid, and at the real ε where that is another: the figure that floats would reach (`float_figure`).
3. Margin, temperature and differential losses on every torch model, BPDA on every artifact with a twin (`ascents`).
4. Float candidates become images of the grid that are as strong as before (`on_grid`).
5. Every candidate is shown to every model, and counts where `edge.attacks.checks` says so (`replay`).

What needs only the artifact (replay there, Square, a decision-based attack) is `edge.verify.verify`'s.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.attacks import ball, losses, presets
from compress.attacks.ball import settle_on_grid, tensor_batches
from compress.attacks.contract import EnsembleAttack, Model
from compress.attacks.ensemble import evaluate
from compress.attacks.losses import ImageLoss
from compress.attacks.pgd import batch_random_start, pgd, step_size, strongest_iterate
from compress.data.split import to_float
from compress.networks.base import Classifier
from compress.networks.graph.onnx_twin import GraphTwin
from compress.numerics.seeds import generator
from edge.attacks import checks
from edge.core.progress import Progress, say
from edge.runtimes.runner import Runner
from edge.statement.statement import Agreed, Agreement, figure
from edge.verify.alarms import MIN_AGREEMENT, disagreement
from edge.verify.attack_set import PROBABILITIES

HERE = "torch on the workstation"
PROBE_STEPS = 5  # of the probe: adversarial enough to show values that clean images do not reach
PROBE_IMAGES = 256
FEW = 3  # images that decide nothing: near a boundary one 8-bit rounding turns a prediction

#: labels (B,) → loss
LossOf = Callable[[Tensor], ImageLoss]


@dataclass(frozen=True)
class ProtocolSettings:
    """How strong the attacks are; `eps` and `step_size` are fractions as written, on pixels in [0, 1]."""

    eps: str
    ensemble: str  # "standard", "quick", or "none": PGD alone
    steps: int  # of PGD in each attack beside the ensemble
    step_size: "str | None"
    restarts: int
    temperature: float
    batch_size: int
    seed: int

    @property
    def radius(self) -> float:
        """The largest radius inside ε that images of the 8-bit grid can have."""
        return ball.grid_radius(self.eps) / 255

    def of_pgd(self) -> dict[str, Any]:
        """What a report lists of PGD at that radius."""
        size = step_size(self.step_size, self.radius, self.steps)
        return {"steps": self.steps, "step_size": size, "restarts": self.restarts, "seed": self.seed}


@dataclass(frozen=True)
class AttackedModel:
    """A model under attack: a torch network, or an artifact with its runner and its twin for the backward pass."""

    label: str
    role: str  # student, twin or artifact
    identity: str
    model: "Classifier | None"  # of an artifact its twin; None where it has none
    runner: "Runner | None" = None
    twin: "str | None" = None  # label of the twin among the models
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

        def model(x: Tensor) -> Tensor:
            pretended = twin(x)
            real = torch.from_numpy(runner.infer(x.detach().cpu().numpy())).to(x.device)
            real = twin.logits_of_output(real) if isinstance(twin, GraphTwin) else real
            return pretended + (real - pretended).detach()

        return model

    def describe(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"label": self.label, "role": self.role, "identity": self.identity}
        entry["precision"] = self.precision
        if self.unexecuted is not None:
            return entry | {"twin": self.twin, "unexecuted": self.unexecuted}
        if self.runner is not None:
            entry |= {"file": self.runner.file, "sha256": self.runner.sha256, "twin": self.twin}
            if isinstance(self.model, GraphTwin) and self.model.meaning.kind == PROBABILITIES:
                entry["outputs"] = PROBABILITIES
            return entry | ({"no_twin": self.no_twin} if self.no_twin else {})
        return entry | ({"made_from": "the graph of the file"} if isinstance(self.model, GraphTwin) else {})


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
class ProtocolResult:
    """Of A attacks on N images, and M models."""

    agreement: dict[str, dict[str, Any]]  # of each artifact with its twin, by its label
    alarms: list[dict[str, Any]]
    candidates: list[GridCandidates]
    float_figures: dict[str, dict[str, Any]]  # by torch model, the worst case of its white box before any rounding
    predictions: np.ndarray  # int16 (A,M,N)
    broken: np.ndarray  # bool (A,M,N): admissible and misclassified


def attack_models(
    models: Sequence[AttackedModel], clean: np.ndarray, labels: np.ndarray, ids: np.ndarray, settings: ProtocolSettings
) -> ProtocolResult:
    """The protocol on uint8 `clean` (N,C,H,W) with `labels` (N,); `ids` (N,) name the images' random streams."""
    agreement, alarms = compare_with_twins(models, clean, labels, settings)
    candidates, figures = [], {}
    radii = list(dict.fromkeys([settings.radius, float(Fraction(settings.eps))]))  # of the grid, and the real one
    for attacked in models:
        if attacked.role == "artifact":
            continue
        assert attacked.model is not None
        searched: dict[float, dict[str, np.ndarray]] = {radius: {} for radius in radii}
        about: dict[str, dict[str, Any]] = {}
        for attack in white_box(attacked, clean, settings):
            about[attack.name] = {**attack.parameters(), "ensemble": settings.ensemble, "seed": settings.seed}
            for radius in radii:
                result = evaluate(
                    attacked.model,
                    clean,
                    labels,
                    (attack,),
                    eps=radius,
                    seed=settings.seed,
                    batch_size=settings.batch_size,
                    precision="float32",  # of a quantized network another rounding is another network
                    ids=ids,
                )
                searched[radius][attack.name] = result.adversarial
        if settings.ensemble == "none":
            plain = Ascent(f"pgd-ce@{attacked.label}", attacked.model, losses.cross_entropy)
            about["pgd-ce"] = settings.of_pgd()
            for radius in radii:
                searched[radius]["pgd-ce"] = plain.run(clean, labels, settings, radius).numpy()
        for name, floats in searched[settings.radius].items():
            images = on_grid(attacked.model, torch.from_numpy(floats), clean, labels, settings, losses.verdict)
            name_at = f"{name}@{attacked.label}"
            candidates.append(GridCandidates(name_at, "white-box", attacked.label, HERE, about[name], images))
        figures[attacked.label] = float_figure(attacked, searched[radii[-1]], clean, labels, settings)
    planned = list(ascents(models, settings))
    with Progress("attack set", len(planned) * -(-len(labels) // settings.batch_size)) as bar:
        for kind, source, where, ascent, parameters in planned:
            moved = ascent.run(clean, labels, settings, settings.radius, bar)
            images = on_grid(ascent.model, moved, clean, labels, settings, ascent.judge)
            candidates.append(GridCandidates(ascent.name, kind, source, where, parameters, images))
    return ProtocolResult(agreement, alarms, candidates, figures, *replay(models, candidates, clean, labels, settings))


def white_box(attacked: AttackedModel, clean: np.ndarray, settings: ProtocolSettings) -> list[EnsembleAttack]:
    """The attacks of the ensemble that take gradients."""
    if settings.ensemble == "none":
        return []
    plan = presets.attack_plan(settings.ensemble, attacked.infer(clean[:1]).shape[1])
    return [attack for attack in plan if not presets.gradient_free(attack.name)]


def float_figure(
    attacked: AttackedModel,
    searched: Mapping[str, np.ndarray],
    clean: np.ndarray,
    labels: np.ndarray,
    settings: ProtocolSettings,
) -> dict[str, Any]:
    """Worst case over float candidates at the real ε, by attack, nothing rounded; only counts are kept."""
    right = ~checks.wrong(attacked.infer(clean), labels)
    standing = right.copy()
    for images in searched.values():
        broken = checks.wrong(attacked.infer(images), labels)
        standing &= ~(broken & checks.admissible(images, clean, float(Fraction(settings.eps))))
    return {
        "eps": settings.eps,
        "attacks": list(searched),
        "clean": figure(int(right.sum()), len(labels)),
        "robust": figure(int(standing.sum()), len(labels)),
    }


# ------------------------------------------------------------------------------------------- losses of their own


@dataclass(frozen=True)
class Ascent:
    """PGD on a model and a loss of one's choice; of all iterates and restarts the one of largest `judge` is kept."""

    name: str
    model: Model
    loss: LossOf
    judge: LossOf = losses.margin

    def run(
        self,
        clean: np.ndarray,
        labels: np.ndarray,
        settings: ProtocolSettings,
        radius: float,
        bar: "Progress | None" = None,
    ) -> Tensor:
        """Float candidates (N,C,H,W) at most `radius` away from uint8 `clean`, batch by batch."""
        strongest = []
        for number, (images, y) in enumerate(tensor_batches(clean, labels, batch_size=settings.batch_size)):
            x = to_float(images)
            best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
            for restart in range(settings.restarts):
                iterate, value = strongest_iterate(
                    self.model,
                    x,
                    self.loss(y),
                    self.judge(y),
                    start=batch_random_start(x, radius, generator(settings.seed, self.name, number, restart)),
                    eps=radius,
                    step_size=step_size(settings.step_size, radius, settings.steps),
                    steps=settings.steps,
                )
                better = value > best_value
                best[better], best_value[better] = iterate[better], value[better]
            strongest.append(best)
            if bar is not None:
                bar.step(1, note=self.name)
        return torch.cat(strongest)


def ascents(
    models: Sequence[AttackedModel], settings: ProtocolSettings
) -> Iterator[tuple[str, str, str, Ascent, dict[str, Any]]]:
    """Margin, temperature and differential attacks on each torch model, hybrid ones on each artifact with a twin.

    (kind, source, where it runs, what to run, its parameters)
    """
    student = next((attacked.model for attacked in models if attacked.role == "student"), None)
    plain, t = settings.of_pgd(), settings.temperature
    for attacked in models:
        at, model = attacked.label, attacked.model
        if model is None or attacked.unexecuted is not None:
            continue
        if attacked.runner is not None:
            runtime = attacked.runner.describe()
            both = f"forward by {runtime['name']}, backward by torch, on the workstation"
            if "host" in runtime:
                both = f"forward by {runtime['name']} on {runtime['host']}, backward by torch on the workstation"
            yield "bpda", at, both, Ascent(f"bpda@{at}", attacked.hybrid(), losses.cross_entropy), plain
            yield "bpda", at, both, Ascent(f"bpda-margin@{at}", attacked.hybrid(), losses.margin), plain
            continue
        cooled = functools.partial(losses.temperature, t=t)
        yield "margin", at, HERE, Ascent(f"pgd-margin@{at}", model, losses.margin), plain
        yield "temperature", at, HERE, Ascent(f"pgd-temperature@{at}", model, cooled), {"temperature": t, **plain}
        if attacked.role == "twin" and student is not None:
            pair = side_by_side(student, model)
            yield "differential", at, HERE, Ascent(f"differential@{at}", pair, diverging, diverged), plain


def side_by_side(student: Model, twin: Model) -> Model:
    """The logits of both, (B, 2K): what the differential attack ascends on."""
    return lambda x: torch.cat([student(x), twin(x)], 1)


def diverging(y: Tensor) -> ImageLoss:
    """DIVA (Hao et al. 2022): the true class's probability kept on the float student and taken from the twin."""

    def loss(logits: Tensor) -> Tensor:
        student, twin = (part.softmax(1).gather(1, y[:, None])[:, 0] for part in logits.chunk(2, 1))
        return student - twin

    return loss


def diverged(y: Tensor) -> ImageLoss:
    """Positive where the twin is wrong and the student right."""
    worse = losses.margin(y)

    def judge(logits: Tensor) -> Tensor:
        student, twin = logits.chunk(2, 1)
        return torch.minimum(worse(twin), -worse(student))

    return judge


# ------------------------------------------------------------------------------------------- grid and replay


def on_grid(
    model: Model, moved: Tensor, clean: np.ndarray, labels: np.ndarray, settings: ProtocolSettings, judge: LossOf
) -> np.ndarray:
    """Float candidates (N,C,H,W) as uint8 images within the grid's radius of `clean`."""
    size = settings.batch_size
    parts = zip(moved.split(size), tensor_batches(clean, labels, batch_size=size), strict=True)
    return torch.cat([settle_on_grid(model, part, x, settings.eps, judge(y)) for part, (x, y) in parts]).numpy()


def replay(
    models: Sequence[AttackedModel],
    candidates: Sequence[GridCandidates],
    clean: np.ndarray,
    labels: np.ndarray,
    settings: ProtocolSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """What each model says of each candidate, int16 (A,M,N), and which are admissible and misclassified, bool."""
    predictions = np.empty((len(candidates), len(models), len(labels)), np.int16)
    broken = np.empty(predictions.shape, bool)
    for a, candidate in enumerate(candidates):
        allowed = checks.admissible(candidate.images, clean, float(Fraction(settings.eps)))
        for m, attacked in enumerate(models):
            logits = attacked.infer(candidate.images)
            predictions[a, m], broken[a, m] = logits.argmax(1), allowed & checks.wrong(logits, labels)
    return predictions, broken


# ------------------------------------------------------------------------------------------- artifacts and twins


def compare_with_twins(
    models: Sequence[AttackedModel], clean: np.ndarray, labels: np.ndarray, settings: ProtocolSettings
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """How each artifact agrees with its twin, by its label, and the alarms: said at once, before time is spent."""
    agreement, alarms = {}, []
    for attacked in models:
        if attacked.runner is None or attacked.model is None:
            continue
        agreement[attacked.label] = twin_agreement(attacked, clean, labels, settings.eps)
        alarm = twin_alarm(attacked.label, str(attacked.twin), agreement[attacked.label])
        if alarm is not None:
            alarms.append(alarm)
            say(f"ALARM {alarm['name']}: {alarm['meaning']}")
    return agreement, alarms


def twin_agreement(artifact: AttackedModel, clean: np.ndarray, labels: np.ndarray, eps: str) -> dict[str, Any]:
    """Argmax agreement of artifact and twin on uint8 `clean` (N,C,H,W) and on quick adversarial images of the twin.

    {"clean": {"n", "argmax_agreement"}, "adversarial": {…}}
    """
    assert artifact.model is not None
    radius, moved = ball.grid_radius(eps) / 255, []
    for images, y in tensor_batches(clean[:PROBE_IMAGES], labels[:PROBE_IMAGES], batch_size=128):
        x, loss = to_float(images), losses.cross_entropy(y)
        x_adv = pgd(artifact.model, x, loss, start=x, eps=radius, step_size=radius / 2, steps=PROBE_STEPS)
        moved.append(ball.snap_to_grid(x_adv, images, eps))
    twin, agreement = AttackedModel("", "twin", "", artifact.model), {}
    for side, shown in (("clean", clean), ("adversarial", torch.cat(moved).numpy())):
        same = artifact.infer(shown).argmax(1) == twin.infer(shown).argmax(1)
        agreement[side] = {"n": len(shown), "argmax_agreement": float(same.mean())}
    return agreement


def twin_alarm(label: str, twin: str, agreement: dict[str, Any]) -> "dict[str, Any] | None":
    """What is said of an artifact that differs from its twin on more than 1 % of a kind of image, and on 4 at least."""
    side, share, count, n = disagreement(Agreement(**{name: Agreed(**row) for name, row in agreement.items()}))
    if share >= MIN_AGREEMENT or count <= FEW:
        return None
    meaning = (
        f"{label} does not compute what its twin {twin} computes: {count} of {n} predictions on {side} images differ; "
        f"its gradients are another network's"
    )
    return {"name": "twin disagrees", "model": label, "twin": twin, "count": count, "n": n, "meaning": meaning}
