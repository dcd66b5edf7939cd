"""Variance-gap alignment: identity, scale, naive float64 oracles for every option, what it refuses."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compress.methods import registry
from compress.methods.features import ENOUGH, covariance, covariance_within, gap, gram, misfit, principal_directions
from compress.methods.objective import Objective, TrainingBatch
from compress.methods.vgap import VarianceGap
from compress.networks.base import Features
from compress.numerics.seeds import generator
from edge.core.errors import CompressError
from tests.compress.tiny_networks import (
    Tiny,
    batch,
    naive_covariance,
    naive_gram,
    naive_kl,
    naive_misfit,
    objective,
    values,
)

ALL = {"lambda_cov": 1.0, "lambda_gram": 1.0, "lambda_gap": 1.0}


@pytest.mark.parametrize("scatter", ["total", "within", "between", "both"])
@pytest.mark.parametrize("features", ["penultimate", "stages"])
@pytest.mark.parametrize("gram_of", ["scores", "features"])
@pytest.mark.parametrize("kind", ["relative", "absolute", "vector"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(
    scatter: str, features: str, gram_of: str, kind: str
) -> None:
    teacher = Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    options = {"projection": "identity", "scatter": scatter, "features": features, "gram_of": gram_of, "gap": kind}
    parts = values(objective(teacher, teacher, **options, **ALL), teacher, found, x_adv)
    assert set(parts) == {"kl_adversarial", "kl_clean", "cov", "gram", "gap"}
    assert all(abs(parts[name]) < 1e-12 for name in ("cov", "gram", "gap", "kl_clean"))


def naive_within(f: Tensor, y: Tensor) -> list[list[float]]:
    rows, width = f.tolist(), range(f.shape[1])
    total = [[0.0 for _ in width] for _ in width]
    for label in set(y.tolist()):
        own = [row for row, other in zip(rows, y.tolist(), strict=True) if other == label]
        mean = [sum(row[d] for row in own) / len(own) for d in width]
        for row in own:
            for a in width:
                for b in width:
                    total[a][b] += (row[a] - mean[a]) * (row[b] - mean[b])
    return [[value / (len(rows) - 1) for value in line] for line in total]


def test_within_and_between_add_up_to_the_whole_and_agree_with_loops() -> None:
    g = torch.Generator().manual_seed(3)
    f, y = torch.randn(20, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (20,), generator=g)
    torch.testing.assert_close(covariance_within(f, y), torch.tensor(naive_within(f, y), dtype=torch.float64))
    one = torch.zeros(20, dtype=torch.int64)  # a single class has all its variance within
    torch.testing.assert_close(covariance_within(f, one), covariance(f))
    alone = torch.arange(20)  # classes of one image have none
    assert float(covariance_within(f, alone).abs().max()) == 0


@pytest.mark.parametrize("scatter", ["within", "between", "both"])
def test_parts_of_the_covariance_against_loops(scatter: str) -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    made = objective(student, teacher, projection="identity", scatter=scatter, lambda_cov=1.0, lambda_gram=0.0)
    misfits = []
    with torch.no_grad():
        for x in (found.x, x_adv):
            inside, outside = [], []
            for network in (student, teacher):
                f = network.forward_features(x).pooled
                own, whole = naive_within(f, found.y), naive_covariance(f)
                inside.append(own)
                outside.append([[a - b for a, b in zip(*rows, strict=True)] for rows in zip(whole, own, strict=True)])
            wanted = {"within": [inside], "between": [outside], "both": [inside, outside]}[scatter]
            misfits += [naive_misfit(*pair) for pair in wanted]
    assert values(made, student, found, x_adv)["cov"] == pytest.approx(sum(misfits) / len(misfits))


@pytest.mark.parametrize("between", ["images", "classes"])
def test_gram_of_features_against_loops(between: str) -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    made = objective(
        student, teacher, projection="identity", gram_of="features", gram=between, lambda_gram=1.0, lambda_cov=0.0
    )
    misfits = []
    with torch.no_grad():
        for x in (found.x, x_adv):
            products = []
            for network in (student, teacher):
                rows = network.forward_features(x).pooled.tolist()
                vectors = rows if between == "images" else [list(column) for column in zip(*rows, strict=True)]
                products.append([[sum(a * b for a, b in zip(u, v, strict=True)) for v in vectors] for u in vectors])
            misfits.append(naive_misfit(*products))
    assert values(made, student, found, x_adv)["gram"] == pytest.approx(sum(misfits) / 2)


def test_features_of_every_stage_are_paired_from_the_last() -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    made = objective(student, teacher, features="stages", projection="identity", lambda_cov=1.0, lambda_gram=0.0)
    misfits = []
    with torch.no_grad():
        for x in (found.x, x_adv):
            for width in (1, 5):
                pair = [naive_covariance(n.forward_features(x).pooled[:, :width]) for n in (student, teacher)]
                misfits.append(naive_misfit(*pair))
    assert values(made, student, found, x_adv)["cov"] == pytest.approx(sum(misfits) / 4)

    def shortened(x: Tensor) -> Features:
        whole = Tiny.forward_features(teacher, x)
        return replace(whole, stages=whole.stages[1:])

    few = Tiny(5, seed=1)
    few.forward_features = shortened  # type: ignore[method-assign]
    assert objective(student, few, features="stages").additions[0].projections.levels == 1


def test_running_statistics_mix_in_the_past_once_a_step() -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    options = {"projection": "identity", "statistics": "ema", "decay": 0.8, "lambda_cov": 1.0, "lambda_gram": 0.0}
    made, plain = (objective(student, teacher, **{**options, "statistics": kind}) for kind in ("ema", "batch"))
    found, x_adv = batch(teacher)
    first = values(made, student, found, x_adv)
    assert first == values(plain, student, found, x_adv) == values(made, student, found, x_adv)
    made.after_step()
    other, other_adv = replace(found, x=found.x.flip(3)), x_adv.flip(3)
    misfits = []
    with torch.no_grad():
        for old, new in ((found.x, other.x), (x_adv, other_adv)):
            matrices = [
                0.8 * covariance(n.forward_features(old).pooled) + 0.2 * covariance(n.forward_features(new).pooled)
                for n in (student, teacher)
            ]
            misfits.append(float(misfit(*matrices)))
    assert values(made, student, other, other_adv)["cov"] == pytest.approx(sum(misfits) / 2)
    fresh = objective(student, teacher, **options)
    fresh.load_state_dict(made.state_dict())  # as a checkpoint does
    assert values(fresh, student, other, other_adv) == values(made, student, other, other_adv)


def covariance_gradient(f: Tensor, outer: Tensor) -> Tensor:
    """∂⟨outer, C(f)⟩/∂f in loops, for a symmetric `outer` (D,D): 2 / (B − 1) · outer (f_i − mean)."""
    rows, slope, width = f.tolist(), outer.tolist(), range(f.shape[1])
    mean = [sum(row[d] for row in rows) / len(rows) for d in width]
    return torch.tensor(
        [[2 / (len(rows) - 1) * sum(slope[d][e] * (row[e] - mean[e]) for e in width) for d in width] for row in rows],
        dtype=torch.float64,
    )


def test_the_gradient_of_running_statistics_is_as_large_as_the_batchs() -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    options = {"projection": "identity", "decay": 0.8, "lambda_cov": 1.0, "lambda_gram": 1.0, "gram": "classes"}
    running, plain = (objective(student, teacher, statistics=kind, **options) for kind in ("ema", "batch"))
    found, x_adv = batch(teacher)
    weights = list(student.parameters())

    def gradients(made: Objective, *names: str, seen: TrainingBatch = found, adv: Tensor = x_adv) -> list[Tensor]:
        parts = made.parts(student, seen, adv)
        return list(torch.autograd.grad(sum(parts[name] for name in names), weights, allow_unused=True))

    running.parts(student, found, x_adv)
    running.after_step()  # the statistics stand still: the past is the batch
    for mine, theirs in zip(gradients(running, "cov", "gram"), gradients(plain, "cov", "gram"), strict=True):
        torch.testing.assert_close(mine, theirs)
    other, other_adv = replace(found, x=found.x.flip(3)), x_adv.flip(3)  # and where they move, loops say the same
    wanted = [torch.zeros_like(weight) for weight in student.body.parameters()]
    for old, new in ((found.x, other.x), (x_adv, other_adv)):
        f = student.forward_features(new).pooled
        mixed = [
            0.8 * covariance(n.forward_features(old).pooled.detach())
            + 0.2 * covariance(n.forward_features(new).pooled.detach())
            for n in (student, teacher)
        ]
        outer = (mixed[0] - mixed[1]) / mixed[1].square().sum()  # 2 (S − T) / ‖T‖², half of it for each view
        for total, part in zip(
            wanted, torch.autograd.grad(f, list(student.body.parameters()), covariance_gradient(f, outer)), strict=True
        ):
            total += part
    got = gradients(running, "cov", seen=other, adv=other_adv)[:2]
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_weights_rise_over_the_warm_up() -> None:
    student, teacher = Tiny(5, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    full = values(objective(student, teacher, **ALL), student, found, x_adv)
    slow = objective(student, teacher, warmup=0.4, **ALL)
    for progress, share in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)):
        parts = values(slow, student, replace(found, progress=progress), x_adv)
        for name in ("cov", "gram", "gap"):
            assert parts[name] == pytest.approx(share * full[name])
        assert parts["kl_clean"] == full["kl_clean"]


def test_the_gap_penalty_is_paid_only_above_the_teachers() -> None:
    clean = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(gap(clean, 2 * clean, "relative")) == pytest.approx(3.0)
    assert float(gap(clean, 0.5 * clean, "relative")) == pytest.approx(-0.75)
    assert float(gap(clean, clean, "relative")) == 0.0
    trace = float(covariance(clean).trace())
    assert float(gap(clean, 2 * clean, "absolute")) == pytest.approx(3 * trace)
    torch.testing.assert_close(gap(clean, 2 * clean, "vector"), 3 * covariance(clean).diagonal() / trace)
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, _ = batch(teacher)
    wide = replace(found, x=found.x * 0.2)  # the "adversarial" images vary more than the clean ones, for both
    paid = []
    for network in (student, teacher):
        with torch.no_grad():
            a, b = (network.forward_features(x).pooled for x in (wide.x, found.x))
        paid.append(float(gap(a, b, "relative").abs()))
    got = values(objective(student, teacher, **ALL), student, wide, found.x)["gap"]
    assert got == pytest.approx(max(0.0, paid[0] - paid[1]))
    back = values(
        objective(teacher, student, projection="learned", **ALL), teacher, replace(wide, teacher=student), found.x
    )
    assert back["gap"] == pytest.approx(max(0.0, paid[1] - paid[0])) and (got > 0) != (back["gap"] > 0)


def test_a_weight_of_zero_drops_its_term() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    bare = values(objective(student, teacher, lambda_cov=0.0, lambda_gram=0.0), student, found, x_adv)
    assert bare == pytest.approx(values(objective(student, teacher, "rslad"), student, found, x_adv))


def test_the_teacher_is_never_moved() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    vgap = objective(student, teacher, projection="learned")
    found, x_adv = batch(teacher)
    torch.stack(list(vgap.parts(student, found, x_adv).values())).sum().backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert [name for name, _ in vgap.state.named_parameters()] == ["additions.0.projections.maps.0.weight"]
    assert isinstance(vgap.additions[0], VarianceGap)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_features_scaled_by_a_cost_a_squared_minus_one_squared(scale: float) -> None:
    f = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(misfit(covariance(scale * f), covariance(f))) == pytest.approx((scale**2 - 1) ** 2)


@pytest.mark.parametrize("between", ["images", "classes"])
@pytest.mark.parametrize("projection", ["principal", "learned"])
def test_vgap_against_naive_loops(between: str, projection: str) -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    vgap = objective(
        student, teacher, gram=between, projection=projection, lambda_cov=0.3, lambda_gram=0.7, lambda_gap=0.2
    )
    added = vgap.additions[0]
    found, x_adv = batch(teacher)
    parts = values(vgap, student, found, x_adv)
    cov, gram_, gaps = [], [], {"s": [], "t": []}
    with torch.no_grad():
        for x in (found.x, x_adv):
            s, t = student.forward_features(x), teacher.forward_features(x)
            mapped = added.projections.student(s)[0], added.projections.teacher(t)[0]
            cov.append(naive_misfit(naive_covariance(mapped[0]), naive_covariance(mapped[1])))
            gram_.append(naive_misfit(naive_gram(s.logits, between), naive_gram(t.logits, between)))
            for who, features in (("s", s), ("t", t)):
                matrix = naive_covariance(features.pooled)
                gaps[who].append(sum(matrix[d][d] for d in range(len(matrix))))
        adv, clean = student(x_adv), student(found.x)
        target = teacher(found.x)
    mine, theirs = (abs(v[1] - v[0]) / v[0] for v in (gaps["s"], gaps["t"]))
    want = {
        "kl_adversarial": 5 / 6 * naive_kl(target, adv),
        "kl_clean": 1 / 6 * naive_kl(target, clean),
        "cov": 0.3 * sum(cov) / 2,
        "gram": 0.7 * sum(gram_) / 2,
        "gap": 0.2 * max(0.0, mine - theirs),
    }
    assert parts == pytest.approx(want)


def test_principal_directions_are_orthonormal_and_carry_the_most_variance() -> None:
    g = torch.Generator().manual_seed(0)
    f = torch.randn(400, 6, generator=g, dtype=torch.float64) * torch.tensor([5.0, 4, 3, 0.2, 0.1, 0.1])
    rows = principal_directions(f, 3)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3, dtype=torch.float64))
    kept, whole = covariance(f @ rows.T).trace(), covariance(f).trace()
    assert float(kept / whole) > 0.99
    torch.testing.assert_close(principal_directions(f.clone(), 3), rows)


@pytest.mark.parametrize(
    ("projection", "widths", "what"),
    [("identity", (3, 5), "equal widths"), ("principal", (5, 3), "at least as wide")],
)
def test_projections_that_cannot_work_are_refused(projection: str, widths: tuple[int, int], what: str) -> None:
    with pytest.raises(CompressError, match=what):
        objective(Tiny(widths[0], 1), Tiny(widths[1], 2), projection=projection)


def test_gram_of_one_hot_scores_counts_equal_predictions() -> None:
    scores = torch.eye(3)[[0, 0, 1]]
    torch.testing.assert_close(gram(scores, "images"), torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))
    torch.testing.assert_close(gram(scores, "classes"), torch.diag(torch.tensor([2.0, 1, 0])))


def test_directions_come_from_no_more_images_than_they_need() -> None:
    drawn = []

    class Clean:
        def __iter__(self) -> Iterator[Tensor]:
            for number in range(100):
                drawn.append(number)
                yield torch.rand(500, 1, 2, 2, dtype=torch.float64, generator=generator(number))

    made = registry.build_objective("vgap", {}, Tiny(3, 1), Tiny(5, 2), Clean())
    assert max(drawn) == ENOUGH // 500 - 1 and made.additions[0].projections.levels == 1
