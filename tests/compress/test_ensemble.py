"""The ensemble: the worst case, image by image, whatever the order, the batches, kills and budgets."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from compress.attacks import ensemble_outcomes, judge, presets
from compress.attacks.apgd import APGD
from compress.attacks.contract import EnsembleAttack, Model, Task
from compress.attacks.ensemble import evaluate
from compress.attacks.ensemble_outcomes import EnsembleResult, RobustCount
from compress.attacks.square import Square
from compress.numerics import precision
from edge.core import artifact
from edge.core.errors import CompressError


def plane(seed: int = 0, n: int = 200) -> tuple[Model, np.ndarray, np.ndarray, np.ndarray]:
    """A linear model of two classes, images far from the edges of [0, 1], labels, and the weights (64,)."""
    draw = np.random.default_rng(seed)
    w, x = draw.normal(size=64), draw.uniform(0.3, 0.7, (n, 1, 8, 8)).astype(np.float32)
    weight, middle = torch.from_numpy(w), float((x.reshape(n, -1) @ w).mean())

    def model(images: Tensor) -> Tensor:
        score = images.flatten(1).double() @ weight - middle
        return torch.stack([-score, score], 1).float()

    right = model(torch.from_numpy(x)).argmax(1).numpy()
    return model, x, np.where(np.arange(n) % 10, right, 1 - right), w  # every tenth is wrong from the start


def curved(seed: int = 0, n: int = 60, classes: int = 5) -> tuple[Model, np.ndarray, np.ndarray]:
    """A network in float64, so that no batch rounds otherwise than another; labels mostly its own answers."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, classes)).double().eval()
    with torch.no_grad():
        layers[3].weight *= 3
    x = np.random.default_rng(seed).integers(0, 256, (n, 1, 6, 6)).astype(np.uint8)
    model = lambda images: layers(images.double()).float()  # noqa: E731
    y = model(torch.from_numpy(x).float() / 255).argmax(1).numpy()
    return model, x, np.where(np.arange(n) % 15, y, (y + 1) % classes)


def brightness(x: Tensor) -> Tensor:
    """Two classes: class 1 where the mean pixel is above a half."""
    mean = x.mean((1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], 1)


@dataclass(frozen=True)
class Scripted:
    """On images a hair below a half: brightens those it is told to, darkens all others by `darken`."""

    name: str
    breaks: tuple[int, ...] = ()
    by: float = 0.1
    darken: float = 0.0
    seen: list[list[int]] = field(default_factory=list)

    def parameters(self) -> dict[str, Any]:
        return {"breaks": list(self.breaks), "by": self.by, "darken": self.darken}

    def run(self, task: Task) -> Tensor:
        self.seen.append(task.ids.tolist())
        step = torch.tensor([self.by if i in self.breaks else -self.darken for i in task.ids.tolist()])
        return task.x + step[:, None, None, None]


def dim(n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Images of mean 0.45, all of class 0 but the last, which the model gets wrong."""
    return np.full((n, 1, 2, 2), 0.45, np.float32), np.array([0] * (n - 1) + [1])


def scripted(*attacks: Scripted, n: int = 10, batch_size: int = 4, **given: Any) -> EnsembleResult:
    x, y = dim(n)
    return evaluate(brightness, x, y, attacks, eps=0.1, batch_size=batch_size, **given)


def same(a: EnsembleResult, b: EnsembleResult) -> bool:
    arrays = ("right", "broken_by", "tried", "broken", "inconclusive", "adversarial", "margins", "predictions")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


# --- figures known in closed form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "dual", "eps"), [("linf", 1, 0.005), ("linf", 1, 0.012), ("l2", 2, 0.03), ("l2", 2, 0.1)]
)
def test_on_a_plane_it_breaks_exactly_what_the_margin_allows(norm: str, dual: int, eps: float) -> None:
    model, x, y, w = plane()
    logits = model(torch.from_numpy(x)).numpy().astype(np.float64)
    rows = np.arange(len(y))
    distance = (logits[rows, y] - logits[rows, 1 - y]) / 2 / np.linalg.norm(w, dual)  # below 0 where wrong when clean
    assert (np.abs(distance - eps) > 1e-5).all()  # none so near that float32 decides
    result = evaluate(model, x, y, presets.attack_plan(["apgd-ce-20", "fab-t-5", "square-20"], 2), eps=eps, norm=norm)
    assert np.array_equal(result.robust, distance > eps)
    assert result.robust_accuracy == float((distance > eps).mean()) and 0.1 < result.robust_accuracy < 0.9
    assert result.columns[0].robust_accuracy == result.robust_accuracy  # one ascent is enough on a plane


def test_robust_accuracy_never_rises_with_the_radius() -> None:
    model, x, y = curved()
    plan = presets.attack_plan("quick", 5)
    found = [evaluate(model, x, y, plan, eps=eps) for eps in (1e-6, 0.01, 0.03, 0.1, 1.0)]
    figures = [float(result.robust_accuracy or 0) for result in found]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] == float(found[0].right.mean()) and figures[-1] == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_cascade_is_the_pointwise_worst_case(norm: str) -> None:
    model, x, y = curved()
    plan = (Square(queries=30), APGD("ce", steps=1), APGD("dlr-targeted", steps=5, targets=3))
    given: dict[str, Any] = {"eps": 0.03 if norm == "linf" else 0.2, "norm": norm, "batch_size": 16}
    cascade, every = (evaluate(model, x, y, plan, cascade=how, **given) for how in (True, False))
    assert np.array_equal(cascade.robust, every.right & ~every.broken.any(0))
    assert np.array_equal(cascade.broken_by, every.broken_by) and len(set(cascade.broken_by.tolist())) > 2
    assert np.array_equal(cascade.adversarial[cascade.broken_by >= 0], every.adversarial[every.broken_by >= 0])
    assert every.tried[:, every.right].all() and not every.tried[:, ~every.right].any()
    for column, other in zip(cascade.columns, every.columns, strict=True):
        assert (column.first, column.standing) == (other.first, other.standing) and column.broke <= other.broke


def test_neither_order_nor_batches_of_the_images_matter() -> None:
    model, x, y = curved()
    plan = (APGD("ce", steps=3), Square(queries=30))
    a = evaluate(model, x, y, plan, eps=0.03, batch_size=7)
    order = np.random.default_rng(1).permutation(len(y))
    b = evaluate(model, x[order], y[order], plan, eps=0.03, batch_size=64, ids=order)
    assert np.array_equal(a.broken_by[order], b.broken_by) and np.array_equal(a.adversarial[order], b.adversarial)


# --- the cascade, step by step ------------------------------------------------------------------------------------


def test_what_still_stands_is_packed_anew_and_counted() -> None:
    first, second, third = Scripted("a", (0, 2, 4)), Scripted("b", (5, 2)), Scripted("c", ())
    result = scripted(first, second, third)
    assert first.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]  # image 9 is wrong without any attack
    assert second.seen == [[1, 3, 5, 6], [7, 8]]
    assert third.seen == [[1, 3, 6, 7], [8]]
    assert result.broken_by.tolist() == [0, -1, 0, -1, 0, 1, -1, -1, -1, -1]
    told = [(c.name, c.attacked, c.broke, c.first, c.standing, c.robust_accuracy) for c in result.columns]
    assert told == [("a", 9, 3, 3, 6, 0.6), ("b", 6, 1, 1, 5, 0.5), ("c", 5, 0, 0, 5, 0.5)]
    assert result.columns[1].parameters == second.parameters()
    assert result.robust_accuracy == 0.5 and result.total == RobustCount(10, 9, 5, 0)


def test_with_every_attack_on_every_image_columns_stand_alone() -> None:
    result = scripted(Scripted("a", (0, 2, 4)), Scripted("b", (5, 2)), cascade=False)
    assert [(c.attacked, c.broke, c.first) for c in result.columns] == [(9, 3, 3), (9, 2, 1)]
    assert result.broken.nonzero()[1].tolist() == [0, 2, 4, 2, 5]


def test_an_image_that_nothing_breaks_has_its_strongest_candidate() -> None:
    weak, strong, bad = Scripted("w", darken=-0.01), Scripted("s", darken=-0.02), Scripted("b", darken=0.05)
    cheat = Scripted("cheat", darken=-0.15)  # leaves the ball
    result = scripted(weak, cheat, strong, bad, Scripted("kill", (3,)))
    assert result.adversarial[:, 0, 0, 0] == pytest.approx([0.47, 0.47, 0.47, 0.55] + [0.47] * 5 + [0.45])
    _, y = dim()
    answers = judge.checked_logits(brightness, torch.from_numpy(result.adversarial))
    assert result.margins == pytest.approx(judge.margins(answers, y))
    assert result.columns[1].inadmissible == 9 and result.columns[1].reasons == {"outside the ball": 9}
    assert result.notes == ("cheat: 9 of 9 candidates do not count (9 outside the ball)",)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_images_come_back_and_each_shows_what_is_said_of_it(norm: str) -> None:
    model, x, y = curved()
    eps = 0.03 if norm == "linf" else 0.15
    result = evaluate(model, x, y, presets.attack_plan(["apgd-ce-5", "square-30"], 5), eps=eps, norm=norm, batch_size=7)
    clean = x.astype(np.float32) / np.float32(255)
    delta = (result.adversarial.astype(np.float64) - clean).reshape(len(x), -1)
    assert result.adversarial.shape == x.shape and result.adversarial.dtype == np.float32
    assert (np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1) <= eps + 1e-6).all()
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    answers = model(torch.from_numpy(result.adversarial)).argmax(1).numpy()
    assert np.array_equal(answers == y, result.robust) and 0 < result.robust.sum() < result.right.sum()
    assert (np.abs(delta[result.right]).max(1) > 0).all() and not delta[~result.right].any()


def test_a_candidate_without_a_finite_answer_counts_and_is_said() -> None:
    def model(x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3))[:, None] > 0.5
        return torch.where(light, torch.tensor([[torch.nan, 0.0]]), brightness(x))  # NaN is class 0's, the right one

    x, y = dim()
    result = evaluate(model, x[:9], y[:9], [Scripted("a", (0, 1))], eps=0.1)
    assert result.broken_by.tolist() == [0, 0] + [-1] * 7
    assert "on 2 adversarial images a logit is not a finite number" in result.notes[0]


# --- figures -------------------------------------------------------------------------------------------------------


def test_intervals_classes_and_the_worst_of_them() -> None:
    model, x, y = curved(n=90)
    result = evaluate(model, x, y, presets.attack_plan(["apgd-ce-3"], 5), eps=0.02)
    robust = int((result.right & (result.broken_by < 0)).sum())
    exact = scipy.stats.binomtest(robust, 90).proportion_ci(0.95, "exact")
    assert result.total.interval == pytest.approx((exact.low, exact.high))
    for k, count in result.by_class.items():
        mine = y == k
        assert (count.n, count.clean, count.robust) == (mine.sum(), result.right[mine].sum(), result.robust[mine].sum())
    shares = {k: result.robust[y == k].mean() for k in np.unique(y)}
    assert shares[result.worst_class] == min(shares.values())
    told = result.as_dict()
    assert artifact.canonical(told)  # JSON, no NaN
    assert told["robust"] == robust / 90 and told["robust_bounds"] == [robust / 90] * 2
    assert [row["name"] for row in told["attacks"]] == ["apgd-ce"] and told["by_class"]["0"]["n"] == (y == 0).sum()


def test_a_budget_leaves_images_undecided_and_never_passes_them() -> None:
    first, second = Scripted("a", (0, 2, 4)), Scripted("b", (5,))
    none = scripted(first, second, budget_s=0)
    assert none.robust_accuracy is None and none.total.bounds == (0.0, 0.9) and not first.seen
    assert none.total.interval == (0.0, pytest.approx(0.9975, abs=1e-4))
    some = scripted(first, second, budget_s=1e-12)  # over after the first batch
    assert some.broken_by.tolist() == [0, -1, 0] + [-1] * 7
    assert some.inconclusive.tolist() == [False, True, False] + [True] * 6 + [False]
    assert some.robust.sum() == 0 and some.total.bounds == (0.0, 0.7) and some.as_dict()["robust"] is None
    assert some.notes == ("the time budget ended before every attack had its turn on 7 images, which are undecided",)
    assert not scripted(first, second, budget_s=1000).inconclusive.any()


# --- state ---------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_raised_goes_on_where_it_ended(tmp_path: Path) -> None:
    plan = lambda: (Scripted("a", (0, 2, 4)), Scripted("b", (5,)))  # noqa: E731
    given: dict[str, Any] = {"state_folder": tmp_path / "s", "identity": "m"}
    whole, seen = scripted(*plan()), []
    for _ in range(3):
        attacks = plan()
        part = scripted(*attacks, budget_s=1e-12, **given)
        seen.append([attack.seen for attack in attacks])
    assert part.inconclusive.any() and seen == [[[[0, 1, 2, 3]], []], [[], []], [[], []]]  # a budget is of all calls
    attacks = plan()
    assert same(scripted(*attacks, **given), whole)
    assert attacks[0].seen == [[4, 5, 6, 7], [8]] and attacks[1].seen == [[1, 3, 5, 6], [7, 8]]
    attacks = plan()
    again = scripted(*attacks, **given)
    assert same(again, whole) and not attacks[0].seen and not attacks[1].seen
    assert [c.attacked for c in again.columns] == [9, 6] and again.columns[0].seconds >= 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"eps": 0.2}, "eps: 0.1 → 0.2"),
        ({"seed": 1}, "seed: 0 → 1"),
        ({"norm": "l2"}, "norm: 'linf' → 'l2'"),
        ({"identity": "another"}, "model: 'm' → 'another'"),
        ({"labels": np.array([0, 0, 1, 1])}, "data: "),
        ({"images": np.full((4, 1, 2, 2), 0.44, np.float32)}, "data: "),
        ({"ids": np.arange(4) + 1}, "data: "),
        ({"plan": [Scripted("a", (1,))]}, "attacks: "),
        ({"batch_size": 2}, "batch_size: 4 → 2"),
        ({"cascade": False}, "cascade: True → False"),
    ],
)
def test_a_state_of_anything_else_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    def call(**changed: Any) -> EnsembleResult:
        given: dict[str, Any] = {"images": dim(4)[0], "labels": dim(4)[1], "plan": [Scripted("a")], "eps": 0.1}
        given |= {"state_folder": tmp_path / "s", "identity": "m", "batch_size": 4} | changed
        return evaluate(brightness, **given)

    call()
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(CompressError) as fault:
        call(**change)
    assert f"state of another evaluation ({told}" in str(fault.value) and "\n" not in str(fault.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_a_damaged_or_foreign_folder_is_told(tmp_path: Path) -> None:
    given: dict[str, Any] = {"state_folder": tmp_path / "s", "identity": "m"}
    scripted(Scripted("a"), **given)
    chunk = tmp_path / "s" / "attack-00-00001.npz"
    whole = chunk.read_bytes()
    for content in (whole[:100], b"", whole[:200] + b"x" + whole[201:], (tmp_path / "s" / "clean.npz").read_bytes()):
        chunk.write_bytes(content)
        with pytest.raises(CompressError, match="damaged; delete this file"):
            scripted(Scripted("a"), **given)
    chunk.write_bytes((tmp_path / "s" / "attack-00-00000.npz").read_bytes())
    with pytest.raises(CompressError, match="other images than its turn"):
        scripted(Scripted("a"), **given)
    (tmp_path / "s" / ensemble_outcomes.PLAN).write_text("{")
    with pytest.raises(CompressError, match="not readable"):
        scripted(Scripted("a"), **given)
    (tmp_path / "file").write_text("mine")
    for folder, told in ((tmp_path, "no attack state"), (tmp_path / "file", "cannot be created")):
        with pytest.raises(CompressError, match=told):
            scripted(Scripted("a"), state_folder=folder, identity="m")
    with pytest.raises(CompressError, match="identity: none given"):
        scripted(Scripted("a"), state_folder=tmp_path / "t")


def test_two_processes_do_not_share_a_state(tmp_path: Path) -> None:
    with (
        ensemble_outcomes.StateFolder(tmp_path / "s", {}),
        pytest.raises(CompressError, match="another process attacks"),
    ):
        scripted(Scripted("a"), state_folder=tmp_path / "s", identity="m")


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
from compress.attacks.apgd import APGD
from compress.attacks.ensemble import evaluate
from compress.attacks.square import Square

torch.set_num_threads(1)
root = Path(sys.argv[1])
draw = np.random.default_rng(0)
x = draw.integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
w = torch.from_numpy(draw.normal(size=(64, 5)))
model = lambda images: (images.double().flatten(1) @ w).tanh().float() * 5
y = model(torch.from_numpy(x).float() / 255).argmax(1).numpy()
plan = (APGD("ce", steps=5), APGD("dlr-targeted", steps=5, targets=4), Square(queries=60))

def child(state, out):
    pid = os.fork()
    if pid:
        return pid
    r = evaluate(model, x, y, plan, eps=0.03, batch_size=2, state_folder=state, identity="m")
    np.savez(out, broken_by=r.broken_by, tried=r.tried, adversarial=r.adversarial, margins=r.margins)
    os._exit(0)

def wait(pid):
    return os.waitpid(pid, 0)[1]

began = time.monotonic()
assert wait(child(root / "whole", root / "whole.npz")) == 0
seconds, kills = time.monotonic() - began, 0
chance = random.Random(0)
for _ in range(int(sys.argv[2])):
    pid = child(root / "state", root / "killed.npz")
    time.sleep(chance.uniform(0, seconds / 4))
    os.kill(pid, signal.SIGKILL)
    kills += wait(pid) == signal.SIGKILL
assert wait(child(root / "state", root / "killed.npz")) == 0
print(kills, len(list((root / "state").glob("attack-*.npz"))))
"""


def test_killed_at_random_moments_it_ends_in_the_same_verdicts_and_images(tmp_path: Path) -> None:
    """Real SIGKILLs of a process that attacks; one import of torch serves all its forks."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "5"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills, chunks = map(int, done.stdout.split())
    assert kills >= 2 and chunks > 20
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert set(whole["broken_by"].tolist()) > {-1, 0}
        for name in whole.files:
            assert np.array_equal(whole[name], killed[name])


# --- what a candidate must be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_judge_against_a_naive_one(norm: str) -> None:
    draw = np.random.default_rng(2)
    clean = draw.random((300, 1, 3, 3), np.float32)
    moved = clean + draw.normal(size=clean.shape).astype(np.float32) * draw.choice([0, 0.01, 0.1], (300, 1, 1, 1))
    moved = moved.astype(np.float32)
    moved[::7], moved[3, 0, 0, 0], moved[5, 0, 0, 0] = clean[::7], np.nan, np.inf
    y = np.zeros(300, np.int64)
    found = judge.judge_candidates(brightness, torch.from_numpy(moved), clean, y, eps=0.1, norm=norm)
    reasons = [0, 0, 0, 0]
    for i in range(300):
        pixels, start = [float(v) for v in moved[i].ravel()], [float(v) for v in clean[i].ravel()]
        gaps = [abs(a - b) for a, b in zip(pixels, start, strict=True)]
        size = max(gaps) if norm == "linf" else sum(g * g for g in gaps) ** 0.5
        finite = all(abs(v) < float("inf") for v in pixels)
        inside = finite and all(0 <= v <= 1 for v in pixels)
        allowed = finite and inside and size <= 0.1 + 1e-6
        reasons[1] += not finite
        reasons[2] += finite and not inside
        reasons[3] += inside and not allowed
        assert bool(found.admissible[i]) == allowed
        assert bool(found.broke[i]) == (allowed and sum(pixels) / 9 > 0.5)
    assert found.reasons.tolist() == reasons and min(reasons[1:]) > 0


def test_the_radius_is_kept_to_a_millionth() -> None:
    clean, y = np.full((1, 1, 2, 2), 0.5, np.float32), np.zeros(1, np.int64)
    for norm, pixels in (("linf", 1), ("l2", 4)):
        for excess, allowed in ((0, True), (5e-7, True), (2e-6, False)):
            step = np.float32((0.1 + excess) / pixels**0.5)
            found = judge.judge_candidates(brightness, torch.from_numpy(clean + step), clean, y, eps=0.1, norm=norm)
            assert bool(found.admissible[0]) == allowed


def test_numbers_other_than_float32_do_not_count() -> None:
    clean, y = dim(4)
    found = judge.judge_candidates(brightness, torch.from_numpy(clean + 0.1).double(), clean, y, eps=0.2, norm="linf")
    assert not found.admissible.any() and found.reasons.tolist() == [4, 0, 0, 0]


def test_inside_float32_is_float32_and_afterwards_as_before() -> None:
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    with pytest.raises(ZeroDivisionError), precision.full():
        assert not any(backend.allow_tf32 for backend in backends)
        raise ZeroDivisionError
    assert [backend.allow_tf32 for backend in backends] == before


# --- refusals ------------------------------------------------------------------------------------------------------


def training() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).train()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"images": np.full((4, 1, 2, 2), 1.5, np.float32)}, "images reach from 1.5 to 1.5"),
    ({"images": np.full((4, 1, 2, 2), np.nan, np.float32)}, "images reach from nan"),
    ({"images": np.zeros((4, 1, 2, 2))}, "images of type float64"),
    ({"images": np.zeros((4, 4), np.float32)}, "images of shape (4, 4)"),
    ({"images": np.zeros((0, 1, 2, 2), np.float32)}, "images of shape (0,"),
    ({"labels": np.array([0, 1, 2, 0])}, "label 2: the model tells 2 classes apart"),
    ({"labels": np.array([0, -1, 0, 0])}, "label -1: negative"),
    ({"labels": np.zeros(4)}, "labels float64 (4,)"),
    ({"labels": np.zeros(3, int)}, "labels int64 (3,)"),
    ({"eps": 0.0}, "eps 0.0"),
    ({"eps": float("nan")}, "eps nan"),
    ({"eps": 8.0}, "eps 8.0: on pixels in [0, 1]"),
    ({"norm": "l1"}, "norm 'l1': not known; give linf or l2"),
    ({"batch_size": 0}, "batch_size 0"),
    ({"plan": []}, "attacks none"),
    ({"plan": [Scripted("a"), Scripted("a")]}, "attacks a, a"),
    ({"ids": np.zeros(4, int)}, "ids of shape (4,), 1 different"),
    ({"model": training()}, "in training mode"),
    ({"model": lambda x: (brightness(x), x)}, "the model returns a tuple"),
    ({"model": lambda x: brightness(x)[:1]}, "the model returns shape (1, 2) for 4 images"),
    ({"model": lambda x: brightness(x) / 0}, "logits are not finite on 4 of the first 4"),
    ({"model": lambda x: brightness(x.detach())}, "logits have no gradient by its images"),
    (
        {"plan": [APGD("ce", steps=1), Scripted("no:gradient")], "model": lambda x: brightness(x).detach()},
        "no gradient",
    ),
]


@pytest.mark.parametrize(("change", "told"), REFUSED)
def test_refusals_are_one_line_and_leave_nothing(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": brightness, "images": dim(4)[0], "labels": dim(4)[1], "plan": [Scripted("a")]}
    with pytest.raises(CompressError) as fault:
        evaluate(**{**given, "eps": 0.1, "state_folder": tmp_path / "s", "identity": "m"} | change)
    assert told in str(fault.value) and "\n" not in str(fault.value)
    assert not list(tmp_path.glob("s/*.npz"))


def test_probabilities_are_an_alarm_not_a_refusal() -> None:
    x, y = dim()
    result = evaluate(lambda images: brightness(images).softmax(1), x, y, [Scripted("a")], eps=0.1)
    assert "look like probabilities" in result.notes[0]


# --- plans by name -------------------------------------------------------------------------------------------------


def described(plan: tuple[EnsembleAttack, ...]) -> list[tuple[str, Callable[..., Any]]]:
    return [(attack.name, attack.parameters().get) for attack in plan]


def test_the_presets_are_the_published_ones() -> None:
    names = {preset: [attack.name for attack in presets.attack_plan(preset, 10)] for preset in presets.PRESETS}
    assert names == {
        "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "rand": ["apgd-ce", "apgd-dlr"],
        "quick": ["apgd-ce", "apgd-t"],
    }
    ce, targeted, fab, square = (attack.parameters() for attack in presets.attack_plan("standard", 10))
    assert ce["steps"] == targeted["steps"] == fab["steps"] == 100
    assert targeted["targets"] == fab["targets"] == 9 and square["queries"] == 5000
    assert [attack.parameters()["eot"] for attack in presets.attack_plan("rand", 10)] == [20, 20]
    assert [attack.parameters().get("targets") for attack in presets.attack_plan("quick", 10)] == [None, 3]


def test_no_more_targets_than_wrong_classes() -> None:
    assert [attack.parameters().get("targets") for attack in presets.attack_plan("standard", 4)] == [None, 3, 3, None]
    assert [attack.parameters().get("targets") for attack in presets.attack_plan("quick", 2)] == [None, 1]


def test_lists_of_names() -> None:
    plan = presets.attack_plan(["pgd-7", "apgd-ce", "square-300", "rays", "pgd-margin-3", "mi-di"], 10)
    assert [attack.name for attack in plan] == ["pgd", "apgd-ce", "square", "rays", "pgd-margin", "mi-di"]
    values = [attack.parameters() for attack in plan]
    assert (values[0]["steps"], values[2]["queries"], values[4]["steps"]) == (7, 300, 3)
    assert [a.name for a in presets.attack_plan(["quick", "square"], 10)] == ["apgd-ce", "apgd-t", "square"]
    for single in presets.SINGLE:
        assert presets.attack_plan([single], 10)[0].name == presets.attack_plan([f"{single}-8"], 10)[0].name == single
    assert [presets.gradient_free(name) for name in ("square", "rays", "apgd-ce", "m:square")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("name", ["pgdd", "pgd-0", "pgd--3", "standard-3", "", "apgd"])
def test_an_unknown_attack_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(CompressError, match="standard, rand, quick, apgd-ce"):
        presets.attack_plan([name], 10)


def test_the_cost_counts_passes() -> None:
    standard = [presets.cost(attack) for attack in presets.attack_plan("standard", 10)]
    assert standard == [300, 2700, 2700, 5000]
    assert presets.cost(APGD("ce", steps=10, restarts=2, eot=5)) == 300
