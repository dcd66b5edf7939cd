"""One whole training step of RSLAD: ours against a plain one in eager float32, in the same run.

    python benchmarks/train_step.py [--students resnet20 resnet18 mobilenetv2] [--teacher resnet18] [--batch-size 128]
        [--rounds 3] [--precision auto] [--compile] [--curves] [--note "…"]

A step is: the teacher's pass, a 10-step attack, the update. Random images 3 × 32 × 32 and weights: the arithmetic does
not depend on them. The plain step is RSLAD as published (Zi et al. 2021, eq. 5–7), NCHW, no autocast, its KL a mean
over batch and classes. The two take turns; medians count. Beside them: VGap's step, where our time goes, and operations
a second as a share of a matrix product's in the precision of the attack. `--curves` trains on digits by both,
three seeds, and compares their robust validation accuracies instead. Appends to benchmarks/results/train_step.jsonl.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.attack_profile import ceiling
from benchmarks.machine import where
from compress import data, networks, training
from compress.attacks.pgd import robust_accuracy
from compress.config import Training
from compress.data.split import Split, to_float
from compress.methods import registry
from compress.networks.base import Classifier, Features
from compress.numerics import precision
from compress.numerics.seeds import generator
from compress.training import passes
from compress.training.average import Average
from compress.training.update import Supply, Update
from compress.training.watch import Finite

RESULTS = Path(__file__).parent / "results" / "train_step.jsonl"
EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
DIGITS_EPS = 40 / 255
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4}


class Plain:
    """RSLAD's step as its authors run it: eager, float32, channels first."""

    def __init__(self, student: nn.Module, teacher: nn.Module, *, eps: float = EPS, step: float = STEP) -> None:
        self.student, self.teacher, self.eps, self.step = student, teacher, eps, step
        self.optimizer = torch.optim.SGD(student.parameters(), **SGD)

    def __call__(self, x: Tensor) -> None:
        with torch.no_grad():
            target = functional.softmax(self.teacher(x), 1)
        x_adv = self.attacked(x, target)
        self.student.train()
        self.optimizer.zero_grad()
        adversarial, clean = (
            functional.kl_div(functional.log_softmax(self.student(images), 1), target, reduction="none").mean()
            for images in (x_adv, x)
        )
        loss = 5 / 6 * adversarial + 1 / 6 * clean
        loss.backward()
        self.optimizer.step()

    def attacked(self, x: Tensor, target: Tensor) -> Tensor:
        self.student.eval()
        x_adv = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            loss = functional.kl_div(functional.log_softmax(self.student(x_adv), 1), target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = x_adv.detach() + self.step * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - self.eps), x + self.eps).clamp(0, 1)
        return x_adv


def main(given: argparse.Namespace) -> None:
    for name in given.students:
        row = curves(name, given) if given.curves else steps(name, given)
        row |= {"note": given.note, "threads": torch.get_num_threads()}
        print(json.dumps(row, indent=2))
        with open(RESULTS, "a") as file:
            file.write(json.dumps({**row, **where()}) + "\n")


# ---------------------------------------------------------------------------------------------- the step's time


def steps(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Images a second of both, and where our time goes."""
    device, size = training.device(), given.batch_size
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, device=device)
    train = Split(images, torch.randint(0, 10, (size,), device=device))
    chosen, x = torch.arange(size, device=device), to_float(images)
    ours = update("rslad", name, given, train)
    gap = update("vgap", name, given, train)
    plain = Plain(network(name, device), network(given.teacher, device).eval())
    turns: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(chosen, 0, 0, 0.1),
        "plain": lambda: plain(x),
        "vgap": lambda: gap(chosen, 0, 0, 0.1),
        "teacher": lambda: ours.teacher_pass(chosen),
        "attack": lambda: ours.attack_pass(chosen),
    }
    seconds = taken(turns, given.rounds, device)
    peak = ceiling(ours.arithmetic.attack, device)
    work = operations(name, given.teacher, device)
    spent = seconds["ours"]
    return {
        "teacher": given.teacher,
        "student": name,
        "batch_size": size,
        "arithmetic": str(ours.arithmetic),
        "layout": ours.arithmetic.layout,
        "images_per_s": {who: round(size / seconds[who], 2) for who in ("ours", "plain", "vgap")},
        "ours_over_plain": round(seconds["plain"] / spent, 2),
        "vgap_extra": round(seconds["vgap"] / spent - 1, 3),
        "seconds": {who: round(value, 3) for who, value in seconds.items()},
        "shares": {
            "teacher": round(seconds["teacher"] / spent, 3),
            "attack": round(seconds["attack"] / spent, 3),
            "update and data": round(1 - (seconds["teacher"] + seconds["attack"]) / spent, 3),
        },
        "matmul_gflops": round(peak),
        "of_ceiling": round(work * size / spent / 1e9 / peak, 2),
    }


class Said(Classifier):
    """A teacher whose answer is known."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward_features(self, x: Tensor) -> Features:
        return self.features


class Parts(Update):
    """A step of the loop, and its parts alone."""

    def teacher_pass(self, chosen: Tensor) -> None:
        assert self.teacher is not None
        self.teacher.forget()
        x = self.images(chosen)
        self.batch(x, chosen).teach(x)

    def attack_pass(self, chosen: Tensor) -> None:
        x = self.images(chosen)
        one = self.batch(x[:1], chosen[:1]).taught  # the teacher's share is the other part's
        known = Said(replace(one, logits=one.logits.expand(len(x), -1)))
        self.student.eval()
        self.passes.precision = self.arithmetic.attack
        batch = replace(self.batch(x, chosen), teacher=known)
        start = generator(self.seed, "start", 0, 0)
        self.objective.adversarial(self.passes, batch, self.config.attack, eps=self.eps, draw=start)


def update(method: str, name: str, given: argparse.Namespace, train: Split) -> Parts:
    """The loop's step for that student, in the arithmetic that the loop would choose."""
    device = train.images.device
    student, teacher = (
        network(name, device),
        training.Guide(network(given.teacher, device).eval().requires_grad_(False)),
    )
    attack = {"steps": STEPS, "step_size": "2/255"}
    config = Training(batch_size=len(train.labels), attack=attack, precision=given.precision, augment="none")
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    options = {"projection": "learned"} if method == "vgap" else {}  # the one that fits students wider than the teacher
    objective = registry.build_objective(method, options, student, teacher, [to_float(train.images)]).to(device)
    weights = [*student.parameters(), *objective.parameters()]
    found = Parts(
        student=student,
        passes=training.Passes(student),
        objective=objective,
        teacher=teacher,
        supply=Supply(train, config.batch_size, 0),
        vary=None,
        optimizer=torch.optim.SGD(weights, nesterov=True, **SGD),
        average=Average("none", 0, student),
        finite=Finite(),
        config=config,
        eps=EPS,
        seed=0,
    )
    x, chosen = to_float(train.images), torch.arange(len(train.labels), device=device)
    allowed = precision.resolve(given.precision, device)
    arithmetic = passes.fixed(allowed, device)
    if given.precision == "auto" and allowed != precision.FLOAT32:
        student.eval()
        arithmetic = passes.fastest(found.passes, objective.search(found.passes, found.batch(x, chosen)), x, STEPS)
    found.compute_in(arithmetic)
    if given.compile:
        for compiled in (found.passes, teacher):
            passes.compile_passes(compiled, arithmetic.image(x), name)
    return found


def network(name: str, device: torch.device) -> Classifier:
    torch.manual_seed(0)
    return networks.build_network(name, channels=3, classes=10).to(device)


def taken(turns: "dict[str, Callable[[], object]]", rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each; they take turns after one round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, run in turns.items():
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in found.items()}


def operations(student: str, teacher: str, device: torch.device) -> float:
    """Floating-point operations of one image's step: a backward pass to the image or to the weights is one forward."""
    forward = {}
    for name in (student, teacher):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(name, device).eval()(torch.zeros(1, 3, 32, 32, device=device))
        forward[name] = counter.get_total_flops()
    return forward[teacher] + forward[student] * (2 * STEPS + 2 * 3)


# ---------------------------------------------------------------------------------------------- the same result


def curves(name: str, given: argparse.Namespace, epochs: int = 8, seeds: int = 3) -> dict[str, Any]:
    """Robust validation accuracy on digits after equal epochs under both, from equal weights and in equal orders."""
    digits, device = data.load_dataset("digits"), training.device()
    train, validation = Split.of(digits, "train", device), Split.of(digits, "val", device)
    teacher = trained_teacher(train, epochs)
    found: dict[str, list[list[float]]] = {"ours": [], "plain": []}
    for seed in range(seeds):
        for who in found:
            found[who].append(curve(who, name, teacher, train, validation, given, epochs, seed))
    return {
        "teacher": "wrn-10-4, PGD-AT on digits",
        "student": name,
        "epochs": epochs,
        "seeds": seeds,
        "precision": given.precision,
        "validation_n": len(validation.labels),
        "robust_validation_by_epoch": found,
        "last_mean": {who: round(statistics.mean(each[-1] for each in runs), 4) for who, runs in found.items()},
    }


def trained_teacher(train: Split, epochs: int) -> Classifier:
    torch.manual_seed(0)
    teacher = networks.build_network("wrn-10-4", channels=1, classes=10).to(train.images.device)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    attack = Plain(teacher, teacher, eps=DIGITS_EPS, step=DIGITS_EPS / 4)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(train.labels), generator=generator(0, "order", epoch)).split(128)[:-1]:
            x, y = to_float(train.images[chosen]), train.labels[chosen]
            x_adv = attack.attacked(x, functional.one_hot(y, 10).float())
            teacher.train()
            optimizer.zero_grad()
            functional.cross_entropy(teacher(x_adv), y).backward()
            optimizer.step()
    return teacher.eval().requires_grad_(False)


def curve(
    who: str,
    name: str,
    teacher: Classifier,
    train: Split,
    validation: Split,
    given: argparse.Namespace,
    epochs: int,
    seed: int,
) -> list[float]:
    torch.manual_seed(seed)
    student = networks.build_network(name, channels=1, classes=10).to(train.images.device)
    plain = Plain(student, teacher, eps=DIGITS_EPS, step=DIGITS_EPS / 4)
    attack = {"steps": STEPS, "step_size": "10/255"}
    config = Training(batch_size=128, attack=attack, precision=given.precision, augment="none")
    ours = Update(
        student=student,
        passes=training.Passes(student),
        objective=registry.build_objective("rslad", {}, student, teacher, []),
        teacher=training.Guide(teacher),
        supply=Supply(train, config.batch_size, seed),
        vary=None,
        optimizer=torch.optim.SGD(student.parameters(), **SGD),
        average=Average("none", 0, student),
        finite=Finite(),
        config=config,
        eps=DIGITS_EPS,
        seed=seed,
    )
    ours.compute_in(passes.fixed(precision.resolve(given.precision, train.images.device), train.images.device))
    # ours takes the mean over the batch, the published code over batch and classes: ten times the learning rate
    for group in plain.optimizer.param_groups:
        group["lr"], group["weight_decay"] = 10 * SGD["lr"], SGD["weight_decay"] / 10
    found = []
    for epoch in range(epochs):
        for step in range(ours.supply.steps):
            chosen = ours.supply.chosen(epoch, step)
            if who == "ours":
                ours(chosen, epoch, step, SGD["lr"])
            else:
                plain(to_float(train.images[chosen]))
        student.eval()
        found.append(robust_accuracy(student, validation, 128, eps=DIGITS_EPS, steps=STEPS, seed=0))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", nargs="+", default=["resnet20", "resnet18", "mobilenetv2"])
    parser.add_argument("--teacher", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=precision.PRECISIONS, default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--note", default="")
    main(parser.parse_args())
